//! Rows of the source's database that nobody can read: with this program at both ends, and with real Nix at the source.

use std::{fs, path::PathBuf};

use crate::support::{Ran, World, full, has_nix};

/// The reason as the other end gives it.
const REASON: &str = "warning: the store in $DIR/from could not describe '...-";

/// <https://github.com/NixOS/nix/issues/6843>
#[test]
fn r6843_our_server_describes_all_paths_but_the_bad_one() {
    for odd in ["hash = 'sha256:zz'", "narSize = -5", "ca = 'fixed:x'"] {
        let world = World::new();
        world.change_database(&format!("update ValidPaths set {odd} where path like '%-other'"));
        let ran = world.run(world.fetch().args(["-k", "localhost", &world.other, &world.top]));
        ran.says(4, &[&format!("{REASON}other'"), odd.split_once(' ').unwrap().0]);
        assert_eq!(world.copied(&world.all()), [true, true, true, false], "{}", ran.transcript());
    }
}

/// What refers to the bad path cannot be copied, and all else can.
#[test]
fn r6843_a_bad_path_within_a_closure_costs_only_what_needs_it() {
    let world = World::new();
    world.change_database("update ValidPaths set hash = 'sha256:zz' where path like '%-program'");
    let ran = world.run(world.fetch().args(["-k", "localhost", &world.top, &world.other, &world.library]));
    ran.says(4, &[&format!("{REASON}program'"), "the host has it, but gives no metadata of it"]);
    assert_eq!(world.copied(&world.all()), [true, false, false, true], "{}", ran.transcript());
    assert_eq!(ran.stderr.matches(REASON).count(), 1, "said once: {}", ran.transcript());
}

/// Whoever does not want to go on is told why, and nothing is copied.
#[test]
fn a_bad_path_within_a_closure_stops_a_copy_that_is_not_to_go_on() {
    let world = World::new();
    world.change_database("update ValidPaths set hash = 'sha256:zz' where path like '%-library'");
    let ran = world.run(world.fetch().args(["localhost", &world.top]));
    ran.says(1, &[&format!("{REASON}library'")]);
    assert_eq!(world.copied(&world.all()), [false; 4], "{}", ran.transcript());
}

/// A program that serves as real Nix does, which ends over a bad row, and a file with a line for each time that it was started.
fn real_server(world: &World) -> Option<(PathBuf, PathBuf)> {
    if !has_nix() {
        return None;
    }
    let path = std::env::var("PATH").unwrap();
    let started = world.directory().join("started");
    let body = format!("#!/bin/sh\necho >> {}\nPATH='{path}' exec nix-store \"$@\"\n", started.display());
    Some((world.script("serving", &body), started))
}

/// How a copy with `--keep-going` from real Nix ended, and how many connections it took.
fn fetched(world: &World, arguments: &[&str]) -> Option<(Ran, usize)> {
    let (server, started) = real_server(world)?;
    let ran = world
        .run(world.fetch().args(["-k", "--remote-program"]).arg(server).arg("localhost").args(arguments));
    Some((ran, fs::read_to_string(started).unwrap().lines().count()))
}

/// A row that Nix ends over, too: a size below 0 it takes for a large one.
const ODD: &str = "update ValidPaths set hash = 'sha256:zz'";

/// What it says then.
const BAD_HASH: &str = "hash 'zz' has wrong length";

/// <https://github.com/NixOS/nix/issues/6843>
#[test]
fn r6843_a_root_that_nix_cannot_describe_costs_only_itself() {
    let world = World::new();
    world.change_database(&format!("{ODD} where path like '%-other'"));
    let Some((ran, connections)) = fetched(&world, &[&world.other, &world.top]) else { return };
    ran.says(4, &["could not describe '...-other'", BAD_HASH]);
    assert!(!ran.stderr.contains("is not valid"), "it is: {}", ran.transcript());
    assert_eq!(world.copied(&world.all()), [true, true, true, false], "{}", ran.transcript());
    // The one that ended over the closure, the one that ended over the path, and the one that did the rest.
    assert_eq!(connections, 3, "{}", ran.transcript());
}

