//! Counts the bytes to and from a host, whatever the transport.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::{FutureExt as _, future::BoxFuture};
use ncc_transport::{Channel, End, Failure, Reader, RemoteCommand, Transport, TransportError, Writer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What went through all channels of a transport so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counter {
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
}

impl Counter {
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

/// A transport whose streams are counted, stdin and stdout, not what comes on stderr; under the name that the host has here.
#[derive(Debug)]
pub(crate) struct Counted {
    transport: Arc<dyn Transport>,
    counter: Counter,
    name: String,
}

impl Counted {
    /// `name` is how messages call the host.
    pub(crate) const fn new(transport: Arc<dyn Transport>, counter: Counter, name: String) -> Self {
        Self { transport, counter, name }
    }

    fn counted(&self, Channel { stdin, stdout, stderr, control }: Channel) -> Channel {
        Channel {
            stdin: Box::new(CountedWriter { writer: stdin, count: Arc::clone(&self.counter.sent) }),
            stdout: Box::new(CountedReader { reader: stdout, count: Arc::clone(&self.counter.received) }),
            stderr,
            control,
        }
    }
}

impl Transport for Counted {
    fn describe(&self) -> String {
        self.name.clone()
    }

    fn open<'a>(&'a self, command: &'a RemoteCommand) -> BoxFuture<'a, Result<Channel, TransportError>> {
        async move { Ok(self.counted(self.transport.open(command).await?)) }.boxed()
    }

    fn open_beside<'a>(
        &'a self,
        command: &'a RemoteCommand,
    ) -> BoxFuture<'a, Result<Channel, TransportError>> {
        async move { Ok(self.counted(self.transport.open_beside(command).await?)) }.boxed()
    }

    fn explain(&self, end: &End<'_>) -> Option<Failure> {
        self.transport.explain(end)
    }

    fn share(&self) -> bool {
        self.transport.share()
    }

    fn words_of_the_host(&self, stderr: &str) -> String {
        self.transport.words_of_the_host(stderr)
    }
}

fn add(count: &AtomicU64, bytes: usize) {
    count.fetch_add(u64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
}

struct CountedWriter {
    writer: Writer,
    count: Arc<AtomicU64>,
}

impl AsyncWrite for CountedWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.writer).poll_write(context, bytes);
        if let Poll::Ready(Ok(written)) = written {
            add(&self.count, written);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.writer).poll_write_vectored(context, slices);
        if let Poll::Ready(Ok(written)) = written {
            add(&self.count, written);
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.writer.is_write_vectored()
    }
}

struct CountedReader {
    reader: Reader,
    count: Arc<AtomicU64>,
}

impl AsyncRead for CountedReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.reader).poll_read(context, buffer);
        add(&self.count, buffer.filled().len().saturating_sub(before));
        result
    }
}
