//! Connections to Nix's database, whoever else has it open.

use std::{
    fmt::Write as _,
    fs::{self, Metadata},
    io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use rustix::fs::StatVfsMountFlags;

use crate::{Access, DatabaseSync, Journal, LocalStoreConfig, LocalStoreError, Medium, header};

/// How long SQLite itself waits for a lock. Nix waits an hour; but nothing can reach a thread inside that call, so it
/// is called again and again.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause before a statement is tried again that SQLite gave up on at once.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// How long it is waited before the user hears of it. A garbage collection may take much longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a database kept without a write-ahead log is locked by.
const LOCK_FILES: &str = "unix-dotfile";
/// Pages in the write-ahead log before a checkpoint; as in Nix. Checkpoints wait for the disk, commits do not.
const AUTOCHECKPOINT_PAGES: u32 = 40_000;
/// How often a reader starts over that cannot lock and finds that the database changed under it.
const SNAPSHOT_ATTEMPTS: u32 = 20;
/// Statements that a connection keeps compiled: more than this crate has.
const STATEMENT_CACHE: usize = 32;

/// Says whether nobody wants the answer any more.
pub(crate) type Cancelled<'a> = &'a dyn Fn() -> bool;

/// A database and its idle connections. Every call takes one for itself.
#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    access: Access,
    medium: Medium,
    journal: Journal,
    sync: DatabaseSync,
    idle: Mutex<Vec<Handle>>,
}

#[derive(Debug)]
struct Handle {
    connection: Connection,
    /// Of the moment before it was opened, where the connection ignores all locks.
    unlocked_since: Option<FileState>,
}

/// What changes whenever somebody writes to the database.
#[derive(Debug, PartialEq, Eq)]
struct FileState {
    modified: (i64, i64),
    size: u64,
    inode: u64,
    /// There are commits beside the main file, or one is under way.
    pending: bool,
}

impl Database {
    /// Opens an existing database.
    pub(crate) fn open(config: &LocalStoreConfig, access: Access) -> Result<Self, LocalStoreError> {
        let database = Self::of(config, access);
        if database.found()?.is_none() {
            return Err(LocalStoreError::NoStore { path: database.path });
        }
        let handle = database.take(&|| false)?;
        database.give_back(handle);
        Ok(database)
    }

    fn of(config: &LocalStoreConfig, access: Access) -> Self {
        Self {
            path: config.database_file(),
            access,
            medium: config.medium,
            journal: config.journal,
            sync: config.database_sync,
            idle: Mutex::default(),
        }
    }

    /// Makes an empty database out of an empty file, or out of a beginning of one.
    pub(crate) fn create(config: &LocalStoreConfig) -> Result<(), LocalStoreError> {
        let database = Self::of(config, Access::ReadWrite);
        let failed = database.failed("create the schema");
        let connection = retrying(&|| false, || {
            let connection = database.open_for_writing(database.found()?).map_err(&failed)?;
            let schema = concat!("begin immediate;", include_str!("schema.sql"), "commit;");
            connection.execute_batch(schema).map_err(&failed)?;
            Ok(connection)
        })?;
        connection.close().map_err(|(_, error)| failed(error))
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Turns an error of SQLite into one that says what was to be done.
    pub(crate) fn failed(&self, action: &'static str) -> impl Fn(rusqlite::Error) -> LocalStoreError {
        move |source| LocalStoreError::Database { action, path: self.path.clone(), source }
    }

    /// Runs `query` on a consistent state; maybe several times, until it had one.
    pub(crate) fn read<T>(
        &self,
        action: &'static str,
        cancelled: Cancelled<'_>,
        mut query: impl FnMut(&Connection) -> Result<T, LocalStoreError>,
    ) -> Result<T, LocalStoreError> {
        for _ in 0..SNAPSHOT_ATTEMPTS {
            let handle = self.take(cancelled)?;
            let result = retrying(cancelled, || {
                let transaction = handle.connection.unchecked_transaction().map_err(self.failed(action))?;
                let result = query(&transaction)?;
                transaction.finish().map_err(self.failed(action))?;
                Ok(result)
            });
            let stable = match &handle.unlocked_since {
                None => true,
                Some(before) => !before.pending && *before == self.state()?,
            };
            if stable {
                self.give_back(handle);
                return result;
            }
            // What it cached may belong to two states; the next connection may well be one that locks.
            drop(handle);
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
            thread::sleep(RETRY_PAUSE);
        }
        Err(LocalStoreError::Unstable { path: self.path.clone(), attempts: SNAPSHOT_ATTEMPTS })
    }

    /// Waits until all commits so far are on the disk, as far as no reader is in the way: with a write-ahead log a commit does not
    /// wait for that.
    pub(crate) fn checkpoint(&self) -> Result<(), LocalStoreError> {
        let handle = self.take(&|| false)?;
        let done = handle.connection.query_row("pragma wal_checkpoint(passive)", [], |_| Ok(()));
        self.give_back(handle);
        done.map_err(self.failed("write its log to"))
    }

    /// Runs `change` in a transaction that has the write lock from its beginning: all of it happens, or nothing.
    pub(crate) fn write<T>(
        &self,
        action: &'static str,
        cancelled: Cancelled<'_>,
        mut change: impl FnMut(&Connection) -> Result<T, LocalStoreError>,
    ) -> Result<T, LocalStoreError> {
        let mut handle = self.take(cancelled)?;
        let result = retrying(cancelled, || {
            // A transaction that begins as a reader and then wants to write cannot wait: SQLITE_BUSY at once.
            let transaction = handle
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .map_err(self.failed(action))?;
            let result = change(&transaction)?;
            transaction.commit().map_err(self.failed(action))?;
            Ok(result)
        });
        self.give_back(handle);
        result
    }

    fn take(&self, cancelled: Cancelled<'_>) -> Result<Handle, LocalStoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(handle) => Ok(handle),
            None => retrying(cancelled, || self.connect()),
        }
    }

