//! Signals that end this program, or stop it for a while, as whoever started it wants them.

use std::{fs, process::ExitCode};

use ncc_progress::Console;
use rustix::process::{getpgrp, getsid};
use signal_hook::{consts as number, low_level::emulate_default_handler};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Those that ask this program to end.
const ENDING: [i32; 3] = [number::SIGINT, number::SIGTERM, number::SIGHUP];

/// A signal that ends this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signal(i32);

impl Signal {
    /// Ends this process by the signal, as if it had never been caught: a shell whose child *died* of Ctrl-C ends its own
    /// loop too, and one whose child has ended with the code 130 goes on.
    pub(crate) fn die(self) -> ExitCode {
        let _ = emulate_default_handler(self.0);
        // Not reached, unless that failed: then the code that shells give it.
        u8::try_from(self.0.saturating_add(128)).map_or(ExitCode::FAILURE, ExitCode::from)
    }
}

/// The signals that have come.
pub(crate) struct Signals(mpsc::UnboundedReceiver<Signal>);

impl Signals {
    /// Catches the signals that end or stop this program from now on.
    ///
    /// One that was ignored when the program was started (`nohup`, `trap "" INT`, a background job of a script) stays
    /// ignored, here and in everything that is started from here.
    pub(crate) fn catch(console: &Console) -> Self {
        let ignored = ignored();
        let is_ignored = |signal: i32| ignored >> (signal - 1) & 1 == 1;
        let (sender, receiver) = mpsc::unbounded_channel();
        for ending in ENDING.into_iter().filter(|signal| !is_ignored(*signal)) {
            let sender = sender.clone();
            each(ending, move || {
                let _ = sender.send(Signal(ending));
            });
        }
        if !is_ignored(number::SIGTSTP) {
            let console = console.clone();
            each(number::SIGTSTP, move || stop(&console));
        }
        Self(receiver)
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) -> Signal {
        match self.0.recv().await {
            Some(signal) => signal,
            // All of them are ignored.
            None => std::future::pending().await,
        }
    }
}

/// Does something each time that a signal comes.
fn each(number: i32, mut work: impl FnMut() + Send + 'static) {
    match signal(SignalKind::from_raw(number)) {
        Ok(mut signals) => {
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    work();
                }
            });
        }
        Err(error) => tracing::warn!(%error, "a signal cannot be waited for"),
    }
}

/// Stops this process until it is continued, without a bar below which the shell would write.
fn stop(console: &Console) {
    // Nobody could continue it where the shell is no job control's: the system does not stop such a process either.
    if getsid(None).is_ok_and(|session| session == getpgrp()) {
        return;
    }
    console.suspend();
    let _ = emulate_default_handler(number::SIGTSTP);
    console.resume();
}

/// The signals that this process ignores, as a mask. Only Linux tells without unsafe code; elsewhere none counts as ignored.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
