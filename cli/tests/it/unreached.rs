//! Hosts that are not reached (exit 3), or that refuse (exit 5): the host, the cause, and what can be done.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use ncc_transport_ssh::test_util::Sshd;

use crate::{
    support::{Ran, Running, World},
    transports::{Ssh, configuration, prefer, sshd, with_each_transport, with_key},
};

with_each_transport! {
    an_unknown_host_key_is_exit_5_with_a_hint,
    a_changed_host_key_is_exit_5_with_a_hint,
    a_revoked_host_key_is_exit_5_with_a_hint,
    permission_denied_is_exit_5_with_a_hint,
    an_agent_that_is_gone_is_done_without,
    nobody_listening_is_exit_3_with_a_hint,
    a_host_that_is_silent_is_exit_3_with_a_hint,
    a_name_that_does_not_resolve_is_exit_3,
    a_jump_host_that_does_not_exist_is_named,
    a_jump_host_that_is_silent_is_given_up,
    a_jump_host_that_forwards_nothing_is_exit_3_with_a_hint,
    a_jump_host_leads_to_the_host,
    a_host_that_opens_no_session_is_exit_5_with_a_hint,
}

/// Whatever is wrong, nobody waits longer for the message.
const BOUND: Duration = Duration::from_secs(20);

/// Copies with these options of ssh before those that lead to the host, which fails and copies nothing.
fn with_first(ssh: Ssh, world: &World, sshd: &Sshd, options: &str) -> Ran {
    let mut command = ssh.served(world, sshd);
    prefer(&mut command, options);
    let ran = to(world, &mut command, "127.0.0.1");
    assert_eq!(world.copied(&world.all()), [false; 4]);
    ran
}

/// Copies a path to this host; bounded.
fn to(world: &World, command: &mut Command, host: &str) -> Ran {
    Running::start(command.arg(host).arg(&world.other)).end(world, BOUND)
}

/// A file of known hosts.
fn known(world: &World, text: &str) -> PathBuf {
    let file = world.directory().join("known");
    fs::write(&file, text).unwrap();
    file
}

fn host_key(sshd: &Sshd) -> String {
    fs::read_to_string(sshd.directory().join("host_key.pub")).unwrap()
}

/// Takes connections and says nothing.
fn silent() -> (TcpListener, u16) {
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    (silent, port)
}

fn an_unknown_host_key_is_exit_5_with_a_hint(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let ran = with_first(ssh, &world, &sshd, "-o UserKnownHostsFile=/dev/null");
    let cause = ssh.words("Host key verification failed", "the host key is not known: ");
    ran.says(5, &["127.0.0.1", cause, "hint:"]);
}

fn a_changed_host_key_is_exit_5_with_a_hint(ssh: Ssh) {
    let (Some(sshd), Some(other)) = (sshd(&[]), sshd(&[])) else { return };
    let world = World::new();
    let known = known(&world, &format!("[127.0.0.1]:{} {}", sshd.port(), host_key(&other)));
    let ran = with_first(ssh, &world, &sshd, &format!("-o UserKnownHostsFile={}", known.display()));
    ran.says(5, &["127.0.0.1", "hint:", "the host key has changed", "$DIR/known:1", "ssh-keygen -", " -R "]);
}

fn a_revoked_host_key_is_exit_5_with_a_hint(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let text = format!("{}@revoked * {}", fs::read_to_string(sshd.known_hosts()).unwrap(), host_key(&sshd));
    let known = known(&world, &text);
    let ran = with_first(
        ssh,
        &world,
        &sshd,
        // Not even then.
        &format!("-o StrictHostKeyChecking=accept-new -o UserKnownHostsFile={}", known.display()),
    );
    ran.says(5, &["127.0.0.1", "the host key is revoked", "hint: somebody marked this key as revoked"]);
}

fn permission_denied_is_exit_5_with_a_hint(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let ran = with_first(ssh, &world, &sshd, "-o PubkeyAuthentication=no");
    ran.says(5, &["127.0.0.1", "permission denied", "(publickey)", "hint:"]);
}

/// What a forgotten SSH_AUTH_SOCK names.
fn an_agent_that_is_gone_is_done_without(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let without = |key: &Path| {
        let mut command = ssh.served(&world, &sshd);
        command.env("NIX_SSHOPTS", with_key(&sshd, key)).env("SSH_AUTH_SOCK", world.directory().join("gone"));
        prefer(&mut command, "-o IdentityAgent=SSH_AUTH_SOCK -o IdentitiesOnly=no");
        to(&world, &mut command, "127.0.0.1")
    };
    // A key that the server does not know.
    without(&sshd.directory().join("host_key"))
        .says(5, &["127.0.0.1", "permission denied", "hint:", "ssh-add -l"]);
    without(&sshd.key()).says(0, &[]);
}

fn nobody_listening_is_exit_3_with_a_hint(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let ran = with_first(ssh, &world, &sshd, "-p 1");
    ran.says(3, &["127.0.0.1", "Connection refused", "hint:"]);
}

fn a_host_that_is_silent_is_exit_3_with_a_hint(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let (_silent, port) = silent();
    let ran = with_first(ssh, &world, &sshd, &format!("-p {port} -o ConnectTimeout=1"));
    ran.says(3, &["127.0.0.1", "the host does not answer", "hint:", "ConnectTimeout"]);
}

fn a_name_that_does_not_resolve_is_exit_3(ssh: Ssh) {
    let world = World::new();
    let mut command = world.copy();
    ssh.choose(&mut command);
    command.env("NIX_SSHOPTS", "-F none");
    let ran = to(&world, &mut command, "nowhere.invalid");
    ran.says(3, &["nowhere.invalid", "hint:"]);
}

