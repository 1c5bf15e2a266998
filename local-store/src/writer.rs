//! Objects into the store: locks, files, checks, and registration in batches.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use ncc_nar::{Malformation, Metadata, UnpackOptions, Unpacker, remove_at};
use ncc_store::{NarHasher, PathInfo, StorePath};

use crate::{
    Durability, LocalStore, LocalStoreError, Optimise, content,
    database::Cancelled,
    derivation,
    directory::Directory,
    optimise,
    path_lock::PathLock,
    registration::{Candidate, register},
};

/// Paths in one transaction, each of which holds a lock file open: a quarter of the usual 1,024 descriptors when
/// two writers are at it.
const BATCH_PATHS: usize = 128;
/// Bytes of NARs in one transaction: what an interruption may cost.
const BATCH_BYTES: u64 = 64 << 20;
/// How long a finished object may wait for its registration while others come in.
const BATCH_TIME: Duration = Duration::from_secs(1);
/// An object of this size may be long under way: what is finished is registered before it.
const LARGE_OBJECT: u64 = 4 << 20;
/// Files that an object may need open at once: its directories, a file, and what others of this process open.
const SPARE_DESCRIPTORS: usize = 20;

/// What became of one object.
#[derive(Debug)]
pub(crate) enum Done {
    Added(StorePath),
    AlreadyValid(StorePath),
    Failed(StorePath, LocalStoreError),
    /// It refers to one that failed.
    PassedOver(StorePath),
}

/// Adds objects one after the other: [`begin`](Self::begin), [`Incoming::push`] until all bytes are there,
/// [`finish`](Self::finish). What became of them goes to `report` in their order, after registration.
///
/// An `Err` of these is about the store, not about the object: nothing more can be added. What was complete before is
/// registered then.
pub(crate) struct Writer<'a> {
    store: &'a LocalStore,
    batch: Batch,
    report: &'a mut dyn FnMut(Done),
    cancelled: Cancelled<'a>,
}

#[derive(Default)]
struct Batch {
    entries: Vec<Entry>,
    /// How many of them hold a lock.
    locks: usize,
    bytes: u64,
    since: Option<Instant>,
}

enum Entry {
    Complete(Candidate, PathLock),
    Settled(Done),
}

/// What became of an object so far.
pub(crate) enum Begun {
    /// Its bytes can come.
    Incoming(Box<Incoming>),
    /// It is valid already.
    AlreadyValid,
    /// It cannot be added. The reason is reported in its turn.
    Failed,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(
        store: &'a LocalStore,
        report: &'a mut dyn FnMut(Done),
        cancelled: Cancelled<'a>,
    ) -> Self {
        Self { store, batch: Batch::default(), report, cancelled }
    }

    /// Makes everything ready for the bytes of one object.
    pub(crate) fn begin(&mut self, info: &Arc<PathInfo>) -> Result<Begun, LocalStoreError> {
        match self.prepare(info) {
            Ok(Some(incoming)) => Ok(Begun::Incoming(Box::new(incoming))),
            Ok(None) => {
                self.push(Entry::Settled(Done::AlreadyValid(info.path.clone())), 0)?;
                Ok(Begun::AlreadyValid)
            }
            Err(error) => self.fail(&info.path, error).map(|()| Begun::Failed),
        }
    }

    /// Takes the object after all of its bytes have come; `received` says why they have not. Whether the object is
    /// complete now; if not, the reason is reported in its turn.
    pub(crate) fn finish(
        &mut self,
        incoming: Box<Incoming>,
        received: Result<(), LocalStoreError>,
    ) -> Result<bool, LocalStoreError> {
        let Incoming { info, real, lock, content } = *incoming;
        let complete = received.and_then(|()| content.finish(&info, &real)).and_then(|size| {
            content::check_content(&real, &info, &self.store.pack_options())?;
            let outputs = derivation::outputs(self.store, &info, &real)?;
            if self.store.config().optimise == Optimise::NewObjects
                && let Err(error) = optimise::link_files(self.store.objects()?, &info.path)
            {
                tracing::warn!(%error, "an object takes more space than it could");
            }
            let mut info = info.clone();
            if info.nar_size != size {
                Arc::make_mut(&mut info).nar_size = size;
            }
            Ok(Candidate { info, outputs })
        });
        match complete {
            Ok(candidate) => {
                let size = candidate.info.nar_size;
                self.push(Entry::Complete(candidate, lock), size)?;
                Ok(true)
            }
            Err(error) => {
                self.discard(&info.path, lock)?;
                self.fail(&info.path, error)?;
                Ok(false)
            }
        }
    }

    fn push(&mut self, entry: Entry, bytes: u64) -> Result<(), LocalStoreError> {
        self.batch.push(entry, bytes);
        if self.batch.is_full() { self.commit() } else { Ok(()) }
    }

