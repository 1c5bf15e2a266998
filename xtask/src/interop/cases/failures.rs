//! Copies that must fail: exit 1 (3 where the host is not reached), a message that names what is wrong, and nothing half registered.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};

use super::Outcome;
use crate::exec::{self, Finished};
use crate::instance::{self, Instance, LabStore, Part};
use crate::interop::compare;
use crate::interop::lab::{Direction, Lab, Receiver};
use crate::sshd::Settings;
use crate::{database, wire};

/// How messages name the remote side.
const HOST: &str = "127.0.0.1";

/// The exit code of a copy that lost its host on the way.
pub(super) const LOST: i32 = 6;

/// Runs the candidate, which has to exit 1 and say every word.
fn refuse(lab: &Lab<'_>, finished: &Finished, words: &[&str]) -> Vec<String> {
    refuse_with(lab, finished, 1, words)
}

/// The same with another exit code; upstream has but one.
fn refuse_with(lab: &Lab<'_>, finished: &Finished, code: i32, words: &[&str]) -> Vec<String> {
    let code = if lab.candidate.lenient { 1 } else { code };
    let mut wrong = Vec::new();
    let said = finished.stderr.to_lowercase();
    if finished.timed_out {
        wrong.push("it hung".to_owned());
    }
    if finished.status.code() != Some(code) {
        wrong.push(format!("exit {code} expected: {}", finished.describe()));
    }
    if !lab.candidate.lenient {
        for word in words.iter().filter(|word| !said.contains(&word.to_lowercase())) {
            wrong.push(format!("stderr does not name {word:?}: {}", finished.stderr.trim()));
        }
        if finished.stderr.contains("panicked") {
            wrong.push("it panicked".to_owned());
        }
    }
    wrong
}

fn attempt(
    lab: &Lab<'_>,
    direction: Direction,
    store: &LabStore,
    receiver: &Receiver,
    paths: &[String],
) -> Result<Finished> {
    let command = lab.candidate.command(direction, store, &receiver.server, paths);
    exec::capture(&mut lab.candidate.once(command))
}

/// What is registered must be whole; with `empty`, nothing may be.
pub(super) fn sound(instance: &Instance, store: &LabStore, empty: bool) -> Result<Vec<String>> {
    let mut wrong = compare::judge(instance, store, &[])?;
    let rows = database::read(store)?;
    if empty && !rows.is_empty() {
        wrong.push(format!("{} paths were registered: {:?}", rows.len(), rows.keys().next()));
    }
    Ok(wrong)
}

pub(super) fn bad_argument(lab: &Lab<'_>) -> Result<Outcome> {
    let receiver = lab.receiver()?;
    let finished = attempt(lab, Direction::To, &lab.source.store, &receiver, &["/etc/passwd".to_owned()])?;
    let mut wrong = refuse(lab, &finished, &["/etc/passwd"]);
    wrong.extend(sound(&receiver.instance, &receiver.store, true)?);
    Ok(Outcome::of(wrong))
}

pub(super) fn invalid_path_to(lab: &Lab<'_>) -> Result<Outcome> {
    let absent = wire::store_path("lab-absent");
    let receiver = lab.receiver()?;
    let paths = [lab.mixed.top.clone(), absent.clone()];
    let finished = attempt(lab, Direction::To, &lab.source.store, &receiver, &paths)?;
    let mut wrong = refuse(lab, &finished, &[&absent]);
    wrong.extend(sound(&receiver.instance, &receiver.store, true)?);
    Ok(Outcome::of(wrong))
}

pub(super) fn invalid_path_from(lab: &Lab<'_>) -> Result<Outcome> {
    let absent = wire::store_path("lab-absent");
    let store = LabStore::create("ours", lab.release.name())?;
    let finished = attempt(lab, Direction::From, &store, &lab.source, std::slice::from_ref(&absent))?;
    let wrong = refuse(lab, &finished, &[&absent, HOST]);
    Ok(Outcome::of(wrong))
}

pub(super) fn connection_refused(lab: &Lab<'_>) -> Result<Outcome> {
    let receiver = lab.receiver()?;
    let mut command =
        lab.candidate.command(Direction::To, &lab.source.store, &receiver.server, &lab.mixed.roots());
    drop(receiver);
    let finished = exec::capture(&mut command)?;
    Ok(Outcome::of(refuse_with(lab, &finished, 3, &[HOST, "Connection refused", "hint:"])))
}

