//! Real garbage collectors at both ends in the middle of a copy, whose line is cut besides.

use std::process::Command;

use crate::{
    kept::collect_garbage,
    relay::{Then, relay},
    retrying::{CUT, LONG, add_paths, over},
    support::{PROGRAM, Running, World, has_nix, valid},
    transports::{Ssh, sshd, with_each_transport},
};

with_each_transport!(collectors_at_both_ends_take_nothing_that_is_copied);

/// A server that collects in both stores once some bytes have come over the line, which is before most paths are read.
fn collecting(world: &World, fetches: bool) -> String {
    let collect = |store: &std::path::Path| {
        format!(
            "nix-store --gc --store '{}' >/dev/null 2>>'{}/gc'",
            store.display(),
            world.directory().display()
        )
    };
    let collects = format!(
        "{{ dd bs=65536 count=12 2>/dev/null; {}; {}; exec cat; }}",
        collect(&world.from()),
        collect(&world.to())
    );
    let body = if fetches {
        format!("#!/bin/sh\n{PROGRAM} \"$@\" | {collects}\n")
    } else {
        format!("#!/bin/sh\n{collects} | {PROGRAM} \"$@\"\n")
    };
    world.script("collecting", &body).display().to_string()
}

fn collectors_at_both_ends_take_nothing_that_is_copied(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    if !has_nix() {
        return;
    }
    for fetches in [false, true] {
        let world = World::new();
        let mut paths = add_paths(&world, 8);
        // There already, and nothing keeps it there.
        world
            .run(world.copy().args(["--remote-program", PROGRAM, "localhost"]).arg(&world.other))
            .says(0, &[]);
        paths.push(world.other.clone());
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let port = relay(sshd.port(), &[CUT], Then::Through);
        let command = if fetches { world.fetch() } else { world.copy() };
        let mut command: Command = over(command, ssh, &sshd, port);
        command.args(["--remote-program", &collecting(&world, fetches), "127.0.0.1"]).args(&paths);
        let ran = Running::start(&mut command).end(&world, LONG);
        ran.says(0, &["trying again (1 of 5)"]);
        assert_eq!(world.copied(&paths), [true; 9]);
        if !fetches {
            // Over a line that was lost, the other side protects no more what has come already.
            assert_eq!(valid(&world.from(), &paths), [true; 9]);
        }
        // They did run: what was not copied is gone.
        assert_eq!(
            valid(&world.from(), &[&world.library]),
            [false],
            "{}",
            std::fs::read_to_string(world.directory().join("gc")).unwrap()
        );
        // And nothing is kept for longer than it takes.
        collect_garbage(&world.from(), &world);
        assert_eq!(valid(&world.from(), &paths), [false; 9]);
    }
}
