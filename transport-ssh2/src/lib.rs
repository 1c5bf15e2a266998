//! The transport over libssh2: SSH without an ssh program.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

mod auth;
mod config;
mod connect;
mod driver;
mod host_key;
mod hub;
mod keys;
mod known_hosts;
mod link;
mod options;
mod port;
mod prompt;
mod stream;
mod transport;
mod trouble;
mod wake;
mod wire;
mod words;

/// What this transport has in common with every other that speaks SSH.
pub use ncc_transport::{Compression, KeepAlive, SshOptionsError, parse_ssh_options};
pub use options::{ConfigurationFiles, Ssh2Options};
pub use prompt::{Answer, Prompter, Question, TerminalPrompter};
pub use transport::Ssh2;
