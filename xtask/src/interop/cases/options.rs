//! Options of the manual, against each Nix.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::Outcome;
use super::failures::{Damage, damage, sound};
use crate::database;
use crate::exec::{self, Finished};
use crate::instance::LabStore;
use crate::interop::compare::{self, Times};
use crate::interop::lab::{Direction, Lab, Protocol, Receiver};
use crate::sshd::{Server, Settings};

/// What `QueryClosure` with outputs gives on this version, which is what its own query says.
fn with_outputs(lab: &Lab<'_>) -> Result<Vec<String>> {
    let words = ["--query", "--requisites", "--include-outputs", &lab.mixed.derivation];
    let answer = lab.source.instance.run("nix-store", &words)?;
    Ok(answer.lines().map(str::to_owned).collect())
}

pub(super) fn include_outputs_to(lab: &Lab<'_>) -> Result<Outcome> {
    // Upstream ignores the option from 2.4 to 2.34: it is given every path by name instead.
    let expected = with_outputs(lab)?;
    let baseline = lab.baseline(Direction::To, &expected)?;
    let receiver = lab.receiver()?;
    let paths = std::slice::from_ref(&lab.mixed.derivation);
    let mut command = lab.candidate.command(Direction::To, &lab.source.store, &receiver.server, paths);
    exec::capture(command.arg("--include-outputs"))?.success()?;
    let mut wrong = compare::stores(&baseline, &receiver.store, Times::Kept)?;
    wrong.extend(compare::judge(&receiver.instance, &receiver.store, &expected)?);
    wrong.extend(has_outputs(lab, &expected));
    Ok(Outcome::of(wrong))
}

pub(super) fn include_outputs_from(lab: &Lab<'_>) -> Result<Outcome> {
    let expected = with_outputs(lab)?;
    let baseline = lab.baseline(Direction::From, &expected)?;
    let store = LabStore::create("ours", lab.release.name())?;
    let paths = std::slice::from_ref(&lab.mixed.derivation);
    let mut command = lab.candidate.command(Direction::From, &store, &lab.source.server, paths);
    exec::capture(command.arg("--include-outputs"))?.success()?;
    let mut wrong = compare::stores(&baseline, &store, Times::Now)?;
    wrong.extend(compare::judge(&lab.inspect(&store)?, &store, &expected)?);
    wrong.extend(has_outputs(lab, &expected));
    Ok(Outcome::of(wrong))
}

/// From one machine to another, each with a Nix of its own, past the store of this one, which is not there.
pub(super) fn between(lab: &Lab<'_>) -> Result<Outcome> {
    let expected = with_outputs(lab)?;
    let mut wrong = Vec::new();
    for protocol in Protocol::ALL {
        // The serve protocol does not tell when a path was registered.
        let (direction, times) = match protocol {
            Protocol::Serve => (Direction::From, Times::Now),
            Protocol::Daemon => (Direction::To, Times::Kept),
        };
        let baseline = lab.baseline(direction, &expected)?;
        let receiver = lab.receiver()?;
        let (from, to) = (&lab.source.server, &receiver.server);
        let host = |server: &Server| format!("{}://root@127.0.0.1:{}", protocol.scheme(), server.port());
        let mut command = lab.candidate.bare(from);
        command.env("NIX_SSHOPTS", from.ssh_options_for_both(to)).env("NIX_REMOTE", "/nowhere");
        command.args(["--include-outputs", "--from", &host(from), "--to", &host(to), &lab.mixed.derivation]);
        exec::capture(&mut command)?.success()?;
        wrong.extend(compare::stores(&baseline, &receiver.store, times)?);
        wrong.extend(compare::judge(&receiver.instance, &receiver.store, &expected)?);
        wrong.extend(has_outputs(lab, &expected));
    }
    Ok(Outcome::of(wrong))
}

/// Otherwise the case would show nothing.
fn has_outputs(lab: &Lab<'_>, paths: &[String]) -> Option<String> {
    (!paths.contains(&lab.mixed.top) || !paths.contains(&lab.mixed.lib))
        .then(|| format!("the fixture has no outputs: {paths:?}"))
}

