//! A line with a delay, or with a fault: a TCP relay on loopback.
//!
//! A delay *line*, not a sleep per read: every block carries the moment at which it is due at the far end, so any amount may
//! be under way at once. Both directions are independent. What it does not imitate: loss, and TCP's slow start and windows
//! (the kernel on this machine acknowledges at once); OpenSSH's own window per channel works as on a real line.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

/// Bytes per read. At 100 Mbit/s a block takes 1.3 ms of the line, so a limit still flows evenly.
const BLOCK: usize = 16 << 10;

/// Blocks under way per direction: at most 64 MiB, which is 1.2 GB/s at 50 ms.
const BLOCKS: usize = 4096;

/// How far ahead of a limited line the relay reads: what a router would queue.
const AHEAD: Duration = Duration::from_millis(10);

/// What a line does to each direction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Line {
    /// From one end to the other: half of a round trip.
    pub(crate) delay: Duration,
    /// Bytes per second.
    pub(crate) rate: Option<u32>,
}

/// How long this many bytes take at so many per second; 0 is as fast as it goes.
pub(crate) fn duration_of(bytes: u64, rate: u32) -> Duration {
    if rate == 0 {
        return Duration::ZERO;
    }
    Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / u64::from(rate))
}

/// A direction of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the client to the server.
    Up,
    Down,
}

impl Way {
    pub(crate) const ALL: [Self; 2] = [Self::Up, Self::Down];
}

/// What happens to a line, once, when so many bytes have gone one way.
pub(crate) struct Trouble {
    pub(crate) way: Way,
    pub(crate) after: u64,
    pub(crate) effect: Effect,
}

/// The kinds of trouble.
pub(crate) enum Effect {
    /// All connections end, without a word to either side that is not there yet.
    Cut,
    /// The same, and again whenever so many more bytes have gone.
    Cuts(u64),
    /// Nothing arrives any more on the connections that there are, and nobody is told.
    Stall,
    /// From here on only so many bytes per second, each way.
    Slow(u32),
    /// One bit arrives as another.
    Corrupt,
    /// Something else happens meanwhile.
    Call(Box<dyn FnOnce() + Send>),
}

/// A line to one loopback port. Dropped, it cuts its connections and its threads end.
#[derive(Debug)]
pub(crate) struct Relay {
    port: u16,
    state: Arc<State>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    stopped: AtomicBool,
    /// Connections so far.
    connections: AtomicU32,
    /// So many of them stand still.
    stalled: AtomicU32,
    /// Bytes per second, 0 without a limit.
    rate: AtomicU32,
    /// What has arrived at the far ends, up and down.
    carried: [AtomicU64; 2],
    /// What is still to happen.
    trouble: Mutex<Option<Trouble>>,
    struck: AtomicU32,
    /// Both ends of every connection, to cut them.
    streams: Mutex<Vec<TcpStream>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("State").field("carried", &self.carried).finish_non_exhaustive()
    }
}

impl State {
    fn carried(&self, way: Way) -> &AtomicU64 {
        let [up, down] = &self.carried;
        if way == Way::Up { up } else { down }
    }

    fn cut(&self) {
        for stream in self.streams.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// How many of the next bytes may still pass before it strikes; all of them if it will not.
    fn until_trouble(&self, way: Way, count: usize) -> usize {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let left = trouble
            .as_ref()
            .filter(|trouble| trouble.way == way)
            .map(|trouble| trouble.after.saturating_sub(self.carried(way).load(Ordering::Acquire)));
        left.and_then(|left| usize::try_from(left).ok()).map_or(count, |left| left.min(count))
    }

    /// It strikes in front of these bytes, if it does.
    fn strike(&self, way: Way, bytes: &mut [u8]) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Trouble { effect, .. }) = trouble.take_if(|trouble| trouble.way == way) else { return };
        if let Effect::Cuts(each) = effect {
            let after = self.carried(way).load(Ordering::Acquire).saturating_add(each);
            *trouble = Some(Trouble { way, after, effect: Effect::Cuts(each) });
        }
        drop(trouble);
        self.struck.fetch_add(1, Ordering::AcqRel);
        match effect {
            Effect::Cut | Effect::Cuts(_) => self.cut(),
            Effect::Stall => {
                self.stalled.store(self.connections.load(Ordering::Acquire), Ordering::Release);
            }
            Effect::Slow(rate) => self.rate.store(rate, Ordering::Release),
            Effect::Corrupt => {
                if let Some(byte) = bytes.first_mut() {
                    *byte ^= 1 << (*byte % 8);
                }
            }
            Effect::Call(call) => call(),
        }
    }
}

