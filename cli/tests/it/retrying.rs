//! Lines that are cut in the middle of a copy, which goes on by itself.

use std::{fmt::Write as _, fs, io::Write as _, process::Command, time::Duration};

use ncc_transport_ssh::test_util::Sshd;
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    daemons::{has_daemon, verify},
    relay::{Then, relay},
    support::{AT_ONCE, PROGRAM, Ran, Running, World, full},
    transports::{Ssh, prefer, sshd, with_each_transport},
};

with_each_transport! {
    a_line_that_is_cut_three_times_costs_three_logins_and_no_path,
    a_line_that_is_cut_costs_no_path_with_a_daemon_either,
    a_host_that_stays_away_is_given_up_with_exit_6,
    without_retries_a_cut_line_ends_the_copy,
    a_key_that_is_refused_the_second_time_ends_the_copy,
    ctrl_c_ends_the_pause_at_once,
}

pub(crate) const LONG: Duration = Duration::from_secs(120);

/// Of the paths that are copied; larger than what is on the way between two processes.
const SIZE: usize = 2 << 20;

/// What one connection carries before it is cut: more than a path, and than what is on the way.
pub(crate) const CUT: u64 = 9 << 20;

/// Paths that refer to nothing.
pub(crate) fn add_paths(world: &World, count: u64) -> Vec<String> {
    let path = |number: u64| {
        let (mut content, mut state) = (String::new(), number);
        while content.len() < SIZE {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let _ = writeln!(content, "{state:x}");
        }
        full(&world.add(&format!("path-{number}"), "file", &content, []))
    };
    (1..=count).map(path).collect()
}

/// The command with what leads to the relay instead of the sshd.
pub(crate) fn over(command: Command, ssh: Ssh, sshd: &Sshd, port: u16) -> Command {
    let mut command = ssh.reaching(command, sshd);
    lead(&mut command, sshd, port);
    command
}

/// Leads a command that leads to the sshd to the relay.
pub(crate) fn lead(command: &mut Command, sshd: &Sshd, port: u16) {
    // The key that is known is that of the other port.
    let key = fs::read_to_string(sshd.directory().join("host_key.pub")).unwrap();
    let mut known = fs::File::options().append(true).open(sshd.known_hosts()).unwrap();
    writeln!(known, "\n[127.0.0.1]:{port} {key}").unwrap();
    prefer(command, &format!("-p {port}"));
    // It is cut behind so many bytes: a busy machine, to which the line seems long, must not make them fewer.
    command.args(["--compress", "none"]);
}

fn report(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.transcript()))
}

fn both_ways(world: &World) -> [Command; 2] {
    [world.copy(), world.fetch()]
}

fn cut_and_completed(ssh: Ssh, words: &[&str], check: impl Fn(&World)) {
    let Some(sshd) = Sshd::start(&[]) else { return };
    for direction in 0..2 {
        let world = World::new();
        let paths = add_paths(&world, 16);
        let port = relay(sshd.port(), &[CUT; 3], Then::Through);
        let before = sshd.logins();
        let [to, from] = both_ways(&world);
        let command = if direction == 0 { to } else { from };
        let mut command = over(command, ssh, &sshd, port);
        command.args(["--json"]).args(words).args(&paths);
        let ran = Running::start(&mut command).end(&world, LONG);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let report = report(&ran);
        assert_eq!(
            (&report["sent"]["count"], &report["reconnects"]),
            (&16.into(), &3.into()),
            "{}",
            ran.stderr
        );
        assert_eq!(sshd.logins() - before, 4, "{}", ran.stderr);
        assert_eq!(ran.stderr.matches("; trying again (1 of 5)").count(), 3, "{}", ran.stderr);
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        assert_eq!(world.copied(&paths), [true; 16]);
        if direction == 1 {
            // What was received is registered: only the path in flight comes a second time, and the metadata.
            let received = report["wire"]["received"].as_u64().unwrap();
            let once = report["sent"]["narBytes"].as_u64().unwrap();
            assert!(received <= once + 3 * (SIZE as u64 + (128 << 10)), "{received} of {once}");
        }
        check(&world);
    }
}

fn a_line_that_is_cut_three_times_costs_three_logins_and_no_path(ssh: Ssh) {
    cut_and_completed(ssh, &["--remote-program", PROGRAM, "127.0.0.1"], |_| ());
}

fn a_line_that_is_cut_costs_no_path_with_a_daemon_either(ssh: Ssh) {
    if has_daemon() {
        cut_and_completed(ssh, &["ssh-ng://127.0.0.1"], verify);
    }
}

fn a_host_that_stays_away_is_given_up_with_exit_6(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    for direction in 0..2 {
        let world = World::new();
        let paths = add_paths(&world, 8);
        let port = relay(sshd.port(), &[CUT], Then::Gone);
        let [to, from] = both_ways(&world);
        let mut command = over(if direction == 0 { to } else { from }, ssh, &sshd, port);
        command.args(["--retries", "2", "--remote-program", PROGRAM, "127.0.0.1"]).args(&paths);
        let ran = Running::start(&mut command).end(&world, LONG);
        ran.says(6, &["trying again (1 of 2)", "(2 of 2)", "error: ", "Connection refused", "hint: "]);
        assert_eq!(ran.stderr.matches("trying again").count(), 2, "{}", ran.transcript());
        assert_eq!(ran.stderr.matches("error: ").count(), 1, "{}", ran.transcript());
    }
}

fn without_retries_a_cut_line_ends_the_copy(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let paths = add_paths(&world, 8);
    let port = relay(sshd.port(), &[CUT], Then::Through);
    let mut command = over(world.copy(), ssh, &sshd, port);
    command.args(["--retries", "0", "--remote-program", PROGRAM, "127.0.0.1"]).args(&paths);
    let ran = Running::start(&mut command).end(&world, LONG);
    ran.says(6, &["error: "]);
    assert!(!ran.stderr.contains("trying again"), "{}", ran.transcript());
    assert_eq!(sshd.logins(), 1);
}

fn a_key_that_is_refused_the_second_time_ends_the_copy(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let paths = add_paths(&world, 8);
    let port = relay(sshd.port(), &[CUT], Then::Through);
    // The server forgets the key as soon as it has let the first one in.
    let keys = sshd.directory().join("authorized_keys");
    let forgets =
        world.script("forgets", &format!("#!/bin/sh\n: > '{}'\nexec {PROGRAM} \"$@\"\n", keys.display()));
    let mut command = over(world.copy(), ssh, &sshd, port);
    command.args(["--remote-program"]).arg(forgets).arg("127.0.0.1").args(&paths);
    let ran = Running::start(&mut command).end(&world, LONG);
    ran.says(5, &["trying again (1 of 5)", "error: ", "permission denied"]);
    assert_eq!(ran.stderr.matches("trying again").count(), 1, "{}", ran.transcript());
    assert_eq!(sshd.logins(), 1);
}

fn ctrl_c_ends_the_pause_at_once(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let paths = add_paths(&world, 8);
    let port = relay(sshd.port(), &[CUT], Then::Gone);
    let mut command = over(world.copy(), ssh, &sshd, port);
    command.args(["--retries", "100", "--remote-program", PROGRAM, "127.0.0.1"]).args(&paths);
    let mut running = Running::start(&mut command);
    running.wait_for("(3 of 100)", LONG);
    running.signal(Signal::INT);
    let ran = running.end(&world, AT_ONCE);
    assert_eq!(ran.code, 130, "{}", ran.transcript());
    assert!(!ran.stderr.contains("error: "), "{}", ran.transcript());
    world.expect_no_process(AT_ONCE);
}
