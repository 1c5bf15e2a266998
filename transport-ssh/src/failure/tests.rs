//! OpenSSH's texts, shortened and with other names. `tests/it/failures.rs` has ssh itself say what it can be made to say.

use rstest::rstest;

use super::*;

fn target(text: &str) -> Target {
    text.parse().unwrap()
}

const CHANGED: &str = "\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
Someone could be eavesdropping on you right now (man-in-the-middle attack)!
It is also possible that a host key has just been changed.
The fingerprint for the ED25519 key sent by the remote host is
SHA256:K5dMrVAE5ldOa0KlT6hYAkjUbhDOT6FqzDfeYf2CNOs.
Please contact your system administrator.
Add correct host key in /home/alice/.ssh/known_hosts to get rid of this message.
Offending ED25519 key in /home/alice/.ssh/known_hosts:3
Host key for h has changed and you have requested strict checking.
Host key verification failed.
";

const REVOKED: &str = "\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@       WARNING: REVOKED HOST KEY DETECTED!               @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
The ED25519 host key for h is marked as revoked.
This could mean that a stolen key is being used to impersonate this host.
ED25519 host key for h was revoked and you have requested strict checking.
Host key verification failed.
";

const TOO_OPEN: &str = "\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@         WARNING: UNPROTECTED PRIVATE KEY FILE!          @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
Permissions 0644 for '/home/alice/.ssh/id' are too open.
It is required that your private key files are NOT accessible by others.
This private key will be ignored.
Load key \"/home/alice/.ssh/id\": bad permissions
alice@h: Permission denied (publickey).
";

#[rstest]
#[case::changed(
    CHANGED,
    FailureKind::HostKeyChanged,
    "Offending ED25519 key in /home/alice/.ssh/known_hosts:3"
)]
#[case::revoked(
    REVOKED,
    FailureKind::HostKeyRevoked,
    "@       WARNING: REVOKED HOST KEY DETECTED!               @"
)]
#[case::unknown_key(
    "No ED25519 host key is known for h and you have requested strict checking.\nHost key verification failed.\n",
    FailureKind::HostKeyUnknown,
    "No ED25519 host key is known for h and you have requested strict checking."
)]
#[case::nobody_to_ask(
    "Host key verification failed.\n",
    FailureKind::HostKeyUnknown,
    "Host key verification failed."
)]
#[case::name(
    "ssh: Could not resolve hostname h: Name or service not known\n",
    FailureKind::UnknownHost,
    "ssh: Could not resolve hostname h: Name or service not known"
)]
#[case::refused(
    "ssh: connect to host h port 22: Connection refused\n",
    FailureKind::ConnectionRefused,
    "ssh: connect to host h port 22: Connection refused"
)]
#[case::no_route(
    "ssh: connect to host h port 22: No route to host\n",
    FailureKind::Unreachable,
    "ssh: connect to host h port 22: No route to host"
)]
#[case::network(
    "ssh: connect to host h port 22: Network is unreachable\n",
    FailureKind::Unreachable,
    "ssh: connect to host h port 22: Network is unreachable"
)]
#[case::timeout(
    "ssh: connect to host h port 22: Connection timed out\n",
    FailureKind::TimedOut,
    "ssh: connect to host h port 22: Connection timed out"
)]
// macOS
#[case::timeout_bsd(
    "ssh: connect to host h port 22: Operation timed out\n",
    FailureKind::TimedOut,
    "ssh: connect to host h port 22: Operation timed out"
)]
#[case::silent_server(
    "Connection timed out during banner exchange\nConnection to 127.0.0.1 port 22 timed out\n",
    FailureKind::TimedOut,
    "Connection timed out during banner exchange"
)]
#[case::keep_alive(
    "Timeout, server h not responding.\n",
    FailureKind::TimedOut,
    "Timeout, server h not responding."
)]
#[case::denied(
    "Warning: Permanently added 'h' (ED25519) to the list of known hosts.\nalice@h: Permission denied (publickey).\n",
    FailureKind::PermissionDenied,
    "alice@h: Permission denied (publickey)."
)]
#[case::too_many(
    "Received disconnect from 127.0.0.1 port 22:2: Too many authentication failures\nDisconnected from 127.0.0.1 port 22\n",
    FailureKind::PermissionDenied,
    "Received disconnect from 127.0.0.1 port 22:2: Too many authentication failures"
)]
#[case::key_readable_by_all(
    TOO_OPEN,
    FailureKind::KeyFileUnusable,
    "Permissions 0644 for '/home/alice/.ssh/id' are too open."
)]
#[case::no_key_file(
    "Warning: Identity file /nope not accessible: No such file or directory.\nalice@h: Permission denied (publickey).\n",
    FailureKind::KeyFileUnusable,
    "Warning: Identity file /nope not accessible: No such file or directory."
)]
#[case::jump_host(
    "ssh: Could not resolve hostname jump: Name or service not known\nConnection closed by UNKNOWN port 65535\n",
    FailureKind::ProxyFailed,
    "ssh: Could not resolve hostname jump: Name or service not known"
)]
#[case::jump_host_denies(
    "alice@jump: Permission denied (publickey).\nConnection closed by UNKNOWN port 65535\n",
    FailureKind::ProxyFailed,
    "alice@jump: Permission denied (publickey)."
)]
#[case::behind_the_jump_host(
    "channel 0: open failed: connect failed: Connection refused\nstdio forwarding failed\nConnection closed by UNKNOWN port 65535\n",
    FailureKind::ProxyFailed,
    "channel 0: open failed: connect failed: Connection refused"
)]
#[case::proxy_command(
    "/bin/sh: 1: exec: nope: not found\nkex_exchange_identification: Connection closed by remote host\nConnection closed by UNKNOWN port 65535\n",
    FailureKind::ProxyFailed,
    "/bin/sh: 1: exec: nope: not found"
)]
#[case::algorithms(
    "Unable to negotiate with 127.0.0.1 port 22: no matching cipher found. Their offer: aes256-ctr\n",
    FailureKind::NoCommonAlgorithm,
    "Unable to negotiate with 127.0.0.1 port 22: no matching cipher found. Their offer: aes256-ctr"
)]
#[case::option(
    "command-line: line 0: Bad configuration option: foo\n",
    FailureKind::BadConfiguration,
    "command-line: line 0: Bad configuration option: foo"
)]
#[case::config_file(
    "/home/alice/.ssh/config: line 1: Bad configuration option: foo\n/home/alice/.ssh/config: terminating, 1 bad configuration options\n",
    FailureKind::BadConfiguration,
    "/home/alice/.ssh/config: line 1: Bad configuration option: foo"
)]
#[case::config_file_of_others(
    "Bad owner or permissions on /home/alice/.ssh/config\n",
    FailureKind::BadConfiguration,
    "Bad owner or permissions on /home/alice/.ssh/config"
)]
#[case::letter(
    "unknown option -- Z\nusage: ssh [-46AaCfGgKkMNnqsTtVvXxYy]\n",
    FailureKind::BadConfiguration,
    "unknown option -- Z"
)]
#[case::hung_up(
    "kex_exchange_identification: read: Connection reset by peer\nConnection reset by 127.0.0.1 port 22\n",
    FailureKind::ClosedByServer,
    "kex_exchange_identification: read: Connection reset by peer"
)]
#[case::killed_server(
    "copying path\nConnection to h closed by remote host.\n",
    FailureKind::ConnectionLost,
    "Connection to h closed by remote host."
)]
#[case::broken_pipe(
    "client_loop: send disconnect: Broken pipe\r\n",
    FailureKind::ConnectionLost,
    "client_loop: send disconnect: Broken pipe"
)]
#[case::no_more_sessions(
    "channel 1: open failed: connect failed: open failed\nmux_client_request_session: session request failed: Session open refused by peer\n",
    FailureKind::SessionRefused,
    "channel 1: open failed: connect failed: open failed"
)]
fn signs(#[case] stderr: &str, #[case] kind: FailureKind, #[case] evidence: &str) {
    let failure = explain(&target("alice@h:2200"), &SSH_FAILED, stderr).expect("a failure");
    assert_eq!((failure.kind, failure.evidence.as_str()), (kind, evidence));
    assert!(!failure.hint.is_empty() && !failure.hint.contains("  "), "{}", failure.hint);
}

