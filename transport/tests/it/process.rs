//! How processes end.

use std::time::{Duration, Instant};

use ncc_transport::{Channel, Exit, LocalProcess, RemoteCommand, StderrTail, Transport, TransportError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn sh(script: &str) -> RemoteCommand {
    RemoteCommand::new("sh").args(["-c", script])
}

async fn line(channel: &mut Channel) -> String {
    let mut line = String::new();
    loop {
        match channel.stdout.read_u8().await.unwrap() {
            b'\n' => return line,
            byte => line.push(byte.into()),
        }
    }
}

/// Gone and reaped: not even a zombie.
fn exists(pid: &str) -> bool {
    let pid = rustix::process::Pid::from_raw(pid.parse().expect("a number")).expect("not zero");
    rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH)
}

/// Ignores SIGTERM and the end of its input.
const STUBBORN: &str = "trap '' TERM; echo $$; while :; do sleep 1; done";

#[tokio::test]
async fn a_signal_is_named() {
    let mut channel = LocalProcess::new().open(&sh("kill -TERM $$; sleep 10")).await.unwrap();
    assert_eq!(channel.control.wait().await.unwrap(), Exit::Signal("TERM".to_owned()));
    assert_eq!(Exit::Signal("TERM".to_owned()).to_string(), "signal TERM");
}

#[tokio::test]
async fn a_process_that_ignores_sigterm_is_killed_and_reaped() {
    let mut channel = LocalProcess::new().open(&sh(STUBBORN)).await.unwrap();
    let pid = line(&mut channel).await;
    assert!(exists(&pid));
    drop(channel);
    let start = Instant::now();
    while exists(&pid) {
        assert!(start.elapsed() < Duration::from_secs(20), "process {pid} is still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn kill_ends_a_process_that_ignores_sigterm() {
    let mut channel = LocalProcess::new().open(&sh(STUBBORN)).await.unwrap();
    let pid = line(&mut channel).await;
    channel.control.kill();
    assert_eq!(channel.control.wait().await.unwrap(), Exit::Signal("KILL".to_owned()));
    assert!(!exists(&pid));
}

#[test]
fn the_end_of_the_runtime_leaves_no_process() {
    let open = |script: &'static str| async move {
        let mut channel = LocalProcess::new().open(&sh(script)).await.unwrap();
        let pid = line(&mut channel).await;
        (channel, pid)
    };
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();

    // Dropped inside, but the runtime ends before the grace does.
    let inside = runtime();
    let (first, second) = inside.block_on(async { (open(STUBBORN).await, open("echo $$; exec cat").await) });
    let pids = [first.1, second.1];
    inside.block_on(async { drop((first.0, second.0)) });
    drop(inside);
    assert_eq!(pids.map(|pid| exists(&pid)), [false, false]);

    // Dropped after the runtime.
    let outside = runtime();
    let (channel, pid) = outside.block_on(open(STUBBORN));
    drop(outside);
    drop(channel);
    assert!(!exists(&pid));
}

#[tokio::test]
async fn stderr_held_open_by_a_process_left_behind_holds_nobody_up() {
    // As an OpenSSH master does that stays in the background. It ends by itself, since nothing here can know of it.
    let mut channel =
        LocalProcess::new().open(&sh("sleep 5 >/dev/null & echo done >&2; exit 2")).await.unwrap();
    let mut stderr = StderrTail::collect(channel.stderr, None);
    assert_eq!(channel.control.wait().await.unwrap(), Exit::Code(2));
    let start = Instant::now();
    assert_eq!(stderr.finish().await, "done\n");
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_program_that_may_not_run_is_126() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("not a program");
    std::fs::write(&file, "x").unwrap();
    let mut channel = LocalProcess::new().open(&RemoteCommand::new(&file)).await.unwrap();
    let mut stderr = String::new();
    channel.stderr.read_to_string(&mut stderr).await.unwrap();
    assert_eq!(stderr, format!("{}: permission denied\n", file.display()));
    assert!(channel.stdin.write_all(b"x").await.is_err());
    assert_eq!(channel.control.wait().await.unwrap(), Exit::Code(126));
}

#[tokio::test]
async fn a_word_with_nul_is_an_error() {
    let error = LocalProcess::new().open(&RemoteCommand::new("echo").arg("a\0b")).await.unwrap_err();
    assert!(
        matches!(&error, TransportError::Spawn { host, program, .. } if host == "localhost" && program == "echo"),
        "{error:?}"
    );
}
