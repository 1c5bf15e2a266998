//! As a person sees it: a real pseudo-terminal of 24 lines and 80 columns.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::{fd::OwnedFd, unix::fs::chown},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use ncc_transport_ssh::test_util::{Sshd, required};
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};

use crate::{
    ssh::{add_big, reach, sshd, stuck},
    support::{PROGRAM, World},
};

const SOON: Duration = Duration::from_secs(20);
const AT_ONCE: Duration = Duration::from_secs(3);

/// A terminal with one program on it.
struct Terminal {
    master: File,
    slave: File,
    child: Child,
    raw: Arc<Mutex<Vec<u8>>>,
    _reader: JoinHandle<()>,
}

impl Terminal {
    fn start(command: &Command) -> Self {
        let master: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("a pseudo-terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("its other end");
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).expect("its size");
        let name = ptsname(&master, Vec::new()).expect("its name");
        let name = PathBuf::from(name.to_str().expect("UTF-8"));
        let slave = File::options().read(true).write(true).open(name).expect("the other end");
        let end = || Stdio::from(slave.try_clone().expect("a copy"));
        // setsid makes it the controlling terminal: Ctrl-C and /dev/tty work.
        let mut wrapped = Command::new("setsid");
        wrapped.arg("--ctty").arg(command.get_program()).args(command.get_args()).env_clear();
        for (name, value) in command.get_envs() {
            wrapped.env(name, value.unwrap_or_default());
        }
        wrapped.env("TERM", "xterm-256color").stdin(end()).stdout(end()).stderr(end());
        if let Some(directory) = command.get_current_dir() {
            wrapped.current_dir(directory);
        }
        let child = wrapped.spawn().expect("setsid (util-linux)");
        let master = File::from(master);
        let raw = Arc::new(Mutex::new(Vec::new()));
        let (mut from, into) = (master.try_clone().expect("a copy"), Arc::clone(&raw));
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                into.lock().expect("room").extend_from_slice(&buffer[..count]);
            }
        });
        Self { master, slave, child, raw, _reader: reader }
    }

    fn raw(&self) -> String {
        String::from_utf8_lossy(&self.raw.lock().expect("text")).into_owned()
    }

    /// What stands on it.
    fn screen(&self) -> String {
        let mut parser = vt100::Parser::new(24, 80, 0);
        parser.process(&self.raw.lock().expect("text"));
        let screen = parser.screen();
        screen
            .rows(0, 80)
            .map(|row| row.trim_end().to_owned())
            .collect::<Vec<_>>()
            .join("\n")
            .trim_end()
            .to_owned()
    }

    #[track_caller]
    fn wait_for(&self, text: &str) {
        let start = Instant::now();
        while !self.screen().contains(text) {
            assert!(start.elapsed() < SOON, "no {text:?} came:\n{}\n{:?}", self.screen(), self.raw());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn write(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("keys");
    }

    fn echoes(&self) -> bool {
        tcgetattr(&self.slave).expect("its modes").local_modes.contains(LocalModes::ECHO)
    }

    /// Waits for the end; the exit code.
    #[track_caller]
    fn end(&mut self, within: Duration) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a state") {
                // What it said last has to come through.
                std::thread::sleep(Duration::from_millis(100));
                return status.code().unwrap_or_else(|| panic!("{status}:\n{}", self.screen()));
            }
            assert!(start.elapsed() < within, "it has not ended:\n{}", self.screen());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A user of this system who has a password; gone at the end.
struct User {
    name: String,
    password: &'static str,
    uid: u32,
}

impl User {
    /// `None` where this may not be done, which is said loudly.
    fn create(world: &World) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            assert!(!required(), "only root can make a user with a password");
            let name = std::thread::current().name().unwrap_or("a test").to_owned();
            let _ =
                writeln!(std::io::stderr(), "LEFT OUT: {name}: only root can make a user with a password");
            return None;
        }
        let random = world.directory().file_name()?.to_str()?.rsplit('-').next()?.to_lowercase();
        let mut user = Self { name: format!("ncc-test-{random}"), password: "correct horse", uid: 0 };
        let home = world.directory().display().to_string();
        let add = ["--no-create-home", "--home-dir", &home, "--shell", "/bin/sh", &user.name];
        run("useradd", &add, "");
        run("chpasswd", &[], &format!("{}:{}\n", user.name, user.password));
        user.uid = run("id", &["-u", &user.name], "").trim().parse().expect("a number");
        Some(user)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // Sessions of this user hinder nobody: --force.
        let _ = Command::new("userdel").args(["--force", &self.name]).stderr(Stdio::null()).status();
    }
}

fn run(program: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A host that asks this user for a password, whose store the user may write.
fn with_password<'a>(world: &'a World, user: &User, sshd: &Sshd) -> (Command, &'a World) {
    let served = world.directory().join("served");
    fs::copy(PROGRAM, &served).expect("a program that everybody may run");
    fs::create_dir(world.to()).expect("a folder");
    chown(world.to(), Some(user.uid), None).expect("a folder of the user's");
    let mut command = reach(world, sshd);
    let known = sshd.known_hosts();
    command.env(
        "NIX_SSHOPTS",
        format!(
            "-F none -p {} -o UserKnownHostsFile={} -o PreferredAuthentications=password -o PubkeyAuthentication=no",
            sshd.port(),
            known.display()
        ),
    );
    (command, world)
}

fn password_sshd() -> Option<Sshd> {
    sshd(&["PasswordAuthentication yes"])
}

