//! The transport itself.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use ncc_transport::{
    BoxFuture, Channel, Client, End, Exit, Failure, RemoteCommand, Target, Transport, TransportError,
    login_shell_ended,
};
use tokio::sync::oneshot;

use crate::{
    Ssh2Options,
    connect::{Route, connect},
    driver,
    error::ConnectionError,
    handle::{ConnectionLease, DriverHandle, Interest, Request, Wanted},
    stream::{self, ChannelState},
};

/// Reaches a host by itself, over libssh2: one connection, made when the first channel is opened, and any number of channels on it.
///
/// The connection has a thread of its own, which ends, and with it the connection, when this and all channels are dropped. A
/// connection that was lost is made anew for the next channel.
///
/// [`open`](Transport::open) returns when the server has started the command, however long that takes, or
/// [`TransportError::Connect`]. When a connection is
/// lost later, stdout ends with an error, stderr ends with a line that says so, the exit is [`Exit::Unknown`], and
/// [`explain`](Transport::explain) has the reason. An output that is dropped unread is thrown away as it comes, so that the command
/// can go on.
///
/// What libssh2 cannot do: a command that is not UTF-8 is refused; and a server that closes a channel without any status, which
/// OpenSSH's never does, looks like status 0.
#[derive(Debug)]
pub struct Ssh2 {
    route: Route,
    connection: Mutex<Option<Arc<ConnectionLease>>>,
    /// Why the last connection was lost.
    lost: Arc<Mutex<Option<Failure>>>,
}

impl Ssh2 {
    /// A transport to the target. Connects nowhere yet.
    pub fn new(target: Target, options: Ssh2Options) -> Self {
        Self {
            route: Route { target, options, jump: None, leads_to: Vec::new() },
            connection: Mutex::new(None),
            lost: Arc::default(),
        }
    }

    /// The connection that is there, or the beginning of one.
    fn connection(&self) -> io::Result<Arc<ConnectionLease>> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lease) = connection.as_ref().filter(|lease| !lease.0.is_closed()) {
            return Ok(Arc::clone(lease));
        }
        let lease = Arc::new(ConnectionLease(DriverHandle::new()?));
        Ok(Arc::clone(connection.insert(lease)))
    }

    /// Asks the connection's driver, and starts it with its first request.
    fn ask(&self, mut request: Request) -> io::Result<Arc<ConnectionLease>> {
        loop {
            let lease = self.connection()?;
            match lease.0.ask(request) {
                Ok(first) => {
                    if first {
                        self.start(&lease.0)?;
                    }
                    return Ok(lease);
                }
                // It has ended in this very moment.
                Err(back) => request = back,
            }
        }
    }

    fn start(&self, handle: &Arc<DriverHandle>) -> io::Result<()> {
        let route = self.route.clone();
        let work: driver::Connect = Box::new(move |handle| connect(&route, handle));
        let (lost, target) = (Arc::clone(&self.lost), self.route.target.clone());
        driver::start(handle, self.route.target.host(), work, move |error| {
            *lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.failure(&target));
        })
        .inspect_err(|error| {
            let text = format!("cannot start a thread: {error}");
            handle.close(&ConnectionError::new(ncc_transport::FailureKind::ConnectionLost, text));
        })
    }
}

impl Transport for Ssh2 {
    fn describe(&self) -> String {
        self.route.target.to_string()
    }

    fn open<'a>(&'a self, command: &'a RemoteCommand) -> BoxFuture<'a, Result<Channel, TransportError>> {
        Box::pin(async move {
            let failed = |source| TransportError::Spawn {
                host: self.describe(),
                program: command.program().to_string_lossy().into_owned(),
                source,
            };
            let line = command.to_shell().into_string().ok().filter(|line| !line.contains('\0'));
            let line = line.ok_or_else(|| {
                failed(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "the command is not UTF-8, or holds a NUL",
                ))
            })?;
            let shared = Arc::new(ChannelState::default());
            let interest = Arc::new(Interest::default());
            let (send, receive) = oneshot::channel();
            let lease = self
                .ask(Request {
                    what: Wanted::Command(line),
                    shared: Arc::clone(&shared),
                    interest: Arc::clone(&interest),
                    // Nobody may wait any more; the driver knows from the lost interest.
                    reply: Box::new(move |result| drop(send.send(result))),
                })
                .map_err(failed)?;
            let waiting = Waiting { lease, interest, shared, taken: false };
            let result = receive.await.unwrap_or_else(|_| {
                Err(ConnectionError::new(
                    ncc_transport::FailureKind::ConnectionLost,
                    "the connection has ended",
                ))
            });
            match result {
                Ok(()) => Ok(waiting.into_channel()),
                Err(error) => Err(error.into_error(&self.route.target)),
            }
        })
    }

    /// All channels always do.
    fn share(&self) -> bool {
        true
    }

    fn explain(&self, end: &End<'_>) -> Option<Failure> {
        if *end.exit == Exit::Unknown {
            return self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone();
        }
        // A command's own end is known by its status or signal; what stands on its stderr is from there alone.
        login_shell_ended(&self.route.target, end, end.stderr, Client::Library)
    }
}

/// A channel that is being opened. Dropped, it gives up.
struct Waiting {
    lease: Arc<ConnectionLease>,
    interest: Arc<Interest>,
    shared: Arc<ChannelState>,
    taken: bool,
}

impl Waiting {
    /// From now on the channel's ends decide.
    fn into_channel(mut self) -> Channel {
        self.taken = true;
        stream::channel(&self.shared, &self.lease)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.taken {
            self.interest.lose();
            // It may have been opened in this very moment.
            self.shared.lock().killed = true;
            self.lease.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ncc_transport::FailureKind;
    use ncc_transport_ssh::test_util::Sshd;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    async fn bounded<T>(future: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(60), future).await.expect("it does not hang")
    }

    /// Readers of channels that were open when libssh2's wrapper panicked waited for ever.
    #[tokio::test]
    async fn a_panic_of_the_driver_ends_every_channel() {
        let Some(sshd) = Sshd::start(&["SetEnv HOME=/nonexistent"]) else { return };
        let extra = sshd.ssh_words().into_iter().map(Into::into).collect();
        let options = Ssh2Options { extra, ..Ssh2Options::default() };
        let transport = Ssh2::new(sshd.target(), options);
        let command = RemoteCommand::new("cat");
        let mut first = bounded(transport.open(&command)).await.unwrap();
        // One that the server never answers for, as far as the driver gets.
        transport
            .ask(Request {
                what: Wanted::Command("true".to_owned()),
                shared: Arc::default(),
                interest: Arc::default(),
                reply: Box::new(|_| panic!("as a fault of libssh2's wrapper would (this is a test)")),
            })
            .unwrap();
        let error = bounded(first.stdout.read_u8()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let exit = bounded(first.control.wait()).await.unwrap();
        let failure = transport.explain(&End::new(&exit, false, "")).unwrap();
        assert_eq!((exit, failure.kind), (Exit::Unknown, FailureKind::ConnectionLost), "{failure:?}");
        // The next one connects again.
        bounded(transport.open(&command)).await.unwrap();
    }
}
