//! Copies over SSH that end too early: by a signal, with the server, with the line.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    sync::mpsc,
    thread::JoinHandle,
    time::Duration,
};

use data_encoding::BASE64;
use ncc_transport_ssh::test_util::Sshd;
use rustix::process::{Signal, kill_process};

use crate::{
    support::{AT_ONCE, PROGRAM, Running, World, children, full},
    transports::{Ssh, add_big, prefer, sshd, stuck, with_each_transport},
};

with_each_transport! {
    ctrl_c_ends_the_wait_for_an_agent_that_does_not_sign,
    a_silent_host_is_told_of_and_ctrl_c_ends_at_once,
    signals_in_the_middle_end_at_once_and_leave_no_process_on_either_side,
    ctrl_c_while_fetching_ends_at_once_and_leaves_no_process_on_either_side,
    a_server_that_dies_in_the_middle_is_named_and_a_second_run_completes,
    a_line_that_goes_dead_ends_by_itself_with_exit_6_and_the_cause,
    a_line_cut_in_the_middle_of_a_nar_is_one_error_in_either_direction,
}

const SOON: Duration = Duration::from_secs(20);

/// The watchdog waits 20 s before it speaks, so this test takes as long.
fn a_silent_host_is_told_of_and_ctrl_c_ends_at_once(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let silent = world.script("silent", "#!/bin/sh\ncat > /dev/null\n");
    let mut command = ssh.reach(&world, &sshd);
    command.arg("--remote-program").arg(silent).arg("127.0.0.1").arg(&world.top);
    let mut running = Running::start(&mut command);
    running.wait_for("waiting 2", Duration::from_secs(40));
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

/// Lock files, parts of paths and roots of processes that are gone, at the destination.
fn leftovers(world: &World) -> Vec<PathBuf> {
    let folders = ["nix/store", "nix/var/nix/temproots"].map(|folder| world.to().join(folder));
    let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    entries.map(|entry| entry.unwrap().path()).filter(|path| !path.ends_with(".links")).collect()
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
    let left = leftovers(&world);
    assert!(left.is_empty(), "{left:?}");
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
    ran.says(1, &["error:", "127.0.0.1", "Killed by the test"]);
    assert_eq!(world.copied(&[&big]), [false]);
    world.run(ssh.served(&world, &sshd).arg("127.0.0.1").args([&big, &world.top])).says(0, &[]);
    assert_eq!(world.copied(&[&big, &world.top]), [true, true]);
}

/// It has the key that the server knows, and never signs with it: nobody confirms it, or touches the token. It says when it is
/// asked to, and ends when whoever asked has gone.
fn agent_that_does_not_sign(socket: &Path, sshd: &Sshd) -> (mpsc::Receiver<()>, JoinHandle<()>) {
    let listener = UnixListener::bind(socket).unwrap();
    let key = fs::read_to_string(sshd.directory().join("user_key.pub")).unwrap();
    let key = BASE64.decode(key.split(' ').nth(1).unwrap().as_bytes()).unwrap();
    // SSH_AGENT_IDENTITIES_ANSWER: one key without a comment.
    let mut answer = vec![12, 0, 0, 0, 1];
    answer.extend(u32::try_from(key.len()).unwrap().to_be_bytes());
    answer.extend(key);
    answer.extend([0; 4]);
    let (say, asked) = mpsc::channel();
    let agent = std::thread::spawn(move || {
        for mut client in listener.incoming().map(Result::unwrap) {
            let mut length = [0; 4];
            while client.read_exact(&mut length).is_ok() {
                let mut request = vec![0; u32::from_be_bytes(length).try_into().unwrap()];
                client.read_exact(&mut request).unwrap();
                match request.first() {
                    Some(11) => {
                        client.write_all(&u32::try_from(answer.len()).unwrap().to_be_bytes()).unwrap();
                        client.write_all(&answer).unwrap();
                    }
                    Some(13) => {
                        say.send(()).unwrap();
                        assert_eq!(client.read(&mut length).unwrap(), 0);
                        return;
                    }
                    // SSH_AGENT_FAILURE: OpenSSH asks for extensions.
                    _ => client.write_all(&[0, 0, 0, 1, 5]).unwrap(),
                }
            }
        }
    });
    (asked, agent)
}

fn ctrl_c_ends_the_wait_for_an_agent_that_does_not_sign(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let socket = world.directory().join("agent");
    let (asked, agent) = agent_that_does_not_sign(&socket, &sshd);
    let mut command = ssh.served(&world, &sshd);
    prefer(&mut command, &format!("-o IdentityAgent={}", socket.display()));
    let running = Running::start(command.arg("127.0.0.1").arg(&world.top));
    asked.recv_timeout(SOON).unwrap();
    running.signal(Signal::INT);
    let ran = running.end(&world, AT_ONCE);
    assert_eq!(ran.code, 130, "{}", ran.transcript());
    assert!(!ran.stderr.contains("error"), "{}", ran.transcript());
    world.expect_no_process(AT_ONCE);
    agent.join().unwrap();
}

/// However many paths depend on the one that was under way. Nothing of it is registered, and a second run completes.
fn a_line_cut_in_the_middle_of_a_nar_is_one_error_in_either_direction(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    for fetches in [false, true] {
        let world = World::new();
        let big = add_big(&world);
        let (_, base_name) = big.rsplit_once('/').unwrap();
        let big_path = ncc_store::StorePath::from_base_name(base_name).unwrap();
        let dependants: Vec<String> = (0..20)
            .map(|number| full(&world.add(&format!("dependant-{number}"), "file", "x", [big_path.clone()])))
            .collect();
        let slow = world.script(
            "slow",
            &format!("#!/bin/sh\n{PROGRAM} \"$@\" | {{ dd bs=65536 count=12 2>/dev/null; exec cat > /dev/null; }}\n"),
        );
        let server = if fetches { slow.display().to_string() } else { stuck(&world) };
        let copy = if fetches { world.fetch() } else { world.copy() };
        let mut command = ssh.reaching(copy, &sshd);
        command.args(["--retries", "0", "--remote-program", &server, "127.0.0.1"]).args(&dependants);
        let mut running = Running::start(&mut command);
        running.wait_for("-big'", SOON);
        for session in children(sshd.pid().unwrap()) {
            kill_process(session, Signal::KILL).unwrap();
        }
        let ran = running.end(&world, SOON);
        assert_eq!(ran.code, 6, "{}", ran.transcript());
        assert_eq!(ran.stderr.matches("error: ").count(), 1, "{}", ran.transcript());
        assert_eq!(ran.stderr.matches("hint: ").count(), 1, "{}", ran.transcript());
        assert!(!ran.stderr.contains("was not copied"), "{}", ran.transcript());
        world.expect_no_process(AT_ONCE);
        let all: Vec<&str> = dependants.iter().chain([&big]).map(String::as_str).collect();
        assert_eq!(world.copied(&all), vec![false; all.len()]);
        if fetches {
            let left = leftovers(&world);
            assert!(left.is_empty(), "{left:?}");
        }
        let copy = if fetches { world.fetch() } else { world.copy() };
        let mut again = ssh.reaching(copy, &sshd);
        world
            .run(again.args(["--remote-program", PROGRAM, "127.0.0.1"]).args(&dependants))
            .says(0, &["copied 21 paths"]);
        assert_eq!(world.copied(&all), vec![true; all.len()]);
    }
}

/// The defaults (30 s, three times) would be this test's duration: it gives shorter ones, as a user may.
fn a_line_that_goes_dead_ends_by_itself_with_exit_6_and_the_cause(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let big = add_big(&world);
    let mut command = ssh.reach(&world, &sshd);
    prefer(&mut command, "-o ServerAliveInterval=1 -o ServerAliveCountMax=2");
    command.args(["--retries", "0", "--remote-program", &stuck(&world), "127.0.0.1"]).arg(&big);
    let mut running = Running::start(&mut command);
    running.wait_for("-big'", SOON);
    let sessions = children(sshd.pid().unwrap());
    assert!(!sessions.is_empty(), "no session to stop");
    for session in sessions {
        kill_process(session, Signal::STOP).unwrap();
    }
    let ran = running.end(&world, SOON);
    let cause = ssh.words("not responding", "nothing came from the server for");
    ran.says(6, &["127.0.0.1", cause, "hint:"]);
}
