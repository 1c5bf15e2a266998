//! Failures on their way to a caller.

use std::{fmt, io};

use ncc_transport::{Client, Failure, FailureKind, Target, TransportError};

/// The hint for what this transport cannot do.
pub(crate) const OPENSSH_CAN: &str =
    "the other transport, which runs OpenSSH's own program, can do it: '--transport openssh'";

/// Why there is no connection or no channel.
#[derive(Debug)]
pub(crate) struct ConnectionError {
    pub(crate) kind: FailureKind,
    /// One line.
    pub(crate) evidence: String,
    source: Option<io::Error>,
    /// In place of the usual one.
    hint: Option<String>,
}

impl ConnectionError {
    pub(crate) fn new(kind: FailureKind, evidence: impl Into<String>) -> Self {
        Self { kind, evidence: evidence.into(), source: None, hint: None }
    }

    /// An error of the operating system, while doing `what`.
    pub(crate) fn io(kind: FailureKind, what: impl Into<String>, source: io::Error) -> Self {
        Self { source: Some(source), ..Self::new(kind, what) }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The connection was there, and something went wrong with it.
    pub(crate) fn lost(source: io::Error) -> Self {
        Self::io(FailureKind::ConnectionLost, "the network failed", source)
    }

    /// What is wrong with the user's configuration.
    pub(crate) fn configuration(evidence: impl Into<String>) -> Self {
        Self::new(FailureKind::BadConfiguration, evidence)
    }

    /// What libssh2 says, if nothing else is known about it.
    pub(crate) fn libssh2(kind: FailureKind, error: &ssh2::Error) -> Self {
        Self::new(kind, error.message())
    }

    pub(crate) fn failure(&self, target: &Target) -> Failure {
        let hint = self.hint.clone().unwrap_or_else(|| self.kind.hint(target, Client::Library));
        let evidence = match &self.source {
            Some(source) => format!("{}: {source}", self.evidence),
            None => self.evidence.clone(),
        };
        // The peer has its words in some of them.
        Failure::new(self.kind, ncc_transport::sanitize_line(evidence.as_bytes()), hint)
    }

    pub(crate) fn into_error(self, target: &Target) -> TransportError {
        let failure = self.failure(target);
        TransportError::Connect { host: target.to_string(), failure, source: self.source }
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.evidence)?;
        self.source.as_ref().map_or(Ok(()), |source| write!(f, ": {source}"))
    }
}

impl Clone for ConnectionError {
    fn clone(&self) -> Self {
        let source = self.source.as_ref().map(|source| match source.raw_os_error() {
            Some(number) => io::Error::from_raw_os_error(number),
            None => io::Error::new(source.kind(), source.to_string()),
        });
        Self { kind: self.kind, evidence: self.evidence.clone(), source, hint: self.hint.clone() }
    }
}

/// The name under which known_hosts has a host.
pub(crate) fn known_as(host: &str, port: u16) -> String {
    if port == 22 { host.to_owned() } else { format!("[{host}]:{port}") }
}
