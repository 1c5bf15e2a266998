//! The store itself: what needs no runtime.

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use ncc_nar::{PackOptions, pack, size_of};
use ncc_store::{Derivation, Outputs, PathInfo, Problem, Side, StoreDir, StoreError, StorePath};

use crate::{
    Access, LocalStoreConfig, LocalStoreError, Medium, PathInfos,
    closure::closure,
    database::{Cancelled, Database},
    derivation::{self, Derivations},
    directory::Directory,
    layout::{self, Layout},
    path_lock::PathLock,
    query::Query,
    temp_roots::TempRoots,
    writer::{Begun, Done, Incoming, Writer},
};

/// Bytes that are read at once from a body.
const BODY_BLOCK: usize = 128 << 10;

/// A Nix store on this disk. Clones are the same open store.
///
/// All methods here block the thread; the traits [`Source`](ncc_store::Source) and
/// [`Destination`](ncc_store::Destination) do the same work on threads of a tokio runtime.
#[derive(Clone, Debug)]
pub struct LocalStore {
    shared: Arc<Shared>,
    /// Where what is read as a source is protected from the garbage collector.
    reading: Option<Arc<TempRoots>>,
}

#[derive(Debug)]
struct Shared {
    config: LocalStoreConfig,
    database: Database,
    /// Only of a store that may be written to.
    writing: Option<Writing>,
}

#[derive(Debug)]
struct Writing {
    layout: Layout,
    temp_roots: Arc<TempRoots>,
    derivations: Derivations,
}

/// What adding a path came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is valid now.
    New,
    /// It was valid before; nothing was changed, the bytes were not looked at.
    AlreadyValid,
}

impl LocalStore {
    /// Opens the store in `config`. With [`Access::ReadWrite`] one is made if there is none.
    ///
    /// A store directory that is mounted read-only, as on NixOS, is opened for writing through a mount that only this
    /// store has, if the process has the rights to do so (`CAP_SYS_ADMIN`); nothing changes for other processes, its
    /// own children included.
    ///
    /// # Errors
    /// [`LocalStoreError::NoStore`] if there is nothing to read, [`LocalStoreError::Schema`] if it is of another
    /// age, [`LocalStoreError::ReadOnlyMount`], [`LocalStoreError::ForeignDirectory`] where root would write by way of
    /// directories of others, [`LocalStoreError::Io`] and [`LocalStoreError::Database`] where this user may not do
    /// what is needed.
    pub fn open(config: LocalStoreConfig, access: Access) -> Result<Self, LocalStoreError> {
        let writing = match access {
            Access::ReadWrite if config.medium == Medium::ReadOnly => {
                return Err(LocalStoreError::ReadOnlyStore { path: config.real_store_dir });
            }
            Access::ReadWrite => {
                let layout = layout::prepare(&config)?;
                Some(Writing {
                    temp_roots: TempRoots::open(&config.state_dir, &config.store_dir)?,
                    derivations: Derivations::new(&config.store_dir),
                    layout,
                })
            }
            Access::ReadOnly => {
                layout::check(&config)?;
                None
            }
        };
        let database = Database::open(&config, access)?;
        Ok(Self { shared: Arc::new(Shared { config, database, writing }), reading: None })
    }

    /// The same store, which as a [`Source`](ncc_store::Source) protects from the garbage collector every closure that it is
    /// asked for, for as long as this process has it open. Where this user may not do that it is as before, and a diagnostic
    /// says so.
    #[must_use]
    pub fn protecting(mut self) -> Self {
        if self.config().medium == Medium::Writable {
            match TempRoots::open(self.state_dir(), self.store_dir()) {
                Ok(roots) => self.reading = Some(roots),
                Err(error) => tracing::debug!(%error, "a garbage collector may take what is read"),
            }
        }
        self
    }

    /// Protects what a source is asked for, if it can.
    pub(crate) fn root_for_reading(
        &self,
        roots: &[StorePath],
        cancelled: Cancelled<'_>,
    ) -> Result<(), LocalStoreError> {
        match self.reading.as_ref().map_or(Ok(()), |reading| reading.add(roots, cancelled)) {
            Err(error @ LocalStoreError::Io { .. }) => {
                tracing::debug!(%error, "a garbage collector may take what is read");
                Ok(())
            }
            result => result,
        }
    }

    /// Where it lies.
    pub fn config(&self) -> &LocalStoreConfig {
        &self.shared.config
    }

