//! Upstream's clients against our server.

use anyhow::{Context, Result};

use super::Outcome;
use crate::database;
use crate::exec;
use crate::instance::{Instance, LabStore};
use crate::interop::compare::{self, Times};
use crate::interop::lab::{Direction, Door, Lab};
use crate::sshd::Settings;

/// An sshd that runs our server over `store`, whatever is asked for.
///
/// Our binary is built for the host, so the instance sees the whole host under /host, and the forced command goes back there.
fn gate(lab: &Lab<'_>, store: &LabStore, write: bool) -> Result<Door> {
    let write = if write { " --write" } else { "" };
    let command = format!(
        "/usr/sbin/chroot /host /usr/bin/env {} --serve{write} --store {}",
        lab.candidate.binary.display(),
        store.folder().display()
    );
    let settings = Settings { force_command: Some(command), ..Settings::default() };
    lab.door(&settings, Instance::bind_host)
}

pub(super) fn to(lab: &Lab<'_>) -> Result<Outcome> {
    copy_to(lab, &lab.mixed.roots())
}

pub(super) fn chain(lab: &Lab<'_>) -> Result<Outcome> {
    copy_to(lab, &[lab.chain()?])
}

fn copy_to(lab: &Lab<'_>, paths: &[String]) -> Result<Outcome> {
    let baseline = lab.baseline(Direction::To, paths)?;
    let store = LabStore::create("served", lab.release.name())?;
    let gate = gate(lab, &store, true)?;
    lab.upstream_copy(Direction::To, &lab.source.instance, &gate.server, paths)
        .with_context(|| gate.server.log())?;
    let mut wrong = compare::stores(&baseline, &store, Times::Kept)?;
    wrong.extend(compare::judge(&lab.inspect(&store)?, &store, paths)?);
    Ok(Outcome::of(wrong))
}

pub(super) fn from(lab: &Lab<'_>) -> Result<Outcome> {
    let mut paths = lab.mixed.roots();
    paths.push(lab.mixed.derivation.clone());
    let baseline = lab.baseline(Direction::From, &paths)?;
    let gate = gate(lab, &lab.source.store, false)?;
    let receiver = lab.receiver()?;
    lab.upstream_copy(Direction::From, &receiver.instance, &gate.server, &paths)
        .with_context(|| gate.server.log())?;
    let mut wrong = compare::stores(&baseline, &receiver.store, Times::Now)?;
    wrong.extend(compare::judge(&receiver.instance, &receiver.store, &paths)?);
    Ok(Outcome::of(wrong))
}

pub(super) fn read_only(lab: &Lab<'_>) -> Result<Outcome> {
    let store = LabStore::create("served", lab.release.name())?;
    let gate = gate(lab, &store, false)?;
    let paths = lab.mixed.roots();
    let mut command = lab.upstream_command(Direction::To, &lab.source.instance, &gate.server, &paths)?;
    let finished = exec::capture(&mut command)?;
    let mut wrong = Vec::new();
    if finished.status.success() {
        wrong.push("upstream's client believes that it copied".to_owned());
    }
    let rows = database::read(&store)?;
    if !rows.is_empty() {
        wrong.push(format!("{} paths were registered", rows.len()));
    }
    Ok(Outcome::of(wrong))
}
