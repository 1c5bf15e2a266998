//! What the parameters of a host's URL mean.

use std::path::PathBuf;

use crate::{HostArgument, PinnedHostKey, PinnedHostKeyError, TargetError};

/// The parameters of a host's URL (`ssh://h?compress=true&remote-store=...`) as Nix means them: `nix help-stores` lists them for
/// `ssh://` and `ssh-ng://`.
///
/// An empty value is "not set". What Nix knows and what has no bearing on a connection of ours, and what nobody knows, is kept by name
/// for the caller to mention: newer Nixes add parameters, and upstream warns about unknown ones too.
///
/// ```
/// use ncc_transport::HostParams;
///
/// let params = HostParams::from_argument(&"ssh://h?compress=yes&port=2200&want-mass-query=1&foo=bar".parse()?)?;
/// assert_eq!((params.compress, params.port), (Some(true), Some(2200)));
/// assert_eq!((params.without_effect, params.unknown), (vec!["want-mass-query".to_owned()], vec!["foo".to_owned()]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct HostParams {
    /// `remote-store`: the store URI for the other side.
    pub remote_store: Option<String>,
    /// `remote-program`: the program that serves there, perhaps with arguments.
    pub remote_program: Option<String>,
    /// `store`: the logical store directory of the other side (`/nix/store`).
    pub store_dir: Option<String>,
    /// `compress`: whether ssh compresses.
    pub compress: Option<bool>,
    /// `ssh-key`: a private key to log in with.
    pub ssh_key: Option<PathBuf>,
    /// `base64-ssh-public-host-key`: the one key that the host may have.
    pub host_key: Option<PinnedHostKey>,
    /// `port`, which Lix has. A port in the host itself wins; see [`Target::or_port`](crate::Target::or_port).
    pub port: Option<u16>,
    /// `max-connections`: how many connections there may be at once.
    pub max_connections: Option<u32>,
    /// Parameters of Nix that mean nothing to a copy.
    pub without_effect: Vec<String>,
    /// Parameters that nobody knows.
    pub unknown: Vec<String>,
}

/// What stores of this kind have as well, and what says nothing about how to copy: what a store is worth, and how its answers are
/// kept.
const WITHOUT_EFFECT: &[&str] = &[
    "log-fd",
    "max-connection-age",
    "path-info-cache-size",
    "priority",
    "system-features",
    "trusted",
    "want-mass-query",
];

impl HostParams {
    /// Reads the parameters of a host argument.
    pub fn from_argument(argument: &HostArgument) -> Result<Self, HostParamError> {
        let mut params = Self::default();
        for (key, value) in argument.params.iter() {
            let set = || Some(value.to_owned()).filter(|value| !value.is_empty());
            match key {
                "remote-store" => params.remote_store = set(),
                "remote-program" => params.remote_program = set(),
                "store" => params.store_dir = set(),
                "compress" => params.compress = set().map(|value| boolean(key, &value)).transpose()?,
                // Upstream too takes no empty path for "not set".
                "ssh-key" => {
                    params.ssh_key = Some(set().ok_or(HostParamError::EmptyPath { key: "ssh-key" })?.into());
                }
                "base64-ssh-public-host-key" => params.host_key = PinnedHostKey::from_base64(value)?,
                "port" => {
                    let port = |value: &str| value.parse().ok().filter(|&port| port > 0);
                    let invalid = || TargetError::InvalidPort { port: value.to_owned() };
                    params.port = set().map(|value| port(&value).ok_or_else(invalid)).transpose()?;
                }
                "max-connections" => params.max_connections = set().map(|value| count(&value)).transpose()?,
                known if WITHOUT_EFFECT.contains(&known) => params.without_effect.push(known.to_owned()),
                unknown => params.unknown.push(unknown.to_owned()),
            }
        }
        Ok(params)
    }

    /// What of a host argument and of NIX_SSHOPTS only makes sense for a connection with ssh, if anything does. A caller that takes
    /// a short cut for [`localhost`](crate::Target::is_localhost) must not take it then: the host is a forwarded port or a
    /// container, and success would mean that nothing went there.
    ///
    /// What the user's ssh_config says of a `Host localhost` counts as well; a transport that reads it knows that.
    ///
    /// ```
    /// use ncc_transport::{HostParams, parse_ssh_options};
    ///
    /// assert_eq!(HostParams::default().asks_for_ssh(&[]), None);
    /// assert_eq!(HostParams::default().asks_for_ssh(&parse_ssh_options("-p 2299")?), Some("NIX_SSHOPTS"));
    /// # Ok::<(), ncc_transport::SshOptionsError>(())
    /// ```
    pub fn asks_for_ssh(&self, ssh_options: &[std::ffi::OsString]) -> Option<&'static str> {
        [
            (!ssh_options.is_empty(), "NIX_SSHOPTS"),
            (self.ssh_key.is_some(), "ssh-key"),
            (self.host_key.is_some(), "base64-ssh-public-host-key"),
            (self.port.is_some(), "port"),
        ]
        .into_iter()
        .find_map(|(asks, name)| asks.then_some(name))
    }
}

