//! What the installed ssh says when it fails, and what is made of it.

use std::{fs, net::TcpListener, time::Duration};

use ncc_transport::{Channel, End, Exit, Failure, FailureKind, RemoteCommand, StderrTail, Transport};
use ncc_transport_ssh::{OpenSsh, OpenSshOptions, parse_ssh_options, test_util::Sshd};
use tokio::io::AsyncReadExt as _;

/// Runs `true`, which must fail because of ssh; the failure, and all that was on stderr.
async fn fails(transport: &OpenSsh) -> (Failure, String) {
    let Channel { stdin: _stdin, mut stdout, stderr, mut control } =
        transport.open(&RemoteCommand::new("true")).await.unwrap();
    let mut stderr = StderrTail::collect(stderr, None);
    let mut output = Vec::new();
    let exit = tokio::time::timeout(Duration::from_mins(1), async {
        stdout.read_to_end(&mut output).await.unwrap();
        control.wait().await.unwrap()
    })
    .await
    .expect("ssh gives up in time");
    assert!(output.is_empty());
    assert_eq!(exit, Exit::Code(255));
    let text = stderr.finish().await;
    let failure =
        transport.explain(&End::new(&exit, false, &text)).unwrap_or_else(|| panic!("not understood: {text}"));
    assert!(text.contains(&failure.evidence), "{failure:?} has words that ssh did not say: {text}");
    (failure, text)
}

/// The helper's options with others before them, which win.
fn with(sshd: &Sshd, words: &str) -> OpenSshOptions {
    let mut options = sshd.options();
    options.extra.splice(..0, parse_ssh_options(words).unwrap());
    options
}

async fn kind(sshd: &Sshd, words: &str) -> FailureKind {
    let (failure, text) = fails(&OpenSsh::new(sshd.target(), with(sshd, words))).await;
    assert!(!failure.hint.is_empty(), "{failure:?}: {text}");
    failure.kind
}

#[tokio::test]
async fn host_keys() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    assert_eq!(kind(&sshd, "-o UserKnownHostsFile=/dev/null").await, FailureKind::HostKeyUnknown);

    // Nobody is there to be asked.
    let ask = "-o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=ask";
    assert_eq!(kind(&sshd, ask).await, FailureKind::HostKeyUnknown);

    // The user's key in the place of the host's: another key than the server shows.
    let other = sshd.directory().join("other_hosts");
    let key = fs::read_to_string(sshd.directory().join("user_key.pub")).unwrap();
    fs::write(&other, format!("[127.0.0.1]:{} {key}", sshd.port())).unwrap();
    let options = with(&sshd, &format!("-o UserKnownHostsFile={}", other.display()));
    let (failure, _) = fails(&OpenSsh::new(sshd.target(), options)).await;
    assert_eq!(failure.kind, FailureKind::HostKeyChanged);
    assert!(failure.evidence.contains(&format!("{}:1", other.display())), "{}", failure.evidence);

    let revoked = sshd.directory().join("revoked_hosts");
    let key = fs::read_to_string(sshd.directory().join("host_key.pub")).unwrap();
    fs::write(&revoked, format!("@revoked * {key}")).unwrap();
    assert_eq!(
        kind(&sshd, &format!("-o UserKnownHostsFile={}", revoked.display())).await,
        FailureKind::HostKeyRevoked
    );
}

#[tokio::test]
async fn authentication() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    assert_eq!(kind(&sshd, "-o PubkeyAuthentication=no").await, FailureKind::PermissionDenied);

    // The server would accept it, but ssh does not sign with it.
    fs::set_permissions(sshd.key(), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let (failure, text) = fails(&sshd.transport()).await;
    assert_eq!(failure.kind, FailureKind::KeyFileUnusable, "{text}");
    assert!(failure.evidence.contains("user_key"), "{text}");

    fs::write(sshd.directory().join("authorized_keys"), "").unwrap();
    assert_eq!(kind(&sshd, "-i /nope").await, FailureKind::KeyFileUnusable);
}

