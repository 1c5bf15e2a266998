//! Every way in which the other end can end: exit code, words, and one hint.
//!
//! The ssh of these tests prints what real ones print (OpenSSH 8.4 to 10.x) and ends as they do. What a real one can be made to
//! say on this machine is in `unreached` and `ssh`.

use std::{fmt::Write as _, time::Duration};

use crate::support::{Ran, Running, World};

/// How far it came before it ended.
#[derive(Clone, Copy, PartialEq)]
enum Until {
    /// ssh had not logged in, or the account ran nothing of ours.
    Login,
    /// The script that finds the server ran.
    Started,
    /// The server had greeted.
    Greeted,
}
use Until::{Greeted, Login, Started};

/// How it ended, and what is to be made of it.
struct End {
    until: Until,
    status: i32,
    said: &'static str,
    code: i32,
    /// What the one message has, and the one hint; none where nobody knows what to do.
    words: &'static str,
    hint: &'static str,
}

const fn end(
    until: Until,
    status: i32,
    said: &'static str,
    code: i32,
    words: &'static str,
    hint: &'static str,
) -> End {
    End { until, status, said, code, words, hint }
}

const CHANGED: &str = "\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
Add correct host key in /home/alice/.ssh/known_hosts to get rid of this message.
Offending ED25519 key in /home/alice/.ssh/known_hosts:3
Host key for h has changed and you have requested strict checking.
Host key verification failed.";

const REVOKED: &str = "\
@       WARNING: REVOKED HOST KEY DETECTED!               @
The ED25519 host key for h is marked as revoked.
ED25519 host key for h was revoked and you have requested strict checking.
Host key verification failed.";

const TOO_OPEN: &str = "\
@         WARNING: UNPROTECTED PRIVATE KEY FILE!          @
Permissions 0644 for '/home/alice/.ssh/id' are too open.
This private key will be ignored.
Load key \"/home/alice/.ssh/id\": bad permissions
alice@h: Permission denied (publickey).";

const BAD_LINE: &str = "\
/home/alice/.ssh/config: line 3: Bad configuration option: foo
/home/alice/.ssh/config: terminating, 1 bad configuration options";

const NOT_SSH: &str = "\
kex_exchange_identification: banner line contains invalid characters
banner exchange: Connection to 192.0.2.1 port 22: invalid format";

const NO_MASTER: &str = "mux_client_request_session: session request failed: Session open refused by peer";

const BEYOND: &str = "\
channel 0: open failed: connect failed: Connection refused
stdio forwarding failed
Connection closed by UNKNOWN port 65535";

/// Of these nobody but the host, or the network in between, is to blame.
#[rustfmt::skip]
const NOT_REACHED: &[End] = &[
    end(Login, 255, "ssh: Could not resolve hostname h: Name or service not known", 3, "cannot be resolved", "check the spelling"),
    end(Login, 255, "ssh: Could not resolve hostname h: Temporary failure in name resolution", 3, "cannot be resolved", "check the spelling"),
    // macOS.
    end(Login, 255, "ssh: Could not resolve hostname h: nodename nor servname provided, or not known", 3, "cannot be resolved", "check the spelling"),
    end(Login, 255, "ssh: connect to host h port 22: Connection refused", 3, "connection refused", "is sshd running"),
    end(Login, 255, "ssh: connect to host h port 22: No route to host", 3, "unreachable", "VPN"),
    end(Login, 255, "ssh: connect to host h port 22: Network is unreachable", 3, "unreachable", "VPN"),
    // A firewall on this machine.
    end(Login, 255, "ssh: connect to host h port 22: Permission denied", 3, "unreachable", "VPN"),
    end(Login, 255, "ssh: connect to host h port 22: Connection timed out", 3, "does not answer", "firewall"),
    end(Login, 255, "ssh: connect to host h port 22: Operation timed out", 3, "does not answer", "firewall"),
    end(Login, 255, "Connection timed out during banner exchange\nConnection to 192.0.2.1 port 22 timed out", 3, "does not answer", "firewall"),
    end(Login, 255, "kex_exchange_identification: Connection closed by remote host\nConnection closed by 192.0.2.1 port 22", 3, "closed the connection", "MaxStartups"),
    end(Login, 255, "kex_exchange_identification: read: Connection reset by peer\nConnection reset by 192.0.2.1 port 22", 3, "closed the connection", "MaxStartups"),
    end(Login, 255, "banner exchange: Connection to 192.0.2.1 port 22: invalid format", 3, "no SSH server", "host:port"),
    end(Login, 255, NOT_SSH, 3, "no SSH server", "host:port"),
    end(Login, 255, "Unable to negotiate with 192.0.2.1 port 22: no matching host key type found. Their offer: ssh-rsa,ssh-dss", 3, "no algorithm in common", "much older"),
    end(Login, 255, "Unable to negotiate with 192.0.2.1 port 22: no matching key exchange method found. Their offer: diffie-hellman-group1-sha1", 3, "no algorithm in common", "much older"),
    end(Login, 255, "Unable to negotiate with 192.0.2.1 port 22: no matching cipher found. Their offer: aes128-cbc", 3, "no algorithm in common", "much older"),
    end(Login, 255, "Bad server host key: Invalid key length", 3, "no algorithm in common", "much older"),
    end(Login, 255, "ssh: Could not resolve hostname jump: Name or service not known\nConnection closed by UNKNOWN port 65535", 3, "hostname jump", "the jump host or ProxyCommand"),
    end(Login, 255, "alice@jump: Permission denied (publickey).\nConnection closed by UNKNOWN port 65535", 3, "alice@jump", "the jump host or ProxyCommand"),
    end(Login, 255, "Connection timed out during banner exchange\nConnection to UNKNOWN port 65535 timed out", 3, "jump host failed", "the jump host or ProxyCommand"),
    end(Login, 255, BEYOND, 3, "jump host failed", "the jump host or ProxyCommand"),
    end(Login, 255, BAD_LINE, 3, "configuration is not accepted", "~/.ssh/config"),
    end(Login, 255, "Bad owner or permissions on /home/alice/.ssh/config", 3, "configuration is not accepted", "~/.ssh/config"),
    end(Login, 255, "command-line: line 0: Bad configuration option: nope", 3, "configuration is not accepted", "~/.ssh/config"),
    end(Login, 255, "unix_listener: path \"/home/alice/.ssh/a-long-name\" too long for Unix domain socket", 3, "configuration is not accepted", "~/.ssh/config"),
    end(Login, 255, "No user exists for uid 1000730000", 3, "does not run for this user", "/etc/passwd"),
    end(Login, 255, "", 3, "without saying why", "-v true"),
];

