//! Copies through real Nix daemons: `nix-daemon --stdio` behind `ssh-ng://`, and one that listens here.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use ncc_transport_ssh::test_util::{Sshd, required};
use rustix::process::geteuid;

use crate::{
    support::{PROGRAM, Ran, Running, World, real},
    transports::{Ssh, with_each_transport},
};

/// How long anything may take that takes no time.
const SOON: Duration = Duration::from_secs(60);

/// A user who may write no store.
pub(crate) const NOBODY: u32 = 65534;

/// Whether there is a real daemon, and somebody who may be anybody. That there is not is said loudly.
pub(crate) fn has_daemon() -> bool {
    let nix = Command::new("nix-daemon").arg("--version").output().is_ok_and(|out| out.status.success());
    if nix && geteuid().is_root() {
        return true;
    }
    assert!(!required(), "a real nix-daemon and root are needed and are not here");
    // Not eprintln, which the harness would swallow.
    let _ = writeln!(std::io::stderr(), "LEFT OUT: no nix-daemon here, or not root");
    false
}

fn path() -> std::ffi::OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

/// A daemon that listens in the directory of a world, over the store in `to`; ended when dropped.
pub(crate) struct Listening {
    child: Child,
    socket: PathBuf,
}

impl Listening {
    pub(crate) fn start(world: &World, settings: &str) -> Self {
        Self::over(&world.to(), world.directory(), settings)
    }

