//! One side that has too little of something: room, names for files, open files, or leave to write.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::statvfs;

use super::check;
use super::course::{Course, Kind, Side};
use super::report::Tale;
use super::workshop::{self, Workshop};
use crate::exec::{self, Finished};
use crate::instance::{self, LabStore, Part};
use crate::interop::lab::Receiver;
use crate::relay::{Effect, Line, Relay, Trouble};

/// More than everything takes.
const ENOUGH: u64 = 256 << 20;
const ENOUGH_FILES: u64 = 100_000;

/// What a file system rounds sizes to.
const PAGE: u64 = 4 << 10;

/// What the database and its log need for the closure, about.
const DATABASE: u64 = 3 << 20;

/// How often a file system is asked to become read-only, which it refuses while a file is being written.
const ATTEMPTS: usize = 2_000;

pub(super) fn run(workshop: &Workshop, course: &Course) -> Result<Tale> {
    match course.kind {
        Kind::Full => full(workshop, course),
        Kind::ReadOnly => read_only(workshop, course),
        _ => files(workshop, course),
    }
}

/// Something of the destination is a file system that the copy does not fit into: the objects by their bytes or by the number of
/// their files, or the database.
fn full(workshop: &Workshop, course: &Course) -> Result<Tale> {
    let store = LabStore::create("destination", "full")?;
    let (note, part) = match course.noise.clone().below(3) {
        0 => ("of bytes", Part::Objects),
        1 => ("of files", Part::Objects),
        _ => ("of the database", Part::State),
    };
    store.limit(part, ENOUGH, ENOUGH_FILES)?;
    let destination = workshop.destination_on(store)?;
    // What it has before anything is copied, and a share of what it would need.
    let has = statvfs(destination.store.folder_of(part)).context("cannot look at a file system")?;
    let bytes = (has.f_blocks - has.f_bfree) * has.f_frsize;
    let files = has.f_files - has.f_ffree;
    let (bytes, files) = match (note, part) {
        ("of files", _) => {
            let all = exec::run("find", [workshop.source.store.store()])?.text().lines().count() as u64;
            (ENOUGH, files + 1 + course.point.of(all))
        }
        (_, Part::Objects) => (bytes + PAGE + course.point.of(workshop.bytes()), ENOUGH_FILES),
        (_, Part::State) => (bytes + PAGE + course.point.of(DATABASE), ENOUGH_FILES),
    };
    destination.store.resize(part, bytes, files)?;
    let copy = direct(workshop, course, &destination)?;
    let mut wrong = check::conduct(&copy, &["exit 1", "exit 6", "exit 0"]);
    let says_so = ["No space left on device", "disk is full", "disk I/O error"]
        .iter()
        .any(|text| copy.stderr.contains(text));
    if !copy.status.success() && !says_so {
        wrong.push(format!("it does not say that there is no room: {}", copy.describe()));
    }
    destination.store.resize(part, ENOUGH, ENOUGH_FILES)?;
    finish(workshop, course, &destination, &copy, wrong, note)
}

/// The destination's store becomes read-only in the middle.
fn read_only(workshop: &Workshop, course: &Course) -> Result<Tale> {
    let after = course.point.of(workshop.carried(course, course.way)?);
    let store = LabStore::create("destination", "frozen")?;
    store.limit(Part::Objects, ENOUGH, ENOUGH_FILES)?;
    let destination = workshop.destination_on(store)?;
    let (folder, over, frozen) =
        (destination.store.store(), Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    // Nobody holds the sender any more once the freezer has ended.
    let (freezing, freezer) = mpsc::channel::<()>();
    let freeze = {
        let (over, frozen) = (Arc::clone(&over), Arc::clone(&frozen));
        move || {
            let _freezing = freezing;
            for _ in 0..ATTEMPTS {
                if over.load(Ordering::Acquire) {
                    return;
                }
                if instance::freeze(&folder).is_ok() {
                    frozen.store(true, Ordering::Release);
                    return;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    };
    // Not on the line: what is being written has to come to its end.
    let effect = Effect::Call(Box::new(move || drop(std::thread::spawn(freeze))));
    let trouble = Trouble { way: course.way, after, effect };
    let far = workshop.far(course, &destination);
    let relay = Relay::with_trouble(far.server.port(), Line::default(), Some(trouble))?;
    let daemon = workshop::daemon(course, &destination)?;
    let copy = exec::capture(&mut workshop.command(course, &destination, relay.port(), None))?;
    drop(daemon);
    over.store(true, Ordering::Release);
    drop(relay);
    let _ = freezer.recv();
    let ends: &[&str] =
        if frozen.load(Ordering::Acquire) { &["exit 1", "exit 6", "exit 0"] } else { &["exit 0"] };
    let wrong = check::conduct(&copy, ends);
    // First: real Nix does not open a store that it cannot write.
    destination.store.resize(Part::Objects, ENOUGH, ENOUGH_FILES)?;
    finish(workshop, course, &destination, &copy, wrong, "")
}

/// The program, or what it speaks with, may have only a few files open.
fn files(workshop: &Workshop, course: &Course) -> Result<Tale> {
    let most = 5 + course.noise.clone().below(18);
    let destination = &workshop.destination;
    let far = workshop.far(course, destination);
    let daemon = workshop::daemon(course, destination)?;
    let mut command;
    if course.side == Side::Server {
        let script = format!("ulimit -n {most}\nexec {} \"$@\"\n", workshop::server(course));
        far.instance.script("lab/limited", &script)?;
        command = workshop.command(course, destination, far.server.port(), Some("/lab/limited"));
    } else {
        let all = workshop.command(course, destination, far.server.port(), None);
        command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {most}\nexec \"$@\""), "sh"]);
        command.arg(all.get_program()).args(all.get_args()).env_clear();
        command.envs(all.get_envs().filter_map(|(name, value)| Some((name, value?))));
    }
    let copy = exec::capture(&mut command)?;
    drop(daemon);
    let wrong = check::conduct(&copy, &["exit 1", "exit 3", "exit 6", "exit 0"]);
    let note = format!("{most} files at the {:?}", course.side).to_lowercase();
    let tale = finish(workshop, course, destination, &copy, wrong, &note)?;
    workshop.sweep()?;
    Ok(tale)
}

/// The copy without a line in between.
fn direct(workshop: &Workshop, course: &Course, destination: &Receiver) -> Result<Finished> {
    let daemon = workshop::daemon(course, destination)?;
    let port = workshop.far(course, destination).server.port();
    let copy = exec::capture(&mut workshop.command(course, destination, port, None))?;
    check::silence([&workshop.source, destination], daemon.as_ref())?;
    Ok(copy)
}

/// Looks at what the fault left, now that it is mended, and lets the copy be finished.
pub(super) fn finish(
    workshop: &Workshop,
    course: &Course,
    destination: &Receiver,
    copy: &Finished,
    mut wrong: Vec<String>,
    note: &str,
) -> Result<Tale> {
    check::silence([&workshop.source, destination], None)?;
    wrong.extend(check::stores(workshop, course, destination)?);
    wrong.extend(check::conduct(&direct(workshop, course, destination)?, &["exit 0"]));
    wrong.extend(check::finished(workshop, course, destination)?);
    let ends = vec![check::end(copy.status)];
    Ok(Tale { in_time: !copy.status.success(), ends, wrong, note: note.to_owned(), ..Tale::default() })
}
