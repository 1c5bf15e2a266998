//! The way to a host, up to an authenticated session; on the driver's thread.

use std::{
    io::{self, Read as _},
    net::{SocketAddr, TcpStream, ToSocketAddrs as _},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use ncc_transport::{FailureKind, KeepAlive, Target, sanitize_line};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, FdFlags},
    net::{AddressFamily as Family, SocketType},
    process::{Pid, Signal},
};

use crate::{
    Ssh2Options,
    auth::{self, Asking},
    config::{AddressFamily, Proxy, Settings, Surroundings},
    driver::{self, Connected},
    error::ConnectionError,
    handle::{ConnectionLease, DriverHandle, Interest, Request, Wanted},
    host_key,
    link::{self, Limit, Link, code, number},
    negotiation::Beginning,
    relay::Far,
    stream::ChannelState,
    words,
};

/// How long a server may be silent while it makes up its mind about a login: it may ask a directory, and wrong passwords take time.
const LOGIN_PATIENCE: Duration = Duration::from_secs(2 * 60);

/// More jump hosts than anybody has; a configuration may name a host as its own jump host.
const MAX_JUMPS: usize = 8;

/// Everything a connection is made of.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) target: Target,
    pub(crate) options: Ssh2Options,
    /// The target is a jump host itself, and is reached through these.
    pub(crate) jump: Option<Vec<Target>>,
    /// What is reached through this: the target and the jump hosts behind this one. Empty for the target itself.
    pub(crate) leads_to: Vec<Target>,
}

/// Connects to the target, through whatever is configured.
pub(crate) fn connect(route: &Route, handle: &Arc<DriverHandle>) -> Result<Connected, ConnectionError> {
    let surroundings = Surroundings::of_this_process();
    let settings = words::settings(&route.target, &route.options, &surroundings, route.jump.as_deref())?;
    let timeout = settings.connect_timeout.or(route.options.connect_timeout);
    let deadline = || timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    match &settings.proxy {
        Proxy::None => {
            // One deadline for the addresses and for what follows.
            let deadline = deadline();
            let far = Far::Tcp(dial(&settings, handle, deadline)?);
            shake_hands(route, &settings, far, handle, deadline)
        }
        Proxy::Command(command) => {
            let (program, socket) = ProxyProgram::spawn(command, &surroundings.shell())?;
            match shake_hands(route, &settings, Far::Local(socket), handle, deadline()) {
                Ok(mut connected) => {
                    connected.keep = Some(Box::new(program));
                    Ok(connected)
                }
                Err(error) if error.kind == FailureKind::ClosedByServer => {
                    let evidence = program.last_words().unwrap_or(error.evidence);
                    Err(ConnectionError::new(FailureKind::ProxyFailed, evidence))
                }
                Err(error) => Err(error),
            }
        }
        Proxy::Jump(hops) => {
            let (lease, socket) = jump(route, hops, &settings, handle)?;
            let mut connected = shake_hands(route, &settings, Far::Local(socket), handle, deadline())?;
            connected.keep = Some(Box::new(lease));
            Ok(connected)
        }
    }
}

fn shake_hands(
    route: &Route,
    settings: &Settings,
    far: Far,
    handle: &Arc<DriverHandle>,
    deadline: Option<Instant>,
) -> Result<Connected, ConnectionError> {
    let known = host_key::read_known_hosts(settings)?;
    let mut link = Link::new(far, Arc::clone(handle))?;
    host_key::prefer_algorithms(&link.session, settings, &known)?;
    if settings.compression == Some(true) {
        link.session.set_compress(true);
    }
    match link.run("key exchange", Limit::At(deadline), ssh2::Session::handshake) {
        Ok(Ok(())) => {}
        Ok(Err(error)) if code::KEY_EXCHANGE.contains(&number(&error)) => {
            return Err(no_common_algorithm(link.relay.beginning(), settings, &error));
        }
        Ok(Err(error)) => {
            let error = ConnectionError::libssh2(FailureKind::ClosedByServer, &error);
            return Err(no_ssh_server(link.relay.beginning(), error));
        }
        Err(error) => return Err(no_ssh_server(link.relay.beginning(), error)),
    }
    link.relay.forget_beginning();

    let mut warnings = Vec::new();
    let cancelled = || handle.is_forsaken();
    let prompter = &*route.options.prompter;
    let trusted = host_key::check(&link.session, settings, &known, prompter, &cancelled, &mut warnings)?;
    let asking = Asking { prompter, cancelled: &cancelled, trusted };
    auth::authenticate(&mut link, settings, &asking, LOGIN_PATIENCE, &mut warnings)?;

    // Not on the command's stderr, where they would be taken for what the command says.
    for warning in &warnings {
        tracing::warn!("{}", sanitize_line(warning.as_bytes()));
    }
    if let Ok(Some(banner)) = link.session.userauth_banner() {
        for line in banner.lines() {
            tracing::info!("[{}] {}", route.target, sanitize_line(line.as_bytes()));
        }
    }
    Ok(Connected { link, keep_alive: keep_alive(settings, &route.options), keep: None })
}

