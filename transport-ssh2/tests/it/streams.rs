//! Bytes under adverse conditions, and what stays behind.

use std::{
    fs,
    time::{Duration, Instant},
};

use ncc_transport::{Channel, End, Exit, FailureKind, KeepAlive, RemoteCommand, StderrTail, Transport};
use ncc_transport_ssh::test_util::Sshd;
use ncc_transport_ssh2::{Compression, Ssh2};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{bounded, fails, options, refused, run, sh, start, with};

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state ^ (state >> 31)).to_le_bytes()
    };
    std::iter::repeat_with(next).take(length.div_ceil(8)).flatten().take(length).collect()
}

async fn exchange(channel: &mut Channel, input: &[u8]) -> Vec<u8> {
    let mut output = Vec::new();
    let write = async {
        channel.stdin.write_all(input).await.unwrap();
        channel.stdin.shutdown().await.unwrap();
    };
    let read = async { channel.stdout.read_to_end(&mut output).await.unwrap() };
    bounded(async { tokio::join!(write, read) }).await;
    output
}

#[tokio::test]
async fn keys_are_exchanged_again_in_the_middle_of_everything() {
    for cipher in ["aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes128-ctr"] {
        let Some(sshd) = start(&["RekeyLimit 1M", "LogLevel DEBUG1"]) else { return };
        let transport = Ssh2::new(sshd.target(), with(&sshd, &format!("-c {cipher}")));
        let cat = RemoteCommand::new("cat");
        let (first, second) =
            bounded(async { tokio::join!(transport.open(&cat), transport.open(&cat)) }).await;
        let (mut first, mut second) = (first.unwrap(), second.unwrap());
        let (one, two) = (noise(24 * 1024 * 1024, 1), noise(8 * 1024 * 1024, 2));
        let (from_first, from_second) = tokio::join!(exchange(&mut first, &one), exchange(&mut second, &two));
        assert!(from_first == one && from_second == two, "{cipher}");
        for channel in [&mut first, &mut second] {
            assert_eq!(bounded(channel.control.wait()).await.unwrap(), Exit::Code(0));
        }
        // One way only, each way.
        let (output, _, exit) = run(&transport, &sh("head -c 8388608 /dev/zero | tr '\\0' x")).await;
        assert_eq!((output.len(), exit), (8_388_608, Exit::Code(0)));
        let mut upload = bounded(transport.open(&sh("wc -c"))).await.unwrap();
        assert_eq!(exchange(&mut upload, &two).await.trim_ascii(), two.len().to_string().as_bytes());
        let exchanges = sshd.log().matches("set_newkeys: rekeying").count()
            + sshd.log().matches("SSH2_MSG_KEXINIT received").count();
        assert!(exchanges > 20, "{cipher}: only {exchanges} key exchanges");
    }
}

#[tokio::test]
async fn a_channel_that_nobody_reads_holds_no_other_up() {
    let Some(sshd) = start(&["RekeyLimit 1M"]) else { return };
    let transport = Ssh2::new(sshd.target(), options(&sshd));
    // One output unread, one flood of small messages unread, one input that nobody takes.
    let zeros = bounded(transport.open(&sh("exec cat /dev/zero"))).await.unwrap();
    let flood = bounded(transport.open(&sh("yes x >&2"))).await.unwrap();
    let mut stuck = bounded(transport.open(&sh("exec sleep 600"))).await.unwrap();
    let mut count = 0;
    let chunk = vec![7; 64 * 1024];
    // What fits into buffers and window, and then no more: back pressure.
    while let Ok(written) = tokio::time::timeout(Duration::from_secs(1), stuck.stdin.write(&chunk)).await {
        count += written.unwrap();
        assert!(count < 64 * 1024 * 1024, "nothing holds the writer back");
    }
    let input = noise(8 * 1024 * 1024, 3);
    let mut cat = bounded(transport.open(&RemoteCommand::new("cat"))).await.unwrap();
    assert!(exchange(&mut cat, &input).await == input);
    drop((zeros, flood, stuck));
    assert_eq!(run(&transport, &RemoteCommand::new("echo").arg("x")).await.0, "x\n");
}

#[tokio::test]
async fn an_output_that_is_dropped_does_not_stop_the_command() {
    let Some(sshd) = start(&[]) else { return };
    let transport = Ssh2::new(sshd.target(), options(&sshd));
    let Channel { stdin, stdout, mut stderr, mut control } =
        bounded(transport.open(&sh("head -c 50000000 /dev/zero; echo done >&2"))).await.unwrap();
    drop((stdin, stdout));
    let mut text = String::new();
    bounded(stderr.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "done\n");
    assert_eq!(bounded(control.wait()).await.unwrap(), Exit::Code(0));
}

