//! Connections to Nix's database, whoever else has it open.

use std::{
    fmt::Write as _,
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use crate::{Access, LocalStoreError, header::Header};

/// How long SQLite itself waits for a lock; as in Nix, where a garbage collection may hold it for long.
const BUSY_TIMEOUT: Duration = Duration::from_hours(1);
/// Pause before a statement is tried again that SQLite gave up on.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Pages in the write-ahead log before a checkpoint; as in Nix. Checkpoints wait for the disk, commits do not.
const AUTOCHECKPOINT_PAGES: u32 = 40_000;
/// How often a reader starts over that cannot lock and finds that the database changed under it.
const SNAPSHOT_ATTEMPTS: u32 = 20;
/// Statements that a connection keeps compiled: more than this crate has.
const STATEMENT_CACHE: usize = 32;

/// A database and its idle connections. Every call takes one for itself.
#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    access: Access,
    idle: Mutex<Vec<Handle>>,
}

#[derive(Debug)]
struct Handle {
    connection: Connection,
    /// Of the moment before it was opened, where the connection ignores all locks.
    unlocked_since: Option<FileState>,
    /// Closed after the connection.
    _header: Option<Header>,
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

/// How the header of a database file says that it is journaled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Journal {
    WriteAhead,
    /// Nix with `use-sqlite-wal = false`; it then locks by files of its own (`unix-dotfile`).
    Rollback,
    /// The file is missing or empty.
    None,
}

impl Database {
    /// Opens an existing database.
    pub(crate) fn open(path: PathBuf, access: Access) -> Result<Self, LocalStoreError> {
        let database = Self { path, access, idle: Mutex::default() };
        if database.journal()?.0 == Journal::None {
            return Err(LocalStoreError::NoStore { path: database.path });
        }
        let handle = database.connect()?;
        database.give_back(handle);
        Ok(database)
    }

    /// Makes an empty database out of nothing, or out of a beginning of one.
    pub(crate) fn create(path: &Path) -> Result<(), LocalStoreError> {
        let failed = sql("create the schema", path);
        let connection = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE
                | OpenFlags::SQLITE_OPEN_CREATE
                | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )
        .and_then(|connection| {
            connection.busy_timeout(BUSY_TIMEOUT)?;
            // Where shared memory is not to be had this leaves the mode as it is; the header then says so.
            connection.query_row("pragma main.journal_mode = wal", [], |_| Ok(()))?;
            connection.execute_batch(concat!("begin immediate;", include_str!("schema.sql"), "commit;"))?;
            Ok(connection)
        })
        .map_err(&failed)?;
        connection.close().map_err(|(_, error)| failed(error))
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Turns an error of SQLite into one that says what was to be done.
    pub(crate) fn failed(&self, action: &'static str) -> impl Fn(rusqlite::Error) -> LocalStoreError + use<> {
        sql(action, &self.path)
    }

