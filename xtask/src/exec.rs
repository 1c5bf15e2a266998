//! Running other programs: captured output, a time limit, and an error that says what was run.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, WaitId, WaitIdOptions};

/// No single step of the laboratory takes longer on two busy cores; what does, hangs.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(2 * 60);

/// What a finished program left behind.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) command: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    pub(crate) timed_out: bool,
    pub(crate) took: Duration,
    pub(crate) usage: Usage,
}

/// What a program used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Largest resident size seen, in bytes (sampled).
    pub(crate) peak: u64,
    /// Processor time, together with the programs that it started and waited for. 0 for a program that was killed.
    pub(crate) processor: Duration,
}

impl Finished {
    /// Standard output as text, without the final newline.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end_matches('\n').to_owned()
    }

    /// Turns a bad end into an error that shows both streams.
    pub(crate) fn success(self) -> Result<Self> {
        if self.status.success() && !self.timed_out {
            return Ok(self);
        }
        bail!("{}", self.describe());
    }

    /// One paragraph for a report: command, end, streams.
    pub(crate) fn describe(&self) -> String {
        let end = if self.timed_out {
            format!("had not ended, or what it started had not, after {} s", self.took.as_secs())
        } else {
            format!("ended with {}", self.status)
        };
        let stdout = String::from_utf8_lossy(&self.stdout);
        let mut text = format!("`{}` {end}", self.command);
        for (name, stream) in [("stdout", stdout.trim()), ("stderr", self.stderr.trim())] {
            if !stream.is_empty() {
                let tail: String =
                    stream.chars().rev().take(2000).collect::<Vec<_>>().into_iter().rev().collect();
                let _ = write!(text, "\n  {name}: {}", tail.replace('\n', "\n    "));
            }
        }
        text
    }
}

/// Runs to the end and captures both streams.
pub(crate) fn capture(command: &mut Command) -> Result<Finished> {
    capture_within(command, TIME_LIMIT, Vec::new())
}

/// Same, feeding `input` to the program.
pub(crate) fn capture_with_input(command: &mut Command, input: Vec<u8>) -> Result<Finished> {
    capture_within(command, TIME_LIMIT, input)
}

/// Same, with a time limit of its own.
pub(crate) fn capture_within(command: &mut Command, limit: Duration, input: Vec<u8>) -> Result<Finished> {
    let shown = show(command);
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    finish_within(child, shown, limit, input)
}

/// Waits for a program started with three pipes.
pub(crate) fn finish(child: Child, command: String) -> Result<Finished> {
    finish_within(child, command, TIME_LIMIT, Vec::new())
}

/// The same, with a time limit and an input.
pub(crate) fn finish_within(
    mut child: Child,
    command: String,
    limit: Duration,
    input: Vec<u8>,
) -> Result<Finished> {
    let start = Instant::now();
    let mut stdin = child.stdin.take().context("child without stdin")?;
    let stdout = collect(child.stdout.take().context("child without stdout")?);
    let stderr = collect(child.stderr.take().context("child without stderr")?);
    // The writer may outlive the program (it stops with EPIPE), so nobody waits for it.
    std::thread::spawn(move || {
        let _ = stdin.write_all(&input);
    });
    let (status, timed_out, usage) = wait(&mut child, limit)?;
    let took = start.elapsed();
    // A process that the program left behind may hold a pipe for ever: it has what is left of the limit, and then the program
    // counts as one that did not end.
    let left =
        || if timed_out { AFTER_DEATH } else { limit.saturating_sub(start.elapsed()).max(AFTER_DEATH) };
    let (stdout, stdout_ended) = stdout.wait(left());
    let (stderr, stderr_ended) = stderr.wait(left());
    Ok(Finished {
        command,
        status,
        stdout,
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
        timed_out: timed_out || !stdout_ended || !stderr_ended,
        took,
        usage,
    })
}

/// How long after a program's end its output may still come.
const AFTER_DEATH: Duration = Duration::from_secs(1);

