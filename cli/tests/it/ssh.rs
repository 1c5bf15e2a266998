//! Over a real ssh to a real sshd on loopback.

use std::{fmt::Write as _, fs, os::unix::fs::symlink, process::Command, time::Duration};

use ncc_transport_ssh::test_util::Sshd;
use rustix::process::{Signal, kill_process};

use crate::support::{PROGRAM, Ran, Running, World, children};

const SOON: Duration = Duration::from_secs(20);
/// "At once", on a machine that has other things to do.
const AT_ONCE: Duration = Duration::from_secs(3);

/// `nix-copy-closure --store FROM --remote-store TO` with what leads to this sshd; the host is `127.0.0.1`.
pub(crate) fn reach(world: &World, sshd: &Sshd) -> Command {
    let mut command = world.copy();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("NIX_SSHOPTS", sshd.nix_sshopts());
    command
}

/// An sshd whose users have no home, so that nothing in this user's `.bashrc` counts.
pub(crate) fn sshd(config: &[&str]) -> Option<Sshd> {
    Sshd::start(&[config, &["SetEnv HOME=/nowhere"]].concat())
}

fn served(world: &World, sshd: &Sshd) -> Command {
    let mut command = reach(world, sshd);
    command.args(["--remote-program", PROGRAM]);
    command
}

/// A path that is larger than all buffers on the way.
pub(crate) fn add_big(world: &World) -> String {
    let mut content = String::new();
    let mut state = 1_u64;
    while content.len() < 12 << 20 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let _ = writeln!(content, "{state:x}");
    }
    crate::support::full(&world.add("big", "file", &content, []))
}

/// A server that takes a little and then works no more, but ends when its input does.
pub(crate) fn stuck(world: &World) -> String {
    let body =
        format!("#!/bin/sh\n{{ dd bs=65536 count=12 2>/dev/null; cat > /dev/null; }} | {PROGRAM} \"$@\"\n");
    world.script("stuck", &body).display().to_string()
}

