//! A Nix store behind a transport: [`RemoteStore`] is a source and a destination for copies.
//!
//! It speaks the serve protocol to an unmodified `nix-store --serve --write` (2.3.7 to today's), or a daemon's where that is what
//! there is ([`Spoken`]), and never waits for one path before it sends the next:
//!
//! * destination: one question for all paths, then AddToStoreNar behind AddToStoreNar while a task of its own counts
//!   the answers; two round trips and a third for the last check;
//! * source: the closure, then all metadata and the protection from the garbage collector at once, then all NARs;
//!   three round trips.
//!
//! The README has an example.

mod closure;
mod daemon;
mod destination;
mod error;
mod foresight;
mod handing;
mod options;
mod pool;
mod requisites;
mod root;
mod route;
mod run;
mod session;
mod silence;
mod source;
mod store;
#[cfg(feature = "test-util")]
pub mod test_util;
mod wire;

pub use daemon::{DaemonOptions, DaemonStore};
pub use error::RemoteError;
pub use options::{Elevation, RemoteAccess, STALL_TIMEOUT, ServeOptions, ServeProgram, Spoken};
pub use root::{NewRoot, RootError, RootMaker};
pub use store::RemoteStore;
pub use wire::{Compress, CompressError, Connections, ConnectionsError};

/// The example in README.md is compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
