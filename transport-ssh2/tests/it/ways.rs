//! Ways to a host, and configurations.

use std::{
    fs,
    net::TcpListener,
    time::{Duration, Instant},
};

use ncc_transport::FailureKind;
use ncc_transport_ssh::test_util::{Sshd, install_stock_ssh_configs};
use ncc_transport_ssh2::{ConfigurationFiles, Ssh2, Ssh2Options};

use crate::{Script, fails, reaches, refused, run, sh, start, with, works};

#[tokio::test]
async fn ways_that_lead_nowhere() {
    let Some(sshd) = start(&[]) else { return };
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    let to =
        |port: u16, words: &str| Ssh2::new(format!("127.0.0.1:{port}").parse().unwrap(), with(&sshd, words));

    let start = Instant::now();
    assert_eq!(fails(&to(port, "-o ConnectTimeout=1")).await.kind, FailureKind::TimedOut);
    assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
    drop(silent);
    assert_eq!(fails(&to(port, "")).await.kind, FailureKind::ConnectionRefused);

    // RFC 6761: no name below "invalid" ever exists.
    let nowhere = Ssh2::new("ncc.invalid".parse().unwrap(), with(&sshd, "-p 22"));
    assert_eq!(fails(&nowhere).await.kind, FailureKind::UnknownHost);

    let hangs_up = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = hangs_up.local_addr().unwrap().port();
    let server = std::thread::spawn(move || drop(hangs_up.accept()));
    assert_eq!(fails(&to(port, "")).await.kind, FailureKind::ClosedByServer);
    server.join().unwrap();

    // What is no SSH server, and one that says why it hangs up.
    for (words, kind) in [
        ("HTTP/1.1 400 Bad Request\r\n\r\n", FailureKind::NotSsh),
        ("\x15\x03\x01 what a TLS server says\n", FailureKind::NotSsh),
        ("Exceeded MaxStartups\r\n", FailureKind::ClosedByServer),
    ] {
        use std::io::Write as _;
        let says = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = says.local_addr().unwrap().port();
        let server =
            std::thread::spawn(move || says.accept().unwrap().0.write_all(words.as_bytes()).unwrap());
        let failure = fails(&to(port, "")).await;
        assert_eq!(failure.kind, kind, "{failure:?}");
        let shown = words.trim().trim_start_matches(char::is_control);
        assert!(failure.evidence.contains(shown), "{failure:?}");
        server.join().unwrap();
    }

    refused(
        &sshd,
        with(&sshd, "-c 3des-cbc"),
        FailureKind::BadConfiguration,
        "libssh2 has none of '3des-cbc'",
    )
    .await;
}

#[tokio::test]
async fn a_server_without_a_common_algorithm() {
    let Some(sshd) = start(&["Ciphers aes256-ctr", "MACs hmac-sha2-256"]) else { return };
    let evidence = "Ciphers: the server has aes256-ctr; libssh2 offers aes128-ctr";
    refused(&sshd, with(&sshd, "-c aes128-ctr"), FailureKind::NoCommonAlgorithm, evidence).await;
    let evidence = "MACs: the server has hmac-sha2-256; libssh2 offers hmac-sha2-512";
    let words = "-c aes256-ctr -m hmac-sha2-512";
    refused(&sshd, with(&sshd, words), FailureKind::NoCommonAlgorithm, evidence).await;
    works(&sshd, with(&sshd, "-c aes128-ctr,aes256-ctr")).await;
}

/// Eugeny/russh#778 <https://github.com/Eugeny/russh/issues/778>: post-quantum key exchange only.
#[tokio::test]
async fn a_server_that_is_too_new_for_libssh2() {
    let Some(sshd) = start(&["KexAlgorithms sntrup761x25519-sha512@openssh.com"]) else { return };
    let failure = fails(&Ssh2::new(sshd.target(), with(&sshd, ""))).await;
    assert_eq!(failure.kind, FailureKind::NoCommonAlgorithm, "{failure:?}");
    let beginning = "KexAlgorithms: the server has sntrup761x25519-sha512@openssh.com; libssh2 offers ";
    assert!(failure.evidence.starts_with(beginning), "{failure:?}");
    assert!(failure.hint.contains("--transport openssh"), "{failure:?}");
}

