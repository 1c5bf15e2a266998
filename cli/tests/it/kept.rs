//! `--add-root` and `--profile`: what was copied outlives a real garbage collector.

use std::{fs, path::Path, process::Command};

use ncc_transport_ssh::test_util::Sshd;

use crate::{
    support::{World, has_nix, valid},
    transports::{Ssh, path, with_each_transport},
};

/// Deletes all that nothing keeps from a store.
pub(crate) fn collect_garbage(store: &Path, world: &World) {
    let mut command = Command::new("nix-store");
    command.args(["--gc", "--store"]).arg(store).env_clear().env("PATH", path());
    let output =
        command.env("HOME", world.directory()).env("NIX_CONF_DIR", world.directory()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) fn leads_to(link: &Path, path: &str) {
    assert_eq!(fs::read_link(link).unwrap(), Path::new(path));
}

/// Copies with each kind of root; `command` is one that leads to `to`, without a host.
fn keeps(world: &World, host: &str, command: impl Fn() -> Command) {
    let link = world.directory().join("kept");
    let with = |option: &str, value: &Path, paths: &[&str]| {
        let mut command = command();
        command.env("PATH", path()).arg("-v").arg(option).arg(value).arg(host).args(paths);
        world.run(&mut command)
    };

    // Not in the order of the paths' names, whatever that is.
    let mut paths = [world.program.as_str(), world.other.as_str()];
    paths.sort_unstable_by(|one, other| other.cmp(one));
    with("--add-root", &link, &paths).says(0, &["made the root '$DIR/kept'"]);
    leads_to(&link, paths[0]);
    leads_to(&world.directory().join("kept-2"), paths[1]);
    collect_garbage(&world.to(), world);
    assert_eq!(valid(&world.to(), &world.all()), [true, true, false, true]);

    // The next version, and one that is there already.
    let profile = world.directory().join("profile");
    for (target, generation) in [(&world.program, 1), (&world.top, 2)] {
        with("--profile", &profile, &[target]).says(0, &["made a generation of the profile"]);
        leads_to(&profile, &format!("profile-{generation}-link"));
    }
    fs::remove_file(&link).unwrap();
    fs::remove_file(world.directory().join("kept-2")).unwrap();
    collect_garbage(&world.to(), world);
    assert_eq!(valid(&world.to(), &world.all()), [true, true, true, false]);

    // What stands in the way is no root, and is not replaced.
    let file = world.directory().join("file");
    fs::write(&file, "mine").unwrap();
    let ran = with("--add-root", &file, &[&world.other]);
    ran.says(1, &["the root '$DIR/file' was not made on host", "the paths are there, and from now on"]);
    assert_eq!(
        (fs::read(&file).unwrap().as_slice(), valid(&world.to(), &[&world.other])),
        (&b"mine"[..], vec![true])
    );
}

#[test]
fn a_root_on_the_host_outlives_a_garbage_collector() {
    if has_nix() {
        let world = World::new();
        keeps(&world, "localhost", || world.copy());
    }
}

fn a_root_is_made_over_the_same_connection(ssh: Ssh) {
    if !has_nix() {
        return;
    }
    let Some(sshd) = Sshd::start(&[]) else { return };
    let world = World::new();
    keeps(&world, "127.0.0.1", || ssh.reach(&world, &sshd));
    let logins = sshd.log().matches("Accepted publickey").count();
    assert_eq!(logins, 4, "one for each copy");
    let world = World::new();
    keeps(&world, "ssh-ng://127.0.0.1", || ssh.reach(&world, &sshd));
}

with_each_transport!(a_root_is_made_over_the_same_connection);

#[test]
fn a_root_here_outlives_a_garbage_collector() {
    if has_nix() {
        let world = World::new();
        keeps(&world, "localhost", || world.fetch());
    }
}

#[test]
fn a_dry_run_makes_no_root() {
    let world = World::new();
    let link = world.directory().join("kept");
    let mut command = world.copy();
    let ran = world.run(command.args(["-n", "--add-root"]).arg(&link).args(["localhost", &world.other]));
    ran.says(0, &[]);
    assert!(ran.stdout.contains("would make the root '$DIR/kept'"), "{}", ran.transcript());
    assert!(!link.exists() && fs::read_link(&link).is_err());
}

#[test]
fn a_profile_is_refused_for_several_paths_before_anything_is_copied() {
    let world = World::new();
    let mut command = world.copy();
    let ran = world.run(command.args(["--profile", "p", "localhost", &world.other, &world.library]));
    ran.says(1, &["cannot be made of 2 paths: at most 1"]);
    assert_eq!(world.copied(&world.all()), [false; 4]);
}
