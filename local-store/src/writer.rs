//! Objects into the store: locks, files, checks, and registration in batches.

use std::{
    io::{self, Read},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf as _, Bytes};
use ncc_nar::{Malformation, Metadata, UnpackOptions, remove_at, unpack_at};
use ncc_store::{NarHasher, PathInfo, StoreError, StorePath};

use rustix::io::Errno;

use crate::{
    Durability, LocalStore, LocalStoreError, content, derivation,
    directory::Directory,
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

/// Where the bytes of an object come from.
pub(crate) trait Body {
    /// The next event. [`BodyEvent::End`] again and again at the end.
    fn next(&mut self) -> BodyEvent;
}

pub(crate) enum BodyEvent {
    Block(Bytes),
    /// Nothing has arrived yet: time to register what is finished.
    Idle,
    End,
    Failed(StoreError),
    /// Whoever wanted it is gone.
    Gone,
}

/// What became of one object.
#[derive(Debug)]
pub(crate) enum Done {
    Added(StorePath),
    AlreadyValid(StorePath),
    Failed(StorePath, LocalStoreError),
}

/// Adds objects one after the other. What became of them goes to `report` in their order, after registration.
pub(crate) struct Writer<'a> {
    store: &'a LocalStore,
    batch: Batch,
    report: &'a mut dyn FnMut(Done),
    cancelled: &'a dyn Fn() -> bool,
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

impl<'a> Writer<'a> {
    pub(crate) fn new(
        store: &'a LocalStore,
        report: &'a mut dyn FnMut(Done),
        cancelled: &'a dyn Fn() -> bool,
    ) -> Self {
        Self { store, batch: Batch::default(), report, cancelled }
    }

    /// Takes one object. `Err` is about the store, not about the object: nothing more can be added.
    pub(crate) fn add(&mut self, info: &Arc<PathInfo>, body: &mut dyn Body) -> Result<(), LocalStoreError> {
        match self.write(info, body) {
            Ok(entry) => self.batch.push(entry, info.nar_size),
            Err(error) if error.concerns_one_object() => {
                self.batch.push(Entry::Settled(Done::Failed(info.path.clone(), error)), 0);
            }
            Err(error) => {
                // What was complete before is safe.
                self.commit()?;
                return Err(error);
            }
        }
        if self.batch.is_full() { self.commit() } else { Ok(()) }
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
        let mut results = match registered {
            Ok(results) => results.into_iter(),
            // The files stay as garbage: whether a commit that failed has happened is not always known.
            Err(error) => {
                for entry in entries {
                    if let Entry::Settled(done) = entry {
                        (self.report)(done);
                    }
                }
                return Err(error);
            }
        };
        let mut reports = Vec::with_capacity(entries.len());
        for entry in entries {
            reports.push(match entry {
                Entry::Settled(done) => done,
                Entry::Complete(candidate, lock) => {
                    let path = candidate.info.path.clone();
                    match results.next() {
                        Some(Err(error)) => {
                            self.discard(&path, lock)?;
                            Done::Failed(path, error)
                        }
                        _ => {
                            lock.retire();
                            Done::Added(path)
                        }
                    }
                }
            });
        }
        // Only now: who hears the first of them may end this process, and lock files would stay.
        reports.into_iter().for_each(&mut self.report);
        Ok(())
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

    fn write(&mut self, info: &Arc<PathInfo>, body: &mut dyn Body) -> Result<Entry, LocalStoreError> {
        let path = &info.path;
        content::check_claim(self.store.store_dir(), info)?;
        // First the root, then the question: what is valid now stays valid while this process lives.
        self.store.root([path], self.cancelled)?;
        let already_valid = || Entry::Settled(Done::AlreadyValid(path.clone()));
        if self.store.is_valid(path, self.cancelled)? {
            return Ok(already_valid());
        }
        let lock = self.lock(path)?;
        if self.store.is_valid(path, self.cancelled)? {
            lock.retire();
            return Ok(already_valid());
        }
        if info.nar_size >= LARGE_OBJECT || info.nar_size == 0 || !spare_descriptors(self.store.objects()?) {
            self.commit()?;
        }
        let objects = self.store.objects()?.clone();
        let written = remove_leftovers(&objects, path).and_then(|()| {
            let real = self.store.real_path(path);
            let size = self.unpack(info, &objects, &real, body)?;
            content::check_content(&real, info, &self.store.pack_options())?;
            let outputs = derivation::outputs(self.store, info, &real)?;
            let mut info = info.clone();
            if info.nar_size != size {
                Arc::make_mut(&mut info).nar_size = size;
            }
            Ok(Candidate { info, outputs })
        });
        match written {
            Ok(candidate) => Ok(Entry::Complete(candidate, lock)),
            Err(error) => {
                self.discard(path, lock)?;
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
            Err(LocalStoreError::Io { source, .. })
                if self.batch.locks > 0
                    && matches!(Errno::from_io_error(&source), Some(Errno::MFILE | Errno::NFILE)) => {}
            Err(error) => return Err(error),
        }
        self.commit()?;
        PathLock::acquire(objects, object, self.cancelled)
    }

    /// The size of the NAR.
    fn unpack(
        &mut self,
        info: &PathInfo,
        objects: &Directory,
        real: &Path,
        body: &mut dyn Body,
    ) -> Result<u64, LocalStoreError> {
        let config = self.store.config();
        let mut incoming = Incoming {
            info,
            body,
            writer: self,
            block: Bytes::new(),
            hasher: NarHasher::new(),
            ended: false,
            failure: None,
        };
        let mut options = UnpackOptions::default();
        options.metadata = Metadata::Canonical;
        options.case_hack = config.case_hack;
        options.ignored_acls.clone_from(&config.ignored_acls);
        options.decode.nar_size = (info.nar_size != 0).then_some(info.nar_size);
        let unpacked = unpack_at(&mut incoming, objects, info.path.base_name(), &options);
        incoming.finish(unpacked.map(drop), real)
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

/// The bytes of one object as they are unpacked: counted, hashed, and never more than announced.
struct Incoming<'a, 'w> {
    info: &'a PathInfo,
    body: &'a mut dyn Body,
    writer: &'a mut Writer<'w>,
    block: Bytes,
    hasher: NarHasher,
    ended: bool,
    /// The reason behind an error that the unpacker got.
    failure: Option<LocalStoreError>,
}

impl Incoming<'_, '_> {
    /// Makes sure that there are bytes, unless it is the end.
    fn fill(&mut self) -> Result<(), LocalStoreError> {
        let path = || self.info.path.clone();
        while self.block.is_empty() && !self.ended {
            match self.body.next() {
                BodyEvent::Block(block) => self.block = block,
                BodyEvent::Idle => self.writer.commit()?,
                BodyEvent::End => self.ended = true,
                BodyEvent::Failed(error) => {
                    return Err(LocalStoreError::Body { path: path(), source: error });
                }
                BodyEvent::Gone => {
                    return Err(LocalStoreError::Cancelled { path: self.writer.store.real_path(&path()) });
                }
            }
        }
        let seen = self.hasher.size().saturating_add(self.block.len() as u64);
        // 0 stands for "unknown".
        if self.info.nar_size != 0 && seen > self.info.nar_size {
            return Err(LocalStoreError::SizeMismatch {
                path: path(),
                expected: self.info.nar_size,
                actual: seen,
            });
        }
        Ok(())
    }

    fn finish(mut self, unpacked: Result<(), ncc_nar::Error>, real: &Path) -> Result<u64, LocalStoreError> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let path = || self.info.path.clone();
        let short =
            |actual| LocalStoreError::SizeMismatch { path: path(), expected: self.info.nar_size, actual };
        match unpacked {
            Ok(()) => {}
            Err(_) if self.ended && self.info.nar_size != 0 => return Err(short(self.hasher.size())),
            Err(source @ ncc_nar::Error::Malformed { .. }) => {
                return Err(match source.malformation() {
                    Some(Malformation::ShorterThanAnnounced { .. }) => short(self.hasher.size()),
                    _ => LocalStoreError::Malformed { path: path(), source },
                });
            }
            Err(source) => return Err(LocalStoreError::Write { path: real.to_owned(), source }),
        }
        // The archive is over; is the body?
        self.fill()?;
        if !self.block.is_empty() {
            // More than the archive, within the announced size: then the announcement is wrong.
            return Err(short(self.hasher.size().saturating_add(self.block.len() as u64)));
        }
        let (actual, size) = self.hasher.finish();
        if self.info.nar_size != 0 && size != self.info.nar_size {
            return Err(LocalStoreError::SizeMismatch {
                path: self.info.path.clone(),
                expected: self.info.nar_size,
                actual: size,
            });
        }
        if actual != self.info.nar_hash {
            return Err(LocalStoreError::HashMismatch {
                path: self.info.path.clone(),
                expected: self.info.nar_hash,
                actual,
            });
        }
        Ok(size)
    }
}

impl Read for Incoming<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Err(error) = self.fill() {
            self.failure = Some(error);
            return Err(io::ErrorKind::Other.into());
        }
        let count = self.block.len().min(buffer.len());
        let (into, _) = buffer.split_at_mut(count);
        self.block.copy_to_slice(into);
        self.hasher.update(into);
        Ok(count)
    }
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
fn synchronise(objects: &Directory) -> Result<(), LocalStoreError> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return rustix::fs::syncfs(objects).map_err(LocalStoreError::io("synchronise", objects.path()));
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        rustix::fs::sync();
        Ok(())
    }
}