#[test]
fn both_directions_over_ssh() {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    world.run(served(&world, &sshd).args(["--to", "127.0.0.1"]).arg(&world.top)).is("
        2| copying 3 paths...
        2| copying path '/nix/store/...-library' to 'ssh://127.0.0.1'...
        2| copying path '/nix/store/...-program' to 'ssh://127.0.0.1'...
        2| copying path '/nix/store/...-top' to 'ssh://127.0.0.1'...
        exit 0
    ");
    let mut command = world.bare();
    command
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("NIX_SSHOPTS", sshd.nix_sshopts())
        .args(["--from", "127.0.0.1", "--remote-program", PROGRAM, "--remote-store"])
        .arg(world.to())
        .arg("--store")
        .arg(world.directory().join("third"))
        .arg(&world.top);
    world.run(&mut command).says(0, &["copying 3 paths...", "from 'ssh://127.0.0.1'"]);
}

#[test]
fn what_the_remote_shell_prints_is_passed_over() {
    let Some(sshd) =
        sshd(&["ForceCommand echo Welcome; printf ' to %s ' this; eval \"$SSH_ORIGINAL_COMMAND\""])
    else {
        return;
    };
    let world = World::new();
    world.run(served(&world, &sshd).arg("127.0.0.1").arg(&world.other)).is("
        2| copying 1 paths...
        2| copying path '/nix/store/...-other' to 'ssh://127.0.0.1'...
        exit 0
    ");
}

#[test]
fn a_shell_that_only_prints_is_quoted() {
    let Some(sshd) = sshd(&["ForceCommand echo This account is currently not available."]) else {
        return;
    };
    let world = World::new();
    let ran = world.run(served(&world, &sshd).arg("127.0.0.1").arg(&world.other));
    ran.says(1, &["127.0.0.1", "This account is currently not available.", "hint:"]);
}

/// A directory with a shell and nothing else, to be the PATH of the remote.
fn only_a_shell(world: &World) -> String {
    let bin = world.directory().join("bin");
    fs::create_dir(&bin).unwrap();
    for name in ["sh", "id"] {
        let found = ["/bin", "/usr/bin"].map(|directory| format!("{directory}/{name}"));
        let program = found.iter().find(|file| fs::exists(file).unwrap()).unwrap();
        symlink(program, bin.join(name)).unwrap();
    }
    bin.display().to_string()
}

#[test]
fn a_server_that_is_not_on_the_path_is_found_in_the_usual_places() {
    let world = World::new();
    let profile = world.directory().join(".nix-profile/bin");
    fs::create_dir_all(&profile).unwrap();
    symlink(PROGRAM, profile.join("nix-store")).unwrap();
    let environment = format!("SetEnv PATH={} HOME={}", only_a_shell(&world), world.directory().display());
    let Some(sshd) = Sshd::start(&[&environment]) else { return };
    world.run(reach(&world, &sshd).arg("127.0.0.1").arg(&world.other)).says(0, &["copying 1 paths..."]);
    assert_eq!(world.copied(&world.all()), [false, false, false, true]);
}

#[test]
fn a_server_that_is_nowhere_is_an_error_that_says_where_it_was_looked_for() {
    let world = World::new();
    let environment = format!("SetEnv PATH={} HOME={}", only_a_shell(&world), world.directory().display());
    let Some(sshd) = Sshd::start(&[&environment]) else { return };
    let ran = world.run(reach(&world, &sshd).arg("127.0.0.1").arg(&world.other));
    ran.says(
        1,
        &[
            "127.0.0.1",
            "'nix-store' was not found there",
            "$DIR/.nix-profile/bin/nix-store",
            "/nix/var/nix/profiles/default/bin/nix-store",
            "/run/current-system/sw/bin/nix-store",
            "hint: if Nix is installed there, say where with '--remote-program",
        ],
    );
}

#[test]
fn a_named_program_that_is_nowhere_is_an_error_with_a_hint() {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let mut command = reach(&world, &sshd);
    command.args(["--remote-program", "/nowhere/nix-store", "127.0.0.1"]).arg(&world.other);
    world
        .run(&mut command)
        .says(1, &["'/nowhere/nix-store' was not found there", "hint:", "--remote-program"]);
}

/// ssh takes the first value of an option: the user's.
fn with_first(world: &World, sshd: &Sshd, options: &str) -> Ran {
    let mut command = served(world, sshd);
    command
        .env("NIX_SSHOPTS", format!("{options} {}", sshd.nix_sshopts()))
        .arg("127.0.0.1")
        .arg(&world.other);
    let ran = world.run(&mut command);
    assert_eq!(world.copied(&world.all()), [false; 4]);
    ran
}

#[test]
fn an_unknown_host_key_is_exit_3_with_a_hint() {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let ran = with_first(&world, &sshd, "-o UserKnownHostsFile=/dev/null");
    ran.says(3, &["127.0.0.1", "Host key verification failed", "hint:"]);
}

#[test]
fn a_changed_host_key_is_exit_3_with_a_hint() {
    let (Some(sshd), Some(other)) = (sshd(&[]), sshd(&[])) else { return };
    let world = World::new();
    let key = fs::read_to_string(other.directory().join("host_key.pub")).unwrap();
    let known = world.directory().join("known");
    fs::write(&known, format!("[127.0.0.1]:{} {key}", sshd.port())).unwrap();
    let ran = with_first(&world, &sshd, &format!("-o UserKnownHostsFile={}", known.display()));
    ran.says(3, &["127.0.0.1", "hint:", "changed"]);
}

#[test]
fn permission_denied_is_exit_3_with_a_hint() {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let ran = with_first(&world, &sshd, "-o PubkeyAuthentication=no");
    ran.says(3, &["127.0.0.1", "Permission denied", "hint:"]);
}

#[test]
fn nobody_listening_is_exit_3_with_a_hint() {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let ran = with_first(&world, &sshd, "-p 1");
    ran.says(3, &["127.0.0.1", "Connection refused", "hint:"]);
}

#[test]
fn a_name_that_does_not_resolve_is_exit_3() {
    let world = World::new();
    let mut command = world.copy();
    command.env("PATH", std::env::var_os("PATH").unwrap()).env("NIX_SSHOPTS", "-F none");
    let ran = world.run(command.arg("nowhere.invalid").arg(&world.other));
    ran.says(3, &["nowhere.invalid", "hint:"]);
}

#[test]
fn a_url_with_port_key_host_key_and_compression_needs_no_sshopts() {
    use data_encoding::BASE64;

    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let host_key = fs::read_to_string(sshd.directory().join("host_key.pub")).unwrap();
    let host_key: Vec<&str> = host_key.split_whitespace().take(2).collect();
    let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let host = format!(
        "ssh://{}@127.0.0.1:{}?compress=true&ssh-key={}&base64-ssh-public-host-key={}&remote-program={PROGRAM}",
        user.trim(),
        sshd.port(),
        sshd.key().display(),
        BASE64.encode(host_key.join(" ").as_bytes()).replace('+', "%2B").replace('=', "%3D"),
    );
    let mut command = reach(&world, &sshd);
    command.env(
        "NIX_SSHOPTS",
        "-F none -o BatchMode=yes -o IdentitiesOnly=yes -o GlobalKnownHostsFile=/dev/null",
    );
    let ran = world.run(command.args(["-vvvv", &host]).arg(&world.other));
    ran.says(0, &["copying 1 paths...", "Enabling compression at level"]);
    assert_eq!(world.copied(&world.all()), [false, false, false, true]);
}

#[test]
fn gzip_compresses_the_connection() {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let without = world.run(served(&world, &sshd).args(["-vvvv", "127.0.0.1"]).arg(&world.other));
    assert!(!without.stderr.contains("Enabling compression"), "{}", without.transcript());
    for option in ["--gzip", "--xz", "--bzip2"] {
        let ran = world.run(served(&world, &sshd).args(["-vvvv", option, "127.0.0.1"]).arg(&world.other));
        ran.says(0, &["Enabling compression at level"]);
    }
}

#[test]
fn sshopts_are_split_as_a_shell_does() {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let key = world.directory().join("my key");
    fs::copy(sshd.key(), &key).unwrap();
    let options =
        sshd.nix_sshopts().replace(&sshd.key().display().to_string(), &format!("'{}'", key.display()));
    assert!(options.contains("my key"));
    let mut command = served(&world, &sshd);
    command.env("NIX_SSHOPTS", options).arg("127.0.0.1").arg(&world.other);
    world.run(&mut command).says(0, &["copying 1 paths..."]);
}

#[test]
fn remote_sudo_without_a_rule_is_an_error_with_a_hint() {
    let world = World::new();
    let bin = only_a_shell(&world);
    let sudo = "#!/bin/sh\n[ \"$1\" = -n ] && echo 'sudo: a password is required' >&2\nexit 1\n";
    world.script("bin/sudo", sudo);
    let Some(sshd) = Sshd::start(&[&format!("SetEnv PATH={bin} HOME=/nowhere")]) else { return };
    let ran = world.run(served(&world, &sshd).args(["--remote-sudo", "127.0.0.1"]).arg(&world.other));
    ran.says(1, &["127.0.0.1", "a password is required", "hint: '--remote-sudo' needs a rule", "NOPASSWD"]);
}

#[test]
fn remote_sudo_runs_the_server_through_sudo() {
    let world = World::new();
    let bin = only_a_shell(&world);
    world.script("bin/sudo", "#!/bin/sh\n[ \"$1\" = -n ] && shift\necho as root: \"$1\" >&2\nexec \"$@\"\n");
    let Some(sshd) = Sshd::start(&[&format!("SetEnv PATH={bin} HOME=/nowhere")]) else { return };
    let ran = world.run(served(&world, &sshd).args(["--remote-sudo", "127.0.0.1"]).arg(&world.other));
    ran.says(0, &["127.0.0.1: as root: $PROGRAM", "copying 1 paths..."]);
}

/// The watchdog waits 20 s before it speaks, so this test takes as long.
#[test]
fn a_silent_host_is_told_of_and_ctrl_c_ends_at_once() {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let silent = world.script("silent", "#!/bin/sh\ncat > /dev/null\n");
    let mut command = reach(&world, &sshd);
    command.arg("--remote-program").arg(silent).arg("127.0.0.1").arg(&world.top);
    let mut running = Running::start(&mut command);
    running.wait_for("waiting 20 s for 127.0.0.1", Duration::from_secs(40));
    running.signal(Signal::INT);
    let ran = running.end(&world, AT_ONCE);
    assert_eq!(ran.code, 130, "{}", ran.transcript());
    world.expect_no_process(AT_ONCE);
}

#[test]
fn signals_in_the_middle_end_at_once_and_leave_no_process_on_either_side() {
    let Some(sshd) = sshd(&[]) else { return };
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let world = World::new();
        let big = add_big(&world);
        let mut command = reach(&world, &sshd);
        command.args(["--remote-program", &stuck(&world), "127.0.0.1"]).args([&big, &world.top]);
        let mut running = Running::start(&mut command);
        running.wait_for("-big'", SOON);
        running.signal(signal);
        let ran = running.end(&world, AT_ONCE);
        assert_eq!(ran.code, code, "{}", ran.transcript());
        assert!(!ran.stderr.contains("error"), "{}", ran.transcript());
        world.expect_no_process(Duration::from_secs(10));
        assert_eq!(world.copied(&[&big]), [false]);
        world.run(served(&world, &sshd).arg("127.0.0.1").args([&big, &world.top])).says(0, &[]);
        assert_eq!(world.copied(&[&big, &world.top]), [true, true]);
    }
}

#[test]
fn ctrl_c_while_fetching_ends_at_once_and_leaves_no_process_on_either_side() {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let big = add_big(&world);
    let body = format!(
        "#!/bin/sh\n{PROGRAM} \"$@\" | {{ dd bs=65536 count=12 2>/dev/null; exec cat > /dev/null; }}\n"
    );
    let slow = world.script("slow", &body);
    let mut command = world.fetch();
    command.env("PATH", std::env::var_os("PATH").unwrap()).env("NIX_SSHOPTS", sshd.nix_sshopts());
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

#[test]
fn a_server_that_dies_in_the_middle_is_named_and_a_second_run_completes() {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let big = add_big(&world);
    let body = format!(
        "#!/bin/bash\nexec {PROGRAM} \"$@\" < <(dd bs=65536 count=12 2>/dev/null; echo 'Killed by the test' >&2; kill -9 $$)\n"
    );
    let dying = world.script("dying", &body);
    let mut command = reach(&world, &sshd);
    command.arg("--remote-program").arg(dying).arg("127.0.0.1").args([&big, &world.top]);
    let ran = Running::start(&mut command).end(&world, SOON);
    assert_ne!(ran.code, 0, "{}", ran.transcript());
    ran.says(ran.code, &["error:", "127.0.0.1"]);
    assert_eq!(world.copied(&[&big]), [false]);
    world.run(served(&world, &sshd).arg("127.0.0.1").args([&big, &world.top])).says(0, &[]);
    assert_eq!(world.copied(&[&big, &world.top]), [true, true]);
}

#[test]
fn one_connection_is_one_authentication() {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    world.run(served(&world, &sshd).arg("127.0.0.1").args(world.all())).says(0, &[]);
    let log = sshd.log();
    assert_eq!(log.matches("Accepted publickey").count(), 1, "{log}");
}

/// The defaults (30 s, three times) would be this test's duration: it gives shorter ones, as a user may.
#[test]
fn a_line_that_goes_dead_ends_by_itself_with_exit_3_and_the_cause() {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let big = add_big(&world);
    let mut command = reach(&world, &sshd);
    let options = format!("-o ServerAliveInterval=1 -o ServerAliveCountMax=2 {}", sshd.nix_sshopts());
    command.env("NIX_SSHOPTS", options).args(["--remote-program", &stuck(&world), "127.0.0.1"]).arg(&big);
    let mut running = Running::start(&mut command);
    running.wait_for("-big'", SOON);
    let sessions = children(sshd.pid().unwrap());
    assert!(!sessions.is_empty(), "no session to stop");
    for session in sessions {
        kill_process(session, Signal::STOP).unwrap();
    }
    let ran = running.end(&world, SOON);
    ran.says(3, &["127.0.0.1", "not responding", "hint:"]);
}
