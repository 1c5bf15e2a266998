//! Streams to a service, whatever is behind it.

use std::{fmt, net::Shutdown, os::unix::net::UnixStream as StdStream, path::PathBuf, sync::Arc};

use futures_core::future::BoxFuture;
use tokio::net::UnixStream;

use crate::{Channel, ChannelControl, End, Exit, Failure, RemoteCommand, Transport, TransportError};

/// A way to reach one service: a [command on a host](CommandOnHost), or [a socket on this machine](UnixSocket). Each call of
/// [`connect`](Self::connect) is one more conversation with it.
///
/// A protocol needs no more than this: it is one layer above [`Transport`], which can start any command.
pub trait Connector: Send + Sync + fmt::Debug {
    /// The service as messages name it, such as `alice@host:2200` or the path of the socket.
    fn describe(&self) -> String;

    /// Begins a conversation. What [`Transport::open`] says of success and of dropping holds here too.
    fn connect(&self) -> BoxFuture<'_, Result<Channel, TransportError>>;

    /// As [`Transport::explain`].
    fn explain(&self, end: &End<'_>) -> Option<Failure> {
        let _ = end;
        None
    }

    /// As [`Transport::words_of_the_host`].
    fn words_of_the_host(&self, stderr: &str) -> String {
        stderr.to_owned()
    }
}

/// The service is a command on a host.
#[derive(Debug, Clone)]
pub struct CommandOnHost {
    transport: Arc<dyn Transport>,
    command: RemoteCommand,
}

impl CommandOnHost {
    /// Each conversation starts `command` over `transport`.
    pub fn new(transport: Arc<dyn Transport>, command: RemoteCommand) -> Self {
        Self { transport, command }
    }

    /// The transport that leads there.
    pub fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    /// The command that is started.
    pub fn command(&self) -> &RemoteCommand {
        &self.command
    }
}

impl Connector for CommandOnHost {
    fn describe(&self) -> String {
        self.transport.describe()
    }

    fn connect(&self) -> BoxFuture<'_, Result<Channel, TransportError>> {
        self.transport.open(&self.command)
    }

    fn explain(&self, end: &End<'_>) -> Option<Failure> {
        self.transport.explain(end)
    }

    fn words_of_the_host(&self, stderr: &str) -> String {
        self.transport.words_of_the_host(stderr)
    }
}

/// The service listens on a Unix domain socket of this machine.
///
/// Its channels have an empty stderr. Their control knows no status: it returns [`Exit::Unknown`] at once, and ends the
/// conversation by closing the connection.
///
/// ```
/// use ncc_transport::{Connector, UnixSocket};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("socket");
/// let listener = tokio::net::UnixListener::bind(&path)?;
/// let mut channel = UnixSocket::new(&path).connect().await?;
/// channel.stdin.write_all(b"hello").await?;
/// channel.stdin.shutdown().await?;
///
/// let mut said = String::new();
/// listener.accept().await?.0.read_to_string(&mut said).await?;
/// assert_eq!(said, "hello");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UnixSocket {
    path: PathBuf,
}

impl UnixSocket {
    /// The socket at this path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl Connector for UnixSocket {
    fn describe(&self) -> String {
        self.path.display().to_string()
    }

    fn connect(&self) -> BoxFuture<'_, Result<Channel, TransportError>> {
        Box::pin(async move {
            let failed = |source| TransportError::Socket { path: self.path.clone(), source };
            let stream = UnixStream::connect(&self.path).await.map_err(failed)?;
            let stream = stream.into_std().map_err(failed)?;
            let control = stream.try_clone().map_err(failed)?;
            let (stdout, stdin) = UnixStream::from_std(stream).map_err(failed)?.into_split();
            Ok(Channel {
                stdin: Box::new(stdin),
                stdout: Box::new(stdout),
                stderr: Box::new(tokio::io::empty()),
                control: Box::new(SocketControl(control)),
            })
        })
    }
}

#[derive(Debug)]
struct SocketControl(StdStream);

impl ChannelControl for SocketControl {
    fn wait(&mut self) -> BoxFuture<'_, Result<Exit, TransportError>> {
        Box::pin(async { Ok(Exit::Unknown) })
    }

    fn kill(&mut self) {
        // The only error is that the other side has closed it.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl Drop for SocketControl {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixListener,
    };

    use super::*;
    use crate::LocalProcess;

    #[tokio::test]
    async fn a_socket_is_a_channel() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let socket = UnixSocket::new(&path);
        assert_eq!(socket.describe(), path.to_str().unwrap());
        let mut channel = socket.connect().await.unwrap();
        let (mut peer, _) = listener.accept().await.unwrap();

        // Half closed: the peer sees the end of our words, and can still answer.
        channel.stdin.write_all(b"question").await.unwrap();
        channel.stdin.shutdown().await.unwrap();
        let mut text = String::new();
        peer.read_to_string(&mut text).await.unwrap();
        peer.write_all(b"answer").await.unwrap();
        let mut answer = [0; 6];
        channel.stdout.read_exact(&mut answer).await.unwrap();
        assert_eq!((text.as_str(), &answer), ("question", b"answer"));
        assert_eq!(channel.stderr.read_to_end(&mut Vec::new()).await.unwrap(), 0);
        assert_eq!(channel.control.wait().await.unwrap(), Exit::Unknown);

        // Dropping the control ends it for both, whoever still holds a stream.
        let Channel { stdin: _stdin, mut stdout, control, .. } = channel;
        drop(control);
        assert_eq!(stdout.read(&mut [0; 1]).await.unwrap(), 0);
        assert!(peer.write_all(b"more").await.is_err());
    }

    #[tokio::test]
    async fn a_socket_that_is_not_there_is_named() {
        let error = UnixSocket::new("/nonexistent/socket").connect().await.unwrap_err();
        assert_eq!(error.to_string(), "cannot connect to the socket '/nonexistent/socket'");
    }

    #[tokio::test]
    async fn a_command_on_a_host_is_started_for_each_conversation() {
        let service = CommandOnHost::new(Arc::new(LocalProcess::new()), RemoteCommand::new("cat"));
        assert_eq!(service.describe(), "localhost");
        for _ in 0..2 {
            let mut channel = service.connect().await.unwrap();
            channel.stdin.write_all(b"x").await.unwrap();
            assert_eq!(channel.stdout.read_u8().await.unwrap(), b'x');
        }
        let end = Exit::Code(255);
        assert_eq!(service.explain(&End::new(&end, false, "")), None);
        assert_eq!(service.words_of_the_host("debug1: x\n"), "debug1: x\n");
    }
}
