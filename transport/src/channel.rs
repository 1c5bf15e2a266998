//! What a transport is, and what it hands back.

use std::fmt;

use futures_core::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{End, Failure, RemoteCommand, TransportError};

/// A way to run commands on one host.
///
/// One value stands for one host and may hold whatever is shared by its channels: an authenticated session, a control socket.
/// [`open`](Self::open) may be called any number of times, also while earlier channels are in use and from several tasks at once;
/// each call is one more channel.
///
/// The traits are object-safe, so that everything above takes `&dyn Transport` or `Arc<dyn Transport>` and never asks which it is.
pub trait Transport: Send + Sync + fmt::Debug {
    /// The host as messages name it, such as `alice@host:2200`.
    fn describe(&self) -> String;

    /// Starts `command` on the host.
    ///
    /// Success does not mean that the host was reached: a transport that spawns a program only knows that the program runs. A
    /// host that cannot be reached then shows as the end of stdout, text on stderr, and an exit status, which
    /// [`explain`](Self::explain) turns into a [`Failure`]. A transport that connects by itself returns
    /// [`TransportError::Connect`] instead.
    ///
    /// A program that does not exist on the host is not an error here either: the channel ends with [`Exit::Code`]`(127)` and
    /// says so on stderr, as every shell does.
    ///
    /// Dropping the future gives up; nothing stays behind.
    fn open<'a>(&'a self, command: &'a RemoteCommand) -> BoxFuture<'a, Result<Channel, TransportError>>;

    /// The same for a command that may only run where it costs no login of its own, since what it is for can be had without it:
    /// behind a login that is there already. Where that has no room for it, it ends like one that cannot be reached.
    fn open_beside<'a>(
        &'a self,
        command: &'a RemoteCommand,
    ) -> BoxFuture<'a, Result<Channel, TransportError>> {
        self.open(command)
    }

    /// Whether the host was not reached, refused us, or was lost, by all that is known of the end, and what can be done.
    ///
    /// `None` means that the transport sees nothing of its own in it: the command ran, and this is the command's own end. A caller
    /// that wants to know why it ended asks [`Ending::of`](crate::Ending::of).
    fn explain(&self, end: &End<'_>) -> Option<Failure> {
        let _ = end;
        None
    }

    /// Has further channels share one login, if that can be had and is not so already. Whether they need none of their own then.
    fn share(&self) -> bool {
        false
    }

    /// A text from stderr without the lines that the transport itself put there although nothing was wrong. What stays was
    /// said by the host.
    fn words_of_the_host(&self, stderr: &str) -> String {
        stderr.to_owned()
    }
}

/// Writes to a command's stdin. `shutdown` is the half close.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// Reads a command's stdout or stderr.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;

/// A running command on a host.
///
/// The parts are public so that tasks can own one each; all three streams must be served at the same time, since a peer that is
/// not read from stops reading. The command belongs to [`control`](Self::control): dropping that ends it.
pub struct Channel {
    /// The command's input. `shutdown` tells it that no more will come and leaves the other streams open; so does dropping.
    pub stdin: Writer,
    /// The command's output, and nothing else.
    pub stdout: Reader,
    /// The command's messages, together with those of the transport itself (ssh's warnings). Usually given to a
    /// [`StderrTail`](crate::StderrTail).
    pub stderr: Reader,
    /// The command's end.
    pub control: Box<dyn ChannelControl>,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("control", &self.control).finish_non_exhaustive()
    }
}

/// The command behind a [`Channel`]: waiting for its end, and ending it.
///
/// Dropping it ends the command in bounded time. On another host that can only mean that the command's three streams are closed:
/// a command that neither reads nor writes runs on, which no SSH server prevents without a terminal.
pub trait ChannelControl: Send + fmt::Debug {
    /// Waits until the command has ended. Cancel safe; further calls return the same.
    ///
    /// A command may wait for the end of its input before it ends: shut stdin down, or drop it, first.
    fn wait(&mut self) -> BoxFuture<'_, Result<Exit, TransportError>>;

    /// Ends the command now, as dropping does, but such that [`wait`](Self::wait) can still be called for.
    fn kill(&mut self);

    /// The process on this machine that stands for the command, if there is one and it has not been waited for.
    fn process_id(&self) -> Option<u32> {
        None
    }
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// It returned this status. OpenSSH also returns 255 for its own failures, and for a remote command that died of a signal.
    Code(i32),
    /// It died of this signal, named as in RFC 4254: `TERM`, `KILL`, without `SIG`.
    Signal(String),
    /// The other side did not say.
    Unknown,
}

impl Exit {
    /// Whether the command says that it succeeded.
    pub fn is_success(&self) -> bool {
        *self == Self::Code(0)
    }

    /// Whether this is what shells return for a program that does not exist.
    pub fn is_command_not_found(&self) -> bool {
        *self == Self::Code(127)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(name) => write!(f, "signal {name}"),
            Self::Unknown => f.write_str("unknown exit status"),
        }
    }
}
