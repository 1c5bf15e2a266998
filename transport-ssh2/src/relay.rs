//! The bytes between libssh2 and the network.
//!
//! libssh2 gets one end of a socket pair, and the driver carries the bytes between the other end and the network, on the same thread.
//! That buys three things.
//!
//! * libssh2 never sees a socket that takes only a part of a packet: the driver empties the pair before it lets libssh2 send. With such
//!   a socket, releases up to 1.11.1 lock up when the server begins a key exchange in that moment (libssh2 issues 1672 and 2110), and
//!   every release insists on being given the same packet again before anything else.
//! * TCP, the pipes of a ProxyCommand and a channel through a jump host are the same to it.
//! * The driver knows when bytes came and whether they leave, whatever libssh2 is busy with.
//!
//! It costs a copy each way; `BENCHMARKS.md` has the numbers.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    time::Instant,
};

use rustix::event::{PollFd, PollFlags};

use crate::negotiation::Beginning;

/// How much is read at once.
const READ_SIZE: usize = 256 * 1024;

/// The most that may wait for the network before libssh2 is given no more to send.
const BACKLOG: usize = 1024 * 1024;

/// What a socket of the pair must hold: several packets of at most 35,000 bytes. Linux gives twice of what it is asked for, and
/// accounts for more than the bytes.
const PAIR_SIZE: usize = 256 * 1024;

/// How many packets may be given to libssh2 before the pair has to be emptied.
pub(crate) const PACKETS_AT_ONCE: usize = 4;

/// The way to the server.
#[derive(Debug)]
pub(crate) enum Far {
    Tcp(TcpStream),
    /// A ProxyCommand, or a channel through a jump host.
    Local(UnixStream),
}

impl Far {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Local(stream) => stream.read(buffer),
        }
    }

    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(data),
            Self::Local(stream) => stream.write(data),
        }
    }
}