    /// Runs `query` on a consistent state; maybe several times, until it had one.
    pub(crate) fn read<T>(
        &self,
        action: &'static str,
        mut query: impl FnMut(&Connection) -> Result<T, LocalStoreError>,
    ) -> Result<T, LocalStoreError> {
        for _ in 0..SNAPSHOT_ATTEMPTS {
            let handle = self.take()?;
            let result = retrying(|| {
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

    /// Runs `change` in a transaction that has the write lock from its beginning: all of it happens, or nothing.
    pub(crate) fn write<T>(
        &self,
        action: &'static str,
        mut change: impl FnMut(&Connection) -> Result<T, LocalStoreError>,
    ) -> Result<T, LocalStoreError> {
        let mut handle = self.take()?;
        let result = retrying(|| {
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

    fn take(&self) -> Result<Handle, LocalStoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(handle) => Ok(handle),
            None => retrying(|| self.connect()),
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
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let (journal, header) = self.journal()?;
        let opened = match journal {
            Journal::Rollback => Connection::open_with_flags_and_vfs(&self.path, flags, "unix-dotfile"),
            Journal::WriteAhead | Journal::None => Connection::open_with_flags(&self.path, flags),
        };
        let connection = opened
            .and_then(|connection| {
                connection.busy_timeout(BUSY_TIMEOUT)?;
                connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
                connection.pragma_update(None, "foreign_keys", true)?;
                connection.pragma_update(None, "synchronous", "normal")?;
                connection.pragma_update(None, "wal_autocheckpoint", AUTOCHECKPOINT_PAGES)?;
                probe(&connection)?;
                Ok(connection)
            })
            .map_err(self.failed("open"))?;
        Ok(Handle { connection, unlocked_since: None, _header: header })
    }

    fn connect_for_reading(&self) -> Result<Handle, LocalStoreError> {
        let (journal, header) = self.journal()?;
        let write_ahead = journal == Journal::WriteAhead;
        // Fails where nobody has it open and this user cannot make the file of shared memory.
        if write_ahead && let Ok(connection) = self.open_uri("mode=ro") {
            return Ok(Handle { connection, unlocked_since: None, _header: header });
        }
        // Without commits beside the main file that file alone is the whole truth, as long as it stays so.
        let before = self.state()?;
        if write_ahead && before.pending {
            // Somebody may have opened it just now; otherwise these commits are out of this user's reach.
            let connection = self.open_uri("mode=ro").map_err(self.failed("open"))?;
            return Ok(Handle { connection, unlocked_since: None, _header: header });
        }
        // A writer with a rollback journal may be at work: then the caller tries again.
        let connection = self.open_uri("immutable=1").map_err(self.failed("open"))?;
        Ok(Handle { connection, unlocked_since: Some(before), _header: header })
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

    /// What the header says, and that header, which must outlive every connection that is opened now.
    fn journal(&self) -> Result<(Journal, Option<Header>), LocalStoreError> {
        let mut bytes = [0; 20];
        let absent = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
        };
        let header = match Header::open(&self.path) {
            Ok(header) => header,
            Err(error) if absent(&error) => return Ok((Journal::None, None)),
            Err(error) => return Err(LocalStoreError::io("open", &self.path)(error)),
        };
        let journal = match header.read(&mut bytes) {
            // Bytes 18 and 19: the versions that writers and readers must know; 2 is write-ahead logging.
            Ok(()) if matches!(bytes, [.., 2, 2]) => Journal::WriteAhead,
            Ok(()) => Journal::Rollback,
            Err(error) if absent(&error) => Journal::None,
            Err(error) => return Err(LocalStoreError::io("read", &self.path)(error)),
        };
        Ok((journal, Some(header)))
    }

    fn state(&self) -> Result<FileState, LocalStoreError> {
        let beside = |suffix: &str| {
            let mut name = self.path.clone().into_os_string();
            name.push(suffix);
            fs::metadata(name).is_ok_and(|metadata| metadata.len() > 0)
        };
        let metadata = fs::metadata(&self.path).map_err(LocalStoreError::io("examine", &self.path))?;
        Ok(FileState {
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            size: metadata.len(),
            inode: metadata.ino(),
            pending: beside("-wal") || beside("-journal"),
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

fn sql(action: &'static str, path: &Path) -> impl Fn(rusqlite::Error) -> LocalStoreError + use<> {
    let path = path.to_owned();
    move |source| LocalStoreError::Database { action, path: path.clone(), source }
}

/// Tries again for as long as the database is only busy, as Nix does.
fn retrying<T>(mut attempt: impl FnMut() -> Result<T, LocalStoreError>) -> Result<T, LocalStoreError> {
    loop {
        match attempt() {
            Err(LocalStoreError::Database { path, source, .. }) if is_busy(&source) => {
                tracing::warn!(database = %path.display(), "the database is busy");
                thread::sleep(RETRY_PAUSE);
            }
            result => return result,
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::FileLockingProtocolFailed))
}
