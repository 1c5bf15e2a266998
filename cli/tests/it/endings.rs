//! Copies over SSH that end too early: by a signal, with the server, with the line.

use std::time::Duration;

use rustix::process::{Signal, kill_process};

use crate::{
    support::{PROGRAM, Running, World, children},
    transports::{Ssh, add_big, prefer, sshd, stuck, with_each_transport},
};

with_each_transport! {
    a_silent_host_is_told_of_and_ctrl_c_ends_at_once,
    signals_in_the_middle_end_at_once_and_leave_no_process_on_either_side,
    ctrl_c_while_fetching_ends_at_once_and_leaves_no_process_on_either_side,
    a_server_that_dies_in_the_middle_is_named_and_a_second_run_completes,
    a_line_that_goes_dead_ends_by_itself_with_exit_3_and_the_cause,
}

const SOON: Duration = Duration::from_secs(20);
/// "At once", on a machine that has other things to do.
const AT_ONCE: Duration = Duration::from_secs(3);

/// The watchdog waits 20 s before it speaks, so this test takes as long.
fn a_silent_host_is_told_of_and_ctrl_c_ends_at_once(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let silent = world.script("silent", "#!/bin/sh\ncat > /dev/null\n");
    let mut command = ssh.reach(&world, &sshd);
    command.arg("--remote-program").arg(silent).arg("127.0.0.1").arg(&world.top);
    let mut running = Running::start(&mut command);
    running.wait_for("waiting 20 s for 127.0.0.1", Duration::from_secs(40));
    running.signal(Signal::INT);
    let ran = running.end(&world, AT_ONCE);
    assert_eq!(ran.code, 130, "{}", ran.transcript());
    world.expect_no_process(AT_ONCE);
}

fn signals_in_the_middle_end_at_once_and_leave_no_process_on_either_side(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let world = World::new();
        let big = add_big(&world);
        let mut command = ssh.reach(&world, &sshd);
        command.args(["--remote-program", &stuck(&world), "127.0.0.1"]).args([&big, &world.top]);
        let mut running = Running::start(&mut command);
        running.wait_for("-big'", SOON);
        running.signal(signal);
        let ran = running.end(&world, AT_ONCE);
        assert_eq!(ran.code, code, "{}", ran.transcript());
        assert!(!ran.stderr.contains("error"), "{}", ran.transcript());
        world.expect_no_process(Duration::from_secs(10));
        assert_eq!(world.copied(&[&big]), [false]);
        world.run(ssh.served(&world, &sshd).arg("127.0.0.1").args([&big, &world.top])).says(0, &[]);
        assert_eq!(world.copied(&[&big, &world.top]), [true, true]);
    }
}

fn ctrl_c_while_fetching_ends_at_once_and_leaves_no_process_on_either_side(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let big = add_big(&world);
    let body = format!(
        "#!/bin/sh\n{PROGRAM} \"$@\" | {{ dd bs=65536 count=12 2>/dev/null; exec cat > /dev/null; }}\n"
    );
    let slow = world.script("slow", &body);
    let mut command = ssh.reaching(world.fetch(), &sshd);
    command.arg("--remote-program").arg(slow).arg("127.0.0.1").args([&big, &world.top]);
    let mut running = Running::start(&mut command);
    running.wait_for("-big'", SOON);
    running.signal(Signal::INT);
    let ran = running.end(&world, AT_ONCE);
    assert_eq!(ran.code, 130, "{}", ran.transcript());
    world.expect_no_process(Duration::from_secs(10));
    assert_eq!(world.copied(&[&big]), [false]);
    world.run(world.fetch().arg("localhost").args([&big, &world.top])).says(0, &[]);
}

fn a_server_that_dies_in_the_middle_is_named_and_a_second_run_completes(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let big = add_big(&world);
    let body = format!(
        "#!/bin/bash\nexec {PROGRAM} \"$@\" < <(dd bs=65536 count=12 2>/dev/null; echo 'Killed by the test' >&2; kill -9 $$)\n"
    );
    let dying = world.script("dying", &body);
    let mut command = ssh.reach(&world, &sshd);
    command.arg("--remote-program").arg(dying).arg("127.0.0.1").args([&big, &world.top]);
    let ran = Running::start(&mut command).end(&world, SOON);
    assert_ne!(ran.code, 0, "{}", ran.transcript());
    ran.says(ran.code, &["error:", "127.0.0.1"]);
    assert_eq!(world.copied(&[&big]), [false]);
    world.run(ssh.served(&world, &sshd).arg("127.0.0.1").args([&big, &world.top])).says(0, &[]);
    assert_eq!(world.copied(&[&big, &world.top]), [true, true]);
}

/// The defaults (30 s, three times) would be this test's duration: it gives shorter ones, as a user may.
fn a_line_that_goes_dead_ends_by_itself_with_exit_3_and_the_cause(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let big = add_big(&world);
    let mut command = ssh.reach(&world, &sshd);
    prefer(&mut command, "-o ServerAliveInterval=1 -o ServerAliveCountMax=2");
    command.args(["--remote-program", &stuck(&world), "127.0.0.1"]).arg(&big);
    let mut running = Running::start(&mut command);
    running.wait_for("-big'", SOON);
    let sessions = children(sshd.pid().unwrap());
    assert!(!sessions.is_empty(), "no session to stop");
    for session in sessions {
        kill_process(session, Signal::STOP).unwrap();
    }
    let ran = running.end(&world, SOON);
    let cause = ssh.words("not responding", "nothing came from the server for");
    ran.says(3, &["127.0.0.1", cause, "hint:"]);
}