    /// How messages call it.
    pub fn name(&self) -> &str {
        &self.config().name
    }

    /// What it was opened for.
    pub fn access(&self) -> Access {
        if self.shared.writing.is_some() { Access::ReadWrite } else { Access::ReadOnly }
    }

    /// The prefix of its path texts.
    pub fn store_dir(&self) -> &StoreDir {
        &self.config().store_dir
    }

    /// Where its objects lie.
    pub fn real_store_dir(&self) -> &Path {
        &self.config().real_store_dir
    }

    /// Where its database lies.
    pub fn state_dir(&self) -> &Path {
        &self.config().state_dir
    }

    /// Where an object lies, if it exists.
    pub fn real_path(&self, path: &StorePath) -> PathBuf {
        self.real_store_dir().join(path.base_name())
    }

    pub(crate) fn database(&self) -> &Database {
        &self.shared.database
    }

    fn query<T>(
        &self,
        action: &'static str,
        cancelled: Cancelled<'_>,
        mut query: impl FnMut(&Query<'_>) -> Result<T, LocalStoreError>,
    ) -> Result<T, LocalStoreError> {
        self.database().read(action, cancelled, |connection| {
            query(&Query::new(connection, self.database(), self.store_dir(), cancelled))
        })
    }

    /// The metadata of a path, if it is valid.
    ///
    /// # Errors
    /// [`LocalStoreError::Database`], [`LocalStoreError::BadRow`], [`LocalStoreError::LostReference`].
    pub fn query_path_info(&self, path: &StorePath) -> Result<Option<PathInfo>, LocalStoreError> {
        Ok(self.query_path_infos(std::slice::from_ref(path))?.pop())
    }

    /// The metadata of those of `paths` that are valid, in ascending order.
    ///
    /// # Errors
    /// As [`query_path_info`](Self::query_path_info), of the first path that has one.
    pub fn query_path_infos(&self, paths: &[StorePath]) -> Result<Vec<PathInfo>, LocalStoreError> {
        self.examine_paths(paths)?.complete()
    }

    /// The metadata of those of `paths` that are valid, and what is wrong with those that cannot be understood.
    ///
    /// # Errors
    /// [`LocalStoreError::Database`]: what concerns all of them.
    pub fn examine_paths(&self, paths: &[StorePath]) -> Result<PathInfos, LocalStoreError> {
        self.examine_paths_until(paths, &|| false)
    }

    pub(crate) fn examine_paths_until(
        &self,
        paths: &[StorePath],
        cancelled: Cancelled<'_>,
    ) -> Result<PathInfos, LocalStoreError> {
        let found = self.query("read path metadata", cancelled, |query| {
            let mut found = PathInfos::default();
            for path in paths {
                match query.info(path) {
                    Ok(info) => found.infos.extend(info),
                    Err(error) if error.concerns_one_row() => found.bad.push((path.clone(), error)),
                    Err(error) => return Err(error),
                }
            }
            found.sort();
            found.infos.dedup_by(|a, b| a.path == b.path);
            Ok(found)
        })?;
        self.with_sizes(found, cancelled)
    }

    /// Those of `paths` that are valid.
    ///
    /// # Errors
    /// [`LocalStoreError::Database`].
    pub fn query_valid_paths(&self, paths: &[StorePath]) -> Result<BTreeSet<StorePath>, LocalStoreError> {
        self.query_valid_paths_until(paths, &|| false)
    }

    pub(crate) fn query_valid_paths_until(
        &self,
        paths: &[StorePath],
        cancelled: Cancelled<'_>,
    ) -> Result<BTreeSet<StorePath>, LocalStoreError> {
        self.query("look up paths", cancelled, |query| {
            let mut valid = BTreeSet::new();
            for path in paths {
                if query.id(path)?.is_some() {
                    valid.insert(path.clone());
                }
            }
            Ok(valid)
        })
    }

    /// All valid paths.
    ///
    /// # Errors
    /// [`LocalStoreError::Database`], [`LocalStoreError::BadRow`].
    pub fn query_all_valid_paths(&self) -> Result<BTreeSet<StorePath>, LocalStoreError> {
        self.query("list the valid paths", &|| false, |query| query.paths(&query.all()?))
    }

    /// The valid derivations that have `path` as an output.
    ///
    /// # Errors
    /// As [`query_all_valid_paths`](Self::query_all_valid_paths).
    pub fn query_derivers(&self, path: &StorePath) -> Result<BTreeSet<StorePath>, LocalStoreError> {
        self.query("look up derivations", &|| false, |query| query.paths(&query.derivers(path)?))
    }

    /// What a valid derivation says.
    ///
    /// # Errors
    /// [`LocalStoreError::Database`], [`LocalStoreError::NotValid`], [`LocalStoreError::Derivation`] for what is none.
    pub fn derivation(&self, path: &StorePath) -> Result<Derivation, LocalStoreError> {
        if !self.is_valid(path, &|| false)? {
            return Err(LocalStoreError::NotValid { path: self.store_dir().full(path) });
        }
        derivation::read(&self.real_path(path), self.store_dir())
            .map_err(|source| LocalStoreError::Derivation { path: path.clone(), source })
    }

    pub(crate) fn is_valid(
        &self,
        path: &StorePath,
        cancelled: Cancelled<'_>,
    ) -> Result<bool, LocalStoreError> {
        self.query("look up paths", cancelled, |query| Ok(query.id(path)?.is_some()))
    }

    /// Everything that `roots` refer to, themselves included, in ascending order.
    ///
    /// # Errors
    /// [`LocalStoreError::NotValid`] for a root that is not; [`LocalStoreError::BadRow`] and
    /// [`LocalStoreError::LostReference`] for something in the closure that cannot be understood.
    pub fn query_closure(
        &self,
        roots: &[StorePath],
        outputs: Outputs,
    ) -> Result<Vec<PathInfo>, LocalStoreError> {
        self.examine_closure(roots, outputs)?.complete()
    }

    /// Everything that `roots` refer to, themselves included, and what is wrong with those that are not valid or
    /// cannot be understood.
    ///
    /// # Errors
    /// [`LocalStoreError::Database`]: what concerns all of it.
    pub fn examine_closure(
        &self,
        roots: &[StorePath],
        outputs: Outputs,
    ) -> Result<PathInfos, LocalStoreError> {
        self.examine_closure_until(roots, outputs, &|| false)
    }

    pub(crate) fn examine_closure_until(
        &self,
        roots: &[StorePath],
        outputs: Outputs,
        cancelled: Cancelled<'_>,
    ) -> Result<PathInfos, LocalStoreError> {
        let found = self.query("compute the closure", cancelled, |query| {
            closure(query, roots, outputs, |path| self.store_dir().full(path))
        })?;
        self.with_sizes(found, cancelled)
    }

    /// Fills in the sizes that ancient rows do not have.
    fn with_sizes(
        &self,
        mut found: PathInfos,
        cancelled: Cancelled<'_>,
    ) -> Result<PathInfos, LocalStoreError> {
        let bad = &mut found.bad;
        let before = bad.len();
        for info in found.infos.iter_mut().filter(|info| info.nar_size == 0) {
            let real = self.real_path(&info.path);
            if cancelled() {
                return Err(LocalStoreError::Cancelled { path: real });
            }
            match size_of(&real, &self.pack_options()) {
                Ok(size) => info.nar_size = size,
                Err(source) => bad.push((info.path.clone(), LocalStoreError::Read { path: real, source })),
            }
        }
        if bad.len() > before {
            found.infos.retain(|info| info.nar_size != 0);
            found.sort();
        }
        Ok(found)
    }

    pub(crate) fn pack_options(&self) -> PackOptions {
        let mut options = PackOptions::default();
        options.case_hack = self.config().case_hack;
        options
    }

    /// Writes the NAR of a valid path and tells how long it is. Its hash is not checked.
    ///
    /// # Errors
    /// [`LocalStoreError::NotValid`], [`LocalStoreError::Read`].
    pub fn write_nar(&self, path: &StorePath, writer: &mut impl Write) -> Result<u64, LocalStoreError> {
        if !self.is_valid(path, &|| false)? {
            return Err(LocalStoreError::NotValid { path: self.store_dir().full(path) });
        }
        let real = self.real_path(path);
        pack(&real, writer, &self.pack_options())
            .map_err(|source| LocalStoreError::Read { path: real, source })
    }

    /// Protects `paths`, valid or not, from the garbage collector for as long as this process has a store open in
    /// this state directory. Waits while an old collector runs.
    ///
    /// # Errors
    /// [`LocalStoreError::OpenedReadOnly`], [`LocalStoreError::Io`].
    pub fn add_temp_roots(&self, paths: &[StorePath]) -> Result<(), LocalStoreError> {
        self.root(paths, &|| false)
    }

    pub(crate) fn root<'a>(
        &self,
        paths: impl IntoIterator<Item = &'a StorePath>,
        cancelled: Cancelled<'_>,
    ) -> Result<(), LocalStoreError> {
        self.writing()?.temp_roots.add(paths, cancelled)
    }