    fn fail(&mut self, path: &StorePath, error: LocalStoreError) -> Result<(), LocalStoreError> {
        if error.concerns_one_object() {
            return self.push(Entry::Settled(Done::Failed(path.clone(), error)), 0);
        }
        self.commit()?;
        Err(error)
    }

    /// Whether there is nothing to register or to report.
    pub(crate) fn is_idle(&self) -> bool {
        self.batch.entries.is_empty()
    }

    /// Registers what is complete.
    pub(crate) fn commit(&mut self) -> Result<(), LocalStoreError> {
        let entries = std::mem::take(&mut self.batch).entries;
        let candidates: Vec<&Candidate> = entries
            .iter()
            .filter_map(|entry| match entry {
                Entry::Complete(candidate, _) => Some(candidate),
                Entry::Settled(_) => None,
            })
            .collect();
        let registered = if candidates.is_empty() { Ok(Vec::new()) } else { self.register(&candidates) };
        // On an error the files stay as garbage: whether a commit that failed has happened is not always known.
        let (mut results, error) = match registered {
            Ok(results) => (results.into_iter(), None),
            Err(error) => (Vec::new().into_iter(), Some(error)),
        };
        let mut reports = Vec::with_capacity(entries.len());
        let mut failed = HashSet::new();
        for entry in entries {
            match entry {
                Entry::Settled(done) => reports.push(done),
                Entry::Complete(..) if error.is_some() => {}
                Entry::Complete(candidate, lock) => {
                    let path = candidate.info.path.clone();
                    let Some(Err(error)) = results.next() else {
                        lock.retire();
                        reports.push(Done::Added(path));
                        continue;
                    };
                    self.discard(&path, lock)?;
                    let follows = matches!(
                        &error,
                        LocalStoreError::InvalidReference { reference, .. } if failed.contains(reference)
                    );
                    failed.insert(path.clone());
                    reports.push(if follows { Done::PassedOver(path) } else { Done::Failed(path, error) });
                }
            }
        }
        // Only now: who hears the first of them may end this process, and lock files would stay.
        reports.into_iter().for_each(&mut self.report);
        error.map_or(Ok(()), Err)
    }

    fn register(
        &self,
        candidates: &[&Candidate],
    ) -> Result<Vec<Result<(), LocalStoreError>>, LocalStoreError> {
        if self.store.config().durability == Durability::BeforeRegistration {
            synchronise(self.store.objects()?)?;
        }
        // Or else a collector may have deleted the objects meanwhile.
        self.store.check_roots()?;
        register(self.store.database(), self.cancelled, self.store.store_dir(), candidates)
    }

    /// Takes back an object that will not be registered.
    fn discard(&self, path: &StorePath, lock: PathLock) -> Result<(), LocalStoreError> {
        // If that fails it is garbage, and the error before says more.
        if let Err(error) = remove_leftovers(self.store.objects()?, path) {
            tracing::warn!(%error, "an incomplete object stays behind, unregistered");
        }
        lock.retire();
        if path.is_derivation() {
            self.store.derivations()?.forget(self.store.store_dir());
        }
        Ok(())
    }

    /// Nothing if the object is valid already.
    fn prepare(&mut self, info: &Arc<PathInfo>) -> Result<Option<Incoming>, LocalStoreError> {
        let path = &info.path;
        content::check_claim(self.store.store_dir(), info)?;
        // First the root, then the question: what is valid now stays valid while this process lives.
        self.store.root([path], self.cancelled)?;
        if self.store.is_valid(path, self.cancelled)? {
            return Ok(None);
        }
        let lock = self.lock(path)?;
        if self.store.is_valid(path, self.cancelled)? {
            lock.retire();
            return Ok(None);
        }
        let objects = self.store.objects()?;
        if info.nar_size >= LARGE_OBJECT || info.nar_size == 0 || !spare_descriptors(objects) {
            self.commit()?;
        }
        let real = self.store.real_path(path);
        let config = self.store.config();
        let mut options = UnpackOptions::default();
        options.metadata = Metadata::Canonical;
        options.case_hack = config.case_hack;
        options.ignored_acls.clone_from(&config.ignored_acls);
        options.decode.nar_size = (info.nar_size != 0).then_some(info.nar_size);
        let unpacker = remove_leftovers(objects, path).and_then(|()| {
            Unpacker::new_at(objects.clone(), path.base_name(), &options)
                .map_err(|source| LocalStoreError::Write { path: real.clone(), source })
        });
        match unpacker {
            Ok(unpacker) => {
                let content = Content { unpacker, size: 0, hasher: Some(NarHasher::new()) };
                Ok(Some(Incoming { info: info.clone(), real, lock, content }))
            }
            Err(error) => {
                lock.retire();
                Err(error)
            }
        }
    }

