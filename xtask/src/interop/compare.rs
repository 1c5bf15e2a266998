//! Compares two stores, and lets real Nix judge one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::database::{self, Row};
use crate::instance::{Instance, LabStore};

/// How registration times have to agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Times {
    /// Kept from the source, to the second.
    Kept,
    /// The moment of the copy: this side's clock, in both.
    Now,
}

/// A copy that says "now" is at most this old when it is looked at (a slow machine, several copies in between).
const RECENT: i64 = 1_800;

/// How long a server may take to end after its client.
const PATIENCE: Duration = Duration::from_secs(3);

/// More differences than this are counted, not shown.
const SHOWN: usize = 12;

/// What differs between the copy that upstream made and ours: rows, files, leftovers. Empty is good.
pub(crate) fn stores(upstream: &LabStore, ours: &LabStore, times: Times) -> Result<Vec<String>> {
    let (expected, actual) = (database::read(upstream)?, database::read(ours)?);
    let mut differences = Vec::new();
    for (path, row) in &expected {
        match actual.get(path) {
            Some(found) => rows(path, row, found, times, &mut differences),
            None => differences.push(format!("{path}: valid after upstream's copy, not after ours")),
        }
    }
    for path in actual.keys().filter(|path| !expected.contains_key(*path)) {
        differences.push(format!("{path}: valid after our copy, not after upstream's"));
    }
    for path in expected.keys().filter(|path| actual.contains_key(*path)) {
        trees(path, &upstream.real(path), &ours.real(path), &mut differences)?;
    }
    differences.extend(unregistered(ours)?);
    Ok(shorten(differences))
}

fn rows(path: &str, upstream: &Row, ours: &Row, times: Times, differences: &mut Vec<String>) {
    let mut field = |name: &str, upstream: &dyn std::fmt::Debug, ours: &dyn std::fmt::Debug| {
        let (upstream, ours) = (format!("{upstream:?}"), format!("{ours:?}"));
        if upstream != ours {
            differences.push(format!("{path}: {name}: upstream has {upstream}, ours {ours}"));
        }
    };
    field("hash", &upstream.hash, &ours.hash);
    field("deriver", &upstream.deriver, &ours.deriver);
    field("narSize", &upstream.nar_size, &ours.nar_size);
    field("ultimate", &upstream.ultimate, &ours.ultimate);
    field("sigs", &upstream.sigs, &ours.sigs);
    field("ca", &upstream.ca, &ours.ca);
    field("references", &upstream.references, &ours.references);
    field("outputs", &upstream.outputs, &ours.outputs);
    match times {
        Times::Kept => field("registrationTime", &upstream.registration_time, &ours.registration_time),
        Times::Now => {
            for (side, row) in [("upstream", upstream), ("ours", ours)] {
                if (now() - row.registration_time).abs() > RECENT {
                    differences.push(format!(
                        "{path}: registrationTime: {side} has {}, which is not the time of the copy",
                        row.registration_time
                    ));
                }
            }
        }
    }
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.ok().and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or_default()
}

/// Everything about a file system object but its content, which `nix-store --verify --check-contents` hashes.
fn describe(path: &Path) -> Result<String> {
    let data = fs::symlink_metadata(path).with_context(|| format!("cannot look at {}", path.display()))?;
    let kind = data.file_type();
    let what = if kind.is_symlink() {
        let target = fs::read_link(path).with_context(|| format!("cannot read {}", path.display()))?;
        format!("link to {:?}", target.as_os_str().as_bytes().escape_ascii().to_string())
    } else if kind.is_dir() {
        "folder".to_owned()
    } else {
        format!("file of {} bytes, {} link(s)", data.len(), data.nlink())
    };
    Ok(format!(
        "{what}, mode {:o}, owner {}:{}, mtime {}.{:09}",
        data.mode() & 0o7777,
        data.uid(),
        data.gid(),
        data.mtime(),
        data.mtime_nsec()
    ))
}

