//! A real sshd for tests: on loopback, on a port of its own, with keys of its own, gone at the end.

#![allow(
    clippy::missing_panics_doc,
    clippy::expect_used,
    clippy::panic,
    reason = "panicking is how a test says no"
)]

use std::{
    fs,
    io::Read,
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

use ncc_transport::{PinnedHostKey, Target, test_util::leave_out};
use tempfile::TempDir;

use crate::{OpenSsh, OpenSshOptions};

/// When tests must not be left out.
pub use ncc_transport::test_util::{REQUIRE_REAL, required};

/// Another program may take the port between our looking and sshd's listening.
const ATTEMPTS: usize = 5;

const START_LIMIT: Duration = Duration::from_secs(20);

/// Runs `sshd` until the pipe to its stdin ends: by a drop, or because the test's process died in whatever way.
const WATCHDOG: &str = r#""$@" & pid=$!; read line; kill $pid; wait $pid"#;

/// A running sshd, which accepts the current user with [`key`](Self::key). Any number may run side by side.
///
/// Dropping it ends the server and all sessions.
///
/// ```no_run
/// use ncc_transport_ssh::test_util::Sshd;
///
/// # fn main() {
/// let Some(sshd) = Sshd::start(&["ForceCommand echo banner; eval \"$SSH_ORIGINAL_COMMAND\""]) else { return };
/// let transport = sshd.transport();
/// # }
/// ```
#[derive(Debug)]
pub struct Sshd {
    directory: TempDir,
    port: u16,
    watchdog: Child,
    /// Held open as long as the server is to live.
    lifeline: Option<ChildStdin>,
}

impl Sshd {
    /// Starts an sshd with these additional lines of `sshd_config`, which win over the usual ones.
    ///
    /// Where no sshd is installed, says so on stderr (also under a test harness that captures output) and returns `None`; with
    /// `NCC_REQUIRE_REAL=1` in the environment it panics.
    pub fn start(config: &[&str]) -> Option<Self> {
        let Some(program) = find_sshd() else {
            leave_out("no sshd is installed (openssh-server)");
            return None;
        };
        let mut log = String::new();
        for _ in 0..ATTEMPTS {
            match Self::try_start(&program, config) {
                Ok(sshd) => return Some(sshd),
                Err(failed) => log = failed,
            }
        }
        panic!("sshd does not start: {log}");
    }

    fn try_start(program: &Path, config: &[&str]) -> Result<Self, String> {
        let directory = TempDir::with_prefix("ncc-sshd-").expect("a temporary directory");
        let at = |name: &str| directory.path().join(name);
        let free = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = free.local_addr().expect("its number").port();
        drop(free);

        for name in ["host_key", "user_key"] {
            make_key(&at(name));
        }
        fs::copy(at("user_key.pub"), at("authorized_keys")).expect("authorized_keys");
        let host_key = fs::read_to_string(at("host_key.pub")).expect("the host key");
        fs::write(at("known_hosts"), format!("[127.0.0.1]:{port} {host_key}")).expect("known_hosts");
        fs::write(at("sshd_config"), server_config(directory.path(), port, config)).expect("sshd_config");
        if is_root() {
            // Where root's sshd has its unprivileged half live; made by the service, which does not run here.
            fs::create_dir_all("/run/sshd").expect("/run/sshd");
        }

        let log = fs::File::create(at("log")).expect("the log");
        let mut watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "sh"])
            .arg(program)
            .args(["-D", "-e", "-f"])
            .arg(at("sshd_config"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C on the terminal is for the tests; the pipe is how the watchdog learns of it.
            .process_group(0)
            .spawn()
            .expect("sh");
        let lifeline = watchdog.stdin.take();
        let sshd = Self { directory, port, watchdog, lifeline };
        let start = Instant::now();
        let listening = format!("listening on 127.0.0.1 port {port}.");
        while !sshd.log().contains(&listening) {
            let log = sshd.log();
            if log.contains("fatal") || log.contains("Bind to port") || start.elapsed() > START_LIMIT {
                return Err(log);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(sshd)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A directory that lives as long as the server: keys, log, and room for whatever a test puts there.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The server's host key, as one would pin it.
    pub fn host_key(&self) -> PinnedHostKey {
        let line = fs::read_to_string(self.directory().join("host_key.pub")).expect("the host key");
        line.parse().expect("a public key")
    }

    /// How often somebody has logged in so far.
    pub fn logins(&self) -> usize {
        self.log().matches("Accepted publickey").count()
    }

    /// The private key that the server accepts.
    pub fn key(&self) -> PathBuf {
        self.directory().join("user_key")
    }

    /// A file of the one host key that this server has.
    pub fn known_hosts(&self) -> PathBuf {
        self.directory().join("known_hosts")
    }

    /// All that the server said so far.
    pub fn log(&self) -> String {
        let mut log = Vec::new();
        let file = fs::File::open(self.directory().join("log"));
        file.and_then(|mut file| file.read_to_end(&mut log)).expect("the log is readable");
        String::from_utf8_lossy(&log).into_owned()
    }

    /// The server's number; its sessions are its children.
    pub fn pid(&self) -> Option<u32> {
        fs::read_to_string(self.directory().join("pid")).ok()?.trim().parse().ok()
    }

    /// `127.0.0.1:port`.
    pub fn target(&self) -> Target {
        format!("127.0.0.1:{}", self.port).parse().expect("an address and a port")
    }

    /// ssh options with which a client reaches this server, and nothing of the user's own configuration interferes: no agent,
    /// no questions. The port is among them.
    pub fn ssh_words(&self) -> Vec<String> {
        let path = |name: &str| self.directory().join(name).to_str().expect("UTF-8").to_owned();
        let mut words: Vec<String> = ["-F", "none", "-p"].map(str::to_owned).into();
        words.extend([self.port.to_string(), "-i".to_owned(), path("user_key")]);
        for setting in [
            &format!("UserKnownHostsFile={}", path("known_hosts")),
            "GlobalKnownHostsFile=/dev/null",
            "StrictHostKeyChecking=yes",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "BatchMode=yes",
        ] {
            words.extend(["-o".to_owned(), setting.to_owned()]);
        }
        words
    }

    /// The same as the value of NIX_SSHOPTS. Split at blanks alone it means the same, so that old Nix can use it too.
    pub fn nix_sshopts(&self) -> String {
        self.ssh_words().join(" ")
    }

    /// The same as options of the transport.
    pub fn options(&self) -> OpenSshOptions {
        OpenSshOptions {
            extra: self.ssh_words().into_iter().map(Into::into).collect(),
            ..OpenSshOptions::default()
        }
    }

    /// The transport to this server.
    pub fn transport(&self) -> OpenSsh {
        OpenSsh::new(self.target(), self.options())
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // Sessions are in process groups of their own and survive the server: note them before they become orphans.
        let sessions = self.pid().map(descendants).unwrap_or_default();
        self.lifeline = None;
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) && matches!(self.watchdog.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
        for session in sessions {
            let _ = rustix::process::kill_process(session, rustix::process::Signal::KILL);
        }
    }
}

/// Copies what systems are delivered with as `ssh_config`, from `testdata/stock`, to folders below `into`: each system's name, and its
/// main file. What they include is there too.
pub fn install_stock_ssh_configs(into: &Path) -> Vec<(String, PathBuf)> {
    let stock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/stock");
    let systems = fs::read_dir(&stock).expect("testdata/stock").map(|entry| entry.expect("an entry"));
    let mut found = Vec::new();
    for system in systems.filter(|entry| entry.path().is_dir()) {
        let root = into.join(system.file_name());
        copy_stock(&system.path(), &root, &root);
        let main = ["etc", "usr/etc"].map(|etc| root.join(etc).join("ssh/ssh_config"));
        let main = main.into_iter().find(|path| path.exists());
        found.extend(main.map(|main| (system.file_name().to_string_lossy().into_owned(), main)));
    }
    found.sort();
    found
}

fn copy_stock(from: &Path, to: &Path, root: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).expect("a folder");
        for entry in fs::read_dir(from).expect("a folder").map(|entry| entry.expect("an entry")) {
            copy_stock(&entry.path(), &to.join(entry.file_name()), root);
        }
        return;
    }
    let text = fs::read_to_string(from).expect("a configuration");
    let lines = text.lines().map(|line| match line.trim_start().strip_prefix("Include /") {
        Some(rest) => format!("Include {}/{rest}\n", root.display()),
        None => format!("{line}\n"),
    });
    fs::write(to, lines.collect::<String>()).expect("a copy");
    // A checkout may have given the group more, and ssh refuses such files.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(to, mode).expect("permissions");
}

/// sshd insists on being started by its whole path, and is usually not on a user's PATH.
fn find_sshd() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/local/sbin", "/usr/bin", "/run/current-system/sw/bin"].map(PathBuf::from);
    usual
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|directory| directory.join("sshd"))
        .find(|file| file.is_file())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn make_key(file: &Path) {
    let output = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "ncc test", "-f"])
        .arg(file)
        .output()
        .expect("ssh-keygen, which comes with ssh");
    assert!(output.status.success(), "ssh-keygen: {}", String::from_utf8_lossy(&output.stderr));
}

