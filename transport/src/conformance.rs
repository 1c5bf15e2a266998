//! What every [`Transport`] must do, as tests.
//!
//! Each case runs small POSIX `sh` commands on the host of the transport it is given, and panics where the transport falls short.
//! [`conformance_tests!`](crate::conformance_tests) makes a `#[tokio::test]` of each:
//!
//! ```no_run
//! # // The macro writes test functions, which a doc example cannot run.
//! use ncc_transport::{LocalProcess, conformance::Case};
//!
//! async fn with_transport(case: Case) {
//!     case(&LocalProcess::new()).await;
//! }
//!
//! ncc_transport::conformance_tests!(with_transport);
//! ```

#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "panicking is how a test says no"
)]

use std::{
    future::Future,
    time::{Duration, Instant},
};

use futures_core::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{Channel, Exit, Fact, Findings, Program, RemoteCommand, RemoteScript, StderrTail, Transport};

/// One case, given a transport.
pub type Case = for<'a> fn(&'a dyn Transport) -> BoxFuture<'a, ()>;

/// Makes a `#[tokio::test]` of each case. The argument is the path of an `async fn(Case)` that calls the case with a transport.
#[macro_export]
macro_rules! conformance_tests {
    ($with:path) => {
        $crate::conformance_tests!(@ $with:
            echoes_megabytes_both_ways_at_once
            sends_much_while_nobody_writes
            takes_much_while_nobody_reads_yet
            keeps_stderr_apart_and_complete
            tells_the_exit_status
            tells_a_death_by_signal
            half_closes
            knows_no_program_of_that_name
            delivers_words_unharmed
            delivers_bytes_unharmed
            finds_a_program_and_says_where
            opens_channels_side_by_side
            ends_a_reader_when_dropped
            ends_a_writer_when_dropped
            ends_a_command_when_killed
            survives_an_early_end
        );
    };
    (@ $with:path: $($case:ident)*) => {
        $(
            #[tokio::test]
            async fn $case() {
                $with(|transport| ::std::boxed::Box::pin($crate::conformance::$case(transport))).await;
            }
        )*
    };
}

/// Nothing here takes a second; this is the time after which something hangs.
const LIMIT: Duration = Duration::from_secs(60);

async fn bounded<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(value) = tokio::time::timeout(LIMIT, future).await else {
        panic!("{what}: not done within {LIMIT:?}")
    };
    value
}

fn sh(script: &str) -> RemoteCommand {
    RemoteCommand::new("sh").args(["-c", script])
}

async fn open(transport: &dyn Transport, command: &RemoteCommand) -> Channel {
    match bounded("open", transport.open(command)).await {
        Ok(channel) => channel,
        Err(error) => panic!("cannot open a channel for {command}: {error:?}"),
    }
}

/// Runs a command that needs no input to its end: stdout, stderr, exit.
async fn run(transport: &dyn Transport, command: &RemoteCommand) -> (Vec<u8>, String, Exit) {
    let Channel { stdin, mut stdout, stderr, mut control } = open(transport, command).await;
    drop(stdin);
    let mut stderr = StderrTail::collect(stderr, None);
    let mut output = Vec::new();
    bounded("stdout", stdout.read_to_end(&mut output)).await.expect("stdout is readable");
    let exit = bounded("exit", control.wait()).await.expect("the exit is known");
    (output, stderr.finish().await, exit)
}

/// Bytes that no shell, terminal or line discipline would leave alone, and that repeat only after a long while.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state ^ (state >> 31)).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Sends `input` and reads to the end at the same time.
async fn exchange(channel: &mut Channel, input: &[u8]) -> Vec<u8> {
    let mut output = Vec::new();
    let write = async {
        channel.stdin.write_all(input).await.expect("stdin takes all");
        channel.stdin.shutdown().await.expect("stdin can be shut down");
    };
    let read = async { channel.stdout.read_to_end(&mut output).await.expect("stdout is readable") };
    bounded("exchange", async { tokio::join!(write, read) }).await;
    output
}

