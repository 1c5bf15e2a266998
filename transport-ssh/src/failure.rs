//! Reading what ssh says when it fails.

use ncc_transport::{Client, End, Exit, Failure, FailureKind, Target, login_shell_ended};

use crate::notices::without_notices;

/// What ssh returns for its own failures, and for a remote command that died of a signal. The remote command's status passes
/// through as it is, so this may be its own too.
const SSH_FAILED: Exit = Exit::Code(255);

/// How far back from its last line ssh's last words may be: the warning about a changed host key has 14 lines.
const LAST_WORDS: usize = 40;

/// The same once something of ours runs at the other end. Then ssh says one or two lines as it dies, among which stand at most
/// those that were on their way; any other that looks alike is the remote command's, about a connection of its own.
const LAST_WORDS_OF_A_SESSION: usize = 6;

/// A line of ssh that tells a kind of failure.
#[derive(Debug)]
struct Sign {
    kind: FailureKind,
    /// What the line begins with; may be empty.
    start: &'static str,
    /// All of these are in what follows.
    parts: &'static [&'static str],
}

impl Sign {
    fn is_in(&self, line: &str) -> bool {
        line.strip_prefix(self.start).is_some_and(|rest| self.parts.iter().all(|part| rest.contains(part)))
    }
}

const fn sign(kind: FailureKind, start: &'static str, parts: &'static [&'static str]) -> Sign {
    Sign { kind, start, parts }
}

/// With what ssh ends before a session stands. The texts are OpenSSH's, from 8.4 to 10.x; `tests/it/failures.rs` makes those that
/// loopback can make with the ssh that is installed.
const BEFORE_A_SESSION: &[Sign] = &[
    // Only the ssh behind a proxy command does not know its peer.
    sign(FailureKind::ProxyFailed, "Connection closed by UNKNOWN port 65535", &[]),
    sign(FailureKind::ProxyFailed, "Connection reset by UNKNOWN port 65535", &[]),
    sign(FailureKind::ProxyFailed, "Connection to UNKNOWN port 65535 timed out", &[]),
    sign(FailureKind::ProxyFailed, "", &["Connection to UNKNOWN port 65535"]),
    sign(FailureKind::ProxyFailed, "", &["from UNKNOWN port 65535"]),
    sign(FailureKind::ProxyFailed, "stdio forwarding failed", &[]),
    sign(FailureKind::NoLocalUser, "No user exists for uid ", &[]),
    sign(FailureKind::NoLocalUser, "You don't exist, go away", &[]),
    sign(FailureKind::HostKeyUnknown, "Host key verification failed.", &[]),
    sign(FailureKind::PermissionDenied, "", &["@", ": Permission denied (", ")."]),
    sign(FailureKind::PermissionDenied, "Received disconnect from ", &["Too many authentication failures"]),
    sign(FailureKind::PermissionDenied, "Disconnected from ", &["Too many authentication failures"]),
    sign(FailureKind::PermissionDenied, "Too many authentication failures", &[]),
    sign(FailureKind::UnknownHost, "ssh: Could not resolve hostname ", &[]),
    sign(FailureKind::ConnectionRefused, "ssh: connect to ", &["Connection refused"]),
    sign(FailureKind::TimedOut, "ssh: connect to ", &["timed out"]),
    // No route, network unreachable, host down, forbidden by a firewall here, no such local address.
    sign(FailureKind::Unreachable, "ssh: connect to ", &[]),
    sign(FailureKind::TimedOut, "Connection timed out during banner exchange", &[]),
    sign(FailureKind::TimedOut, "Connection to ", &[" timed out"]),
    sign(FailureKind::TimedOut, "Timeout, server ", &["not responding"]),
    sign(FailureKind::NoCommonAlgorithm, "Unable to negotiate with ", &[]),
    sign(FailureKind::NoCommonAlgorithm, "no matching ", &[" found"]),
    sign(FailureKind::NoCommonAlgorithm, "Protocol major versions differ", &[]),
    sign(FailureKind::NoCommonAlgorithm, "Bad server host key: ", &[]),
    sign(FailureKind::NoCommonAlgorithm, "ssh_dispatch_run_fatal: ", &["Invalid key length"]),
    sign(FailureKind::NoCommonAlgorithm, "ssh_dispatch_run_fatal: ", &["no matching "]),
    sign(FailureKind::SessionRefused, "channel ", &[": open failed: "]),
    sign(FailureKind::SessionRefused, "mux_client_request_session: session request failed", &[]),
    sign(FailureKind::SessionRefused, "", &["ession open refused by peer"]),
    sign(FailureKind::SessionRefused, "", &[" request failed on channel "]),
    sign(FailureKind::NotSsh, "banner exchange: ", &["invalid format"]),
    sign(FailureKind::NotSsh, "", &["_exchange_identification: ", "banner line contains invalid characters"]),
    sign(FailureKind::ClosedByServer, "kex_exchange_identification: ", &[]),
    sign(FailureKind::ClosedByServer, "ssh_exchange_identification: ", &[]),
    sign(FailureKind::ClosedByServer, "banner exchange: ", &[]),
    sign(FailureKind::LoginAborted, "Connection closed by ", &[" port "]),
    sign(FailureKind::LoginAborted, "Connection reset by ", &[" port "]),
    sign(FailureKind::LoginAborted, "Received disconnect from ", &[]),
    sign(FailureKind::LoginAborted, "Disconnected from ", &[]),
    sign(FailureKind::BadConfiguration, "", &[" line ", ": "]),
    sign(FailureKind::BadConfiguration, "command-line: line 0: ", &[]),
    sign(FailureKind::BadConfiguration, "", &["terminating, ", " bad configuration options"]),
    sign(FailureKind::BadConfiguration, "Bad owner or permissions on ", &[]),
    sign(FailureKind::BadConfiguration, "Can't open user config file ", &[]),
    sign(FailureKind::BadConfiguration, "unknown option -- ", &[]),
    sign(FailureKind::BadConfiguration, "option requires an argument -- ", &[]),
    sign(FailureKind::BadConfiguration, "usage: ssh ", &[]),
    sign(FailureKind::BadConfiguration, "Cannot execute command-line and remote command", &[]),
    sign(FailureKind::BadConfiguration, "Cannot fork into background without a command", &[]),
    sign(FailureKind::BadConfiguration, "Cannot specify multiple session types", &[]),
    sign(FailureKind::BadConfiguration, "Unknown cipher type ", &[]),
    sign(FailureKind::BadConfiguration, "Unknown mac type ", &[]),
    sign(FailureKind::BadConfiguration, "Bad ", &[" specification "]),
    sign(FailureKind::BadConfiguration, "Bad port '", &[]),
    sign(FailureKind::BadConfiguration, "Bad escape character '", &[]),
    sign(FailureKind::BadConfiguration, "ControlPath too long", &[]),
    sign(FailureKind::BadConfiguration, "", &["too long for Unix domain socket"]),
    sign(FailureKind::BadConfiguration, "hostname contains invalid characters", &[]),
    sign(FailureKind::BadConfiguration, "remote username contains invalid characters", &[]),
    sign(FailureKind::BadConfiguration, "Invalid user name ", &[]),
    sign(FailureKind::BadConfiguration, "ProxyCommand and ProxyJump", &[]),
    sign(FailureKind::BadConfiguration, "jumphost loop via ", &[]),
];

/// With what ssh ends when a session that stood is lost.
const LOST_SESSION: &[Sign] = &[
    sign(FailureKind::ConnectionLost, "Connection to ", &[" closed by remote host"]),
    sign(FailureKind::ConnectionLost, "Connection to ", &[" aborted: "]),
    sign(FailureKind::ConnectionLost, "Connection to ", &[" timed out"]),
    sign(FailureKind::ConnectionLost, "client_loop: ", &[]),
    sign(FailureKind::ConnectionLost, "packet_write_wait: ", &[]),
    sign(FailureKind::ConnectionLost, "packet_write_poll: ", &[]),
    sign(FailureKind::ConnectionLost, "ssh_packet_read_poll", &[]),
    sign(FailureKind::ConnectionLost, "ssh_dispatch_run_fatal: ", &[]),
    sign(FailureKind::ConnectionLost, "Write failed: ", &[]),
    sign(FailureKind::ConnectionLost, "Read from remote host ", &[]),
    sign(FailureKind::ConnectionLost, "Timeout, server ", &["not responding"]),
    sign(FailureKind::ConnectionLost, "Connection reset by ", &[" port "]),
    sign(FailureKind::ConnectionLost, "Connection closed by ", &[" port "]),
    sign(FailureKind::ConnectionLost, "Received disconnect from ", &[]),
    sign(FailureKind::ConnectionLost, "Disconnected from ", &[" port "]),
    sign(FailureKind::ConnectionLost, "Disconnecting ", &[]),
    sign(FailureKind::ConnectionLost, "Corrupted MAC on input", &[]),
    sign(FailureKind::ConnectionLost, "Bad packet length ", &[]),
    sign(FailureKind::ConnectionLost, "mux_client_read_packet", &[]),
    sign(FailureKind::ConnectionLost, "Shared connection to ", &[" closed"]),
];

/// What stood above ssh's last words and says more than they do: the last words' kind, and what becomes of it.
const CAUSES: &[(FailureKind, Sign)] = &[
    (
        FailureKind::ClosedByServer,
        sign(FailureKind::NoCommonAlgorithm, "Protocol major versions differ", &[]),
    ),
    (FailureKind::NotSsh, sign(FailureKind::NotSsh, "Bad remote protocol version identification", &[])),
    (FailureKind::HostKeyUnknown, sign(FailureKind::HostKeyRevoked, "@", &["REVOKED HOST KEY DETECTED"])),
    (FailureKind::HostKeyUnknown, sign(FailureKind::HostKeyRevoked, "", &["is marked as revoked"])),
    (
        FailureKind::HostKeyUnknown,
        sign(FailureKind::HostKeyRevoked, "", &["was revoked and you have requested"]),
    ),
    (FailureKind::HostKeyUnknown, sign(FailureKind::HostKeyChanged, "Offending ", &[" key in "])),
    (FailureKind::HostKeyUnknown, sign(FailureKind::HostKeyChanged, "Add correct host key in ", &[])),
    (
        FailureKind::HostKeyUnknown,
        sign(FailureKind::HostKeyChanged, "@", &["HOST IDENTIFICATION HAS CHANGED"]),
    ),
    (
        FailureKind::HostKeyUnknown,
        sign(FailureKind::HostKeyChanged, "", &[" has changed and you have requested"]),
    ),
    (FailureKind::HostKeyUnknown, sign(FailureKind::HostKeyUnknown, "No ", &["host key is known for"])),
    (FailureKind::PermissionDenied, sign(FailureKind::KeyFileUnusable, "Permissions ", &["are too open"])),
    (FailureKind::PermissionDenied, sign(FailureKind::KeyFileUnusable, "Load key ", &[": "])),
    (
        FailureKind::PermissionDenied,
        sign(FailureKind::KeyFileUnusable, "", &["Identity file ", "not accessible"]),
    ),
    (FailureKind::PermissionDenied, sign(FailureKind::KeyFileUnusable, "no such identity: ", &[])),
    (FailureKind::PermissionDenied, sign(FailureKind::PermissionDenied, "sign_and_send_pubkey: ", &[])),
    (
        FailureKind::PermissionDenied,
        sign(FailureKind::PermissionDenied, "Received disconnect ", &["Too many"]),
    ),
    (FailureKind::TimedOut, sign(FailureKind::TimedOut, "Connection timed out during banner exchange", &[])),
    (FailureKind::LoginAborted, sign(FailureKind::NotSsh, "", &["_identification: ", "invalid characters"])),
    (FailureKind::LoginAborted, sign(FailureKind::ClosedByServer, "kex_exchange_identification: ", &[])),
    (FailureKind::LoginAborted, sign(FailureKind::ClosedByServer, "ssh_exchange_identification: ", &[])),
    (FailureKind::LoginAborted, sign(FailureKind::ClosedByServer, "banner exchange: ", &[])),
    (
        FailureKind::LoginAborted,
        sign(FailureKind::PermissionDenied, "", &["Too many authentication failures"]),
    ),
    (FailureKind::LoginAborted, sign(FailureKind::LoginAborted, "Received disconnect from ", &[])),
    (
        FailureKind::NotSsh,
        sign(FailureKind::NotSsh, "kex_exchange_identification: ", &["invalid characters"]),
    ),
    (FailureKind::SessionRefused, sign(FailureKind::ProxyFailed, "stdio forwarding failed", &[])),
    (FailureKind::SessionRefused, sign(FailureKind::SessionRefused, "channel ", &[": open failed: "])),
    (FailureKind::BadConfiguration, sign(FailureKind::BadConfiguration, "unknown option -- ", &[])),
    (FailureKind::BadConfiguration, sign(FailureKind::BadConfiguration, "", &[" line ", ": Bad "])),
];

/// Why ssh, or the login on the other side, failed; `None` if neither did, and what was said is the remote command's.
///
/// In this order of trust: the exit status (255 is ssh's own; see [`login_shell_ended`] for others), whether something of ours ran at
/// the other end (then only the loss of the connection is ssh's), and the last lines that ssh wrote before its end. `silenced` says
/// by what ssh was told not to speak, if it was: then its silence is no sign of anything else.
///
/// ```
/// use ncc_transport::{End, Exit, FailureKind};
///
/// let target = "alice@example.org".parse()?;
/// let stderr = "alice@example.org: Permission denied (publickey,password).\n";
/// let failure = ncc_transport_ssh::explain(&target, &End::new(&Exit::Code(255), false, stderr), None).unwrap();
/// assert_eq!(failure.kind, FailureKind::PermissionDenied);
/// # Ok::<(), ncc_transport::TargetError>(())
/// ```
pub fn explain(target: &Target, end: &End<'_>, silenced: Option<&str>) -> Option<Failure> {
    let words = without_notices(end.relevant());
    if *end.exit != SSH_FAILED {
        return login_shell_ended(target, end, &words, Client::OpenSsh);
    }
    let lines: Vec<&str> = end.relevant().lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if end.has_started() {
        let (_, line) = last_sign(&lines, LAST_WORDS_OF_A_SESSION, LOST_SESSION)?;
        return Some(failure(FailureKind::ConnectionLost, line, target));
    }
    let found = last_sign(&lines, LAST_WORDS, BEFORE_A_SESSION)
        .or_else(|| last_sign(&lines, LAST_WORDS_OF_A_SESSION, LOST_SESSION));
    match found {
        Some((kind, line)) => Some(with_cause(kind, line, &lines, target)),
        None if words.trim().is_empty() && !end.said_on_stdout => Some(unsaid(target, silenced)),
        None => None,
    }
}

fn failure(kind: FailureKind, evidence: &str, target: &Target) -> Failure {
    Failure::new(kind, evidence, kind.hint(target, Client::OpenSsh))
}

/// What ssh died of, by the last of its last words.
fn last_sign<'a>(lines: &[&'a str], reach: usize, signs: &[Sign]) -> Option<(FailureKind, &'a str)> {
    lines.iter().rev().take(reach).find_map(|line| {
        let sign = signs.iter().find(|sign| sign.is_in(line))?;
        (!is_by_chance(sign, line)).then_some((sign.kind, *line))
    })
}