/// What to say if a server hung up, or sent nonsense: its own words, if it had other ones than those of SSH.
fn no_ssh_server(beginning: Option<&Beginning>, error: ConnectionError) -> ConnectionError {
    match beginning.and_then(Beginning::instead_of_ssh) {
        Some(words) if words.starts_with("HTTP/") || words.contains(char::is_control) => {
            ConnectionError::new(FailureKind::NotSsh, words)
        }
        // "Exceeded MaxStartups"
        Some(words) if error.kind == FailureKind::ClosedByServer => ConnectionError::new(error.kind, words),
        _ => error,
    }
}

/// What to say if the two sides could not agree: which of their lists do not meet.
fn no_common_algorithm(
    beginning: Option<&Beginning>,
    settings: &Settings,
    error: &ssh2::Error,
) -> ConnectionError {
    let Some(mismatch) = beginning.and_then(Beginning::mismatch) else {
        return ConnectionError::libssh2(FailureKind::NoCommonAlgorithm, error);
    };
    if let Some(pinned) = settings.pinned.as_ref().filter(|_| mismatch.option == "HostKeyAlgorithms") {
        return host_key::not_the_pinned(pinned, format_args!("no key of its type: {mismatch}"));
    }
    let hint = format!(
        "libssh2 knows fewer algorithms than OpenSSH: '--transport openssh'; or {} in ~/.ssh/config, NIX_SSHOPTS or on the \
         server leaves too few",
        mismatch.option
    );
    ConnectionError::new(FailureKind::NoCommonAlgorithm, mismatch.to_string()).hint(hint)
}

/// The user's own numbers win.
fn keep_alive(settings: &Settings, options: &Ssh2Options) -> Option<KeepAlive> {
    let count = settings.alive_count;
    match (settings.alive_interval, options.keep_alive) {
        (Some(interval), _) if interval.is_zero() => None,
        (Some(interval), _) => Some(KeepAlive::new(interval, count.unwrap_or(3))),
        (None, Some(ours)) => Some(KeepAlive::new(ours.interval, count.unwrap_or(ours.count))),
        (None, None) => None,
    }
}

