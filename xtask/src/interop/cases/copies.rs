//! Copies that succeed, compared with upstream's own.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use anyhow::{Context, Result};

use super::{Outcome, measure};
use crate::exec::{self, Finished};
use crate::instance::LabStore;
use crate::interop::compare::{self, Times};
use crate::interop::lab::{Direction, Lab};
use crate::sshd::Settings;
use crate::{database, namespace};

/// The promise: 10,000 paths, or one file of 4 GiB.
const MEMORY_LIMIT: u64 = 64 << 20;

pub(super) fn to_mixed(lab: &Lab<'_>) -> Result<Outcome> {
    to(lab, &lab.mixed.roots())
}

pub(super) fn from_mixed(lab: &Lab<'_>) -> Result<Outcome> {
    from(lab, &lab.mixed.roots())
}

pub(super) fn to_derivation(lab: &Lab<'_>) -> Result<Outcome> {
    to(lab, std::slice::from_ref(&lab.mixed.derivation))
}

pub(super) fn from_derivation(lab: &Lab<'_>) -> Result<Outcome> {
    from(lab, std::slice::from_ref(&lab.mixed.derivation))
}

pub(super) fn to_many_files(lab: &Lab<'_>) -> Result<Outcome> {
    to(lab, &[lab.many()?])
}

pub(super) fn from_many_files(lab: &Lab<'_>) -> Result<Outcome> {
    from(lab, &[lab.many()?])
}

pub(super) fn to_chain(lab: &Lab<'_>) -> Result<Outcome> {
    to(lab, &[lab.chain()?])
}

pub(super) fn from_chain(lab: &Lab<'_>) -> Result<Outcome> {
    from(lab, &[lab.chain()?])
}

pub(super) fn to_huge(lab: &Lab<'_>) -> Result<Outcome> {
    huge(lab, Direction::To)
}

pub(super) fn from_huge(lab: &Lab<'_>) -> Result<Outcome> {
    huge(lab, Direction::From)
}

pub(super) fn inside_to(lab: &Lab<'_>) -> Result<Outcome> {
    inside(lab, Direction::To)
}

pub(super) fn inside_from(lab: &Lab<'_>) -> Result<Outcome> {
    inside(lab, Direction::From)
}

/// The candidate where upstream's own client would stand: among the files of a Debian that may be older than whatever it
/// was linked with, with the ssh and the store of that Debian.
fn inside(lab: &Lab<'_>, direction: Direction) -> Result<Outcome> {
    const PLACE: &str = "usr/local/bin/the-candidate";
    let paths = lab.mixed.roots();
    let baseline = lab.baseline(direction, &paths)?;
    let receiver = lab.receiver()?;
    let (near, server) = match direction {
        Direction::To => (&lab.source.instance, &receiver.server),
        Direction::From => (&receiver.instance, &lab.source.server),
    };
    exec::make_folder(near.path(PLACE).parent().context("a folder")?)?;
    fs::copy(&lab.candidate.binary, near.path(PLACE)).context("the candidate cannot be copied")?;
    let mut command = lab.client_command(&format!("/{PLACE}"), direction, near, server, &paths)?;
    exec::capture(&mut command)?.success()?;
    let times = if direction == Direction::To { Times::Kept } else { Times::Now };
    let mut wrong = compare::stores(&baseline, &receiver.store, times)?;
    wrong.extend(compare::judge(&receiver.instance, &receiver.store, &paths)?);
    let binary = fs::read(&lab.candidate.binary).context("no candidate")?;
    // The name of its interpreter would be among the headers.
    let headers = binary.get(..4096).unwrap_or(&binary);
    if headers.windows(8).any(|window| window == b"ld-linux") {
        wrong.push("the candidate is linked dynamically".to_owned());
    }
    Ok(Outcome::of(wrong))
}

/// Copies to an empty remote, compares, copies again.
fn to(lab: &Lab<'_>, paths: &[String]) -> Result<Outcome> {
    let baseline = lab.baseline(Direction::To, paths)?;
    let receiver = lab.receiver()?;
    let finished = lab.candidate.copy(Direction::To, &lab.source.store, &receiver.server, paths)?;
    let mut wrong = compare::stores(&baseline, &receiver.store, Times::Kept)?;
    wrong.extend(compare::judge(&receiver.instance, &receiver.store, paths)?);
    let before = database::read(&receiver.store)?;
    lab.candidate
        .copy(Direction::To, &lab.source.store, &receiver.server, paths)
        .context("the second run")?;
    if database::read(&receiver.store)? != before {
        wrong.push("a second run changed the destination's database".to_owned());
    }
    Ok(outcome(lab, wrong, &finished))
}

