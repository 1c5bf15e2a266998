//! The first bytes of the database file, read without harm to the locks on it.
//!
//! A process that closes any descriptor of a file loses all its POSIX locks on that file, those of SQLite too (SQLite,
//! "How To Corrupt An SQLite Database File", 2.2). Another process then takes itself for the last user and deletes
//! the write-ahead log; what is committed to the deleted one is lost. So the descriptor that was opened here stays
//! open for as long as this process has a connection.

use std::{
    collections::HashMap,
    fs::{self, File, Metadata},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

type Identity = (u64, u64);

/// What this process has open.
static OPEN: Mutex<Option<HashMap<Identity, Open>>> = Mutex::new(None);

#[derive(Debug, Default)]
struct Open {
    /// One, unless the file at a path was replaced in a bad moment.
    files: Vec<File>,
    users: usize,
}

/// Keeps the descriptor open. Must outlive the connection it was opened for.
#[derive(Debug)]
pub(crate) struct Header(Identity);

impl Header {
    /// Opens the file unless that was done before.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut open = lock();
        let open = open.get_or_insert_default();
        let mut key = identity(&fs::metadata(path)?);
        if !open.contains_key(&key) {
            let file = File::open(path)?;
            key = identity(&file.metadata()?);
            open.entry(key).or_default().files.push(file);
        }
        open.entry(key).or_default().users += 1;
        Ok(Self(key))
    }

    /// Reads from its beginning.
    pub(crate) fn read(&self, bytes: &mut [u8]) -> io::Result<()> {
        let open = lock();
        let file = open.as_ref().and_then(|open| open.get(&self.0)?.files.first());
        file.ok_or(io::ErrorKind::NotFound)?.read_exact_at(bytes, 0)
    }
}

impl Drop for Header {
    fn drop(&mut self) {
        // Closed under the mutex: after that, somebody else may have locks to lose.
        let mut open = lock();
        let Some(open) = open.as_mut() else { return };
        if let Some(entry) = open.get_mut(&self.0) {
            entry.users = entry.users.saturating_sub(1);
            if entry.users == 0 {
                open.remove(&self.0);
            }
        }
    }
}

fn lock() -> MutexGuard<'static, Option<HashMap<Identity, Open>>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}
