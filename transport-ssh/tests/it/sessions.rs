//! Sessions that work, whatever the user's configuration and the server's shell are like.

use std::{
    ffi::OsString,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use ncc_transport::{Channel, Exit, RemoteCommand, StderrTail, Transport, TransportError};
use ncc_transport_ssh::{Compression, ConfigurationUse, OpenSsh, OpenSshOptions, Sharing, test_util::Sshd};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn sh(script: &str) -> RemoteCommand {
    RemoteCommand::new("sh").args(["-c", script])
}

/// Runs a command that needs no input: stdout, stderr, exit.
async fn run(transport: &OpenSsh, command: &RemoteCommand) -> (String, String, Exit) {
    let Channel { stdin, mut stdout, stderr, mut control } = transport.open(command).await.unwrap();
    drop(stdin);
    let mut stderr = StderrTail::collect(stderr, None);
    let mut output = String::new();
    stdout.read_to_string(&mut output).await.unwrap();
    let exit = control.wait().await.unwrap();
    (output, stderr.finish().await, exit)
}

/// The helper's options with this ssh_config in the place of none, and without whatever the lines decide.
fn with_config(sshd: &Sshd, lines: &str) -> OpenSshOptions {
    let file = sshd.directory().join("ssh_config");
    fs::write(&file, lines).unwrap();
    let mut options = sshd.options();
    for word in &mut options.extra {
        if word == "none" {
            *word = file.clone().into();
        }
    }
    options
}

#[tokio::test]
async fn what_a_login_shell_prints_comes_before_the_commands_own_output() {
    let Some(sshd) =
        Sshd::start(&["ForceCommand echo Welcome to h; echo warned >&2; eval \"$SSH_ORIGINAL_COMMAND\""])
    else {
        return;
    };
    let (stdout, stderr, exit) = run(&sshd.transport(), &RemoteCommand::new("printf").arg("a b\\n")).await;
    assert_eq!((stdout.as_str(), stderr.as_str(), exit), ("Welcome to h\na b\n", "warned\n", Exit::Code(0)));
}

#[tokio::test]
async fn a_banner_of_the_server_is_a_message() {
    let Some(sshd) = Sshd::start(&["Banner /etc/passwd"]) else { return };
    let (stdout, stderr, exit) = run(&sshd.transport(), &RemoteCommand::new("echo").arg("x")).await;
    assert_eq!((stdout.as_str(), exit), ("x\n", Exit::Code(0)));
    assert!(stderr.contains("root:"), "{stderr}");
}

#[tokio::test]
async fn settings_that_would_spoil_the_stream_do_not() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let other = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let taken = other.local_addr().unwrap().port();
    let options = with_config(
        &sshd,
        &format!(
            "Host *\n RequestTTY force\n RemoteCommand echo spoilt\n PermitLocalCommand yes\n LocalCommand echo started\n \
             LocalForward {taken} 127.0.0.1:1\n ExitOnForwardFailure yes\n EscapeChar ~\n ForwardX11 yes\n \
             SessionType none\n StdinNull yes\n ForkAfterAuthentication yes\n"
        ),
    );
    let transport = OpenSsh::new(sshd.target(), options);
    let mut channel = transport.open(&RemoteCommand::new("cat")).await.unwrap();
    channel.stdin.write_all(b"\n~.\r\n\x03").await.unwrap();
    channel.stdin.shutdown().await.unwrap();
    let mut output = Vec::new();
    channel.stdout.read_to_end(&mut output).await.unwrap();
    let mut stderr = StderrTail::collect(channel.stderr, None);
    let exit = channel.control.wait().await.unwrap();
    assert_eq!(
        (output.as_slice(), stderr.finish().await.as_str(), exit),
        (b"\n~.\r\n\x03".as_slice(), "", Exit::Code(0))
    );
}

#[tokio::test]
async fn the_users_own_timeouts_win() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let added = |transport: &OpenSsh| {
        let words = transport.arguments(&RemoteCommand::new("true"));
        let words = words.iter().map(|word| word.to_str().unwrap().to_owned());
        words
            .filter(|word| word.starts_with("ServerAlive") || word.starts_with("ConnectTimeout"))
            .collect::<Vec<_>>()
    };
    let defaults = ["ServerAliveInterval=30", "ServerAliveCountMax=3", "ConnectTimeout=30"];

    let plain = sshd.transport();
    assert_eq!(run(&plain, &RemoteCommand::new("true")).await.2, Exit::Code(0));
    assert_eq!(added(&plain), defaults);

    let configured = with_config(&sshd, "Host 127.0.0.1\n ServerAliveInterval 7\n ConnectTimeout 9\n");
    let asking = OpenSsh::new(sshd.target(), configured.clone());
    assert_eq!(run(&asking, &RemoteCommand::new("true")).await.2, Exit::Code(0));
    assert_eq!(added(&asking), [""; 0]);

    let mut ignoring = configured;
    ignoring.configuration = ConfigurationUse::Ignore;
    let ignoring = OpenSsh::new(sshd.target(), ignoring);
    assert_eq!(run(&ignoring, &RemoteCommand::new("true")).await.2, Exit::Code(0));
    assert_eq!(added(&ignoring), defaults);
}