impl AsFd for Far {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Local(stream) => stream.as_fd(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Relay {
    near: UnixStream,
    /// libssh2's own end, to look at and never to read.
    socket: UnixStream,
    far: Far,
    inbound: Buffer,
    outbound: Buffer,
    /// The server sends no more.
    ended: bool,
    /// The network did not take all of it.
    blocked: bool,
    heard: Instant,
    /// Until the keys are agreed on.
    beginning: Option<Beginning>,
}

impl Relay {
    /// The relay, and what libssh2 has to be given as its socket.
    pub(crate) fn new(far: Far) -> io::Result<(Self, UnixStream)> {
        let (near, socket) = UnixStream::pair()?;
        for end in [&near, &socket] {
            end.set_nonblocking(true)?;
            // Elsewhere than on Linux the default may be less than a packet. Where it is refused, the default has to do.
            let _ = rustix::net::sockopt::set_socket_send_buffer_size(end, PAIR_SIZE);
            let _ = rustix::net::sockopt::set_socket_recv_buffer_size(end, PAIR_SIZE);
        }
        match &far {
            Far::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
            }
            Far::Local(stream) => stream.set_nonblocking(true)?,
        }
        let relay = Self {
            near,
            socket: socket.try_clone()?,
            far,
            inbound: Buffer::default(),
            outbound: Buffer::default(),
            ended: false,
            blocked: false,
            heard: Instant::now(),
            beginning: Some(Beginning::default()),
        };
        Ok((relay, socket))
    }

    /// Carries bytes to libssh2. Whether there were any.
    pub(crate) fn fill(&mut self) -> io::Result<bool> {
        if self.inbound.is_empty() && !self.ended {
            let far = &mut self.far;
            match self.inbound.read_from(|buffer| far.read(buffer)) {
                Ok(Some(0)) => self.ended = true,
                Ok(Some(count)) => {
                    self.heard = Instant::now();
                    if let Some(beginning) = &mut self.beginning {
                        beginning.received(self.inbound.last(count));
                    }
                }
                Ok(None) => {}
                // What a peer that is gone makes of bytes that were on their way to it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => self.ended = true,
                Err(error) => return Err(error),
            }
        }
        let near = &mut self.near;
        self.inbound.write_to(|data| near.write(data)).map(|count| count > 0)
    }

    /// Carries bytes away from libssh2. Whether there were any.
    pub(crate) fn drain(&mut self) -> io::Result<bool> {
        let mut moved = false;
        loop {
            let near = &mut self.near;
            match self.outbound.read_from(|buffer| near.read(buffer))? {
                None | Some(0) => break,
                Some(count) => {
                    moved = true;
                    if let Some(beginning) = &mut self.beginning {
                        beginning.sent(self.outbound.last(count));
                    }
                }
            }
        }
        let far = &mut self.far;
        match self.outbound.write_to(|data| far.write(data)) {
            Ok(count) => {
                moved |= count > 0;
                if self.blocked && count > 0 {
                    // A slow network that takes what it could not take before is alive.
                    self.heard = Instant::now();
                }
                self.blocked = !self.outbound.is_empty();
                Ok(moved)
            }
            // The server may have said why, and hung up: that is still to be read.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
            {
                self.outbound = Buffer::default();
                Ok(moved)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether libssh2 has left something unread, and has to be called again.
    ///
    /// That it "would block" does not mean that it has read all: with ciphers that need a whole packet it says so as soon as the packet
    /// at hand is incomplete, and only reads on in the next call.
    pub(crate) fn is_unread(&self) -> io::Result<bool> {
        Ok(rustix::io::ioctl_fionread(&self.socket)? > 0)
    }

    /// What the two sides said first, until this is forgotten.
    pub(crate) fn beginning(&self) -> Option<&Beginning> {
        self.beginning.as_ref()
    }

    pub(crate) fn forget_beginning(&mut self) {
        self.beginning = None;
    }

    /// Whether libssh2 may be given more to send.
    pub(crate) fn has_room(&self) -> bool {
        self.outbound.len() < BACKLOG
    }

    /// Whether the server has hung up and all that it sent has been given to libssh2.
    pub(crate) fn is_over(&self) -> bool {
        self.ended && self.inbound.is_empty()
    }

    /// When the last sign of life came.
    pub(crate) fn heard(&self) -> Instant {
        self.heard
    }

    /// Whether something still has to leave.
    pub(crate) fn is_unsent(&self) -> bool {
        !self.outbound.is_empty()
    }

    /// What to wait for, if anything.
    pub(crate) fn poll(&self) -> Option<PollFd<'_>> {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.inbound.is_empty() && !self.ended);
        flags.set(PollFlags::OUT, !self.outbound.is_empty());
        // Without any flag poll would still report a hang-up, again and again.
        (!flags.is_empty()).then(|| PollFd::new(&self.far, flags))
    }
}

/// Bytes on their way: those from `start` to `end`.
#[derive(Debug, Default)]
struct Buffer {
    data: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    fn len(&self) -> usize {
        self.end - self.start
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The last bytes that were read.
    fn last(&self, count: usize) -> &[u8] {
        self.data.get(self.end.saturating_sub(count)..self.end).unwrap_or_default()
    }

    /// Reads once; `None` if nothing is there, 0 at the end.
    fn read_from(
        &mut self,
        mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
        if self.data.len() - self.end < READ_SIZE {
            self.data.resize(self.end + READ_SIZE, 0);
        }
        loop {
            match read(self.data.get_mut(self.end..).unwrap_or_default()) {
                Ok(count) => {
                    self.end += count;
                    return Ok(Some(count));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes what goes without waiting: how much that was.
    fn write_to(&mut self, mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
        let mut written = 0;
        while !self.is_empty() {
            match write(self.data.get(self.start..self.end).unwrap_or_default()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.start += count;
                    written += count;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_keeps_the_order_whatever_fits() {
        let input: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let (mut buffer, mut output, mut position) = (Buffer::default(), Vec::new(), 0);
        let mut size = 1;
        while output.len() < input.len() {
            size = size * 7 % 100_003;
            let count = size.min(input.len() - position);
            buffer
                .read_from(|into| {
                    let count = count.min(into.len());
                    into[..count].copy_from_slice(&input[position..position + count]);
                    position += count;
                    if count == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
                })
                .unwrap();
            let mut budget = size * 3 % 90_001;
            buffer
                .write_to(|data| {
                    let count = data.len().min(budget);
                    budget -= count;
                    output.extend_from_slice(&data[..count]);
                    if count == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
                })
                .unwrap();
        }
        assert!(output == input);
    }
}
