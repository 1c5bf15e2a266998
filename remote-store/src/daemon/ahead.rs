//! Requests sent ahead of their answers, as many as may be unanswered.

use ncc_protocol::{
    ProtocolError,
    worker::{Daemon, Request},
};
use ncc_store::StoreDir;
use tokio::sync::{Semaphore, mpsc};

use crate::{session::Requests, source::REQUESTS_AT_ONCE};

/// How many requests may be unanswered.
pub(super) struct Window(Option<Semaphore>);

impl Window {
    pub(super) fn of(requests: usize) -> Self {
        Self(Some(Semaphore::new(requests)))
    }

    pub(super) fn unlimited() -> Self {
        Self(None)
    }

    /// Makes room for one more request. What has been gathered in `buffer` goes out before waiting for that: its answers are what
    /// makes room.
    pub(super) async fn enter(
        &self,
        requests: &mut Requests,
        buffer: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        let Some(room) = &self.0 else { return Ok(()) };
        if let Ok(permit) = room.try_acquire() {
            permit.forget();
            return Ok(());
        }
        requests.write(buffer).await?;
        buffer.clear();
        // It is never closed.
        if let Ok(permit) = room.acquire().await {
            permit.forget();
        }
        Ok(())
    }

    /// One request was answered.
    pub(super) fn leave(&self) {
        if let Some(room) = &self.0 {
            room.add_permits(1);
        }
    }
}

/// Takes requests, to be written in this order.
pub(super) struct Asking<'a> {
    store_dir: &'a StoreDir,
    daemon: &'a Daemon,
    queue: mpsc::UnboundedSender<Vec<u8>>,
}

/// Requests that wait to be written.
pub(super) struct Asked(mpsc::UnboundedReceiver<Vec<u8>>);

/// A queue of requests. It ends when the first part is dropped.
pub(super) fn queue<'a>(store_dir: &'a StoreDir, daemon: &'a Daemon) -> (Asking<'a>, Asked) {
    let (queue, asked) = mpsc::unbounded_channel();
    (Asking { store_dir, daemon, queue }, Asked(asked))
}

impl Asking<'_> {
    pub(super) fn ask(&self, request: &Request) -> Result<(), ProtocolError> {
        let mut bytes = Vec::new();
        request.encode(self.store_dir, self.daemon, &mut bytes)?;
        // If nobody writes any more, reading will tell why.
        let _ = self.queue.send(bytes);
        Ok(())
    }
}

impl Asked {
    /// Writes the requests as they come, many at once where there are many.
    pub(super) async fn write(
        mut self,
        requests: &mut Requests,
        window: &Window,
    ) -> Result<(), ProtocolError> {
        let mut buffer = Vec::new();
        loop {
            let request = match self.0.try_recv() {
                Ok(request) => Some(request),
                Err(_) => {
                    requests.write(&buffer).await?;
                    buffer.clear();
                    self.0.recv().await
                }
            };
            let Some(request) = request else { return Ok(()) };
            window.enter(requests, &mut buffer).await?;
            buffer.extend_from_slice(&request);
            if buffer.len() > REQUESTS_AT_ONCE {
                requests.write(&buffer).await?;
                buffer.clear();
            }
        }
    }
}
