//! The transport that spawns OpenSSH.
//!
//! [`OpenSsh`] starts the user's own `ssh` for each channel, so that everything in `~/.ssh/config` works as it does by hand: keys,
//! agents, jump hosts, proxy commands, certificates, a ControlMaster. Questions (host keys, passphrases, passwords) are asked by ssh
//! itself on the terminal. Options come as [data](OpenSshOptions); what ssh says when it fails is read by [`explain`].
//!
//! ```
//! use ncc_transport::{RemoteCommand, Transport};
//! use ncc_transport_ssh::{OpenSsh, OpenSshOptions, parse_ssh_options};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut options = OpenSshOptions::default();
//! options.extra = parse_ssh_options("-i '/keys/my key' -o Ciphers=^aes128-gcm@openssh.com")?;
//! let transport = OpenSsh::new("alice@[2001:db8::1]:2200".parse()?, options);
//! assert_eq!(transport.describe(), "alice@[2001:db8::1]:2200");
//!
//! let command = RemoteCommand::new("nix-store").args(["--serve", "--write"]);
//! // Connecting needs a host; without one, this is what ssh would be started with.
//! let words = transport.arguments(&command);
//! assert_eq!(words[..4], ["-p", "2200", "-l", "alice"]);
//! assert_eq!(words[words.len() - 3..], ["--", "2001:db8::1", "nix-store --serve --write"]);
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! * `test-util`: the module `test_util`, an sshd of one's own on loopback.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

mod configuration;
mod failure;
mod first;
mod notices;
mod open_ssh;
mod options;
#[cfg(feature = "test-util")]
pub mod test_util;

pub use failure::explain;
/// What this transport has in common with every other that speaks SSH.
pub use ncc_transport::{Compression, KeepAlive, PinnedHostKey, SshOptionsError, parse_ssh_options};
pub use notices::without_notices;
pub use open_ssh::OpenSsh;
pub use options::{ConfigurationUse, OpenSshOptions, Sharing};

/// The example of the README is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
