//! Who may write: sudo, and a store that is mounted read-only.

use std::fs;

use anyhow::Result;

use super::Outcome;
use crate::exec;
use crate::instance::LabStore;
use crate::interop::compare::{self, Times};
use crate::interop::lab::{Direction, Lab};
use crate::sshd::Settings;
use crate::user::User;

pub(super) fn sudo_to(lab: &Lab<'_>) -> Result<Outcome> {
    if lab.candidate.lenient {
        return Ok(Outcome::skip("upstream has no --remote-sudo"));
    }
    let user = User::Untrusted.name();
    let receiver = lab.receiver_with(&Settings::default(), |instance| {
        exec::write_file(&instance.path("etc/sudoers.d/lab"), format!("{user} ALL=(ALL) NOPASSWD: ALL\n"))
    })?;
    let paths = lab.mixed.roots();
    let mut command = lab.candidate.bare(&receiver.server);
    command
        .args(["--remote-sudo", "--store"])
        .arg(lab.source.store.folder())
        .arg(format!("{user}@127.0.0.1"))
        .args(&paths);
    exec::capture(&mut command)?.success()?;
    let baseline = lab.baseline(Direction::To, &paths)?;
    Ok(Outcome::of(compare::stores(&baseline, &receiver.store, Times::Kept)?))
}

pub(super) fn read_only_mount_from(lab: &Lab<'_>) -> Result<Outcome> {
    if lab.candidate.lenient {
        return Ok(Outcome::skip("upstream's client runs inside of the root, where nothing is mounted so"));
    }
    let paths = lab.mixed.roots();
    let store = LabStore::create("protected", lab.release.name())?;
    // As on NixOS the store exists already.
    let part = std::slice::from_ref(&lab.mixed.note);
    lab.candidate.copy(Direction::From, &store, &lab.source.server, part)?;
    store.protect()?;
    let finished =
        exec::capture(&mut lab.candidate.command(Direction::From, &store, &lab.source.server, &paths));
    let outside = fs::write(store.store().join("probe"), "");
    store.unprotect()?;
    finished?.success()?;
    let mut wrong = Vec::new();
    if outside.is_ok() {
        wrong.push("the store is writable for everybody now".to_owned());
    }
    let baseline = lab.baseline(Direction::From, &paths)?;
    wrong.extend(compare::stores(&baseline, &store, Times::Now)?);
    wrong.extend(compare::judge(&lab.inspect(&store)?, &store, &paths)?);
    Ok(Outcome::of(wrong))
}
