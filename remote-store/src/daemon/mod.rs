//! A store behind a Nix daemon: the same pipelining over the daemon's protocol.
//!
//! Everything that one piece of work asks is sent ahead, as far as the [window](Window) allows, while the answers are read at the
//! same time. The side that sends stays open until the last answer has come: a daemon drops what it still owes once its input
//! has ended.

mod ahead;
mod destination;
mod options;
mod source;

use std::{path::Path, sync::Arc};

use ncc_protocol::{
    ProtocolError,
    worker::{AnswerError, Answers as AnswersOf, Daemon, LogMessage, SAFE_WINDOW, Version},
};
use ncc_store::{Side, StoreDir, StoreError, StorePath};
use ncc_transport::{CommandOnHost, Connector, LineSink, Reader, Transport, UnixSocket, throttled};

pub use options::{DaemonOptions, DaemonProgram};

use self::ahead::Window;
use crate::{
    RemoteError, ServeProgram,
    pool::{Connectors, Pool},
    session::{Answers, Lease, Opening, Protocol},
    store::store_error,
};

/// The level of an activity that a person sees without asking for more.
const SHOWN_LEVEL: u32 = 3;

/// A Nix store behind a daemon, on this machine or on a host. Clones share the connection, which is made when it is first needed.
///
/// One piece of work has the connection to itself, so that questions wait while paths are transferred. A connection that has
/// failed is replaced by a new one when it is next needed; nothing is protected from the garbage collector then until it is
/// asked for again.
///
/// The daemon decides what a user may do. Paths without a signature that it trusts are refused one by one if it does not trust the
/// user.
#[derive(Clone)]
pub struct DaemonStore {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    pool: Pool,
    options: DaemonOptions,
    /// What the daemon says between answers goes here.
    log: Option<LineSink>,
    reach: Reach,
}

/// What stands between this program and the daemon.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Nothing but a socket.
    Socket,
    /// A `nix-daemon --stdio`, which opens the store itself for whoever may write it.
    Login { is_root: bool },
}

impl std::fmt::Debug for DaemonStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("DaemonStore").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

impl DaemonStore {
    /// The store of the daemon that listens at `socket` on this machine. Nothing is connected yet.
    pub fn at_socket(socket: &Path, options: DaemonOptions) -> Self {
        let name = format!("the daemon at '{}'", socket.display());
        let connectors = Connectors {
            first: Arc::new(UnixSocket::new(socket)),
            first_says_that_it_runs: true,
            second: None,
        };
        Self::new(name, connectors, "the daemon", Reach::Socket, options)
    }

    /// The store on the host that `transport` leads to, through the `nix-daemon --stdio` that `program` names. Nothing is
    /// started yet.
    pub fn on_host(transport: &Arc<dyn Transport>, program: &DaemonProgram, options: DaemonOptions) -> Self {
        let name = format!("host '{}'", transport.describe());
        let on_host =
            |command| -> Arc<dyn Connector> { Arc::new(CommandOnHost::new(Arc::clone(transport), command)) };
        let connectors = Connectors {
            first: on_host(program.command()),
            first_says_that_it_runs: program.program == ServeProgram::Search,
            second: Some(on_host(program.second_command())),
        };
        let reach = Reach::Login { is_root: program.runs_as_root() };
        Self::new(name, connectors, program.name(), reach, options)
    }

    fn new(
        name: String,
        connectors: Connectors,
        program: &str,
        reach: Reach,
        options: DaemonOptions,
    ) -> Self {
        let opening = Opening {
            protocol: Protocol::Daemon(Box::default()),
            program: program.to_owned(),
            stall_timeout: options.stall_timeout,
            stderr: options.stderr.clone(),
            greeted: options.greeted.clone(),
        };
        let log = options.stderr.clone().map(throttled);
        let pool = Pool::new(connectors, opening, 0);
        Self { shared: Arc::new(Shared { name, pool, options, log, reach }) }
    }

