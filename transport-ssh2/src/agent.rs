//! Whether an agent is alive.
//!
//! libssh2 waits for an agent without any limit, in a call that nothing can end. So it is only let near one that has just answered the
//! very question that libssh2 is going to ask. A signature it may still wait for as long as the agent likes, which asks a person first,
//! or wants a token touched; so does OpenSSH.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags},
    io::{Errno, FdFlags},
    net::{AddressFamily, SocketAddrUnix, SocketType},
};

use crate::{hub::Hub, link, trouble::Trouble};

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
pub(crate) fn look(path: &Path, hub: &Hub) -> Result<State, Trouble> {
    let deadline = Instant::now() + PATIENCE;
    let mut agent = loop {
        match connect(path) {
            Ok(agent) => break agent,
            // As many as the system lets wait do wait already.
            Err(Errno::AGAIN) if Instant::now() < deadline => link::wait_until(hub, Instant::now() + PAUSE)?,
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
        hub.wake.clear();
        let mut buffer = [0; 4096];
        match agent.read(&mut buffer) {
            Ok(0) => return Ok(State::Absent),
            Ok(count) => answer.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if deadline <= Instant::now() {
                    return Ok(State::Silent);
                }
                link::wait(hub, Some(PollFd::new(&agent, PollFlags::IN)), Some(deadline))?;
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

/// Whether all of an answer is there. One that is too long is libssh2's to refuse.
fn is_whole(answer: &[u8]) -> bool {
    let Some((length, rest)) = answer.split_first_chunk() else { return false };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    rest.len() >= length.min(LONGEST)
}
