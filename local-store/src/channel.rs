//! A channel between a thread and a task that is bounded in bytes, not in messages: NARs of 200 bytes and blocks of
//! 256 KiB pass through the same one.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};

/// Bytes under way.
pub(crate) const CAPACITY: usize = 1 << 20;
/// What a message counts at least, so that there can be no endless number of small ones.
const SMALLEST: usize = 256;

type Message<T> = (T, OwnedSemaphorePermit);

pub(crate) struct Sender<T> {
    messages: mpsc::UnboundedSender<Message<T>>,
    room: Arc<Semaphore>,
}

pub(crate) struct Receiver<T> {
    messages: mpsc::UnboundedReceiver<Message<T>>,
    room: Arc<Semaphore>,
}

/// The receiver is gone.
#[derive(Debug)]
pub(crate) struct Closed;

pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(CAPACITY));
    (Sender { messages: sender, room: room.clone() }, Receiver { messages: receiver, room })
}

impl<T> Sender<T> {
    /// Waits until there is room for `size` bytes.
    pub(crate) async fn send(&self, message: T, size: usize) -> Result<(), Closed> {
        let size = u32::try_from(size.clamp(SMALLEST, CAPACITY)).unwrap_or(u32::MAX);
        let permit = self.room.clone().acquire_many_owned(size).await.map_err(|_| Closed)?;
        self.messages.send((message, permit)).map_err(|_| Closed)
    }

    /// The same on a thread where blocking is allowed.
    pub(crate) fn send_blocking(&self, runtime: &Handle, message: T, size: usize) -> Result<(), Closed> {
        runtime.block_on(self.send(message, size))
    }
}

impl<T> Receiver<T> {
    pub(crate) fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.messages.poll_recv(context).map(|message| message.map(|(message, _)| message))
    }

    /// Blocks this thread.
    pub(crate) fn receive_blocking(&mut self) -> Option<T> {
        self.messages.blocking_recv().map(|(message, _)| message)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

/// Senders that wait for room learn that there will be none.
impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.room.close();
    }
}