    /// Takes the lock of an object, after letting go of all others if it must be waited for.
    fn lock(&mut self, path: &StorePath) -> Result<PathLock, LocalStoreError> {
        let (objects, object) = (self.store.objects()?, path.base_name());
        match PathLock::try_acquire(objects, object) {
            Ok(Some(lock)) => return Ok(lock),
            Ok(None) => {}
            // Other writers of this process may have used up the descriptors; a batch frees its own.
            Err(error) if self.batch.locks > 0 && error.is_out_of_descriptors() => {}
            Err(error) => return Err(error),
        }
        self.commit()?;
        PathLock::acquire(objects, object, self.cancelled)
    }
}

impl Batch {
    fn push(&mut self, entry: Entry, bytes: u64) {
        if let Entry::Complete(..) = entry {
            self.locks += 1;
            self.bytes = self.bytes.saturating_add(bytes);
        }
        self.since.get_or_insert_with(Instant::now);
        self.entries.push(entry);
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= BATCH_PATHS
            || self.bytes >= BATCH_BYTES
            || self.since.is_some_and(|since| since.elapsed() >= BATCH_TIME)
    }
}

/// An object under way, under its lock. Dropped in the middle, it leaves what [`Writer::begin`] removes the next time.
pub(crate) struct Incoming {
    info: Arc<PathInfo>,
    real: PathBuf,
    lock: PathLock,
    content: Content,
}

impl Incoming {
    /// Hashes nothing of it: the bytes come from a body that is already verified.
    pub(crate) fn trust_hash(&mut self) {
        self.content.hasher = None;
    }

    /// Takes the next bytes: no more than were announced.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), LocalStoreError> {
        self.content.push(bytes, &self.info, &self.real)
    }
}

struct Content {
    unpacker: Unpacker<Arc<Directory>>,
    /// Bytes taken.
    size: u64,
    /// `None` if whoever sends the bytes compares their hash.
    hasher: Option<NarHasher>,
}

impl Content {
    fn push(&mut self, bytes: &[u8], info: &PathInfo, real: &Path) -> Result<(), LocalStoreError> {
        let seen = self.size.saturating_add(bytes.len() as u64);
        // 0 stands for "unknown".
        if info.nar_size != 0 && seen > info.nar_size {
            return Err(wrong_size(info, seen));
        }
        let taken = self.unpacker.push(bytes).map_err(|source| match source.malformation() {
            Some(Malformation::ShorterThanAnnounced { .. }) => wrong_size(info, self.unpacker.position()),
            Some(_) => LocalStoreError::Malformed { path: info.path.clone(), source },
            None => LocalStoreError::Write { path: real.to_owned(), source },
        })?;
        if taken < bytes.len() {
            // More than the archive, within what was announced: then the announcement is wrong.
            return Err(wrong_size(info, self.unpacker.position()));
        }
        self.size = seen;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        Ok(())
    }

    /// The size of the NAR.
    fn finish(self, info: &PathInfo, real: &Path) -> Result<u64, LocalStoreError> {
        let size = self.size;
        if info.nar_size != 0 && size != info.nar_size {
            return Err(wrong_size(info, size));
        }
        self.unpacker.finish().map_err(|source| match source.malformation() {
            Some(_) => LocalStoreError::Malformed { path: info.path.clone(), source },
            None => LocalStoreError::Write { path: real.to_owned(), source },
        })?;
        match self.hasher.map(|hasher| hasher.finish().0) {
            Some(actual) if actual != info.nar_hash => Err(LocalStoreError::HashMismatch {
                path: info.path.clone(),
                expected: info.nar_hash,
                actual,
            }),
            _ => Ok(size),
        }
    }
}

fn wrong_size(info: &PathInfo, actual: u64) -> LocalStoreError {
    LocalStoreError::SizeMismatch { path: info.path.clone(), expected: info.nar_size, actual }
}

fn remove_leftovers(objects: &Directory, path: &StorePath) -> Result<(), LocalStoreError> {
    if objects.status(path.base_name())?.is_none() {
        return Ok(());
    }
    let real = objects.path_of(path.base_name());
    tracing::debug!(path = %real.display(), "removing what lies there unregistered");
    remove_at(objects, path.base_name()).map_err(|source| LocalStoreError::Remove { path: real, source })
}

/// Whether this process can open as many files as one object may need.
fn spare_descriptors(objects: &Directory) -> bool {
    let spare: Result<Vec<_>, _> =
        (0..SPARE_DESCRIPTORS).map(|_| rustix::io::fcntl_dupfd_cloexec(objects, 0)).collect();
    spare.is_ok()
}

/// Waits until everything on the file system of the store is on the disk.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn synchronise(objects: &Directory) -> Result<(), LocalStoreError> {
    rustix::fs::syncfs(objects).map_err(LocalStoreError::io("synchronise", objects.path()))
}

/// The same where a system can only be told to write everything.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[allow(clippy::unnecessary_wraps)] // as above
fn synchronise(_objects: &Directory) -> Result<(), LocalStoreError> {
    rustix::fs::sync();
    Ok(())
}
