//! What a store can do for a copy: give closures and NARs ([`Source`]), or take them ([`Destination`]).
//!
//! Both take *everything at once*, so that each kind of store can pipeline in its own way. Futures and streams are
//! those of `futures-core`: which runtime drives them is the implementation's business.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use futures_core::{future::BoxFuture, stream::BoxStream};

use crate::{PathInfo, StoreDir, StoreError, StorePath};

/// The bytes of one NAR, in blocks.
///
/// An `Err` ends it. Dropping it early is allowed and tells the source that nobody wants the rest.
pub type NarBody = BoxStream<'static, Result<Bytes, StoreError>>;

/// One object on its way.
pub struct Nar {
    /// What the source recorded about it.
    pub info: Arc<PathInfo>,
    /// Its NAR: `info.nar_size` bytes if all is well.
    pub body: NarBody,
}

impl std::fmt::Debug for Nar {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Nar").field("path", &self.info.path).finish_non_exhaustive()
    }
}

/// A sequence of objects, references before their referrers.
///
/// A source may hold back the next [`Nar`] until the body of the one before is finished or dropped. Whoever wants to
/// look ahead must therefore go on reading the body meanwhile.
pub type NarStream = BoxStream<'static, Result<Nar, StoreError>>;

/// Which paths belong to a closure besides the references.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outputs {
    /// References only.
    #[default]
    Exclude,
    /// Also the valid outputs of every derivation in the closure, and their references.
    Include,
}

/// What to do about paths besides saying whether they are valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ValidityQuery {
    /// Protect every path asked for, valid or not, from the garbage collector while this store stays open.
    pub lock: bool,
    /// First try to substitute those that are missing.
    pub substitute: bool,
}

impl ValidityQuery {
    /// Protect the paths that are asked for.
    #[must_use]
    pub const fn locking(mut self) -> Self {
        self.lock = true;
        self
    }

    /// Substitute what is missing first, or not.
    #[must_use]
    pub const fn substituting(mut self, substitute: bool) -> Self {
        self.substitute = substitute;
        self
    }
}

/// What became of one object.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The destination answered that the path is valid now.
    Added(StorePath),
    /// It was valid already, nothing was changed.
    AlreadyValid(StorePath),
    /// This one path could not be added; others still can.
    Failed {
        /// The path.
        path: StorePath,
        /// Why.
        error: StoreError,
    },
}

/// A store that objects are copied from.
pub trait Source: Send + Sync {
    /// How messages call it: "host alice@example.org", "the store in /mnt".
    fn name(&self) -> &str;

    /// Its logical store directory.
    fn store_dir(&self) -> &StoreDir;

    /// Everything that `roots` refer to, themselves included, each path once, in ascending order.
    ///
    /// # Errors
    /// [`StoreError::NotValid`] if a root, or something it refers to, is not valid.
    fn closure<'a>(
        &'a self,
        roots: &'a [StorePath],
        outputs: Outputs,
    ) -> BoxFuture<'a, Result<Vec<PathInfo>, StoreError>>;

    /// The metadata of those of `paths` that are valid, in ascending order; the others are left out.
    fn path_infos<'a>(&'a self, paths: &'a [StorePath]) -> BoxFuture<'a, Result<Vec<PathInfo>, StoreError>>;

    /// The NARs of `paths`, in this order. The content is not yet checked against `nar_hash`.
    fn nars(&self, paths: Vec<Arc<PathInfo>>) -> NarStream;
}

/// A store that objects are copied to.
pub trait Destination: Send + Sync {
    /// How messages call it.
    fn name(&self) -> &str;

    /// Its logical store directory.
    fn store_dir(&self) -> &StoreDir;

    /// Which of `paths` are valid, after doing what `query` says. Never answered from a cache.
    fn valid_paths<'a>(
        &'a self,
        paths: &'a [StorePath],
        query: ValidityQuery,
    ) -> BoxFuture<'a, Result<BTreeSet<StorePath>, StoreError>>;

    /// Which of `paths`, none of which is valid, it would find in its substituters, if it was asked to substitute. Nothing is
    /// substituted. `None` where it cannot tell, which is what a destination says that does not implement this.
    ///
    /// A path is named also if something that it refers to is not found, so that it could not be substituted after all.
    fn substitutable<'a>(
        &'a self,
        paths: &'a [StorePath],
    ) -> BoxFuture<'a, Result<Option<BTreeSet<StorePath>>, StoreError>> {
        let _ = paths;
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Adds a whole sequence. Outcomes come in the order of `nars`, each once the path is registered there.
    ///
    /// An `Err` in the stream of outcomes ends it: every path whose outcome came before is safe, no later one is.
    /// An object that fails before the first block of its body is out affects no other object.
    fn add_many(&self, nars: NarStream) -> BoxStream<'static, Result<Outcome, StoreError>>;
}
