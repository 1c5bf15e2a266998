//! Reading what ssh says when it fails.

use ncc_transport::{Exit, Failure, FailureKind, Target};

/// What ssh returns for its own failures. The remote command's status passes through as it is, so this may be its own too.
const SSH_FAILED: Exit = Exit::Code(255);

/// A line of ssh that tells a kind of failure.
struct Sign {
    kind: FailureKind,
    /// All of these are in the line.
    parts: &'static [&'static str],
}

const fn sign(kind: FailureKind, parts: &'static [&'static str]) -> Sign {
    Sign { kind, parts }
}

/// The more telling ones first: ssh often says several things, the cause and what followed from it. The texts
/// are OpenSSH's; `tests/it/failures.rs` makes those that loopback can make with the ssh that is installed.
const SIGNS: &[Sign] = &[
    sign(FailureKind::HostKeyRevoked, &["REVOKED HOST KEY DETECTED"]),
    sign(FailureKind::HostKeyRevoked, &["is marked as revoked"]),
    sign(FailureKind::HostKeyChanged, &["HOST IDENTIFICATION HAS CHANGED"]),
    sign(FailureKind::HostKeyUnknown, &["host key is known for", "strict checking"]),
    sign(FailureKind::HostKeyUnknown, &["Host key verification failed"]),
    sign(FailureKind::BadConfiguration, &["Bad configuration option"]),
    sign(FailureKind::BadConfiguration, &["Bad owner or permissions on"]),
    sign(FailureKind::BadConfiguration, &["bad configuration options"]),
    sign(FailureKind::BadConfiguration, &["command-line line 0:"]),
    sign(FailureKind::BadConfiguration, &["command-line: line 0:"]),
    sign(FailureKind::BadConfiguration, &["unknown option --"]),
    sign(FailureKind::BadConfiguration, &["option requires an argument --"]),
    sign(FailureKind::BadConfiguration, &["Cannot execute command-line and remote command"]),
    sign(FailureKind::BadConfiguration, &["Can't open user config file"]),
    sign(FailureKind::BadConfiguration, &["Bad cipher type"]),
    sign(FailureKind::BadConfiguration, &["Unknown cipher type"]),
    // Only the ssh behind a proxy command does not know its peer.
    sign(FailureKind::ProxyFailed, &["UNKNOWN port 65535"]),
    sign(FailureKind::ProxyFailed, &["stdio forwarding failed"]),
    sign(FailureKind::KeyFileUnusable, &["Permissions ", "are too open"]),
    sign(FailureKind::KeyFileUnusable, &["Load key ", ": bad permissions"]),
    sign(FailureKind::KeyFileUnusable, &["Load key ", ": Permission denied"]),
    sign(FailureKind::KeyFileUnusable, &["Load key ", ": invalid format"]),
    sign(FailureKind::KeyFileUnusable, &["Load key ", ": error in libcrypto"]),
    sign(FailureKind::KeyFileUnusable, &["Identity file ", "not accessible"]),
    sign(FailureKind::PermissionDenied, &["Permission denied ("]),
    sign(FailureKind::PermissionDenied, &["Too many authentication failures"]),
    sign(FailureKind::UnknownHost, &["Could not resolve hostname"]),
    sign(FailureKind::ConnectionRefused, &["connect to ", "Connection refused"]),
    sign(FailureKind::Unreachable, &["connect to ", "No route to host"]),
    sign(FailureKind::Unreachable, &["connect to ", "etwork is unreachable"]),
    sign(FailureKind::Unreachable, &["connect to ", "Host is down"]),
    sign(FailureKind::TimedOut, &["connect to ", "timed out"]),
    sign(FailureKind::TimedOut, &["timed out during banner exchange"]),
    sign(FailureKind::TimedOut, &["Timeout, server ", "not responding"]),
    sign(FailureKind::TimedOut, &["Connection to ", "timed out"]),
    sign(FailureKind::NoCommonAlgorithm, &["Unable to negotiate with"]),
    sign(FailureKind::NoCommonAlgorithm, &["no matching ", " found"]),
    sign(FailureKind::SessionRefused, &["channel ", "open failed"]),
    sign(FailureKind::SessionRefused, &["ession open refused by peer"]),
    sign(FailureKind::SessionRefused, &["session request failed"]),
    sign(FailureKind::SessionRefused, &["request failed on channel"]),
    sign(FailureKind::ClosedByServer, &["kex_exchange_identification: "]),
    sign(FailureKind::ClosedByServer, &["ssh_exchange_identification: "]),
    sign(FailureKind::ClosedByServer, &["banner exchange: "]),
    sign(FailureKind::ConnectionLost, &["closed by remote host"]),
    sign(FailureKind::ConnectionLost, &["client_loop: send disconnect"]),
    sign(FailureKind::ConnectionLost, &["packet_write_wait: "]),
    sign(FailureKind::ConnectionLost, &["ssh_dispatch_run_fatal: "]),
    sign(FailureKind::ConnectionLost, &["Connection reset by "]),
    sign(FailureKind::ConnectionLost, &["Connection closed by "]),
    sign(FailureKind::ConnectionLost, &["Read from remote host "]),
    sign(FailureKind::ClosedByServer, &["Received disconnect from "]),
];

/// What is worth showing in the place of the line that tells the kind.
const BETTER_EVIDENCE: &[(FailureKind, &str)] = &[
    (FailureKind::HostKeyChanged, "Offending "),
    (FailureKind::HostKeyChanged, "in known_hosts to get rid of"),
];