/// Whether a line that looks like one about a configuration file is something else: the file comes first, and a number follows.
fn is_by_chance(sign: &Sign, line: &str) -> bool {
    if sign.parts != [" line ", ": "] {
        return false;
    }
    let (file, rest) = line.split_once(" line ").unwrap_or((line, ""));
    let file = file.strip_suffix(':').unwrap_or(file);
    let number = rest.split(':').next().unwrap_or_default();
    !(file.starts_with('/') || file == "command-line")
        || number.is_empty()
        || !number.bytes().all(|byte| byte.is_ascii_digit())
}

/// The failure that these last words tell, together with what stands above them.
fn with_cause(kind: FailureKind, last: &str, lines: &[&str], target: &Target) -> Failure {
    if kind == FailureKind::ProxyFailed {
        // The proxy is often an ssh, and says more than the one that lost it.
        return failure(kind, proxys_own_words(lines).unwrap_or(last), target);
    }
    let recent = lines.get(lines.len().saturating_sub(LAST_WORDS)..).unwrap_or_default();
    let cause = CAUSES.iter().filter(|(of, _)| *of == kind).find_map(|(_, sign)| {
        let line = recent.iter().find(|line| sign.is_in(line))?;
        Some((sign.kind, *line))
    });
    let (kind, evidence) = cause.unwrap_or((kind, last));
    if kind == FailureKind::ProxyFailed {
        return failure(kind, proxys_own_words(lines).unwrap_or(last), target);
    }
    let mut failure = failure(kind, evidence, target);
    // Some builds of ssh say exactly how: which file it is, and under which name.
    let exactly = lines.iter().find(|line| line.starts_with("ssh-keygen -f "));
    if let (FailureKind::HostKeyChanged, Some(exactly)) = (kind, exactly)
        && let Some((before, _)) = failure.hint.split_once("ssh-keygen -R ")
    {
        failure.hint = format!("{before}{exactly}");
    }
    failure
}