#[tokio::test]
async fn a_server_that_falls_silent_after_the_greeting() {
    use std::io::Write as _;
    let Some(sshd) = start(&[]) else { return };
    let server = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = server.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").unwrap();
        std::io::copy(&mut stream, &mut std::io::sink())
    });
    let transport =
        Ssh2::new(format!("127.0.0.1:{port}").parse().unwrap(), with(&sshd, "-o ConnectTimeout=1"));
    assert_eq!(fails(&transport).await.kind, FailureKind::TimedOut);
    drop(transport);
    let _ = server.join().unwrap();
}

/// A configuration file of ours alone, without any of the helper's words.
fn configured(sshd: &Sshd, text: &str) -> Ssh2Options {
    let path = sshd.directory().join("ssh_config");
    fs::write(&path, text).unwrap();
    let mut options = Ssh2Options::default();
    options.configuration = ConfigurationFiles::File(path);
    options.prompter = Script::new(&[]);
    options
}

/// What reaches a server by the name of `alias`.
fn host(sshd: &Sshd, alias: &str) -> String {
    format!(
        "Host {alias}\n HostName 127.0.0.1\n Port {}\n IdentityFile {}\n UserKnownHostsFile {}\n IdentityAgent none\n \
         StrictHostKeyChecking yes\n",
        sshd.port(),
        sshd.key().display(),
        sshd.known_hosts().display()
    )
}

#[tokio::test]
async fn jump_hosts_are_gone_through() {
    let (Some(jump), Some(second), Some(target)) = (start(&[]), start(&[]), start(&[])) else {
        return;
    };
    let hosts = format!("{}{}{}", host(&jump, "jump"), host(&second, "second"), host(&target, "target"));
    for through in ["jump", "jump,second"] {
        let options = configured(&target, &format!("{hosts}Host target\n ProxyJump {through}\n"));
        let transport = Ssh2::new("target".parse().unwrap(), options);
        let (stdout, stderr, exit) = run(&transport, &sh("head -c 10000000 /dev/zero | tr '\\0' x")).await;
        assert!(stdout.len() == 10_000_000 && exit.is_success(), "{stderr}");
    }
    assert_eq!(jump.log().matches("Accepted publickey").count(), 2);
    assert_eq!(second.log().matches("Accepted publickey").count(), 1);

    // -J, and a jump host that is configured to be reached through another one.
    let mut options = configured(&target, &format!("{hosts}Host second\n ProxyJump jump\n"));
    options.extra = ncc_transport_ssh2::parse_ssh_options("-J second").unwrap();
    let transport = Ssh2::new("target".parse().unwrap(), options);
    assert!(run(&transport, &sh("true")).await.2.is_success());
    assert_eq!(jump.log().matches("Accepted publickey").count(), 3);

    let dead = configured(
        &target,
        &format!("{hosts}Host target\n ProxyJump dead\nHost dead\n HostName ncc.invalid\n"),
    );
    let failure = fails(&Ssh2::new("target".parse().unwrap(), dead)).await;
    assert_eq!(failure.kind, FailureKind::ProxyFailed, "{failure:?}");
    assert!(failure.evidence.contains("jump host dead"), "{failure:?}");

    // Something is there and says nothing.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    let dead = configured(
        &target,
        &format!(
            "{hosts}Host target\n ProxyJump dead\nHost dead\n HostName 127.0.0.1\n Port {port}\n ConnectTimeout 1\n"
        ),
    );
    let start = Instant::now();
    let failure = fails(&Ssh2::new("target".parse().unwrap(), dead)).await;
    assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
    assert_eq!(failure.kind, FailureKind::ProxyFailed, "{failure:?}");
    assert!(failure.evidence.contains("jump host dead: the host does not answer"), "{failure:?}");

    // The jump host cannot reach it.
    let closed = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let refusing = configured(
        &target,
        &format!(
            "{}Host closed\n HostName 127.0.0.1\n Port {closed}\n ProxyJump jump\n",
            host(&jump, "jump")
        ),
    );
    let failure = fails(&Ssh2::new("closed".parse().unwrap(), refusing)).await;
    assert_eq!(failure.kind, FailureKind::ProxyFailed, "{failure:?}");

    // A jump host whose key is not known is not gone through.
    let unknown = hosts.replace(&jump.known_hosts().display().to_string(), "/dev/null");
    let failure = fails(&Ssh2::new(
        "target".parse().unwrap(),
        configured(&target, &format!("{unknown}Host target\n ProxyJump jump\n")),
    ))
    .await;
    assert_eq!(failure.kind, FailureKind::HostKeyUnknown, "{failure:?}");

    let circle =
        configured(&target, &format!("{hosts}Host target\n ProxyJump jump\nHost jump\n ProxyJump target\n"));
    let failure = fails(&Ssh2::new("target".parse().unwrap(), circle)).await;
    let evidence = "the jump hosts lead in a circle: target, jump, target";
    assert_eq!((failure.kind, failure.evidence.as_str()), (FailureKind::BadConfiguration, evidence));
}