#[rustfmt::skip]
const REFUSED: &[End] = &[
    end(Login, 255, "No ED25519 host key is known for h and you have requested strict checking.\nHost key verification failed.", 5, "host key is not known", "fingerprint"),
    end(Login, 255, "Host key verification failed.", 5, "host key is not known", "fingerprint"),
    end(Login, 255, CHANGED, 5, "host key has changed", "ssh-keygen -R h"),
    end(Login, 255, REVOKED, 5, "host key is revoked", "revoked"),
    end(Login, 255, "alice@h: Permission denied (publickey).", 5, "permission denied", "ssh-add -l"),
    end(Login, 255, "alice@h: Permission denied (publickey,gssapi-keyex,gssapi-with-mic,password).", 5, "permission denied", "ssh-add -l"),
    end(Login, 255, "sign_and_send_pubkey: signing failed for ED25519 \"/home/alice/.ssh/id\" from agent: agent refused operation\nalice@h: Permission denied (publickey).", 5, "agent refused operation", "ssh-add -l"),
    end(Login, 255, "Received disconnect from 192.0.2.1 port 22:2: Too many authentication failures\nDisconnected from 192.0.2.1 port 22", 5, "Too many authentication failures", "ssh-add -l"),
    end(Login, 255, TOO_OPEN, 5, "private key cannot be used", "chmod 600"),
    end(Login, 255, "Load key \"/home/alice/.ssh/id\": error in libcrypto\nalice@h: Permission denied (publickey).", 5, "error in libcrypto", "chmod 600"),
    end(Login, 255, "Connection closed by 192.0.2.1 port 22", 5, "ended the login", "banned"),
    end(Login, 255, "Connection reset by 192.0.2.1 port 22", 5, "ended the login", "banned"),
    end(Login, 255, "Received disconnect from 192.0.2.1 port 22:11: Your account has expired", 5, "account has expired", "banned"),
    end(Login, 255, "exec request failed on channel 0", 5, "no further session", "MaxSessions"),
    end(Login, 255, NO_MASTER, 5, "no further session", "MaxSessions"),
    end(Login, 1, "", 5, "login shell ended", "the login worked"),
    end(Login, 1, "This account is currently not available.", 5, "currently not available", "the login worked"),
    end(Login, 126, "rrsync: command not allowed", 5, "command not allowed", "the login worked"),
];

