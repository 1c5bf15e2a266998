//! Hosts that hang: announced, then given up, in bounded time and with a message that a person can act on.

use std::{fs, time::Duration};

use crate::support::{PROGRAM, Ran, Running, World, full};

/// Far more than the two seconds that these tests grant, and the five in which a server may end by itself.
const BOUND: Duration = Duration::from_secs(30);

/// A copy to `localhost`, where this script is the server.
fn copy_to(world: &World, server: &str, paths: &[&str]) -> Ran {
    let server = world.script("server", server);
    let mut command = world.copy();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.args(["--stall-timeout", "2", "--remote-program"]).arg(server).arg("localhost").args(paths);
    let ran = Running::start(&mut command).end(world, BOUND);
    world.expect_no_process(BOUND);
    ran
}

#[test]
fn a_server_that_never_greets() {
    let world = World::new();
    let ran = copy_to(&world, "#!/bin/sh\ncat > /dev/null\n", &[&world.other]);
    ran.says(1, &["error:", "host 'localhost'", "nothing was heard from it for 2 s", "greeting", "hint:"]);
    assert_eq!(world.copied(&world.all()), [false; 4]);
}

/// It does not even end when its input does.
#[test]
fn a_shell_that_asks_something_and_waits_is_quoted() {
    let world = World::new();
    let menu = "#!/bin/sh\necho 'Choose a project: [1] [2]'\nexec sleep 600\n";
    let ran = copy_to(&world, menu, &[&world.other]);
    ran.says(
        1,
        &["nothing was heard from it for 2 s", "Choose a project: [1] [2]", "hint: no server has started"],
    );
}

#[test]
fn a_server_that_stops_in_the_middle_is_named_with_the_path_and_a_second_run_completes() {
    let world = World::new();
    let big = full(&world.add("big", "file", &"x".repeat(12 << 20), []));
    // The server is cut off, and whoever had started it holds the connection open.
    let hangs = format!(
        "#!/bin/sh\ndd bs=65536 count=12 2>/dev/null | {PROGRAM} \"$@\" 2>/dev/null\nexec sleep 600\n"
    );
    let ran = copy_to(&world, &hangs, &[&big]);
    ran.says(
        6,
        &[
            "error:",
            "host 'localhost'",
            "-big'",
            "nothing was heard from it for 2 s",
            "hint:",
            "--stall-timeout",
        ],
    );
    assert_eq!(world.copied(&[&big]), [false]);
    fs::remove_file(world.directory().join("server")).unwrap();
    world.run(world.copy().args(["--remote-program", PROGRAM, "localhost", &big])).says(0, &[]);
    assert_eq!(world.copied(&[&big]), [true]);
}

/// While nothing is to be said but what would be done, a host that hangs is announced too.
#[test]
fn a_dry_run_says_what_it_waits_for() {
    let world = World::new();
    let server = world.script("server", "#!/bin/sh\ncat > /dev/null\n");
    let mut command = world.copy();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.args(["--dry-run", "--stall-timeout", "0", "--remote-program"]).arg(server);
    let mut running = Running::start(command.arg("localhost").arg(&world.other));
    running.wait_for("waiting 2", Duration::from_secs(40));
    running.signal(rustix::process::Signal::INT);
    assert_eq!(running.end(&world, BOUND).code, 130);
}