#[rstest]
#[case::the_commands_own_status(Exit::Code(1), "alice@h: Permission denied (publickey).\n")]
#[case::killed_by_us(Exit::Signal("TERM".to_owned()), "Host key verification failed.\n")]
#[case::success(Exit::Code(0), "Timeout, server h not responding.\n")]
#[case::the_commands_own_255(Exit::Code(255), "error: cannot open /nix/store/x: Permission denied\n")]
#[case::a_download_on_the_other_side(
    Exit::Code(255),
    "error: unable to download 'http://c/': Connection refused\n"
)]
#[case::nothing_said(Exit::Code(255), "")]
fn not_of_ssh(#[case] exit: Exit, #[case] stderr: &str) {
    assert_eq!(explain(&target("h"), &exit, stderr), None);
}

#[rstest]
#[case("h", "ssh-keygen -R h")]
#[case("alice@h:22", "ssh-keygen -R h")]
#[case("alice@h:2200", "ssh-keygen -R '[h]:2200'")]
#[case("[::1]:2200", "ssh-keygen -R '[::1]:2200'")]
fn the_hint_forgets_the_right_key(#[case] host: &str, #[case] command: &str) {
    assert!(explain(&target(host), &SSH_FAILED, CHANGED).unwrap().hint.ends_with(command));
}

#[test]
fn the_hint_can_be_typed() {
    let failure =
        explain(&target(r"DOM\alice@h:2200"), &SSH_FAILED, "Host key verification failed.").unwrap();
    assert!(failure.hint.ends_with(r"ssh -p 2200 -l 'DOM\alice' h"), "{}", failure.hint);
}

#[test]
fn where_ssh_says_how_to_forget_the_key_the_hint_says_the_same() {
    let exactly = "ssh-keygen -f \"/home/a/known\" -R \"[127.0.0.1]:42217\"";
    let stderr = format!("{CHANGED}\n  remove with:\n  {exactly}\n");
    assert!(explain(&target("h"), &SSH_FAILED, &stderr).unwrap().hint.ends_with(exactly));
}