#[rustfmt::skip]
const LOST: &[End] = &[
    end(Greeted, 255, "client_loop: send disconnect: Broken pipe", 6, "connection was lost", "not sent twice"),
    end(Greeted, 255, "Connection to h closed by remote host.", 6, "connection was lost", "not sent twice"),
    end(Greeted, 255, "Timeout, server h not responding.", 6, "connection was lost", "not sent twice"),
    end(Greeted, 255, "Read from remote host h: Connection reset by peer\nclient_loop: send disconnect: Broken pipe", 6, "connection was lost", "not sent twice"),
    // Until 8.x.
    end(Greeted, 255, "packet_write_wait: Connection to 192.0.2.1 port 22: Broken pipe", 6, "connection was lost", "not sent twice"),
    end(Greeted, 255, "ssh_dispatch_run_fatal: Connection to 192.0.2.1 port 22: message authentication code incorrect", 6, "connection was lost", "not sent twice"),
    end(Greeted, 255, "Connection reset by 192.0.2.1 port 22", 6, "connection was lost", "not sent twice"),
    end(Greeted, 255, "Received disconnect from 192.0.2.1 port 22:2: Packet corrupt\nDisconnected from 192.0.2.1 port 22", 6, "connection was lost", "not sent twice"),
    end(Started, 255, "Connection to h closed by remote host.", 6, "connection was lost", "not sent twice"),
    // The server was killed there, of which ssh says nothing.
    end(Greeted, 255, "", 6, "without a reason", "the same command continues"),
    end(Started, 255, "", 6, "without a reason", "the same command continues"),
];

/// It ran, and what it says is its own; whatever else ssh has said.
#[rustfmt::skip]
const ITS_OWN: &[End] = &[
    end(Started, 127, "nix-store: command not found; looked for: nix-store", 1, "was not found there", "--remote-program"),
    end(Started, 1, "error: opening lock file '/nix/var/nix/db/big-lock': Permission denied", 1, "big-lock", ""),
    end(Started, 1, "error: cannot connect to socket at '/nix/var/nix/daemon-socket/socket': Connection refused", 1, "daemon-socket", ""),
    end(Greeted, 1, "error: writing to file: No space left on device", 1, "No space left", "nix-collect-garbage"),
    end(Greeted, 1, "ssh: connect to host cache port 22: Connection refused\nerror: cannot substitute", 1, "cannot substitute", ""),
    end(Greeted, 1, "** WARNING: connection is not using a post-quantum key exchange algorithm.\nerror: no such thing", 1, "no such thing", ""),
];

impl End {
    /// Copies over an ssh that ends so.
    fn run(&self) -> Ran {
        let world = World::new();
        let mut body = "#!/bin/sh\nfor word; do [ \"$word\" = -G ] && exit; done\n".to_owned();
        if self.until != Login {
            body.push_str("echo ncc-started >&2\n");
        }
        if self.until == Greeted {
            body.push_str("printf '\\313\\356RT\\0\\0\\0\\0\\7\\2\\0\\0\\0\\0\\0\\0'\n");
        }
        for line in self.said.lines() {
            let _ = writeln!(body, "echo '{}' >&2", line.replace('\'', r"'\''"));
        }
        let _ = writeln!(body, "exit {}", self.status);
        world.script("ssh", &body);
        let mut command = world.copy();
        command.args(["--retries", "0", "--transport", "openssh"]).env("PATH", world.directory());
        Running::start(command.arg("h").arg(&world.other)).end(&world, Duration::from_secs(60))
    }

    /// What is wrong with what was made of it.
    fn fault(&self) -> Option<String> {
        let ran = self.run();
        let one = |what: &str, text: &str| {
            let lines: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with(what)).collect();
            match lines[..] {
                [] => text.is_empty(),
                [line] => !text.is_empty() && line.contains(text),
                _ => false,
            }
        };
        let is_right = ran.code == self.code && one("error: ", self.words) && one("hint: ", self.hint);
        (!is_right).then(|| {
            format!(
                "of status {} and {:?} is not made exit {}, {:?}, {:?}, but\n{}\n",
                self.status,
                self.said,
                self.code,
                self.words,
                self.hint,
                ran.transcript()
            )
        })
    }
}

/// All at once, in a few threads: those where a busy host is tried again take a second or two.
#[track_caller]
fn all(ends: &[End], at_least: usize) {
    assert!(ends.len() >= at_least);
    let faults: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|first| {
                scope.spawn(move || {
                    ends.iter().skip(first).step_by(4).filter_map(End::fault).collect::<Vec<_>>()
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_host_that_is_not_reached_is_exit_3_with_its_cause_and_one_hint() {
    all(NOT_REACHED, 25);
}

#[test]
fn a_refusal_is_exit_5_with_its_cause_and_one_hint() {
    all(REFUSED, 15);
}

#[test]
fn a_line_that_is_lost_is_exit_6_with_its_cause_and_one_hint() {
    all(LOST, 10);
}

#[test]
fn what_a_server_says_of_itself_is_exit_1_and_no_fault_of_ssh() {
    all(ITS_OWN, 6);
}