fn server_config(directory: &Path, port: u16, config: &[&str]) -> String {
    let directory = directory.display();
    // Without PAM sshd takes a password that begins with '!' for a locked account; some images give root such a one.
    let locked = fs::read_to_string("/etc/shadow")
        .is_ok_and(|shadow| shadow.lines().any(|line| line.starts_with("root:!")));
    // The first value of a keyword wins here too. HOME: a user's .bashrc may print, wait or hang (pyenv's waits a minute
    // for a lock that a killed session left behind), unless a test gives another.
    format!(
        "{}\n\
         Port {port}\n\
         ListenAddress 127.0.0.1\n\
         HostKey {directory}/host_key\n\
         PidFile {directory}/pid\n\
         AuthorizedKeysFile {directory}/authorized_keys\n\
         StrictModes no\n\
         UsePAM {}\n\
         PermitRootLogin yes\n\
         PasswordAuthentication no\n\
         KbdInteractiveAuthentication no\n\
         PrintMotd no\n\
         PrintLastLog no\n\
         LogLevel VERBOSE\n\
         SetEnv HOME=/nonexistent\n",
        config.join("\n"),
        if locked && is_root() { "yes" } else { "no" },
    )
}

/// All processes below this one, by /proc; none where there is no such thing.
fn descendants(root: u32) -> Vec<rustix::process::Pid> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // pid (name) state parent ...; the name may hold anything.
        let parent =
            stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        parents.extend(parent.map(|parent| (pid, parent)));
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        found.extend(parents.iter().filter(|(_, parent)| *parent == pid).map(|(child, _)| *child));
        next += 1;
    }
    found
        .into_iter()
        .skip(1)
        .filter_map(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?))
        .collect()
}