/// A receiver that answers with a script of ours instead of nix-store.
fn impostor(lab: &Lab<'_>, body: &str) -> Result<Receiver> {
    let settings = Settings { force_command: Some("/lab/impostor".to_owned()), ..Settings::default() };
    lab.receiver_with(&settings, |instance| instance.script("lab/impostor", body))
}

pub(super) fn no_nix_store(lab: &Lab<'_>) -> Result<Outcome> {
    let receiver = lab.receiver()?;
    // Upstream's own nix-copy-closure too: it would be taken for ours, which can serve.
    let programs = ["nix-store", "nix-daemon", "nix-copy-closure"]
        .map(|name| receiver.instance.path("usr/bin").join(name));
    for program in &programs {
        fs::rename(program, program.with_extension("away")).context("cannot hide a program")?;
    }
    let finished = attempt(lab, Direction::To, &lab.source.store, &receiver, &lab.mixed.roots())?;
    for program in &programs {
        fs::rename(program.with_extension("away"), program).context("cannot bring back a program")?;
    }
    let mut wrong = refuse(lab, &finished, &[HOST, "nix-store", "looked for", "hint:"]);
    wrong.extend(sound(&receiver.instance, &receiver.store, true)?);
    Ok(Outcome::of(wrong))
}

pub(super) fn wrong_version(lab: &Lab<'_>) -> Result<Outcome> {
    let hello = r"printf '\xcb\xee\x52\x54\0\0\0\0\0\x03\0\0\0\0\0\0'; cat > /dev/null";
    let receiver = impostor(lab, hello)?;
    let finished = attempt(lab, Direction::To, &lab.source.store, &receiver, &lab.mixed.roots())?;
    Ok(Outcome::of(refuse(lab, &finished, &[HOST, "version"])))
}

/// dd, one byte at a time: head would hold the handshake back in its buffer, and both sides would wait.
pub(super) fn truncated_to(lab: &Lab<'_>) -> Result<Outcome> {
    let receiver = impostor(lab, "exec nix-store --serve --write < <(dd bs=1 count=5000 status=none)")?;
    let finished = attempt(lab, Direction::To, &lab.source.store, &receiver, &lab.mixed.roots())?;
    // Nix says that its input has ended: the line broke.
    let mut wrong = refuse_with(lab, &finished, LOST, &[HOST]);
    wrong.extend(sound(&receiver.instance, &receiver.store, false)?);
    Ok(Outcome::of(wrong))
}

pub(super) fn truncated_from(lab: &Lab<'_>) -> Result<Outcome> {
    let settings = Settings { force_command: Some("/lab/impostor".to_owned()), ..Settings::default() };
    let door = lab.door(&settings, |instance| {
        instance
            .script("lab/impostor", "exec nix-store --serve > >(dd bs=1 count=7000 status=none; kill -9 $$)")
    })?;
    let store = LabStore::create("ours", lab.release.name())?;
    let command = lab.candidate.command(Direction::From, &store, &door.server, &lab.mixed.roots());
    let finished = exec::capture(&mut lab.candidate.once(command))?;
    let mut wrong = refuse_with(lab, &finished, LOST, &[HOST]);
    wrong.extend(sound(&lab.inspect(&store)?, &store, false)?);
    Ok(Outcome::of(wrong))
}

/// Bytes of the small store: the path of 10,000 files needs ten times that.
const SMALL: u64 = 4 << 20;
/// Files that it could have: more than bytes for them.
const MANY: u64 = 100_000;

pub(super) fn disk_full_to(lab: &Lab<'_>) -> Result<Outcome> {
    let store = LabStore::create("small", lab.release.name())?;
    store.limit(Part::Objects, SMALL, MANY)?;
    let receiver = lab.receiver_on(store)?;
    let paths = [lab.mixed.top.clone(), lab.many()?];
    let finished = attempt(lab, Direction::To, &lab.source.store, &receiver, &paths)?;
    let mut wrong = refuse(lab, &finished, &[HOST, "No space left", "hint: the disk of the host is full"]);
    wrong.extend(sound(&receiver.instance, &receiver.store, false)?);
    Ok(Outcome::of(wrong))
}

pub(super) fn disk_full_from(lab: &Lab<'_>) -> Result<Outcome> {
    let store = LabStore::create("small", lab.release.name())?;
    store.limit(Part::Objects, SMALL, MANY)?;
    let many = lab.many()?;
    let finished =
        attempt(lab, Direction::From, &store, &lab.source, &[lab.mixed.top.clone(), many.clone()])?;
    let mut wrong = refuse(lab, &finished, &[&many, "No space left"]);
    wrong.extend(sound(&lab.inspect(&store)?, &store, false)?);
    Ok(Outcome::of(wrong))
}

