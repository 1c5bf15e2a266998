//! A real pseudo-terminal of 24 lines and 80 columns, and somebody with a password.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use ncc_transport_ssh::test_util::required;
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};

use crate::{
    support::{World, code},
    transports::path,
};

/// How long something on the terminal may be waited for.
const SOON: Duration = Duration::from_secs(20);

/// A terminal with one program on it.
pub(crate) struct Terminal {
    master: File,
    slave: File,
    child: Child,
    raw: Arc<Mutex<Vec<u8>>>,
    _reader: JoinHandle<()>,
}

impl Terminal {
    pub(crate) fn start(command: &Command) -> Self {
        Self::start_as(command, Some("xterm-256color"), (24, 80))
    }

    /// With this in the variable TERM, and of this size.
    pub(crate) fn start_as(command: &Command, term: Option<&str>, (rows, columns): (u16, u16)) -> Self {
        let master: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("a pseudo-terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("its other end");
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).expect("its size");
        let name = ptsname(&master, Vec::new()).expect("its name");
        let name = PathBuf::from(name.to_str().expect("UTF-8"));
        let slave = File::options().read(true).write(true).open(name).expect("the other end");
        let end = || Stdio::from(slave.try_clone().expect("a copy"));
        let mut wrapped = Command::new(perl());
        wrapped
            .args(["-e", LEADER, TIOCSCTTY])
            .arg(command.get_program())
            .args(command.get_args())
            .env_clear();
        for (name, value) in command.get_envs() {
            wrapped.env(name, value.unwrap_or_default());
        }
        if let Some(term) = term {
            wrapped.env("TERM", term);
        }
        wrapped.stdin(end()).stdout(end()).stderr(end());
        if let Some(directory) = command.get_current_dir() {
            wrapped.current_dir(directory);
        }
        let child = wrapped.spawn().expect("perl starts");
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

    pub(crate) fn raw(&self) -> String {
        String::from_utf8_lossy(&self.raw.lock().expect("text")).into_owned()
    }

    /// What stands on it.
    pub(crate) fn screen(&self) -> String {
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
    pub(crate) fn wait_for(&self, text: &str) {
        self.wait_for_change(|screen| screen.contains(text));
    }

    /// Waits until the screen is as wanted.
    #[track_caller]
    pub(crate) fn wait_for_change(&self, wanted: impl Fn(&str) -> bool) {
        let start = Instant::now();
        while !wanted(&self.screen()) {
            assert!(start.elapsed() < SOON, "it does not come:\n{}", self.screen());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn write(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("keys");
    }

    pub(crate) fn echoes(&self) -> bool {
        tcgetattr(&self.slave).expect("its modes").local_modes.contains(LocalModes::ECHO)
    }

    /// Waits for the end; the exit code.
    #[track_caller]
    pub(crate) fn end(&mut self, within: Duration) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a state") {
                self.read_to_the_end();
                return code(status);
            }
            assert!(start.elapsed() < within, "it has not ended:\n{}", self.screen());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Terminal {
    /// Waits until what was said last has come through: whatever is written now comes after it.
    fn read_to_the_end(&mut self) {
        // A command to no program in particular, which terminals do not show.
        const END: &[u8] = b"\x1b_the end of this test\x1b\\";
        self.slave.write_all(END).expect("the terminal is open");
        let start = Instant::now();
        loop {
            let mut raw = self.raw.lock().expect("text");
            if let Some(end) = raw.windows(END.len()).position(|bytes| bytes == END) {
                raw.drain(end..end + END.len());
                return;
            }
            drop(raw);
            assert!(start.elapsed() < SOON, "its last words do not come:\n{}", self.screen());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes its terminal the controlling one, so that Ctrl-C and /dev/tty work, and becomes the command. Without unsafe code that takes
/// a program, and util-linux's setsid is not everywhere.
const LEADER: &str = "use POSIX; my $request = shift; setsid() != -1 && ioctl(STDIN, $request, 0) or die $!; exec {$ARGV[0]} @ARGV";

/// The number of that request.
const TIOCSCTTY: &str = if cfg!(target_os = "linux") { "21518" } else { "536900705" };

/// The command's own PATH may lead nowhere.
fn perl() -> PathBuf {
    let path = path();
    let mut places = std::env::split_paths(&path).map(|directory| directory.join("perl"));
    places.find(|file| file.is_file()).expect("perl")
}

/// Says that this test is left out; not with eprintln, which the harness would swallow.
pub(crate) fn left_out(reason: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "LEFT OUT: {name}: {reason}");
}

/// A user of this system who has a password; gone at the end.
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) password: &'static str,
    pub(crate) uid: u32,
}

impl User {
    /// `None` where this may not be done, which is said loudly.
    pub(crate) fn create(world: &World) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            assert!(!required(), "only root can make a user with a password");
            left_out("only root can make a user with a password");
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
