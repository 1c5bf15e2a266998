//! Who copies, and over which protocol: every user at both ends, with Nix's daemon at both ends.

use std::process::Command;

use anyhow::{Context, Result};

use super::Outcome;
use super::failures::sound;
use crate::daemon::{Daemon, SOCKET};
use crate::database;
use crate::exec::{self, Finished};
use crate::fixtures;
use crate::instance::{Instance, LabStore};
use crate::interop::compare::{self, Times};
use crate::interop::kit;
use crate::interop::lab::{Direction, Lab, Protocol, Receiver};
use crate::sshd::Settings;
use crate::user::User;

/// One field of the grid: the candidate runs as `user` in the root of one end, with that root's ssh, and logs in to the other as the
/// same `user`. Whoever is not root reaches either store through its daemon alone.
pub(super) fn field(lab: &Lab<'_>, direction: Direction, protocol: Protocol, user: User) -> Result<Outcome> {
    if lab.candidate.lenient && protocol == Protocol::Daemon {
        return Ok(Outcome::skip("upstream's nix-copy-closure does not speak it"));
    }
    let receiver =
        lab.receiver_with(&Settings::default(), |instance| instance.bind(lab.kit.folder(), kit::PLACE))?;
    let (near, far) = match direction {
        Direction::To => (&lab.source, &receiver),
        Direction::From => (&receiver, &lab.source),
    };
    let _source = Daemon::start(&lab.source.instance)?;
    let mut destination = Daemon::start(&receiver.instance)?;
    let mut wrong = Vec::new();
    if user == User::Untrusted {
        let finished = exec::capture(&mut copy(lab, direction, protocol, user, near, far)?)?;
        wrong.extend(refused(lab, &finished, &receiver)?);
        drop(destination);
        receiver.instance.append("etc/nix/nix.conf", &trusted_key())?;
        destination = Daemon::start(&receiver.instance)?;
    }
    let finished = exec::capture(&mut copy(lab, direction, protocol, user, near, far)?)?.success()?;
    drop(destination);
    if !lab.candidate.lenient {
        // Otherwise the field would show something else.
        wrong.extend(told(&finished, "asked through 'nix-daemon --stdio'", protocol == Protocol::Daemon));
        let adds = format!("the daemon at '{SOCKET}' adds the paths");
        wrong.extend(told(&finished, &adds, direction == Direction::From && user != User::Root));
    }
    let baseline = lab.upstream_result(direction, protocol)?;
    // Only the daemon's protocol says when a path was registered at the source.
    let times =
        if (direction, protocol) == (Direction::From, Protocol::Serve) { Times::Now } else { Times::Kept };
    wrong.extend(compare::stores(&baseline, &receiver.store, times)?);
    // The processes of the daemon of 2.34 leave theirs; nobody holds them, and the next collection removes them.
    wrong.retain(|line| !line.starts_with("temproots/"));
    wrong.extend(compare::judge(&receiver.instance, &receiver.store, &lab.mixed.roots())?);
    Ok(Outcome::of(wrong))
}

/// The copy of a field, not yet started.
fn copy(
    lab: &Lab<'_>,
    direction: Direction,
    protocol: Protocol,
    user: User,
    near: &Receiver,
    far: &Receiver,
) -> Result<Command> {
    let mut command = lab.inside(&near.instance, user, &far.server)?;
    command.args(["-v", direction.flag(), &protocol.url(user)]).args(lab.mixed.roots());
    Ok(command)
}

/// What is missing in, or too much of, the output.
fn told(finished: &Finished, text: &str, expected: bool) -> Option<String> {
    let word = if expected { "does not say" } else { "says" };
    (finished.stderr.contains(text) != expected)
        .then(|| format!("stderr {word} {text:?}: {}", finished.describe()))
}

/// What is wrong with a copy of paths that the destination must not take from its user.
fn refused(lab: &Lab<'_>, finished: &Finished, receiver: &Receiver) -> Result<Vec<String>> {
    let mut wrong = refusal(lab, finished);
    // What is addressed by its content needs no signature and may have come first.
    let rows = database::read(&receiver.store)?;
    for path in [&lab.mixed.dep, &lab.mixed.lib, &lab.mixed.top] {
        if rows.contains_key(path) {
            wrong.push(format!("{path} was registered"));
        }
    }
    wrong.extend(sound(&receiver.instance, &receiver.store, false)?);
    Ok(wrong)
}

