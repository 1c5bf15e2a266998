//! The client's half of the daemon's protocol ("worker protocol"): over the socket of a `nix-daemon`, or over the pipes of
//! `nix-daemon --stdio`. Nix 2.0 (protocol 1.20) to development versions of 2.36 (1.38 and features).
//!
//! # Map
//!
//! | Step | Written by | Read by |
//! |---|---|---|
//! | Handshake | [`client_greeting`], [`put_client_settings`] | [`read_server_greeting`], [`read_daemon`]: a [`Daemon`] |
//! | Request and answer | [`Request::encode`] | [`Answers`]: one method for each kind of answer, or [`Answers::read`] |
//! | NAR of an addition | [`NarWriter`] | |
//! | NAR of a path | | [`NarReader`] |
//!
//! Before each answer come messages ([`LogMessage`]), which go to the caller's sink as they arrive; the last one says whether
//! the request succeeded. A refusal is [`AnswerError::Refused`] with a [`DaemonError`].
//!
//! Writing and reading are apart, so that requests can be sent ahead: a daemon answers strictly in their order. The caller
//! remembers what it asked and reads one answer for each.
//!
//! ```
//! use ncc_protocol::{wire::WireReader, worker::*};
//! use ncc_store::StoreDir;
//!
//! # futures_util::FutureExt::now_or_never(async {
//! # let from_daemon = b"oixd\0\0\0\0\x22\x01\0\0\0\0\0\0\x05\0\0\0\0\0\0\x002.8.0\0\0\0stla\0\0\0\0stla\0\0\0\0\0\0\0\0\0\0\0\0";
//! let mut reader = WireReader::new(&from_daemon[..]);
//! let mut bytes = client_greeting(Version::NEWEST);
//! let version = read_server_greeting(&mut reader, Version::NEWEST).await?;
//! put_client_settings(version, &mut bytes);
//! let daemon = read_daemon(&mut reader, version, drop).await?;
//! assert_eq!(daemon.release.as_deref(), Some("2.8.0"));
//!
//! let store_dir = StoreDir::default();
//! let path = store_dir.parse("/nix/store/nlhn6cma43vk5l44cgr8sw3ykiir1wmm-hi")?;
//! let request = Request::QueryPathInfo { path: path.clone() };
//! request.encode(&store_dir, &daemon, &mut bytes)?;
//! let mut answers = Answers::new(&mut reader, &store_dir, &daemon, |message| println!("{message:?}"));
//! assert!(answers.path_info(&path).await?.is_none());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).expect("a slice never waits")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Operations
//!
//! | Operation | Since | Answer |
//! |---|---|---|
//! | SetOptions, QueryValidPaths, QuerySubstitutablePaths, QueryPathInfo, QueryMissing, IsValidPath, EnsurePath, AddTempRoot, AddIndirectRoot, AddSignatures, NarFromPath, AddToStoreNar, QueryDerivationOutputs | 1.20 (Nix 2.0) | at once |
//! | QueryDerivationOutputMap | 1.22 (Nix 2.4) | at once |
//! | substitution in QueryValidPaths | 1.27 (Nix 2.4) | behind the substitution |
//! | QueryRealisation, RegisterDrvOutput | 1.31 (Nix 2.4); another form with [`Feature::RealisationWithPath`] | at once |
//! | AddMultipleToStore | 1.32 (Nix 2.4) | **behind the last path** |
//! | AddPermRoot | 1.36 (Nix 2.20) | at once |
//! | AddTempRoots | [`Feature::AddTempRoots`] | at once |
//!
//! No operation answers a closure: walk it with QueryPathInfo, sent for each new reference as soon as it is seen. That takes as many round
//! trips as the graph is deep.
//!
//! # Traps, measured with Nix 2.3.7, 2.26.3 and 2.34.8
//!
//! * **Too many unanswered requests** stop a connection for good where the far end of a login that is not root is a
//!   `nix-daemon --stdio` of Nix up to 2.19: it copies bytes in one thread, both ways, and waits for room in one direction while
//!   the daemon behind it waits for room in the other. 512 NarFromPath did, 256 never; [`SAFE_WINDOW`] is far from both. The
//!   version does not tell: an old program may stand in front of a newer daemon. [`Daemon::release`] is that of the daemon then.
//! * **The sending side stays open until the last answer was read.** A daemon that sees its input end drops the answers that are
//!   outstanding.
//! * **Somebody always reads.** A daemon whose answers nobody reads stops reading requests: after [`UNREAD_REQUESTS`] bytes of
//!   them on a pipe.
//! * **AddMultipleToStore answers nothing until its end**, and breaks before Nix 2.18 over a path that is valid already.
//!   AddToStoreNar, sent ahead for each path, answers at once, costs no more time, and a refusal costs the other paths nothing.
//! * **AddSignatures of a path that is not valid** crashes the daemon's process: see [`Request::AddSignatures`].
//! * **NarFromPath of a path that is not valid** ends the connection, with all that was asked behind it. Keep each path with
//!   AddTempRoot when asking for its metadata.
//! * **A NAR pushed to a daemon of 1.21** (Nix 2.1 to 2.3) that does not want it breaks the conversation: see
//!   [`NarForm::Pushed`].
//! * **Texts that are no signatures** end the connection from Nix 2.34 on; [`ncc_store::Signature`] cannot hold any.
//!
//! After most refusals the connection can be used further. Not when the request itself could not be read or was unknown, nor for
//! NarFromPath, nor for signatures as above: then the daemon sends the error once or twice and ends. The second one looks like a
//! refusal of the next request; what comes behind it is [`ProtocolError::UnexpectedEnd`](crate::ProtocolError::UnexpectedEnd). So whoever
//! finds the connection ended behind a refusal knows nothing of the requests since then, the last refused one included.

mod answer;
mod derived;
mod greeting;
mod log;
mod nar;
mod options;
mod request;
mod version;

pub use answer::{Answer, Answers, Missing};
pub use derived::{DerivedPath, OutputId, Realisation};
pub use greeting::{
    CLIENT_MAGIC, SERVER_MAGIC, client_greeting, put_client_settings, read_daemon, read_server_greeting,
};
pub use log::{
    Activity, ActivityKind, AnswerError, DaemonError, FIELD_LIMIT, Field, KEPT_TEXT, KEPT_TRACES, LogMessage,
    MESSAGE_LIMIT, Refusal, ResultKind, TRACE_LIMIT,
};
pub use nar::{NarForm, NarReader, NarWriter, put_count, put_path_info};
pub use options::ClientOptions;
pub use request::{AddOptions, Request};
pub use version::{Daemon, Feature, Trust, Version};

/// How many requests may be unanswered wherever the far end may be a `nix-daemon --stdio` of Nix up to 2.19 under a login that is not
/// root.
pub const SAFE_WINDOW: usize = 64;

/// How many bytes of requests a daemon takes, over a pipe, while nobody reads its answers. Over ssh and sockets it is more.
pub const UNREAD_REQUESTS: usize = 98_304;
