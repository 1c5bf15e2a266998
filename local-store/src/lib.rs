//! A Nix store on this disk: database, locks, temporary roots, canonical files, registration.
//!
//! Works beside Nix 2.3 to 2.36 in the same store, and without any Nix. [`LocalStoreConfig`] says where a store lies,
//! [`LocalStore`] is an open one, and it is a [`Source`](ncc_store::Source) and a
//! [`Destination`](ncc_store::Destination) of copies.
//!
//! ```
//! use ncc_local_store::{Access, LocalStore, LocalStoreConfig};
//! use ncc_store::Outputs;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let root = directory.path().canonicalize()?;
//! let store = LocalStore::open(LocalStoreConfig::chroot(&root), Access::ReadWrite)?;
//! # let file = root.join("greeting");
//! std::fs::write(&file, "hello")?;
//! let greeting = store.add_tree("greeting", &file, [])?;
//!
//! let closure = store.query_closure(&[greeting.path.clone()], Outputs::Exclude)?;
//! assert_eq!(closure, [greeting.clone()]);
//! assert_eq!(std::fs::read(store.real_path(&greeting.path))?, b"hello");
//! # Ok(())
//! # }
//! ```
//!
//! # What it does as Nix does
//!
//! Schema and settings of the database, path locks, temporary roots (the collectors of all these versions are told what
//! a process needs), the order of registration, canonical files, `auto-optimise-store` ([`Optimise`]), and writing to a
//! store that is mounted read-only, as on NixOS ([`LocalStore::open`]).
//!
//! # What it leaves out
//!
//! * Substitution, building, garbage collection (so that `min-free` has no effect), migration of old schemas.
//! * `preallocate-contents`: files grow as they are written.
//! * Keeping `-wal` and `-shm` after the last close, as Nix does since 2.23. Readers without rights cope.
//!
//! # What it does to the process
//!
//! * The database file of each store that was opened stays open once until the process ends, since closing it would end
//!   the locks of every other SQLite connection of the process on that database.
//! * Temporary roots last as long as any store in the same state directory is open.
//! * The traits work on blocking threads of the tokio runtime they are polled in. All other methods block.

// What is in a database or comes from a peer must never be a reason to panic.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

mod adder;
mod capability;
mod channel;
mod closure;
mod config;
mod content;
mod database;
mod derivation;
mod directory;
mod error;
mod header;
mod import;
mod layout;
mod mount;
mod nars;
mod optimise;
mod owners;
mod path_lock;
mod query;
mod reader;
mod registration;
mod store;
mod temp_roots;
mod writer;

pub use closure::PathInfos;
pub use config::{
    Access, DatabaseSync, Defaults, Durability, Journal, LocalStoreConfig, Medium, Optimise, Symlinks,
};
pub use error::{ForeignReason, LocalStoreError};
/// How names that differ in case only are kept, which [`LocalStoreConfig`] says.
pub use ncc_nar::CaseHack;
pub use store::{Added, LocalStore};

/// Compiles and runs the example in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