impl Relay {
    /// Listens on a free port, and connects each client to `target`.
    pub(crate) fn start(target: u16, line: Line) -> Result<Self> {
        Self::with_trouble(target, line, None)
    }

    /// The same, and something happens on it.
    pub(crate) fn with_trouble(target: u16, line: Line, trouble: Option<Trouble>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free loopback port")?;
        let port = listener.local_addr().context("no local address")?.port();
        let state = State { trouble: Mutex::new(trouble), ..State::default() };
        state.rate.store(line.rate.unwrap_or_default(), Ordering::Release);
        let state = Arc::new(state);
        let acceptor = std::thread::spawn({
            let state = Arc::clone(&state);
            move || {
                while let Ok((client, _)) = listener.accept() {
                    if state.stopped.load(Ordering::Acquire) {
                        break;
                    }
                    // A refused connection shows at the client as one that is closed at once.
                    if let Err(error) = connect(client, target, line.delay, &state) {
                        eprintln!("relay: {error:#}");
                    }
                }
            }
        });
        Ok(Self { port, state, acceptor: Some(acceptor) })
    }

    /// Where clients connect.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// How many bytes have arrived at the end of one way.
    pub(crate) fn carried(&self, way: Way) -> u64 {
        self.state.carried(way).load(Ordering::Acquire)
    }

    /// How often the trouble has come.
    pub(crate) fn struck(&self) -> u32 {
        self.state.struck.load(Ordering::Acquire)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::Release);
        // Wakes the acceptor.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        self.state.cut();
    }
}

fn connect(client: TcpStream, target: u16, delay: Duration, state: &Arc<State>) -> Result<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).context("cannot reach the server")?;
    for stream in [&client, &server] {
        stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
    }
    let mut streams = state.streams.lock().map_err(|_| anyhow!("a relay thread panicked"))?;
    streams.extend([client.try_clone()?, server.try_clone()?]);
    drop(streams);
    let number = state.connections.fetch_add(1, Ordering::AcqRel);
    direction(client.try_clone()?, server.try_clone()?, Way::Up, delay, (state, number));
    direction(server, client, Way::Down, delay, (state, number));
    Ok(())
}

/// A block and the moment at which it arrives. An empty one is the end of the stream.
type Due = (Instant, Vec<u8>);

fn direction(from: TcpStream, to: TcpStream, way: Way, delay: Duration, (state, number): (&Arc<State>, u32)) {
    let (sender, receiver) = mpsc::sync_channel(BLOCKS);
    let (entered, left) = (Arc::clone(state), Arc::clone(state));
    std::thread::spawn(move || enter_line(from, delay, &entered, &sender));
    std::thread::spawn(move || leave_line(to, way, number, &left, &receiver));
}

fn enter_line(mut from: TcpStream, delay: Duration, state: &State, queue: &SyncSender<Due>) {
    let mut buffer = vec![0; BLOCK];
    let mut free = Instant::now();
    loop {
        // A broken connection ends like one that was closed; ssh notices both.
        let count = from.read(&mut buffer).unwrap_or(0);
        let now = Instant::now();
        free = free.max(now) + duration_of(count as u64, state.rate.load(Ordering::Acquire));
        let block = buffer.get(..count).unwrap_or_default().to_vec();
        if queue.send((free + delay, block)).is_err() {
            let _ = from.shutdown(Shutdown::Both);
            return;
        }
        if count == 0 {
            return;
        }
        std::thread::sleep(free.saturating_duration_since(now + AHEAD));
    }
}

