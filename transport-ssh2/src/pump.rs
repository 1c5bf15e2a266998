//! The driver's side of one channel.

use std::{
    io::{self, Read as _, Write as _},
    ops::Range,
    os::unix::net::UnixStream,
    sync::Arc,
    time::{Duration, Instant},
};

use ncc_transport::Exit;
use rustix::event::{PollFd, PollFlags};

use crate::{
    link::{code, number},
    relay::{PACKETS_AT_ONCE, Relay},
    stream::{BUFFER, ChannelState, Output},
    window::Window,
};

/// libssh2 sends no more at once.
const CHUNK: usize = 32 * 1024;

/// How much is taken from libssh2 before the reader is woken. Less than a quarter of a window, which is adjusted as often.
const READ_SIZE: usize = 256 * 1024;

/// Nobody uses extended data of this type, so that reading it only makes libssh2 look at what came.
const NO_STREAM: i32 = 0x7fff_fff0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Alive,
    /// Both sides have closed it.
    Gone,
}

/// What became of a turn.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Turn {
    /// Something went on.
    pub(crate) busy: bool,
    /// libssh2 has looked at all that came.
    pub(crate) listened: bool,
}

#[expect(clippy::struct_excessive_bools, reason = "each is one direction's end, and they come in any order")]
pub(crate) struct ChannelPump {
    channel: ssh2::Channel,
    shared: Arc<ChannelState>,
    /// Taken from the caller. libssh2 must be given the very same bytes again until it takes them.
    outgoing: Vec<u8>,
    sent: usize,
    eof_sent: bool,
    stdout_done: bool,
    stderr_done: bool,
    /// The server has closed the channel; nothing may be sent on it any more.
    closed: bool,
    fate: Fate,
    bridge: Option<Bridge>,
    window: Window,
    /// An adjustment of the window that libssh2 could not send yet. It must be given the same again, before anything is read.
    adjustment: Option<u32>,
    scratch: Vec<u8>,
}

impl ChannelPump {
    /// A channel whose other end is with a caller, or `through` a socket.
    pub(crate) fn new(
        channel: ssh2::Channel,
        shared: Arc<ChannelState>,
        through: Option<UnixStream>,
        round_trip: Duration,
    ) -> Self {
        Self {
            channel,
            shared,
            outgoing: Vec::new(),
            sent: 0,
            eof_sent: false,
            stdout_done: false,
            stderr_done: false,
            closed: false,
            fate: Fate::Alive,
            bridge: through.map(Bridge::new),
            window: Window::new(round_trip, Instant::now()),
            adjustment: None,
            scratch: vec![0; READ_SIZE],
        }
    }

    pub(crate) fn shared(&self) -> &ChannelState {
        &self.shared
    }

    pub(crate) fn fate(&self) -> Fate {
        self.fate
    }

