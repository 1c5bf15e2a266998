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
    hub::{Hub, Request, Wanted},
    link::{self, Link, code, number},
    port::{Fate, Port},
    trouble::Trouble,
    window,
};

/// The largest packet that every implementation takes (RFC 4253, section 6.1).
const PACKET: u32 = 32 * 1024;

/// libssh2 sends keep-alives no more often.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(2);

/// How long a connection that nobody needs any more may take to say so to the server.
const FAREWELL: Duration = Duration::from_millis(200);

/// Makes a connection, on the driver's thread.
pub(crate) type Connect = Box<dyn FnOnce(&Arc<Hub>) -> Result<Connected, Trouble> + Send>;

/// An authenticated connection.
pub(crate) struct Connected {
    pub(crate) link: Link,
    pub(crate) keep_alive: Option<KeepAlive>,
    /// How long a server may take to open a channel.
    pub(crate) patience: Duration,
    /// For the first channel's stderr: the server's banner, warnings about the configuration.
    pub(crate) greeting: String,
    /// What has to stay alive as long as this: the jump host's connection, the proxy command.
    pub(crate) keep: Option<Box<dyn Any + Send>>,
}

/// Starts the thread. `ended` is told why, if the connection was there and was lost.
pub(crate) fn start(
    hub: &Arc<Hub>,
    name: &str,
    connect: Connect,
    ended: impl FnOnce(&Trouble) + Send + 'static,
) -> io::Result<()> {
    let hub = Arc::clone(hub);
    // Linux keeps 15 bytes of it.
    let thread = thread::Builder::new().name(format!("ssh2 {name}"));
    thread.spawn(move || {
        // libssh2's wrapper panics on a few things that a peer can send (a list of methods that is not UTF-8).
        let result = catch_unwind(AssertUnwindSafe(|| {
            let connected = connect(&hub)?;
            let mut driver = Driver::new(connected);
            let result = driver.work();
            if let Err(trouble) = &result {
                ended(trouble);
            }
            driver.bury(result.as_ref().err());
            result
        }));
        let trouble = match result {
            Ok(Ok(())) => link::forsaken(),
            Ok(Err(trouble)) => trouble,
            Err(_) => Trouble::new(FailureKind::ConnectionLost, "the server sent what libssh2 cannot handle"),
        };
        hub.close(&trouble);
    })?;
    Ok(())
}

struct Driver {
    link: Link,
    keep_alive: Option<KeepAlive>,
    patience: Duration,
    greeting: String,
    /// libssh2 opens one channel at a time.
    opening: Option<(Request, Instant)>,
    /// Open, but the server has not yet said whether it starts the command.
    starting: Vec<(Request, ssh2::Channel, Instant)>,
    ports: Vec<Port>,
    /// When a keep-alive was last sent.
    asked: Instant,
    /// The shortest time in which the server has answered. For the first answers it starts processes, which takes as long as that takes.
    round_trip: Duration,
    _keep: Option<Box<dyn Any + Send>>,
}