#[tokio::test]
async fn options_have_their_effect() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let mut options = sshd.options();
    options.compression = Compression::On;
    options.verbosity = 1;
    options.identity_file = Some(sshd.key());
    options.known_hosts_file = Some(sshd.known_hosts());
    // What stands in NIX_SSHOPTS would win over both files.
    let theirs =
        [sshd.key().into_os_string(), format!("UserKnownHostsFile={}", sshd.known_hosts().display()).into()];
    let extra = std::mem::take(&mut options.extra);
    let mut pairs = extra.chunks_exact(2).filter(|pair| !theirs.contains(&pair[1])).flatten();
    options.extra = pairs.by_ref().cloned().collect();
    assert_eq!(options.extra.len() + 4, extra.len());
    let (stdout, stderr, exit) =
        run(&OpenSsh::new(sshd.target(), options), &RemoteCommand::new("echo").arg("x")).await;
    assert_eq!((stdout.as_str(), exit), ("x\n", Exit::Code(0)), "{stderr}");
    assert!(stderr.contains("Enabling compression") || stderr.contains("compression: zlib"), "{stderr}");
}

#[tokio::test]
#[cfg(target_os = "linux")] // it looks at processes in /proc
async fn a_dropped_channel_leaves_neither_ssh_nor_the_remote_command() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let mut channel = sshd.transport().open(&sh("echo $$; exec cat")).await.unwrap();
    let mut pid = String::new();
    while !pid.ends_with('\n') {
        pid.push(channel.stdout.read_u8().await.unwrap().into());
    }
    let known_hosts = sshd.known_hosts().display().to_string();
    assert_eq!(processes_with(&known_hosts), 1, "the ssh is found by its arguments");
    let start = Instant::now();
    drop(channel);
    while processes_with(&known_hosts) > 0 || Path::new("/proc").join(pid.trim()).exists() {
        assert!(start.elapsed() < Duration::from_secs(20), "something stayed behind");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The processes that were started with this text among their arguments.
#[cfg(target_os = "linux")]
fn processes_with(text: &str) -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter(|entry| {
            let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&arguments).contains(text)
        })
        .count()
}

#[tokio::test]
async fn a_master_of_the_users_is_used_and_never_made_without_persistence() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let socket = sshd.directory().join("master");
    let lines = |persist: &str| {
        format!("Host *\n ControlMaster auto\n ControlPath {}\n ControlPersist {persist}\n", socket.display())
    };
    let transport = OpenSsh::new(sshd.target(), with_config(&sshd, &lines("no")));
    let mut channel = transport.open(&sh("echo up; exec cat")).await.unwrap();
    assert_eq!(channel.stdout.read_u8().await.unwrap(), b'u');
    assert!(!socket.exists(), "this ssh became a master");
    drop(channel);

    // With persistence, the first ssh leaves a master behind, as the user wants; it must not hold us up.
    let transport = OpenSsh::new(sshd.target(), with_config(&sshd, &lines("5")));
    let start = Instant::now();
    let (stdout, stderr, exit) = run(&transport, &RemoteCommand::new("echo").arg("one")).await;
    assert_eq!((stdout.as_str(), stderr.as_str(), exit), ("one\n", "", Exit::Code(0)));
    assert!(socket.exists());
    assert_eq!(run(&transport, &RemoteCommand::new("echo").arg("two")).await.0, "two\n");
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(sshd.log().matches("Accepted publickey").count(), 2, "one for each part of this test");
}