fn leave_line(mut to: TcpStream, way: Way, number: u32, state: &State, queue: &Receiver<Due>) {
    while let Ok((due, mut block)) = queue.recv() {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let mut rest = block.as_mut_slice();
        if rest.is_empty() {
            wait_while_stalled(state, number);
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
        while !rest.is_empty() {
            let now = state.until_trouble(way, rest.len());
            let (before, behind) = rest.split_at_mut(now);
            if before.is_empty() {
                state.strike(way, behind);
            } else {
                wait_while_stalled(state, number);
                if to.write_all(before).is_err() {
                    return;
                }
                state.carried(way).fetch_add(before.len() as u64, Ordering::AcqRel);
            }
            rest = behind;
        }
    }
}

/// How often a line that stands still looks whether it is still there.
const LOOK: Duration = Duration::from_millis(10);

fn wait_while_stalled(state: &State, number: u32) {
    while number < state.stalled.load(Ordering::Acquire) && !state.stopped.load(Ordering::Acquire) {
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends back what it gets, and ends when its client does.
    fn echo() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut out = stream.try_clone().expect("a clone");
            let _ = std::io::copy(&mut stream, &mut out);
            let _ = out.shutdown(Shutdown::Write);
        });
        port
    }

    fn client(relay: &Relay) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, relay.port())).expect("the relay listens")
    }

    /// Sends `bytes`, closes, and reads the echo to its end; how long that took.
    fn there_and_back(relay: &Relay, bytes: usize) -> Duration {
        let mut stream = client(relay);
        let mut out = stream.try_clone().expect("a clone");
        let start = Instant::now();
        let sent: Vec<u8> = (0..bytes).map(|number| number.to_le_bytes()[0]).collect();
        let expected = sent.clone();
        let writer = std::thread::spawn(move || {
            out.write_all(&sent).expect("the relay takes it");
            out.shutdown(Shutdown::Write).expect("closed");
        });
        let mut received = Vec::new();
        stream.read_to_end(&mut received).expect("the echo");
        writer.join().expect("no panic");
        assert!(received == expected, "{} of {bytes} bytes came back as sent", received.len());
        start.elapsed()
    }

    #[test]
    fn every_round_trip_takes_two_delays() {
        let delay = Duration::from_millis(40);
        let relay = Relay::start(echo(), Line { delay, rate: None }).expect("a relay");
        let mut stream = client(&relay);
        stream.set_nodelay(true).expect("TCP_NODELAY");
        for _ in 0..5 {
            let start = Instant::now();
            stream.write_all(b"ping").expect("sent");
            stream.read_exact(&mut [0; 4]).expect("answered");
            // Never early. How late depends on what else the machine does.
            let took = start.elapsed();
            assert!(took >= delay * 2, "{took:?}");
        }
    }

    /// 32 MiB in 2,048 blocks: with a sleep per read they would take 80 s.
    #[test]
    #[ignore = "measures: on a busy machine it may fail"]
    fn delay_does_not_throttle() {
        let relay =
            Relay::start(echo(), Line { delay: Duration::from_millis(40), rate: None }).expect("a relay");
        let took = there_and_back(&relay, 32 << 20);
        assert!(took < Duration::from_secs(8), "{took:?}");
    }

    #[test]
    fn rate_holds() {
        let line = Line { delay: Duration::from_millis(20), rate: Some(4 << 20) };
        let relay = Relay::start(echo(), line).expect("a relay");
        // 2 MiB take half a second.
        let took = there_and_back(&relay, 2 << 20);
        assert!(took >= Duration::from_millis(540), "{took:?}");
    }

    #[test]
    #[ignore = "measures: on a busy machine it may fail"]
    fn directions_do_not_slow_each_other() {
        let line = Line { delay: Duration::from_millis(20), rate: Some(4 << 20) };
        let relay = Relay::start(echo(), line).expect("a relay");
        // 4 MiB take a second each way, but the echo comes while the rest still goes.
        let took = there_and_back(&relay, 4 << 20);
        assert!(took < Duration::from_millis(1900), "{took:?}: one direction slows the other");
    }

    #[test]
    fn dropped_it_cuts_its_connections() {
        let relay =
            Relay::start(echo(), Line { delay: Duration::from_millis(5), rate: None }).expect("a relay");
        let mut stream = client(&relay);
        stream.write_all(b"ping").expect("sent");
        stream.read_exact(&mut [0; 4]).expect("answered");
        drop(relay);
        assert_eq!(stream.read(&mut [0; 4]).unwrap_or(0), 0);
    }

    #[test]
    fn a_refused_connection_is_closed() {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let relay = Relay::start(port, Line::default()).expect("a relay");
        assert_eq!(client(&relay).read(&mut [0; 4]).unwrap_or(0), 0);
    }
    /// What of a message arrives before the line does something to it.
    fn received(effect: Effect, message: &[u8]) -> Vec<u8> {
        let trouble = Trouble { way: Way::Down, after: 5, effect };
        let relay = Relay::with_trouble(echo(), Line::default(), Some(trouble)).expect("a relay");
        let mut stream = client(&relay);
        stream.write_all(message).expect("sent");
        let _ = stream.shutdown(Shutdown::Write);
        let mut received = Vec::new();
        let _ = stream.read_to_end(&mut received);
        assert_eq!(relay.struck(), 1);
        assert_eq!(relay.carried(Way::Down), received.len() as u64);
        received
    }

    #[test]
    fn trouble_comes_at_the_byte() {
        assert_eq!(received(Effect::Cut, b"hello world"), b"hello");
        assert_eq!(received(Effect::Corrupt, b"hello world"), b"hello!world");
        assert_eq!(received(Effect::Slow(1 << 20), b"hello world"), b"hello world");
        let (sender, called) = mpsc::channel();
        let call = move || sender.send(()).expect("somebody listens");
        assert_eq!(received(Effect::Call(Box::new(call)), b"hello world"), b"hello world");
        assert_eq!(called.try_recv(), Ok(()));
    }

    #[test]
    fn a_line_is_cut_again_and_again() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let target = listener.local_addr().expect("an address").port();
        let trouble = Trouble { way: Way::Up, after: 5, effect: Effect::Cuts(3) };
        let relay = Relay::with_trouble(target, Line::default(), Some(trouble)).expect("a relay");
        for expected in [&b"hello"[..], b"hel", b"hel"] {
            let mut stream = client(&relay);
            let (mut server, _) = listener.accept().expect("a client");
            stream.write_all(b"hello world").expect("sent");
            let mut received = Vec::new();
            let _ = server.read_to_end(&mut received);
            assert_eq!(received, expected);
        }
        assert_eq!(relay.struck(), 3);
    }

    #[test]
    fn nothing_leaves_a_line_that_stands_still() {
        let trouble = Trouble { way: Way::Up, after: 5, effect: Effect::Stall };
        let relay = Relay::with_trouble(echo(), Line::default(), Some(trouble)).expect("a relay");
        let mut stream = client(&relay);
        stream.write_all(b"hello world").expect("sent");
        while relay.struck() == 0 {
            std::thread::sleep(LOOK);
        }
        assert_eq!(relay.carried(Way::Up), 5);
        drop(relay);
        // Whatever came before; no more than that.
        let mut received = Vec::new();
        let _ = stream.read_to_end(&mut received);
        assert!(b"hello".starts_with(&received), "{received:?}");
    }
}
