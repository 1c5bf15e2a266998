//! What goes wrong, as data.

use std::{io, path::PathBuf};

use crate::Failure;

/// A command could not be started on a host, or its end could not be learnt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The program that this machine needs for the connection (`ssh`) is not installed or not on `PATH`.
    #[error("program '{program}', needed to connect to '{host}', was not found on this machine")]
    ProgramNotFound {
        /// The host that was to be reached.
        host: String,
        /// The program as it was asked for.
        program: String,
    },
    /// A process could not be started on this machine.
    #[error("cannot start '{program}' for '{host}'")]
    Spawn {
        /// The host that was to be reached.
        host: String,
        /// The program as it was asked for.
        program: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A socket on this machine does not take the connection.
    #[error("cannot connect to the socket '{}'", .path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// What the connection needs on this machine, such as a file with the pinned host key, could not be made.
    #[error("cannot prepare the connection to '{host}': {what}")]
    Prepare {
        /// The host that was to be reached.
        host: String,
        /// What could not be made.
        what: &'static str,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The end of a process could not be learnt.
    #[error("cannot wait for '{program}' for '{host}'")]
    Wait {
        /// The host that was to be reached.
        host: String,
        /// The program that was started.
        program: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The host was not reached, or refused us. Only from transports that connect by themselves; one that spawns a program
    /// learns this from [`Transport::explain`](crate::Transport::explain).
    #[error("cannot connect to '{host}': {failure}: {evidence}", evidence = failure.evidence)]
    Connect {
        /// The host that was to be reached.
        host: String,
        /// Why, and what can be done.
        failure: Failure,
        /// The operating system's reason, where there is one.
        source: Option<io::Error>,
    },
}
