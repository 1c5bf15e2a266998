//! Why a host was not reached, refused us, or was lost, and what a person can do about it.

use std::fmt;

use crate::{Target, command::quoted_for_shell};

/// Why a host was not reached, refused us, or was lost, and what a person can do about it.
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
    /// A failure of this kind; see the fields. [`FailureKind::hint`] has a hint for each kind.
    pub fn new(kind: FailureKind, evidence: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind, evidence: evidence.into(), hint: hint.into() }
    }

    /// Which of the three: not reached, refused, lost.
    pub fn class(&self) -> FailureClass {
        self.kind.class()
    }

    /// Whether the same may succeed later although nobody changes anything.
    pub fn is_temporary(&self) -> bool {
        match self.kind {
            // "Temporary failure in name resolution": the resolver does not answer.
            FailureKind::UnknownHost => self.evidence.contains("emporary failure"),
            FailureKind::ConnectionRefused
            | FailureKind::Unreachable
            | FailureKind::TimedOut
            | FailureKind::ClosedByServer
            | FailureKind::ConnectionLost => true,
            _ => false,
        }
    }

    /// Whether it is about the way to the host, which may be there again although nobody changes anything here. Of a host that was
    /// reached before this is as good as temporary.
    pub fn is_of_the_network(&self) -> bool {
        use FailureKind::{ConnectionRefused, ProxyFailed, TimedOut, UnknownHost, Unreachable};
        matches!(self.kind, UnknownHost | ConnectionRefused | Unreachable | TimedOut | ProxyFailed)
    }

    /// Whether the server hung up before any login: no key was offered, nobody was asked for anything, no command was sent.
    /// Servers that are scanned all day drop new connections at random (MaxStartups), so that one more try after a short pause is
    /// right; and it can annoy nobody, which a second login could.
    pub fn happened_before_login(&self) -> bool {
        self.kind == FailureKind::ClosedByServer
    }
}

impl fmt::Display for Failure {
    /// The kind in words, without evidence and hint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

/// What a failure means to a script that has to decide what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// There was no conversation with the host: its name, the network, this machine's ssh or its configuration is in the way.
    NotReached,
    /// The host was there, and one side did not want the other: the host key, the login, the session.
    Refused,
    /// A connection that worked has ended. Trying again continues the work.
    Lost,
}

/// The ways not to reach a host, to be refused by it, and to lose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// The host name has no address.
    UnknownHost,
    /// Nothing listens on that port.
    ConnectionRefused,
    /// There is no way to that network.
    Unreachable,
    /// No answer to the attempt to connect or to log in.
    TimedOut,
    /// A connection that was there ended, or no longer carries anything.
    ConnectionLost,
    /// The server hung up before the two sides had agreed on keys, and so before any login.
    ClosedByServer,
    /// What answered is no SSH server.
    NotSsh,
    /// The server hung up in the middle of the login.
    LoginAborted,
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
    /// The user who runs this program has no entry in this machine's list of users, and ssh insists on one.
    NoLocalUser,
    /// The connection stands, but the server opens no (further) session.
    SessionRefused,
    /// The login worked, and the login shell ended without a word before it ran anything.
    LoginShellEnded,
    /// ssh failed and did not say why.
    Unsaid,
}

/// Who speaks SSH for us, which decides what a person can try by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Client {
    /// OpenSSH's program, which is there then.
    OpenSsh,
    /// A library, perhaps because there is no such program.
    Library,
}

impl FailureKind {
    /// Which of the three: not reached, refused, lost.
    pub fn class(self) -> FailureClass {
        match self {
            Self::UnknownHost
            | Self::ConnectionRefused
            | Self::Unreachable
            | Self::TimedOut
            | Self::ClosedByServer
            | Self::NotSsh
            | Self::ProxyFailed
            | Self::NoCommonAlgorithm
            | Self::BadConfiguration
            | Self::NoLocalUser
            | Self::Unsaid => FailureClass::NotReached,
            Self::LoginAborted
            | Self::HostKeyChanged
            | Self::HostKeyRevoked
            | Self::HostKeyUnknown
            | Self::PermissionDenied
            | Self::KeyFileUnusable
            | Self::SessionRefused
            | Self::LoginShellEnded => FailureClass::Refused,
            Self::ConnectionLost => FailureClass::Lost,
        }
    }

