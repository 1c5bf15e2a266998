//! What goes wrong, as data.

use std::{fmt, io};

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

/// Why a host was not reached, or was lost, and what a person can do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// What happened, for programs.
    pub kind: FailureKind,
    /// The words of the ssh implementation that say so, one line.
    pub evidence: String,
    /// What can be done, one or more sentences for a person; empty where there is nothing useful to say.
    pub hint: String,
}

impl Failure {
    /// A failure of this kind; see the fields.
    pub fn new(kind: FailureKind, evidence: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind, evidence: evidence.into(), hint: hint.into() }
    }
}

impl fmt::Display for Failure {
    /// The kind in words, without evidence and hint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

/// The ways not to reach a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// The host name has no address.
    UnknownHost,
    /// Nothing listens on that port.
    ConnectionRefused,
    /// There is no way to that network.
    Unreachable,
    /// No answer, at the start or later.
    TimedOut,
    /// A connection that was there ended.
    ConnectionLost,
    /// The server hung up before the two sides had agreed on keys.
    ClosedByServer,
    /// The server shows another host key than the known one.
    HostKeyChanged,
    /// The server's host key is marked as revoked.
    HostKeyRevoked,
    /// The server's host key is not known, and nobody could or would accept it.
    HostKeyUnknown,
    /// The server accepted none of the keys and passwords.
    PermissionDenied,
    /// A private key cannot be used: unreadable, or readable by others.
    KeyFileUnusable,
    /// The way through a jump host or a proxy command failed.
    ProxyFailed,
    /// The two sides have no algorithm in common.
    NoCommonAlgorithm,
    /// The configuration or an option is not understood.
    BadConfiguration,
    /// The connection stands, but the server opens no (further) session.
    SessionRefused,
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownHost => "the host name cannot be resolved",
            Self::ConnectionRefused => "connection refused",
            Self::Unreachable => "the network is unreachable",
            Self::TimedOut => "the host does not answer",
            Self::ConnectionLost => "the connection was lost",
            Self::ClosedByServer => "the server closed the connection",
            Self::HostKeyChanged => "the host key has changed",
            Self::HostKeyRevoked => "the host key is revoked",
            Self::HostKeyUnknown => "the host key is not known",
            Self::PermissionDenied => "permission denied",
            Self::KeyFileUnusable => "the private key cannot be used",
            Self::ProxyFailed => "the proxy or jump host failed",
            Self::NoCommonAlgorithm => "no algorithm in common",
            Self::BadConfiguration => "the ssh configuration is not accepted",
            Self::SessionRefused => "the server opens no further session",
        })
    }
}