/// Connects to the first address that answers, in the resolver's order.
fn dial(
    settings: &Settings,
    handle: &Arc<DriverHandle>,
    deadline: Option<Instant>,
) -> Result<TcpStream, ConnectionError> {
    let addresses = resolve(settings, handle, deadline)?;
    let mut last =
        ConnectionError::new(FailureKind::UnknownHost, format!("{} has no address", settings.host));
    for attempt in 0..settings.attempts {
        if attempt > 0 {
            link::wait_until(handle, Instant::now() + Duration::from_secs(1))?;
        }
        for (index, &address) in addresses.iter().enumerate() {
            // Each gets its share of the time, so that a dead one leaves some for the rest.
            let rest = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
            let share = deadline.map(|deadline| {
                let now = Instant::now();
                now + deadline.saturating_duration_since(now) / rest
            });
            match dial_one(address, handle, share) {
                Ok(stream) => return Ok(stream),
                Err(error) if handle.is_forsaken() => return Err(error),
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}

/// The system's resolver blocks for as long as it likes, so it gets a thread, which is left behind if it takes too long.
fn resolve(
    settings: &Settings,
    handle: &Arc<DriverHandle>,
    deadline: Option<Instant>,
) -> Result<Vec<SocketAddr>, ConnectionError> {
    let (host, port) = (settings.host.clone(), settings.port);
    let (send, receive) = mpsc::channel();
    let waker = Arc::clone(handle);
    thread::Builder::new()
        .name("ssh2 resolver".to_owned())
        .spawn(move || {
            let result = (host.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
            // Nobody may wait any more.
            let _ = send.send(result);
            waker.wake.wake();
        })
        .map_err(ConnectionError::lost)?;
    let addresses = loop {
        handle.wake.clear();
        if let Ok(result) = receive.try_recv() {
            break result.map_err(|error| {
                ConnectionError::io(
                    FailureKind::UnknownHost,
                    format!("cannot resolve {}", settings.host),
                    error,
                )
            })?;
        }
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            let evidence = format!("no answer to the question for the address of {}", settings.host);
            return Err(ConnectionError::new(FailureKind::TimedOut, evidence));
        }
        link::wait(handle, None, deadline)?;
    };
    let wanted = |address: &SocketAddr| match settings.address_family {
        AddressFamily::Any => true,
        AddressFamily::V4 => address.is_ipv4(),
        AddressFamily::V6 => address.is_ipv6(),
    };
    Ok(addresses.into_iter().filter(wanted).collect())
}

fn dial_one(
    address: SocketAddr,
    handle: &DriverHandle,
    deadline: Option<Instant>,
) -> Result<TcpStream, ConnectionError> {
    let failed = |error: io::Error| {
        let kind = match error.kind() {
            io::ErrorKind::ConnectionRefused => FailureKind::ConnectionRefused,
            io::ErrorKind::TimedOut => FailureKind::TimedOut,
            _ => FailureKind::Unreachable,
        };
        ConnectionError::io(kind, format!("connecting to {address}"), error)
    };
    let family = if address.is_ipv4() { Family::INET } else { Family::INET6 };
    let open = || {
        let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
        rustix::io::fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok::<_, Errno>(socket)
    };
    let socket = open().map_err(|error| failed(error.into()))?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => {}
        Err(error) => return Err(failed(error.into())),
    }
    loop {
        handle.wake.clear();
        let mut ready = [PollFd::new(&socket, PollFlags::OUT)];
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        if matches!(poll(&mut ready, Some(&none)), Ok(1..)) {
            break;
        }
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(ConnectionError::new(
                FailureKind::TimedOut,
                format!("connecting to {address}: no answer"),
            ));
        }
        link::wait(handle, Some(PollFd::new(&socket, PollFlags::OUT)), deadline)?;
    }
    rustix::net::sockopt::socket_error(&socket)
        .and_then(|result| result)
        .map_err(|error| failed(error.into()))?;
    Ok(TcpStream::from(socket))
}

/// A ProxyCommand: ended and reaped when it is dropped.
struct ProxyProgram {
    child: Child,
    /// The last of what it said on stderr.
    said: Arc<Mutex<Vec<u8>>>,
}

/// How much of it is kept.
const SAID: usize = 4096;

/// How long it has between its end of input, with SIGTERM, and SIGKILL.
const GRACE: Duration = Duration::from_millis(500);

impl ProxyProgram {
    /// Starts the command in the user's shell, as OpenSSH does, with a socket for its stdin and stdout.
    fn spawn(command: &str, shell: &str) -> Result<(Self, UnixStream), ConnectionError> {
        let failed =
            |error| ConnectionError::io(FailureKind::ProxyFailed, format!("cannot start '{command}'"), error);
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let theirs = OwnedFd::from(theirs);
        let mut child = Command::new(shell)
            .arg("-c")
            .arg(format!("exec {command}"))
            .stdin(theirs.try_clone().map_err(failed)?)
            .stdout(theirs)
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let said = Arc::new(Mutex::new(Vec::new()));
        if let Some(mut stderr) = child.stderr.take() {
            let said = Arc::clone(&said);
            let listen = move || {
                let mut buffer = [0; 1024];
                while let Ok(count @ 1..) = stderr.read(&mut buffer) {
                    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                    said.extend_from_slice(buffer.get(..count).unwrap_or_default());
                    let surplus = said.len().saturating_sub(SAID);
                    said.drain(..surplus);
                }
            };
            thread::Builder::new().name("ssh2 proxy".to_owned()).spawn(listen).map_err(failed)?;
        }
        Ok((Self { child, said }, ours))
    }

    /// Its last line.
    fn last_words(&self) -> Option<String> {
        // What it said before it hung up may still be on the way through the other thread.
        thread::sleep(Duration::from_millis(50));
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&said).into_owned();
        text.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned)
    }

    fn ended_within(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                Ok(None) => return false,
                Ok(Some(_)) | Err(_) => return true,
            }
        }
    }
}