    fn give_back(&self, handle: Handle) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
    }

    fn connect(&self) -> Result<Handle, LocalStoreError> {
        match self.access {
            Access::ReadWrite => self.connect_for_writing(),
            Access::ReadOnly => self.connect_for_reading(),
        }
    }

    fn connect_for_writing(&self) -> Result<Handle, LocalStoreError> {
        let found = self.found()?;
        let other = |found| LocalStoreError::OtherJournal { path: self.path.clone(), found };
        match (self.journal, found) {
            // Nix fails here too.
            (Journal::Rollback, Some(Journal::WriteAhead)) => {
                return Err(other("is kept with a write-ahead log"));
            }
            (Journal::WriteAhead, Some(Journal::Rollback)) if self.beside(".lock").is_some() => {
                return Err(other("is in use by a process that keeps it without a write-ahead log"));
            }
            _ => {}
        }
        let connection = self
            .open_for_writing(found)
            .and_then(|connection| {
                connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
                connection.pragma_update(None, "foreign_keys", true)?;
                let sync = match self.sync {
                    DatabaseSync::Normal => "normal",
                    DatabaseSync::Off => "off",
                };
                connection.pragma_update(None, "synchronous", sync)?;
                connection.pragma_update(None, "wal_autocheckpoint", AUTOCHECKPOINT_PAGES)?;
                probe(&connection)?;
                Ok(connection)
            })
            .map_err(self.failed("open"))?;
        Ok(Handle { connection, unlocked_since: None })
    }

    fn open_for_writing(&self, found: Option<Journal>) -> Result<Connection, rusqlite::Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = match self.journal {
            Journal::WriteAhead => Connection::open_with_flags(&self.path, flags),
            Journal::Rollback => Connection::open_with_flags_and_vfs(&self.path, flags, LOCK_FILES),
        }?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        if found != Some(self.journal) {
            // As Nix does. Where shared memory is not to be had the mode stays as it is.
            let mode = match self.journal {
                Journal::WriteAhead => "wal",
                Journal::Rollback => "truncate",
            };
            connection.pragma_update_and_check(None, "journal_mode", mode, |_| Ok(()))?;
        }
        Ok(connection)
    }

    fn connect_for_reading(&self) -> Result<Handle, LocalStoreError> {
        if self.medium == Medium::ReadOnly {
            if self.is_pending() {
                tracing::warn!(
                    database = %self.path.display(),
                    "the write-ahead log of a read-only store is passed over: what was registered last may be missing"
                );
            }
            let connection = self.open_uri("immutable=1").map_err(self.failed("open"))?;
            return Ok(Handle { connection, unlocked_since: None });
        }
        let write_ahead = self.found()? == Some(Journal::WriteAhead);
        // Fails where nobody has it open and this user cannot make the file of shared memory.
        if write_ahead && let Ok(connection) = self.open_uri("mode=ro") {
            return Ok(Handle { connection, unlocked_since: None });
        }
        // Without commits beside the main file that file alone is the whole truth, as long as it stays so.
        let before = self.state()?;
        if write_ahead && before.pending {
            // Somebody may have opened it just now; otherwise these commits are out of this user's reach.
            let connection = self.open_uri("mode=ro").map_err(|source| self.out_of_reach(source))?;
            return Ok(Handle { connection, unlocked_since: None });
        }
        // A writer with a rollback journal may be at work: then the caller tries again.
        let connection = self.open_uri("immutable=1").map_err(self.failed("open"))?;
        Ok(Handle { connection, unlocked_since: Some(before) })
    }

    fn out_of_reach(&self, source: rusqlite::Error) -> LocalStoreError {
        let is_read_only = rustix::fs::statvfs(&self.path)
            .is_ok_and(|status| status.f_flag.contains(StatVfsMountFlags::RDONLY));
        if is_read_only {
            LocalStoreError::LeftoverLog { path: self.path.clone(), source }
        } else {
            self.failed("open")(source)
        }
    }

    fn open_uri(&self, query: &str) -> Result<Connection, rusqlite::Error> {
        let mut uri = "file:".to_owned();
        for &byte in self.path.as_os_str().as_bytes() {
            if byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte) {
                uri.push(char::from(byte));
            } else {
                // Writing to a String cannot fail.
                let _ = write!(uri, "%{byte:02x}");
            }
        }
        let flags =
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(format!("{uri}?{query}"), flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
        probe(&connection)?;
        Ok(connection)
    }

    /// How the database is kept, as its header says; nothing if it is missing or empty.
    fn found(&self) -> Result<Option<Journal>, LocalStoreError> {
        let mut bytes = [0; 20];
        match header::read(&self.path, &mut bytes) {
            // Bytes 18 and 19: the versions that writers and readers must know; 2 is write-ahead logging.
            Ok(()) if matches!(bytes, [.., 2, 2]) => Ok(Some(Journal::WriteAhead)),
            Ok(()) => Ok(Some(Journal::Rollback)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => {
                Ok(None)
            }
            Err(error) => Err(LocalStoreError::io("read", &self.path)(error)),
        }
    }

    /// The file with this suffix, if there is one.
    fn beside(&self, suffix: &str) -> Option<Metadata> {
        let mut name = self.path.clone().into_os_string();
        name.push(suffix);
        fs::symlink_metadata(name).ok()
    }

    fn is_pending(&self) -> bool {
        ["-wal", "-journal"].iter().any(|suffix| self.beside(suffix).is_some_and(|file| file.len() > 0))
    }

    fn state(&self) -> Result<FileState, LocalStoreError> {
        let metadata = fs::metadata(&self.path).map_err(LocalStoreError::io("examine", &self.path))?;
        Ok(FileState {
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            size: metadata.len(),
            inode: metadata.ino(),
            pending: self.is_pending(),
        })
    }
}

/// Opening reads nothing; this does, so that a database that cannot be used is found here.
fn probe(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.query_row("select 1 from ValidPaths limit 1", [], |_| Ok(())).or_else(|error| match error {
        rusqlite::Error::QueryReturnedNoRows => Ok(()),
        error => Err(error),
    })
}

/// Tries again for as long as the database is only busy, as Nix does, until `cancelled` says to stop.
fn retrying<T>(
    cancelled: Cancelled<'_>,
    mut attempt: impl FnMut() -> Result<T, LocalStoreError>,
) -> Result<T, LocalStoreError> {
    let since = Instant::now();
    let mut said = false;
    loop {
        match attempt() {
            Err(LocalStoreError::Database { path, source, .. }) if is_busy(&source) => {
                if cancelled() {
                    return Err(LocalStoreError::Cancelled { path });
                }
                if !said && since.elapsed() >= PATIENCE {
                    said = true;
                    tracing::warn!(database = %path.display(), "still waiting for the database, which is busy");
                }
                thread::sleep(RETRY_PAUSE);
            }
            result => return result,
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::FileLockingProtocolFailed))
}
