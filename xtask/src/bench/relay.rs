//! A line with a delay: a TCP relay on loopback.
//!
//! A delay *line*, not a sleep per read: every block carries the moment at which it is due at the far end, so any amount may
//! be under way at once. Both directions are independent. What it does not imitate: loss, and TCP's slow start and windows
//! (the kernel on this machine acknowledges at once); OpenSSH's own window per channel works as on a real line.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex};
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

impl Line {
    /// How long this many bytes occupy the line.
    pub(crate) fn occupied_by(self, bytes: u64) -> Duration {
        self.rate.map_or(Duration::ZERO, |rate| {
            Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / u64::from(rate.max(1)))
        })
    }
}

/// A line to one loopback port. Dropped, it cuts its connections and its threads end.
#[derive(Debug)]
pub(crate) struct Relay {
    port: u16,
    state: Arc<State>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    stopped: AtomicBool,
    /// Both ends of every connection, to cut them.
    streams: Mutex<Vec<TcpStream>>,
}

impl Relay {
    /// Listens on a free port, and connects each client to `target`.
    pub(crate) fn start(target: u16, line: Line) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free loopback port")?;
        let port = listener.local_addr().context("no local address")?.port();
        let state = Arc::new(State::default());
        let acceptor = std::thread::spawn({
            let state = Arc::clone(&state);
            move || {
                while let Ok((client, _)) = listener.accept() {
                    if state.stopped.load(Ordering::Acquire) {
                        break;
                    }
                    // A refused connection shows at the client as one that is closed at once.
                    if let Err(error) = connect(client, target, line, &state) {
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
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::Release);
        // Wakes the acceptor.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        if let Ok(streams) = self.state.streams.lock() {
            for stream in streams.iter() {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

fn connect(client: TcpStream, target: u16, line: Line, state: &State) -> Result<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).context("cannot reach the server")?;
    for stream in [&client, &server] {
        stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
    }
    let mut streams = state.streams.lock().map_err(|_| anyhow!("a relay thread panicked"))?;
    streams.extend([client.try_clone()?, server.try_clone()?]);
    drop(streams);
    direction(client.try_clone()?, server.try_clone()?, line);
    direction(server, client, line);
    Ok(())
}

/// A block and the moment at which it arrives. An empty one is the end of the stream.
type Due = (Instant, Vec<u8>);

fn direction(from: TcpStream, to: TcpStream, line: Line) {
    let (sender, receiver) = mpsc::sync_channel(BLOCKS);
    std::thread::spawn(move || enter_line(from, line, &sender));
    std::thread::spawn(move || leave_line(to, &receiver));
}

fn enter_line(mut from: TcpStream, line: Line, queue: &SyncSender<Due>) {
    let mut buffer = vec![0; BLOCK];
    let mut free = Instant::now();
    loop {
        // A broken connection ends like one that was closed; ssh notices both.
        let count = from.read(&mut buffer).unwrap_or(0);
        let now = Instant::now();
        free = free.max(now) + line.occupied_by(count as u64);
        let block = buffer.get(..count).unwrap_or_default().to_vec();
        if queue.send((free + line.delay, block)).is_err() {
            let _ = from.shutdown(Shutdown::Both);
            return;
        }
        if count == 0 {
            return;
        }
        std::thread::sleep(free.saturating_duration_since(now + AHEAD));
    }
}

fn leave_line(mut to: TcpStream, queue: &Receiver<Due>) {
    while let Ok((due, block)) = queue.recv() {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if block.is_empty() {
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
        if to.write_all(&block).is_err() {
            return;
        }
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
}