pub(super) fn unwritable_to(lab: &Lab<'_>) -> Result<Outcome> {
    let store = LabStore::create("unwritable", lab.release.name())?;
    store.limit(Part::Objects, SMALL, MANY)?;
    let receiver = lab.receiver_on(store)?;
    instance::freeze(&receiver.store.store())?;
    let finished = attempt(lab, Direction::To, &lab.source.store, &receiver, &lab.mixed.roots())?;
    let mut wrong = refuse(lab, &finished, &[HOST, "read-only"]);
    wrong.extend(registered(&receiver.store)?);
    Ok(Outcome::of(wrong))
}

pub(super) fn unwritable_from(lab: &Lab<'_>) -> Result<Outcome> {
    let store = LabStore::create("unwritable", lab.release.name())?;
    store.limit(Part::Objects, SMALL, MANY)?;
    instance::freeze(&store.store())?;
    let finished = attempt(lab, Direction::From, &store, &lab.source, &lab.mixed.roots())?;
    let mut wrong = refuse(lab, &finished, &["/nix/store", "read-only"]);
    wrong.extend(registered(&store)?);
    Ok(Outcome::of(wrong))
}

/// A frozen store cannot be judged by Nix; it has to be empty.
fn registered(store: &LabStore) -> Result<Vec<String>> {
    let rows = database::read(store)?;
    Ok(rows.keys().map(|path| format!("{path} was registered")).collect())
}

/// What happens to an object behind the database's back.
#[derive(Clone, Copy)]
pub(super) enum Damage {
    Changed,
    Longer,
    Shorter,
    Missing,
}

pub(super) fn damage(store: &LabStore, path: &str, damage: Damage) -> Result<()> {
    let real = store.real(path);
    if let Damage::Missing = damage {
        return fs::remove_dir_all(&real).with_context(|| format!("cannot remove {}", real.display()));
    }
    let file = real.join("bin/hello");
    let mut content = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    match damage {
        Damage::Changed => content[0] ^= 1,
        Damage::Longer => content.extend([b'x'; 100]),
        Damage::Shorter => content.truncate(3),
        Damage::Missing => {}
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    exec::write_file(&file, content)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o555))?;
    Ok(())
}

pub(super) fn corrupt_to(lab: &Lab<'_>) -> Result<Outcome> {
    corrupt(lab, Direction::To, Damage::Changed)
}

pub(super) fn corrupt_to_longer(lab: &Lab<'_>) -> Result<Outcome> {
    corrupt(lab, Direction::To, Damage::Longer)
}

pub(super) fn corrupt_to_shorter(lab: &Lab<'_>) -> Result<Outcome> {
    corrupt(lab, Direction::To, Damage::Shorter)
}

pub(super) fn corrupt_to_missing(lab: &Lab<'_>) -> Result<Outcome> {
    corrupt(lab, Direction::To, Damage::Missing)
}

pub(super) fn corrupt_from(lab: &Lab<'_>) -> Result<Outcome> {
    corrupt(lab, Direction::From, Damage::Changed)
}

pub(super) fn corrupt_from_longer(lab: &Lab<'_>) -> Result<Outcome> {
    corrupt(lab, Direction::From, Damage::Longer)
}

pub(super) fn corrupt_from_missing(lab: &Lab<'_>) -> Result<Outcome> {
    corrupt(lab, Direction::From, Damage::Missing)
}

/// The damaged path must be named, and neither it nor what refers to it may become valid at the destination.
fn corrupt(lab: &Lab<'_>, direction: Direction, kind: Damage) -> Result<Outcome> {
    let paths = lab.mixed.roots();
    let source = lab.small_source("damaged", &paths)?;
    damage(&source.store, &lab.mixed.dep, kind)?;
    let receiver = lab.receiver()?;
    let finished = match direction {
        Direction::To => attempt(lab, direction, &source.store, &receiver, &paths)?,
        Direction::From => attempt(lab, direction, &receiver.store, &source, &paths)?,
    };
    let mut wrong = refuse(lab, &finished, &[&lab.mixed.dep]);
    let rows = database::read(&receiver.store)?;
    for path in [&lab.mixed.dep, &lab.mixed.lib, &lab.mixed.top] {
        if rows.contains_key(path) {
            wrong.push(format!("{path} was registered at the destination"));
        }
    }
    wrong.extend(sound(&receiver.instance, &receiver.store, false)?);
    Ok(Outcome::of(wrong))
}