    /// Removes the lock files of valid paths whose writer was killed between their registration and the end of its work.
    ///
    /// Where one was left, so may those of what the path refers to. They are let go in the order in which paths are registered,
    /// so that one which is gone is the end of the search. Nothing depends on this.
    pub(crate) fn clear_leftovers(&self, valid: &BTreeSet<StorePath>, cancelled: Cancelled<'_>) {
        let cleared = || {
            let objects = self.objects()?;
            let mut left: Vec<StorePath> = valid.iter().cloned().collect();
            while let Some(path) = left.pop() {
                if PathLock::clear_leftover(objects, path.base_name())? {
                    tracing::debug!(%path, "removed the lock file of a writer that was killed");
                    let infos = self.examine_paths_until(&[path], cancelled)?.infos;
                    left.extend(infos.iter().flat_map(PathInfo::other_references).cloned());
                }
            }
            Ok::<_, LocalStoreError>(())
        };
        if let Err(error) = cleared() {
            tracing::debug!(%error, "lock files may stay");
        }
    }

    /// Makes sure that what was rooted was so all the time.
    pub(crate) fn check_roots(&self) -> Result<(), LocalStoreError> {
        self.writing()?.temp_roots.check()
    }

    pub(crate) fn derivations(&self) -> Result<&Derivations, LocalStoreError> {
        Ok(&self.writing()?.derivations)
    }

