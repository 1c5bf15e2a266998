//! The protocols of Nix that copy closures, over any duplex byte stream.
//!
//! * [`wire`]: integers, strings, paths and sets as both protocols write them.
//! * [`serve`], that of `nix-store --serve [--write]`: the greeting, requests and replies, and [`serve::Server`], which answers
//!   for any store.
//! * [`worker`], that of `nix-daemon`: the handshake, requests and answers, the client's half.
//!
//! One implementation of each format serves both ends. Writing is plain code on a `Vec<u8>`; reading is async over
//! `tokio::io::AsyncRead`, which a slice of bytes implements too, so a capture in memory is read the same way:
//!
//! ```
//! use ncc_protocol::{serve::Request, wire::WireReader};
//! use ncc_store::StoreDir;
//!
//! # futures_util::FutureExt::now_or_never(async {
//! let store_dir = StoreDir::default();
//! let path = store_dir.parse("/nix/store/nlhn6cma43vk5l44cgr8sw3ykiir1wmm-hi")?;
//! let mut bytes = Vec::new();
//! Request::DumpStorePath { path }.encode(&store_dir, &mut bytes);
//! assert_eq!(bytes.len(), 8 + 8 + 48);
//!
//! let mut reader = WireReader::new(&bytes[..]);
//! let request = Request::read(&mut reader, &store_dir).await?;
//! assert!(matches!(request, Some(Request::DumpStorePath { .. })));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).expect("a slice never waits")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Nothing here knows SSH, processes or scheduling. Bytes from a peer are bounded before they are stored and checked
//! before they are used.

// A peer's bytes never panic.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::arithmetic_side_effects
    )
)]

mod error;
mod path_info;
pub mod serve;
pub mod wire;
pub mod worker;

pub use error::ProtocolError;

/// The example in README.md is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
