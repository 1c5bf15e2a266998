//! The thread that drives a connection: all of libssh2 happens here, and it waits in one `poll`.

use std::{
    any::Any,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use ncc_transport::{FailureKind, KeepAlive};
use rustix::event::{PollFd, PollFlags};

use crate::{
    error::ConnectionError,
    handle::{DriverHandle, Request, Wanted},
    link::{self, Link, code, number},
    pump::{ChannelPump, Fate},
    window,
};

/// The largest packet that every implementation takes (RFC 4253, section 6.1).
const PACKET: u32 = 32 * 1024;

/// libssh2 sends keep-alives no more often.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(2);

/// How long a connection that nobody needs any more may take to say so to the server.
const FAREWELL: Duration = Duration::from_millis(200);

/// Makes a connection, on the driver's thread.
pub(crate) type Connect = Box<dyn FnOnce(&Arc<DriverHandle>) -> Result<Connected, ConnectionError> + Send>;

/// An authenticated connection.
pub(crate) struct Connected {
    pub(crate) link: Link,
    pub(crate) keep_alive: Option<KeepAlive>,
    /// What has to stay alive as long as this: the jump host's connection, the proxy command.
    pub(crate) keep: Option<Box<dyn Any + Send>>,
}

/// Starts the thread. `ended` is told why, if the connection was there and was lost.
pub(crate) fn start(
    handle: &Arc<DriverHandle>,
    name: &str,
    connect: Connect,
    ended: impl FnOnce(&ConnectionError) + Send + 'static,
) -> io::Result<()> {
    let handle = Arc::clone(handle);
    // What is told from this thread goes where it would go from the caller's.
    let dispatch = tracing::dispatcher::get_default(Clone::clone);
    // Linux keeps 15 bytes of it.
    let thread = thread::Builder::new().name(format!("ssh2 {name}"));
    thread.spawn(move || {
        let error = tracing::dispatcher::with_default(&dispatch, || drive(&handle, connect, ended));
        handle.close(&error);
    })?;
    Ok(())
}

/// Connects, and drives the connection to its end: why it ended, which is told to all whose channels end with it.
fn drive(
    handle: &Arc<DriverHandle>,
    connect: Connect,
    ended: impl FnOnce(&ConnectionError),
) -> ConnectionError {
    let mut driver = match guarded(|| connect(handle)) {
        Ok(connected) => Driver::new(connected),
        Err(error) => return error,
    };
    let result = guarded(|| driver.work());
    if let Err(error) = &result {
        ended(error);
    }
    let lost = result.err();
    let error = lost.clone().unwrap_or_else(link::forsaken);
    // First: who sees a channel end and asks for the next at once is not to be told that it has ended, but to get a new connection.
    handle.close(&error);
    driver.end_channels(lost.as_ref());
    error
}

/// Makes an error of a panic: libssh2's wrapper panics on a few things that a peer can send (a list of methods that is not UTF-8), and
/// nobody may wait for ever for what a thread that is gone was to do.
fn guarded<T>(work: impl FnOnce() -> Result<T, ConnectionError>) -> Result<T, ConnectionError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let evidence = "the server sent what libssh2 cannot handle, or this program has a fault";
        Err(ConnectionError::new(FailureKind::ConnectionLost, evidence))
    })
}

struct Driver {
    link: Link,
    keep_alive: Option<KeepAlive>,
    /// libssh2 opens one channel at a time.
    opening: Option<(Request, Instant)>,
    /// Open, but the server has not yet said whether it starts the command.
    starting: Vec<(Request, ssh2::Channel, Instant)>,
    pumps: Vec<ChannelPump>,
    /// When a keep-alive was last sent.
    asked: Instant,
    /// The shortest time in which the server has answered. For the first answers it starts processes, which takes as long as that takes.
    round_trip: Duration,
    _keep: Option<Box<dyn Any + Send>>,
}

impl Driver {
    fn new(connected: Connected) -> Self {
        let Connected { link, keep_alive, keep } = connected;
        let keep_alive = keep_alive
            .map(|KeepAlive { interval, count, .. }| KeepAlive::new(interval.max(SHORTEST_INTERVAL), count));
        if let Some(keep_alive) = keep_alive {
            // libssh2 only counts from the last one it sent; when one is due is decided here.
            link.session
                .set_keepalive(true, u32::try_from(keep_alive.interval.as_secs()).unwrap_or(u32::MAX));
        }
        Self {
            link,
            keep_alive,
            opening: None,
            starting: Vec::new(),
            pumps: Vec::new(),
            asked: Instant::now(),
            round_trip: Duration::MAX,
            _keep: keep,
        }
    }

