//! The vocabulary of Nix stores, without any input or output.
//!
//! * Names: [`StoreDir`], [`StorePath`], [`StorePathSet`].
//! * Hashes: [`struct@Hash`], [`NarHash`], [`ContentAddress`].
//! * Metadata: [`PathInfo`], [`Signature`] and the keys behind it.
//! * Messages: [`Escaped`] shows text that comes from somewhere else.
//! * Recipes: [`Derivation`], the content of `.drv` files, and the check of its output paths.
//! * What a store can do: [`Source`] and [`Destination`], which a copy connects.
//!
//! ```
//! use ncc_store::{NarHash, PathInfo, StoreDir};
//!
//! let store_dir = StoreDir::default();
//! let path = store_dir.parse("/nix/store/nlhn6cma43vk5l44cgr8sw3ykiir1wmm-hi")?;
//! let hash = NarHash::parse("sha256-IlLUt4yU6Mes5OMxe3i9/mS8jjlwpk620vfCpEPAw/w=")?;
//! let info = PathInfo::new(path, hash, 120);
//! assert_eq!(info.path.name(), "hi");
//! assert!(info.fingerprint(&store_dir).starts_with("1;/nix/store/nlhn"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Features, of which all but the last two are on by default: `derivations` (`.drv` files), `hashing` (md5, sha1 and
//! sha512), `signing` (the keys that make and check signatures), `traits` ([`Source`] and [`Destination`]); `serde` (the
//! JSON of Nix), `test-util` (an in-memory store for tests). Without any, a [`StorePath`] costs two small dependencies more
//! than sha2.

// What is parsed here may come from a peer or from a damaged database: no panics.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

mod base64;
#[cfg(feature = "traits")]
mod capability;
mod content_address;
#[cfg(feature = "derivations")]
mod derivation;
mod error;
mod escape;
mod hash;
#[cfg(feature = "hashing")]
mod hasher;
#[cfg(feature = "serde")]
mod json;
#[cfg(feature = "signing")]
mod keys;
#[cfg(feature = "traits")]
mod nar_body;
#[cfg(feature = "traits")]
mod nar_sequence;
pub mod nix32;
mod path_info;
mod path_set;
mod signature;
mod store_path;
#[cfg(feature = "test-util")]
pub mod test_util;

#[cfg(feature = "traits")]
pub use capability::{
    Closure, Destination, Members, NarAccess, NarPlan, NarSource, OnFailure, Outcome, Outcomes, Outputs,
    Source, Takes, ValidityQuery,
};
pub use content_address::{ContentAddress, ContentAddressError, ContentMethod, make_store_path};
#[cfg(feature = "derivations")]
pub use derivation::{
    Derivation, DerivationError, DerivationOutput, ModuloCache, OutputsError, WantedOutputs,
};
pub use error::{Cause, Problem, Retry, Scope, Side, StoreError};
pub use escape::Escaped;
pub use hash::{Hash, HashAlgorithm, HashError, NarHash, NarHasher};
#[cfg(feature = "hashing")]
pub use hasher::Hasher;
#[cfg(feature = "serde")]
pub use json::PathInfos;
#[cfg(feature = "signing")]
pub use keys::{PublicKey, SecretKey};
#[cfg(feature = "traits")]
pub use nar_body::NarBody;
#[cfg(feature = "traits")]
pub use nar_sequence::{Nar, NarStream, PlanQueue, sequential_nars};
pub use path_info::PathInfo;
pub use path_set::StorePathSet;
pub use signature::{Signature, SignatureError};
pub use store_path::{FullPath, StoreDir, StorePath, StorePathError};

/// The example in README.md is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