/// What is wrong with how the candidate ended, and what it said, because the destination takes nothing without a signature.
fn refusal(lab: &Lab<'_>, finished: &Finished) -> Vec<String> {
    let mut wrong = Vec::new();
    let status = if lab.candidate.lenient { 1 } else { 5 };
    if finished.status.code() != Some(status) || finished.timed_out {
        wrong.push(format!("exit {status} expected: {}", finished.describe()));
    }
    for word in ["signature", "hint:", "trusted-users"] {
        if !lab.candidate.lenient && !finished.stderr.contains(word) {
            wrong.push(format!("stderr does not name {word:?}: {}", finished.describe()));
        }
    }
    wrong
}

/// Paths that nobody has signed, to a user whom the daemon does not trust: none arrives, until the candidate signs them.
pub(super) fn unsigned(lab: &Lab<'_>) -> Result<Outcome> {
    if lab.candidate.lenient {
        return Ok(Outcome::skip("upstream's nix-copy-closure does not sign"));
    }
    let root = lab.wide()?;
    let receiver = lab.receiver()?;
    receiver.instance.append("etc/nix/nix.conf", &trusted_key())?;
    let _daemon = Daemon::start(&receiver.instance)?;
    let url = Protocol::Daemon.url(User::Untrusted);
    let copy = || {
        let (near, server) = (&lab.source.store, &receiver.server);
        lab.candidate.command_for(Direction::To, near, server, &url, std::slice::from_ref(&root))
    };
    let mut wrong = refusal(lab, &exec::capture(&mut copy())?);
    let registered = database::read(&receiver.store)?.len();
    if registered > 0 {
        wrong.push(format!("{registered} paths were registered"));
    }
    let key = lab.source.instance.path(fixtures::BUILD_KEY_FILE);
    exec::capture(copy().arg("--sign-key").arg(key))?.success()?;
    let (source, rows) = (database::read(&lab.source.store)?, database::read(&receiver.store)?);
    let expected = source.get(&root).context("no wide closure")?.references.len() + 1;
    let signed =
        |row: &database::Row| row.sigs.as_deref().is_some_and(|sigs| sigs.starts_with("lab-build-1:"));
    if rows.len() != expected || !rows.values().all(signed) {
        wrong.push(format!("{} paths arrived, not {expected}, or some without a signature", rows.len()));
    }
    Ok(Outcome::of(wrong))
}

/// The line of nix.conf with which a store takes what the fixtures' key has signed.
fn trusted_key() -> String {
    format!("trusted-public-keys = {}", fixtures::BUILD_KEY_PUBLIC)
}

/// More requests than the `nix-daemon --stdio` of an ordinary user stands on old Nix, in every direction that they have.
pub(super) fn wide(lab: &Lab<'_>, direction: Direction) -> Result<Outcome> {
    if lab.candidate.lenient {
        return Ok(Outcome::skip("upstream's nix-copy-closure does not speak it"));
    }
    let root = lab.wide()?;
    let receiver = lab.receiver()?;
    let (near, far) = match direction {
        Direction::To => (&lab.source, &receiver),
        Direction::From => (&receiver, &lab.source),
    };
    let _daemon = Daemon::start(&far.instance)?;
    let url = Protocol::Daemon.url(User::Trusted);
    let paths = std::slice::from_ref(&root);
    let mut command = lab.candidate.command_for(direction, &near.store, &far.server, &url, paths);
    let finished = exec::capture(&mut command)?.success()?;
    let (source, mut rows) = (database::read(&lab.source.store)?, database::read(&receiver.store)?);
    let expected = source.get(&root).context("no wide closure")?.references.len() + 1;
    let mut wrong = Vec::new();
    if rows.len() != expected {
        wrong.push(format!("{} paths arrived, not {expected}", rows.len()));
    }
    rows.retain(|path, row| source.get(path) != Some(row));
    if let Some((path, row)) = rows.first_key_value() {
        wrong.push(format!("{} paths are registered otherwise, as {path}: {row:?}", rows.len()));
    }
    wrong.extend(
        compare::unregistered(&receiver.store)?.into_iter().filter(|line| !line.starts_with("temproots/")),
    );
    Ok(Outcome { note: format!("{:.2} s", finished.took.as_secs_f64()), ..Outcome::of(wrong) })
}

