//! How ssh is to be started, as data.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use ncc_transport::{Compression, KeepAlive, PinnedHostKey, ssh_options_in};

/// How to start ssh. The default leaves everything to the user's configuration, except for what a byte stream needs and for
/// timeouts where the user has set none.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenSshOptions {
    /// The program; a name without a slash is looked up on `PATH`. It has to understand OpenSSH's options.
    pub program: OsString,
    /// The user's own options, as [`parse_ssh_options`](crate::parse_ssh_options) makes them from NIX_SSHOPTS. They stand before
    /// all others but the target's own user and port, a pinned host key, and what a byte stream cannot do without; for most options
    /// of OpenSSH the first value wins.
    pub extra: Vec<OsString>,
    /// Compression of the whole connection.
    pub compression: Compression,
    /// How many `-v` ssh is given; 3 is all it knows.
    pub verbosity: u8,
    /// One more private key to try, before those of the configuration.
    pub identity_file: Option<PathBuf>,
    /// Host keys are looked up in this file alone, not in the user's; an option of the user's own wins.
    pub known_hosts_file: Option<PathBuf>,
    /// The one key that the host may have. It beats all other words about host keys, the user's own options included; for jump
    /// hosts it says nothing.
    pub host_key: Option<PinnedHostKey>,
    /// How a dead connection is noticed, unless the user's configuration already says how. `None` leaves it to the
    /// configuration alone.
    pub keep_alive: Option<KeepAlive>,
    /// How long connecting may take, without the time that a person takes to answer questions; unless the user's configuration
    /// says so. Rounded up to seconds. `None` leaves it to the configuration alone.
    pub connect_timeout: Option<Duration>,
    /// Whether the user's configuration is read before the first channel.
    pub configuration: ConfigurationUse,
    /// Whether further channels use the connection of the first.
    pub sharing: Sharing,
}

impl Default for OpenSshOptions {
    fn default() -> Self {
        Self {
            program: "ssh".into(),
            extra: Vec::new(),
            compression: Compression::AsConfigured,
            verbosity: 0,
            identity_file: None,
            known_hosts_file: None,
            host_key: None,
            keep_alive: Some(KeepAlive::default()),
            connect_timeout: Some(Duration::from_secs(30)),
            configuration: ConfigurationUse::Ask,
            sharing: Sharing::None,
        }
    }
}

/// What a further channel does while the first is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Sharing {
    /// It connects and authenticates by itself, unless the user has configured a ControlMaster.
    #[default]
    None,
    /// It goes through the first one's connection, so that nothing is asked twice. The first ssh is a master then, with a
    /// control socket in a folder that nobody else may enter and that is gone with the transport. Where the user has a
    /// master, or one that stays (ControlPersist), that is used instead. A channel that cannot share after all connects by
    /// itself, but never asks.
    Private,
}

/// Whether `ssh -G` is asked for the user's configuration of the host, once, before the first channel.
///
/// It takes about 5 ms and opens no connection. Without it, an option of ours given on the command line would beat the user's
/// configuration file, and some settings that make a session unusable for a byte stream could not be noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ConfigurationUse {
    /// Ask. Where ssh does not answer, as [`Ignore`](Self::Ignore).
    #[default]
    Ask,
    /// Do not ask, and act as if nothing was configured.
    Ignore,
}

/// Whether the user's own options ask for a forwarding: then all forwardings stay.
pub(crate) fn asks_for_forwarding(words: &[OsString]) -> bool {
    says(words, b"LRD", &["localforward", "remoteforward", "dynamicforward"])
}

/// Whether the user's own options name a control socket, which beats any other.
pub(crate) fn names_control_path(words: &[OsString]) -> bool {
    says(words, b"S", &["controlpath"])
}

/// What of the user's own options keeps ssh's words from us, if any does.
pub(crate) fn silenced_by(words: &[OsString]) -> Option<&'static str> {
    [(b'q', "'-q'"), (b'E', "'-E'"), (b'y', "'-y'")]
        .into_iter()
        .find(|(letter, _)| says(words, &[*letter], &[]))
        .map(|(_, name)| name)
}

/// Whether there is one of these letters, or `-o` with one of these keywords.
fn says(words: &[OsString], letters: &[u8], keywords: &[&str]) -> bool {
    ssh_options_in(words).iter().any(|option| match (option.letter, option.value) {
        (b'o', Some(setting)) => {
            let setting = setting.trim_ascii_start().to_ascii_lowercase();
            keywords.iter().any(|keyword| setting.starts_with(keyword.as_bytes()))
        }
        (letter, _) => letters.contains(&letter),
    })
}

#[cfg(test)]
mod tests {
    use ncc_transport::parse_ssh_options;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("-L 1:h:1", true)]
    #[case("-NR8080:h:80", true)]
    #[case("-o'RemoteForward=8080 h:80'", true)]
    #[case("-o 'dynamicforward 1'", true)]
    #[case("-i -L", false)]
    #[case("-4 -o ForwardAgent=yes", false)]
    fn forwardings(#[case] value: &str, #[case] expected: bool) {
        let words = parse_ssh_options(value).unwrap();
        assert_eq!(asks_for_forwarding(&words), expected);
    }
}
