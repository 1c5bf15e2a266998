//! Which transport leads to a host, and what it is told.

use std::{ffi::OsString, io::Write as _, path::PathBuf, sync::Arc};

use ncc_transport::{Compression, PinnedHostKey, Target, Transport, parse_ssh_options};
use tempfile::NamedTempFile;

use crate::{arguments::Ssh, environment::variable, failure::Failure};

/// What is known about a connection before it is made.
pub(crate) struct Connection<'a> {
    pub(crate) target: Target,
    #[cfg_attr(not(feature = "ssh"), expect(dead_code, reason = "libssh2 has no details to tell"))]
    pub(crate) verbosity: u8,
    pub(crate) compress: bool,
    pub(crate) key: Option<PathBuf>,
    pub(crate) host_key: Option<&'a HostKey>,
    /// More than one channel is going to be opened: nothing may be asked twice.
    #[cfg_attr(
        not(feature = "ssh"),
        expect(dead_code, reason = "libssh2 has all channels on one connection")
    )]
    pub(crate) several_channels: bool,
}

impl Connection<'_> {
    /// The transport. A further one is one more line here.
    pub(crate) fn transport(self, ssh: Ssh) -> Result<Arc<dyn Transport>, Failure> {
        match ssh {
            Ssh::Openssh => self.openssh(),
            Ssh::Libssh2 => self.libssh2(),
        }
    }

    #[cfg(feature = "ssh")]
    fn openssh(self) -> Result<Arc<dyn Transport>, Failure> {
        use ncc_transport_ssh::{OpenSsh, OpenSshOptions, Sharing};

        let mut options = OpenSshOptions::default();
        options.extra = extra_options()?;
        options.compression = self.compression();
        options.known_hosts_file = self.known_hosts_file();
        options.identity_file = self.key;
        if self.several_channels {
            options.sharing = Sharing::Private;
        }
        // As upstream: ssh itself becomes talkative at four.
        options.verbosity = self.verbosity.saturating_sub(3);
        Ok(Arc::new(OpenSsh::new(self.target, options)))
    }

    #[cfg(not(feature = "ssh"))]
    #[expect(clippy::unused_self, reason = "as its namesake")]
    fn openssh(self) -> Result<Arc<dyn Transport>, Failure> {
        Err(Failure::text("this program was built without OpenSSH as a transport (feature 'ssh')"))
    }

    #[cfg(feature = "ssh2")]
    fn libssh2(self) -> Result<Arc<dyn Transport>, Failure> {
        use ncc_transport_ssh2::{SignalKey, Ssh2, Ssh2Options, TerminalPrompter};
        use rustix::process::{Signal, kill_current_process_group};

        let mut options = Ssh2Options::default();
        options.extra = extra_options()?;
        options.compression = self.compression();
        options.pinned_host_key = self.host_key.map(|key| key.key.clone());
        options.identity_file = self.key;
        options.prompter = Arc::new(TerminalPrompter::new(|key| {
            // What the terminal would have done: all that run in the foreground get it.
            let signal = if key == SignalKey::Suspend { Signal::TSTP } else { Signal::QUIT };
            let _ = kill_current_process_group(signal);
        }));
        Ok(Arc::new(Ssh2::new(self.target, options)))
    }

    #[cfg(not(feature = "ssh2"))]
    #[expect(clippy::unused_self, reason = "as its namesake")]
    fn libssh2(self) -> Result<Arc<dyn Transport>, Failure> {
        Err(Failure::text("this program was built without libssh2 as a transport")
            .hint("build it with 'cargo install --path cli --features ssh2'"))
    }

    fn compression(&self) -> Compression {
        if self.compress { Compression::On } else { Compression::AsConfigured }
    }

    fn known_hosts_file(&self) -> Option<PathBuf> {
        self.host_key.map(|key| key.file.path().to_owned())
    }
}

/// Gives the terminal back if a question without echo stands there; before the program ends by a signal.
pub(crate) fn release_terminal() {
    #[cfg(feature = "ssh2")]
    ncc_transport_ssh2::TerminalPrompter::release_terminal();
}

/// The words of NIX_SSHOPTS.
fn extra_options() -> Result<Vec<OsString>, Failure> {
    let text = variable("NIX_SSHOPTS").unwrap_or_default();
    parse_ssh_options(&text).map_err(|error| Failure::plain(&error))
}

/// The one host key that a host may have, with a file that says so to ssh; gone when this is dropped.
pub(crate) struct HostKey {
    #[cfg_attr(not(feature = "ssh2"), expect(dead_code, reason = "ssh reads the file"))]
    key: PinnedHostKey,
    file: NamedTempFile,
}

impl HostKey {
    /// Reads `base64-ssh-public-host-key`, and writes the known-hosts line for it.
    pub(crate) fn write(target: &Target, encoded: &str) -> Result<Self, Failure> {
        let key = PinnedHostKey::from_base64(encoded).map_err(|error| Failure::plain(&error))?;
        let key = key.ok_or_else(|| Failure::text("'base64-ssh-public-host-key' is empty"))?;
        let name = match target.port() {
            Some(port) if port != 22 => format!("[{}]:{port}", target.host()),
            _ => target.host().to_owned(),
        };
        let failed = |error| Failure::new("the host key cannot be written to a temporary file", error);
        let mut file = NamedTempFile::new().map_err(failed)?;
        file.write_all(key.known_hosts_line(&name).as_bytes()).map_err(failed)?;
        Ok(Self { key, file })
    }
}
