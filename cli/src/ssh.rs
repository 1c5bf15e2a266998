//! Which transport leads to a host, and what it is told.

use std::{ffi::OsString, io::Write as _, path::PathBuf, sync::Arc};

use data_encoding::BASE64;
use ncc_transport::{Compression, Target, Transport, parse_ssh_options};
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
        use ncc_transport_ssh2::{Ssh2, Ssh2Options};

        let mut options = Ssh2Options::default();
        options.extra = extra_options()?;
        options.compression = self.compression();
        options.known_hosts_file = self.known_hosts_file();
        options.identity_file = self.key;
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
        self.host_key.map(|file| file.0.path().to_owned())
    }
}

/// The words of NIX_SSHOPTS.
fn extra_options() -> Result<Vec<OsString>, Failure> {
    let text = variable("NIX_SSHOPTS").unwrap_or_default();
    parse_ssh_options(&text).map_err(|error| Failure::plain(&error))
}

/// A file with the one host key that a host may have; gone when this is dropped.
pub(crate) struct HostKey(NamedTempFile);

impl HostKey {
    /// Writes the known-hosts line for `base64-ssh-public-host-key`: the key's line, such as `ssh-ed25519 AAAA...`, once
    /// more in base 64.
    pub(crate) fn write(target: &Target, encoded: &str) -> Result<Self, Failure> {
        let key = BASE64
            .decode(encoded.as_bytes())
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .filter(|key| key.trim().lines().count() == 1)
            .ok_or_else(|| {
                Failure::text("'base64-ssh-public-host-key' is not a line of a public key in base 64")
            })?;
        let name = match target.port() {
            Some(port) if port != 22 => format!("[{}]:{port}", target.host()),
            _ => target.host().to_owned(),
        };
        let failed = |error| Failure::new("the host key cannot be written to a temporary file", error);
        let mut file = NamedTempFile::new().map_err(failed)?;
        writeln!(file, "{name} {}", key.trim()).map_err(failed)?;
        Ok(Self(file))
    }
}
