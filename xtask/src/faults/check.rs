//! What has to be true after a fault, and after the run behind it.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::ExitStatus;

use anyhow::{Context, Result};

use super::course::{Course, Kind};
use super::workshop::Workshop;
use crate::daemon::Daemon;
use crate::database;
use crate::exec::Finished;
use crate::instance::LabStore;
use crate::interop::compare;
use crate::interop::lab::{Direction, Receiver};
use crate::processes;

/// How a copy ended, in a word.
pub(super) fn end(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(9)) => "killed".to_owned(),
        (None, signal) => format!("signal {signal:?}"),
    }
}

/// What no copy may do, whatever happens to it; and whether it ended in one of the ways that it may.
pub(super) fn conduct(finished: &Finished, ends: &[&str]) -> Vec<String> {
    let mut wrong = Vec::new();
    if finished.timed_out {
        wrong.push(format!("it hung: {}", finished.describe()));
    }
    if finished.stderr.contains("panicked") {
        wrong.push(finished.describe());
    }
    let end = end(finished.status);
    if !ends.contains(&end.as_str()) {
        wrong.push(format!("expected was {}: {}", ends.join(" or "), finished.describe()));
    } else if end != "exit 0" && end != "killed" && !finished.stderr.contains("error: ") {
        wrong.push(format!("it does not say what was wrong: {}", finished.describe()));
    }
    wrong
}

/// Waits until everything that served the copy has ended, which it does once its line is gone.
pub(super) fn silence(receivers: [&Receiver; 2], daemon: Option<&Daemon>) -> Result<()> {
    for receiver in receivers {
        processes::wait_for_end("a session of sshd", || processes::below(receiver.server.pid()))?;
        processes::wait_for_end("a server of Nix", || processes::serving(&receiver.server.mark()))?;
    }
    if let Some(daemon) = daemon {
        processes::wait_for_end("a worker of the daemon", || processes::below(daemon.pid()))?;
    }
    processes::wait_for_end("an ssh", || {
        let mut left = processes::all()?;
        left.retain(|process| process.is("ssh") && process.has_word("root@127.0.0.1"));
        Ok(left)
    })
}

/// What is wrong with the two stores: nothing may be registered that is not there and whole, nothing held that nobody holds.
pub(super) fn stores(workshop: &Workshop, course: &Course, destination: &Receiver) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    if database::read(&workshop.source.store)? != workshop.rows {
        wrong.push("the source's database has changed".to_owned());
    }
    for receiver in [&workshop.source, destination] {
        wrong.extend(compare::judge(&receiver.instance, &receiver.store, &[])?);
        wrong.extend(held_locks(&receiver.store)?);
    }
    for (path, row) in database::read(&destination.store)? {
        let sent = workshop.rows.get(&path);
        let is_good = sent.map_or(may_have_others(course), |sent| {
            (&sent.hash, sent.nar_size, &sent.references) == (&row.hash, row.nar_size, &row.references)
        });
        if !is_good {
            wrong.push(format!("{path}: registered as {row:?}, the source has {sent:?}"));
        }
    }
    Ok(wrong)
}

/// What is wrong after the run that had to finish the copy.
pub(super) fn finished(workshop: &Workshop, course: &Course, destination: &Receiver) -> Result<Vec<String>> {
    let mut wrong = stores(workshop, course, destination)?;
    let roots = std::slice::from_ref(&workshop.path);
    wrong.extend(compare::judge(&destination.instance, &destination.store, roots)?);
    let arrived = database::read(&destination.store)?;
    let lacking = workshop.rows.keys().filter(|path| !arrived.contains_key(*path)).count();
    if lacking > 0 {
        wrong.push(format!("{lacking} of {} paths have not arrived", workshop.rows.len()));
    }
    Ok(wrong)
}

/// Whether the destination may have taken a path that nobody sent: a server cannot know that a name was garbled on its way.
fn may_have_others(course: &Course) -> bool {
    course.kind == Kind::Garble && course.direction == Direction::To
}

/// Files of a store that somebody has locked, now that nobody is at work.
fn held_locks(store: &LabStore) -> Result<Vec<String>> {
    let state = store.folder().join("nix/var/nix");
    let mut files: Vec<PathBuf> =
        vec![state.join("gc.lock"), state.join("db/big-lock"), state.join("db/reserved")];
    for (folder, suffix) in [(store.store(), ".lock"), (state.join("temproots"), "")] {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        files.extend(
            entries
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.to_string_lossy().ends_with(suffix)),
        );
    }
    let mut held = Vec::new();
    for file in files.into_iter().filter(|file| file.is_file()) {
        let context = || format!("cannot look at {}", file.display());
        let opened = File::open(&file).with_context(context)?;
        match opened.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => held.push(format!("{} is still locked", file.display())),
            Err(fs::TryLockError::Error(error)) => return Err(error).with_context(context),
        }
    }
    Ok(held)
}
