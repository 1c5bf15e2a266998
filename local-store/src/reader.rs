//! NARs out of the store: one thread packs, a stream of streams hands out.

use std::{
    io::{self, Write},
    mem,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use futures_core::Stream;
use ncc_nar::{PackOptions, pack};
use ncc_store::{Nar, NarStream, PathInfo, StoreError};
use tokio::{runtime::Handle, task::spawn_blocking};

use crate::{
    LocalStore, LocalStoreError,
    channel::{Receiver, Sender, channel},
};

/// Bytes in a block; several fit into the channel, so that packing and sending overlap.
const BLOCK: usize = 128 << 10;

/// What an empty directory takes.
const SMALLEST_NAR: usize = 96;

/// The NARs of `infos`, packed by a thread that begins at the first poll.
pub(crate) fn nars(store: LocalStore, infos: Vec<Arc<PathInfo>>) -> NarStream {
    let (sender, receiver) = channel();
    let shared = Arc::new(Shared {
        state: Mutex::new(State { receiver, body_is_out: false, waiting: None }),
        wanted: AtomicUsize::new(0),
    });
    Box::pin(Sequence { shared, infos: infos.into(), begun: 0, packer: Some((store, sender)) })
}

enum Part {
    Begin,
    Block(Bytes),
    End(Result<(), StoreError>),
}

struct Shared {
    state: Mutex<State>,
    /// NARs before this one need not be packed any further.
    wanted: AtomicUsize,
}

struct State {
    receiver: Receiver<Part>,
    body_is_out: bool,
    /// Who waits for that body to be finished or dropped.
    waiting: Option<Waker>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn body_is_done(&mut self) {
        self.body_is_out = false;
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }
}

struct Sequence {
    shared: Arc<Shared>,
    infos: Arc<[Arc<PathInfo>]>,
    begun: usize,
    /// What the thread needs, until it runs.
    packer: Option<(LocalStore, Sender<Part>)>,
}

impl Stream for Sequence {
    type Item = Result<Nar, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some((store, sender)) = this.packer.take() {
            let packer = Packer {
                store,
                sender,
                shared: this.shared.clone(),
                infos: this.infos.clone(),
                runtime: Handle::current(),
            };
            spawn_blocking(move || packer.run());
        }
        let mut state = this.shared.state();
        if state.body_is_out {
            state.waiting = Some(context.waker().clone());
            return Poll::Pending;
        }
        loop {
            match ready!(state.receiver.poll_receive(context)) {
                Some(Part::Begin) => break,
                // What was under way of a body that was dropped.
                Some(Part::Block(_) | Part::End(_)) => {}
                None => {
                    let complete = this.begun == this.infos.len();
                    this.begun = this.infos.len();
                    return Poll::Ready((!complete).then(|| Err(panicked())));
                }
            }
        }
        let Some(info) = this.infos.get(this.begun).cloned() else { return Poll::Ready(None) };
        state.body_is_out = true;
        this.begun += 1;
        let body = Body { shared: this.shared.clone(), number: this.begun, done: false };
        Poll::Ready(Some(Ok(Nar { info, body: Box::pin(body) })))
    }
}

struct Body {
    shared: Arc<Shared>,
    /// Counted from 1.
    number: usize,
    done: bool,
}

impl Stream for Body {
    type Item = Result<Bytes, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.done {
            return Poll::Ready(None);
        }
        let mut state = this.shared.state();
        let result = match ready!(state.receiver.poll_receive(context)) {
            Some(Part::Block(block)) => return Poll::Ready(Some(Ok(block))),
            Some(Part::End(result)) => result,
            Some(Part::Begin) | None => Err(panicked()),
        };
        this.done = true;
        state.body_is_done();
        Poll::Ready(result.err().map(Err))
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if !self.done {
            self.shared.wanted.store(self.number, Ordering::Relaxed);
            self.shared.state().body_is_done();
        }
    }
}

fn panicked() -> StoreError {
    LocalStoreError::Panicked.about("the local store", "read", None)
}

struct Packer {
    store: LocalStore,
    sender: Sender<Part>,
    shared: Arc<Shared>,
    infos: Arc<[Arc<PathInfo>]>,
    runtime: Handle,
}

impl Packer {
    fn run(&self) {
        for (index, info) in self.infos.iter().enumerate() {
            if self.send(Part::Begin, 0).is_err() {
                return;
            }
            // The smallest NAR has 96 bytes; a block of none would never be full.
            let size = usize::try_from(info.nar_size).unwrap_or(BLOCK).clamp(SMALLEST_NAR, BLOCK);
            let mut blocks = Blocks { packer: self, index, size, block: Vec::new() };
            let real = self.store.real_path(&info.path);
            let packed = pack(&real, &mut blocks, &PackOptions::default()).map(drop).and_then(|()| {
                blocks
                    .flush()
                    .map_err(|source| ncc_nar::Error::WriteArchive { offset: info.nar_size, source })
            });
            let result = match packed {
                // Nobody listens to this one any more.
                Err(ncc_nar::Error::WriteArchive { .. }) => Ok(()),
                result => result.map_err(|source| {
                    LocalStoreError::Read { path: real, source }.about(
                        self.store.name(),
                        "read",
                        Some(&info.path),
                    )
                }),
            };
            if self.send(Part::End(result), 0).is_err() {
                return;
            }
        }
    }

    fn send(&self, part: Part, size: usize) -> io::Result<()> {
        self.sender
            .send_blocking(&self.runtime, part, size)
            .map_err(|_closed| io::ErrorKind::BrokenPipe.into())
    }
}

/// Cuts a NAR into blocks.
struct Blocks<'a> {
    packer: &'a Packer,
    index: usize,
    size: usize,
    block: Vec<u8>,
}

impl Write for Blocks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.packer.shared.wanted.load(Ordering::Relaxed) > self.index {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let room = self.size.saturating_sub(self.block.len()).min(bytes.len());
        let (now, _) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
        self.block.reserve_exact(self.size.saturating_sub(self.block.len()));
        self.block.extend_from_slice(now);
        if self.block.len() >= self.size {
            self.flush()?;
        }
        Ok(now.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        // Allocates again only if there is more to come.
        let block = mem::take(&mut self.block);
        self.packer.send(Part::Block(block.into()), self.size)
    }
}