/// 16 MiB go through `cat` and come back, both at once.
pub async fn echoes_megabytes_both_ways_at_once(transport: &dyn Transport) {
    let input = noise(16 * 1024 * 1024, 1);
    let mut channel = open(transport, &RemoteCommand::new("cat")).await;
    let output = exchange(&mut channel, &input).await;
    assert!(output == input, "{} bytes came back of {}", output.len(), input.len());
    assert_eq!(bounded("exit", channel.control.wait()).await.unwrap(), Exit::Code(0));
}

/// A large output arrives although stdin is open and idle.
pub async fn sends_much_while_nobody_writes(transport: &dyn Transport) {
    const LENGTH: usize = 8 * 1024 * 1024;
    let mut channel =
        open(transport, &sh(&format!("head -c {LENGTH} /dev/zero; read line; echo $line"))).await;
    let mut output = vec![1; LENGTH];
    bounded("stdout", channel.stdout.read_exact(&mut output)).await.unwrap();
    assert!(output.iter().all(|&byte| byte == 0));
    channel.stdin.write_all(b"now\n").await.unwrap();
    channel.stdin.flush().await.unwrap();
    let mut rest = String::new();
    bounded("the answer", channel.stdout.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(rest, "now\n");
}

/// A large input is taken by a command that answers only afterwards.
pub async fn takes_much_while_nobody_reads_yet(transport: &dyn Transport) {
    let input = noise(8 * 1024 * 1024, 2);
    let mut channel = open(transport, &sh("wc -c")).await;
    bounded("stdin", channel.stdin.write_all(&input)).await.unwrap();
    channel.stdin.shutdown().await.unwrap();
    let mut output = String::new();
    bounded("stdout", channel.stdout.read_to_string(&mut output)).await.unwrap();
    assert_eq!(output.trim(), input.len().to_string());
}

/// 10,000 lines on each of stdout and stderr, interleaved, come out apart and whole.
pub async fn keeps_stderr_apart_and_complete(transport: &dyn Transport) {
    let script = "i=0; while [ $i -lt 10000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done";
    let Channel { stdin, mut stdout, mut stderr, mut control } = open(transport, &sh(script)).await;
    drop(stdin);
    let (mut out, mut err) = (String::new(), String::new());
    let (first, second) = bounded("both", async {
        tokio::join!(stdout.read_to_string(&mut out), stderr.read_to_string(&mut err))
    })
    .await;
    first.unwrap();
    second.unwrap();
    let complete =
        |text: &str, word: &str| text.lines().eq((0..10_000).map(|number| format!("{word} {number}")));
    assert!(complete(&out, "out"), "stdout is not what was written: {} bytes", out.len());
    assert!(complete(&err, "err"), "stderr is not what was written: {} bytes", err.len());
    assert_eq!(control.wait().await.unwrap(), Exit::Code(0));
}

/// The exit status arrives, also when asked for again.
pub async fn tells_the_exit_status(transport: &dyn Transport) {
    for code in [0, 1, 3, 126, 254] {
        let mut channel = open(transport, &sh(&format!("exit {code}"))).await;
        drop(channel.stdin);
        assert_eq!(bounded("exit", channel.control.wait()).await.unwrap(), Exit::Code(code));
        assert_eq!(bounded("exit", channel.control.wait()).await.unwrap(), Exit::Code(code));
    }
}

/// A command that dies of a signal did not succeed. OpenSSH's client turns it into 255, a shell in between into 128 + n.
pub async fn tells_a_death_by_signal(transport: &dyn Transport) {
    let (_, _, exit) = run(transport, &sh("kill -TERM $$; sleep 10")).await;
    assert!(
        [Exit::Signal("TERM".to_owned()), Exit::Code(143), Exit::Code(255), Exit::Unknown].contains(&exit),
        "{exit}"
    );
}

/// The end of the input is seen while the output stays open.
pub async fn half_closes(transport: &dyn Transport) {
    let mut channel = open(transport, &sh("cat >/dev/null; echo seen; echo also >&2; exit 4")).await;
    channel.stdin.write_all(b"some").await.unwrap();
    channel.stdin.shutdown().await.unwrap();
    assert!(channel.stdin.write_all(b"more").await.is_err(), "a stdin that was shut down still takes bytes");
    let (mut out, mut err) = (String::new(), String::new());
    bounded("stdout", channel.stdout.read_to_string(&mut out)).await.unwrap();
    bounded("stderr", channel.stderr.read_to_string(&mut err)).await.unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("seen\n", "also\n"));
    assert_eq!(channel.control.wait().await.unwrap(), Exit::Code(4));
}

