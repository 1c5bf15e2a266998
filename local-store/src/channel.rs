//! A channel between a thread and a task that is bounded in bytes, not in messages: NARs of 200 bytes and blocks of
//! 256 KiB pass through the same one.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
};

/// Bytes under way.
pub(crate) const CAPACITY: usize = 1 << 20;
/// What a message counts at least, so that there can be no endless number of small ones.
const SMALLEST: usize = 256;

/// Room is given back in portions, or else a sender that waits for it is woken for each single message.
const PORTION: usize = CAPACITY / 4;

pub(crate) struct Sender<T> {
    messages: mpsc::UnboundedSender<(T, usize)>,
    room: Arc<Semaphore>,
}

pub(crate) struct Receiver<T> {
    messages: mpsc::UnboundedReceiver<(T, usize)>,
    room: Arc<Semaphore>,
    /// What was received and not yet given back.
    owed: usize,
}

/// The receiver is gone.
#[derive(Debug)]
pub(crate) struct Closed;

pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(CAPACITY));
    (Sender { messages: sender, room: room.clone() }, Receiver { messages: receiver, room, owed: 0 })
}

impl<T> Sender<T> {
    /// Waits until there is room for `size` bytes.
    pub(crate) async fn send(&self, message: T, size: usize) -> Result<(), Closed> {
        let size = size.clamp(SMALLEST, CAPACITY);
        let permits = u32::try_from(size).unwrap_or(u32::MAX);
        self.room.acquire_many(permits).await.map_err(|_| Closed)?.forget();
        self.messages.send((message, size)).map_err(|_| Closed)
    }

    /// The same on a thread where blocking is allowed.
    pub(crate) fn send_blocking(&self, runtime: &Handle, message: T, size: usize) -> Result<(), Closed> {
        runtime.block_on(self.send(message, size))
    }
}

impl<T> Receiver<T> {
    pub(crate) fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        match self.messages.poll_recv(context) {
            Poll::Ready(message) => Poll::Ready(self.received(message)),
            Poll::Pending => {
                self.give_back();
                Poll::Pending
            }
        }
    }

    fn received(&mut self, message: Option<(T, usize)>) -> Option<T> {
        let (message, size) = message?;
        self.owed += size;
        if self.owed >= PORTION {
            self.give_back();
        }
        Some(message)
    }

    fn give_back(&mut self) {
        self.room.add_permits(std::mem::take(&mut self.owed));
    }
}

/// Senders that wait for room learn that there will be none.
impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.room.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive<T>(runtime: &tokio::runtime::Runtime, receiver: &mut Receiver<T>) -> Option<T> {
        runtime.block_on(std::future::poll_fn(|context| receiver.poll_receive(context)))
    }

    #[test]
    fn a_sender_waits_for_room_and_learns_that_nobody_receives() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (sender, mut receiver) = channel();
        let sent = runtime.spawn(async move {
            for number in 0..100 {
                sender.send(number, CAPACITY / 3).await.map_err(|Closed| number)?;
            }
            Ok::<(), i32>(())
        });
        for expected in 0..50 {
            assert_eq!(receive(&runtime, &mut receiver), Some(expected));
        }
        drop(receiver);
        let stopped_at = runtime.block_on(sent).unwrap().unwrap_err();
        assert!((50..=53).contains(&stopped_at), "{stopped_at}");
    }

    #[test]
    fn messages_of_any_size_pass() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (sender, mut receiver) = channel();
        let sent = runtime.spawn(async move {
            for size in [0, CAPACITY * 10, 0, 1] {
                sender.send(size, size).await.unwrap();
            }
        });
        let sizes: Vec<_> = std::iter::from_fn(|| receive(&runtime, &mut receiver)).collect();
        assert_eq!(sizes, [0, CAPACITY * 10, 0, 1]);
        runtime.block_on(sent).unwrap();
    }
}
