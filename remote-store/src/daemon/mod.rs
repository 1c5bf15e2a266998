//! A store behind a Nix daemon: the same pipelining over the daemon's protocol.
//!
//! Everything that one piece of work asks is sent ahead, as far as the [window](Window) allows, while the answers are read at the
//! same time. The side that sends stays open until the last answer has come: a daemon drops what it still owes once its input
//! has ended.

mod ahead;
pub(crate) mod destination;
mod options;
pub(crate) mod source;

use std::{path::Path, sync::Arc};

use ncc_protocol::{
    ProtocolError,
    worker::{AnswerError, Answers as AnswersOf, Daemon, LogMessage, SAFE_WINDOW, Version},
};
use ncc_store::{Side, StoreDir, StoreError, StorePath};
use ncc_transport::{LineSink, Reader, UnixSocket, throttled};

pub use options::DaemonOptions;

use self::ahead::Window;
use crate::{
    RemoteError,
    pool::Pool,
    requisites::{Listing, Requisites},
    route::Routes,
    session::{Answers, Lease, Opening},
    store::store_error,
};

/// The level of an activity that a person sees without asking for more.
const SHOWN_LEVEL: u32 = 3;

/// A Nix store behind a daemon on this machine. (A [`RemoteStore`](crate::RemoteStore) reaches one on a host.) Clones share the connection, which is made when it is first needed.
///
/// One piece of work has the connection to itself, so that questions wait while paths are transferred. A connection that has
/// failed is replaced by a new one when it is next needed; nothing is protected from the garbage collector then until it is
/// asked for again.
///
/// The daemon decides what a user may do. Paths without a signature that it trusts are refused one by one if it does not trust the
/// user.
#[derive(Clone)]
pub struct DaemonStore {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    name: String,
    pool: Arc<Pool>,
    options: DaemonOptions,
    /// What the daemon says between answers goes here.
    log: Option<LineSink>,
    reach: Reach,
    /// What lists closures beside the daemon, where there is more than a socket.
    requisites: Option<Requisites>,
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
        let opening = Opening {
            stall_timeout: options.stall_timeout,
            stderr: options.stderr.clone(),
            greeted: options.greeted.clone(),
        };
        let pool = Pool::new(Routes::to_socket(name.clone(), UnixSocket::new(socket)), opening, 0);
        Self::new(&name, Arc::new(pool), Reach::Socket, None, options)
    }

    /// The store on a host, through connections that others use as well.
    pub(crate) fn on_host(
        name: &str,
        pool: Arc<Pool>,
        is_root: bool,
        requisites: Requisites,
        options: DaemonOptions,
    ) -> Self {
        Self::new(name, pool, Reach::Login { is_root }, Some(requisites), options)
    }

    fn new(
        name: &str,
        pool: Arc<Pool>,
        reach: Reach,
        requisites: Option<Requisites>,
        options: DaemonOptions,
    ) -> Self {
        let log = options.stderr.clone().map(throttled);
        Self { shared: Arc::new(Shared { name: name.to_owned(), pool, options, log, reach, requisites }) }
    }

    /// Ends the connection, if there is one: the daemon lets go of its temporary roots.
    pub async fn close(&self) {
        self.shared.pool.close().await;
    }
}

/// One piece of work with the daemon: both directions, and what is known about its other end.
pub(crate) struct Work {
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
        Ok(self.work(lease))
    }

    /// Work over a connection of which is known that there is a daemon at its other end.
    pub(crate) fn work(&self, lease: Lease) -> Work {
        let daemon = lease.daemon().cloned().unwrap_or_else(|| Daemon::of_version(Version::OLDEST));
        let window = self.window(&daemon);
        Work { lease, daemon, window }
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

    /// Has a closure listed beside the daemon, where the account lets other commands pass as well.
    fn list(&self, roots: &[StorePath]) -> Option<Listing> {
        let requisites = self.requisites.as_ref().filter(|_| !self.pool.needed_another_command())?;
        Some(requisites.list(self.store_dir(), roots))
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
