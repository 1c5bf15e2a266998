//! A host that plays a part: it writes what the test gives it, whatever it is asked.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use ncc_remote_store::{RemoteStore, ServeOptions};
use ncc_transport::{Channel, ChannelControl, Exit, RemoteCommand, Transport, TransportError};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream},
    sync::Notify,
};

/// What the host does with its two streams.
type Play = dyn Fn(DuplexStream, DuplexStream) -> BoxFuture<'static, ()> + Send + Sync;

/// A host without a server.
#[derive(Clone)]
pub(crate) struct ScriptedHost {
    play: Arc<Play>,
    /// A line for stderr, and how often it comes after how long.
    lines: (&'static str, u32, Duration),
    /// Is told when a connection was let go of.
    pub(crate) left: Arc<Notify>,
}

impl fmt::Debug for ScriptedHost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ScriptedHost")
    }
}

impl ScriptedHost {
    /// Runs `play` with the host's input and output.
    pub(crate) fn new<F>(play: impl Fn(DuplexStream, DuplexStream) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let play = move |input, output| -> BoxFuture<'static, ()> { Box::pin(play(input, output)) };
        Self { play: Arc::new(play), lines: ("", 0, Duration::ZERO), left: Arc::default() }
    }

    /// Greets and answers with these bytes at once; then takes requests without a word until they end.
    pub(crate) fn answering(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes: Arc<[u8]> = bytes.into().into();
        Self::new(move |mut input, mut output| {
            let bytes = Arc::clone(&bytes);
            async move {
                // Whoever has heard enough leaves.
                let _ = output.write_all(&greeted(&bytes)).await;
                swallow(&mut input).await;
            }
        })
    }

    /// Says something now and then.
    pub(crate) fn saying(mut self, line: &'static str, times: u32, each: Duration) -> Self {
        self.lines = (line, times, each);
        self
    }

    pub(crate) fn store(&self) -> RemoteStore {
        RemoteStore::new(Arc::new(self.clone()), ServeOptions::default())
    }
}

/// A server's greeting and what follows.
pub(crate) fn greeted(bytes: &[u8]) -> Vec<u8> {
    [&0x5452_eecb_u64.to_le_bytes(), &0x207_u64.to_le_bytes(), bytes].concat()
}

/// Reads to the end.
pub(crate) async fn swallow(input: &mut (impl AsyncRead + Unpin)) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(1..) = input.read(&mut buffer).await {}
}

/// Writes the same for ever, until nobody reads.
pub(crate) async fn without_end(output: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    while output.write_all(bytes).await.is_ok() {}
}

impl Transport for ScriptedHost {
    fn describe(&self) -> String {
        "liar".to_owned()
    }

    fn open<'a>(&'a self, _: &'a RemoteCommand) -> BoxFuture<'a, Result<Channel, TransportError>> {
        let (stdin, input) = tokio::io::duplex(64 << 10);
        let (output, stdout) = tokio::io::duplex(64 << 10);
        let task = tokio::spawn((self.play)(input, output));
        let (line, times, each) = self.lines;
        let (mut says, stderr) = tokio::io::duplex(1024);
        tokio::spawn(async move {
            for _ in 0..times {
                tokio::time::sleep(each).await;
                // Whoever has heard enough leaves.
                let _ = says.write_all(line.as_bytes()).await;
            }
        });
        let control = Box::new(Part { task, left: Arc::clone(&self.left) });
        Box::pin(std::future::ready(Ok(Channel {
            stdin: Box::new(stdin),
            stdout: Box::new(stdout),
            stderr: Box::new(stderr),
            control,
        })))
    }
}

#[derive(Debug)]
struct Part {
    task: tokio::task::JoinHandle<()>,
    left: Arc<Notify>,
}

impl ChannelControl for Part {
    fn wait(&mut self) -> BoxFuture<'_, Result<Exit, TransportError>> {
        Box::pin(async {
            // Ended, or told to.
            let _ = (&mut self.task).await;
            Ok(Exit::Code(0))
        })
    }

    fn kill(&mut self) {
        self.task.abort();
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.task.abort();
        self.left.notify_one();
    }
}