    /// The directory of the objects, to write there.
    pub(crate) fn objects(&self) -> Result<&Arc<Directory>, LocalStoreError> {
        Ok(&self.writing()?.layout.objects)
    }

    fn writing(&self) -> Result<&Writing, LocalStoreError> {
        self.shared
            .writing
            .as_ref()
            .ok_or_else(|| LocalStoreError::OpenedReadOnly { path: self.real_store_dir().to_owned() })
    }

    /// Adds one object: `info.nar_size` bytes of NAR from `nar`. Everything about it is checked, and it is registered
    /// when this returns.
    ///
    /// # Errors
    /// Any [`LocalStoreError`]. Nothing is registered then. Nothing is left on the disk either, unless the error is
    /// [`LocalStoreError::Database`] or [`LocalStoreError::TempRootsLost`]: then the object may stay as garbage, for
    /// the next attempt or a garbage collection to remove.
    pub fn add_nar(&self, info: &PathInfo, nar: &mut impl Read) -> Result<Added, LocalStoreError> {
        self.add_with(info, |incoming| receive(nar, info, incoming))
    }

    /// Adds one object, of which `receive` pushes the bytes if they are wanted.
    pub(crate) fn add_with(
        &self,
        info: &PathInfo,
        receive: impl FnOnce(&mut Incoming) -> Result<(), LocalStoreError>,
    ) -> Result<Added, LocalStoreError> {
        self.writing()?;
        let mut result = None;
        let mut report = |done| result = Some(done);
        let mut writer = Writer::new(self, &mut report, &|| false);
        if let Begun::Incoming(mut incoming) = writer.begin(&Arc::new(info.clone()))? {
            let received = receive(&mut incoming);
            writer.finish(incoming, received)?;
        }
        writer.commit()?;
        match result {
            Some(Done::Added(_)) => Ok(Added::New),
            Some(Done::AlreadyValid(_)) => Ok(Added::AlreadyValid),
            Some(Done::Failed(_, error)) => Err(error),
            // A single path follows no other.
            Some(Done::PassedOver(_)) | None => Err(LocalStoreError::Panicked),
        }
    }
}

fn receive(nar: &mut impl Read, info: &PathInfo, incoming: &mut Incoming) -> Result<(), LocalStoreError> {
    let mut block = vec![0; BODY_BLOCK];
    loop {
        match nar.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(count) => incoming.push(block.get(..count).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                let path = info.path.clone();
                let problem = Problem::Path { action: "read", path: path.clone(), source: Box::new(error) };
                let source = StoreError::new(Side::Source, "the given reader", problem);
                return Err(LocalStoreError::Body { path, source });
            }
        }
    }
}