/// As Nix reads one.
fn boolean(key: &str, value: &str) -> Result<bool, HostParamError> {
    match value {
        "true" | "yes" | "1" => Ok(true),
        "false" | "no" | "0" => Ok(false),
        _ => Err(HostParamError::NotBoolean { key: key.to_owned(), value: value.to_owned() }),
    }
}

fn count(value: &str) -> Result<u32, HostParamError> {
    value.parse().ok().filter(|&count| count > 0).ok_or_else(|| HostParamError::NotACount {
        key: "max-connections".to_owned(),
        value: value.to_owned(),
    })
}

/// A parameter of a host has a value that it cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostParamError {
    /// Neither true nor false.
    #[error("the host's parameter '{key}' is '{}', neither true nor false", .value.escape_debug())]
    NotBoolean {
        /// The parameter.
        key: String,
        /// Its value.
        value: String,
    },
    /// Not a positive number.
    #[error("the host's parameter '{key}' is '{}', which is not a number above 0", .value.escape_debug())]
    NotACount {
        /// The parameter.
        key: String,
        /// Its value.
        value: String,
    },
    /// A path is empty.
    #[error("the host's parameter '{key}' is an empty path")]
    EmptyPath {
        /// The parameter.
        key: &'static str,
    },
    /// The port is none.
    #[error(transparent)]
    Port(#[from] TargetError),
    /// The pinned host key cannot be read.
    #[error("the host's parameter 'base64-ssh-public-host-key' cannot be used")]
    HostKey(#[from] PinnedHostKeyError),
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn read(text: &str) -> Result<HostParams, HostParamError> {
        HostParams::from_argument(&text.parse().unwrap())
    }

    #[test]
    fn every_parameter_is_read() {
        let key = "c3NoLWVkMjU1MTkgQUFBQUMzTnphQzFsWkRJMU5URTVBQUFBSUpoUXpTT2haMGtxemxVcFJDQnN1VE1HQ2JiYzFtUUxRY0JnSURraUpQQk0=";
        let params = read(&format!(
            "ssh://h?remote-store=local?root=/mnt&remote-program=/bin/x y&store=/nix/store&compress=1&ssh-key=/k\
             &base64-ssh-public-host-key={key}&port=2999&max-connections=4&path-info-cache-size=3&a&foo=bar"
        ))
        .unwrap();
        assert_eq!(params.host_key.as_ref().map(PinnedHostKey::key_type), Some("ssh-ed25519"));
        let expected = HostParams {
            remote_store: Some("local?root=/mnt".into()),
            remote_program: Some("/bin/x y".into()),
            store_dir: Some("/nix/store".into()),
            compress: Some(true),
            ssh_key: Some("/k".into()),
            host_key: params.host_key.clone(),
            port: Some(2999),
            max_connections: Some(4),
            without_effect: vec!["path-info-cache-size".into()],
            unknown: vec!["a".into(), "foo".into()],
        };
        assert_eq!(params, expected);
    }

    #[test]
    fn empty_is_not_set() {
        let text = "h?remote-store=&remote-program=&store=&compress=&base64-ssh-public-host-key=&port=&max-connections=";
        assert_eq!(read(text).unwrap(), HostParams::default());
    }

    #[rstest]
    #[case::compress(
        "h?compress=maybe",
        "the host's parameter 'compress' is 'maybe', neither true nor false"
    )]
    #[case::connections(
        "h?max-connections=x",
        "the host's parameter 'max-connections' is 'x', which is not a number above 0"
    )]
    #[case::no_connection(
        "h?max-connections=0",
        "the host's parameter 'max-connections' is '0', which is not a number above 0"
    )]
    #[case::key("h?ssh-key=", "the host's parameter 'ssh-key' is an empty path")]
    #[case::port("h?port=0", "'0' is not a port number from 1 to 65535")]
    #[case::host_key(
        "h?base64-ssh-public-host-key=x",
        "the host's parameter 'base64-ssh-public-host-key' cannot be used"
    )]
    fn refused(#[case] text: &str, #[case] message: &str) {
        assert_eq!(read(text).unwrap_err().to_string(), message);
    }

    /// <https://github.com/NixOS/nix/issues/14148>
    #[test]
    fn nix_14148_words_for_ssh_ask_for_ssh() {
        assert_eq!(read("localhost?ssh-key=/k").unwrap().asks_for_ssh(&[]), Some("ssh-key"));
        assert_eq!(read("localhost?compress=true").unwrap().asks_for_ssh(&[]), None);
        assert_eq!(HostParams::default().asks_for_ssh(&["-4".into()]), Some("NIX_SSHOPTS"));
    }
}