#[tokio::test]
async fn ways_that_lead_nowhere() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let free = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = free.local_addr().unwrap().port();

    // Listens, and never says a word.
    let silent =
        OpenSsh::new(format!("127.0.0.1:{port}").parse().unwrap(), with(&sshd, "-o ConnectTimeout=1"));
    assert_eq!(fails(&silent).await.0.kind, FailureKind::TimedOut);
    drop(free);

    let closed = OpenSsh::new(format!("127.0.0.1:{port}").parse().unwrap(), sshd.options());
    let (failure, _) = fails(&closed).await;
    assert_eq!(failure.kind, FailureKind::ConnectionRefused);
    assert_eq!(failure.to_string(), "connection refused");

    // RFC 6761: no name below "invalid" ever exists.
    let nowhere = OpenSsh::new("ncc.invalid".parse().unwrap(), sshd.options());
    assert_eq!(fails(&nowhere).await.0.kind, FailureKind::UnknownHost);

    let hangs_up = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = hangs_up.local_addr().unwrap().port();
    let server = std::thread::spawn(move || drop(hangs_up.accept()));
    let transport = OpenSsh::new(format!("127.0.0.1:{port}").parse().unwrap(), sshd.options());
    assert_eq!(fails(&transport).await.0.kind, FailureKind::ClosedByServer);
    server.join().unwrap();
}

#[tokio::test]
async fn proxies() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let (failure, _) =
        fails(&OpenSsh::new(sshd.target(), with(&sshd, "-o ProxyCommand=ncc-no-such-proxy"))).await;
    assert_eq!(failure.kind, FailureKind::ProxyFailed);
    assert!(failure.evidence.contains("ncc-no-such-proxy"), "{}", failure.evidence);

    let jump = sshd.ssh_words().join(" ");
    let (failure, _) = fails(&OpenSsh::new(
        sshd.target(),
        with(&sshd, &format!("-o 'ProxyCommand=ssh {jump} -o PubkeyAuthentication=no -W %h:%p 127.0.0.1'")),
    ))
    .await;
    assert_eq!(failure.kind, FailureKind::ProxyFailed);
    assert!(failure.evidence.contains("Permission denied"), "{}", failure.evidence);
}

#[tokio::test]
async fn agreements_that_fail() {
    let Some(sshd) = Sshd::start(&["Ciphers aes256-ctr", "MaxSessions 0"]) else { return };
    assert_eq!(kind(&sshd, "-o Ciphers=aes128-ctr").await, FailureKind::NoCommonAlgorithm);
    assert_eq!(kind(&sshd, "-o NoSuchOption=1").await, FailureKind::BadConfiguration);
    assert_eq!(kind(&sshd, "-Z").await, FailureKind::BadConfiguration);
    assert_eq!(kind(&sshd, "-4").await, FailureKind::SessionRefused);
}

#[tokio::test]
async fn a_connection_that_ends() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let transport = sshd.transport();
    // The parent of the command's parent at the least is an sshd; the session ends with it.
    let script = "echo up; p=$$; while [ \"$(cat /proc/$p/comm)\" != sshd ]; do \
                  p=$(sed 's/.*) . //; s/ .*//' /proc/$p/stat); done; kill -KILL $p; exec cat";
    let Channel { stdin: _stdin, mut stdout, stderr, mut control } =
        transport.open(&RemoteCommand::new("sh").args(["-c", script])).await.unwrap();
    let mut stderr = StderrTail::collect(stderr, None);
    let mut output = String::new();
    stdout.read_to_string(&mut output).await.unwrap();
    let exit = control.wait().await.unwrap();
    let text = stderr.finish().await;
    assert_eq!(output, "up\n");
    let end = End::new(&exit, true, &text);
    let failure = transport.explain(&end).unwrap_or_else(|| panic!("{exit}: {text}"));
    assert_eq!(failure.kind, FailureKind::ConnectionLost, "{text}");
}