impl Driver {
    fn new(connected: Connected) -> Self {
        let Connected { link, keep_alive, patience, greeting, keep } = connected;
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
            patience,
            greeting,
            opening: None,
            starting: Vec::new(),
            ports: Vec::new(),
            asked: Instant::now(),
            round_trip: Duration::MAX,
            _keep: keep,
        }
    }

    /// Until nobody needs the connection, or it is lost.
    fn work(&mut self) -> Result<(), Trouble> {
        let mut unread = false;
        loop {
            self.link.hub.wake.clear();
            let mut busy = self.link.wire.fill().map_err(Trouble::lost)?;
            busy |= self.open_channels()?;
            busy |= self.serve(busy || unread)?;
            busy |= self.link.wire.drain().map_err(Trouble::lost)?;
            // While there is no channel, nothing makes libssh2 read; the next one will.
            unread = !self.is_idle() && self.link.wire.is_unread().map_err(Trouble::lost)?;
            if busy || unread {
                continue;
            }
            if self.link.wire.is_over() {
                return Err(Trouble::new(FailureKind::ConnectionLost, "the server closed the connection"));
            }
            if self.link.hub.is_released() && self.is_idle() {
                self.say_farewell();
                return Ok(());
            }
            let deadline = self.keep_alive()?;
            self.sleep(deadline)?;
        }
    }

    fn is_idle(&self) -> bool {
        self.opening.is_none() && self.starting.is_empty() && self.ports.is_empty()
    }

    /// Waits for the network, for callers, and for the sockets of forwardings.
    fn sleep(&mut self, deadline: Option<Instant>) -> Result<(), Trouble> {
        let Link { wire, hub, .. } = &self.link;
        let mut fds = vec![PollFd::new(&hub.wake, PollFlags::IN)];
        fds.extend(wire.poll());
        fds.extend(self.ports.iter().filter_map(Port::poll));
        link::sleep(hub, &mut fds, deadline).map_err(Trouble::lost)
    }

    /// Sends a keep-alive when one is due, and notices when the server is dead. When to look again.
    fn keep_alive(&mut self) -> Result<Option<Instant>, Trouble> {
        let waiting = self.opening.iter().map(|(_, since)| *since);
        let waiting = waiting.chain(self.starting.iter().map(|(_, _, since)| *since)).min();
        // A channel that is not opened in time is as good as a server that is silent.
        let impatient = waiting.and_then(|since| since.checked_add(self.patience));
        if impatient.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(Trouble::new(
                FailureKind::TimedOut,
                "the server does not answer a request for a channel",
            ));
        }
        let Some(KeepAlive { interval, count, .. }) = self.keep_alive else { return Ok(impatient) };
        let heard = self.link.wire.heard();
        let now = Instant::now();
        let dead = heard + interval.saturating_mul(count.saturating_add(1));
        if dead <= now {
            let silence = now.duration_since(heard).as_secs();
            return Err(Trouble::new(
                FailureKind::TimedOut,
                format!(
                    "nothing came from the server for {silence} seconds, nor an answer to {count} keep-alives"
                ),
            ));
        }
        let due = heard.max(self.asked) + interval;
        if due <= now {
            self.asked = now;
            self.link.session.keepalive_send().map_err(|error| lost(&error))?;
            self.link.wire.drain().map_err(Trouble::lost)?;
        }
        let next = heard.max(self.asked) + interval;
        Ok([Some(next), Some(dead), impatient].into_iter().flatten().min())
    }

    /// Opens what was asked for. Whether anything went on.
    fn open_channels(&mut self) -> Result<bool, Trouble> {
        let mut busy = false;
        loop {
            if self.opening.is_none() {
                self.opening = self.link.hub.next().map(|request| (request, Instant::now()));
            }
            let Some((request, _)) = &self.opening else { break };
            let session = &self.link.session;
            let result = match &request.what {
                Wanted::Command(_) => session.channel_open("session", window::SMALLEST, PACKET, None),
                Wanted::Forward { host, port, .. } => session.channel_direct_tcpip(host, *port, None),
            };
            self.link.wire.drain().map_err(Trouble::lost)?;
            match result {
                Ok(channel) => {
                    if let Some((request, since)) = self.opening.take() {
                        self.round_trip = self.round_trip.min(since.elapsed());
                        self.starting.push((request, channel, Instant::now()));
                    }
                }
                Err(error) if number(&error) == code::AGAIN => break,
                Err(error) if number(&error) == code::CHANNEL_FAILURE => {
                    let refused = Trouble::libssh2(FailureKind::SessionRefused, &error);
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

    fn start_commands(&mut self) -> Result<bool, Trouble> {
        let mut busy = false;
        for (request, mut channel, since) in std::mem::take(&mut self.starting) {
            let result = match &request.what {
                Wanted::Command(command) => channel.exec(command),
                Wanted::Forward { .. } => Ok(()),
            };
            self.link.wire.drain().map_err(Trouble::lost)?;
            match result {
                Err(error) if number(&error) == code::AGAIN => {
                    self.starting.push((request, channel, since));
                    continue;
                }
                Err(error) if number(&error) == code::REQUEST_DENIED => {
                    let refused = Trouble::libssh2(FailureKind::SessionRefused, &error);
                    request.shared.lock().killed = true;
                    self.ports.push(Port::new(channel, Arc::clone(&request.shared), None, self.round_trip));
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
                        if through.is_none() && !interest.is_lost() {
                            let greeting = std::mem::take(&mut self.greeting);
                            state.inlet(crate::stream::Output::Stderr).push(greeting.as_bytes());
                        }
                    }
                    self.ports.push(Port::new(channel, shared, through, self.round_trip));
                    reply(Ok(()));
                }
            }
            busy = true;
        }
        Ok(busy)
    }

    /// Carries the bytes of all channels. Whether there were any.
    fn serve(&mut self, unread: bool) -> Result<bool, Trouble> {
        let mut busy = false;
        let mut listened = false;
        for port in &mut self.ports {
            let turn = port.serve(&mut self.link.wire).map_err(|error| lost(&error))?;
            busy |= turn.busy;
            listened |= turn.listened;
        }
        self.ports.retain(|port| port.fate() == Fate::Alive);
        if unread
            && !listened
            && let Some(port) = self.ports.first_mut()
        {
            // Nobody reads, but window adjustments and key exchanges have to be taken from the wire all the same.
            port.listen().map_err(|error| lost(&error))?;
            busy = true;
        }
        Ok(busy)
    }

    /// Tells the server that we go, if it takes it at once.
    fn say_farewell(&mut self) {
        let deadline = Instant::now() + FAREWELL;
        // Whatever goes wrong here ends in the same way: the socket is closed.
        let _ = self.link.session.disconnect(Some(ssh2::DisconnectCode::ByApplication), "done", None);
        while self.link.wire.drain().is_ok() && self.link.wire.is_unsent() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Tells everybody that it is over.
    fn bury(&mut self, trouble: Option<&Trouble>) {
        let reason = trouble.map(Trouble::to_string);
        for port in &self.ports {
            port.shared().lock().end(reason.as_deref());
        }
        let unborn = self.opening.take().map(|(request, _)| request);
        let unborn = unborn.into_iter().chain(self.starting.drain(..).map(|(request, _, _)| request));
        let trouble = trouble.cloned().unwrap_or_else(link::forsaken);
        for request in unborn {
            (request.reply)(Err(trouble.clone()));
        }
    }
}

/// What libssh2 says when the connection is over.
fn lost(error: &ssh2::Error) -> Trouble {
    Trouble::libssh2(FailureKind::ConnectionLost, error)
}