#[test]
fn r6843_a_path_that_nix_cannot_describe_costs_only_what_needs_it() {
    let world = World::new();
    world.change_database(&format!("{ODD} where path like '%-program'"));
    let roots = [&*world.top, &world.other, &world.library];
    let Some((ran, connections)) = fetched(&world, &roots) else { return };
    ran.says(4, &["could not describe '...-program'", BAD_HASH]);
    assert_eq!(world.copied(&world.all()), [true, false, false, true], "{}", ran.transcript());
    assert_eq!(connections, 3, "{}", ran.transcript());
}

/// Where outputs of derivations come along, too.
#[test]
fn r6843_with_outputs_a_bad_path_costs_the_roots_that_need_it() {
    let world = World::new();
    world.change_database(&format!("{ODD} where path like '%-program'"));
    let roots = ["--include-outputs", &*world.top, &world.other, &world.library];
    let Some((ran, connections)) = fetched(&world, &roots) else { return };
    ran.says(4, &["could not compute the closure of '...-top'", BAD_HASH]);
    assert_eq!(world.copied(&world.all()), [true, false, false, true], "{}", ran.transcript());
    assert_eq!(connections, 3, "{}", ran.transcript());
}

/// Each bad path costs a connection, up to a limit: then it is the store that is bad.
#[test]
fn a_store_full_of_bad_rows_is_given_up() {
    for (count, code) in [(16, 4), (17, 1)] {
        let world = World::new();
        let bad: Vec<_> =
            (0..count).map(|number| full(&world.add(&format!("bad{number}"), "file", "x", []))).collect();
        world.change_database(&format!("{ODD} where path like '%-bad%'"));
        let mut roots: Vec<&str> = bad.iter().map(String::as_str).collect();
        roots.push(&world.other);
        let Some((ran, connections)) = fetched(&world, &roots) else { return };
        ran.says(code, &[BAD_HASH]);
        assert_eq!(world.copied(&[&world.other]), [code == 4], "{}", ran.transcript());
        assert_eq!(connections, 18, "{}", ran.transcript());
    }
}

/// A wrong root alone costs no second login.
#[test]
fn a_root_that_nix_does_not_have_is_one_connection() {
    let world = World::new();
    let Some((server, started)) = real_server(&world) else { return };
    let other = world.other.replace("-other", "-another");
    let mut command = world.fetch();
    let ran = world.run(command.arg("--remote-program").arg(server).args(["localhost", &other]));
    ran.says(1, &["-another' is not valid in"]);
    assert_eq!(fs::read_to_string(started).unwrap().lines().count(), 1);
}

/// Databases of old Nix have rows without a size, and Nix gives it as 0 bytes, which no path has.
#[test]
fn a_size_that_nix_has_not_recorded_is_called_unknown() {
    let world = World::new();
    world.change_database("update ValidPaths set narSize = null where path like '%-other'");
    let Some((server, _)) = real_server(&world) else { return };
    let fetch = |option: &str, paths: &[&str]| {
        let mut command = world.fetch();
        world.run(command.args([option, "--remote-program"]).arg(&server).arg("localhost").args(paths))
    };
    let ran = fetch("--dry-run", &[&world.other, &world.library]);
    assert!(ran.stdout.starts_with("would copy 2 paths (at least 8.3 KiB) from"), "{}", ran.transcript());
    assert!(ran.stdout.contains("unknown size  /nix/store/...-other"), "{}", ran.transcript());
    let ran = fetch("--dry-run", &[&world.other]);
    assert!(ran.stdout.starts_with("would copy 1 path (unknown size) from"), "{}", ran.transcript());
    let ran = fetch("--tree", &[&world.other]);
    let said = ran.transcript();
    assert!(said.contains("unknown") && !said.contains(" 0 B"), "{said}");
    assert_eq!(world.copied(&[&world.other]), [true]);
}
