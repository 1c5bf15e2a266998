//! The first channel of a connection that several share: it has logged in before any other starts.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use ncc_transport::{BoxFuture, Channel, ChannelControl, Exit, Reader, TransportError};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use tokio::{
    io::{AsyncRead, ReadBuf},
    time::{Instant, sleep},
};

/// How often is looked whether the first channel has logged in.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How long after the first words of the command there the control socket may take: ssh makes it before it asks for a session.
const SOCKET_GRACE: Duration = Duration::from_millis(500);

/// What is known of the ssh of the first channel, whoever holds the channel.
#[derive(Debug, Clone)]
pub(crate) struct First {
    process: Option<Pid>,
    /// The channel was waited for to its end, or dropped.
    ended: Arc<AtomicBool>,
    /// Something came on stdout: it has logged in.
    spoke: Arc<AtomicBool>,
}

impl First {
    /// Watches a channel that has just been opened.
    pub(crate) fn watch(channel: Channel) -> (Self, Channel) {
        let process = channel.control.process_id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let first = Self { process, ended: Arc::default(), spoke: Arc::default() };
        let Channel { stdin, stdout, stderr, control } = channel;
        let stdout = Box::new(Listening { stdout, spoke: Arc::clone(&first.spoke) });
        let control = Box::new(Watched { control, ended: Arc::clone(&first.ended) });
        (first, Channel { stdin, stdout, stderr, control })
    }

    fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        // An error means that its status was fetched: it is gone.
        self.ended.load(Ordering::Relaxed)
            || self.process.is_some_and(|pid| !matches!(waitid(WaitId::Pid(pid), options), Ok(None)))
    }

    /// Begins to wait for it.
    pub(crate) fn wait(&self, patience: Option<Duration>) -> Waiting {
        Waiting { first: self.clone(), patience, start: Instant::now(), spoke_at: None }
    }
}

/// Another channel's wait for the first one.
#[derive(Debug)]
pub(crate) struct Waiting {
    first: First,
    patience: Option<Duration>,
    start: Instant,
    spoke_at: Option<Instant>,
}

/// Whether there is anything left to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prospect {
    /// It may still come up.
    Good,
    /// The first channel has ended: another has to be the first.
    Ended,
    /// It has logged in and left nothing to share, or took too long: whoever waits starts all the same.
    NothingToShare,
}

impl Waiting {
    /// To be asked while nothing can be shared yet; takes a moment.
    pub(crate) async fn prospect(&mut self) -> Prospect {
        if self.first.has_ended() {
            return Prospect::Ended;
        }
        if self.first.spoke.load(Ordering::Relaxed) {
            self.spoke_at.get_or_insert_with(Instant::now);
        }
        let has_no_socket = self.spoke_at.is_some_and(|at| at.elapsed() > SOCKET_GRACE);
        if has_no_socket || self.patience.is_some_and(|patience| self.start.elapsed() > patience) {
            return Prospect::NothingToShare;
        }
        sleep(LOOK_EVERY).await;
        Prospect::Good
    }
}

#[derive(Debug)]
struct Watched {
    control: Box<dyn ChannelControl>,
    ended: Arc<AtomicBool>,
}

impl ChannelControl for Watched {
    fn wait(&mut self) -> BoxFuture<'_, Result<Exit, TransportError>> {
        Box::pin(async {
            let exit = self.control.wait().await;
            self.ended.store(true, Ordering::Relaxed);
            exit
        })
    }

    fn kill(&mut self) {
        self.control.kill();
    }

    fn process_id(&self) -> Option<u32> {
        self.control.process_id()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

struct Listening {
    stdout: Reader,
    spoke: Arc<AtomicBool>,
}

impl AsyncRead for Listening {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stdout).poll_read(context, buffer);
        if polled.is_ready() {
            self.spoke.store(true, Ordering::Relaxed);
        }
        polled
    }
}