#[tokio::test]
#[cfg(target_os = "linux")] // it looks at processes in /proc
async fn the_sshd_for_tests_leaves_nothing_behind() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let mut channel = sshd.transport().open(&sh("echo $$; exec sleep 600")).await.unwrap();
    let mut pid = String::new();
    while !pid.ends_with('\n') {
        pid.push(channel.stdout.read_u8().await.unwrap().into());
    }
    let directory = sshd.directory().to_owned();
    let server = sshd.pid().expect("it runs").to_string();
    assert!(Path::new("/proc").join(&server).exists());
    drop(sshd);
    for gone in [Path::new("/proc").join(server), Path::new("/proc").join(pid.trim()), directory] {
        let start = Instant::now();
        while gone.exists() && fs::read_to_string(gone.join("stat")).is_ok_and(|stat| !stat.contains(") Z "))
        {
            assert!(start.elapsed() < Duration::from_secs(20), "{} is still there", gone.display());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    assert!(!channel.control.wait().await.unwrap().is_success());
}

#[tokio::test]
async fn an_ssh_that_does_not_exist_is_named() {
    let mut options = OpenSshOptions::default();
    options.program = "ncc-no-such-ssh".into();
    let transport = OpenSsh::new("alice@h:22".parse().unwrap(), options);
    let error = transport.open(&RemoteCommand::new("true")).await.unwrap_err();
    assert!(
        matches!(&error, TransportError::ProgramNotFound { host, program } if host == "alice@h:22" && program == "ncc-no-such-ssh")
    );
    assert_eq!(
        error.to_string(),
        "program 'ncc-no-such-ssh', needed to connect to 'alice@h:22', was not found on this machine"
    );
}

#[tokio::test]
async fn an_ssh_that_hangs_when_asked_for_its_configuration_does_not_hang_us() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("ssh");
    let text = "#!/bin/sh\ncase \"$*\" in *-G*) exec sleep 60;; esac\necho \"$#\"\n";
    // By another process: a child that another test forks now would keep the file busy if it were open here.
    let script = "printf %s \"$2\" >\"$1\" && chmod 755 \"$1\"";
    assert!(
        Command::new("sh").args(["-c", script, "sh"]).arg(&program).arg(text).status().unwrap().success()
    );
    let mut options = OpenSshOptions::default();
    options.program = program.into();
    let transport = OpenSsh::new("h".parse().unwrap(), options);
    let start = Instant::now();
    let (stdout, _, exit) = run(&transport, &RemoteCommand::new("true")).await;
    let words = transport.arguments(&RemoteCommand::new("true")).len();
    assert_eq!((stdout, exit), (format!("{words}\n"), Exit::Code(0)));
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

/// The folder of a private control socket that this process's ssh was given.
fn private_folder(transport: &OpenSsh) -> Option<std::path::PathBuf> {
    transport.arguments(&RemoteCommand::new("true")).iter().find_map(|word| {
        let file = word.to_str()?.strip_prefix("ControlPath=\"")?.strip_suffix('"')?;
        Path::new(file).parent().map(Path::to_owned)
    })
}

#[tokio::test]
async fn channels_that_share_authenticate_once_and_leave_nothing() {
    use std::os::unix::fs::PermissionsExt as _;

    let Some(sshd) = Sshd::start(&[]) else { return };
    let mut options = sshd.options();
    options.sharing = Sharing::Private;
    let transport = OpenSsh::new(sshd.target(), options);
    let mut first = transport.open(&RemoteCommand::new("cat")).await.unwrap();
    first.stdin.write_all(b"x").await.unwrap();
    assert_eq!(first.stdout.read_u8().await.unwrap(), b'x');
    let folder = private_folder(&transport).expect("a control socket");
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    // The helper's own options have this too.
    let batch = |words: Vec<OsString>| words.iter().filter(|word| *word == "BatchMode=yes").count();
    assert_eq!(batch(transport.arguments(&RemoteCommand::new("true"))), 1 + batch(sshd.options().extra));
    for _ in 0..2 {
        let (stdout, stderr, exit) = run(&transport, &sh("echo out; echo err >&2; exit 5")).await;
        assert_eq!((stdout.as_str(), stderr.as_str(), exit), ("out\n", "err\n", Exit::Code(5)));
    }
    // The first is as good as ever, and is what the connection ends with.
    first.stdin.write_all(b"y").await.unwrap();
    assert_eq!(first.stdout.read_u8().await.unwrap(), b'y');
    first.stdin.shutdown().await.unwrap();
    assert_eq!(first.control.wait().await.unwrap(), Exit::Code(0));
    assert_eq!(sshd.log().matches("Accepted publickey").count(), 1, "{}", sshd.log());
    drop(transport);
    assert!(!folder.exists());
}

/// Five at once: the first to start logs in, the others wait for it and share its connection.
async fn five_channels(sshd: &Sshd, options: OpenSshOptions) -> usize {
    let before = sshd.logins();
    let transport = OpenSsh::new(sshd.target(), options);
    let cat = RemoteCommand::new("cat");
    // Nobody reads before all are open.
    let (one, two, three, four, five) = tokio::join!(
        transport.open(&cat),
        transport.open(&cat),
        transport.open(&cat),
        transport.open(&cat),
        transport.open(&cat)
    );
    for channel in &mut [one, two, three, four, five] {
        let channel = channel.as_mut().unwrap();
        channel.stdin.write_all(b"x").await.unwrap();
        assert_eq!(channel.stdout.read_u8().await.unwrap(), b'x');
    }
    sshd.logins() - before
}

#[tokio::test]
async fn channels_that_are_opened_at_once_authenticate_once() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let mut options = sshd.options();
    options.sharing = Sharing::Private;
    assert_eq!(five_channels(&sshd, options).await, 1, "{}", sshd.log());

    // The same behind a master of the user's own.
    let lines = format!(
        "Host *\n ControlMaster auto\n ControlPath {}/own\n ControlPersist 5\n",
        sshd.directory().display()
    );
    assert_eq!(five_channels(&sshd, with_config(&sshd, &lines)).await, 1, "{}", sshd.log());
}

