//! What a store can do for a copy: give closures and NARs ([`Source`]), or take them ([`Destination`]).
//!
//! Both are told everything at once, so that each kind of store can work ahead in its own way. The destination sets
//! the pace: it has the whole plan, and *pulls* the NARs it needs through a [`NarSource`]. Futures and streams are
//! those of `futures-core`: which runtime drives them is the implementation's business.
//!
//! Dropping a future, a stream or a body ends the work behind it in bounded time.

use std::{collections::BTreeSet, sync::Arc};

use futures_core::{future::BoxFuture, stream::BoxStream};

use crate::{NarBody, PathInfo, Problem, Side, StoreDir, StoreError, StorePath, StorePathSet};

/// Paths to copy, references before their referrers, each with its size.
pub type NarPlan = Arc<[Arc<PathInfo>]>;

/// Which paths a destination takes from this user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Takes {
    /// Nobody can tell before it is tried.
    #[default]
    Unknown,
    /// All: the user may write the store, or is trusted by whoever does.
    Anything,
    /// Those that are content-addressed, and those with a signature by a key that it trusts. Which keys these are is not known
    /// here.
    Signed,
}

/// What becomes of the objects of a plan, as it happens.
pub type Outcomes = BoxStream<'static, Result<Outcome, StoreError>>;

/// Which paths belong to a closure besides the references.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outputs {
    /// References only.
    #[default]
    Exclude,
    /// Also the valid outputs of every derivation in the closure, and their references.
    Include,
}

/// What to do when one path cannot be copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// Start no further path.
    #[default]
    Stop,
    /// Copy everything that does not refer to it.
    Continue,
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

/// Everything that some roots refer to, directly or not.
#[derive(Debug, Default)]
pub struct Closure {
    /// Each path once, in ascending order, the roots included.
    pub infos: Vec<PathInfo>,
    /// Paths, roots among them, that are not valid or cannot be described, each with the reason. What refers to them
    /// is in [`infos`](Self::infos) all the same.
    pub failed: Vec<(StorePath, StoreError)>,
}

impl Closure {
    /// The paths, if nothing failed.
    ///
    /// # Errors
    /// The first failure.
    pub fn complete(self) -> Result<Vec<PathInfo>, StoreError> {
        match self.failed.into_iter().next() {
            None => Ok(self.infos),
            Some((_, error)) => Err(error),
        }
    }
}

impl From<Vec<PathInfo>> for Closure {
    fn from(infos: Vec<PathInfo>) -> Self {
        Self { infos, failed: Vec::new() }
    }
}

/// Which paths belong to a closure.
#[derive(Debug)]
pub enum Members {
    /// The source had their metadata at once.
    Described(Closure),
    /// Their metadata is another question: [`Source::describe`].
    Named {
        /// Each path once, the roots included.
        paths: StorePathSet,
        /// As [`Closure::failed`].
        failed: Vec<(StorePath, StoreError)>,
    },
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
        /// Why: [`Scope::Path`](crate::Scope::Path).
        error: StoreError,
    },
}

/// A store that objects are copied from.
pub trait Source: Send + Sync {
    /// How messages call it: "host 'alice@example.org'", "the store in /mnt".
    fn name(&self) -> &str;

    /// Its logical store directory.
    fn store_dir(&self) -> &StoreDir;

    /// Whether it answers questions at once, without a connection that has to be made first.
    fn is_at_hand(&self) -> bool {
        false
    }