    /// Until nobody needs the connection, or it is lost.
    fn work(&mut self) -> Result<(), ConnectionError> {
        let mut unread = false;
        loop {
            self.link.handle.wake.clear();
            let mut busy = self.link.relay.fill().map_err(ConnectionError::lost)?;
            busy |= self.open_channels()?;
            busy |= self.serve(busy || unread)?;
            busy |= self.link.relay.drain().map_err(ConnectionError::lost)?;
            // While there is no channel, nothing makes libssh2 read; the next one will.
            unread = !self.is_idle() && self.link.relay.is_unread().map_err(ConnectionError::lost)?;
            if busy || unread {
                continue;
            }
            if self.link.relay.is_over() {
                return Err(ConnectionError::new(
                    FailureKind::ConnectionLost,
                    "the server closed the connection",
                ));
            }
            if self.link.handle.is_released() && self.pumps.is_empty() && self.is_unwanted() {
                self.say_farewell();
                return Ok(());
            }
            let deadline = self.keep_alive()?;
            self.sleep(deadline)?;
        }
    }

    /// Requests for channels that the server has not answered, and since when.
    fn waiting(&self) -> impl Iterator<Item = (&Request, Instant)> {
        let opening = self.opening.iter().map(|(request, since)| (request, *since));
        opening.chain(self.starting.iter().map(|(request, _, since)| (request, *since)))
    }

    /// Whether nobody waits for any of the channels that the server has not answered for.
    fn is_unwanted(&self) -> bool {
        self.waiting().all(|(request, _)| request.interest.is_lost())
    }

    fn is_idle(&self) -> bool {
        self.opening.is_none() && self.starting.is_empty() && self.pumps.is_empty()
    }

    /// Waits for the network, for callers, and for the sockets of forwardings.
    fn sleep(&mut self, deadline: Option<Instant>) -> Result<(), ConnectionError> {
        let Link { relay, handle, .. } = &self.link;
        let mut fds = vec![PollFd::new(&handle.wake, PollFlags::IN)];
        fds.extend(relay.poll());
        fds.extend(self.pumps.iter().filter_map(ChannelPump::poll));
        link::sleep(handle, &mut fds, deadline).map_err(ConnectionError::lost)
    }