pub(super) fn substitute_to(lab: &Lab<'_>) -> Result<Outcome> {
    if lab.candidate.lenient {
        return Ok(Outcome::skip("upstream has no --json"));
    }
    let paths = lab.mixed.roots();
    let near = lab.inspect(&lab.source.store)?;
    near.run("nix", &["copy", "--to", "file:///tmp/cache", &lab.mixed.lib])?;
    let cached = near.run("nix-store", &["--query", "--requisites", &lab.mixed.lib])?;
    let cached: BTreeSet<&str> = cached.lines().collect();
    let receiver = lab.receiver_with(&Settings::default(), |instance| {
        exec::run("cp", [Path::new("-a"), &near.path("tmp/cache"), &instance.path("cache")])?;
        let file = instance.path("etc/nix/nix.conf");
        let conf = fs::read_to_string(&file).context("no nix.conf")?;
        exec::write_file(&file, format!("{conf}substituters = file:///cache\nrequire-sigs = false\n"))
    })?;
    let copy = |options: &[&str]| -> Result<serde_json::Value> {
        let mut command = lab.candidate.command(Direction::To, &lab.source.store, &receiver.server, &paths);
        let finished = exec::capture(command.args(["-s", "--json"]).args(options))?.success()?;
        serde_json::from_str(&finished.text()).with_context(|| format!("no report: {}", finished.describe()))
    };
    let mut wrong = Vec::new();
    let baseline = lab.baseline(Direction::To, &paths)?;
    let expected = database::read(&baseline)?;
    let before = database::read(&receiver.store)?;
    let plan = copy(&["--dry-run"])?;
    let (foreseen, to_send) = (&plan["substitutable"]["count"], &plan["toSend"]["count"]);
    if *foreseen != cached.len() || *to_send != expected.len() - cached.len() || plan["unforeseen"] != false {
        wrong.push(format!("a dry run foresees {foreseen} substituted and {to_send} sent: {plan}"));
    }
    if !database::read(&receiver.store)?.keys().eq(before.keys()) {
        wrong.push("a dry run has registered paths".to_owned());
    }
    let report = copy(&[])?;
    let actual = database::read(&receiver.store)?;
    let (substituted, sent) = (&report["substituted"]["count"], &report["sent"]["count"]);
    if *substituted != cached.len() || *sent != expected.len() - cached.len() {
        wrong.push(format!(
            "{substituted} paths were substituted and {sent} sent; {} and {} were expected",
            cached.len(),
            expected.len() - cached.len(),
        ));
    }
    if !expected.keys().eq(actual.keys()) {
        wrong.push(format!("{:?} are valid, {:?} were expected", actual.keys(), expected.keys()));
    }
    for (path, row) in &expected {
        let facts = |row: &database::Row| {
            (row.hash.clone(), row.nar_size, row.references.clone(), row.deriver.clone())
        };
        if let Some(found) = actual.get(path)
            && facts(found) != facts(row)
        {
            wrong.push(format!("{path}: {:?} instead of {:?}", facts(found), facts(row)));
        }
    }
    wrong.extend(compare::judge(&receiver.instance, &receiver.store, &paths)?);
    Ok(Outcome::of(wrong))
}

