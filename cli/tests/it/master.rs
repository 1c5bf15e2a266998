//! A ControlMaster of the user's own: neither needed nor disturbed. OpenSSH alone has such a thing.

use std::{
    fs,
    os::unix::{fs::FileTypeExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use ncc_transport_ssh::test_util::Sshd;

use crate::{
    support::{AT_ONCE, World},
    transports::{Ssh, add_big, configuration, prefer, sshd, stuck},
    tty::Terminal,
};

const SOON: Duration = Duration::from_secs(20);

/// `ssh -M -N -S SOCKET`, ended by its number.
struct Master<'a> {
    child: Child,
    sshd: &'a Sshd,
    socket: PathBuf,
}

impl<'a> Master<'a> {
    fn start(sshd: &'a Sshd) -> Self {
        let socket = sshd.directory().join("master");
        let child = Command::new("ssh")
            .args(["-M", "-N", "-S"])
            .arg(&socket)
            .args(sshd.ssh_words())
            .arg("127.0.0.1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("ssh");
        let master = Self { child, sshd, socket };
        let start = Instant::now();
        while !master.answers() {
            assert!(start.elapsed() < SOON, "the master does not start: {}", sshd.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        master
    }

    fn answers(&self) -> bool {
        let mut check = Command::new("ssh");
        check.arg("-S").arg(&self.socket).args(self.sshd.ssh_words()).args(["-O", "check", "127.0.0.1"]);
        check.output().expect("ssh").status.success()
    }

    /// As an option of ssh.
    fn option(&self) -> String {
        format!("-o ControlPath={}", self.socket.display())
    }

    /// How many connections the server has seen, the master's own among them.
    fn connections(&self) -> usize {
        self.sshd.log().matches("Accepted publickey").count()
    }
}

impl Drop for Master<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every socket below a directory.
fn sockets(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(sockets(&entry.path()));
        } else if kind.is_socket() {
            found.push(entry.path());
        }
    }
    found
}

#[test]
fn a_running_master_is_used_as_the_user_configured_it_and_goes_on() {
    let Some(sshd) = sshd(&[]) else { return };
    let master = Master::start(&sshd);
    assert_eq!(master.connections(), 1);
    let copy = |options: &str, host: &str| {
        let world = World::new();
        let mut command = Ssh::OpenSsh.served(&world, &sshd);
        if host == "127.0.0.1" {
            prefer(&mut command, options);
        } else {
            command.env("NIX_SSHOPTS", configuration(&world, &[(host, &sshd, options)]));
        }
        world.run(command.arg(host).arg(&world.top)).says(0, &["copying 3 paths..."]);
        assert_eq!(world.copied(&world.all()), [true, true, true, false]);
        assert!(master.answers(), "{options}");
        // The end of what ran through it is not the end of its socket.
        assert_eq!(sockets(sshd.directory()), [master.socket.as_path()]);
    };
    copy(&master.option(), "127.0.0.1");
    copy(&format!("ControlPath {}", master.socket.display()), "named");
    copy(&format!("-o ControlMaster=auto {}", master.option()), "127.0.0.1");
    assert_eq!(master.connections(), 1, "it was not used: {}", sshd.log());
    // Nobody said that it is to be used, or somebody said that it is not.
    copy("", "127.0.0.1");
    copy(&format!("-o ControlPath=none {}", master.option()), "127.0.0.1");
    assert_eq!(master.connections(), 3, "{}", sshd.log());
}

/// On a terminal Ctrl-C reaches the ssh of the copy too.
#[test]
fn ctrl_c_of_a_copy_through_a_master_leaves_the_master_alone() {
    let Some(sshd) = sshd(&[]) else { return };
    let master = Master::start(&sshd);
    let world = World::new();
    let big = add_big(&world);
    let mut command = Ssh::OpenSsh.reach(&world, &sshd);
    prefer(&mut command, &master.option());
    command.args(["--remote-program", &stuck(&world), "127.0.0.1"]).args([&big, &world.top]);
    let mut terminal = Terminal::start(&command);
    terminal.wait_for("MiB");
    assert_eq!(master.connections(), 1, "it was not used: {}", sshd.log());
    terminal.write("\x03");
    assert_eq!(terminal.end(AT_ONCE), 130, "{}", terminal.screen());
    world.expect_no_process(Duration::from_secs(10));
    assert!(master.answers());
    // And it is still good for a copy.
    let mut command = Ssh::OpenSsh.served(&world, &sshd);
    prefer(&mut command, &master.option());
    world.run(command.arg("127.0.0.1").args([&big, &world.top])).says(0, &[]);
    assert_eq!(master.connections(), 1, "{}", sshd.log());
}

#[test]
fn nothing_leaves_a_socket_or_a_master_behind() {
    let Some(sshd) = sshd(&[]) else { return };
    let own = "-o ControlMaster=auto -o ControlPath=own";
    // The last one opens several channels.
    for (options, words) in [("", &[][..]), (own, &[]), ("", &["--dry-run", "-s"])] {
        let world = World::new();
        let temporary = world.directory().join("tmp");
        fs::create_dir(&temporary).unwrap();
        let mut command = Ssh::OpenSsh.served(&world, &sshd);
        prefer(&mut command, &options.replace("=own", &format!("={}", temporary.join("own").display())));
        command.env("TMPDIR", &temporary).args(words).arg("127.0.0.1").arg(&world.top);
        world.run(&mut command).says(0, &[]);
        world.expect_no_process(AT_ONCE);
        for directory in [world.directory(), sshd.directory()] {
            assert_eq!(sockets(directory), [] as [PathBuf; 0], "{options} {words:?}");
        }
    }
}