    /// What a person can do about it.
    pub fn hint(self, target: &Target, client: Client) -> String {
        let openssh = client == Client::OpenSsh;
        match self {
            Self::UnknownHost => {
                "check the spelling; a short name may need an entry in ~/.ssh/config".to_owned()
            }
            Self::ConnectionRefused => {
                "nothing listens on that port: is sshd running there, and is the port right ('host:port')?".to_owned()
            }
            Self::Unreachable => "check this machine's network, VPN and routes".to_owned(),
            Self::TimedOut => {
                "the host may be down, or a firewall drops the packets; ConnectTimeout and ServerAliveInterval in \
                 ~/.ssh/config or NIX_SSHOPTS say how long to wait"
                    .to_owned()
            }
            Self::ConnectionLost => "try again; what was copied so far is not sent twice".to_owned(),
            Self::ClosedByServer => {
                "the server may be overloaded (MaxStartups) or refuse this address; try again later".to_owned()
            }
            Self::NotSsh => "something else than an SSH server listens on that port; is it right ('host:port')?".to_owned(),
            Self::LoginAborted => {
                "the server may have banned this address for a while, or not let this account in (expired, \
                 or a login that is not allowed at this time); its log says more"
                    .to_owned()
            }
            Self::HostKeyChanged => format!(
                "either the host was reinstalled or somebody is in between; only if you know that it was reinstalled, \
                 forget the old key with: ssh-keygen -R {}",
                quoted_for_shell(&target.known_as())
            ),
            Self::HostKeyRevoked => {
                "somebody marked this key as revoked in known_hosts: do not connect before its owner tells you why"
                    .to_owned()
            }
            Self::HostKeyUnknown if openssh => {
                format!("connect once by hand, compare the fingerprint and accept the key: {}", target.by_hand())
            }
            Self::HostKeyUnknown => {
                "compare the fingerprint with the one that the host's owner tells you, and put its key into \
                 ~/.ssh/known_hosts; or connect once on a terminal and answer the question"
                    .to_owned()
            }
            Self::PermissionDenied if openssh => format!(
                "check user name, keys and agent (ssh-add -l); to see what is tried: {} -v true",
                target.by_hand()
            ),
            Self::PermissionDenied => "check user name, keys and agent (ssh-add -l)".to_owned(),
            Self::KeyFileUnusable => {
                "the file must exist, be readable by you, and by nobody else (chmod 600)".to_owned()
            }
            Self::ProxyFailed if openssh => {
                format!("the jump host or ProxyCommand on the way failed; try it by hand: {} true", target.by_hand())
            }
            Self::ProxyFailed => "the jump host or ProxyCommand on the way failed; try it by itself".to_owned(),
            Self::NoCommonAlgorithm => {
                "one side is much older than the other; see KexAlgorithms, HostKeyAlgorithms, Ciphers and MACs in \
                 ~/.ssh/config or NIX_SSHOPTS, which may narrow the choice"
                    .to_owned()
            }
            Self::BadConfiguration => "check ~/.ssh/config and NIX_SSHOPTS".to_owned(),
            Self::NoLocalUser if openssh => {
                "ssh refuses to run for a user without a name (a container with an arbitrary uid): add the user to \
                 /etc/passwd, or use '--transport libssh2', which needs no entry there"
                    .to_owned()
            }
            Self::NoLocalUser => "name the remote user ('user@host') and set HOME".to_owned(),
            Self::SessionRefused => {
                "the server limits the sessions of a connection (MaxSessions), or the account may not run commands"
                    .to_owned()
            }
            Self::LoginShellEnded => {
                "look at the start-up files of the login shell there (.bashrc, .profile, config.fish): one may end it, \
                 or the account has no shell that runs commands"
                    .to_owned()
            }
            Self::Unsaid => format!("to see what ssh has to say: {} -v true", target.by_hand()),
        }
    }
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
            Self::NotSsh => "what answers there is no SSH server",
            Self::LoginAborted => "the server ended the login",
            Self::HostKeyChanged => "the host key has changed",
            Self::HostKeyRevoked => "the host key is revoked",
            Self::HostKeyUnknown => "the host key is not known",
            Self::PermissionDenied => "permission denied",
            Self::KeyFileUnusable => "the private key cannot be used",
            Self::ProxyFailed => "the proxy or jump host failed",
            Self::NoCommonAlgorithm => "no algorithm in common",
            Self::BadConfiguration => "the ssh configuration is not accepted",
            Self::NoLocalUser => "ssh does not run for this user",
            Self::SessionRefused => "the server opens no further session",
            Self::LoginShellEnded => "the login shell ended before it ran the program",
            Self::Unsaid => "ssh failed without saying why",
        })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("h", "ssh-keygen -R h")]
    #[case("alice@h:22", "ssh-keygen -R h")]
    #[case("alice@h:2200", "ssh-keygen -R '[h]:2200'")]
    #[case("[::1]:2200", "ssh-keygen -R '[::1]:2200'")]
    fn the_hint_forgets_the_right_key(#[case] host: &str, #[case] command: &str) {
        let hint = FailureKind::HostKeyChanged.hint(&host.parse().unwrap(), Client::OpenSsh);
        assert!(hint.ends_with(command), "{hint}");
    }

    #[test]
    fn the_hint_can_be_typed() {
        let hint = FailureKind::HostKeyUnknown.hint(&r"DOM\alice@h:2200".parse().unwrap(), Client::OpenSsh);
        assert!(hint.ends_with(r"ssh -p 2200 -l DOM\\alice h"), "{hint}");
    }

    #[test]
    fn a_name_server_that_is_down_is_temporary() {
        let failure = |evidence: &str| Failure::new(FailureKind::UnknownHost, evidence, "");
        assert!(
            failure("ssh: Could not resolve hostname h: Temporary failure in name resolution").is_temporary()
        );
        assert!(!failure("ssh: Could not resolve hostname h: Name or service not known").is_temporary());
    }
}
