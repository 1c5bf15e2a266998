//! NARs out of the store: one thread packs, a stream of streams hands out.

use std::{
    collections::VecDeque,
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
use ncc_nar::pack;
use ncc_store::{Nar, NarBody, NarPlan, NarStream, PathInfo, Side, StoreError};
use tokio::{runtime::Handle, task::spawn_blocking};

use crate::{
    LocalStore, LocalStoreError,
    channel::{Closed, Receiver, Sender, channel},
};

/// Bytes in a block; several fit into the channel, so that packing and sending overlap.
const BLOCK: usize = 128 << 10;

/// Parts that are sent at once at most; a small object has three.
const PARTS: usize = 96;
/// What an empty directory takes.
const SMALLEST_NAR: usize = 96;

/// The NARs of `infos` from `first` on, packed by a thread that begins at the first poll, and what they share.
pub(crate) fn nars(store: LocalStore, infos: NarPlan, first: usize) -> (NarStream, Arc<Shared>) {
    let (sender, receiver) = channel();
    let shared = Arc::new(Shared {
        state: Mutex::new(State { receiver, parts: VecDeque::new(), body_is_out: false, waiting: None }),
        wanted: Arc::default(),
    });
    let sequence = Sequence { shared: shared.clone(), infos, begun: first, packer: Some((store, sender)) };
    (Box::pin(sequence), shared)
}

enum Part {
    Begin,
    Block(Bytes),
    End(Result<(), StoreError>),
}

pub(crate) struct Shared {
    state: Mutex<State>,
    /// NARs before this one need not be packed any further.
    wanted: Arc<AtomicUsize>,
}

struct State {
    receiver: Receiver<Vec<Part>>,
    /// Received already.
    parts: VecDeque<Part>,
    body_is_out: bool,
    /// Who waits for that body to be finished or dropped.
    waiting: Option<Waker>,
}

impl Shared {
    /// Whether the next NAR can be had without waiting for somebody to finish with the one before.
    pub(crate) fn is_idle(&self) -> bool {
        !self.state().body_is_out
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn poll_part(&mut self, context: &mut Context<'_>) -> Poll<Option<Part>> {
        while self.parts.is_empty() {
            match ready!(self.receiver.poll_receive(context)) {
                Some(parts) => self.parts.extend(parts),
                None => return Poll::Ready(None),
            }
        }
        Poll::Ready(self.parts.pop_front())
    }

    fn body_is_done(&mut self) {
        self.body_is_out = false;
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }
}

struct Sequence {
    shared: Arc<Shared>,
    infos: NarPlan,
    begun: usize,
    /// What the thread needs, until it runs.
    packer: Option<(LocalStore, Sender<Vec<Part>>)>,
}

impl Stream for Sequence {
    type Item = Result<Nar, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some((store, sender)) = this.packer.take() {
            let packer = Packer {
                store,
                sender,
                wanted: this.shared.wanted.clone(),
                runtime: Handle::current(),
                parts: Vec::new(),
                size: 0,
            };
            let (infos, first) = (this.infos.clone(), this.begun);
            spawn_blocking(move || packer.run(&infos, first));
        }
        let mut state = this.shared.state();
        if state.body_is_out {
            state.waiting = Some(context.waker().clone());
            return Poll::Pending;
        }
        loop {
            match ready!(state.poll_part(context)) {
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
        let body = NarBody::new(Body { shared: this.shared.clone(), number: this.begun, done: false });
        Poll::Ready(Some(Ok(Nar { info, body })))
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
        let result = match ready!(state.poll_part(context)) {
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
    LocalStoreError::Panicked.about(Side::Source, "the local store", "read", None)
}

struct Packer {
    store: LocalStore,
    sender: Sender<Vec<Part>>,
    /// Not all that is shared: the receiver must go with the last who takes from it, or the packer waits for room for ever.
    wanted: Arc<AtomicUsize>,
    runtime: Handle,
    /// What is to be sent next: waking the other side costs more than to pack a small object.
    parts: Vec<Part>,
    /// Bytes in there.
    size: usize,
}

impl Packer {
    fn run(mut self, infos: &[Arc<PathInfo>], first: usize) {
        // Closed: nobody is interested any more.
        let _ = self.pack_all(infos, first).and_then(|()| self.send());
    }

    fn pack_all(&mut self, infos: &[Arc<PathInfo>], first: usize) -> Result<(), Closed> {
        let options = self.store.pack_options();
        for (index, info) in infos.iter().enumerate().skip(first) {
            if info.nar_size >= BLOCK as u64 {
                // That takes time; what is there can go.
                self.send()?;
            }
            self.push(Part::Begin, 0)?;
            // The smallest NAR has 96 bytes; a block of none would never be full.
            let size = usize::try_from(info.nar_size).unwrap_or(BLOCK).clamp(SMALLEST_NAR, BLOCK);
            let real = self.store.real_path(&info.path);
            let mut blocks = Blocks { packer: self, index, size, block: Vec::new() };
            let packed = pack(&real, &mut blocks, &options).map(drop).and_then(|()| {
                blocks
                    .flush()
                    .map_err(|source| ncc_nar::Error::WriteArchive { offset: info.nar_size, source })
            });
            let result = match packed {
                // Nobody listens to this one any more.
                Err(ncc_nar::Error::WriteArchive { .. }) => Ok(()),
                result => result.map_err(|source| {
                    let error = LocalStoreError::Read { path: real, source };
                    error.about(Side::Source, self.store.name(), "read", Some(&info.path))
                }),
            };
            self.push(Part::End(result), 0)?;
        }
        Ok(())
    }

    fn push(&mut self, part: Part, size: usize) -> Result<(), Closed> {
        self.parts.push(part);
        self.size = self.size.saturating_add(size);
        if self.size >= BLOCK || self.parts.len() >= PARTS { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), Closed> {
        if self.parts.is_empty() {
            return Ok(());
        }
        self.sender.send_blocking(&self.runtime, mem::take(&mut self.parts), mem::take(&mut self.size))
    }
}

/// Cuts a NAR into blocks.
struct Blocks<'a> {
    packer: &'a mut Packer,
    index: usize,
    size: usize,
    block: Vec<u8>,
}

impl Write for Blocks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.packer.wanted.load(Ordering::Relaxed) > self.index {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let room = self.size.saturating_sub(self.block.len()).min(bytes.len());
        let (now, _) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
        // Once, and again only if there is more to come.
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
        let block = mem::take(&mut self.block);
        let size = block.len();
        let sent = self.packer.push(Part::Block(block.into()), size);
        sent.map_err(|Closed| io::ErrorKind::BrokenPipe.into())
    }
}
