//! Faults of the line, and of the processes at its two ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Result;
use rustix::process::Signal;

use super::check;
use super::course::{Course, Kind};
use super::report::Tale;
use super::workshop::{self, Workshop};
use crate::exec;
use crate::interop::lab::{self, Receiver};
use crate::processes::{self, Process};
use crate::relay::{Effect, Line, Relay, Trouble, Way};

/// Bytes per second of a line that became slow: what is left takes some seconds at most.
const SLOW: u32 = 8 << 20;

/// More than a login and the questions behind it carry one way.
const LOGIN: u64 = 256 << 10;

/// What sshd holds of a channel whose command does not read: its window of 2 MiB, and a pipe.
const HELD_BY_SSHD: u64 = (2 << 20) + (64 << 10);

/// How long a login over libssh2 may take while the server is silent: asking a directory, or a person with a telephone. No
/// keep-alive can shorten that, for SSH has none before the login is done.
const LOGIN_PATIENCE: Duration = Duration::from_secs(2 * 60);

/// How long a copy may take that is hit.
fn time_limit(kind: Kind) -> Duration {
    match kind {
        Kind::Stall | Kind::Corrupt => exec::TIME_LIMIT + LOGIN_PATIENCE,
        _ => exec::TIME_LIMIT,
    }
}

/// Copies once with the fault and once without.
pub(super) fn run(workshop: &Workshop, course: &Course) -> Result<Tale> {
    let destination = &workshop.destination;
    let after = course.point.of(workshop.carried(course, course.way)?);
    let whole: u64 = workshop.carried(course, Way::Up)? + workshop.carried(course, Way::Down)?;
    let far = workshop.far(course, destination);
    let daemon = workshop::daemon(course, destination)?;
    let blow = Blow {
        kind: course.kind,
        later: course.later,
        client: Arc::default(),
        listener: far.server.pid(),
        mark: far.server.mark(),
        daemon: daemon.as_ref().map(crate::daemon::Daemon::pid),
        hit: Arc::default(),
    };
    // A path begins anew after a cut, so that one of its size has to pass; to the server, not only to the sshd in front of it, which
    // may be cut before a server that has just started has taken anything from it.
    let most = LOGIN + HELD_BY_SSHD + workshop.largest();
    let effect = match course.kind {
        Kind::Cut => Effect::Cut,
        Kind::Cuts => Effect::Cuts(most + course.point.of(most)),
        Kind::Stall => Effect::Stall,
        Kind::Slow => Effect::Slow(SLOW),
        Kind::Corrupt => Effect::Corrupt,
        _ => blow.clone().into_effect(),
    };
    let trouble = Trouble { way: course.way, after, effect };
    let relay = Relay::with_trouble(far.server.port(), Line::default(), Some(trouble))?;
    let (child, shown) = lab::spawn(&mut workshop.command(course, destination, relay.port(), None))?;
    blow.client.store(child.id(), Ordering::Release);
    let copy = exec::finish_within(child, shown, time_limit(course.kind), Vec::new())?;
    let in_time = if is_blow(course.kind) { blow.has_hit() } else { relay.struck() > 0 };
    let struck = relay.struck();
    let mut carried: u64 = Way::ALL.into_iter().map(|way| relay.carried(way)).sum();
    drop(relay);

    let mut wrong = check::conduct(&copy, if in_time { ends(course.kind) } else { &["exit 0"] });
    check::silence([&workshop.source, destination], daemon.as_ref())?;
    wrong.extend(check::stores(workshop, course, destination)?);

    let (again, carried_again) = once_more(workshop, course, destination)?;
    wrong.extend(check::conduct(&again, &["exit 0"]));
    carried += carried_again;
    check::silence([&workshop.source, destination], daemon.as_ref())?;
    drop(daemon);
    wrong.extend(check::finished(workshop, course, destination)?);
    workshop.sweep()?;
    let twice = carried.saturating_sub(whole);
    let twice = if copy.status.success() && !in_time { 0 } else { twice };
    let note = if struck > 1 { format!("{struck} cuts") } else { String::new() };
    Ok(Tale { in_time, ends: vec![check::end(copy.status)], twice, note, wrong })
}

/// The copy over a line without faults, and what that carried.
fn once_more(workshop: &Workshop, course: &Course, destination: &Receiver) -> Result<(exec::Finished, u64)> {
    let relay = Relay::start(workshop.far(course, destination).server.port(), Line::default())?;
    let copy = exec::capture(&mut workshop.command(course, destination, relay.port(), None))?;
    Ok((copy, Way::ALL.into_iter().map(|way| relay.carried(way)).sum()))
}

/// How a copy may end that was hit.
fn ends(kind: Kind) -> &'static [&'static str] {
    match kind {
        // Nothing is wrong with it.
        Kind::Slow => &["exit 0"],
        Kind::KillClient => &["killed", "exit 0"],
        // What is wrong with a key or a signature is refused.
        Kind::Corrupt => &["exit 3", "exit 5", "exit 6", "exit 0"],
        // Lost, or not reached yet; or it was made good, or came between the last answer and the end.
        _ => &["exit 3", "exit 6", "exit 0"],
    }
}

fn is_blow(kind: Kind) -> bool {
    matches!(kind, Kind::KillClient | Kind::KillSsh | Kind::KillServer | Kind::KillLogin | Kind::KillDaemon)
}

/// A kill that is to come.
#[derive(Clone)]
struct Blow {
    kind: Kind,
    later: Duration,
    /// 0 until it runs.
    client: Arc<AtomicU32>,
    listener: u32,
    mark: String,
    daemon: Option<u32>,
    hit: Arc<AtomicBool>,
}

impl Blow {
    fn into_effect(self) -> Effect {
        Effect::Call(Box::new(move || {
            if self.later.is_zero() {
                // The line waits.
                self.fall();
            } else {
                std::thread::spawn(move || {
                    std::thread::sleep(self.later);
                    self.fall();
                });
            }
        }))
    }

    fn fall(&self) {
        // Somebody who is not there cannot be hit, which the run notices.
        for process in self.victims().unwrap_or_default() {
            if processes::kill(process, Signal::KILL).is_ok() {
                self.hit.store(true, Ordering::Release);
            }
        }
    }

    fn victims(&self) -> Result<Vec<u32>> {
        let client = self.client.load(Ordering::Acquire);
        let found: Vec<Process> = match self.kind {
            Kind::KillClient => return Ok(vec![client]),
            Kind::KillSsh => {
                let mut found = processes::below(client)?;
                found.retain(|process| process.is("ssh"));
                found
            }
            Kind::KillServer => processes::serving(&self.mark)?,
            Kind::KillDaemon => processes::below(self.daemon.unwrap_or_default())?,
            _ => {
                let mut found = processes::below(self.listener)?;
                found.retain(|process| process.starts_with("sshd"));
                found
            }
        };
        Ok(found.into_iter().map(|process| process.pid).collect())
    }

    fn has_hit(&self) -> bool {
        self.hit.load(Ordering::Acquire)
    }
}
