//! There and back between stores in folders, the way there twice at once: what upstream's own functional test of copying over
//! ssh (`nix-copy-ssh`) asks, with our program at either end.

use std::process::Command;

use anyhow::{Context, Result};

use super::Outcome;
use crate::exec;
use crate::instance::{Instance, LabStore};
use crate::interop::compare::{self, Times};
use crate::interop::lab::{Direction, Lab, spawn};
use crate::sshd::Settings;

/// Our server as a program that the client may name, inside an instance.
const SERVER: &str = "/lab/our-server";

/// Upstream's `nix copy` names our program, and the store that it is to serve.
pub(super) fn server(lab: &Lab<'_>) -> Result<Outcome> {
    let served = LabStore::create("round", lab.release.name())?;
    let door = lab.door(&Settings::default(), |instance| install_server(lab, instance))?;
    let store = served.folder().display();
    let url = format!("ssh://root@127.0.0.1?remote-program={SERVER}&remote-store={store}");
    let paths = lab.mixed.roots();

    let near = &lab.source.instance;
    let there = || lab.nix_copy(Direction::To, near, &door.server, &url, &paths);
    both(there()?, there()?).with_context(|| door.server.log())?;
    let mut wrong = arrived(lab, Direction::To, &served, &paths)?;

    let receiver = lab.receiver()?;
    let mut back = lab.nix_copy(Direction::From, &receiver.instance, &door.server, &url, &paths)?;
    exec::capture(&mut back)?.success().with_context(|| door.server.log())?;
    wrong.extend(arrived(lab, Direction::From, &receiver.store, &paths)?);
    Ok(Outcome::of(wrong))
}

/// Our client names the remote's `nix-store`, and a store that is not the one of that system.
pub(super) fn client(lab: &Lab<'_>) -> Result<Outcome> {
    if lab.candidate.lenient {
        return Ok(Outcome::skip("upstream's nix-copy-closure takes no parameters"));
    }
    let served = LabStore::create("round", lab.release.name())?;
    let door = lab.door(&Settings::default(), |instance| instance.bind(served.folder(), "round"))?;
    let copy = |direction: Direction, store: &LabStore| {
        let mut command = lab.candidate.bare(&door.server);
        command
            .arg(direction.flag())
            .arg("--store")
            .arg(store.folder())
            .arg("ssh://root@127.0.0.1?remote-program=nix-store&remote-store=/round")
            .args(lab.mixed.roots());
        command
    };
    let paths = lab.mixed.roots();

    let there = || copy(Direction::To, &lab.source.store);
    // Two Nix 2.3.7 that make the same new database at once can find it busy: a look makes it.
    exec::capture(there().arg("--dry-run"))?.success()?;
    both(there(), there())?;
    let mut wrong = arrived(lab, Direction::To, &served, &paths)?;

    let receiver = LabStore::create("back", lab.release.name())?;
    exec::capture(&mut copy(Direction::From, &receiver))?.success()?;
    wrong.extend(arrived(lab, Direction::From, &receiver, &paths)?);
    Ok(Outcome::of(wrong))
}

/// Our binary is built for the host.
fn install_server(lab: &Lab<'_>, instance: &mut Instance) -> Result<()> {
    instance.lend(&lab.candidate.binary.display().to_string(), SERVER)
}

/// Two copies of the same paths to the same place, at the same time; both must succeed.
fn both(mut first: Command, mut second: Command) -> Result<()> {
    let (first, second) = (spawn(&mut first)?, spawn(&mut second)?);
    let ended = [exec::finish(first.0, first.1), exec::finish(second.0, second.1)];
    for finished in ended {
        finished?.success()?;
    }
    Ok(())
}

/// What differs from upstream's own copy of the same paths, and what Nix finds wrong.
fn arrived(lab: &Lab<'_>, direction: Direction, store: &LabStore, paths: &[String]) -> Result<Vec<String>> {
    let baseline = lab.baseline(direction, paths)?;
    let times = if direction == Direction::To { Times::Kept } else { Times::Now };
    let mut wrong = compare::stores(&baseline, store, times)?;
    wrong.extend(compare::judge(&lab.inspect(store)?, store, paths)?);
    Ok(wrong)
}
