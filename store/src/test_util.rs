//! A store in memory, for tests: [`MemoryStore`] is a [`Source`](crate::Source) and a
//! [`Destination`](crate::Destination) that keeps the rules of a Nix store and breaks them on request.
//!
//! ```
//! use futures_util::{FutureExt as _, StreamExt as _};
//! use ncc_store::{Destination as _, OnFailure, Source as _, test_util::MemoryStore};
//!
//! let from = MemoryStore::new("the old machine");
//! let library = from.add("library", "code", &[]);
//! let program = from.add("program", "more code", &[library]);
//!
//! let to = MemoryStore::new("the new machine");
//! let plan = from.infos(&from.paths());
//! let outcomes = to.add_all(plan.clone(), from.nars(plan), OnFailure::Stop).collect::<Vec<_>>().now_or_never().expect("memory is always ready");
//! assert!(outcomes.iter().all(Result::is_ok));
//! assert_eq!(to.info(&program), from.info(&program));
//! ```

// What panics here is a test that was set up wrongly.
#![allow(clippy::expect_used, clippy::panic, reason = "fixtures fail loudly")]

pub mod conformance;
mod destination;
mod fixtures;
mod nar;
mod script;
mod source;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

pub use self::{
    nar::{file_content, file_nar},
    script::{Script, script, script_of_bodies},
};
use crate::{
    DerivationError, ModuloCache, NarAccess, NarPlan, Outputs, OutputsError, PathInfo, Problem, PublicKey,
    Side, StoreDir, StoreError, StorePath, ValidityQuery,
};

/// What a path that arrives without a registration time gets, so that results can be compared.
pub const REGISTRATION_TIME: i64 = 1_700_000_000;

/// Size of the blocks that NARs are handed out in, unless told otherwise: small, so that NARs have several.
const BLOCK_SIZE: usize = 64;

/// A Nix store in memory. Clones are the same store.
///
/// As a [`Source`](crate::Source) it hands out the next NAR only when the body of the one before is finished or dropped, unless
/// [`with_access`](Self::with_access) says otherwise: whoever relies on more waits forever here. As a [`Destination`](crate::Destination) it refuses what a Nix server refuses, and then ends the
/// stream of outcomes as such a server ends the connection.
#[derive(Clone)]
pub struct MemoryStore {
    name: Arc<str>,
    store_dir: StoreDir,
    block_size: usize,
    access: NarAccess,
    /// The keys that it trusts, if it does not trust its user.
    trusted_keys: Option<Arc<[PublicKey]>>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    valid: BTreeMap<StorePath, Object>,
    substitutable: BTreeMap<StorePath, Object>,
    /// What Nix keeps in the table `DerivationOutputs`.
    outputs: BTreeMap<StorePath, BTreeSet<StorePath>>,
    /// Hashes of the derivations that were checked.
    hashes: Option<ModuloCache>,
    faults: Vec<Fault>,
    calls: Vec<Call>,
    adds: usize,
}

/// A path with its content.
#[derive(Clone, Debug)]
struct Object {
    info: PathInfo,
    nar: Bytes,
}

/// A question that was put to a [`MemoryStore`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Call {
    /// [`Source::closure`](crate::Source::closure).
    Closure {
        /// What it was asked for.
        roots: Vec<StorePath>,
        /// With outputs of derivations or without.
        outputs: Outputs,
    },
    /// [`Source::path_infos`](crate::Source::path_infos).
    PathInfos {
        /// In the order asked for.
        paths: Vec<StorePath>,
    },
    /// [`Source::nars`](crate::Source::nars).
    Nars {
        /// In the order asked for.
        paths: Vec<StorePath>,
    },
    /// [`Destination::valid_paths`](crate::Destination::valid_paths).
    ValidPaths {
        /// In the order asked for.
        paths: Vec<StorePath>,
        /// Whether to lock and to substitute.
        query: ValidityQuery,
    },
    /// [`Destination::add_all`](crate::Destination::add_all).
    AddAll,
}

/// Something to go wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The source gives this path's NAR with one byte changed.
    CorruptContent(StorePath),
    /// The source gives only so many bytes of this path's NAR, without an error.
    TruncateContent(StorePath, usize),
    /// The source gives so many bytes more than this path's NAR has.
    ExtendContent(StorePath, usize),
    /// The source fails after so many bytes of this path's NAR, and with this path alone.
    FailReading(StorePath, usize),
    /// The connection to the source breaks after so many bytes of this path's NAR, once.
    LoseConnection(StorePath, usize),
    /// The destination cannot add this path; others it can.
    RefusePath(StorePath),
    /// The destination says that it added this path and does not.
    ForgetPath(StorePath),
    /// The connection to the destination breaks once it has added so many paths, counted over its whole life.
    FailAfterAdds(usize),
}

