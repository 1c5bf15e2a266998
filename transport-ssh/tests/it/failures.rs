//! What the installed ssh says when it fails, and what is made of it.

use std::{fs, net::TcpListener, time::Duration};

use ncc_transport::{
    Channel, End, Ending, Exit, Failure, FailureClass, FailureKind, RemoteCommand, RemoteScript, StderrTail,
    Transport,
};
use ncc_transport_ssh::{OpenSsh, OpenSshOptions, parse_ssh_options, test_util::Sshd};
use tokio::io::AsyncReadExt as _;

/// Runs `true`, which must fail because of ssh; the failure, and all that was on stderr.
async fn fails(transport: &OpenSsh) -> (Failure, String) {
    let Channel { stdin: _stdin, mut stdout, stderr, mut control } =
        transport.open(&RemoteCommand::new("true")).await.unwrap();
    let mut stderr = StderrTail::collect(stderr, None);
    let mut output = Vec::new();
    let exit = tokio::time::timeout(Duration::from_secs(60), async {
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
    let is_quoted = text.contains(&failure.evidence) || failure.kind == FailureKind::Unsaid;
    assert!(is_quoted, "{failure:?} has words that ssh did not say: {text}");
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
#[cfg(target_os = "linux")] // the script looks at processes in /proc
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

/// <https://github.com/engineyard/engineyard/issues/97>, <https://github.com/deployphp/deployer/issues/1051>
#[tokio::test]
async fn engineyard_97_a_quiet_ssh_says_that_it_was_told_to_be_quiet() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    for (words, by) in [
        ("-q -o PubkeyAuthentication=no", "'-q'"),
        ("-o LogLevel=QUIET -o PubkeyAuthentication=no", "LogLevel QUIET"),
        ("-E /dev/null -o PubkeyAuthentication=no", "'-E'"),
    ] {
        let (failure, text) = fails(&OpenSsh::new(sshd.target(), with(&sshd, words))).await;
        assert_eq!((failure.kind, text.as_str()), (FailureKind::Unsaid, ""), "{words}");
        assert_eq!(failure.class(), FailureClass::NotReached);
        assert!(failure.evidence.contains(by) && failure.hint.contains(by), "{failure:?}");
    }
    // Nothing listens there.
    let closed = OpenSsh::new("127.0.0.1:1".parse().unwrap(), with(&sshd, "-q"));
    assert_eq!(fails(&closed).await.0.kind, FailureKind::Unsaid);
}

#[tokio::test]
async fn a_control_path_that_is_too_long_is_the_configurations_fault() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let words =
        format!("-o ControlMaster=auto -o ControlPersist=yes -o ControlPath=/tmp/{}", "x".repeat(150));
    assert_eq!(kind(&sshd, &words).await, FailureKind::BadConfiguration);
    assert_eq!(kind(&sshd, "-o Ciphers=nonsense").await, FailureKind::BadConfiguration);
}

/// <https://github.com/nix-community/srvos/issues/490>
#[tokio::test]
async fn srvos_490_a_server_that_drops_connections_at_random_is_worth_a_second_try() {
    let Some(sshd) = Sshd::start(&["MaxStartups 1:100:1"]) else { return };
    let half_open = std::net::TcpStream::connect(("127.0.0.1", sshd.port())).unwrap();
    // Its banner says that the connection counts.
    let mut banner = [0; 4];
    std::io::Read::read_exact(&mut &half_open, &mut banner).unwrap();
    assert_eq!(&banner, b"SSH-");
    let (failure, _) = fails(&sshd.transport()).await;
    assert_eq!(failure.kind, FailureKind::ClosedByServer, "{failure:?}");
    assert!(failure.happened_before_login() && failure.is_temporary());
    drop(half_open);
}

#[tokio::test]
async fn what_answers_may_be_no_ssh_server() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let web = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = web.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut client, _) = web.accept().unwrap();
        std::io::Write::write_all(&mut client, b"HTTP/1.1 400 \0\r\n").unwrap();
        // Until ssh has hung up.
        let _ = std::io::Read::read_to_end(&mut client, &mut Vec::new());
    });
    let transport = OpenSsh::new(format!("127.0.0.1:{port}").parse().unwrap(), sshd.options());
    assert_eq!(fails(&transport).await.0.kind, FailureKind::NotSsh);
    server.join().unwrap();
}

/// A login that works, and a shell that ends before it runs anything; and one that says so.
#[tokio::test]
async fn login_shells_that_end() {
    for (shell, kind) in [("exit 1", Some(FailureKind::LoginShellEnded)), ("echo closed >&2; exit 1", None)] {
        let Some(sshd) = Sshd::start(&[&format!("ForceCommand {shell}")]) else { return };
        let transport = sshd.transport();
        let Channel { stdin, mut stdout, stderr, mut control } =
            transport.open(&RemoteCommand::new("true")).await.unwrap();
        drop(stdin);
        let mut stderr = StderrTail::collect(stderr, None);
        stdout.read_to_end(&mut Vec::new()).await.unwrap();
        let exit = control.wait().await.unwrap();
        let text = stderr.finish().await;
        let failure = transport.explain(&End::new(&exit, false, &text));
        assert_eq!(failure.map(|failure| failure.kind), kind, "{text}");
    }
}

/// <https://github.com/monitoring-plugins/monitoring-plugins/issues/2147>, <https://github.com/NixOS/nix/issues/2254>
#[tokio::test]
async fn monitoring_plugins_2147_what_ssh_says_of_itself_is_no_reason() {
    let banner = tempfile::NamedTempFile::new().unwrap();
    fs::write(banner.path(), "*** authorised use only\nline two\n").unwrap();
    let Some(sshd) = Sshd::start(&[&format!("Banner {}", banner.path().display())]) else { return };
    let words = "-o VisualHostKey=yes";
    let mut options = with(&sshd, words);
    options.verbosity = 1;
    let transport = OpenSsh::new(sshd.target(), options);
    let script = RemoteScript::new().run("sh", ["-c", "kill -KILL $$"]).command();
    let Channel { stdin, mut stdout, stderr, mut control } = transport.open(&script).await.unwrap();
    drop(stdin);
    let mut stderr = StderrTail::collect(stderr, None);
    stdout.read_to_end(&mut Vec::new()).await.unwrap();
    let exit = control.wait().await.unwrap();
    let text = stderr.finish().await;
    assert!(text.contains("authorised use only") && text.contains("+----[SHA256]-----+"), "{text}");
    let since_start = stderr.since_start();
    let end = End::new(&exit, true, &text).since_start(since_start.as_deref());
    assert_eq!(Ending::of(&transport, &end, "sh"), Ending::Unexplained, "{text}");
    // Without knowing where the banner ends, all but the banner.
    let ending = Ending::of(&transport, &End::new(&exit, true, &text), "sh");
    assert_eq!(ending, Ending::Said("*** authorised use only\nline two".to_owned()));
}
