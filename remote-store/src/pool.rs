//! The sessions with one host: one for questions, any number for data, all behind one authentication.

use std::{
    sync::{
        Arc, Mutex as StdMutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use ncc_protocol::{
    ProtocolError,
    serve::{Request, read_valid_paths},
    wire::WireReader,
};
use ncc_store::{StoreDir, StorePathSet, ValidityQuery};
use ncc_transport::{Connector, Failure, FailureKind, Reader, TransportError};
use tokio::{sync::Mutex, time::Instant};

use crate::{
    RemoteError,
    session::{Lease, Opening, ReadAnswer, Session},
    silence::Patience,
    wire::Filter,
};

/// How long to wait before a host is tried once more that hung up before any login: it drops new connections at random while it
/// is busy, and a second or two later that is over.
const PAUSE: Duration = Duration::from_secs(1);

/// Sessions, each opened when it is first needed, and anew when it broke.
pub(crate) struct Pool {
    connectors: Connectors,
    opening: Opening,
    questions: Slot,
    data: Vec<Slot>,
    next: AtomicUsize,
    way: StdMutex<Way>,
}

/// What leads to the service.
pub(crate) struct Connectors {
    pub(crate) first: Arc<dyn Connector>,
    /// Whether the first says when something of ours runs there. Otherwise only words can tell a program that failed from an
    /// account that did not run it, and the second may.
    pub(crate) first_says_that_it_runs: bool,
    /// For where the first is not let through.
    pub(crate) second: Option<Arc<dyn Connector>>,
}

/// Which command the host is given. Found out once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Way {
    /// The account did not let the first command through.
    second: bool,
    /// The host hung up once before any login.
    waited: bool,
}

/// Where a session is kept.
#[derive(Default)]
struct Slot(Mutex<State>);

#[derive(Default)]
enum State {
    #[default]
    Empty,
    Open(Arc<Session>, Way),
    /// For good.
    Closed,
}

/// What is done with a session; may be done again with another one, as long as the host has not greeted.
type Work<'w, T> = dyn Fn(Arc<Session>) -> BoxFuture<'w, Result<T, ProtocolError>> + Send + Sync + 'w;

impl Pool {
    pub(crate) fn new(connectors: Connectors, opening: Opening, data_sessions: usize) -> Self {
        let data = (0..data_sessions).map(|_| Slot::default()).collect();
        Self {
            connectors,
            opening,
            questions: Slot::default(),
            data,
            next: AtomicUsize::new(0),
            way: StdMutex::default(),
        }
    }

    /// One question with its answer. Others may be under way.
    pub(crate) async fn ask<T: Send>(
        &self,
        patience: Patience,
        request: &[u8],
        read: impl ReadAnswer<T> + Clone + Sync,
    ) -> Result<T, Arc<RemoteError>> {
        let read = &read;
        let work = move |session: Arc<Session>| -> BoxFuture<'_, Result<T, ProtocolError>> {
            Box::pin(async move { session.exchange(request, patience, read.clone()).await })
        };
        self.with_session(&self.questions, &work).await
    }

    /// A session for one transfer.
    ///
    /// Sessions for data are opened only when the one for questions is up: then they need no login of their own. Where the
    /// host has no room for them, the one for questions does.
    pub(crate) async fn lease(&self) -> Result<Lease, Arc<RemoteError>> {
        let work = |session: Arc<Session>| -> BoxFuture<'_, Result<Lease, ProtocolError>> {
            Box::pin(async move {
                let mut lease = session.lease().await?;
                lease.greet().await?;
                Ok(lease)
            })
        };
        let number = self.next.fetch_add(1, Ordering::Relaxed) % self.data.len().max(1);
        if let Some(slot) = self.data.get(number) {
            self.with_session(&self.questions, &work).await?.give_back();
            match self.with_session(slot, &work).await {
                Err(error) if is_session_refused(&error) => {
                    tracing::info!(%error, "the host has no room for another session");
                }
                result => return result,
            }
        }
        self.with_session(&self.questions, &work).await
    }

    /// A session for one transfer that goes through a filter; it ends with the transfer. Somebody must have logged in already.
    pub(crate) async fn lease_apart(
        &self,
        connector: Arc<dyn Connector>,
        filter: &Filter,
    ) -> Result<Lease, Arc<RemoteError>> {
        let session = Arc::new(Session::open(connector, &self.opening, Some(filter)).await?);
        match session.lease().await {
            Ok(lease) => Ok(lease),
            Err(error) => Err(session.explain(error).await.0),
        }
    }

    /// How long a question takes to be answered that costs the host nothing.
    pub(crate) async fn round_trip(&self) -> Result<Duration, Arc<RemoteError>> {
        let mut question = Vec::new();
        Request::QueryValidPaths { query: ValidityQuery::default(), paths: Vec::new() }
            .encode(&StoreDir::default(), &mut question);
        let mut shortest = Duration::MAX;
        for _ in 0..3 {
            let start = Instant::now();
            self.ask(Patience::Limited, &question, read_no_paths).await?;
            shortest = shortest.min(start.elapsed());
            // A line that is as long as this is no accident of scheduling.
            if shortest > Duration::from_millis(20) {
                break;
            }
        }
        Ok(shortest)
    }

    /// Whether the account did not let the first command through.
    pub(crate) fn needed_the_second_command(&self) -> bool {
        self.way().second
    }

    /// Ends all sessions and waits for the servers to end: they let go of their temporary roots.
    pub(crate) async fn close(&self) {
        for slot in self.data.iter().chain([&self.questions]) {
            let state = std::mem::replace(&mut *slot.0.lock().await, State::Closed);
            if let State::Open(session, _) = state {
                session.close().await;
            }
        }
    }

    /// Does `work` with the slot's session; once more with another one where the host did not let the first be. If that
    /// fails too, the first error is the one that counts.
    async fn with_session<T>(&self, slot: &Slot, work: &Work<'_, T>) -> Result<T, Arc<RemoteError>> {
        let mut first = None;
        loop {
            let (session, way) = match self.session(slot).await {
                Ok(session) => session,
                Err(error) => return Err(first.unwrap_or(error)),
            };
            let error = match work(Arc::clone(&session)).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let (error, has_started) = session.explain(error).await;
            if session.is_abandoned().await {
                // Not ours to explain: the next session is as good as this one was.
                continue;
            }
            if session.is_greeted() {
                return Err(error);
            }
            let may_go_on = self.another_way(way, &error, has_started).await;
            if may_go_on {
                first.get_or_insert(error);
                continue;
            }
            return Err(match first {
                // One of the two says when something of ours runs.
                Some(_) if way.second && has_started => error,
                Some(source) if way.second && source.can_be_a_forced_command() => {
                    Arc::new(RemoteError::NotAllowed { source })
                }
                first => first.unwrap_or(error),
            });
        }
    }

    /// The session of a slot, and which way it was opened.
    async fn session(&self, slot: &Slot) -> Result<(Arc<Session>, Way), Arc<RemoteError>> {
        // Whoever comes second waits here, and finds it open.
        let mut state = slot.0.lock().await;
        loop {
            match &*state {
                State::Closed => return Err(Arc::new(RemoteError::Closed)),
                State::Open(session, way) if !session.is_broken() => {
                    return Ok((Arc::clone(session), *way));
                }
                State::Open(..) | State::Empty => {}
            }
            let way = self.way();
            let second = self.connectors.second.as_ref().filter(|_| way.second);
            let connector = Arc::clone(second.unwrap_or(&self.connectors.first));
            match Session::open(connector, &self.opening, None).await {
                Ok(session) => *state = State::Open(Arc::new(session), way),
                Err(error) => {
                    let error = Arc::new(error);
                    if !self.another_way(way, &error, false).await {
                        return Err(error);
                    }
                }
            }
        }
    }

    fn way(&self) -> Way {
        *self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a session that failed before its greeting, and was opened this `way`, is worth another try: a busy host is
    /// tried once more, after a pause; and an account that may run only certain commands gets the other one. At most one login
    /// more comes of it.
    async fn another_way(&self, way: Way, error: &RemoteError, has_started: bool) -> bool {
        let wait = {
            let mut known = self.way.lock().unwrap_or_else(PoisonError::into_inner);
            if *known != way {
                // Somebody else has found out meanwhile.
                return true;
            }
            if error.failure().is_some_and(Failure::happened_before_login) && !known.waited {
                known.waited = true;
                true
            } else if !has_started
                && error.can_be_a_forced_command()
                && (self.connectors.first_says_that_it_runs || !error.is_of_the_program())
                && !known.second
                && self.connectors.second.is_some()
            {
                known.second = true;
                tracing::info!(%error, "the host may not have let the command pass, trying the other one");
                false
            } else {
                return false;
            }
        };
        if wait {
            tracing::warn!("{error}; the host may be busy, trying once more in {} s", PAUSE.as_secs());
            // Not all at once, where many copies were started at once.
            let jitter = Duration::from_millis(u64::from(std::process::id() % 1000));
            tokio::time::sleep(PAUSE + jitter).await;
        }
        true
    }
}