/// What the proxy said, before the ssh that lost it said the rest.
fn proxys_own_words<'a>(lines: &[&'a str]) -> Option<&'a str> {
    let is_the_rest =
        |line: &str| line.contains("UNKNOWN port 65535") || line.contains("_exchange_identification: ");
    let mut own = lines.iter().rev().filter(|line| !is_the_rest(line) && !without_notices(line).is_empty());
    let telling = lines.iter().find(|line| {
        !is_the_rest(line)
            && BEFORE_A_SESSION.iter().any(|sign| {
                !matches!(sign.kind, FailureKind::ProxyFailed | FailureKind::LoginAborted)
                    && sign.is_in(line)
                    && !is_by_chance(sign, line)
            })
    });
    telling.copied().or_else(|| own.next().copied())
}

/// ssh failed, and left no word on stderr.
fn unsaid(target: &Target, silenced: Option<&str>) -> Failure {
    let kind = FailureKind::Unsaid;
    match silenced {
        Some(by) => Failure::new(
            kind,
            format!("it was told to be quiet ({by})"),
            format!(
                "to see why, leave {by} out of NIX_SSHOPTS and ~/.ssh/config, or try: {} -o LogLevel=INFO true",
                target.by_hand()
            ),
        ),
        None => failure(kind, "it ended with exit status 255 without a word", target),
    }
}

#[cfg(test)]
mod tests;
