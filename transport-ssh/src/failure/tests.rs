//! OpenSSH's texts, shortened and with other names. `tests/it/failures.rs` has ssh itself say what it can be made to say.

use ncc_transport::FailureClass::{self, Lost, NotReached, Refused};
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
#[case::silent_jump_host(
    "Connection timed out during banner exchange\nConnection to UNKNOWN port 65535 timed out\n",
    FailureKind::ProxyFailed,
    "Connection timed out during banner exchange"
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
#[case::no_more_sessions(
    "channel 1: open failed: connect failed: open failed\nmux_client_request_session: session request failed: Session open refused by peer\n",
    FailureKind::SessionRefused,
    "channel 1: open failed: connect failed: open failed"
)]
#[case::first_connection_is_dropped(
    "kex_exchange_identification: Connection closed by remote host\r\nConnection closed by 127.0.0.1 port 22\r\n",
    FailureKind::ClosedByServer,
    "kex_exchange_identification: Connection closed by remote host"
)]
#[case::old_client_is_dropped(
    "ssh_exchange_identification: read: Connection reset by peer\r\n",
    FailureKind::ClosedByServer,
    "ssh_exchange_identification: read: Connection reset by peer"
)]
#[case::web_server(
    "kex_exchange_identification: banner line contains invalid characters\nbanner exchange: Connection to 127.0.0.1 port 80: invalid format\n",
    FailureKind::NotSsh,
    "kex_exchange_identification: banner line contains invalid characters"
)]
#[case::protocol_1(
    "Protocol major versions differ: 2 vs. 1\r\nbanner exchange: Connection to 127.0.0.1 port 22: could not read protocol version\r\n",
    FailureKind::NoCommonAlgorithm,
    "Protocol major versions differ: 2 vs. 1"
)]
#[case::not_quite_ssh(
    "Bad remote protocol version identification: 'SSH-2.0'\r\nbanner exchange: Connection to 127.0.0.1 port 22: invalid format\r\n",
    FailureKind::NotSsh,
    "Bad remote protocol version identification: 'SSH-2.0'"
)]
#[case::account_has_expired(
    "Your account has expired; please contact your system administrator.\nConnection closed by 127.0.0.1 port 22\n",
    FailureKind::LoginAborted,
    "Connection closed by 127.0.0.1 port 22"
)]
#[case::reset_in_the_login(
    "Connection reset by 127.0.0.1 port 22\n",
    FailureKind::LoginAborted,
    "Connection reset by 127.0.0.1 port 22"
)]
#[case::told_to_go(
    "Received disconnect from 127.0.0.1 port 22:11: no logins today\nDisconnected from 127.0.0.1 port 22\n",
    FailureKind::LoginAborted,
    "Received disconnect from 127.0.0.1 port 22:11: no logins today"
)]
// https://github.com/DavHau/nix-portable/issues/134
#[case::nix_portable_134_uid_without_a_name(
    "No user exists for uid 54321\r\n",
    FailureKind::NoLocalUser,
    "No user exists for uid 54321"
)]
#[case::name_server_is_down(
    "ssh: Could not resolve hostname h: Temporary failure in name resolution\n",
    FailureKind::UnknownHost,
    "ssh: Could not resolve hostname h: Temporary failure in name resolution"
)]
#[case::forbidden_by_a_firewall_here(
    "ssh: connect to host h port 22: Operation not permitted\n",
    FailureKind::Unreachable,
    "ssh: connect to host h port 22: Operation not permitted"
)]
#[case::socket_path(
    "ControlPath too long ('/home/a/xxx' >= 108 bytes)\n",
    FailureKind::BadConfiguration,
    "ControlPath too long ('/home/a/xxx' >= 108 bytes)"
)]
#[case::socket_path_of_newer_ones(
    "unix_listener: path \"/home/a/xxx\" too long for Unix domain socket\n",
    FailureKind::BadConfiguration,
    "unix_listener: path \"/home/a/xxx\" too long for Unix domain socket"
)]
#[case::value_on_the_command_line(
    "command-line line 0: Bad SSH2 cipher spec 'nonsense'.\n",
    FailureKind::BadConfiguration,
    "command-line line 0: Bad SSH2 cipher spec 'nonsense'."
)]
#[case::value_in_a_file(
    "/etc/ssh/ssh_config.d/50-redhat.conf line 7: Bad key types 'ssh-dss'.\n",
    FailureKind::BadConfiguration,
    "/etc/ssh/ssh_config.d/50-redhat.conf line 7: Bad key types 'ssh-dss'."
)]
#[case::cipher_type(
    "Unknown cipher type 'nonsense'\n",
    FailureKind::BadConfiguration,
    "Unknown cipher type 'nonsense'"
)]
#[case::strange_name(
    "hostname contains invalid characters\r\n",
    FailureKind::BadConfiguration,
    "hostname contains invalid characters"
)]
#[case::old_host_key_type(
    "Unable to negotiate with 127.0.0.1 port 22: no matching host key type found. Their offer: ssh-rsa,ssh-dss\n",
    FailureKind::NoCommonAlgorithm,
    "Unable to negotiate with 127.0.0.1 port 22: no matching host key type found. Their offer: ssh-rsa,ssh-dss"
)]
#[case::short_key(
    "Bad server host key: Invalid key length\n",
    FailureKind::NoCommonAlgorithm,
    "Bad server host key: Invalid key length"
)]
#[case::agent_refuses(
    "sign_and_send_pubkey: signing failed for ED25519 \"key\" from agent: agent refused operation\nalice@h: Permission denied (publickey).\n",
    FailureKind::PermissionDenied,
    "sign_and_send_pubkey: signing failed for ED25519 \"key\" from agent: agent refused operation"
)]
#[case::no_command_allowed(
    "exec request failed on channel 0\n",
    FailureKind::SessionRefused,
    "exec request failed on channel 0"
)]
#[case::after_the_login_and_before_the_program(
    "Connection to h closed by remote host.\n",
    FailureKind::ConnectionLost,
    "Connection to h closed by remote host."
)]
fn signs(#[case] stderr: &str, #[case] kind: FailureKind, #[case] evidence: &str) {
    // What stands around it every day changes nothing.
    for stderr in [stderr.to_owned(), format!("{EVERY_DAY}{stderr}")] {
        let failure = explain(&target("alice@h:2200"), &End::new(&SSH_FAILED, false, &stderr), None)
            .expect("a failure");
        assert_eq!((failure.kind, failure.evidence.as_str()), (kind, evidence));
        assert!(!failure.hint.is_empty() && !failure.hint.contains("  "), "{}", failure.hint);
    }
}