/// The answer to a question about no path.
fn read_no_paths(reader: &mut WireReader<Reader>) -> BoxFuture<'_, Result<(), ProtocolError>> {
    Box::pin(async move {
        read_valid_paths(reader, &StoreDir::default(), &StorePathSet::default()).await.map(drop)
    })
}

fn is_session_refused(error: &RemoteError) -> bool {
    error.failure().is_some_and(|failure| failure.kind == FailureKind::SessionRefused)
}

impl RemoteError {
    /// What the transport says of it, if it is the transport's.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Unreached { failure, .. } | Self::Transport(TransportError::Connect { failure, .. }) => {
                Some(failure)
            }
            _ => None,
        }
    }

    /// Whether an account that runs only certain commands may end another one like this: with any status, and with words
    /// anywhere or none.
    fn can_be_a_forced_command(&self) -> bool {
        match self {
            Self::Ended { .. }
            | Self::Lost { .. }
            | Self::ProgramNotFound { .. }
            | Self::Protocol { source: ProtocolError::NoGreeting { .. }, .. } => true,
            Self::Unreached { failure, .. } => failure.kind == FailureKind::LoginShellEnded,
            _ => false,
        }
    }

    /// Whether these are the words of the program, of sudo, or of a shell that does not find it: the account runs commands.
    fn is_of_the_program(&self) -> bool {
        let is_own = |line: &str| line.starts_with("error:") || line.starts_with("sudo:");
        match self {
            Self::Ended { stderr, .. } => stderr.lines().any(is_own),
            Self::ProgramNotFound { .. } => true,
            _ => false,
        }
    }
}
