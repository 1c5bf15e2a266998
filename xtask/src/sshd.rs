//! An sshd inside an instance, on a loopback port of its own, with keys made for this run.
//!
//! The crates' own tests have another, in `ncc_transport_ssh::test_util`: that of this machine, for the user who runs the tests. This one
//! runs in an old Debian with users of its own, and takes nothing from the crates that it helps to judge.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::exec::{self, Finished};
use crate::instance::Instance;
use crate::namespace;
use crate::user::User;

/// The key pairs of a run: one for the user, one for every host.
#[derive(Debug)]
pub(crate) struct Keys {
    folder: PathBuf,
}

impl Keys {
    /// Makes both pairs.
    pub(crate) fn generate() -> Result<Self> {
        let folder = namespace::run_folder().join("keys");
        exec::make_folder(&folder)?;
        for name in ["user", "host"] {
            let file = folder.join(name);
            if !file.exists() {
                let file = file.display().to_string();
                exec::run("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "ncc-lab", "-f", &file])?;
            }
        }
        Ok(Self { folder })
    }

    /// The user's private key.
    pub(crate) fn user(&self) -> PathBuf {
        self.folder.join("user")
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = self.folder.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Lets programs that a user runs inside an instance log in to a server with the user's key.
    pub(crate) fn install_client(&self, instance: &Instance, user: User, server: &Server) -> Result<()> {
        let folder = format!("{}/.ssh", user.home());
        exec::make_folder(&instance.path(&folder))?;
        let (key, known) = (format!("{folder}/id_ed25519"), format!("{folder}/known_hosts"));
        exec::write_file(&instance.path(&key), self.read("user")?)?;
        restrict(&instance.path(&key))?;
        exec::write_file(&instance.path(&known), &server.known_host)?;
        [folder, key, known].iter().try_for_each(|file| user.give(instance, file))
    }
}

/// ssh and sshd refuse keys that others can read.
fn restrict(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("cannot restrict {}", file.display()))
}

/// What may differ between servers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// Runs instead of whatever the client asks for (which it finds in SSH_ORIGINAL_COMMAND).
    pub(crate) force_command: Option<String>,
    /// More lines for sshd_config, which win over the usual ones.
    pub(crate) extra: String,
}

/// A running sshd; dropped, it is stopped by its pid.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    port: u16,
    key: PathBuf,
    known_hosts: PathBuf,
    known_host: String,
    log: PathBuf,
}

/// Starts the instance's own sshd and waits until it takes connections.
pub(crate) fn start(instance: &Instance, keys: &Keys, settings: &Settings) -> Result<Server> {
    // The port is free when looked at, and may be gone a moment later: then another.
    let mut last = None;
    for _ in 0..5 {
        match start_once(instance, keys, settings) {
            Ok(server) => return Ok(server),
            Err(error) => last = Some(error),
        }
    }
    Err(last.context("no attempt was made")?)
}

fn start_once(instance: &Instance, keys: &Keys, settings: &Settings) -> Result<Server> {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .context("no free loopback port")?
        .port();
    let folder = instance.path("lab");
    exec::make_folder(&folder)?;
    exec::make_folder(&instance.path("run/sshd"))?;
    exec::write_file(&folder.join("host_key"), keys.read("host")?)?;
    restrict(&folder.join("host_key"))?;
    exec::write_file(&folder.join("authorized_keys"), keys.read("user.pub")?)?;
    let force = settings
        .force_command
        .as_ref()
        .map_or_else(String::new, |command| format!("ForceCommand {command}\n"));
    // MaxSessions stays at OpenSSH's default of 10: a client that opens more has to cope. StrictModes: the key file is under
    // a folder of the run, not in a home.
    let configuration = format!(
        "{}Port {port}\nListenAddress 127.0.0.1\nHostKey /lab/host_key\nAuthorizedKeysFile /lab/authorized_keys\n\
         PidFile /lab/sshd-{port}.pid\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n\
         ChallengeResponseAuthentication no\nPubkeyAuthentication yes\nUsePAM no\nStrictModes no\nUseDNS no\n\
         SetEnv {}\nPrintMotd no\nPrintLastLog no\nX11Forwarding no\nLogLevel VERBOSE\n{force}",
        settings.extra,
        mark(port),
    );
    let configuration_file = format!("lab/sshd_config-{port}");
    exec::write_file(&instance.path(&configuration_file), configuration)?;
    let log = folder.join(format!("sshd-{port}.log"));
    let log_file = std::fs::File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
    let mut child = instance
        .command("/usr/sbin/sshd")
        .args(["-D", "-e", "-f", &format!("/{configuration_file}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log_file)
        .spawn()
        .context("cannot start sshd")?;
    let start = Instant::now();
    loop {
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
            break;
        }
        let ended = child.try_wait().context("cannot wait for sshd")?.is_some();
        if ended || start.elapsed() > Duration::from_secs(20) {
            let _ = child.kill();
            let _ = child.wait();
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            bail!("sshd of {} does not listen: {}", instance.release, said.trim());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let public = keys.read("host.pub")?;
    let known_host = format!("[127.0.0.1]:{port} {public}[localhost]:{port} {public}");
    let known_hosts = keys.folder.join(format!("known_hosts-{port}"));
    exec::write_file(&known_hosts, &known_host)?;
    Ok(Server { child, port, key: keys.user(), known_hosts, known_host, log })
}

fn mark(port: u16) -> String {
    format!("NCC_LAB_SERVER={port}")
}

impl Server {
    /// `NAME=value` in the environment of everything that this server starts.
    pub(crate) fn mark(&self) -> String {
        mark(self.port)
    }

    /// What its sessions are below.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its loopback port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What NIX_SSHOPTS has to hold on the host, without the port.
    pub(crate) fn ssh_options(&self) -> String {
        self.ssh_options_with(&format!("UserKnownHostsFile={}", self.known_hosts.display()))
    }

    /// The same for two servers, to be split as a shell does.
    pub(crate) fn ssh_options_for_both(&self, other: &Self) -> String {
        let [one, two] = [&self.known_hosts, &other.known_hosts].map(|file| file.display());
        self.ssh_options_with(&format!("'UserKnownHostsFile={one} {two}'"))
    }

    fn ssh_options_with(&self, known_hosts: &str) -> String {
        format!(
            "-F none -i {} -o {known_hosts} -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes -o BatchMode=yes",
            self.key.display(),
        )
    }

    /// Runs a command on this server with the host's ssh.
    pub(crate) fn run(&self, words: &[&str]) -> Result<Finished> {
        let mut command = Command::new("ssh");
        command
            .args(self.ssh_options().split(' '))
            .args(["-p", &self.port.to_string(), "root@127.0.0.1"])
            .args(words);
        exec::capture(&mut command)
    }

    /// What sshd has said so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = exec::wait(&mut self.child, Duration::from_secs(5));
    }
}