/// A banner of the server, and what ssh says of itself. OpenSSH 10.1 has the lines about quanta.
const EVERY_DAY: &str = "\
** WARNING: connection is not using a post-quantum key exchange algorithm.
** This session may be vulnerable to \"store now, decrypt later\" attacks.
** The server may need to be upgraded. See https://openssh.com/pq.html
Warning: Permanently added '[127.0.0.1]:2200' (ED25519) to the list of known hosts.
***********************
Authorised use only.
";

#[rstest]
#[case(FailureKind::UnknownHost, NotReached, false)]
#[case(FailureKind::ConnectionRefused, NotReached, true)]
#[case(FailureKind::Unreachable, NotReached, true)]
#[case(FailureKind::TimedOut, NotReached, true)]
#[case(FailureKind::ClosedByServer, NotReached, true)]
#[case(FailureKind::NotSsh, NotReached, false)]
#[case(FailureKind::ProxyFailed, NotReached, false)]
#[case(FailureKind::NoCommonAlgorithm, NotReached, false)]
#[case(FailureKind::BadConfiguration, NotReached, false)]
#[case(FailureKind::NoLocalUser, NotReached, false)]
#[case(FailureKind::Unsaid, NotReached, false)]
#[case(FailureKind::LoginAborted, Refused, false)]
#[case(FailureKind::HostKeyChanged, Refused, false)]
#[case(FailureKind::HostKeyRevoked, Refused, false)]
#[case(FailureKind::HostKeyUnknown, Refused, false)]
#[case(FailureKind::PermissionDenied, Refused, false)]
#[case(FailureKind::KeyFileUnusable, Refused, false)]
#[case(FailureKind::SessionRefused, Refused, false)]
#[case(FailureKind::LoginShellEnded, Refused, false)]
#[case(FailureKind::ConnectionLost, Lost, true)]
fn classes(#[case] kind: FailureKind, #[case] class: FailureClass, #[case] is_temporary: bool) {
    let failure = failure(kind, "", &target("h"));
    assert_eq!((failure.class(), failure.is_temporary()), (class, is_temporary));
    assert_eq!(failure.happened_before_login(), kind == FailureKind::ClosedByServer);
    assert!(!failure.hint.is_empty());
}