/// A program that does not exist: 127 and a message that names it.
pub async fn knows_no_program_of_that_name(transport: &dyn Transport) {
    let (stdout, stderr, exit) = run(transport, &RemoteCommand::new("ncc-no-such-program").arg("x")).await;
    assert!(stdout.is_empty());
    assert!(stderr.contains("ncc-no-such-program"), "{stderr}");
    assert!(exit.is_command_not_found(), "{exit}");
}

/// Arguments arrive as they were, whatever is in them.
pub async fn delivers_words_unharmed(transport: &dyn Transport) {
    let words = [
        "",
        " ",
        "two words",
        "it's",
        "\"",
        "\\",
        "\\'",
        "a\nb\n",
        "\t",
        "$HOME",
        "`id`",
        "$(id)",
        "*",
        "~",
        "#",
        "!",
        "a;b",
        "&",
        "|",
        ">x",
        "{a,b}",
        "-n",
        "--",
        "=x",
        "A=b",
        "ünï 日本",
        "\u{1b}[31m",
    ];
    let command = RemoteCommand::new("printf").arg("[%s]").args(words);
    let (stdout, stderr, exit) = run(transport, &command).await;
    assert_eq!(String::from_utf8_lossy(&stdout), format!("[{}]", words.join("][")));
    assert_eq!((stderr.as_str(), exit), ("", Exit::Code(0)));
}

/// Each of the 256 bytes passes both ways, in any company: no terminal, no escape character, no newline translation.
pub async fn delivers_bytes_unharmed(transport: &dyn Transport) {
    let mut input: Vec<u8> = (0..=255).flat_map(|byte| [b'\n', byte, byte, b'\r']).collect();
    input.extend_from_slice(b"\n~.\n~&\n~#\n\x03\x04\x1a\x11\x13");
    let mut channel = open(transport, &RemoteCommand::new("cat")).await;
    assert_eq!(exchange(&mut channel, &input).await, input);
}