#[tokio::test]
async fn the_signal_is_named() {
    let Some(sshd) = start(&[]) else { return };
    let transport = Ssh2::new(sshd.target(), options(&sshd));
    let (_, _, exit) = run(&transport, &RemoteCommand::new("exec").args(["sh", "-c", "kill -KILL $$"])).await;
    assert_eq!(exit, Exit::Signal("KILL".to_owned()));
    assert_eq!(transport.explain(&End::new(&exit, false, "")), None);
}

#[tokio::test]
async fn compression_is_agreed_on() {
    let Some(sshd) = start(&["LogLevel DEBUG1"]) else { return };
    let mut options = options(&sshd);
    options.compression = Compression::On;
    let transport = Ssh2::new(sshd.target(), options);
    let mut cat = bounded(transport.open(&RemoteCommand::new("cat"))).await.unwrap();
    let input = noise(3 * 1024 * 1024, 4);
    assert!(exchange(&mut cat, &input).await == input);
    assert!(sshd.log().contains("compression: zlib@openssh.com"), "{}", sshd.log());
}

#[tokio::test]
async fn a_server_that_opens_no_more_sessions_is_a_clear_error() {
    let Some(sshd) = start(&["MaxSessions 3"]) else { return };
    let transport = Ssh2::new(sshd.target(), options(&sshd));
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(bounded(transport.open(&RemoteCommand::new("cat"))).await.unwrap());
    }
    let failure = fails(&transport).await;
    assert_eq!(failure.kind, FailureKind::SessionRefused, "{failure:?}");
    // The others go on, and there is room again when one of them ends.
    assert_eq!(exchange(&mut open[0], b"still").await, b"still");
    assert_eq!(bounded(open[0].control.wait()).await.unwrap(), Exit::Code(0));
    // sshd looks after what has ended only after it has looked at what came: it may have no room yet.
    let command = RemoteCommand::new("true");
    bounded(async {
        while transport.open(&command).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(sshd.log().matches("Accepted publickey").count(), 1, "one connection for all");
}

#[tokio::test]
async fn a_server_that_opens_no_session_at_all_is_a_clear_error() {
    let Some(sshd) = start(&["MaxSessions 0"]) else { return };
    refused(&sshd, options(&sshd), FailureKind::SessionRefused, "Channel open failure").await;
}

/// One channel whose command took longer to start than ConnectTimeout ended the connection, and all copies on it.
#[tokio::test]
async fn a_server_that_takes_its_time_for_one_channel_keeps_the_others() {
    let Some(sshd) = start(&[]) else { return };
    let mut options = with(&sshd, "-o ConnectTimeout=1");
    options.keep_alive = None;
    let transport = Ssh2::new(sshd.target(), options);
    let mut first = bounded(transport.open(&signals_its_session("STOP"))).await.unwrap();
    let pid = line(&mut first.stdout).await;
    first.stdin.write_all(b"\n").await.unwrap();
    until("the server is not stopped", || {
        fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") T ")
    })
    .await;
    let command = RemoteCommand::new("cat");
    let mut second = transport.open(&command);
    // Much longer than it may take to connect; a slow machine only makes it longer.
    assert!(tokio::time::timeout(Duration::from_secs(4), &mut second).await.is_err(), "it is stopped");
    std::process::Command::new("kill").args(["-CONT", &pid]).status().unwrap();
    let mut second = bounded(second).await.unwrap();
    assert_eq!(exchange(&mut second, b"late").await, b"late");
    assert_eq!(exchange(&mut first, b"still").await, b"still");
    assert_eq!(bounded(first.control.wait()).await.unwrap(), Exit::Code(0));
}

