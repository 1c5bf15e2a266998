//! The transport of `localhost`.

use std::io;

use futures_core::future::BoxFuture;
use tokio::process::Command;

use crate::{Channel, ChannelControl, Exit, RemoteCommand, Transport, TransportError};

/// Runs commands on this machine: no ssh, no shell, the same user and environment.
///
/// A program that does not exist ends with 127 and text on stderr (126 where it may not be executed), as it does behind a login
/// shell, so that nothing above has to tell the two apart.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct LocalProcess;

impl LocalProcess {
    /// The local machine.
    pub fn new() -> Self {
        Self
    }
}

/// The host's name in messages.
const HOST: &str = "localhost";

impl Transport for LocalProcess {
    fn describe(&self) -> String {
        HOST.to_owned()
    }

    /// There is no login.
    fn share(&self) -> bool {
        true
    }

    fn open<'a>(&'a self, command: &'a RemoteCommand) -> BoxFuture<'a, Result<Channel, TransportError>> {
        Box::pin(async move {
            let mut process = Command::new(command.program());
            process.args(command.words().skip(1));
            match Channel::spawn(HOST, process) {
                Err(TransportError::ProgramNotFound { program, .. }) => {
                    Ok(failed(127, &program, "command not found"))
                }
                Err(TransportError::Spawn { program, source, .. })
                    if source.kind() == io::ErrorKind::PermissionDenied =>
                {
                    Ok(failed(126, &program, "permission denied"))
                }
                result => result,
            }
        })
    }
}

/// What a shell would have made of a program that cannot be started.
fn failed(code: i32, program: &str, reason: &str) -> Channel {
    Channel {
        // Nobody reads: a pipe whose other end is gone.
        stdin: Box::new(tokio::io::duplex(1).0),
        stdout: Box::new(tokio::io::empty()),
        stderr: Box::new(io::Cursor::new(format!("{program}: {reason}\n").into_bytes())),
        control: Box::new(Ended(Exit::Code(code))),
    }
}

#[derive(Debug)]
struct Ended(Exit);

impl ChannelControl for Ended {
    fn wait(&mut self) -> BoxFuture<'_, Result<Exit, TransportError>> {
        Box::pin(async { Ok(self.0.clone()) })
    }

    fn kill(&mut self) {}
}
