//! Who may write: sudo, Nix's daemon, and a store that is mounted read-only.

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::Outcome;
use super::failures::sound;
use crate::database;
use crate::exec::{self, Finished};
use crate::instance::{Instance, LabStore};
use crate::interop::compare::{self, Times};
use crate::interop::lab::{Direction, Lab, Receiver};
use crate::sshd::Settings;

/// Logs in to an instance.
const USER: &str = "alice";

/// Nix's daemon inside an instance; ended with this.
struct Daemon(Child);

impl Daemon {
    fn start(receiver: &Receiver) -> Result<Self> {
        let child = receiver
            .instance
            .command("nix-daemon")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start nix-daemon")?;
        let daemon = Self(child);
        let socket = receiver.store.folder().join("nix/var/nix/daemon-socket/socket");
        let start = Instant::now();
        while !socket.exists() {
            ensure!(start.elapsed() < Duration::from_secs(20), "nix-daemon does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(daemon)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = exec::wait(&mut self.0, Duration::from_secs(5));
    }
}

/// By hand: the roots have no useradd. '*' is no password, and no locked account either.
fn add_user(instance: &Instance) -> Result<()> {
    append(instance, "etc/passwd", &format!("{USER}:x:1234:1234::/home/{USER}:/bin/bash"))?;
    append(instance, "etc/group", &format!("{USER}:x:1234:"))?;
    append(instance, "etc/shadow", &format!("{USER}:*:19000:0:99999:7:::"))?;
    let home = instance.path("home").join(USER);
    exec::make_folder(&home)?;
    std::os::unix::fs::chown(&home, Some(1234), Some(1234)).context("cannot give away a home")
}

fn append(instance: &Instance, file: &str, line: &str) -> Result<()> {
    let file = instance.path(file);
    let text = fs::read_to_string(&file).with_context(|| format!("no {}", file.display()))?;
    exec::write_file(&file, format!("{text}{line}\n"))
}

/// A copy by an ordinary user of the remote, whose `nix-store` asks the daemon.
fn through_daemon(lab: &Lab<'_>, trusted: bool) -> Result<(Receiver, Finished)> {
    let receiver = lab.receiver_with(&Settings::default(), |instance| {
        add_user(instance)?;
        let trusted = if trusted { format!("root {USER}") } else { "root".to_owned() };
        append(instance, "etc/nix/nix.conf", &format!("trusted-users = {trusted}"))
    })?;
    let _daemon = Daemon::start(&receiver)?;
    let mut command = lab.candidate.bare(&receiver.server);
    command
        .args(["--to", "--store"])
        .arg(lab.source.store.folder())
        .arg(format!("{USER}@127.0.0.1"))
        .args(lab.mixed.roots());
    let finished = exec::capture(&mut command)?;
    Ok((receiver, finished))
}

pub(super) fn daemon_trusted(lab: &Lab<'_>) -> Result<Outcome> {
    let (receiver, finished) = through_daemon(lab, true)?;
    finished.success()?;
    let paths = lab.mixed.roots();
    let baseline = lab.baseline(Direction::To, &paths)?;
    let mut wrong = compare::stores(&baseline, &receiver.store, Times::Kept)?;
    // The processes of the daemon of 2.34 leave theirs; nobody holds them, and the next collection removes them.
    wrong.retain(|line| !line.starts_with("temproots/"));
    wrong.extend(compare::judge(&receiver.instance, &receiver.store, &paths)?);
    Ok(Outcome::of(wrong))
}

pub(super) fn daemon_untrusted(lab: &Lab<'_>) -> Result<Outcome> {
    let (receiver, finished) = through_daemon(lab, false)?;
    let mut wrong = Vec::new();
    if finished.status.code() != Some(1) || finished.timed_out {
        wrong.push(format!("exit 1 expected: {}", finished.describe()));
    }
    for word in ["127.0.0.1", "lacks a", "signature", "hint:", "trusted-users"] {
        if !lab.candidate.lenient && !finished.stderr.contains(word) {
            wrong.push(format!("stderr does not name {word:?}: {}", finished.describe()));
        }
    }
    // What is addressed by its content needs no signature and may have come first.
    let rows = database::read(&receiver.store)?;
    for path in [&lab.mixed.dep, &lab.mixed.lib, &lab.mixed.top] {
        if rows.contains_key(path) {
            wrong.push(format!("{path} was registered"));
        }
    }
    wrong.extend(sound(&receiver.instance, &receiver.store, false)?);
    Ok(Outcome::of(wrong))
}

pub(super) fn sudo_to(lab: &Lab<'_>) -> Result<Outcome> {
    if lab.candidate.lenient {
        return Ok(Outcome::skip("upstream has no --remote-sudo"));
    }
    let receiver = lab.receiver_with(&Settings::default(), |instance| {
        add_user(instance)?;
        exec::write_file(&instance.path("etc/sudoers.d/lab"), format!("{USER} ALL=(ALL) NOPASSWD: ALL\n"))
    })?;
    let paths = lab.mixed.roots();
    let mut command = lab.candidate.bare(&receiver.server);
    command
        .args(["--remote-sudo", "--store"])
        .arg(lab.source.store.folder())
        .arg(format!("{USER}@127.0.0.1"))
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
