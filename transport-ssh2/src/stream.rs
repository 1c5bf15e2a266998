//! The async ends of a channel, and what they share with the driver.

use std::{
    fmt, io, mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use ncc_transport::{BoxFuture, Channel, ChannelControl, Exit, TransportError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::handle::ConnectionLease;

/// What may wait in one direction between the driver and a task, on each side of the hand-over. Enough that neither waits for the
/// other to be scheduled, which on a busy machine takes milliseconds: with a quarter of this, copies to a host took up to twice as long
/// there as with OpenSSH, whose own program reads 2 MiB ahead.
pub(crate) const BUFFER: usize = 1024 * 1024;

/// Which of a command's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    Stdout,
    Stderr,
}

/// What the driver and the ends of one channel have in common.
#[derive(Default)]
pub(crate) struct ChannelState(Mutex<State>);

#[derive(Default)]
pub(crate) struct State {
    pub(crate) stdin: Stdin,
    stdout: Inlet,
    stderr: Inlet,
    exit: Option<Exit>,
    exit_waker: Option<Waker>,
    /// Nobody wants the command any more.
    pub(crate) killed: bool,
}

#[derive(Default)]
pub(crate) struct Stdin {
    pub(crate) data: Vec<u8>,
    /// No more will come from our side.
    pub(crate) ended: bool,
    /// The other side takes no more.
    broken: bool,
    waker: Option<Waker>,
}

/// Bytes from the other side.
#[derive(Default)]
pub(crate) struct Inlet {
    pub(crate) data: Vec<u8>,
    pub(crate) ended: bool,
    /// Why the end is not the command's.
    lost: Option<String>,
    /// Nobody reads: what comes is thrown away, so that the command can go on.
    pub(crate) unwanted: bool,
    /// The driver found no room, and wants to know when there is.
    pub(crate) starved: bool,
    waker: Option<Waker>,
}

impl State {
    pub(crate) fn inlet(&mut self, output: Output) -> &mut Inlet {
        match output {
            Output::Stdout => &mut self.stdout,
            Output::Stderr => &mut self.stderr,
        }
    }

    /// The input takes no more.
    pub(crate) fn break_stdin(&mut self) {
        self.stdin.broken = true;
        self.stdin.data = Vec::new();
        wake(&mut self.stdin.waker);
    }

    /// Takes what was written, for the driver, which hands in an empty buffer with room for the next.
    pub(crate) fn take_stdin(&mut self, empty: &mut Vec<u8>) {
        empty.clear();
        mem::swap(empty, &mut self.stdin.data);
        wake(&mut self.stdin.waker);
    }

    /// The command has ended thus. Only the first counts.
    pub(crate) fn set_exit(&mut self, exit: Exit) {
        if self.exit.is_none() {
            self.exit = Some(exit);
            wake(&mut self.exit_waker);
        }
    }

    /// Everything is over; `lost` says why, if it was not the command's own end.
    pub(crate) fn end(&mut self, lost: Option<&str>) {
        self.break_stdin();
        if let Some(reason) = lost
            && self.exit.is_none()
            && !self.killed
        {
            self.stderr.push(format!("{reason}\n").as_bytes());
            if !self.stdout.ended {
                self.stdout.lost = Some(reason.to_owned());
            }
        }
        self.stdout.end();
        self.stderr.end();
        self.set_exit(Exit::Unknown);
    }
}

impl Inlet {
    pub(crate) fn room(&self) -> usize {
        if self.unwanted { BUFFER } else { BUFFER.saturating_sub(self.data.len()) }
    }

    pub(crate) fn push(&mut self, data: &[u8]) {
        if !self.unwanted {
            self.data.extend_from_slice(data);
            wake(&mut self.waker);
        }
    }

    pub(crate) fn end(&mut self) {
        self.ended = true;
        wake(&mut self.waker);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl ChannelState {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ChannelState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("ChannelState")
            .field("exit", &state.exit)
            .field("killed", &state.killed)
            .finish_non_exhaustive()
    }
}

/// The channel that a caller gets. Each part keeps the connection alive.
pub(crate) fn channel(shared: &Arc<ChannelState>, lease: &Arc<ConnectionLease>) -> Channel {
    let part = || Part { shared: Arc::clone(shared), lease: Arc::clone(lease) };
    let reader = |output| OutputReader { part: part(), output, current: Vec::new(), position: 0 };
    Channel {
        stdin: Box::new(StdinWriter(part())),
        stdout: Box::new(reader(Output::Stdout)),
        stderr: Box::new(reader(Output::Stderr)),
        control: Box::new(Control(part())),
    }
}

#[derive(Debug)]
struct Part {
    shared: Arc<ChannelState>,
    lease: Arc<ConnectionLease>,
}

struct StdinWriter(Part);

impl StdinWriter {
    fn shut_down(&self) {
        self.0.shared.lock().stdin.ended = true;
        self.0.lease.wake();
    }
}

impl AsyncWrite for StdinWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let Part { shared, lease } = &self.0;
        let mut state = shared.lock();
        let stdin = &mut state.stdin;
        if stdin.broken || stdin.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = data.len().min(BUFFER.saturating_sub(stdin.data.len()));
        if count == 0 && !data.is_empty() {
            stdin.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let first = stdin.data.is_empty();
        stdin.data.extend_from_slice(data.get(..count).unwrap_or_default());
        drop(state);
        // Otherwise the driver has been told and not yet looked.
        if first {
            lease.wake();
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The driver sends what it has got as soon as the other side lets it.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut_down();
        Poll::Ready(Ok(()))
    }
}

impl Drop for StdinWriter {
    fn drop(&mut self) {
        self.shut_down();
    }
}

struct OutputReader {
    part: Part,
    output: Output,
    current: Vec<u8>,
    position: usize,
}

impl AsyncRead for OutputReader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { part, output, current, position } = self.get_mut();
        if *position >= current.len() {
            let mut state = part.shared.lock();
            let inlet = state.inlet(*output);
            if inlet.data.is_empty() {
                if let Some(reason) = &inlet.lost {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, reason.clone())));
                }
                if inlet.ended {
                    return Poll::Ready(Ok(()));
                }
                inlet.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            current.clear();
            *position = 0;
            mem::swap(current, &mut inlet.data);
            if mem::take(&mut inlet.starved) {
                part.lease.wake();
            }
        }
        let rest = current.get(*position..).unwrap_or_default();
        let count = rest.len().min(buffer.remaining());
        buffer.put_slice(rest.get(..count).unwrap_or_default());
        *position += count;
        Poll::Ready(Ok(()))
    }
}

impl Drop for OutputReader {
    fn drop(&mut self) {
        let mut state = self.part.shared.lock();
        let inlet = state.inlet(self.output);
        inlet.unwanted = true;
        inlet.data = Vec::new();
        self.part.lease.wake();
    }
}

#[derive(Debug)]
struct Control(Part);

impl ChannelControl for Control {
    fn wait(&mut self) -> BoxFuture<'_, Result<Exit, TransportError>> {
        Box::pin(std::future::poll_fn(|cx| {
            let mut state = self.0.shared.lock();
            match &state.exit {
                Some(exit) => Poll::Ready(Ok(exit.clone())),
                None => {
                    state.exit_waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        }))
    }

    fn kill(&mut self) {
        let mut state = self.0.shared.lock();
        // What ended by itself leaves its output behind, as a process leaves what is in its pipes.
        if state.exit.is_none() {
            state.killed = true;
            state.end(None);
        }
        drop(state);
        self.0.lease.wake();
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.kill();
    }
}