/// Fetches into a store that does not exist yet, compares, and lets Nix use the result.
fn from(lab: &Lab<'_>, paths: &[String]) -> Result<Outcome> {
    let baseline = lab.baseline(Direction::From, paths)?;
    let store = LabStore::create("ours", lab.release.name())?;
    let finished = lab.candidate.copy(Direction::From, &store, &lab.source.server, paths)?;
    let mut wrong = compare::stores(&baseline, &store, Times::Now)?;
    let instance = lab.inspect(&store)?;
    wrong.extend(compare::judge(&instance, &store, paths)?);
    let before = database::read(&store)?;
    lab.candidate.copy(Direction::From, &store, &lab.source.server, paths).context("the second run")?;
    if database::read(&store)? != before {
        wrong.push("a second run changed this side's database".to_owned());
    }
    // Real Nix goes on: adds, then collects what nobody roots, which is everything.
    exec::write_file(&instance.path("tmp/more"), "more\n")?;
    let added = instance.run("nix-store", &["--add", "/tmp/more"])?;
    if !database::read(&store)?.contains_key(&added) {
        wrong.push(format!("Nix added {added}, but the database does not have it"));
    }
    instance.collect_garbage()?;
    let left = database::read(&store)?;
    if !left.is_empty() {
        wrong.push(format!("after Nix's garbage collection {} paths are still there", left.len()));
    }
    wrong.extend(compare::unregistered(&store)?);
    Ok(outcome(lab, wrong, &finished))
}

fn outcome(lab: &Lab<'_>, mut wrong: Vec<String>, finished: &Finished) -> Outcome {
    if finished.usage.peak > MEMORY_LIMIT && !lab.candidate.lenient {
        wrong.push(format!(
            "took {} MB of memory, {} are promised",
            finished.usage.peak >> 20,
            MEMORY_LIMIT >> 20
        ));
    }
    Outcome { wrong, note: measure(finished.took, finished.usage.peak), skipped: None }
}

pub(super) fn to_partial(lab: &Lab<'_>) -> Result<Outcome> {
    partial(lab, Direction::To)
}

pub(super) fn from_partial(lab: &Lab<'_>) -> Result<Outcome> {
    partial(lab, Direction::From)
}

/// Upstream copies a part, then both copy the rest: rows that were there stay as they were.
fn partial(lab: &Lab<'_>, direction: Direction) -> Result<Outcome> {
    let part = std::slice::from_ref(&lab.mixed.lib);
    let all = lab.mixed.roots();
    let [upstream, ours] = [lab.receiver()?, lab.receiver()?];
    for receiver in [&upstream, &ours] {
        match direction {
            Direction::To => lab.upstream_copy(direction, &lab.source.instance, &receiver.server, part)?,
            Direction::From => lab.upstream_copy(direction, &receiver.instance, &lab.source.server, part)?,
        }
    }
    let times = match direction {
        Direction::To => {
            lab.upstream_copy(direction, &lab.source.instance, &upstream.server, &all)?;
            lab.candidate.copy(direction, &lab.source.store, &ours.server, &all)?;
            Times::Kept
        }
        Direction::From => {
            lab.upstream_copy(direction, &upstream.instance, &lab.source.server, &all)?;
            lab.candidate.copy(direction, &ours.store, &lab.source.server, &all)?;
            Times::Now
        }
    };
    let mut wrong = compare::stores(&upstream.store, &ours.store, times)?;
    wrong.extend(compare::judge(&ours.instance, &ours.store, &all)?);
    Ok(Outcome::of(wrong))
}

pub(super) fn to_link(lab: &Lab<'_>) -> Result<Outcome> {
    let baseline = lab.baseline(Direction::To, std::slice::from_ref(&lab.mixed.top))?;
    let receiver = lab.receiver()?;
    let link = lab.source.store.folder().join("result");
    let _ = std::fs::remove_file(&link);
    symlink(&lab.mixed.top, &link)?;
    let arguments = [link.display().to_string(), format!("{}/bin/hello", lab.mixed.dep)];
    lab.candidate.copy(Direction::To, &lab.source.store, &receiver.server, &arguments)?;
    Ok(Outcome::of(compare::stores(&baseline, &receiver.store, Times::Kept)?))
}

