//! A host in memory: a serve server over a [`MemoryStore`], behind a link with a delay and with faults on request.
//!
//! With tokio's paused clock the elapsed time of a whole copy, divided by the link's round trip, is the number of
//! round trips that it took.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use ncc_protocol::serve::{Server, Writing};
use ncc_store::test_util::MemoryStore;
use ncc_transport::{Channel, ChannelControl, Exit, RemoteCommand, Transport, TransportError};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream},
    sync::mpsc,
    time::Instant,
};

/// How many bytes a link takes before its writer waits.
const LINK_BUFFER: usize = 256 << 10;

/// A host that serves a [`MemoryStore`]. Configure it before the first [`Transport::open`].
#[derive(Clone)]
pub struct MemoryHost {
    store: MemoryStore,
    one_way: Duration,
    banner: Vec<u8>,
    /// The server's output ends after this many bytes.
    cut_output: Option<u64>,
    /// Only this command is let pass, as a forced command may do.
    only: Option<String>,
    opened: Arc<AtomicUsize>,
}

impl fmt::Debug for MemoryHost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MemoryHost")
    }
}

impl MemoryHost {
    /// A host with a store, no delay and no faults.
    pub fn new(store: &MemoryStore) -> Self {
        Self {
            store: store.clone(),
            one_way: Duration::ZERO,
            banner: Vec::new(),
            cut_output: None,
            only: None,
            opened: Arc::default(),
        }
    }

    /// Every byte takes half of `round_trip` on its way.
    #[must_use]
    pub fn with_round_trip(mut self, round_trip: Duration) -> Self {
        self.one_way = round_trip / 2;
        self
    }

    /// Prints this before the server starts, as a login shell may.
    #[must_use]
    pub fn with_banner(mut self, banner: &str) -> Self {
        self.banner = banner.into();
        self
    }

    /// Breaks the connection after the server has sent this many bytes.
    #[must_use]
    pub fn with_output_cut_at(mut self, bytes: u64) -> Self {
        self.cut_output = Some(bytes);
        self
    }

    /// Lets only this command pass, word for word, and ends every other with a message.
    #[must_use]
    pub fn with_only_command(mut self, command: &str) -> Self {
        self.only = Some(command.to_owned());
        self
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }
}

impl Transport for MemoryHost {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn open<'a>(&'a self, command: &'a RemoteCommand) -> BoxFuture<'a, Result<Channel, TransportError>> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        let (stdin, server_input) = link(self.one_way, None);
        let (mut server_output, stdout) = link(self.one_way, self.cut_output);
        let (mut server_stderr, stderr) = link(self.one_way, None);
        let (store, banner) = (self.store.clone(), self.banner.clone());
        let refused = self.only.as_ref().is_some_and(|only| **only != *command.to_shell());
        let server = tokio::spawn(async move {
            if refused {
                // Nobody may be reading any more.
                let _ = server_stderr.write_all(b"error: this command is not allowed\n").await;
                return Exit::Code(1);
            }
            if server_output.write_all(&banner).await.is_err() {
                return Exit::Code(1);
            }
            match Server::new(server_input, server_output, &store, Writing::Allowed).run().await {
                Ok(()) => Exit::Code(0),
                Err(error) => {
                    // Nobody may be reading any more.
                    let _ = server_stderr.write_all(format!("error: {error}\n").as_bytes()).await;
                    Exit::Code(1)
                }
            }
        });
        let control = Box::new(ServerTask { server, exit: None });
        Box::pin(std::future::ready(Ok(Channel {
            stdin: Box::new(stdin),
            stdout: Box::new(stdout),
            stderr: Box::new(stderr),
            control,
        })))
    }
}

#[derive(Debug)]
struct ServerTask {
    server: tokio::task::JoinHandle<Exit>,
    exit: Option<Exit>,
}

impl ChannelControl for ServerTask {
    fn wait(&mut self) -> BoxFuture<'_, Result<Exit, TransportError>> {
        Box::pin(async {
            if self.exit.is_none() {
                self.exit = Some((&mut self.server).await.unwrap_or(Exit::Unknown));
            }
            Ok(self.exit.clone().unwrap_or(Exit::Unknown))
        })
    }

    fn kill(&mut self) {
        self.server.abort();
    }
}

impl Drop for ServerTask {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A pipe whose bytes arrive `delay` after they were written, and end after `cut` bytes.
fn link(delay: Duration, cut: Option<u64>) -> (DuplexStream, DuplexStream) {
    let (near, from_near) = tokio::io::duplex(LINK_BUFFER);
    let (to_far, far) = tokio::io::duplex(LINK_BUFFER);
    tokio::spawn(forward(from_near, to_far, delay, cut.unwrap_or(u64::MAX)));
    (near, far)
}

async fn forward(from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, delay: Duration, cut: u64) {
    let (queue, mut arrivals) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let depart = async move {
        let mut from = from.take(cut);
        let mut buffer = vec![0; LINK_BUFFER];
        while let Ok(size @ 1..) = from.read(&mut buffer).await {
            let _ = queue.send((Instant::now() + delay, buffer[..size].to_vec()));
        }
    };
    let arrive = async move {
        while let Some((when, bytes)) = arrivals.recv().await {
            tokio::time::sleep_until(when).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(depart, arrive);
}