/// The usual words for a machine that was just installed, with an unknown bastion on the way to it.
#[tokio::test]
async fn what_is_switched_off_for_the_target_is_not_for_its_jump_host() {
    let (Some(jump), Some(target)) = (start(&[]), start(&[])) else { return };
    let text = format!("{}{} ProxyJump jump\n", host(&jump, "jump"), host(&target, "target"));
    let lax = |text: &str, more: &str| {
        let mut options = configured(&target, text);
        let words = format!("-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null {more}");
        options.extra = ncc_transport_ssh2::parse_ssh_options(&words).unwrap();
        Ssh2::new("target".parse().unwrap(), options)
    };
    assert!(reaches(&lax(&text, "")).await.contains("anybody may pretend to be"));

    let known = jump.known_hosts();
    let key = fs::read_to_string(&known).unwrap();
    fs::write(&known, "").unwrap();
    let unknown = async |text: &str| {
        let failure = fails(&lax(text, "")).await;
        assert_eq!(failure.kind, FailureKind::HostKeyUnknown, "{failure:?}");
        assert!(failure.evidence.contains("jump host jump"), "{failure:?}");
    };
    unknown(&text).await;
    // accept-new in the file is the user's word; the key lands where the file says, not where the words say.
    reaches(&lax(&text.replace("StrictHostKeyChecking yes", "StrictHostKeyChecking accept-new"), "")).await;
    let accepted = fs::read_to_string(&known).unwrap();
    let ssh_key = |text: &str| text.split_whitespace().nth(2).map(str::to_owned);
    assert_eq!(ssh_key(&accepted), ssh_key(&key));

    // What is stricter counts: nobody is asked.
    fs::write(&known, "").unwrap();
    let asking = text.replace("StrictHostKeyChecking yes", "StrictHostKeyChecking ask");
    let failure = fails(&lax(&asking, "-o BatchMode=yes")).await;
    assert!(failure.evidence.contains("BatchMode"), "{failure:?}");
    let accepting = text.replace("StrictHostKeyChecking yes", "StrictHostKeyChecking accept-new");
    let mut options = configured(&target, &accepting);
    options.extra = ncc_transport_ssh2::parse_ssh_options("-o StrictHostKeyChecking=yes").unwrap();
    let failure = fails(&Ssh2::new("target".parse().unwrap(), options)).await;
    assert_eq!(failure.kind, FailureKind::HostKeyUnknown, "{failure:?}");
}