#[tokio::test]
async fn a_first_channel_that_fails_holds_nobody_up() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let mut options = sshd.options();
    options.sharing = Sharing::Private;
    options.extra.splice(..0, ["-o".into(), "PubkeyAuthentication=no".into()]);
    let transport = OpenSsh::new(sshd.target(), options);
    let cat = RemoteCommand::new("cat");
    // Neither is waited for, and both are dropped only at the end.
    let (first, second) = tokio::join!(transport.open(&cat), transport.open(&cat));
    for channel in [first, second] {
        assert_eq!(channel.unwrap().control.wait().await.unwrap(), Exit::Code(255));
    }
}

/// <https://github.com/serokell/deploy-rs/issues/364>
#[tokio::test]
async fn deploy_rs_364_options_for_other_sessions_do_not_end_ours() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    for words in
        ["-n", "-N", "-f", "-nT", "-tt", "-o SessionType=none", "-o StdinNull=yes", "-o RemoteCommand=x"]
    {
        let mut options = sshd.options();
        options.extra.extend(ncc_transport_ssh::parse_ssh_options(words).unwrap());
        let transport = OpenSsh::new(sshd.target(), options);
        let mut channel = transport.open(&RemoteCommand::new("cat")).await.unwrap();
        channel.stdin.write_all(b"there and back").await.unwrap();
        channel.stdin.shutdown().await.unwrap();
        let mut output = String::new();
        channel.stdout.read_to_string(&mut output).await.unwrap();
        assert_eq!(
            (output.as_str(), channel.control.wait().await.unwrap()),
            ("there and back", Exit::Code(0)),
            "{words}"
        );
    }
}

/// Two channels at once: how many logins they took, and the folder of the private socket.
async fn two_channels(sshd: &Sshd, mut options: OpenSshOptions) -> (usize, Option<std::path::PathBuf>) {
    options.sharing = Sharing::Private;
    let transport = OpenSsh::new(sshd.target(), options);
    let mut first = transport.open(&RemoteCommand::new("cat")).await.unwrap();
    first.stdin.write_all(b"x").await.unwrap();
    assert_eq!(first.stdout.read_u8().await.unwrap(), b'x');
    let (stdout, _, exit) = run(&transport, &RemoteCommand::new("echo").arg("x")).await;
    assert_eq!((stdout.as_str(), exit), ("x\n", Exit::Code(0)));
    drop(first.stdin);
    first.control.wait().await.unwrap();
    (sshd.log().matches("Accepted publickey").count(), private_folder(&transport))
}

#[tokio::test]
async fn a_master_that_would_not_stay_is_replaced_by_a_private_one() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let own = sshd.directory().join("own");
    let lines = format!("Host *\n ControlMaster auto\n ControlPath {}\n", own.display());
    let (logins, folder) = two_channels(&sshd, with_config(&sshd, &lines)).await;
    assert_eq!(logins, 1, "{}", sshd.log());
    assert!(folder.is_some() && !own.exists());
}

#[tokio::test]
async fn a_control_path_in_the_users_own_options_is_left_to_the_user() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let mut options = sshd.options();
    options.extra.extend(["-o".into(), format!("ControlPath={}/own", sshd.directory().display()).into()]);
    let (_, folder) = two_channels(&sshd, options).await;
    assert_eq!(folder, None);
}

/// Where the server allows one session for each connection, the second channel has to log in; it must not ask.
#[tokio::test]
async fn a_channel_that_cannot_share_connects_without_a_question() {
    let Some(sshd) = Sshd::start(&["MaxSessions 1"]) else { return };
    let (logins, folder) = two_channels(&sshd, sshd.options()).await;
    assert_eq!((logins, folder.is_some()), (2, true));
}
