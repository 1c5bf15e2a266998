//! How to connect, as data.

use std::{ffi::OsString, fmt, path::PathBuf, sync::Arc, time::Duration};

use ncc_transport::{Compression, KeepAlive, PinnedHostKey};

use crate::{Prompter, TerminalPrompter};

/// How to connect. The default leaves everything to the user's configuration files, asks questions on the terminal, and has time-outs
/// where the user has set none.
#[derive(Clone)]
#[non_exhaustive]
pub struct Ssh2Options {
    /// The user's own options, as [`parse_ssh_options`](crate::parse_ssh_options) makes them from NIX_SSHOPTS. They win over all but
    /// the target's own user and port. What is honoured is listed [here](crate#nix_sshopts); anything else is an error.
    pub extra: Vec<OsString>,
    /// Compression of the whole connection.
    pub compression: Compression,
    /// One more private key to try, before those of the configuration.
    pub identity_file: Option<PathBuf>,
    /// The one key that the target may show. Then known_hosts and everything that is configured about it count for nothing, whatever
    /// name and port the target has there. Jump hosts are checked as ever.
    pub pinned_host_key: Option<PinnedHostKey>,
    /// How a dead connection is noticed, unless the user's configuration already says how. `None` leaves it to the configuration
    /// alone. libssh2 asks no more often than every two seconds.
    pub keep_alive: Option<KeepAlive>,
    /// How long connecting may take, unless the user's configuration says so: over all addresses, until the keys are agreed on.
    /// After that a server may take its time, for a login as for starting a command; whether it is alive is for `keep_alive` to find
    /// out. A jump host has as long again to connect to the next host. `None` leaves it to the configuration alone.
    pub connect_timeout: Option<Duration>,
    /// Which configuration files are read. `-F` in [`extra`](Self::extra) wins.
    pub configuration: ConfigurationFiles,
    /// Who is asked for passphrases, passwords, and whether a host's key is the right one.
    pub prompter: Arc<dyn Prompter>,
}

impl Default for Ssh2Options {
    fn default() -> Self {
        Self {
            extra: Vec::new(),
            compression: Compression::AsConfigured,
            identity_file: None,
            pinned_host_key: None,
            keep_alive: Some(KeepAlive::default()),
            connect_timeout: Some(Duration::from_secs(30)),
            configuration: ConfigurationFiles::UserAndSystem,
            prompter: Arc::new(TerminalPrompter::default()),
        }
    }
}

impl fmt::Debug for Ssh2Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ssh2Options")
            .field("extra", &self.extra)
            .field("compression", &self.compression)
            .field("identity_file", &self.identity_file)
            .field("pinned_host_key", &self.pinned_host_key)
            .field("keep_alive", &self.keep_alive)
            .field("connect_timeout", &self.connect_timeout)
            .field("configuration", &self.configuration)
            .finish_non_exhaustive()
    }
}

/// Where the configuration comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ConfigurationFiles {
    /// `~/.ssh/config`, then `/etc/ssh/ssh_config`, where they are there.
    #[default]
    UserAndSystem,
    /// This file alone, which must be there.
    File(PathBuf),
    /// None.
    None,
}
