//! The same tests with each transport, and what leads a copy to an sshd on loopback.

use std::{ffi::OsString, fmt::Write as _, fs, path::Path, process::Command};

use ncc_transport_ssh::test_util::Sshd;

use crate::support::{PROGRAM, World, full};

/// Whose SSH is spoken: the parameter of every test that opens a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ssh {
    #[cfg_attr(not(feature = "ssh"), expect(dead_code, reason = "not in this build"))]
    OpenSsh,
    #[cfg_attr(not(feature = "ssh2"), expect(dead_code, reason = "not in this build"))]
    Libssh2,
}

/// Makes, of each of these functions of an [`Ssh`], a test `openssh::name` and a test `libssh2::name`, as far as this build
/// has them. One that is forgotten here is dead code, which the lints do not let pass.
macro_rules! with_each_transport {
    ($($test:ident),+ $(,)?) => {
        #[cfg(feature = "ssh")]
        mod openssh {
            $(#[test] fn $test() { super::$test(crate::transports::Ssh::OpenSsh); })+
        }
        #[cfg(feature = "ssh2")]
        mod libssh2 {
            $(#[test] fn $test() { super::$test(crate::transports::Ssh::Libssh2); })+
        }
    };
}
pub(crate) use with_each_transport;

impl Ssh {
    /// What has to be read where each has words of its own.
    pub(crate) fn words(self, openssh: &'static str, libssh2: &'static str) -> &'static str {
        match self {
            Self::OpenSsh => openssh,
            Self::Libssh2 => libssh2,
        }
    }

    /// How many logins so many commands, one after the other, take.
    pub(crate) fn logins(self, commands: usize) -> usize {
        match self {
            Self::OpenSsh => commands,
            Self::Libssh2 => commands.min(1),
        }
    }

    /// Chooses it. There is an `ssh` on the PATH for OpenSSH alone: the other one has to do without.
    pub(crate) fn choose(self, command: &mut Command) {
        match self {
            Self::OpenSsh => command.args(["--transport", "openssh"]).env("PATH", path()),
            Self::Libssh2 => command.args(["--transport", "libssh2"]),
        };
    }

    /// `nix-copy-closure --store FROM --remote-store TO` with what leads to this sshd; the host is `127.0.0.1`.
    pub(crate) fn reach(self, world: &World, sshd: &Sshd) -> Command {
        self.reaching(world.copy(), sshd)
    }

    /// Any other command, with what leads to this sshd.
    pub(crate) fn reaching(self, mut command: Command, sshd: &Sshd) -> Command {
        self.choose(&mut command);
        command.env("NIX_SSHOPTS", sshd.nix_sshopts());
        command
    }

    /// The same as `reach`, with this program as the server.
    pub(crate) fn served(self, world: &World, sshd: &Sshd) -> Command {
        let mut command = self.reach(world, sshd);
        command.args(["--remote-program", PROGRAM]);
        command
    }
}

/// Where the programs of this machine are.
pub(crate) fn path() -> OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

/// More options of ssh, before those that are there: ssh takes the first value of an option.
pub(crate) fn prefer(command: &mut Command, options: &str) {
    let there = command.get_envs().find(|(name, _)| *name == "NIX_SSHOPTS").and_then(|(_, value)| value);
    let there = there.unwrap_or_default().to_str().expect("UTF-8").to_owned();
    command.env("NIX_SSHOPTS", format!("{options} {there}"));
}

/// What leads to this sshd with another key than its own, as NIX_SSHOPTS.
pub(crate) fn with_key(sshd: &Sshd, key: &Path) -> String {
    let own = sshd.key();
    sshd.nix_sshopts().replace(own.to_str().expect("UTF-8"), key.to_str().expect("UTF-8"))
}

/// An sshd whose users have no home, so that nothing in this user's `.bashrc` counts.
pub(crate) fn sshd(config: &[&str]) -> Option<Sshd> {
    Sshd::start(&[config, &["SetEnv HOME=/nowhere"]].concat())
}

/// A path that is larger than all buffers on the way.
pub(crate) fn add_big(world: &World) -> String {
    let mut content = String::new();
    let mut state = 1_u64;
    while content.len() < 12 << 20 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let _ = writeln!(content, "{state:x}");
    }
    full(&world.add("big", "file", &content, []))
}

/// A server that takes a little and then works no more, but ends when its input does.
pub(crate) fn stuck(world: &World) -> String {
    stuck_running(world, PROGRAM)
}

/// The same for another copy of the program.
pub(crate) fn stuck_running(world: &World, program: &str) -> String {
    let body =
        format!("#!/bin/sh\n{{ dd bs=65536 count=12 2>/dev/null; cat > /dev/null; }} | {program} \"$@\"\n");
    world.script("stuck", &body).display().to_string()
}

/// A configuration file of ssh that has these servers under these names; the words of NIX_SSHOPTS that name it.
pub(crate) fn configuration(world: &World, hosts: &[(&str, &Sshd, &str)]) -> String {
    let mut text = String::new();
    for (name, sshd, more) in hosts {
        let _ = writeln!(
            text,
            "Host {name}\n HostName 127.0.0.1\n Port {}\n IdentityFile {}\n UserKnownHostsFile {}\n {more}",
            sshd.port(),
            sshd.key().display(),
            sshd.known_hosts().display(),
        );
    }
    text.push_str(
        "Host *\n GlobalKnownHostsFile /dev/null\n StrictHostKeyChecking yes\n IdentitiesOnly yes\n IdentityAgent none\n \
         BatchMode yes\n",
    );
    let file = world.directory().join("ssh_config");
    fs::write(&file, text).expect("a configuration");
    format!("-F {}", file.display())
}