/// Why a [`MemoryStore`] refuses an object, as a Nix server would.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// `nar_size` is 0.
    #[error("the announced size is 0")]
    NoSize,
    /// The body has another length than was announced.
    #[error("the NAR has {actual} bytes, announced were {expected}")]
    Size {
        /// Announced bytes.
        expected: u64,
        /// Bytes that came.
        actual: u64,
    },
    /// The body has another hash than was announced.
    #[error("hash mismatch importing the path")]
    Hash,
    /// The content address does not give the path.
    #[error("the path claims to be content-addressed but is not")]
    ContentAddress,
    /// The content is not what the content address says.
    #[error("content address mismatch importing the path")]
    ContentAddressHash,
    /// The name ends in `.drv`, the content is something else.
    #[error("error parsing derivation")]
    Derivation(#[source] DerivationError),
    /// The name ends in `.drv`, but there is no regular file.
    #[error("the derivation is not a regular file")]
    DerivationFile,
    /// A derivation has outputs that it cannot have.
    #[error("the derivation is wrong")]
    DerivationOutputs(#[source] Box<OutputsError>),
    /// A reference is not valid.
    #[error("reference '{0}' is not valid")]
    Reference(StorePath),
    /// A [`Fault`] says so.
    #[error("it was told to fail here")]
    Injected,
}

impl MemoryStore {
    /// An empty store for `/nix/store`. Messages will call it `name`.
    pub fn new(name: &str) -> Self {
        Self::in_store_dir(name, StoreDir::default())
    }

    /// An empty store with another logical store directory.
    pub fn in_store_dir(name: &str, store_dir: StoreDir) -> Self {
        Self {
            name: name.into(),
            store_dir,
            block_size: BLOCK_SIZE,
            access: NarAccess::Sequential,
            trusted_keys: None,
            state: Arc::default(),
        }
    }

    /// The same store, handing out NARs in blocks of `bytes` (at least 1).
    #[must_use]
    pub fn with_block_size(mut self, bytes: usize) -> Self {
        self.block_size = bytes.max(1);
        self
    }

    /// The same store, whose NARs can be opened as `access` says.
    #[must_use]
    pub fn with_access(mut self, access: NarAccess) -> Self {
        self.access = access;
        self
    }

    /// The same store, for a user whom it does not trust: it takes what is content-addressed or signed by one of `keys`.
    #[must_use]
    pub fn trusting_only(mut self, keys: impl IntoIterator<Item = PublicKey>) -> Self {
        self.trusted_keys = Some(keys.into_iter().collect());
        self
    }

    /// What is recorded about `path`, if it is valid.
    pub fn info(&self, path: &StorePath) -> Option<PathInfo> {
        self.state().valid.get(path).map(|object| object.info.clone())
    }

    /// The NAR of `path`, if it is valid.
    pub fn nar(&self, path: &StorePath) -> Option<Bytes> {
        self.state().valid.get(path).map(|object| object.nar.clone())
    }

    /// All valid paths, ascending.
    pub fn paths(&self) -> Vec<StorePath> {
        self.state().valid.keys().cloned().collect()
    }

    /// What is recorded about `paths`, as [`Source::nars`](crate::Source::nars) takes it: each path after its
    /// references, otherwise in the order given.
    ///
    /// # Panics
    /// If one of them is not valid.
    pub fn infos(&self, paths: &[StorePath]) -> NarPlan {
        let state = self.state();
        let mut wanted: BTreeSet<&StorePath> = paths.iter().collect();
        let mut sorted = Vec::with_capacity(wanted.len());
        let mut stack: Vec<(&StorePath, bool)> = paths.iter().rev().map(|path| (path, false)).collect();
        while let Some((path, references_done)) = stack.pop() {
            let object = state.valid.get(path).unwrap_or_else(|| panic!("'{path}' is not valid"));
            if references_done {
                sorted.push(Arc::new(object.info.clone()));
            } else if wanted.remove(path) {
                stack.push((path, true));
                stack.extend(
                    object.info.other_references().filter(|r| wanted.contains(r)).map(|r| (r, false)),
                );
            }
        }
        sorted.into()
    }

    /// Every question so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// Forgets what [`MemoryStore::calls`] tells.
    pub fn forget_calls(&self) {
        self.state().calls.clear();
    }

    /// Lets something go wrong from now on.
    pub fn inject(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Lets nothing more go wrong.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// Makes `paths`, which are valid in `cache`, substitutable here.
    ///
    /// # Panics
    /// If one of them is not valid in `cache`.
    pub fn offer_substitutes(&self, cache: &Self, paths: &[StorePath]) {
        let objects: Vec<_> = {
            let state = cache.state();
            let find =
                |path| state.valid.get(path).unwrap_or_else(|| panic!("'{path}' is not valid")).clone();
            paths.iter().map(find).collect()
        };
        let mut state = self.state();
        state.substitutable.extend(objects.into_iter().map(|object| (object.info.path.clone(), object)));
    }

    /// Deletes a path as a garbage collector does, only without asking who refers to it.
    pub fn delete(&self, path: &StorePath) {
        let mut state = self.state();
        state.valid.remove(path);
        state.outputs.remove(path);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn not_valid(&self, side: Side, path: &StorePath) -> StoreError {
        let problem = Problem::NotValid { path: self.store_dir.full(path) };
        StoreError::new(side, Arc::clone(&self.name), problem)
    }

    fn refuse(&self, path: &StorePath, refusal: Refusal) -> StoreError {
        let problem = Problem::Path { action: "add", path: path.clone(), source: Box::new(refusal) };
        StoreError::new(Side::Destination, Arc::clone(&self.name), problem)
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("MemoryStore").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