#[tokio::test]
async fn every_stock_configuration_reaches_a_host() {
    let Some(sshd) = start(&[]) else { return };
    let systems = sshd.directory().join("systems");
    for (system, path) in install_stock_ssh_configs(&systems) {
        let mut options = with(&sshd, "");
        let at = options.extra.iter().position(|word| word == "none").unwrap();
        options.extra[at] = path.into();
        reaches(&Ssh2::new(sshd.target(), options)).await;
        assert!(!system.is_empty());
    }
}

#[tokio::test]
async fn a_jump_host_that_forwards_nothing_is_named() {
    let (Some(jump), Some(target)) = (start(&["PermitOpen none"]), start(&[])) else { return };
    let hosts = format!("{}{} ProxyJump jump\n", host(&jump, "jump"), host(&target, "target"));
    let transport = Ssh2::new("target".parse().unwrap(), configured(&target, &hosts));
    let failure = fails(&transport).await;
    assert_eq!(failure.kind, FailureKind::ProxyFailed, "{failure:?}");
    let evidence = format!("jump host jump cannot reach 127.0.0.1 port {}", target.port());
    assert!(failure.evidence.contains(&evidence), "{failure:?}");
}

#[tokio::test]
async fn proxy_commands_are_spoken_through() {
    let Some(sshd) = start(&[]) else { return };
    // sshd itself, on a pipe, without any network.
    let inetd = "/usr/sbin/sshd -i -f";
    let config = sshd.directory().join("sshd_config");
    let text = format!("{} ProxyCommand {inetd} {}\n", host(&sshd, "piped"), config.display());
    let transport = Ssh2::new("piped".parse().unwrap(), configured(&sshd, &text));
    let (stdout, stderr, exit) = run(&transport, &sh("head -c 3000000 /dev/zero | tr '\\0' x")).await;
    assert!(stdout.len() == 3_000_000 && exit.is_success(), "{stderr}");

    let text = format!("{} ProxyCommand echo no way to %h:%p >&2; exit 1\n", host(&sshd, "piped"));
    let failure = fails(&Ssh2::new("piped".parse().unwrap(), configured(&sshd, &text))).await;
    assert_eq!(
        (failure.kind, failure.evidence),
        (FailureKind::ProxyFailed, format!("no way to 127.0.0.1:{}", sshd.port()))
    );
}

#[tokio::test]
async fn what_is_not_supported_is_named() {
    let Some(sshd) = start(&[]) else { return };
    for (words, evidence) in [
        ("-v", "'-v'"),
        ("-A", "'-A'"),
        ("-o NoSuchOption=1", "'nosuchoption' is not a known option"),
        ("-o KnownHostsCommand=/bin/x", "'knownhostscommand' is not supported"),
        ("-o RevokedHostKeys=/etc/x", "'revokedhostkeys' is not supported"),
        ("-o StrictHostKeyChecking=maybe", "'maybe' is no value"),
        ("-o UserKnownHostsFile", "'userknownhostsfile' lacks its value"),
    ] {
        refused(&sshd, with(&sshd, words), FailureKind::BadConfiguration, evidence).await;
    }
    works(&sshd, with(&sshd, "-4 -T -x -o ServerAliveInterval=5 -o LogLevel=QUIET -o ControlMaster=auto"))
        .await;
    let text = format!("{}Match localnetwork 10.0.0.0/8\n StrictHostKeyChecking no\n", host(&sshd, "h"));
    let failure = fails(&Ssh2::new("h".parse().unwrap(), configured(&sshd, &text))).await;
    assert!(
        failure.kind == FailureKind::BadConfiguration && failure.evidence.contains("ssh_config:8"),
        "{failure:?}"
    );
}

#[tokio::test]
async fn a_banner_is_a_message() {
    let Some(sshd) = start(&["Banner /etc/passwd"]) else { return };
    let told = works(&sshd, with(&sshd, "")).await;
    assert!(told.contains("root:"), "{told}");
}