    /// Ends the connection, if there is one: the daemon lets go of its temporary roots.
    pub async fn close(&self) {
        self.shared.pool.close().await;
    }
}

/// One piece of work with the daemon: both directions, and what is known about its other end.
struct Work {
    lease: Lease,
    daemon: Daemon,
    window: Window,
}

impl Shared {
    fn store_dir(&self) -> &StoreDir {
        &self.options.store_dir
    }

    fn failed(
        &self,
        side: Side,
        action: &'static str,
        path: Option<&StorePath>,
        error: impl Into<Arc<RemoteError>>,
    ) -> StoreError {
        store_error(&self.name, side, action, path, error.into())
    }

    /// Takes the connection, and makes it first if there is none.
    async fn begin(&self, side: Side, action: &'static str) -> Result<Work, StoreError> {
        let lease = self.pool.lease().await.map_err(|error| self.failed(side, action, None, error))?;
        let daemon = lease.daemon().cloned().unwrap_or_else(|| Daemon::of_version(Version::OLDEST));
        let window = self.window(&daemon);
        Ok(Work { lease, daemon, window })
    }

    /// How many requests may be unanswered.
    ///
    /// Up to Nix 2.19 (and in every Lix), the `nix-daemon --stdio` of a user who cannot write the store copies bytes between us
    /// and the daemon in one thread, which can stop for good if there are too many of them on their way.
    fn window(&self, daemon: &Daemon) -> Window {
        match self.reach {
            Reach::Login { is_root: false } if daemon.version.minor() < NIX_2_20 => Window::of(SAFE_WINDOW),
            Reach::Socket | Reach::Login { .. } => Window::unlimited(),
        }
    }

    /// Gives the connection back after some work, or ends it and says what happened.
    async fn end<T>(
        &self,
        work: Work,
        side: Side,
        action: &'static str,
        result: Result<T, AnswerError>,
    ) -> Result<T, StoreError> {
        match result {
            Ok(value) => {
                work.lease.give_back();
                Ok(value)
            }
            // Answers that nobody reads any more may be on their way: the lease takes the connection with it.
            Err(AnswerError::Refused(error)) => {
                Err(self.failed(side, action, None, RemoteError::Refused(error)))
            }
            Err(AnswerError::Broken(error)) => {
                let error = work.lease.explain(error).await;
                Err(self.failed(side, action, None, error))
            }
        }
    }

    /// What reads the next answer.
    fn answers<'a>(
        &'a self,
        answers: &'a mut Answers,
        daemon: &'a Daemon,
    ) -> AnswersOf<'a, Reader, impl FnMut(LogMessage) + use<'a>> {
        AnswersOf::new(&mut answers.reader, self.store_dir(), daemon, log_to(self.log.as_ref()))
    }
}

/// The minor version of the protocol from Nix 2.20 on. Lix stays below.
const NIX_2_20: u8 = 37;

/// Writes and reads at once. What was read counts; a failed write only means that reading will tell why.
async fn both<T, E: From<ProtocolError>>(
    write: impl Future<Output = Result<(), ProtocolError>>,
    read: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    use futures_util::future::{Either, select};
    let (write, read) = (std::pin::pin!(write), std::pin::pin!(read));
    match select(write, read).await {
        Either::Left((_, read)) => read.await,
        // All answers can only have come after all requests, but for a daemon that lies.
        Either::Right((Ok(value), write)) => {
            write.await?;
            Ok(value)
        }
        Either::Right((Err(error), _)) => Err(error),
    }
}

/// Hands what a daemon says for people to `sink`, line by line.
pub(crate) fn log_to(sink: Option<&LineSink>) -> impl FnMut(LogMessage) + use<'_> {
    move |message| {
        let text = match &message {
            LogMessage::Line(text) => text,
            LogMessage::Started(activity) if activity.level <= SHOWN_LEVEL => &activity.text,
            _ => return,
        };
        if let Some(sink) = sink {
            text.lines().filter(|line| !line.trim().is_empty()).for_each(|line| sink(line));
        }
    }
}
