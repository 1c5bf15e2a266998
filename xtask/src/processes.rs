//! The processes of this PID namespace, as /proc shows them.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// How long a process that has nothing to do any more may take to end, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// One of them, as it was a moment ago.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    parent: u32,
    words: Vec<Vec<u8>>,
    environment: Vec<u8>,
}

impl Process {
    /// Whether the name of its program ends so.
    pub(crate) fn is(&self, program: &str) -> bool {
        self.words.first().is_some_and(|word| word.ends_with(program.as_bytes()))
    }

    /// Whether its name, which some programs change, begins so.
    pub(crate) fn starts_with(&self, text: &str) -> bool {
        self.words.first().is_some_and(|word| word.starts_with(text.as_bytes()))
    }

    pub(crate) fn has_word(&self, word: &str) -> bool {
        self.words.iter().any(|candidate| candidate == word.as_bytes())
    }

    /// Whether `NAME=value` is in its environment.
    fn is_marked(&self, mark: &str) -> bool {
        self.environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
    }
}

/// All that run. What has ended and waits for its parent is not among them.
pub(crate) fn all() -> Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot list /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end while we look: then it is not there.
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        let words: Vec<_> = read("cmdline").split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
        let stat = String::from_utf8_lossy(&read("stat")).into_owned();
        // pid (name) state parent ...; the name may hold anything.
        let mut fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields).split(' ');
        let (state, parent) = (fields.next(), fields.next().and_then(|parent| parent.parse().ok()));
        let (Some(parent), false) = (parent, state == Some("Z")) else { continue };
        found.push(Process { pid, parent, words, environment: read("environ") });
    }
    Ok(found)
}

/// What a process has started, and what that has.
pub(crate) fn below(ancestor: u32) -> Result<Vec<Process>> {
    let mut rest = all()?;
    let mut found: Vec<Process> = Vec::new();
    loop {
        let is_below =
            |process: &Process| process.parent == ancestor || found.iter().any(|f| f.pid == process.parent);
        let (new, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(is_below);
        if new.is_empty() {
            return Ok(found);
        }
        found.extend(new);
        rest = others;
    }
}

/// What serves over its standard streams, of those whose environment has the mark of a server.
pub(crate) fn serving(mark: &str) -> Result<Vec<Process>> {
    let mut found = all()?;
    found.retain(|process| {
        (process.has_word("--serve") || process.has_word("--stdio")) && process.is_marked(mark)
    });
    Ok(found)
}

/// Waits until there is none of some processes any more.
pub(crate) fn wait_for_end(what: &str, look: impl Fn() -> Result<Vec<Process>>) -> Result<()> {
    let start = Instant::now();
    loop {
        let left = look()?;
        if left.is_empty() {
            return Ok(());
        }
        ensure!(start.elapsed() < PATIENCE, "{what} is still running: {left:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal, unless it has ended.
pub(crate) fn kill(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("not a pid")?;
    match kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error).context("cannot signal a process of the laboratory"),
    }
}