    /// Sends a keep-alive when one is due, and notices when the server is dead. When to look again.
    fn keep_alive(&mut self) -> Result<Option<Instant>, ConnectionError> {
        // The only channel of a jump host, whose connection is of no use without it.
        let impatient = self.waiting().filter_map(|(request, since)| request.what.given_up_at(since)).min();
        if impatient.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(ConnectionError::new(
                FailureKind::TimedOut,
                "it does not get through to the next host",
            ));
        }
        let Some(KeepAlive { interval, count, .. }) = self.keep_alive else { return Ok(impatient) };
        let heard = self.link.relay.heard();
        let now = Instant::now();
        let dead = heard + interval.saturating_mul(count.saturating_add(1));
        if dead <= now {
            let silence = now.duration_since(heard).as_secs();
            return Err(ConnectionError::new(
                FailureKind::ConnectionLost,
                format!(
                    "nothing came from the server for {silence} seconds, nor an answer to {count} keep-alives"
                ),
            ));
        }
        let due = heard.max(self.asked) + interval;
        if due <= now {
            self.asked = now;
            self.link.session.keepalive_send().map_err(|error| lost(&error))?;
            self.link.relay.drain().map_err(ConnectionError::lost)?;
        }
        let next = heard.max(self.asked) + interval;
        Ok([Some(next), Some(dead), impatient].into_iter().flatten().min())
    }

    /// Opens what was asked for. Whether anything went on.
    fn open_channels(&mut self) -> Result<bool, ConnectionError> {
        let mut busy = false;
        loop {
            if self.opening.is_none() {
                self.opening = self.link.handle.next().map(|request| (request, Instant::now()));
            }
            let Some((request, _)) = &self.opening else { break };
            let session = &self.link.session;
            let result = match &request.what {
                Wanted::Command(_) => session.channel_open("session", window::SMALLEST, PACKET, None),
                Wanted::Forward { host, port, .. } => session.channel_direct_tcpip(host, *port, None),
            };
            self.link.relay.drain().map_err(ConnectionError::lost)?;
            match result {
                Ok(channel) => {
                    if let Some((request, since)) = self.opening.take() {
                        self.round_trip = self.round_trip.min(since.elapsed());
                        self.starting.push((request, channel, Instant::now()));
                    }
                }
                Err(error) if number(&error) == code::AGAIN => break,
                Err(error) if number(&error) == code::CHANNEL_FAILURE => {
                    let refused = ConnectionError::libssh2(FailureKind::SessionRefused, &error);
                    if let Some((request, _)) = self.opening.take() {
                        (request.reply)(Err(refused));
                    }
                }
                Err(error) => return Err(lost(&error)),
            }
            busy = true;
        }
        busy |= self.start_commands()?;
        Ok(busy)
    }

    /// Has the commands started, one after the other: while libssh2 waits for the answer to one, it takes the answer to another, which
    /// says the same about another channel, for a failure (`ssh2_packet_requirev`, the same in every release so far).
    fn start_commands(&mut self) -> Result<bool, ConnectionError> {
        let mut busy = false;
        let mut unanswered = false;
        for (request, mut channel, since) in std::mem::take(&mut self.starting) {
            let result = match &request.what {
                Wanted::Command(_) if unanswered => {
                    self.starting.push((request, channel, since));
                    continue;
                }
                Wanted::Command(command) => channel.exec(command),
                Wanted::Forward { .. } => Ok(()),
            };
            self.link.relay.drain().map_err(ConnectionError::lost)?;
            match result {
                Err(error) if number(&error) == code::AGAIN => {
                    unanswered = true;
                    self.starting.push((request, channel, since));
                    continue;
                }
                Err(error) if number(&error) == code::REQUEST_DENIED => {
                    let refused = ConnectionError::libssh2(FailureKind::SessionRefused, &error);
                    request.shared.lock().killed = true;
                    self.pumps.push(ChannelPump::new(
                        channel,
                        Arc::clone(&request.shared),
                        None,
                        self.round_trip,
                    ));
                    (request.reply)(Err(refused));
                }
                Err(error) => {
                    (request.reply)(Err(lost(&error)));
                    return Err(lost(&error));
                }
                Ok(()) => {
                    if matches!(request.what, Wanted::Command(_)) {
                        self.round_trip = self.round_trip.min(since.elapsed());
                    }
                    let Request { what, shared, interest, reply } = request;
                    let through = match what {
                        Wanted::Command(_) => None,
                        Wanted::Forward { through, .. } => Some(through),
                    };
                    {
                        let mut state = shared.lock();
                        // Nobody will ever drop the ends of a channel that nobody takes.
                        state.killed |= interest.is_lost();
                    }
                    self.pumps.push(ChannelPump::new(channel, shared, through, self.round_trip));
                    reply(Ok(()));
                }
            }
            busy = true;
        }
        Ok(busy)
    }

    /// Carries the bytes of all channels. Whether there were any.
    fn serve(&mut self, unread: bool) -> Result<bool, ConnectionError> {
        let mut busy = false;
        let mut listened = false;
        for pump in &mut self.pumps {
            let turn = pump.serve(&mut self.link.relay).map_err(|error| lost(&error))?;
            busy |= turn.busy;
            listened |= turn.listened;
        }
        self.pumps.retain(|pump| pump.fate() == Fate::Alive);
        if unread
            && !listened
            && let Some(pump) = self.pumps.first_mut()
        {
            // Nobody reads, but window adjustments and key exchanges have to be taken from the wire all the same.
            pump.listen().map_err(|error| lost(&error))?;
            busy = true;
        }
        Ok(busy)
    }

    /// Tells the server that we go, if it takes it at once.
    fn say_farewell(&mut self) {
        let deadline = Instant::now() + FAREWELL;
        // Whatever goes wrong here ends in the same way: the socket is closed.
        let _ = self.link.session.disconnect(Some(ssh2::DisconnectCode::ByApplication), "done", None);
        while self.link.relay.drain().is_ok() && self.link.relay.is_unsent() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Tells everybody who has a channel, or waits for one, that it is over.
    fn end_channels(&mut self, error: Option<&ConnectionError>) {
        let reason = error.map(ConnectionError::to_string);
        for pump in &self.pumps {
            pump.shared().lock().end(reason.as_deref());
        }
        let opening = self.opening.take().map(|(request, _)| request);
        let waiting = opening.into_iter().chain(self.starting.drain(..).map(|(request, _, _)| request));
        let error = error.cloned().unwrap_or_else(link::forsaken);
        for request in waiting {
            (request.reply)(Err(error.clone()));
        }
    }
}

/// What libssh2 says when the connection is over.
fn lost(error: &ssh2::Error) -> ConnectionError {
    ConnectionError::libssh2(FailureKind::ConnectionLost, error)
}