/// The output of a program, read by a thread of its own.
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    /// Disconnected when all has been read.
    ended: Receiver<()>,
}

fn collect(mut pipe: impl Read + Send + 'static) -> Collected {
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let (sender, ended) = mpsc::channel::<()>();
    std::thread::spawn({
        let bytes = Arc::clone(&bytes);
        move || {
            let _sender = sender;
            let mut block = vec![0; 64 << 10];
            while let Ok(count @ 1..) = pipe.read(&mut block) {
                let Ok(mut bytes) = bytes.lock() else { return };
                bytes.extend(block.iter().take(count));
            }
        }
    });
    Collected { bytes, ended }
}

impl Collected {
    /// Everything that has come, and whether that was all: the pipe is closed at every end, within `limit`.
    fn wait(self, limit: Duration) -> (Vec<u8>, bool) {
        let ended = self.ended.recv_timeout(limit) == Err(RecvTimeoutError::Disconnected);
        let bytes = self.bytes.lock().map_or_else(|_| Vec::new(), |mut bytes| std::mem::take(&mut *bytes));
        (bytes, ended)
    }
}

/// Waits up to `limit`, then kills. Tells whether it had to, and what the program used.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Result<(ExitStatus, bool, Usage)> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    let mut usage = Usage::default();
    loop {
        // NOWAIT: as long as nobody has waited for it, the kernel remembers what it used.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let ended = rustix::process::waitid(WaitId::Pid(Pid::from_child(child)), options);
        if ended.context("cannot look after a child")?.is_some() {
            usage.processor = processor_time(child.id());
            return Ok((child.wait().context("cannot wait for a child")?, false, usage));
        }
        usage.peak = usage.peak.max(resident_peak(child.id()));
        if start.elapsed() > limit {
            let _ = child.kill();
            return Ok((child.wait().context("cannot wait for a child")?, true, usage));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// User and system time of the process and of its children that have ended, in the kernel's steps of a hundredth of a second.
fn processor_time(pid: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, which may hold anything, ends at the last parenthesis; the times are fields 14 to 17, the first behind it is 3.
    let fields = text.rsplit_once(") ").map_or("", |(_, fields)| fields).split(' ');
    let ticks: u64 = fields.skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// The kernel's own high-water mark, so that only growth in the last 20 ms can be missed. 0 once the process has ended.
fn resident_peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or_default() * 1024
}

/// Runs a program of this machine that has to succeed.
pub(crate) fn run<I, S>(program: &str, arguments: I) -> Result<Finished>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    capture(Command::new(program).args(arguments))?.success()
}

/// The command line for messages.
pub(crate) fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Whether `program` is on the PATH.
pub(crate) fn available(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/sbin:/usr/bin"));
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Creates a folder and its parents; the error names it.
pub(crate) fn make_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))
}

/// Writes a small file; the error names it.
pub(crate) fn write_file(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    std::fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_leaves_behind_is_not_waited_for_without_end() -> Result<()> {
        let mut command = Command::new("sh");
        command.args(["-c", "echo here; sleep 600 & echo $!"]);
        // Long enough for a shell to start on a machine that is busy.
        let finished = capture_within(&mut command, Duration::from_secs(10), Vec::new())?;
        let text = finished.text();
        let left = text.lines().nth(1).and_then(|line| line.parse().ok()).and_then(Pid::from_raw);
        rustix::process::kill_process(left.context("no process id")?, rustix::process::Signal::KILL)?;
        assert!(finished.timed_out && text.starts_with("here\n"), "{}", finished.describe());
        assert!(finished.success().is_err());
        Ok(())
    }

    #[test]
    fn output_larger_than_a_pipe_comes_whole() -> Result<()> {
        let finished = run("sh", ["-c", "head -c 3000000 /dev/zero; head -c 200000 /dev/zero >&2"])?;
        assert_eq!((finished.stdout.len(), finished.stderr.len()), (3_000_000, 200_000));
        Ok(())
    }
}