fn a_jump_host_that_does_not_exist_is_named(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let ran = with_first(ssh, &world, &sshd, "-J nowhere.invalid");
    ran.says(3, &["127.0.0.1", "jump host failed", "nowhere.invalid", "hint: the jump host"]);
}

fn a_jump_host_that_is_silent_is_given_up(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let (_silent, port) = silent();
    let ran = with_first(ssh, &world, &sshd, &format!("-J 127.0.0.1:{port} -o ConnectTimeout=2"));
    // OpenSSH does not know which of the two it was.
    let named = ssh.words("jump host", "jump host 127.0.0.1:");
    ran.says(3, &["127.0.0.1", named, "hint:"]);
}

fn a_jump_host_that_forwards_nothing_is_exit_3_with_a_hint(ssh: Ssh) {
    let (Some(jump), Some(sshd)) = (sshd(&["AllowTcpForwarding no"]), sshd(&[])) else { return };
    let world = World::new();
    let mut command = ssh.served(&world, &sshd);
    command.env(
        "NIX_SSHOPTS",
        configuration(&world, &[("between", &jump, ""), ("beyond", &sshd, "ProxyJump between")]),
    );
    let ran = to(&world, &mut command, "beyond");
    let cause = ssh.words("administratively prohibited", "jump host between cannot reach 127.0.0.1");
    ran.says(3, &["'beyond'", "jump host failed", cause, "hint: the jump host"]);
    assert_eq!(world.copied(&world.all()), [false; 4]);
}

fn a_jump_host_leads_to_the_host(ssh: Ssh) {
    let (Some(jump), Some(sshd)) = (sshd(&[]), sshd(&[])) else { return };
    let world = World::new();
    let mut command = ssh.served(&world, &sshd);
    command.env(
        "NIX_SSHOPTS",
        configuration(&world, &[("between", &jump, ""), ("beyond", &sshd, "ProxyJump between")]),
    );
    to(&world, &mut command, "beyond").says(0, &["copying 1 paths..."]);
    assert_eq!(world.copied(&world.all()), [false, false, false, true]);
    for sshd in [jump, sshd] {
        assert_eq!(sshd.log().matches("Accepted publickey").count(), 1, "{}", sshd.log());
    }
}

fn a_host_that_opens_no_session_is_exit_5_with_a_hint(ssh: Ssh) {
    let Some(sshd) = sshd(&["MaxSessions 0"]) else { return };
    let world = World::new();
    let ran = with_first(ssh, &world, &sshd, "");
    ran.says(5, &["127.0.0.1", "the server opens no further session", "hint:", "MaxSessions"]);
}

/// libssh2 alone: OpenSSH waits for such an agent until somebody ends it.
#[cfg(feature = "ssh2")]
#[test]
fn an_agent_that_is_silent_is_given_up_with_a_warning() {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let socket = world.directory().join("agent");
    // The system takes connections for it; it itself never does.
    let _agent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let mut command = Ssh::Libssh2.served(&world, &sshd);
    prefer(&mut command, "-o IdentityAgent=SSH_AUTH_SOCK");
    command.env("SSH_AUTH_SOCK", &socket);
    let ran = to(&world, &mut command, "127.0.0.1");
    ran.says(0, &["warning: the agent at $DIR/agent does not answer", "copying 1 paths..."]);
}

/// libssh2 alone: what it cannot decide or do it does not pass over, and names the transport that can. Before anybody is
/// connected to.
#[cfg(feature = "ssh2")]
#[test]
fn what_libssh2_cannot_do_is_refused_and_the_other_transport_named() {
    for (configuration, named) in [
        ("Host h\n CanonicalizeHostname yes\n", "'canonicalizehostname'"),
        ("Host h\n CanonicalizeHostname always\n", "'canonicalizehostname'"),
        ("Match host h localnetwork 10.0.0.0/8\n Port 1\n", "Match localnetwork"),
        ("Host h\n KnownHostsCommand /bin/true\n", "'knownhostscommand'"),
        ("Host h\n RevokedHostKeys /etc/ssh/revoked\n", "'revokedhostkeys'"),
        ("Host h\n BindAddress 127.0.0.1\n", "'bindaddress'"),
        ("Host h\n BindInterface lo\n", "'bindinterface'"),
        ("Host h\n PKCS11Provider /lib/p11.so\n", "'pkcs11provider'"),
    ] {
        let world = World::new();
        let file = world.directory().join("config");
        // Nobody listens at this port: whoever gets so far says so.
        fs::write(&file, format!("{configuration}Host h\n HostName 127.0.0.1\n Port 1\n")).unwrap();
        let mut command = world.copy();
        Ssh::Libssh2.choose(&mut command);
        command.env("NIX_SSHOPTS", format!("-F {}", file.display()));
        let ran = to(&world, &mut command, "h");
        ran.says(3, &["'h'", named, "not supported by the libssh2 transport", "hint: the other transport"]);
        ran.says(3, &["$DIR/config:", "'--transport openssh'"]);
        assert_eq!(ran.stderr.matches("hint:").count(), 1, "{}", ran.transcript());
    }
    // What makes no difference is passed over.
    let world = World::new();
    let file = world.directory().join("config");
    fs::write(&file, "Host h\n CanonicalizeHostname no\n HostName 127.0.0.1\n Port 1\n").unwrap();
    let mut command = world.copy();
    Ssh::Libssh2.choose(&mut command);
    command.env("NIX_SSHOPTS", format!("-F {}", file.display()));
    to(&world, &mut command, "h").says(3, &["connection refused"]);
}
