//! `--from -s`: the Nix on this machine substitutes. (`--to -s` is in `cargo xtask interop`, where the host has a cache.)

use std::process::Command;

use crate::{
    support::{Ran, World, has_nix},
    transports::path,
};

/// A binary cache with the library; `None` without Nix.
fn cache(world: &World) -> Option<String> {
    if !has_nix() {
        return None;
    }
    let cache = format!("file://{}/cache", world.directory().display());
    let made = Command::new("nix")
        .args(["--extra-experimental-features", "nix-command", "copy", "--to", &cache, "--store"])
        .arg(world.from())
        .arg(&world.library)
        .env("HOME", world.directory())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Some(cache)
}

/// `--from -s localhost TOP`, with this cache as the substituter of the Nix here.
fn fetch_with(world: &World, cache: &str, options: &[&str]) -> Ran {
    let mut command = world.fetch();
    command.env("PATH", path()).env("NIX_CONFIG", format!("substituters = {cache}\nrequire-sigs = false"));
    world.run(command.args(["-s", "--json"]).args(options).arg("localhost").arg(&world.top))
}

#[test]
fn what_a_cache_has_is_not_fetched_from_the_host() {
    let world = World::new();
    let Some(cache) = cache(&world) else { return };
    let ran = fetch_with(&world, &cache, &[]);
    ran.says(0, &["copying 2 paths..."]);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&report["substituted"]["count"], &report["sent"]["count"]), (&1.into(), &2.into()));
    assert_eq!(world.copied(&[&world.library, &world.top]), [true, true]);
}

#[test]
fn a_dry_run_says_what_a_cache_has() {
    let world = World::new();
    let Some(cache) = cache(&world) else { return };
    // A store that is there, and one that is not yet.
    for existing in [false, true] {
        if existing {
            world.run(world.copy().arg("localhost").arg(&world.other)).says(0, &[]);
        }
        let ran = fetch_with(&world, &cache, &["--dry-run"]);
        let plan: serde_json::Value = serde_json::from_str(&ran.stdout).expect(&ran.stderr);
        if existing {
            assert_eq!(plan["unforeseen"], false, "{}", ran.transcript());
            assert_eq!((&plan["substitutable"]["count"], &plan["toSend"]["count"]), (&1.into(), &2.into()));
            assert!(plan["substitutable"]["paths"][0]["path"].as_str().unwrap().ends_with("-library"));
        } else {
            assert_eq!((&plan["unforeseen"], &plan["toSend"]["count"]), (&true.into(), &3.into()));
        }
        assert_eq!(world.copied(&[&world.library, &world.top]), [false, false]);
    }
}

#[test]
fn without_nix_it_says_so_and_everything_is_sent() {
    let world = World::new();
    let ran = world.run(world.fetch().args(["-s", "localhost"]).arg(&world.top));
    ran.says(0, &["could substitute: everything is sent", "copying 3 paths..."]);
}

/// `--to -s` with this very program as the server.
fn send_with(world: &World, path: std::ffi::OsString, cache: &str) -> Ran {
    let mut command = world.copy();
    command.env("PATH", path).env("NIX_CONFIG", format!("substituters = {cache}\nrequire-sigs = false"));
    world.run(command.args(["-s", "--json", "localhost"]).arg(&world.top))
}

#[test]
fn our_server_substitutes_for_clients_that_ask_with_the_nix_beside_it() {
    let world = World::new();
    let Some(cache) = cache(&world) else { return };
    let ran = send_with(&world, path(), &cache);
    ran.says(0, &[]);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&report["substituted"]["count"], &report["sent"]["count"]), (&1.into(), &2.into()));
    assert_eq!(world.copied(&[&world.library, &world.top]), [true, true]);
}

#[test]
fn our_server_says_that_it_cannot_substitute_where_there_is_no_nix() {
    let world = World::new();
    let ran = send_with(&world, "/nonexistent".into(), "");
    ran.says(0, &["there is no 'nix-store' beside this server that could substitute"]);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&report["substituted"]["count"], &report["sent"]["count"]), (&0.into(), &3.into()));
}

/// Nix up to 2.33 takes any text for a signature. Such texts are not passed on, and that is said.
#[test]
fn texts_that_are_no_signatures_are_left_out_with_a_word() {
    let world = World::new();
    world
        .change_database("update ValidPaths set sigs = 'no-signature also:none' where path like '%-library'");
    let ran = world.run(world.copy().arg("localhost").arg(&world.top));
    ran.says(0, &["warning: 2 texts in the place of signatures are left out"]);
    let again = world.run(world.copy().arg("localhost").arg(&world.top));
    assert!(!again.stderr.contains("signatures"), "{}", again.transcript());
}