/// Whether ssh itself failed, by its exit status and what it said, and what can be done about it.
///
/// `None` if the status is not ssh's own 255, or if no line is one of ssh's: then it is the remote command that failed.
///
/// ```
/// use ncc_transport::{Exit, FailureKind};
///
/// let target = "alice@example.org".parse()?;
/// let stderr = "alice@example.org: Permission denied (publickey,password).\n";
/// let failure = ncc_transport_ssh::explain(&target, &Exit::Code(255), stderr).unwrap();
/// assert_eq!(failure.kind, FailureKind::PermissionDenied);
/// # Ok::<(), ncc_transport::TargetError>(())
/// ```
pub fn explain(target: &Target, exit: &Exit, stderr: &str) -> Option<Failure> {
    if *exit != SSH_FAILED {
        return None;
    }
    let (sign, line) = first_sign(stderr, SIGNS)?;
    let kind = sign.kind;
    let evidence = match kind {
        // The proxy is often an ssh, and says more than the one that lost it.
        FailureKind::ProxyFailed => proxys_own_words(stderr).unwrap_or(line),
        _ => BETTER_EVIDENCE
            .iter()
            .filter(|(better_for, _)| *better_for == kind)
            .find_map(|(_, part)| stderr.lines().find(|line| line.contains(part)))
            .unwrap_or(line),
    };
    let mut hint = hint(kind, target);
    // Some builds of ssh say exactly how: which file it is, and under which name.
    let exactly = stderr.lines().map(str::trim).find(|line| line.starts_with("ssh-keygen -f "));
    if let (FailureKind::HostKeyChanged, Some(exactly)) = (kind, exactly) {
        hint = hint.replace(&format!("ssh-keygen -R {}", known_as(target)), exactly);
    }
    Some(Failure::new(kind, evidence.trim(), hint))
}

/// What the proxy said, before the ssh that lost it said the rest.
fn proxys_own_words(stderr: &str) -> Option<&str> {
    use FailureKind::{ClosedByServer, ConnectionLost, ProxyFailed};
    let signs =
        SIGNS.iter().filter(|sign| !matches!(sign.kind, ProxyFailed | ClosedByServer | ConnectionLost));
    first_sign(stderr, signs)
        .map(|(_, line)| line)
        .or_else(|| stderr.lines().find(|line| !line.trim().is_empty()))
}

/// The first of `signs` that any line shows, and the first such line.
fn first_sign(stderr: &str, signs: impl IntoIterator<Item = &'static Sign>) -> Option<(&'static Sign, &str)> {
    signs.into_iter().find_map(|sign| {
        let line = stderr.lines().find(|line| sign.parts.iter().all(|part| line.contains(part)))?;
        Some((sign, line))
    })
}

/// What to type to try the connection by hand.
fn by_hand(target: &Target) -> String {
    let port = target.port().map_or_else(String::new, |port| format!("-p {port} "));
    let user = target.user().map_or_else(String::new, |user| format!("-l '{user}' "));
    format!("ssh {port}{user}{}", target.host())
}

/// The name under which known_hosts has the host.
fn known_as(target: &Target) -> String {
    match target.port() {
        Some(port) if port != 22 => format!("'[{}]:{port}'", target.host()),
        _ => target.host().to_owned(),
    }
}

fn hint(kind: FailureKind, target: &Target) -> String {
    let (by_hand, known_as) = (by_hand(target), known_as(target));
    match kind {
        FailureKind::UnknownHost => "check the spelling; a short name may need an entry in ~/.ssh/config".to_owned(),
        FailureKind::ConnectionRefused => {
            "nothing listens on that port: is sshd running there, and is the port right ('host:port')?".to_owned()
        }
        FailureKind::Unreachable => "check this machine's network, VPN and routes".to_owned(),
        FailureKind::TimedOut => {
            "the host may be down, or a firewall drops the packets; ConnectTimeout and ServerAliveInterval in \
             ~/.ssh/config or NIX_SSHOPTS say how long to wait"
                .to_owned()
        }
        FailureKind::ConnectionLost => "try again; what was copied so far is not sent twice".to_owned(),
        FailureKind::ClosedByServer => {
            format!("the server may be overloaded (MaxStartups) or refuse this address; try '{by_hand}'")
        }
        FailureKind::HostKeyChanged => format!(
            "either the host was reinstalled or somebody is in between; only if you know that it was reinstalled, \
             forget the old key with: ssh-keygen -R {known_as}"
        ),
        FailureKind::HostKeyRevoked => {
            "somebody marked this key as revoked in known_hosts: do not connect before its owner tells you why"
                .to_owned()
        }
        FailureKind::HostKeyUnknown => {
            format!("connect once by hand, compare the fingerprint and accept the key: {by_hand}")
        }
        FailureKind::PermissionDenied => {
            format!("check user name, keys and agent (ssh-add -l); to see what is tried: {by_hand} -v true")
        }
        FailureKind::KeyFileUnusable => "the file must exist, be readable by you, and by nobody else (chmod 600)".to_owned(),
        FailureKind::ProxyFailed => {
            format!("the jump host or ProxyCommand on the way failed; try it by hand: {by_hand} true")
        }
        FailureKind::NoCommonAlgorithm => {
            "one side is much older than the other; see 'ssh -Q' and the options KexAlgorithms, HostKeyAlgorithms, \
             Ciphers and MACs, which NIX_SSHOPTS can hold"
                .to_owned()
        }
        FailureKind::BadConfiguration => "check ~/.ssh/config and NIX_SSHOPTS".to_owned(),
        FailureKind::SessionRefused => {
            "the server limits the sessions of a connection (MaxSessions), or the account may not run commands".to_owned()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests;
