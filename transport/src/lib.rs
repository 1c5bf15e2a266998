//! Running a command on a host, as a byte stream each way.
//!
//! A [`Transport`] knows bytes and commands, never what they mean: it starts a [`RemoteCommand`] on the host it stands for and
//! hands back a [`Channel`], which is the command's stdin, stdout, stderr and end. Nothing here knows a Nix store, and nothing
//! here knows SSH, but for the words that all SSH transports are told: the crates `ncc-transport-ssh` (which spawns OpenSSH) and
//! `ncc-transport-ssh2` (over libssh2) implement the trait, and
//! [`LocalProcess`] is the transport for this very machine.
//!
//! ```
//! use ncc_transport::{Exit, LocalProcess, RemoteCommand, StderrTail, Target, Transport, TransportError};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let target: Target = "localhost".parse()?;
//! assert!(target.is_localhost());
//!
//! let command = RemoteCommand::new("sh").args(["-c", "cat; echo two words >&2; exit 3"]);
//! let mut channel = LocalProcess::new().open(&command).await?;
//! let mut stderr = StderrTail::collect(channel.stderr, None);
//! channel.stdin.write_all(b"there and back").await?;
//! channel.stdin.shutdown().await?; // half close: the command sees the end of its input
//!
//! let mut answer = String::new();
//! channel.stdout.read_to_string(&mut answer).await?;
//! assert_eq!(answer, "there and back");
//! assert_eq!(channel.control.wait().await?, Exit::Code(3));
//! assert_eq!(stderr.finish().await, "two words\n");
//! # Ok(())
//! # }
//! ```
//!
//! # Where things are
//!
//! | | |
//! |---|---|
//! | [`HostArgument`], [`Target`], [`TargetParams`], [`HostParams`] | what a user wrote, and what it means: `ssh://alice@[2001:db8::1]:2200?compress=true`, and all older spellings |
//! | [`RemoteCommand`] | a program and its arguments; quoting for the login shell on the other side |
//! | [`RemoteScript`], [`Program`], [`Findings`], [`Stripes`] | looking for programs on the host, and starting one, within one command |
//! | [`Transport`], [`Channel`], [`ChannelControl`], [`Exit`] | what a transport is |
//! | [`Connector`], [`CommandOnHost`], [`UnixSocket`] | streams to one service, which is a command on a host or a socket here |
//! | [`parse_ssh_options`], [`Compression`], [`KeepAlive`], [`PinnedHostKey`] | what every SSH transport is told in the same words |
//! | [`End`], [`Ending`], [`Failure`], [`FailureKind`], [`FailureClass`] | how the other end ended, and what a person can do |
//! | [`StderrTail`], [`throttled`], [`sanitize_line`] | a peer's messages, bounded and made harmless |
//! | [`Limited`], [`Rate`] | a transport that keeps to a rate |
//! | [`LocalProcess`] | the transport of `localhost` |
//! | [`TransportError`], [`TargetError`] | what goes wrong |
//!
//! # Features
//!
//! * `test-util`: the module `conformance`, a suite that each transport has to pass, and `test_util` with what tests share.
//!
//! Filters over the streams (compression of one-way bulk data) are adapters over [`Channel`]'s boxed streams; a transport does
//! not know of them.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

mod channel;
mod command;
#[cfg(feature = "test-util")]
pub mod conformance;
mod connector;
mod ending;
mod error;
mod failure;
mod host_key;
mod host_params;
mod limited;
mod local;
mod process;
mod script;
mod ssh_options;
mod stderr;
mod target;
#[cfg(any(test, feature = "test-util"))]
pub mod test_util;

pub use channel::{Channel, ChannelControl, Exit, Reader, Transport, Writer};
pub use command::RemoteCommand;
pub use connector::{CommandOnHost, Connector, UnixSocket};
pub use ending::{End, Ending, login_shell_ended};
pub use error::TransportError;
pub use failure::{Client, Failure, FailureClass, FailureKind};
/// The future type of the object-safe traits here.
pub use futures_core::future::BoxFuture;
pub use host_key::{PinnedHostKey, PinnedHostKeyError};
pub use host_params::{HostParamError, HostParams};
pub use limited::{Limited, Rate, RateError};
pub use local::LocalProcess;
pub use script::{
    Account, Conversation, Fact, FilteredStream, Findings, Input, Program, RESUME, RemoteScript, Stripes,
};
pub use ssh_options::{
    Compression, KeepAlive, SshOption, SshOptionsError, parse_ssh_options, ssh_options_in,
};
pub use stderr::{LineSink, StderrTail, sanitize_line, throttled};
pub use target::{HostArgument, Scheme, Target, TargetError, TargetParams};

/// The example of the README is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