#[test]
fn a_password_is_asked_for_once_and_the_bar_comes_after_it() {
    let world = World::new();
    let Some(sshd) = password_sshd() else { return };
    let Some(user) = User::create(&world) else { return };
    let big = add_big(&world);
    let (mut command, _) = with_password(&world, &user, &sshd);
    let program = world.directory().join("served");
    let stuck = world.script(
        "stuck-for-user",
        &format!(
            "#!/bin/sh\n{{ dd bs=65536 count=12 2>/dev/null; cat > /dev/null; }} | {} \"$@\"\n",
            program.display()
        ),
    );
    command
        .arg("--remote-program")
        .arg(stuck)
        .arg(format!("{}@127.0.0.1", user.name))
        .args([&big, &world.top]);
    let mut terminal = Terminal::start(&command);
    terminal.wait_for("password:");
    std::thread::sleep(Duration::from_millis(700));
    // Nothing but the question, and nobody reads the answer over the shoulder.
    let host = format!("{}@127.0.0.1", user.name);
    assert_eq!(terminal.screen(), format!("connecting to {host}...\n{host}'s password:"));
    assert!(!terminal.echoes());
    terminal.write(&format!("{}\r", user.password));
    terminal.wait_for("MiB");
    let screen = terminal.screen();
    assert!(screen.contains("big") || screen.contains("copying"), "{screen}");
    assert!(!screen.contains(user.password));
    assert_eq!(terminal.raw().matches("password:").count(), 1, "{}", terminal.raw());
    // Ctrl-C: the bar goes, the terminal is as it was, nothing runs on.
    terminal.write("\x03");
    assert_eq!(terminal.end(AT_ONCE), 130);
    let left: Vec<String> = terminal.screen().lines().skip(2).map(|line| line.replace("^C", "")).collect();
    assert!(left.iter().all(|line| line.trim().is_empty()), "{left:#?}");
    assert!(terminal.echoes());
    world.expect_no_process(Duration::from_secs(10));
    assert_eq!(sshd.log().matches("Accepted password").count(), 1);
}

#[test]
fn after_the_password_the_copy_goes_through_and_is_summed_up() {
    let world = World::new();
    let Some(sshd) = password_sshd() else { return };
    let Some(user) = User::create(&world) else { return };
    let (mut command, _) = with_password(&world, &user, &sshd);
    command.arg("--remote-program").arg(world.directory().join("served"));
    command.arg(format!("{}@127.0.0.1", user.name)).arg(&world.top);
    let mut terminal = Terminal::start(&command);
    terminal.wait_for("password:");
    terminal.write(&format!("{}\r", user.password));
    assert_eq!(terminal.end(SOON), 0, "{}", terminal.screen());
    let screen = terminal.screen();
    assert_eq!(screen.lines().count(), 3, "{screen}");
    assert!(screen.contains("copied 3 paths"), "{screen}");
    assert_eq!(world.copied(&world.all()), [true, true, true, false]);
}

#[test]
fn ctrl_c_at_the_question_gives_the_echo_back() {
    let world = World::new();
    let Some(sshd) = password_sshd() else { return };
    let Some(user) = User::create(&world) else { return };
    let (mut command, _) = with_password(&world, &user, &sshd);
    command.arg("--remote-program").arg(world.directory().join("served"));
    command.arg(format!("{}@127.0.0.1", user.name)).arg(&world.top);
    let mut terminal = Terminal::start(&command);
    terminal.wait_for("password:");
    terminal.write("\x03");
    assert_eq!(terminal.end(AT_ONCE), 130, "{}", terminal.screen());
    assert!(terminal.echoes(), "the terminal shows no more what is typed");
    world.expect_no_process(AT_ONCE);
}

#[test]
fn a_wrong_password_is_exit_3() {
    let world = World::new();
    let Some(sshd) = password_sshd() else { return };
    let Some(user) = User::create(&world) else { return };
    let (mut command, _) = with_password(&world, &user, &sshd);
    command.arg("--remote-program").arg(world.directory().join("served"));
    let options = command.get_envs().find(|(name, _)| *name == "NIX_SSHOPTS").unwrap().1.unwrap().to_owned();
    command.env("NIX_SSHOPTS", format!("-o NumberOfPasswordPrompts=1 {}", options.display()));
    command.arg(format!("{}@127.0.0.1", user.name)).arg(&world.top);
    let mut terminal = Terminal::start(&command);
    terminal.wait_for("password:");
    terminal.write("wrong\r");
    assert_eq!(terminal.end(SOON), 3, "{}", terminal.screen());
    assert!(terminal.screen().contains("Permission denied"), "{}", terminal.screen());
    assert!(terminal.screen().contains("hint:"), "{}", terminal.screen());
}

#[test]
fn without_ssh_the_bar_is_there_and_goes_with_ctrl_c() {
    let world = World::new();
    let big = add_big(&world);
    let mut command = world.copy();
    command.env("PATH", std::env::var_os("PATH").unwrap());
    command.args(["--remote-program", &stuck(&world), "localhost"]).args([&big, &world.top]);
    let mut terminal = Terminal::start(&command);
    terminal.wait_for("MiB");
    let wide = terminal.screen().lines().any(|line| line.chars().count() > 80);
    assert!(!wide, "{}", terminal.screen());
    terminal.write("\x03");
    assert_eq!(terminal.end(AT_ONCE), 130);
    assert_eq!(terminal.screen().replace("^C", "").trim(), "");
    world.expect_no_process(Duration::from_secs(10));
}