    /// The same with any store.
    pub(crate) fn over(store: &Path, directory: &Path, settings: &str) -> Self {
        let socket = directory.join("socket");
        let _ = fs::remove_file(&socket);
        let child = Command::new("nix-daemon")
            .arg("--store")
            .arg(store)
            .env_clear()
            .env("PATH", path())
            .env("HOME", directory)
            .env("NIX_CONF_DIR", directory)
            .env("NIX_CONFIG", settings)
            .env("NIX_DAEMON_SOCKET_PATH", &socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let listening = Self { child, socket };
        let start = Instant::now();
        while std::os::unix::net::UnixStream::connect(&listening.socket).is_err() {
            assert!(start.elapsed() < SOON, "the daemon does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        listening
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// `--from` into the daemon's store, as root or as nobody.
    pub(crate) fn fetch(&self, world: &World, user: Option<u32>) -> Command {
        let store = format!("unix://{}?root={}", self.socket.display(), world.to().display());
        let mut command = world.bare();
        if let Some(user) = user {
            // Where the program lies, not everybody may go.
            let program = world.directory().join("program");
            if !program.exists() {
                fs::copy(PROGRAM, &program).unwrap();
            }
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
            let home = world.directory().join("home");
            fs::create_dir_all(&home).unwrap();
            // And a daemon that is not root has a store of its own to copy from.
            let owned = Command::new("chown")
                .args(["-R", &format!("{user}:{user}")])
                .arg(&home)
                .arg(world.from())
                .status();
            assert!(owned.unwrap().success());
            command = Command::new("setpriv");
            command
                .args([format!("--reuid={user}"), format!("--regid={user}")])
                .args(["--clear-groups", "--"])
                .arg(program)
                .env_clear()
                .env("HOME", home)
                .env("NIX_CONF_DIR", world.directory())
                .env("LC_ALL", "C.UTF-8")
                .current_dir("/");
        }
        command.env("PATH", path());
        command.args(["-v", "--from", "--store", &store, "--remote-store"]).arg(world.from());
        command
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What upstream's program makes of the whole store in `to`.
pub(crate) fn verify(world: &World) {
    verify_in(world, &world.to());
}

/// The same of another store.
pub(crate) fn verify_in(world: &World, store: &Path) {
    let checked = Command::new("nix-store")
        .args(["--verify", "--check-contents", "--store"])
        .arg(store)
        .env_clear()
        .env("PATH", path())
        .env("HOME", world.directory())
        .env("NIX_CONF_DIR", world.directory())
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

/// Makes the source store forget that its paths are content-addressed, which needs no signature. A dump of the database does
/// not have that.
pub(crate) fn forget_content_addresses(world: &World) {
    let store = |argument: &str, input: Stdio| {
        let mut command = Command::new("nix-store");
        command.arg(argument).arg("--store").arg(world.from()).env_clear().env("PATH", path());
        command.env("HOME", world.directory()).env("NIX_CONF_DIR", world.directory()).stdin(input);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let dump = world.directory().join("dump");
    fs::write(&dump, store("--dump-db", Stdio::null())).unwrap();
    fs::remove_dir_all(world.from().join("nix/var/nix/db")).unwrap();
    store("--load-db", fs::File::open(&dump).unwrap().into());
}

fn there_and_back(world: &World, mut run: impl FnMut(Command, &[&str]) -> Ran) {
    let ran = run(world.copy(), &[&world.top, &world.other]);
    ran.says(0, &["copying 4 paths...", "its scheme is 'ssh-ng'"]);
    assert_eq!(world.copied(&world.all()), [true; 4]);
    verify(world);
    run(world.copy(), &[&world.top]).says(0, &[]);

    // What is asked through a daemon, and comes from one.
    let back = World::new();
    let mut command = back.bare();
    command.arg("--from").arg("--store").arg(back.to()).arg("--remote-store").arg(world.to());
    run(command, &[&world.top]).says(0, &["copying 3 paths..."]);
    assert_eq!(back.copied(&[&world.top, &world.program, &world.library]), [true; 3]);
    verify(&back);

    let mut command = back.bare();
    command.arg("--from").arg("--store").arg(back.to()).arg("--remote-store").arg(world.to());
    run(command, &["/nix/store/00000000000000000000000000000000-none"]).says(1, &["is not valid in host"]);
}

#[test]
fn ssh_ng_is_the_daemons_protocol() {
    if !has_daemon() {
        return;
    }
    let world = World::new();
    there_and_back(&world, |mut command, paths| {
        world.run(command.env("PATH", path()).args(["-v", "ssh-ng://localhost"]).args(paths))
    });
}

fn ssh_ng_over_a_real_sshd(ssh: Ssh) {
    if !has_daemon() {
        return;
    }
    let Some(sshd) = Sshd::start(&[]) else { return };
    let world = World::new();
    there_and_back(&world, |command, paths| {
        world.run(ssh.reaching(command, &sshd).args(["-v", "ssh-ng://127.0.0.1"]).args(paths))
    });
}

with_each_transport!(ssh_ng_over_a_real_sshd);

#[test]
fn a_listening_daemon_adds_for_root_and_for_trusted_users() {
    if !has_daemon() {
        return;
    }
    for user in [None, Some(NOBODY)] {
        let world = World::new();
        let daemon = Listening::start(&world, "trusted-users = root nobody");
        let fetch = || {
            let mut command = daemon.fetch(&world, user);
            world.run(command.arg("ssh-ng://localhost").arg(&world.top))
        };
        fetch().says(0, &["the daemon at '$DIR/socket' adds the paths", "copying 3 paths..."]);
        assert_eq!(world.copied(&[&world.top, &world.program, &world.library]), [true; 3]);
        fetch().says(0, &[]);
        verify(&world);
    }
}

#[test]
fn a_daemon_refuses_what_nobody_has_signed_from_whom_it_does_not_trust() {
    if !has_daemon() {
        return;
    }
    let world = World::new();
    forget_content_addresses(&world);
    let daemon = Listening::start(&world, "trusted-users = root");
    let fetch = |user| {
        let mut command = daemon.fetch(&world, user);
        world.run(command.args(["--keep-going", "ssh-ng://localhost"]).args([&world.top, &world.other]))
    };
    // The library and the other path; what refers to the library is not tried, or not told. The reason and the remedies are said
    // once.
    let ran = fetch(Some(NOBODY));
    ran.says(4, &["error: 2 paths lack a signature that the daemon at", "-library'", "-other'"]);
    assert!(!ran.stderr.contains("-top' because"), "{}", ran.transcript());
    for once in ["lack a signature", "hint: '--sign-key FILE'", "trusted-users"] {
        assert_eq!(ran.stderr.matches(once).count(), 1, "{}", ran.transcript());
    }
    let mut command = daemon.fetch(&world, Some(NOBODY));
    let ran = world.run(command.arg("ssh-ng://localhost").arg(&world.other));
    ran.says(5, &["'...-other' lacks a signature that the daemon", "hint: '--sign-key FILE'"]);
    assert_eq!(world.copied(&world.all()), [false; 4]);
    fetch(None).says(0, &["copying 4 paths..."]);
    verify(&world);
}

#[test]
fn a_damaged_path_costs_only_what_refers_to_it() {
    if !has_daemon() {
        return;
    }
    let world = World::new();
    world.damage(&world.library, "lib/library.so");
    let mut command = world.copy();
    command.env("PATH", path()).args(["--keep-going", "ssh-ng://localhost"]);
    let ran = world.run(command.args([&world.top, &world.other]));
    assert_ne!(ran.code, 0, "{}", ran.transcript());
    assert!(ran.stderr.contains("does not match its metadata"), "{}", ran.transcript());
    assert_eq!(world.copied(&world.all()), [false, false, false, true]);
    verify(&world);
}

#[test]
fn a_daemon_that_is_killed_leaves_nothing_half_done() {
    if !has_daemon() {
        return;
    }
    let world = World::new();
    let pid_file = world.directory().join("pid");
    let bin = world.script(
        "slow-daemon",
        &format!("#!/bin/sh\necho $$ >'{0}'\nexec nix-daemon \"$@\"\n", pid_file.display()),
    );
    let large = world.add("large", "data", &"0123456789abcdef".repeat(4 << 20), []);
    let large = crate::support::full(&large);
    let program = bin.display().to_string();
    let copy = || {
        let mut command = world.copy();
        command.env("PATH", path()).args(["--remote-program", &program, "ssh-ng://localhost"]).arg(&large);
        command
    };
    let running = Running::start(&mut copy());
    let start = Instant::now();
    // The daemon has begun to write the path.
    while !real(&world.to(), &large).exists() {
        assert!(start.elapsed() < SOON, "nothing is written");
        std::thread::sleep(Duration::from_millis(2));
    }
    let pid: i32 = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    let ran = running.end(&world, SOON);
    if ran.code != 0 {
        assert_eq!(crate::support::valid(&world.to(), &[&large]), [false], "{}", ran.transcript());
    }
    world.run(&mut copy()).says(0, &[]);
    assert_eq!(crate::support::valid(&world.to(), &[&large]), [true]);
    verify(&world);
}