#[tokio::test]
async fn many_channels_share_a_connection() {
    let Some(sshd) = start(&["MaxSessions 100"]) else { return };
    let transport = std::sync::Arc::new(Ssh2::new(sshd.target(), options(&sshd)));
    let mut tasks = Vec::new();
    for number in 0..40 {
        let transport = std::sync::Arc::clone(&transport);
        tasks.push(tokio::spawn(async move {
            let mut cat = bounded(transport.open(&RemoteCommand::new("cat"))).await.unwrap();
            let input = noise(200_000, number);
            assert!(exchange(&mut cat, &input).await == input);
            assert_eq!(bounded(cat.control.wait()).await.unwrap(), Exit::Code(0));
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(sshd.log().matches("Accepted publickey").count(), 1, "one connection for all");
}

/// The threads of ours that are named so, with their used processor time in ticks.
fn threads(name: &str) -> Vec<u64> {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks
        .filter_map(|task| {
            let stat = fs::read_to_string(task.path().join("stat")).ok()?;
            let (_, rest) = stat.split_once(&format!("({name})"))?;
            let mut fields = rest.split_whitespace().skip(11);
            let user: u64 = fields.next()?.parse().ok()?;
            Some(user + fields.next()?.parse::<u64>().ok()?)
        })
        .collect()
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until the thread takes no time at all for a second, which one that spins never does.
async fn idle(name: &str) {
    let start = Instant::now();
    loop {
        let before = threads(name);
        assert_eq!(before.len(), 1);
        tokio::time::sleep(Duration::from_secs(1)).await;
        if threads(name)[0] - before[0] <= 1 {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{name} is never idle");
    }
}

/// `localhost` in other notations, so that the threads of each test have a name of their own.
fn target(sshd: &Sshd, host: &str) -> ncc_transport::Target {
    format!("{host}:{}", sshd.port()).parse().unwrap()
}

#[tokio::test]
async fn an_idle_connection_takes_no_time_and_a_dropped_one_leaves_nothing() {
    let Some(sshd) = start(&[]) else { return };
    let mut options = with(&sshd, &format!("-o HostKeyAlias=[127.0.0.1]:{}", sshd.port()));
    options.keep_alive = Some(KeepAlive::new(Duration::from_secs(30), 3));
    let transport = Ssh2::new(target(&sshd, "127.1"), options);
    let mut channel = bounded(transport.open(&sh("yes | head -c 50000000; exec cat"))).await.unwrap();
    // While the output is full, and after it was read.
    idle("ssh2 127.1").await;
    let mut output = vec![0; 50_000_000];
    bounded(channel.stdout.read_exact(&mut output)).await.unwrap();
    idle("ssh2 127.1").await;

    drop(transport);
    channel.stdin.write_all(b"x").await.unwrap();
    assert_eq!(bounded(channel.stdout.read_u8()).await.unwrap(), b'x', "the channel outlives its transport");
    drop(channel);
    until("the thread stays", || threads("ssh2 127.1").is_empty()).await;
    until("the server still has the session", || {
        sshd.log().contains("Disconnected from") || sshd.log().contains("Received disconnect")
    })
    .await;
}

#[tokio::test]
async fn giving_up_while_connecting_leaves_nothing() {
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut options = ncc_transport_ssh2::Ssh2Options::default();
    options.configuration = ncc_transport_ssh2::ConfigurationFiles::None;
    let transport = Ssh2::new(format!("127.0.1:{port}").parse().unwrap(), options);
    for _ in 0..3 {
        let gave_up =
            tokio::time::timeout(Duration::from_millis(200), transport.open(&RemoteCommand::new("true")))
                .await;
        assert!(gave_up.is_err());
        until("the thread stays", || threads("ssh2 127.0.1").is_empty()).await;
    }
}

#[tokio::test]
async fn giving_up_while_an_agent_is_silent_leaves_nothing() {
    let Some(sshd) = start(&[]) else { return };
    let socket = sshd.directory().join("agent");
    let agent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let alias = format!("-o HostKeyAlias=[127.0.0.1]:{}", sshd.port());
    let options = with(&sshd, &format!("{alias} -o IdentityAgent={}", socket.display()));
    let transport = Ssh2::new(target(&sshd, "0x7f.1"), options);
    let command = RemoteCommand::new("true");
    let mut opening = transport.open(&command);
    // Until it asks the agent.
    let asked = tokio::task::spawn_blocking(move || agent.accept().map(|(stream, _)| (agent, stream)));
    let asked = tokio::select! {
        asked = asked => asked.unwrap().unwrap(),
        opened = &mut opening => panic!("{:?}", opened.map(drop)),
    };
    drop(opening);
    until("the thread stays", || threads("ssh2 0x7f.1").is_empty()).await;
    drop(asked);
}

/// Says the number of the server's process of this very session and, after a line of input, sends it a signal: a network that is
/// cut, or a server that dies.
fn signals_its_session(signal: &str) -> RemoteCommand {
    sh(&format!(
        "p=$$; while [ \"$(cat /proc/$p/comm)\" != sshd ]; do p=$(sed 's/.*) . //; s/ .*//' /proc/$p/stat); done; \
         echo $p; read line; kill -{signal} $p; exec cat"
    ))
}

async fn line(stdout: &mut ncc_transport::Reader) -> String {
    let mut line = String::new();
    loop {
        match char::from(bounded(stdout.read_u8()).await.unwrap()) {
            '\n' => return line,
            letter => line.push(letter),
        }
    }
}

fn kill(pid: &str) {
    std::process::Command::new("kill").args(["-KILL", pid]).status().unwrap();
}

#[tokio::test]
async fn a_server_that_is_gone_is_noticed_and_the_next_channel_connects_again() {
    let Some(sshd) = start(&[]) else { return };
    let mut options = options(&sshd);
    options.keep_alive = Some(KeepAlive::new(Duration::from_secs(2), 1));
    let transport = Ssh2::new(sshd.target(), options);
    // Stops the server's process of this very session: a network that is cut.
    let Channel { mut stdin, mut stdout, stderr, mut control } =
        bounded(transport.open(&signals_its_session("STOP"))).await.unwrap();
    let mut stderr = StderrTail::collect(stderr, None);
    let pid = line(&mut stdout).await;
    // Longer than it takes to give up: keep-alives are answered.
    tokio::time::sleep(Duration::from_secs(7)).await;
    stdin.write_all(b"\n").await.unwrap();
    let exit = bounded(control.wait()).await.unwrap();
    assert_eq!(exit, Exit::Unknown);
    let text = stderr.finish().await;
    assert!(text.contains("keep-alive"), "{text}");
    assert!(stdout.read_u8().await.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
    let failure = transport.explain(&End::new(&exit, false, &text)).unwrap();
    assert_eq!(failure.kind, FailureKind::ConnectionLost, "{failure:?}");
    kill(&pid);

    assert_eq!(run(&transport, &RemoteCommand::new("echo").arg("x")).await.0, "x\n");
}

#[tokio::test]
async fn a_server_that_stops_reading_is_noticed_by_who_writes() {
    let Some(sshd) = start(&[]) else { return };
    let mut options = options(&sshd);
    options.keep_alive = Some(KeepAlive::new(Duration::from_secs(2), 1));
    let transport = Ssh2::new(sshd.target(), options);
    let Channel { mut stdin, mut stdout, stderr, mut control } =
        bounded(transport.open(&signals_its_session("STOP"))).await.unwrap();
    let mut stderr = StderrTail::collect(stderr, None);
    let pid = line(&mut stdout).await;
    stdin.write_all(b"\n").await.unwrap();
    let chunk = vec![7; 64 * 1024];
    // All buffers on the way become full; then it fails.
    let error = bounded(async {
        loop {
            if let Err(error) = stdin.write_all(&chunk).await {
                break error;
            }
        }
    })
    .await;
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe, "{error}");
    let exit = bounded(control.wait()).await.unwrap();
    let failure = transport.explain(&End::new(&exit, false, &stderr.finish().await)).unwrap();
    assert_eq!((exit, failure.kind), (Exit::Unknown, FailureKind::ConnectionLost), "{failure:?}");
    kill(&pid);
}

#[tokio::test]
async fn a_connection_that_breaks_is_explained() {
    let Some(sshd) = start(&[]) else { return };
    let transport = Ssh2::new(sshd.target(), options(&sshd));
    let Channel { mut stdin, mut stdout, stderr, mut control } =
        bounded(transport.open(&signals_its_session("KILL"))).await.unwrap();
    let mut stderr = StderrTail::collect(stderr, None);
    line(&mut stdout).await;
    stdin.write_all(b"\n").await.unwrap();
    let mut output = Vec::new();
    assert!(bounded(stdout.read_to_end(&mut output)).await.is_err());
    assert_eq!(output, b"");
    let exit = bounded(control.wait()).await.unwrap();
    let failure = transport.explain(&End::new(&exit, false, &stderr.finish().await)).unwrap();
    assert_eq!((exit, failure.kind), (Exit::Unknown, FailureKind::ConnectionLost), "{failure:?}");
}

#[tokio::test]
async fn a_command_that_cannot_be_said_is_refused() {
    let Some(sshd) = start(&[]) else { return };
    let transport = Ssh2::new(sshd.target(), options(&sshd));
    let odd = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff");
    for command in [RemoteCommand::new(odd), RemoteCommand::new("echo").arg("a\0b")] {
        let error = transport.open(&command).await.unwrap_err();
        assert!(matches!(error, ncc_transport::TransportError::Spawn { .. }), "{error:?}");
    }
}
