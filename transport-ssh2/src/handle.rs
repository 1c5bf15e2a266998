//! Where callers and a driver meet.

use std::{
    collections::VecDeque,
    fmt, io,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{error::ConnectionError, stream::ChannelState, wake::Wake};

/// What one connection's driver shares with everybody who uses the connection.
#[derive(Debug)]
pub(crate) struct DriverHandle {
    inbox: Mutex<Inbox>,
    pub(crate) wake: Wake,
}

#[derive(Debug, Default)]
struct Inbox {
    requests: VecDeque<Request>,
    /// There was a request.
    started: bool,
    /// The driver takes no more.
    closed: bool,
    /// Nobody will ask for more, and all channels are gone.
    released: bool,
}

/// A channel that somebody wants.
pub(crate) struct Request {
    pub(crate) what: Wanted,
    pub(crate) shared: Arc<ChannelState>,
    pub(crate) interest: Arc<Interest>,
    pub(crate) reply: Reply,
}

/// Is called once, on a thread of the connection's.
pub(crate) type Reply = Box<dyn FnOnce(Result<(), ConnectionError>) + Send>;

/// What a channel is to be.
#[derive(Debug)]
pub(crate) enum Wanted {
    /// A session that runs this command.
    Command(String),
    /// A connection from the host to there, whose bytes go through this socket.
    Forward {
        host: String,
        port: u16,
        through: UnixStream,
        /// How long the host may take to connect; as it likes, without.
        patience: Option<Duration>,
    },
}

impl Wanted {
    /// When one that was asked for at that time is given up. A command may take as long as it likes to start: whoever waits for it can
    /// leave, and the other channels of the connection go on meanwhile.
    pub(crate) fn given_up_at(&self, since: Instant) -> Option<Instant> {
        match self {
            Self::Command(_) => None,
            Self::Forward { patience, .. } => since.checked_add((*patience)?),
        }
    }
}

/// Whether somebody still waits for a reply.
#[derive(Debug, Default)]
pub(crate) struct Interest(AtomicBool);

impl Interest {
    pub(crate) fn lose(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("what", &self.what).finish_non_exhaustive()
    }
}

impl DriverHandle {
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self { inbox: Mutex::default(), wake: Wake::new()? }))
    }

    /// Whether this is the first, for which the driver has to be started. Gives the request back if the driver has ended.
    pub(crate) fn ask(&self, request: Request) -> Result<bool, Request> {
        let mut inbox = self.inbox();
        if inbox.closed {
            return Err(request);
        }
        inbox.requests.push_back(request);
        let first = !std::mem::replace(&mut inbox.started, true);
        drop(inbox);
        self.wake.wake();
        Ok(first)
    }

    /// The next request that somebody still waits for.
    pub(crate) fn next(&self) -> Option<Request> {
        let mut inbox = self.inbox();
        std::iter::from_fn(|| inbox.requests.pop_front()).find(|request| !request.interest.is_lost())
    }

    /// Whether nobody needs the connection: all who asked for a channel went away, and none has one.
    pub(crate) fn is_forsaken(&self) -> bool {
        let inbox = self.inbox();
        inbox.released || inbox.requests.iter().all(|request| request.interest.is_lost())
    }

    /// Whether nobody can ever ask for anything again.
    pub(crate) fn is_released(&self) -> bool {
        self.inbox().released
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.inbox().closed
    }

    /// From now on no request is taken; those that wait get this answer.
    pub(crate) fn close(&self, error: &ConnectionError) {
        let requests = {
            let mut inbox = self.inbox();
            inbox.closed = true;
            std::mem::take(&mut inbox.requests)
        };
        for request in requests {
            (request.reply)(Err(error.clone()));
        }
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a connection alive. Its driver ends after the last of these.
#[derive(Debug)]
pub(crate) struct ConnectionLease(pub(crate) Arc<DriverHandle>);

impl ConnectionLease {
    pub(crate) fn wake(&self) {
        self.0.wake.wake();
    }
}

impl Drop for ConnectionLease {
    fn drop(&mut self) {
        self.0.inbox().released = true;
        self.0.wake.wake();
    }
}