/// The outputs of a derivation, which each age of the protocol says in its own way.
pub(super) fn outputs(lab: &Lab<'_>) -> Result<Outcome> {
    if lab.candidate.lenient {
        return Ok(Outcome::skip("upstream's nix-copy-closure does not speak it"));
    }
    let words = ["--query", "--requisites", "--include-outputs", &lab.mixed.derivation];
    let expected: Vec<String> =
        lab.source.instance.run("nix-store", &words)?.lines().map(str::to_owned).collect();
    let store = LabStore::create("ours", lab.release.name())?;
    let url = Protocol::Daemon.url(User::Root);
    let paths = std::slice::from_ref(&lab.mixed.derivation);
    let mut command = lab.candidate.command_for(Direction::From, &store, &lab.source.server, &url, paths);
    exec::capture(command.arg("--include-outputs"))?.success()?;
    let rows = database::read(&store)?;
    let mut wrong = Vec::new();
    for path in expected.iter().filter(|path| !rows.contains_key(*path)) {
        wrong.push(format!("{path} did not come along"));
    }
    if rows.len() != expected.len() || !expected.contains(&lab.mixed.lib) {
        wrong.push(format!("{} paths came, not {}: {expected:?}", rows.len(), expected.len()));
    }
    wrong.extend(compare::judge(&lab.inspect(&store)?, &store, &expected)?);
    Ok(Outcome::of(wrong))
}

/// How a remote can be without `nix-store --serve`.
const WITHOUT_SERVE: [(&str, Option<&str>); 2] = [
    ("a nix-store that does not know --serve", None),
    ("an account that lets nothing but nix-daemon pass", Some("nix-daemon --stdio")),
];

/// Nothing is said about the protocol, and the remote has only one of them.
pub(super) fn daemon_alone(lab: &Lab<'_>) -> Result<Outcome> {
    if lab.candidate.lenient {
        return Ok(Outcome::skip("upstream's nix-copy-closure speaks the other one"));
    }
    let (host, paths) = (Protocol::Serve.url(User::Trusted), lab.mixed.roots());
    let mut wrong = Vec::new();
    for (what, force_command) in WITHOUT_SERVE {
        let settings = Settings { force_command: force_command.map(str::to_owned), ..Settings::default() };
        let receiver = lab.receiver_with(&settings, without_serve)?;
        let daemon = Daemon::start(&receiver.instance)?;
        let (near, server) = (&lab.source.store, &receiver.server);
        let mut copy = lab.candidate.command_for(Direction::To, near, server, &host, &paths);
        exec::capture(&mut copy)?.success().context(what)?;
        drop(daemon);
        let baseline = lab.upstream_result(Direction::To, Protocol::Daemon)?;
        wrong.extend(compare::stores(&baseline, &receiver.store, Times::Kept)?);

        let door = lab.door(&settings, without_serve)?;
        let _daemon = Daemon::start(&door.instance)?;
        let store = LabStore::create("ours", lab.release.name())?;
        let mut copy = lab.candidate.command_for(Direction::From, &store, &door.server, &host, &paths);
        exec::capture(&mut copy)?.success().context(what)?;
        let baseline = lab.upstream_result(Direction::From, Protocol::Daemon)?;
        wrong.extend(compare::stores(&baseline, &store, Times::Kept)?);
    }
    wrong.retain(|line| !line.starts_with("temproots/"));
    Ok(Outcome::of(wrong))
}

/// Stands in for a Nix that has no serve protocol any more, and is newer than all that have it.
fn without_serve(instance: &mut Instance) -> Result<()> {
    exec::make_folder(&instance.path("usr/local/bin"))?;
    instance.script(
        "usr/local/bin/nix-store",
        "case \" $* \" in\n\
         *' --serve '*) echo \"error: unrecognised flag '--serve'\" >&2; exit 1;;\n\
         *' --version '*) echo 'nix-store (Nix) 2.99.0'; exit;;\n\
         esac\n\
         exec /usr/bin/nix-store \"$@\"\n",
    )
}