/// All of a store: every name with its time, and the content of the database.
fn snapshot(store: &LabStore) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut pending = vec![store.folder().join("nix")];
    while let Some(path) = pending.pop() {
        let data = fs::symlink_metadata(&path).with_context(|| format!("cannot see {}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // SQLite's own, while somebody reads, and the time of the folder that they come and go in.
        if name == "db.sqlite-shm" || (name == "db.sqlite-wal" && data.len() == 0) {
            continue;
        }
        let (time, size) = if name == "db" { (0, 0) } else { (data.mtime_nsec(), data.len()) };
        let content = if name.starts_with("db.sqlite") {
            fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?
        } else {
            Vec::new()
        };
        let short = content.iter().fold(0_u64, |sum, byte| sum.rotate_left(5) ^ u64::from(*byte));
        found.push(format!("{} {:o} {time} {size} {short:x}", path.display(), data.mode()));
        if data.is_dir() {
            for entry in fs::read_dir(&path).with_context(|| format!("cannot list {}", path.display()))? {
                pending.push(entry?.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn unchanged(before: &[String], after: &[String]) -> Vec<String> {
    let gone = before.iter().filter(|line| !after.contains(line)).map(|line| format!("was: {line}"));
    let new = after.iter().filter(|line| !before.contains(line)).map(|line| format!("is: {line}"));
    gone.chain(new).collect()
}

pub(super) fn dry_run_to(lab: &Lab<'_>) -> Result<Outcome> {
    if lab.candidate.lenient {
        return Ok(Outcome::skip("upstream copies on --dry-run"));
    }
    let receiver = lab.receiver()?;
    let part = std::slice::from_ref(&lab.mixed.note);
    lab.candidate.copy(Direction::To, &lab.source.store, &receiver.server, part)?;
    let (here, there) = (snapshot(&lab.source.store)?, snapshot(&receiver.store)?);
    let mut wrong = Vec::new();
    for more in ["", "--json", "-s", "--tree", "--include-outputs", EVERY_OPTION] {
        let mut command =
            lab.candidate.command(Direction::To, &lab.source.store, &receiver.server, &lab.mixed.roots());
        let finished = exec::capture(command.arg("--dry-run").args(more.split_whitespace()))?.success()?;
        // The tree is the list then, and has names only.
        let named = if more == "--tree" { "lab-top" } else { &lab.mixed.top };
        if !finished.text().contains(named) {
            wrong.push(format!("it does not say what would be sent: {}", finished.describe()));
        }
    }
    wrong.extend(unchanged(&here, &snapshot(&lab.source.store)?));
    wrong.extend(unchanged(&there, &snapshot(&receiver.store)?));
    Ok(Outcome::of(wrong))
}

pub(super) fn dry_run_from(lab: &Lab<'_>) -> Result<Outcome> {
    if lab.candidate.lenient {
        return Ok(Outcome::skip("upstream copies on --dry-run"));
    }
    let store = LabStore::create("ours", lab.release.name())?;
    let part = std::slice::from_ref(&lab.mixed.note);
    lab.candidate.copy(Direction::From, &store, &lab.source.server, part)?;
    let (here, there) = (snapshot(&store)?, snapshot(&lab.source.store)?);
    let mut command = lab.candidate.command(Direction::From, &store, &lab.source.server, &lab.mixed.roots());
    let finished = exec::capture(command.arg("--dry-run"))?.success()?;
    let mut wrong = Vec::new();
    if !finished.text().contains(&lab.mixed.top) {
        wrong.push(format!("it does not say what would be sent: {}", finished.describe()));
    }
    wrong.extend(unchanged(&here, &snapshot(&store)?));
    wrong.extend(unchanged(&there, &snapshot(&lab.source.store)?));
    Ok(Outcome::of(wrong))
}

/// A copy of the mixed closure with more words, compared with upstream's; and what sshd said of it, in detail.
fn with_words(lab: &Lab<'_>, words: &[&str]) -> Result<(Outcome, String)> {
    let paths = lab.mixed.roots();
    let baseline = lab.baseline(Direction::To, &paths)?;
    let settings = Settings { extra: "LogLevel DEBUG1\n".to_owned(), ..Settings::default() };
    let receiver = lab.receiver_with(&settings, |_| Ok(()))?;
    let mut command = lab.candidate.command(Direction::To, &lab.source.store, &receiver.server, &paths);
    exec::capture(command.args(words))?.success()?;
    let log = receiver.server.log();
    let mut wrong = compare::stores(&baseline, &receiver.store, Times::Kept)?;
    wrong.extend(compare::judge(&receiver.instance, &receiver.store, &paths)?);
    Ok((Outcome::of(wrong), log))
}

pub(super) fn gzip_to(lab: &Lab<'_>) -> Result<Outcome> {
    let (mut outcome, log) = with_words(lab, &["--gzip"])?;
    if !log.contains("Enabling compression") {
        outcome.wrong.push(format!("sshd does not say that it compresses: {log}"));
    }
    Ok(outcome)
}

/// Compressed, whatever the line is.
pub(super) fn compressed(lab: &Lab<'_>, direction: Direction, method: &str) -> Result<Outcome> {
    carried(lab, direction, &["--compress", method], &format!("compressing with {method}"))
}

/// Over several channels, whatever the line is.
pub(super) fn spread(lab: &Lab<'_>, direction: Direction) -> Result<Outcome> {
    let words = ["--connections", "7", "--compress", "none"];
    carried(lab, direction, &words, "spreading NARs over 7 channels")
}

/// With `words`, over which it must say `said`; compared with what upstream makes of it without.
fn carried(lab: &Lab<'_>, direction: Direction, words: &[&str], said: &str) -> Result<Outcome> {
    if lab.candidate.lenient {
        return Ok(Outcome::skip("upstream has no such option"));
    }
    let paths = lab.mixed.roots();
    let baseline = lab.baseline(direction, &paths)?;
    let copy = |store: &LabStore, server: &Server| {
        let mut command = lab.candidate.command(direction, store, server, &paths);
        exec::capture(command.arg("-v").args(words))?.success()
    };
    let (finished, mut wrong) = match direction {
        Direction::To => {
            let receiver = lab.receiver()?;
            let finished = copy(&lab.source.store, &receiver.server)?;
            let mut wrong = compare::stores(&baseline, &receiver.store, Times::Kept)?;
            wrong.extend(compare::judge(&receiver.instance, &receiver.store, &paths)?);
            (finished, wrong)
        }
        Direction::From => {
            let door = lab.door(&Settings::default(), |_| Ok(()))?;
            let store = LabStore::create("ours", lab.release.name())?;
            let finished = copy(&store, &door.server)?;
            let mut wrong = compare::stores(&baseline, &store, Times::Now)?;
            wrong.extend(compare::judge(&lab.inspect(&store)?, &store, &paths)?);
            (finished, wrong)
        }
    };
    if !finished.stderr.contains(said) {
        wrong.push(format!("it does not say that it does: {}", finished.describe()));
    }
    Ok(Outcome::of(wrong))
}

/// Each option that upstream's manual has, and those common to its old commands.
const EVERY_OPTION: &str = "--to --gzip --include-outputs --use-substitutes -s -v --verbose --show-progress --bzip2 --xz \
    --option sandbox false --log-format raw -j 3 --max-jobs 2 --cores 0 --timeout 100 --max-silent-time 100 -k -K -Q \
    --fallback --no-gc-warning";

/// With all of them at once nothing is different.
pub(super) fn every_option_to(lab: &Lab<'_>) -> Result<Outcome> {
    Ok(with_words(lab, &EVERY_OPTION.split(' ').collect::<Vec<_>>())?.0)
}

pub(super) fn url_parameters_to(lab: &Lab<'_>) -> Result<Outcome> {
    if lab.candidate.lenient {
        return Ok(Outcome::skip("upstream takes no parameters from 2.34 on, and no URL ever"));
    }
    let paths = std::slice::from_ref(&lab.mixed.lib);
    let baseline = lab.baseline(Direction::To, paths)?;
    let receiver = lab.receiver()?;
    let options = receiver.server.ssh_options();
    let key = options
        .split_once("-i ")
        .and_then(|(_, rest)| rest.split_whitespace().next())
        .context("the server's options have no key")?
        .to_owned();
    let mut command = lab.candidate.bare(&receiver.server);
    command
        .env("NIX_SSHOPTS", options.replace(&format!("-i {key} "), ""))
        .arg("--store")
        .arg(lab.source.store.folder())
        .arg(format!("ssh://root@127.0.0.1:{}?compress=true&ssh-key={key}", receiver.server.port()))
        .args(paths);
    exec::capture(&mut command)?.success()?;
    Ok(Outcome::of(compare::stores(&baseline, &receiver.store, Times::Kept)?))
}

pub(super) fn keep_going_to(lab: &Lab<'_>) -> Result<Outcome> {
    keep_going(lab, Direction::To)
}

pub(super) fn keep_going_from(lab: &Lab<'_>) -> Result<Outcome> {
    keep_going(lab, Direction::From)
}

fn keep_going(lab: &Lab<'_>, direction: Direction) -> Result<Outcome> {
    if lab.candidate.lenient {
        return Ok(Outcome::skip("upstream does not go on"));
    }
    let paths = lab.mixed.roots();
    let source = lab.small_source("damaged", &paths)?;
    damage(&source.store, &lab.mixed.dep, Damage::Changed)?;
    let receiver = lab.receiver()?;
    let (store, server) = match direction {
        Direction::To => (&source.store, &receiver.server),
        Direction::From => (&receiver.store, &source.server),
    };
    let mut command = lab.candidate.command(direction, store, server, &paths);
    let finished = exec::capture(command.args(["--keep-going", "-v"]))?;
    let mut wrong = Vec::new();
    if finished.status.code() != Some(4) {
        wrong.push(format!("exit 4 expected: {}", finished.describe()));
    }
    wrong.extend(kept_going(lab, &receiver, &finished)?);
    wrong.extend(sound(&receiver.instance, &receiver.store, false)?);
    Ok(Outcome::of(wrong))
}

/// Everything that does not need the damaged path is there, and nothing that does; all of the latter is named.
fn kept_going(lab: &Lab<'_>, receiver: &Receiver, finished: &Finished) -> Result<Vec<String>> {
    let mixed = &lab.mixed;
    let rows = database::read(&receiver.store)?;
    let mut wrong = Vec::new();
    for path in [&mixed.dep, &mixed.lib, &mixed.top] {
        if rows.contains_key(path) {
            wrong.push(format!("{path} was registered"));
        }
        let name = path.trim_start_matches("/nix/store/");
        if !finished.stderr.contains(name) {
            wrong.push(format!("{path} is not named: {}", finished.describe()));
        }
    }
    for path in [&mixed.odd, &mixed.note, &mixed.flat, &mixed.recursive] {
        if !rows.contains_key(path) {
            wrong.push(format!("{path} was not copied: {}", finished.describe()));
        }
    }
    Ok(wrong)
}
