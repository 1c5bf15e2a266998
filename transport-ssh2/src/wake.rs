//! Waking a driver that waits in `poll`.

use std::{
    io::{self, Read as _, Write as _},
    os::fd::{AsFd, BorrowedFd},
    os::unix::net::UnixStream,
    sync::atomic::{AtomicBool, Ordering},
};

/// Wakes one thread. Costs a system call only if that thread sleeps.
#[derive(Debug)]
pub(crate) struct Wake {
    pending: AtomicBool,
    sleeping: AtomicBool,
    send: UnixStream,
    receive: UnixStream,
}

impl Wake {
    pub(crate) fn new() -> io::Result<Self> {
        let (send, receive) = UnixStream::pair()?;
        send.set_nonblocking(true)?;
        receive.set_nonblocking(true)?;
        Ok(Self { pending: AtomicBool::new(false), sleeping: AtomicBool::new(false), send, receive })
    }

    /// From any thread: there is something to do.
    pub(crate) fn wake(&self) {
        // Sequentially consistent, together with `sleep`: either it sees `pending`, or we see `sleeping`.
        if !self.pending.swap(true, Ordering::SeqCst) && self.sleeping.load(Ordering::SeqCst) {
            // Full means that it is readable already.
            let _ = (&self.send).write(&[0]);
        }
    }

    /// Forgets a wake that came so far. What it was about must be looked at afterwards.
    pub(crate) fn clear(&self) {
        self.pending.store(false, Ordering::SeqCst);
    }

    /// Runs `poll`, which must watch this for reading, unless a wake came since the last `clear`.
    pub(crate) fn sleep<T>(&self, poll: impl FnOnce() -> T) -> Option<T> {
        self.sleeping.store(true, Ordering::SeqCst);
        let result = if self.pending.load(Ordering::SeqCst) { None } else { Some(poll()) };
        self.sleeping.store(false, Ordering::SeqCst);
        let mut buffer = [0; 16];
        while matches!((&self.receive).read(&mut buffer), Ok(1..)) {}
        result
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receive.as_fd()
    }
}
