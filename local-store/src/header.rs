//! The first bytes of the database file, read without harm to the locks on it.
//!
//! A process that closes any descriptor of a file loses all its POSIX locks on that file, those of SQLite too (SQLite,
//! "How To Corrupt An SQLite Database File", 2.2). Another process then takes itself for the last user and deletes
//! the write-ahead log; what is committed to the deleted one is lost. So a descriptor that was opened here is never
//! closed: one for each database that this process has seen.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
    sync::{Mutex, PoisonError},
};

/// By device and inode. (Two files of one identity are the same one.)
static OPEN: Mutex<Option<HashMap<(u64, u64), File>>> = Mutex::new(None);

/// Reads the beginning of the file at `path`.
pub(crate) fn read(path: &Path, bytes: &mut [u8]) -> io::Result<()> {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let open = open.get_or_insert_default();
    let status = fs::metadata(path)?;
    if let Some(file) = open.get(&(status.dev(), status.ino())) {
        return file.read_exact_at(bytes, 0);
    }
    let file = File::open(path)?;
    let result = file.read_exact_at(bytes, 0);
    let status = file.metadata()?;
    // Replaced in between by one that is known: that must not be closed either.
    if let Some(known) = open.insert((status.dev(), status.ino()), file) {
        std::mem::forget(known);
    }
    result
}