    /// What the bridge waits for.
    pub(crate) fn poll(&self) -> Option<PollFd<'_>> {
        let bridge = self.bridge.as_ref()?;
        let flags = bridge.interest(&self.shared);
        // Without any flag poll would still report a hang-up, again and again.
        (!flags.is_empty()).then(|| PollFd::new(&bridge.stream, flags))
    }

    /// Makes libssh2 look at what came, although nobody reads.
    pub(crate) fn listen(&mut self) -> Result<(), ssh2::Error> {
        if !self.widen(1)? {
            return Ok(());
        }
        read(&self.channel, NO_STREAM, &mut [0]).map(|_| ())
    }

    /// Carries what goes without waiting. An error is the end of the whole connection.
    pub(crate) fn serve(&mut self, relay: &mut Relay) -> Result<Turn, ssh2::Error> {
        let mut turn = Turn::default();
        if let Some(bridge) = &mut self.bridge {
            turn.busy |= bridge.carry(&self.shared);
        }
        if self.shared.lock().killed {
            self.close(&mut turn)?;
            return Ok(turn);
        }
        self.receive(Output::Stdout, &mut turn)?;
        self.receive(Output::Stderr, &mut turn)?;
        if let Some(bridge) = &mut self.bridge {
            turn.busy |= bridge.carry(&self.shared);
        }
        if !self.closed {
            self.look_for_the_end(&mut turn)?;
        }
        if !self.closed && !self.eof_sent {
            self.send(relay, &mut turn)?;
        }
        if self.closed && self.stdout_done && self.stderr_done {
            self.close(&mut turn)?;
        }
        Ok(turn)
    }

    fn receive(&mut self, output: Output, turn: &mut Turn) -> Result<(), ssh2::Error> {
        let (done, stream) = match output {
            Output::Stdout => (self.stdout_done, 0),
            Output::Stderr => (self.stderr_done, ssh2::EXTENDED_DATA_STDERR),
        };
        if done {
            return Ok(());
        }
        // Known before there is room for more, so that a channel without anything left never waits for its reader.
        let (count, ended) =
            if self.channel.eof() { (0, Ok(true)) } else { self.collect(output, stream, turn) };
        if count > 0 {
            turn.busy = true;
            self.window.count(count, Instant::now());
            let data = self.scratch.get(..count).unwrap_or_default();
            self.shared.lock().inlet(output).push(data);
        }
        if ended? {
            turn.busy = true;
            self.shared.lock().inlet(output).end();
            match output {
                Output::Stdout => self.stdout_done = true,
                Output::Stderr => self.stderr_done = true,
            }
        }
        Ok(())
    }

    /// Takes what came and has room with its reader: how much, and whether it has ended.
    fn collect(
        &mut self,
        output: Output,
        stream: i32,
        turn: &mut Turn,
    ) -> (usize, Result<bool, ssh2::Error>) {
        let room = {
            let mut state = self.shared.lock();
            let inlet = state.inlet(output);
            let room = inlet.room();
            inlet.starved = room == 0;
            room.min(READ_SIZE)
        };
        let mut count = 0;
        while count < room {
            turn.listened = true;
            match self.read_on(stream, count..room) {
                Ok(Some(0)) => return (count, Ok(true)),
                Ok(Some(more)) => count += more,
                Ok(None) => break,
                Err(error) => return (count, Err(error)),
            }
        }
        (count, Ok(false))
    }

    fn read_on(&mut self, stream: i32, into: Range<usize>) -> Result<Option<usize>, ssh2::Error> {
        if !self.widen(into.len())? {
            return Ok(None);
        }
        read(&self.channel, stream, self.scratch.get_mut(into).unwrap_or_default())
    }

    /// Grants the server what it may send, before at most `next` bytes are read. Whether they may be.
    fn widen(&mut self, next: usize) -> Result<bool, ssh2::Error> {
        let remaining = self.channel.read_window().remaining;
        let adjustment = self.adjustment.or_else(|| self.window.missing(remaining, next));
        let Some(missing) = adjustment else { return Ok(true) };
        match self.channel.adjust_receive_window(missing.into(), true) {
            Ok(_) => {
                self.adjustment = None;
                Ok(true)
            }
            // Keys are being exchanged.
            Err(error) if number(&error) == code::AGAIN => {
                self.adjustment = adjustment;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn look_for_the_end(&mut self, turn: &mut Turn) -> Result<(), ssh2::Error> {
        match self.channel.wait_close() {
            Ok(()) => {
                self.closed = true;
                turn.busy = true;
                let exit = self.exit()?;
                let mut state = self.shared.lock();
                state.break_stdin();
                state.set_exit(exit);
                Ok(())
            }
            // Not even its output has ended.
            Err(error) if [code::AGAIN, code::INVALID].contains(&number(&error)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn exit(&self) -> Result<Exit, ssh2::Error> {
        if let Some(signal) = self.channel.exit_signal()?.exit_signal {
            // RFC 4254 gives names without SIG, but not every server does.
            let name = signal.strip_prefix("SIG").unwrap_or(&signal).to_owned();
            return Ok(Exit::Signal(name));
        }
        Ok(Exit::Code(self.channel.exit_status()?))
    }

    fn send(&mut self, relay: &mut Relay, turn: &mut Turn) -> Result<(), ssh2::Error> {
        for _ in 0..PACKETS_AT_ONCE {
            if self.sent >= self.outgoing.len() {
                self.sent = 0;
                let ended = {
                    let mut state = self.shared.lock();
                    state.take_stdin(&mut self.outgoing);
                    state.stdin.ended
                };
                if self.outgoing.is_empty() {
                    if ended {
                        match self.channel.send_eof() {
                            Ok(()) => (self.eof_sent, turn.busy) = (true, true),
                            Err(error) if number(&error) == code::AGAIN => {}
                            Err(error) => return Err(error),
                        }
                    }
                    return Ok(());
                }
            }
            if !relay.has_room() {
                return Ok(());
            }
            let end = self.outgoing.len().min(self.sent + CHUNK);
            let chunk = self.outgoing.get(self.sent..end).unwrap_or_default();
            turn.listened = true;
            match write(&mut self.channel, chunk)? {
                0 => return Ok(()),
                count => {
                    self.sent += count;
                    turn.busy = true;
                }
            }
        }
        Ok(())
    }

    fn close(&mut self, turn: &mut Turn) -> Result<(), ssh2::Error> {
        turn.listened = true;
        match self.channel.close() {
            Ok(()) => {
                (self.fate, turn.busy) = (Fate::Gone, true);
                Ok(())
            }
            Err(error) if number(&error) == code::AGAIN => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Reads; `None` if nothing is there yet.
fn read(channel: &ssh2::Channel, stream: i32, buffer: &mut [u8]) -> Result<Option<usize>, ssh2::Error> {
    match channel.stream(stream).read(buffer) {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(in_words(&error)),
    }
}

/// Writes; 0 if nothing is taken for now.
fn write(channel: &mut ssh2::Channel, data: &[u8]) -> Result<usize, ssh2::Error> {
    match channel.write(data) {
        Ok(count) => Ok(count),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(in_words(&error)),
    }
}

/// The crate ssh2 makes an `io::Error` of its error and keeps only the text. Each that is possible here is the connection's end.
fn in_words(error: &io::Error) -> ssh2::Error {
    let number = code::SOCKET.first().copied().unwrap_or_default();
    let text = match error.to_string() {
        text if text.contains("transport read") => "the connection broke while reading",
        _ => "the connection broke while writing",
    };
    ssh2::Error::new(ssh2::ErrorCode::Session(number), text)
}

/// Carries the bytes of a channel from and to a socket.
struct Bridge {
    stream: UnixStream,
    /// From the channel, not yet written.
    unwritten: Vec<u8>,
    written: usize,
    /// The socket gives no more.
    input_ended: bool,
    /// The socket was told that no more comes.
    output_ended: bool,
    buffer: Vec<u8>,
}

impl Bridge {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            unwritten: Vec::new(),
            written: 0,
            input_ended: false,
            output_ended: false,
            buffer: vec![0; READ_SIZE],
        }
    }

    /// Whether anything went on.
    fn carry(&mut self, shared: &ChannelState) -> bool {
        let mut busy = false;
        loop {
            let room = BUFFER.saturating_sub(shared.lock().stdin.data.len()).min(self.buffer.len());
            if self.input_ended || room == 0 {
                break;
            }
            match (&self.stream).read(self.buffer.get_mut(..room).unwrap_or_default()) {
                Ok(0) => {
                    self.input_ended = true;
                    shared.lock().stdin.ended = true;
                }
                Ok(count) => {
                    let data = self.buffer.get(..count).unwrap_or_default();
                    shared.lock().stdin.data.extend_from_slice(data);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.hang_up(shared),
            }
            busy = true;
        }
        while !self.output_ended {
            if self.written >= self.unwritten.len() {
                (self.unwritten, self.written) = (Vec::new(), 0);
                let mut state = shared.lock();
                let inlet = state.inlet(Output::Stdout);
                std::mem::swap(&mut self.unwritten, &mut inlet.data);
                if self.unwritten.is_empty() {
                    if inlet.ended {
                        self.output_ended = true;
                        let _ = self.stream.shutdown(std::net::Shutdown::Write);
                        busy = true;
                    }
                    break;
                }
            }
            match (&self.stream).write(self.unwritten.get(self.written..).unwrap_or_default()) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.hang_up(shared),
            }
            busy = true;
        }
        // Whoever used it has closed it, and will not read.
        if self.input_ended && self.output_ended {
            shared.lock().killed = true;
        }
        busy
    }

    fn hang_up(&mut self, shared: &ChannelState) -> bool {
        (self.input_ended, self.output_ended) = (true, true);
        let mut state = shared.lock();
        !std::mem::replace(&mut state.killed, true)
    }

    fn interest(&self, shared: &ChannelState) -> PollFlags {
        let mut flags = PollFlags::empty();
        let full = shared.lock().stdin.data.len() >= BUFFER;
        flags.set(PollFlags::IN, !self.input_ended && !full);
        flags.set(PollFlags::OUT, self.written < self.unwritten.len());
        flags
    }
}