#[rstest]
#[case::killed_server(
    "copying path\nConnection to h closed by remote host.\n",
    "Connection to h closed by remote host."
)]
#[case::broken_pipe(
    "client_loop: send disconnect: Broken pipe\r\n",
    "client_loop: send disconnect: Broken pipe"
)]
#[case::older_broken_pipe(
    "packet_write_wait: Connection to 127.0.0.1 port 22: Broken pipe\n",
    "packet_write_wait: Connection to 127.0.0.1 port 22: Broken pipe"
)]
#[case::keep_alive("Timeout, server h not responding.\r\n", "Timeout, server h not responding.")]
#[case::reset(
    "Read from remote host h: Connection reset by peer\nclient_loop: send disconnect: Broken pipe\n",
    "client_loop: send disconnect: Broken pipe"
)]
#[case::garbled(
    "Bad packet length 4265271532.\nssh_dispatch_run_fatal: Connection to 127.0.0.1 port 22: Connection corrupted\n",
    "ssh_dispatch_run_fatal: Connection to 127.0.0.1 port 22: Connection corrupted"
)]
#[case::master(
    "mux_client_read_packet: read header failed: Broken pipe\n",
    "mux_client_read_packet: read header failed: Broken pipe"
)]
#[case::server_goes_down(
    "Received disconnect from 127.0.0.1 port 22:11: shutting down\nDisconnected from 127.0.0.1 port 22\n",
    "Disconnected from 127.0.0.1 port 22"
)]
// A key file was passed over an hour ago; it is not why the line dropped.
#[case::an_old_sign(
    "Load key \"/home/alice/.ssh/id\": Permission denied\ncopying path 'a'\nConnection to h closed by remote host.\n",
    "Connection to h closed by remote host."
)]
fn lost_sessions(#[case] stderr: &str, #[case] evidence: &str) {
    let failure = explain(&target("h"), &End::new(&SSH_FAILED, true, stderr), None).expect("a failure");
    assert_eq!((failure.kind, failure.evidence.as_str()), (FailureKind::ConnectionLost, evidence));
    assert_eq!(failure.class(), Lost);
    // The same where the script has started, and the program has not greeted yet.
    let end = End::new(
        &SSH_FAILED,
        false,
        "Load key \"x\": Permission denied\nalice@h: Permission denied (publickey).\n",
    );
    let failure = explain(&target("h"), &end.since_start(Some(stderr)), None).expect("a failure");
    assert_eq!(failure.evidence, evidence);
}

#[rstest]
#[case::killed_by_us(Exit::Signal("TERM".to_owned()), "Host key verification failed.\n")]
#[case::the_commands_own_status(Exit::Code(1), "alice@h: Permission denied (publickey).\n")]
#[case::success(Exit::Code(0), "Timeout, server h not responding.\n")]
#[case::the_commands_own_255(Exit::Code(255), "error: cannot open /nix/store/x: Permission denied\n")]
#[case::a_download_on_the_other_side(
    Exit::Code(255),
    "error: unable to download 'http://c/': Connection refused\n"
)]
#[case::a_forced_command(Exit::Code(255), "only nix-store --serve is allowed\n")]
fn not_of_ssh(#[case] exit: Exit, #[case] stderr: &str) {
    assert_eq!(explain(&target("h"), &End::new(&exit, false, stderr), None), None);
}