fn trees(shown: &str, upstream: &Path, ours: &Path, differences: &mut Vec<String>) -> Result<()> {
    match (describe(upstream), describe(ours)) {
        (Ok(expected), Ok(actual)) if expected == actual => {}
        (Ok(expected), Ok(actual)) => {
            differences.push(format!("{shown}: upstream made a {expected}; ours is a {actual}"));
            return Ok(());
        }
        (_, Err(_)) => {
            differences.push(format!("{shown}: missing in our copy"));
            return Ok(());
        }
        (Err(error), _) => return Err(error),
    }
    if !fs::symlink_metadata(upstream)?.is_dir() {
        return Ok(());
    }
    let (expected, actual) = (names(upstream)?, names(ours)?);
    for name in expected.union(&actual) {
        let shown = format!("{shown}/{}", name.as_bytes().escape_ascii());
        if !expected.contains(name) {
            differences.push(format!("{shown}: only in our copy"));
        } else if !actual.contains(name) {
            differences.push(format!("{shown}: missing in our copy"));
        } else {
            trees(&shown, &upstream.join(name), &ours.join(name), differences)?;
        }
    }
    Ok(())
}

fn names(folder: &Path) -> Result<BTreeSet<std::ffi::OsString>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    entries.map(|entry| Ok(entry?.file_name())).collect()
}

/// What lies in the store without being registered, and locks and temporary roots that nobody holds.
fn leftovers(store: &LabStore, rows: &BTreeMap<String, Row>) -> Result<Vec<String>> {
    let mut found = Vec::new();
    if store.store().exists() {
        for name in names(&store.store())? {
            let name = name.to_string_lossy().into_owned();
            if name != ".links" && !rows.contains_key(&format!("/nix/store/{name}")) {
                found.push(format!("/nix/store/{name}: left in the store, not registered"));
            }
        }
    }
    let roots = store.folder().join("nix/var/nix/temproots");
    if roots.exists() {
        for name in names(&roots)? {
            found.push(format!("temproots/{}: left behind", name.to_string_lossy()));
        }
    }
    Ok(found)
}

/// Objects, locks and temporary roots without an owner. A server ends a little after its client, so it gets a moment.
pub(crate) fn unregistered(store: &LabStore) -> Result<Vec<String>> {
    let start = Instant::now();
    loop {
        let found = leftovers(store, &database::read(store)?)?;
        if found.is_empty() || start.elapsed() > PATIENCE {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What real Nix finds wrong with a store: every content hashed, every path verified, the closure of `roots` complete.
pub(crate) fn judge(instance: &Instance, store: &LabStore, roots: &[String]) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let rows = database::read(store)?;
    for (path, row) in &rows {
        for reference in row.references.iter().filter(|reference| !rows.contains_key(*reference)) {
            wrong.push(format!("{path}: refers to {reference}, which is not valid"));
        }
        if fs::symlink_metadata(store.real(path)).is_err() {
            wrong.push(format!("{path}: registered, but not there"));
        }
    }
    let verify = instance.try_run("nix-store", &["--verify", "--check-contents"])?;
    let complaint =
        ["was modified", "disappeared", "error", "corrupt"].iter().any(|word| verify.stderr.contains(word));
    if !verify.status.success() || complaint {
        wrong.push(verify.describe());
    }
    if !rows.is_empty() {
        let mut words = vec!["--verify-path"];
        words.extend(rows.keys().map(String::as_str));
        let verify = instance.try_run("nix-store", &words)?;
        if !verify.status.success() {
            wrong.push(verify.describe());
        }
    }
    for root in roots {
        let closure = instance.try_run("nix-store", &["--query", "--requisites", root])?;
        if !closure.status.success() {
            wrong.push(closure.describe());
            continue;
        }
        let answer = closure.text();
        let answered: BTreeSet<&str> = answer.lines().collect();
        let reachable = reachable(&rows, root);
        if answered != reachable {
            wrong.push(format!(
                "nix-store -qR {root} gives {} paths, the database {}",
                answered.len(),
                reachable.len()
            ));
        }
    }
    Ok(shorten(wrong))
}

fn reachable<'a>(rows: &'a BTreeMap<String, Row>, root: &'a str) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let mut pending = vec![root];
    while let Some(path) = pending.pop() {
        if seen.insert(path)
            && let Some(row) = rows.get(path)
        {
            pending.extend(row.references.iter().map(String::as_str));
        }
    }
    seen
}

fn shorten(mut lines: Vec<String>) -> Vec<String> {
    if lines.len() > SHOWN {
        let more = lines.len() - SHOWN;
        lines.truncate(SHOWN);
        lines.push(format!("... and {more} more"));
    }
    lines
}
