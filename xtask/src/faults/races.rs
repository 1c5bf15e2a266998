//! Several copies at once into one store: ours and upstream's, in both directions, of closures that are the same or overlap.

use std::fmt::Write as _;
use std::process::Command;

use anyhow::Result;

use super::check;
use super::course::{Course, Kind, Near};
use super::report::Tale;
use super::workshop::Workshop;
use crate::daemon::Daemon;
use crate::exec;
use crate::interop::compare;
use crate::interop::lab::{self, Direction, Protocol};
use crate::user::User;

/// How many run at once: as few as can race, or as many as sshd lets in at a time.
const AT_ONCE: [u64; 2] = [2, 8];

pub(super) fn run(workshop: &Workshop, course: &Course) -> Result<Tale> {
    let mut noise = course.noise.clone();
    let destination = &workshop.destination;
    let [few, many] = AT_ONCE;
    let count = if noise.below(2) == 0 { few } else { many };
    let daemon = Daemon::start(&destination.instance)?;
    let paths: Vec<&String> = workshop.rows.keys().collect();
    let mut commands: Vec<(bool, &String, Command)> = Vec::new();
    for _ in 0..count {
        let drawn = Course::draw(noise.next(), 0, &[Kind::Race]);
        let any = usize::try_from(noise.below(paths.len() as u64))?;
        // Half of them want all, the others what some path refers to.
        let path = if noise.below(2) == 0 {
            &workshop.path
        } else {
            paths.get(any).copied().unwrap_or(&workshop.path)
        };
        let is_ours = noise.below(3) > 0;
        let far = workshop.far(&drawn, destination);
        let command = if is_ours {
            workshop.command_for(&drawn, destination, far.server.port(), None, path)
        } else {
            let near = if drawn.direction == Direction::To { &workshop.source } else { destination };
            let program = if drawn.protocol == Protocol::Serve { "nix-copy-closure" } else { "nix" };
            let mut command = lab::client(&workshop.keys, program, &near.instance, &far.server)?;
            if drawn.protocol == Protocol::Daemon {
                command.args(["copy", "--no-check-sigs"]);
            }
            if drawn.near == Near::Daemon {
                command.env("NIX_REMOTE", "daemon");
            }
            command.args([drawn.direction.flag(), &drawn.protocol.url(User::Root), path]);
            command
        };
        commands.push((is_ours, path, command));
    }
    // To make a command writes what the programs read.
    let running = commands
        .into_iter()
        .map(|(is_ours, path, mut command)| Ok((is_ours, path, lab::spawn(&mut command)?)))
        .collect::<Result<Vec<_>>>()?;
    let mut tale = Tale { in_time: true, note: format!("{count} at once"), ..Tale::default() };
    for (is_ours, path, (child, shown)) in running {
        let copy = exec::finish(child, shown)?;
        if is_ours {
            tale.wrong.extend(check::conduct(&copy, &["exit 0"]));
            tale.ends.push(check::end(copy.status));
        } else {
            // What it does is not ours to answer for, as long as the store is well.
            tale.ends.push(format!("upstream's {}", check::end(copy.status)));
            if let (false, Some(said)) = (copy.status.success(), copy.stderr.lines().last()) {
                let _ = write!(tale.note, "; upstream's says: {said}");
            }
        }
        if copy.status.success() {
            let root = std::slice::from_ref(path);
            tale.wrong.extend(compare::judge(&destination.instance, &destination.store, root)?);
        }
    }
    check::silence([&workshop.source, destination], Some(&daemon))?;
    drop(daemon);
    tale.wrong.extend(check::stores(workshop, course, destination)?);
    let port = workshop.far(course, destination).server.port();
    let plain = Course { near: Near::Store, ..course.clone() };
    let copy = exec::capture(&mut workshop.command(&plain, destination, port, None))?;
    tale.wrong.extend(check::conduct(&copy, &["exit 0"]));
    check::silence([&workshop.source, destination], None)?;
    tale.wrong.extend(check::finished(workshop, course, destination)?);
    workshop.sweep()?;
    Ok(tale)
}