#[rstest]
#[case::out_of_memory(SSH_FAILED, "")]
#[case::its_substituter_lost_its_line(
    SSH_FAILED,
    "error: unable to download 'http://c/': Connection reset by peer\n"
)]
#[case::its_own_ssh_was_refused(SSH_FAILED, "ssh: connect to host builder port 22: Connection refused\n")]
#[case::an_old_line(SSH_FAILED, "Connection to h closed by remote host.\n1\n2\n3\n4\n5\nKilled\n")]
#[case::no_word(Exit::Code(1), "")]
fn not_of_ssh_once_something_runs(#[case] exit: Exit, #[case] stderr: &str) {
    assert_eq!(explain(&target("h"), &End::new(&exit, true, stderr), None), None);
    assert_eq!(
        explain(&target("h"), &End::new(&exit, false, "banner").since_start(Some(stderr)), None),
        None
    );
}

/// <https://github.com/engineyard/engineyard/issues/97>, <https://github.com/deployphp/deployer/issues/1051>
#[test]
fn engineyard_97_an_ssh_that_was_told_to_be_quiet_is_still_what_failed() {
    let quiet = explain(&target("h"), &End::new(&SSH_FAILED, false, ""), Some("'-q'")).unwrap();
    assert_eq!((quiet.kind, quiet.class()), (FailureKind::Unsaid, NotReached));
    assert_eq!(quiet.evidence, "it was told to be quiet ('-q')");
    assert!(quiet.hint.contains("'-q'"), "{}", quiet.hint);
    let silent = explain(&target("h"), &End::new(&SSH_FAILED, false, EVERY_DAY_OF_SSH), None).unwrap();
    assert_eq!(
        (silent.kind, silent.evidence.as_str()),
        (FailureKind::Unsaid, "it ended with exit status 255 without a word")
    );
    // A forced command may speak on stdout.
    assert_eq!(explain(&target("h"), &End::new(&SSH_FAILED, false, "").said_on_stdout(true), None), None);
}

const EVERY_DAY_OF_SSH: &str = "Warning: Permanently added 'h' (ED25519) to the list of known hosts.\n";

#[rstest]
#[case::bashrc_exits(Exit::Code(1), "", true)]
#[case::false_as_shell(Exit::Code(1), EVERY_DAY_OF_SSH, true)]
#[case::exits_with_success(Exit::Code(0), "", true)]
#[case::speaks(Exit::Code(1), "error: cannot connect to daemon\n", false)]
#[case::no_such_program(Exit::Code(127), "", false)]
#[case::killed_here(Exit::Signal("TERM".to_owned()), "", false)]
fn login_shells_that_end(#[case] exit: Exit, #[case] stderr: &str, #[case] is_the_login_shells: bool) {
    let failure = explain(&target("h"), &End::new(&exit, false, stderr), None);
    assert_eq!(failure.is_some(), is_the_login_shells);
    if let Some(failure) = failure {
        assert_eq!((failure.kind, failure.class()), (FailureKind::LoginShellEnded, Refused));
        assert_eq!(failure.evidence, format!("{exit} without a word"));
        assert!(failure.hint.contains("start-up files"), "{}", failure.hint);
    }
}

#[test]
fn where_ssh_says_how_to_forget_the_key_the_hint_says_the_same() {
    let exactly = "ssh-keygen -f \"/home/a/known\" -R \"[127.0.0.1]:42217\"";
    let stderr = CHANGED.replace("Host key for", &format!("  remove with:\n  {exactly}\nHost key for"));
    let failure = explain(&target("h"), &End::new(&SSH_FAILED, false, &stderr), None).unwrap();
    assert!(failure.hint.ends_with(exactly), "{}", failure.hint);
}
