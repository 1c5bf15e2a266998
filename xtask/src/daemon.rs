//! Nix's daemon inside an instance.

use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::exec;
use crate::instance::Instance;

/// Inside of every instance.
pub(crate) const SOCKET: &str = "/nix/var/nix/daemon-socket/socket";

/// Nix's daemon, which listens at its usual socket; ended with this.
#[derive(Debug)]
pub(crate) struct Daemon(Child);

impl Daemon {
    /// Starts the instance's own daemon over its store, and waits until it listens.
    pub(crate) fn start(instance: &Instance) -> Result<Self> {
        let mut command = instance.command("nix-daemon");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut daemon = Self(command.spawn().context("cannot start nix-daemon")?);
        let socket = instance.path(SOCKET);
        let start = Instant::now();
        // An earlier daemon may have left its socket behind, at which nobody listens.
        while UnixStream::connect(&socket).is_err() {
            let ended = daemon.0.try_wait().context("cannot wait for nix-daemon")?.is_some();
            ensure!(!ended && start.elapsed() < Duration::from_secs(20), "nix-daemon does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(daemon)
    }

    /// What its workers are below.
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = exec::wait(&mut self.0, Duration::from_secs(5));
    }
}
