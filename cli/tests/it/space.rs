//! A disk that has no room for what is fetched.

use std::{fs, process::Command};

use ncc_transport_ssh::test_util::required;
use rustix::process::geteuid;

use crate::{
    retrying::add_paths,
    support::{Ran, World},
    transports::path,
    tty::left_out,
};

/// Fetches into a store on a file system of 8 MiB, which is gone afterwards with its namespace.
fn fetch_into_little(world: &World, words: &[&str], paths: &[String]) -> Ran {
    let copy = world.fetch();
    let script = "mount -t tmpfs -o size=8m tmpfs \"$0\"; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-euc", script]).arg(world.to());
    command.arg(copy.get_program()).args(copy.get_args()).args(words).args(["localhost"]).args(paths);
    command
        .env_clear()
        .envs(copy.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env("PATH", path());
    world.run(&mut command)
}

#[test]
fn what_does_not_fit_is_told_before_the_first_byte() {
    let unshares = || Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|it| it.success());
    if !geteuid().is_root() || !unshares() {
        assert!(!required(), "root and mount namespaces are needed and are not here");
        return left_out("no mount namespaces here");
    }
    let world = World::new();
    fs::create_dir(world.to()).unwrap();
    let paths = add_paths(&world, 6);
    let ran = fetch_into_little(&world, &[], &paths);
    ran.says(
        1,
        &[
            "error: nothing is copied: the store in $DIR/to has room for ",
            " takes 13 MiB",
            "'--no-check-space'",
        ],
    );
    assert!(!ran.stderr.contains("copying path"), "{}", ran.transcript());
    // What fits is let pass.
    fetch_into_little(&world, &[], &paths[..2]).says(0, &["copying 2 paths..."]);
    // And so is what nobody wants to have looked at.
    let ran = fetch_into_little(&world, &["--no-check-space"], &paths);
    ran.says(1, &["copying path", "hint: the disk of this machine is full"]);
}