/// A [`RemoteScript`] works on the host, and what it found can be told from what its program says.
pub async fn finds_a_program_and_says_where(transport: &dyn Transport) {
    let program = |places: &[&str]| Program::new("print").places(places).must_run();
    let found = RemoteScript::new()
        .find(program(&["ncc-missing", "/nowhere/printf", "printf"]))
        .find(Program::new("ncc-missing"))
        .measure(Fact::Processors)
        .report();
    let (stdout, stderr, exit) = run(transport, &found.run("print", ["%s|", "a b", "it's"]).command()).await;
    let line = stdout.iter().position(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let (report, output) = stdout.split_at(line);
    assert_eq!((output, stderr.as_str(), exit), (b"a b|it's|".as_slice(), "", Exit::Code(0)));
    let findings = Findings::parse(report).expect("a report");
    assert!(findings.program("print").is_some_and(|file| file.ends_with("/printf")), "{findings:?}");
    assert!(findings.processors().is_some() && findings.program("ncc-missing").is_none(), "{findings:?}");

    let missing = RemoteScript::new().find(program(&["ncc-missing", "/nowhere/x"])).run("print", [""; 0]);
    let (stdout, stderr, exit) = run(transport, &missing.command()).await;
    assert_eq!((stdout.as_slice(), exit), (b"".as_slice(), Exit::Code(127)));
    assert_eq!(stderr, "print: command not found; looked for: ncc-missing, /nowhere/x\n");
}

/// Several channels at once: each has its own streams, none waits for another.
pub async fn opens_channels_side_by_side(transport: &dyn Transport) {
    let cat = RemoteCommand::new("cat");
    let (first, second, third) = bounded("open", async {
        tokio::join!(transport.open(&cat), transport.open(&cat), transport.open(&cat))
    })
    .await;
    let (mut first, mut second, mut third) = (first.unwrap(), second.unwrap(), third.unwrap());
    let (one, two) = (noise(2 * 1024 * 1024, 3), noise(3 * 1024 * 1024, 4));
    // The third is idle all the while, and the second's answers are fetched last.
    let (from_first, from_second) =
        bounded("both", async { tokio::join!(exchange(&mut first, &one), exchange(&mut second, &two)) })
            .await;
    assert!(from_first == one && from_second == two, "the channels got mixed up");
    assert_eq!(exchange(&mut third, b"last").await, b"last");
    for channel in [&mut first, &mut second, &mut third] {
        assert_eq!(bounded("exit", channel.control.wait()).await.unwrap(), Exit::Code(0));
    }
}

/// Waits until the process with this number is gone from the host; asked through the transport itself.
async fn gone(transport: &dyn Transport, pid: &str) {
    let start = Instant::now();
    loop {
        // Also a zombie is gone: its parent, which is not ours, has yet to fetch its status.
        let probe = sh(&format!(
            "kill -0 {pid} 2>/dev/null || exit 1; case $(ps -o stat= -p {pid} 2>/dev/null) in Z*) exit 1;; esac"
        ));
        if run(transport, &probe).await.2 == Exit::Code(1) {
            return;
        }
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "process {pid} is still there, {:?} after its channel",
            start.elapsed()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn first_line(channel: &mut Channel) -> String {
    let mut line = String::new();
    loop {
        match bounded("a line", channel.stdout.read_u8()).await.expect("a line comes") {
            b'\n' => return line,
            byte => line.push(byte.into()),
        }
    }
}

/// A dropped channel ends a command that reads.
pub async fn ends_a_reader_when_dropped(transport: &dyn Transport) {
    let mut channel = open(transport, &sh("echo $$; exec cat")).await;
    let pid = first_line(&mut channel).await;
    drop(channel);
    gone(transport, &pid).await;
}

/// A dropped channel ends a command that writes and never reads.
pub async fn ends_a_writer_when_dropped(transport: &dyn Transport) {
    let mut channel = open(transport, &sh("echo $$; exec cat /dev/zero")).await;
    let pid = first_line(&mut channel).await;
    drop(channel);
    gone(transport, &pid).await;
}

/// `kill` ends it in the middle of its work, and `wait` then returns.
pub async fn ends_a_command_when_killed(transport: &dyn Transport) {
    let mut channel = open(transport, &sh("echo $$; exec cat")).await;
    let pid = first_line(&mut channel).await;
    channel.control.kill();
    channel.control.kill();
    let exit = bounded("exit", channel.control.wait()).await.unwrap();
    assert!(!exit.is_success(), "{exit}");
    gone(transport, &pid).await;
}

/// A command that ends without reading its input: writing fails or is ignored, nothing hangs, the end is known.
pub async fn survives_an_early_end(transport: &dyn Transport) {
    let Channel { mut stdin, mut stdout, mut stderr, mut control } =
        open(transport, &sh("echo full >&2; exit 1")).await;
    let input = noise(8 * 1024 * 1024, 5);
    let (mut out, mut err) = (Vec::new(), String::new());
    let write = async {
        // Fails once the other side is gone; how much fits before is up to the buffers on the way.
        let _ = stdin.write_all(&input).await;
        drop(stdin);
    };
    let ((), out_result, err_result) = bounded("all three", async {
        tokio::join!(write, stdout.read_to_end(&mut out), stderr.read_to_string(&mut err))
    })
    .await;
    out_result.unwrap();
    err_result.unwrap();
    assert_eq!((out.len(), err.as_str()), (0, "full\n"));
    assert_eq!(bounded("exit", control.wait()).await.unwrap(), Exit::Code(1));
}
