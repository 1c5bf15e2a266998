//! `--dry-run -s`: the host is asked what it would substitute, in a channel of its own. (With real Nix: `substitutes.rs`, and
//! `cargo xtask interop`.)

use std::{process::Command, time::Duration};

use crate::{
    support::{PROGRAM, Ran, Running, World},
    transports::{Ssh, sshd, with_each_transport},
};

with_each_transport! {
    both_questions_take_one_login,
}

const BOUND: Duration = Duration::from_secs(30);

/// A `nix-store` that serves as this program does, and is asked what it would substitute with `$@` as the paths.
fn nix_store(world: &World, foresees: &str) -> std::path::PathBuf {
    let body = format!(
        "#!/bin/sh\nif [ \"$1\" = --realise ]; then\nshift 4\n{foresees}\nelse exec {PROGRAM} \"$@\"\nfi\n"
    );
    world.script("nix-store", &body)
}

/// Prints the listing of Nix with those of its paths that match.
const LISTING: &str = "echo 'this path will be fetched (0.00 MiB download, 0.00 MiB unpacked):' >&2\n\
     for path; do case $path in *-library) echo \"  $path\" >&2;; esac; done";

fn look(world: &World, mut command: Command, nix_store: &std::path::Path) -> Ran {
    command.args(["--dry-run", "-s", "--stall-timeout", "2", "--remote-program"]).arg(nix_store);
    command.arg("localhost").arg(&world.top);
    Running::start(&mut command).end(world, BOUND)
}

/// On `localhost`, where programs are found.
fn look_here(world: &World, foresees: &str) -> Ran {
    let mut command = world.copy();
    command.env("PATH", crate::transports::path());
    look(world, command, &nix_store(world, foresees))
}

fn both_questions_take_one_login(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let mut command = ssh.reach(&world, &sshd);
    command.args(["--dry-run", "-s", "--remote-program"]).arg(nix_store(&world, LISTING));
    let ran = world.run(command.arg("127.0.0.1").arg(&world.top));
    ran.is("
        1| would copy 2 paths (912 B) to 127.0.0.1
        1|        456 B  /nix/store/...-program
        1|        456 B  /nix/store/...-top
        1| would be substituted: 1 path (8.3 KiB)
        1|      8.3 KiB  /nix/store/...-library
        1| already there: 0 paths (0 B)
        exit 0
    ");
    assert_eq!(sshd.log().matches("Accepted publickey").count(), 1, "{}", sshd.log());
}

#[test]
fn a_host_that_refuses_says_why_and_all_would_be_sent_at_most() {
    let world = World::new();
    let ran = look_here(&world, "echo 'error: cannot connect to daemon' >&2; exit 1");
    ran.says(0, &["localhost", "could not say what it would substitute: cannot connect to daemon"]);
    assert!(ran.stdout.contains("would copy 3 paths"), "{}", ran.transcript());
    assert!(ran.stdout.contains("which it could not tell"), "{}", ran.transcript());
}

#[test]
fn a_listing_that_broke_off_is_none() {
    let world = World::new();
    let ran = look_here(&world, &format!("{LISTING}\necho Killed >&2; exit 1"));
    ran.says(0, &["could not say what it would substitute"]);
    assert!(ran.stdout.contains("would copy 3 paths"), "{}", ran.transcript());
}

#[test]
fn a_host_that_hangs_or_floods_is_given_up() {
    for foresees in ["sleep 600", "exec yes", "exec >&-; exec sleep 600"] {
        let world = World::new();
        let ran = look_here(&world, foresees);
        ran.says(0, &["could not say what it would substitute"]);
        assert!(ran.stdout.contains("would copy 3 paths"), "{}", ran.transcript());
    }
}

#[test]
fn this_program_is_not_asked_for_it_substitutes_nothing() {
    let world = World::new();
    let ran = look(&world, world.copy(), PROGRAM.as_ref());
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert!(ran.stdout.contains("which it could not tell"), "{}", ran.transcript());
}
