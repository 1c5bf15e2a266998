//! One libssh2 session on a relay, and waiting for it, on the driver's thread.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use ncc_transport::FailureKind;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use ssh2::{ErrorCode, Session};

use crate::{
    error::ConnectionError,
    handle::DriverHandle,
    relay::{Far, Relay},
};

/// libssh2's numbers for what is treated apart; the crate ssh2 gives them no names.
pub(crate) mod code {
    pub(crate) const KEY_EXCHANGE: &[i32] = &[-5, -8];
    pub(crate) const AUTHENTICATION_FAILED: i32 = -18;
    pub(crate) const PASSWORD_EXPIRED: i32 = -15;
    pub(crate) const CHANNEL_FAILURE: i32 = -21;
    pub(crate) const REQUEST_DENIED: i32 = -22;
    pub(crate) const INVALID: i32 = -34;
    pub(crate) const AGAIN: i32 = -37;
    /// What the end of the connection shows as: send, receive, disconnect, time-out.
    pub(crate) const SOCKET: &[i32] = &[-7, -43, -13, -30];
}

/// libssh2's number of an error.
pub(crate) fn number(error: &ssh2::Error) -> i32 {
    match error.code() {
        ErrorCode::Session(number) | ErrorCode::SFTP(number) => number,
    }
}

/// A session and its relay.
pub(crate) struct Link {
    pub(crate) session: Session,
    pub(crate) relay: Relay,
    pub(crate) handle: Arc<DriverHandle>,
}

/// When to give up.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    /// At this time, whatever comes until then.
    At(Option<Instant>),
    /// After so much silence.
    Silence(Duration),
}

impl Link {
    pub(crate) fn new(far: Far, handle: Arc<DriverHandle>) -> Result<Self, ConnectionError> {
        let (relay, socket) = Relay::new(far).map_err(ConnectionError::lost)?;
        let mut session =
            Session::new().map_err(|error| ConnectionError::libssh2(FailureKind::ConnectionLost, &error))?;
        session.set_tcp_stream(socket);
        session.set_blocking(false);
        Ok(Self { session, relay, handle })
    }

    /// Calls libssh2 until it is done. The outer error is the connection's end; the inner one is libssh2's about the operation.
    pub(crate) fn run<T>(
        &mut self,
        what: &str,
        limit: Limit,
        mut operation: impl FnMut(&mut Session) -> Result<T, ssh2::Error>,
    ) -> Result<Result<T, ssh2::Error>, ConnectionError> {
        let mut since = Instant::now();
        loop {
            self.handle.wake.clear();
            self.relay.fill().map_err(ConnectionError::lost)?;
            let before = Instant::now();
            let result = operation(&mut self.session);
            // An operation may itself have waited long: for an agent, or for a person.
            if before.elapsed() > Duration::from_millis(100) {
                since = Instant::now();
            }
            self.relay.drain().map_err(ConnectionError::lost)?;
            match result {
                Err(error) if number(&error) == code::AGAIN => {}
                Err(error) if code::SOCKET.contains(&number(&error)) || self.relay.is_over() => {
                    return Err(ConnectionError::new(
                        FailureKind::ClosedByServer,
                        format!("{what}: {}", error.message()),
                    ));
                }
                other => return Ok(other),
            }
            if self.relay.fill().map_err(ConnectionError::lost)?
                || self.relay.is_unread().map_err(ConnectionError::lost)?
            {
                continue;
            }
            if self.relay.is_over() {
                return Err(ConnectionError::new(
                    FailureKind::ClosedByServer,
                    format!("{what}: the server closed the connection"),
                ));
            }
            let deadline = match limit {
                Limit::At(deadline) => deadline,
                Limit::Silence(patience) => since.max(self.relay.heard()).checked_add(patience),
            };
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Err(ConnectionError::new(
                    FailureKind::TimedOut,
                    format!("{what}: the server is silent"),
                ));
            }
            self.wait(deadline)?;
        }
    }

    fn wait(&self, deadline: Option<Instant>) -> Result<(), ConnectionError> {
        wait(&self.handle, self.relay.poll(), deadline)
    }
}

/// Waits for the descriptor, or a wake since the last `clear`; fails if nobody wants the connection any more.
pub(crate) fn wait(
    handle: &DriverHandle,
    fd: Option<PollFd<'_>>,
    deadline: Option<Instant>,
) -> Result<(), ConnectionError> {
    if handle.is_forsaken() {
        return Err(forsaken());
    }
    let mut fds = vec![PollFd::new(&handle.wake, PollFlags::IN)];
    fds.extend(fd);
    sleep(handle, &mut fds, deadline).map_err(ConnectionError::lost)
}

/// Waits until then.
pub(crate) fn wait_until(handle: &DriverHandle, deadline: Instant) -> Result<(), ConnectionError> {
    while Instant::now() < deadline {
        handle.wake.clear();
        wait(handle, None, Some(deadline))?;
    }
    Ok(())
}

/// Polls; a wake that came before, a time-out and a signal are not errors.
pub(crate) fn sleep(
    handle: &DriverHandle,
    fds: &mut [PollFd<'_>],
    deadline: Option<Instant>,
) -> io::Result<()> {
    let timeout = deadline.map(|deadline| {
        // Rounded up: poll counts milliseconds on some systems, and must not spin through the last one.
        let rest = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        Timespec::try_from(rest).unwrap_or(Timespec { tv_sec: 3600, tv_nsec: 0 })
    });
    match handle.wake.sleep(|| poll(fds, timeout.as_ref())) {
        None | Some(Ok(_) | Err(Errno::INTR)) => Ok(()),
        Some(Err(error)) => Err(error.into()),
    }
}

/// Nobody sees this one.
pub(crate) fn forsaken() -> ConnectionError {
    ConnectionError::new(FailureKind::ConnectionLost, "nobody waits for this connection any more")
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("relay", &self.relay).finish_non_exhaustive()
    }
}
