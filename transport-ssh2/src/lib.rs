//! The transport over libssh2: SSH without an ssh program.
//!
//! [`Ssh2`] connects by itself, once, and opens any number of channels on that connection. It reads `~/.ssh/config` and known_hosts,
//! uses agent and keys, and asks on the terminal, as OpenSSH does. It is for machines without an `ssh`, and for programs that want no
//! child process; `ncc-transport-ssh` is its twin.
//!
//! ```
//! use ncc_transport::{FailureKind, RemoteCommand, Transport, TransportError};
//! use ncc_transport_ssh2::{ConfigurationFiles, Ssh2, Ssh2Options, parse_ssh_options};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut options = Ssh2Options::default();
//! options.extra = parse_ssh_options("-i '/keys/my key' -o ServerAliveInterval=10")?;
//! options.configuration = ConfigurationFiles::None;
//! // Nothing listens there, so that this shows what a failure looks like.
//! let transport = Ssh2::new("alice@127.0.0.1:1".parse()?, options);
//! match transport.open(&RemoteCommand::new("nix-store").args(["--serve", "--write"])).await {
//!     Err(TransportError::Connect { failure, .. }) => assert_eq!(failure.kind, FailureKind::ConnectionRefused),
//!     other => panic!("{other:?}"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! A connection has one thread, which waits in one `poll` and makes all calls of libssh2, without blocking. libssh2 does not get the
//! network's socket but a local one, whose other end the thread empties before each call: what OpenSSH's server does when it changes
//! keys in the middle of a copy cannot lock libssh2 up. Each direction of each channel has a bounded buffer; beyond that, SSH's own
//! windows hold the other side back, one channel without the others. A window is 2 MiB, and grows
//! to as much as 16 MiB on fast links with long ways. `BENCHMARKS.md` has the numbers, and where libssh2 is the limit.
//!
//! # What of the configuration counts
//!
//! | | |
//! |---|---|
//! | Blocks | `Host`, `Match` (`all`, `host`, `originalhost`, `user`, `localuser`, `exec`, `tagged`, `sessiontype`, `final`, `canonical`), `Include` |
//! | The way | `HostName`, `User`, `Port`, `AddressFamily`, `ConnectTimeout`, `ConnectionAttempts`, `ProxyJump`, `ProxyCommand`, `ServerAliveInterval`, `ServerAliveCountMax`, `Compression`, `Ciphers`, `MACs`, `KexAlgorithms` |
//! | Host keys | `StrictHostKeyChecking`, `UserKnownHostsFile`, `GlobalKnownHostsFile`, `HashKnownHosts`, `HostKeyAlias`, `HostKeyAlgorithms`, `RequiredRSASize` (`RSAMinSize`) |
//! | Login | `IdentityFile`, `CertificateFile`, `IdentitiesOnly`, `IdentityAgent`, `PreferredAuthentications`, `PubkeyAuthentication`, `KbdInteractiveAuthentication`, `PasswordAuthentication`, `NumberOfPasswordPrompts`, `BatchMode` |
//! | Refused, since ignoring them would be wrong | `Match localnetwork` and other conditions that cannot be decided here, `KnownHostsCommand`, `RevokedHostKeys`, `BindAddress`, `BindInterface`, `CanonicalizeHostname`, `PKCS11Provider`, `ProxyUseFdpass`; `RefuseConnection`, which asks for it; and options that are not known, unless `IgnoreUnknown` names them |
//! | Without effect | what is about terminals, forwardings, environments, master connections and looks; `VerifyHostKeyDNS`, `NoHostAuthenticationForLocalhost` and the like, where ignoring is the stricter choice |
//!
//! A test compares what is read here with what `ssh -G` says of the same file. Known differences: the home directory is `$HOME` if that is
//! set; lines in blocks for other hosts are not checked; `Include` takes neither tokens nor variables; the token `%C` is not known; of
//! all users only those in `/etc/passwd` have a name and a home directory.
//!
//! The user's configuration and every included file must belong to the user or root, and nobody else may be able to write to it.
//!
//! Jump hosts are judged by the configuration files. Of the options for the target only what is stricter counts for them (`BatchMode`,
//! `StrictHostKeyChecking=yes`) or gives up sooner (`ConnectTimeout`, `ServerAlive...`).
//!
//! # NIX_SSHOPTS
//!
//! `-o`, `-i`, `-p`, `-l`, `-C`, `-c`, `-m`, `-J`, `-F`, `-4` and `-6` are honoured; `-T`, `-x`, `-a`, `-k` and `-q` ask for what is so
//! anyway. Any other is an error that names it.
//!
//! # What it does not do
//!
//! Certificates of hosts are not accepted (`@cert-authority` makes no host known), nor GSSAPI, host-based logins, and security keys
//! without an agent. An agent that does not list its keys within 10 seconds is done
//! without; one that lists them has two minutes for each signature. A host that is known by a key of another type is not new to `accept-new`, which is stricter than OpenSSH.
//!
//! # Features
//!
//! * `vendored`: builds OpenSSL from source, for machines without its headers. Without it the build needs libssl and pkg-config.
//!   libssh2 itself is always built from the source that comes with its crate.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

mod agent;
mod auth;
mod config;
mod connect;
mod driver;
mod error;
mod files;
mod handle;
mod host_key;
mod keys;
mod known_hosts;
mod link;
mod negotiation;
mod options;
mod prompt;
mod pump;
mod relay;
mod stream;
mod transport;
mod wake;
mod window;
mod words;

/// What this transport has in common with every other that speaks SSH.
pub use ncc_transport::{Compression, KeepAlive, SshOptionsError, parse_ssh_options};
pub use options::{ConfigurationFiles, Ssh2Options};
pub use prompt::{Answer, Prompter, Question, SignalKey, TerminalPrompter};
pub use transport::Ssh2;

/// The example in README.md is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
