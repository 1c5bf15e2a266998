//! What a power cut can do: the order in which a copy writes, as the system sees it.

use std::{collections::BTreeSet, fs, io::Write as _, process::Command};

use ncc_transport_ssh::test_util::required;

use crate::{
    support::World,
    transports::{add_big, path},
};

/// Whether system calls can be watched here. That they cannot is said loudly.
fn has_strace() -> bool {
    if Command::new("strace").args(["-qq", "-e", "trace=none", "true"]).status().is_ok_and(|it| it.success())
    {
        return true;
    }
    assert!(!required(), "strace is needed and does not work here");
    // Not eprintln, which the harness would swallow.
    let _ = writeln!(std::io::stderr(), "LEFT OUT: no strace here to watch a copy with");
    false
}

/// What reaches the disk of the destination, in this order.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Something of this object, sooner or later.
    Object(String),
    /// All of the file system, now.
    Everything,
    /// A commit, sooner or later.
    Commit,
    /// The commits, now.
    Commits,
}

/// Fetches all paths into the other store, and watches.
fn steps(words: &[&str]) -> Vec<Step> {
    let world = World::new();
    let big = add_big(&world);
    let log = world.directory().join("strace");
    let copy = world.fetch();
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-qq", "-o"]).arg(&log).args(["-e", "signal=none", "-e"]);
    command.arg("trace=write,pwrite64,writev,mkdirat,symlinkat,linkat,renameat2,fsync,fdatasync,syncfs");
    command
        .arg(copy.get_program())
        .args(copy.get_args())
        .args(words)
        .arg("localhost")
        .arg(&big)
        .args(world.all());
    command
        .env_clear()
        .envs(copy.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env("PATH", path());
    world.run(&mut command).says(0, &["copying 5 paths..."]);

    let text = fs::read_to_string(log).unwrap();
    let store = format!("<{}/nix/store", world.to().display());
    let wal = format!("<{}/nix/var/nix/db/db.sqlite-wal>", world.to().display());
    let step = |line: &str| {
        let (_, call) = line.split_once(' ')?;
        let (name, arguments) = call.trim_start().split_once('(')?;
        if name == "syncfs" {
            return arguments.contains(&store).then_some(Step::Everything);
        }
        if let Some((_, rest)) = arguments.split_once(&store) {
            // Below a directory of the object's own, or the object itself, whose name is an argument then.
            let inside = rest.strip_prefix('/').or_else(|| rest.split_once('"').map(|(_, name)| name))?;
            let object = inside.split(['/', '>', '"']).next()?;
            return (object != ".links" && object.strip_suffix(".lock").is_none())
                .then(|| Step::Object(object.to_owned()));
        }
        match name {
            "pwrite64" if arguments.contains(&wal) => Some(Step::Commit),
            "fdatasync" | "fsync" if arguments.contains(&wal) => Some(Step::Commits),
            _ => None,
        }
    };
    let mut steps: Vec<Step> = text.lines().filter_map(step).collect();
    steps.dedup();
    steps
}

/// Objects that a cut at this moment may leave half on the disk although they are registered there: all that is not
/// synchronised may be lost, and a commit may have arrived.
fn broken_at_worst(steps: &[Step]) -> BTreeSet<String> {
    let (mut unsafe_yet, mut broken) = (BTreeSet::new(), BTreeSet::new());
    for step in steps {
        match step {
            Step::Object(object) => drop(unsafe_yet.insert(object.clone())),
            Step::Everything => unsafe_yet.clear(),
            Step::Commit => broken.extend(unsafe_yet.iter().cloned()),
            Step::Commits => {}
        }
    }
    broken
}

#[test]
fn a_cut_at_any_point_leaves_no_registered_path_broken_and_what_has_ended_is_durable() {
    if !has_strace() {
        return;
    }
    let said = steps(&[]);
    let object = |step: &Step| match step {
        Step::Object(object) => Some(object.clone()),
        _ => None,
    };
    assert_eq!(said.iter().filter_map(object).collect::<BTreeSet<_>>().len(), 5, "all were seen: {said:?}");
    assert_eq!(broken_at_worst(&said), BTreeSet::new(), "{said:?}");
    let last = |wanted: Step| said.iter().rposition(|step| *step == wanted);
    assert!(last(Step::Commit).is_some() && last(Step::Commits) > last(Step::Commit), "{said:?}");
}

/// Without it the other test would prove nothing.
#[test]
fn who_wants_no_synchronising_has_none() {
    if !has_strace() {
        return;
    }
    let said = steps(&["--no-fsync-store-paths"]);
    assert!(!said.contains(&Step::Everything), "{said:?}");
    assert_eq!(broken_at_worst(&said).len(), 5, "{said:?}");
    // The switch of Nix that wants more wins.
    assert!(steps(&["--no-fsync-store-paths", "--sync-before-registering"]).contains(&Step::Everything));
}