    /// Everything that `roots` refer to.
    ///
    /// One bad path does not stop the others: it is listed in [`Closure::failed`]. `Err` is for what leaves nothing to
    /// say about any path.
    fn closure<'a>(
        &'a self,
        roots: &'a [StorePath],
        outputs: Outputs,
    ) -> BoxFuture<'a, Result<Closure, StoreError>>;

    /// Which paths `roots` refer to, for whoever may not want the metadata of all: a source that is far away gives their names
    /// alone. As with [`closure`](Self::closure), one bad path does not stop the others.
    fn members<'a>(
        &'a self,
        roots: &'a [StorePath],
        outputs: Outputs,
    ) -> BoxFuture<'a, Result<Members, StoreError>> {
        Box::pin(async move { self.closure(roots, outputs).await.map(Members::Described) })
    }

    /// The metadata of some of the paths that [`members`](Self::members) has named. A source that protects what it gives from its
    /// garbage collector protects these before it describes them.
    fn describe<'a>(&'a self, paths: &'a [StorePath]) -> BoxFuture<'a, Result<Closure, StoreError>> {
        Box::pin(async move {
            let infos = self.path_infos(paths).await?;
            let known: BTreeSet<&StorePath> = infos.iter().map(|info| &info.path).collect();
            let unknown = paths.iter().filter(|path| !known.contains(path));
            let error = |path: &StorePath| {
                let problem = Problem::NotValid { path: self.store_dir().full(path) };
                (path.clone(), StoreError::new(Side::Source, self.name(), problem))
            };
            let failed = unknown.map(error).collect();
            Ok(Closure { infos, failed })
        })
    }

    /// The metadata of those of `paths` that are valid, in ascending order; the others are left out.
    fn path_infos<'a>(&'a self, paths: &'a [StorePath]) -> BoxFuture<'a, Result<Vec<PathInfo>, StoreError>>;

    /// The NARs of `plan`, to be pulled. A source that has to ask for them ahead learns here what will be wanted, and
    /// in which order.
    fn nars(&self, plan: NarPlan) -> Arc<dyn NarSource>;
}

/// In which order the NARs of a plan can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NarAccess {
    /// In the order of the plan, one at a time, each once: opening one passes over all before it, and waits until the
    /// body before is finished or dropped. Bytes in front of an offset are read and passed over.
    Sequential,
    /// In any order, from any offset, as often as needed, so many at once.
    Random {
        /// How many bodies may be open at the same time.
        at_once: usize,
    },
}

/// The NARs of one plan.
pub trait NarSource: Send + Sync {
    /// The name of the store that they come from.
    fn store(&self) -> &str;

    /// What may be opened when.
    fn access(&self) -> NarAccess;

    /// The NAR of one path of the plan, from byte `offset` on. Unless [`NarBody::is_verified`] says so, nobody has
    /// compared it with `info.nar_hash` yet.
    ///
    /// The future is lazy: nothing is read before it is polled.
    fn open(&self, info: &Arc<PathInfo>, offset: u64) -> BoxFuture<'static, Result<NarBody, StoreError>>;
}

/// A store that objects are copied to.
pub trait Destination: Send + Sync {
    /// How messages call it.
    fn name(&self) -> &str;

    /// Its logical store directory.
    fn store_dir(&self) -> &StoreDir;

    /// Whether it answers questions at once, without a connection that has to be made first.
    fn is_at_hand(&self) -> bool {
        false
    }

    /// Which of `paths` are valid, after doing what `query` says. Never answered from a cache.
    ///
    /// Questions may be put while others wait for their answers.
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

    /// Which paths it takes from this user. Asked after [`valid_paths`](Self::valid_paths), so that there is a connection where one
    /// is needed.
    fn takes(&self) -> BoxFuture<'_, Result<Takes, StoreError>> {
        Box::pin(std::future::ready(Ok(Takes::Unknown)))
    }

    /// How many bytes there is room for, where that can be told cheaply.
    fn free_space(&self) -> BoxFuture<'_, Result<Option<u64>, StoreError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Adds the paths of `plan`, pulling their NARs from `nars`.
    ///
    /// Outcomes come in any order, each once the path is registered. A path that refers to one that failed is passed
    /// over without an outcome, and so is everything not yet begun once a path has failed with [`OnFailure::Stop`].
    ///
    /// The destination verifies each NAR ([`NarBody::verified`], or its own way of hashing what it writes) before the
    /// path can become valid. A failure of a body that is about its path alone fails that path; where the destination can take
    /// nothing more after it, and where the failure reaches further, it ends the stream as it is.
    ///
    /// An `Err` ends the stream: every path whose outcome came before is safe. Others may have been registered, which
    /// only asking again can tell.
    fn add_all(&self, plan: NarPlan, nars: Arc<dyn NarSource>, on_failure: OnFailure) -> Outcomes;
}