impl Drop for ProxyProgram {
    fn drop(&mut self) {
        // It has not been reaped, so that the number is still its own.
        if let Ok(None) = self.child.try_wait()
            && let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        if !self.ended_within(GRACE) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A connection from the last jump host to the target, as a socket. The lease keeps the jump host's connection.
fn jump(
    route: &Route,
    hops: &[Target],
    settings: &Settings,
    handle: &Arc<DriverHandle>,
) -> Result<(Arc<ConnectionLease>, UnixStream), ConnectionError> {
    let Some((last, before)) = hops.split_last() else {
        return Err(ConnectionError::configuration("ProxyJump without a host"));
    };
    let leads_to = [std::slice::from_ref(&route.target), &route.leads_to].concat();
    if leads_to.contains(last) || leads_to.len() > MAX_JUMPS {
        let way: Vec<String> = leads_to.iter().rev().chain([last]).map(ToString::to_string).collect();
        let what = if leads_to.contains(last) { "in a circle" } else { "too far" };
        return Err(ConnectionError::configuration(format!(
            "the jump hosts lead {what}: {}",
            way.join(", ")
        ))
        .hint("'ProxyJump none' in the block of the jump host itself ends the way there"));
    }
    let next =
        Route { target: last.clone(), options: route.options.clone(), jump: Some(before.to_vec()), leads_to };
    let jump_handle = DriverHandle::new().map_err(ConnectionError::lost)?;
    let lease = Arc::new(ConnectionLease(Arc::clone(&jump_handle)));
    let (ours, theirs) = UnixStream::pair().map_err(ConnectionError::lost)?;
    theirs.set_nonblocking(true).map_err(ConnectionError::lost)?;
    let (send, receive) = mpsc::channel();
    let interest = Arc::new(Interest::default());
    let waker = Arc::clone(handle);
    let request = Request {
        what: Wanted::Forward {
            host: settings.host.clone(),
            port: settings.port,
            through: theirs,
            patience: settings.connect_timeout.or(route.options.connect_timeout),
        },
        shared: Arc::new(ChannelState::default()),
        interest: Arc::clone(&interest),
        reply: Box::new(move |result| {
            // Nobody may wait any more.
            let _ = send.send(result);
            waker.wake.wake();
        }),
    };
    // The new handle has no driver yet that could have ended.
    let _ = jump_handle.ask(request);
    let work: driver::Connect = Box::new(move |handle| connect(&next, handle));
    driver::start(&jump_handle, last.host(), work, |_| ()).map_err(ConnectionError::lost)?;
    let result = loop {
        handle.wake.clear();
        match receive.try_recv() {
            Ok(result) => break result,
            Err(mpsc::TryRecvError::Disconnected) => {
                break Err(ConnectionError::new(FailureKind::ConnectionLost, "the connection has ended"));
            }
            Err(mpsc::TryRecvError::Empty) => {}
        }
        // However long a person thinks about the questions of the jump host; it has time-outs of its own.
        if let Err(error) = link::wait(handle, None, None) {
            interest.lose();
            lease.wake();
            return Err(error);
        }
    };
    match result {
        Ok(()) => Ok((lease, ours)),
        Err(error) => Err(of_jump_host(last, settings, &error)),
    }
}

/// What went wrong with a jump host, as the target's error.
fn of_jump_host(jump: &Target, settings: &Settings, error: &ConnectionError) -> ConnectionError {
    use FailureKind::{
        ClosedByServer, ConnectionLost, ConnectionRefused, LoginAborted, NotSsh, SessionRefused, TimedOut,
        UnknownHost, Unreachable,
    };
    let evidence = match error.kind {
        // It names the line, or all of the way.
        FailureKind::BadConfiguration => return error.clone(),
        SessionRefused => {
            format!(
                "jump host {jump} cannot reach {} port {}: {}",
                settings.host, settings.port, error.evidence
            )
        }
        _ => format!("jump host {jump}: {error}"),
    };
    match error.kind {
        UnknownHost | ConnectionRefused | Unreachable | TimedOut | ConnectionLost | ClosedByServer
        | LoginAborted | NotSsh | SessionRefused => ConnectionError::new(FailureKind::ProxyFailed, evidence),
        // Keys, passwords and configurations are what they are.
        kind => ConnectionError::new(kind, evidence).hint(error.failure(jump).hint),
    }
}