pub(super) fn to_host_port(lab: &Lab<'_>) -> Result<Outcome> {
    if lab.candidate.lenient {
        return Ok(Outcome::skip("upstream understands host:port only since 2.31"));
    }
    let paths = std::slice::from_ref(&lab.mixed.lib);
    let receiver = lab.receiver()?;
    let mut command = lab.candidate.bare(&receiver.server);
    command
        .env("NIX_SSHOPTS", receiver.server.ssh_options())
        .args(["--to", "--store"])
        .arg(lab.source.store.folder())
        .arg(format!("root@127.0.0.1:{}", receiver.server.port()))
        .args(paths);
    exec::capture(&mut command)?.success()?;
    let baseline = lab.baseline(Direction::To, paths)?;
    Ok(Outcome::of(compare::stores(&baseline, &receiver.store, Times::Kept)?))
}

pub(super) fn to_noise(lab: &Lab<'_>) -> Result<Outcome> {
    if lab.candidate.lenient {
        return Ok(Outcome::skip("upstream takes noise for a wrong protocol"));
    }
    let paths = lab.mixed.roots();
    let settings = Settings { force_command: Some("/lab/noisy".to_owned()), ..Settings::default() };
    let receiver = lab.receiver_with(&settings, |instance| {
        instance.script("lab/noisy", "echo 'Welcome to this machine!'\nprintf 'no newline at the end: '\nexec nix-store --serve --write\n")
    })?;
    lab.candidate.copy(Direction::To, &lab.source.store, &receiver.server, &paths)?;
    let baseline = lab.baseline(Direction::To, &paths)?;
    Ok(Outcome::of(compare::stores(&baseline, &receiver.store, Times::Kept)?))
}

pub(super) fn to_localhost(lab: &Lab<'_>) -> Result<Outcome> {
    if lab.candidate.lenient {
        return Ok(Outcome::skip("upstream has no --remote-store"));
    }
    let paths = lab.mixed.roots();
    let store = LabStore::create("localhost", lab.release.name())?;
    let mut command = Command::new(&lab.candidate.binary);
    // No ssh in sight: a program that starts it anyway shows.
    command.env_clear().env("PATH", "/nowhere").args(["--to", "--store"]).arg(lab.source.store.folder());
    command.arg("--remote-store").arg(store.folder()).arg("localhost").args(&paths);
    exec::capture(&mut command)?.success()?;
    let baseline = lab.baseline(Direction::To, &paths)?;
    let mut wrong = compare::stores(&baseline, &store, Times::Kept)?;
    wrong.extend(compare::judge(&lab.inspect(&store)?, &store, &paths)?);
    Ok(Outcome::of(wrong))
}

/// No baseline by upstream, it would take another 4 GiB: the source says what has to arrive, and Nix hashes it.
fn huge(lab: &Lab<'_>, direction: Direction) -> Result<Outcome> {
    let path = lab.huge()?;
    let paths = std::slice::from_ref(&path);
    let free = rustix::fs::statvfs(namespace::run_folder()).context("cannot ask for free space")?;
    if free.f_bavail * free.f_frsize < 6 << 30 {
        return Ok(Outcome::skip("needs 6 GiB of free memory"));
    }
    let receiver = lab.receiver()?;
    let finished = match direction {
        Direction::To => lab.candidate.copy(direction, &lab.source.store, &receiver.server, paths)?,
        Direction::From => lab.candidate.copy(direction, &receiver.store, &lab.source.server, paths)?,
    };
    let mut wrong = Vec::new();
    let (expected, actual) = (database::read(&lab.source.store)?, database::read(&receiver.store)?);
    let size = |rows: &std::collections::BTreeMap<String, database::Row>| {
        rows.get(&path).map(|row| (row.hash.clone(), row.nar_size))
    };
    if size(&expected) != size(&actual) || actual.len() != 1 {
        wrong.push(format!(
            "{path}: {:?} at the source, {:?} at the destination",
            size(&expected),
            size(&actual)
        ));
    }
    wrong.extend(compare::judge(&receiver.instance, &receiver.store, paths)?);
    wrong.extend(compare::unregistered(&receiver.store)?);
    Ok(outcome(lab, wrong, &finished))
}
