//! Copies that are stopped in the middle: no invalid path may be registered, and running again completes.

use std::fs;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::{Outcome, failures};
use crate::database;
use crate::exec;
use crate::instance::LabStore;
use crate::interop::compare::{self, Times};
use crate::interop::lab::{Direction, Lab, Receiver, spawn};
use crate::processes;

/// Whom it hits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Victim {
    Client(Signal),
    Server,
}

pub(super) fn kill_client_to(lab: &Lab<'_>) -> Result<Outcome> {
    interrupt(lab, Direction::To, Victim::Client(Signal::KILL))
}

pub(super) fn kill_client_from(lab: &Lab<'_>) -> Result<Outcome> {
    interrupt(lab, Direction::From, Victim::Client(Signal::KILL))
}

pub(super) fn interrupt_to(lab: &Lab<'_>) -> Result<Outcome> {
    interrupt(lab, Direction::To, Victim::Client(Signal::INT))
}

pub(super) fn interrupt_from(lab: &Lab<'_>) -> Result<Outcome> {
    interrupt(lab, Direction::From, Victim::Client(Signal::INT))
}

pub(super) fn kill_server_to(lab: &Lab<'_>) -> Result<Outcome> {
    interrupt(lab, Direction::To, Victim::Server)
}

pub(super) fn kill_server_from(lab: &Lab<'_>) -> Result<Outcome> {
    interrupt(lab, Direction::From, Victim::Server)
}

/// Objects that must have arrived before the blow, of 2,000. Fewer on each attempt that came too late.
const BLOW_AFTER: [usize; 4] = [200, 50, 10, 1];

fn interrupt(lab: &Lab<'_>, direction: Direction, victim: Victim) -> Result<Outcome> {
    let paths = [lab.chain()?];
    for threshold in BLOW_AFTER {
        let receiver = lab.receiver()?;
        let server = match direction {
            Direction::To => &receiver,
            Direction::From => &lab.source,
        };
        let store = match direction {
            Direction::To => &lab.source.store,
            Direction::From => &receiver.store,
        };
        let command = lab.candidate.command(direction, store, &server.server, &paths);
        let (mut child, shown) = spawn(&mut lab.candidate.once(command))?;
        if !progress(&receiver.store, threshold, &mut child)? {
            exec::finish(child, shown)?.success()?;
            continue; // it was faster than we looked
        }
        match victim {
            Victim::Client(signal) => processes::kill(child.id(), signal)?,
            Victim::Server => {
                for process in processes::serving(&server.server.mark())? {
                    processes::kill(process.pid, Signal::KILL)?;
                }
            }
        }
        let finished = exec::finish(child, shown)?;
        if finished.status.success() {
            continue; // the blow hit a finished copy
        }
        let mut wrong = Vec::new();
        if victim == Victim::Server {
            let code = if lab.candidate.lenient { 1 } else { failures::LOST };
            if finished.status.code() != Some(code) {
                wrong.push(format!("exit {code} expected: {}", finished.describe()));
            }
            if !lab.candidate.lenient && !finished.stderr.contains("127.0.0.1") {
                wrong.push(format!("stderr does not name the host: {}", finished.stderr.trim()));
            }
        }
        // A server may still be at work on what it had read when its client died.
        processes::wait_for_end("the remote's nix-store", || processes::serving(&server.server.mark()))?;
        let arrived = database::read(&receiver.store)?.len();
        wrong.extend(compare::judge(&receiver.instance, &receiver.store, &[])?);
        lab.candidate
            .copy(direction, store, &server.server, &paths)
            .context("the run after the interruption")?;
        wrong.extend(complete(lab, direction, &receiver, &paths)?);
        return Ok(Outcome { wrong, note: format!("{arrived} valid after the blow"), skipped: None });
    }
    bail!("every attempt to interrupt it came too late")
}

/// Compared with a copy that nobody interrupted.
fn complete(
    lab: &Lab<'_>,
    direction: Direction,
    receiver: &Receiver,
    paths: &[String],
) -> Result<Vec<String>> {
    let baseline = lab.baseline(direction, paths)?;
    let times = if direction == Direction::To { Times::Kept } else { Times::Now };
    let mut wrong = compare::stores(&baseline, &receiver.store, times)?;
    // Who is killed cannot remove its file of temporary roots, nor, between registering a path and letting go of it, the
    // path's lock file, which nobody holds any more; the next collection removes both.
    let registered = database::read(&receiver.store)?;
    wrong.retain(|line| {
        let locked = line.strip_suffix(".lock: left in the store, not registered");
        !line.starts_with("temproots/") && !locked.is_some_and(|path| registered.contains_key(path))
    });
    wrong.extend(compare::judge(&receiver.instance, &receiver.store, paths)?);
    Ok(wrong)
}

/// Waits until the store holds `count` objects. False if the copy ended first.
fn progress(store: &LabStore, count: usize, child: &mut Child) -> Result<bool> {
    let start = Instant::now();
    loop {
        if child.try_wait().context("cannot wait for the copy")?.is_some() {
            return Ok(false);
        }
        let objects = fs::read_dir(store.store()).map_or(0, Iterator::count);
        if objects > count {
            return Ok(true);
        }
        if start.elapsed() > Duration::from_secs(60) {
            let _ = child.kill();
            bail!("after a minute only {objects} objects have arrived");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Real Nix collects garbage over and over while we fetch: temporary roots must hold what has arrived.
pub(super) fn gc_from(lab: &Lab<'_>) -> Result<Outcome> {
    let paths = [lab.chain()?];
    let receiver = lab.receiver()?;
    let stop = AtomicBool::new(false);
    let (copied, collections) = std::thread::scope(|scope| {
        let collector = scope.spawn(|| -> Result<usize> {
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                receiver.instance.collect_garbage()?;
                rounds += 1;
            }
            Ok(rounds)
        });
        let copied = lab.candidate.copy(Direction::From, &receiver.store, &lab.source.server, &paths);
        stop.store(true, Ordering::Relaxed);
        (copied, collector.join())
    });
    copied?;
    let collections = collections.map_err(|_| anyhow::anyhow!("the collector panicked"))??;
    // The last collection may have started after the copy's end, and then rightly takes everything: what is left has to be sound.
    let wrong = compare::judge(&receiver.instance, &receiver.store, &[])?;
    Ok(Outcome { wrong, note: format!("{collections} collections"), skipped: None })
}
