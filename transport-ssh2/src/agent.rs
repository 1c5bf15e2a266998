//! Whether an agent is alive.
//!
//! libssh2 waits for an agent without any limit, in a call that nothing can end. So it is only let near one that has just answered the
//! very question that libssh2 is going to ask. Before an agent signs, it may ask a person or want a token touched: that takes longer,
//! and all that can be done then is to let nobody wait for libssh2 any more ([`Alarm`]).

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags},
    io::{Errno, FdFlags},
    net::{AddressFamily, SocketAddrUnix, SocketType},
};

use crate::{error::ConnectionError, handle::DriverHandle, link};

/// How long an agent may take to say which keys it has: it may be at the other end of a slow line.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait with the next attempt while too many others wait for the same agent.
const PAUSE: Duration = Duration::from_millis(100);

/// SSH_AGENTC_REQUEST_IDENTITIES, with its length before it.
const REQUEST: [u8; 5] = [0, 0, 0, 1, 11];

/// The longest answer that OpenSSH takes.
const LONGEST: usize = 256 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Answers,
    /// There is something, which does not answer in time.
    Silent,
    /// There is nothing, or something that is no agent.
    Absent,
}

/// Asks for its keys. Fails only if nobody wants the connection any more.
pub(crate) fn look(path: &Path, handle: &DriverHandle) -> Result<State, ConnectionError> {
    let deadline = Instant::now() + PATIENCE;
    let mut agent = loop {
        match connect(path) {
            Ok(agent) => break agent,
            // As many as the system lets wait do wait already.
            Err(Errno::AGAIN) if Instant::now() < deadline => {
                link::wait_until(handle, Instant::now() + PAUSE)?;
            }
            Err(Errno::AGAIN) => return Ok(State::Silent),
            Err(_) => return Ok(State::Absent),
        }
    };
    // A few bytes on a new socket: there is room.
    if agent.write_all(&REQUEST).is_err() {
        return Ok(State::Absent);
    }
    let mut answer = Vec::new();
    while !is_whole(&answer) {
        handle.wake.clear();
        let mut buffer = [0; 4096];
        match agent.read(&mut buffer) {
            Ok(0) => return Ok(State::Absent),
            Ok(count) => answer.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if deadline <= Instant::now() {
                    return Ok(State::Silent);
                }
                link::wait(handle, Some(PollFd::new(&agent, PollFlags::IN)), Some(deadline))?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Ok(State::Absent),
        }
    }
    Ok(State::Answers)
}

/// Without waiting for the agent to take it, or later for what it says.
fn connect(path: &Path) -> Result<UnixStream, Errno> {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(UnixStream::from(socket))
}

/// Answers all who wait for a connection if it is not dropped in time.
#[derive(Debug)]
pub(crate) struct Alarm {
    _until: mpsc::Sender<()>,
}

impl Alarm {
    pub(crate) fn after(
        patience: Duration,
        handle: &Arc<DriverHandle>,
        answer: ConnectionError,
    ) -> Result<Self, ConnectionError> {
        let (until, wait) = mpsc::channel();
        let handle = Arc::clone(handle);
        let watch = move || {
            if wait.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout) {
                handle.close(&answer);
            }
        };
        thread::Builder::new().name("ssh2 agent".to_owned()).spawn(watch).map_err(ConnectionError::lost)?;
        Ok(Self { _until: until })
    }
}

/// Whether all of an answer is there. One that is too long is libssh2's to refuse.
fn is_whole(answer: &[u8]) -> bool {
    let Some((length, rest)) = answer.split_first_chunk() else { return false };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    rest.len() >= length.min(LONGEST)
}

#[cfg(test)]
mod tests {
    use ncc_transport::FailureKind;

    use super::*;
    use crate::handle::{Request, Wanted};

    /// A connection for which somebody waits, and what that one is told.
    fn wanted() -> (Arc<DriverHandle>, mpsc::Receiver<Result<(), ConnectionError>>) {
        let handle = DriverHandle::new().unwrap();
        let (send, told) = mpsc::channel();
        let request = Request {
            what: Wanted::Command(String::new()),
            shared: Arc::default(),
            interest: Arc::default(),
            reply: Box::new(move |result| send.send(result).unwrap()),
        };
        assert!(handle.ask(request).is_ok_and(|first| first));
        (handle, told)
    }

    #[test]
    fn an_agent_that_does_not_sign_keeps_nobody_waiting() {
        let (handle, told) = wanted();
        let answer = ConnectionError::new(FailureKind::PermissionDenied, "no signature");
        let _alarm = Alarm::after(Duration::from_millis(1), &handle, answer).unwrap();
        let told = told.recv_timeout(Duration::from_secs(20)).unwrap().unwrap_err();
        assert_eq!(told.evidence, "no signature");
        assert!(handle.is_closed() && handle.is_forsaken());
    }

    #[test]
    fn an_alarm_that_is_dropped_in_time_tells_nobody() {
        let (handle, told) = wanted();
        let answer = ConnectionError::new(FailureKind::PermissionDenied, "no signature");
        drop(Alarm::after(Duration::from_millis(300), &handle, answer).unwrap());
        assert!(told.recv_timeout(Duration::from_secs(1)).is_err());
        assert!(!handle.is_closed());
    }
}
