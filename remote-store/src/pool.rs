//! The sessions with one host: one for questions, any number for data, all behind one authentication.

use std::{
    sync::{
        Arc, Mutex as StdMutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
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
    error::reason,
    options::HAVE_NO_SERVE,
    route::{Language, Routes},
    session::{Lease, Opening, ReadAnswer, Session},
    silence::Patience,
    wire::Filter,
};

/// How long to wait before a host is tried again that hung up before any login: it drops new connections at random while it
/// is busy, and a few seconds later that is over.
const PAUSES: [Duration; 1] = [Duration::from_secs(1)];

/// Sessions, each opened when it is first needed, and anew when it broke.
pub(crate) struct Pool {
    routes: Routes,
    opening: Opening,
    questions: Slot,
    data: Vec<Slot>,
    next: AtomicUsize,
    way: StdMutex<Way>,
    /// Why another route is gone than the first, until a server greets.
    refusal: StdMutex<Option<Arc<RemoteError>>>,
    /// Whether a server has greeted, which was told.
    told: AtomicBool,
}

/// How the service is reached. Found out once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Way {
    /// Which of the routes is gone.
    route: usize,
    /// How often it was waited because the host hung up before any login.
    pauses: usize,
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
    pub(crate) fn new(routes: Routes, opening: Opening, data_sessions: usize) -> Self {
        let data = (0..data_sessions).map(|_| Slot::default()).collect();
        Self {
            routes,
            opening,
            questions: Slot::default(),
            data,
            next: AtomicUsize::new(0),
            way: StdMutex::default(),
            refusal: StdMutex::default(),
            told: AtomicBool::new(false),
        }
    }

    /// What is spoken with the service, as far as it is known.
    pub(crate) fn spoken(&self) -> Option<Language> {
        let way = self.way();
        let language = self.routes.get(way.route)?.language;
        // The first route may turn out to lead to a daemon.
        (language == Language::Daemon || self.told.load(Ordering::Acquire)).then_some(language)
    }

    /// One question of the serve protocol with its answer. Others may be under way.
    ///
    /// If it turns out that this is not what is [`spoken`](Self::spoken), the error says nothing.
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
        self.with_session(&self.questions, Some(Language::Serve), &work).await
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
            self.with_session(&self.questions, None, &work).await?.give_back();
            match self.with_session(slot, None, &work).await {
                Err(error) if is_session_refused(&error) => {
                    tracing::info!(%error, "the host has no room for another session");
                }
                result => return result,
            }
        }
        self.with_session(&self.questions, None, &work).await
    }

    /// A session for one transfer that goes through a filter; it ends with the transfer. Somebody must have logged in already.
    pub(crate) async fn lease_apart(
        &self,
        connector: Arc<dyn Connector>,
        filter: &Filter,
    ) -> Result<Lease, Arc<RemoteError>> {
        let session =
            Arc::new(Session::open(&self.routes.apart(connector), &self.opening, Some(filter)).await?);
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
    pub(crate) fn needed_another_command(&self) -> bool {
        self.way().route > 0
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

    /// Does `work` with the slot's session; again with another one where the host did not let the first be. If all fail, the first
    /// error is the one that counts.
    async fn with_session<T>(
        &self,
        slot: &Slot,
        language: Option<Language>,
        work: &Work<'_, T>,
    ) -> Result<T, Arc<RemoteError>> {
        loop {
            let (session, way) = self.session(slot).await?;
            if language.is_some_and(|language| language != session.language()) {
                return Err(Arc::new(RemoteError::Closed));
            }
            let error = match work(Arc::clone(&session)).await {
                Ok(value) => {
                    self.note_greeted(&session, way);
                    return Ok(value);
                }
                Err(error) => error,
            };
            if session.waits_for_another_language() {
                continue;
            }
            let (error, has_started) = session.explain(error).await;
            if session.is_abandoned().await {
                // Not ours to explain: the next session is as good as this one was.
                continue;
            }
            if session.is_greeted() {
                return Err(error);
            }
            if !self.has_another_way(way, &error, has_started).await {
                let refusal = lock(&self.refusal).clone();
                return Err(match refusal {
                    Some(source) if source.says_no_serve() => source.and_no_daemon(error),
                    // One of the two says when something of ours runs.
                    Some(_) if has_started => error,
                    Some(source) if error.failure().is_none_or(|failure| !failure.is_temporary()) => {
                        Arc::new(RemoteError::NotAllowed { source })
                    }
                    _ => error,
                });
            }
        }
    }

    /// The session of a slot, and which way it was opened.
    async fn session(&self, slot: &Slot) -> Result<(Arc<Session>, Way), Arc<RemoteError>> {
        // Whoever comes second waits here, and finds it open.
        let mut state = slot.0.lock().await;
        loop {
            let before = match &*state {
                State::Closed => return Err(Arc::new(RemoteError::Closed)),
                State::Open(session, way) if !session.is_broken() => {
                    return Ok((Arc::clone(session), *way));
                }
                State::Open(session, _) if session.waits_for_another_language() => Some(Arc::clone(session)),
                State::Open(..) | State::Empty => None,
            };
            if let (Some(session), Some(number)) = (before, self.routes.found) {
                let way = Way { route: number, ..self.way() };
                *lock(&self.way) = way;
                let found = session.found();
                if let Some(route) = self.routes.get(number) {
                    self.routes.tell(route, found);
                    let session = session.begin_anew(route).await;
                    *state = session.map_or(State::Empty, |session| State::Open(Arc::new(session), way));
                }
                continue;
            }
            let way = self.way();
            let Some(route) = self.routes.get(way.route) else {
                return Err(Arc::new(RemoteError::Closed));
            };
            match Session::open(route, &self.opening, None).await {
                Ok(session) => *state = State::Open(Arc::new(session), way),
                Err(error) => {
                    let error = Arc::new(error);
                    if !self.has_another_way(way, &error, false).await {
                        return Err(error);
                    }
                }
            }
        }
    }

    fn way(&self) -> Way {
        *lock(&self.way)
    }

    /// A session has greeted: from now on it is known what is spoken.
    fn note_greeted(&self, session: &Session, way: Way) {
        if !self.told.swap(true, Ordering::AcqRel) {
            lock(&self.refusal).take();
            // What was found has told of itself.
            if let Some(route) = self.routes.get(way.route).filter(|_| Some(way.route) != self.routes.found) {
                self.routes.tell(route, session.found());
            }
        }
    }

    /// Whether a session that failed before its greeting, and was opened this `way`, is worth another try: a busy host is
    /// tried again, after a pause; and an account that runs only certain commands gets the plain ones. At most one login
    /// more comes of the latter, unless it has said two different things.
    async fn has_another_way(&self, way: Way, error: &Arc<RemoteError>, has_started: bool) -> bool {
        let pause = {
            let mut known = lock(&self.way);
            if *known != way {
                // Somebody else has found out meanwhile.
                return true;
            }
            let Some(route) = self.routes.get(way.route) else { return false };
            if error.failure().is_some_and(Failure::happened_before_login) {
                let Some(pause) = PAUSES.get(known.pauses) else { return false };
                known.pauses += 1;
                *pause
            } else {
                let lacks = error.says_no_serve();
                let mut refusal = lock(&self.refusal);
                // Of a program that does not say that it runs, only words can tell that it did; unless the account is known.
                let may_be_refused = route.is_script || refusal.is_some() || !error.is_of_the_program();
                let refuses = !has_started && may_be_refused && error.can_be_a_forced_command();
                let next = route.lacking.filter(|_| lacks).or(route.refused.filter(|_| refuses));
                let Some(next) = next else { return false };
                let repeats =
                    refusal.as_ref().is_some_and(|refusal| refusal.to_string() == error.to_string());
                if !self.routes.share() && repeats && !lacks {
                    return false;
                }
                tracing::info!(%error, "the host may not have let the command pass, trying another one");
                refusal.get_or_insert_with(|| Arc::clone(error));
                known.route = next;
                return true;
            }
        };
        tracing::warn!("{error}; the host may be busy, trying again in {} s", pause.as_secs());
        // Not all at once, where many copies were started at once.
        let jitter = Duration::from_millis(u64::from(std::process::id() % 1000));
        tokio::time::sleep(pause + jitter).await;
        true
    }
}

/// The answer to a question about no path.
fn read_no_paths(reader: &mut WireReader<Reader>) -> BoxFuture<'_, Result<(), ProtocolError>> {
    Box::pin(async move {
        read_valid_paths(reader, &StoreDir::default(), &StorePathSet::default()).await.map(drop)
    })
}

fn lock<T>(mutex: &StdMutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Whether it is a program's word that it has no serve protocol, before any greeting.
    fn says_no_serve(&self) -> bool {
        matches!(self, Self::Ended { stderr, .. } if HAVE_NO_SERVE.iter().any(|words| reason(stderr).contains(words)))
    }

    /// Neither is there: this is what was said of the serve protocol, and `other` what became of the attempt to reach the daemon.
    fn and_no_daemon(&self, other: Arc<Self>) -> Arc<Self> {
        match &*other {
            Self::ProgramNotFound { .. } | Self::Ended { .. } | Self::NoServer { .. } => {
                Arc::new(Self::NoServer { why: format!("{self}; {other}") })
            }
            _ => other,
        }
    }

    /// Whether an account that runs only certain commands may end another one like this: with any status, and with words
    /// anywhere or none.
    fn can_be_a_forced_command(&self) -> bool {
        match self {
            Self::Ended { .. }
            | Self::Lost { .. }
            | Self::ProgramNotFound { .. }
            | Self::NoServer { .. }
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
