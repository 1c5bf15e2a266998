//! What can go wrong in a store on this disk.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use ncc_store::{
    Cause, ContentAddressError, HashError, NarHash, Problem, Scope, Side, StoreError, StorePath,
    StorePathError,
};
use rustix::io::Errno;

/// Why a store on this disk could not do its part. Every variant names the file, the path or the row it is about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalStoreError {
    /// A system call on a file failed.
    #[error("cannot {action} '{path}'")]
    Io {
        /// A verb: "create directory", "open", "lock".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The database said no.
    #[error("cannot {action} in database '{path}'")]
    Database {
        /// A verb: "register paths", "read path metadata".
        action: &'static str,
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// Read-only access to a place where there is no store.
    #[error("there is no Nix store with database '{path}'")]
    NoStore {
        /// The database file that does not exist.
        path: PathBuf,
    },
    /// The database was made by a Nix that is newer or older than this program understands.
    #[error("the database of '{path}' has schema {found}, only schema {supported} is supported")]
    Schema {
        /// The file that holds the number.
        path: PathBuf,
        /// The number.
        found: u64,
        /// The one this crate knows.
        supported: u64,
    },
    /// The file that holds the schema number holds something else.
    #[error("'{path}' holds '{text}', which is no schema number")]
    BadSchema {
        /// The file.
        path: PathBuf,
        /// Its content, made printable and cut.
        text: String,
    },
    /// The store directory, or one above it, is a symlink.
    #[error("'{path}' is a symlink, which the store directory and those above it must not be")]
    SymlinkedStore {
        /// The symlink.
        path: PathBuf,
    },
    /// The store directory lies on a file system that is mounted read-only.
    #[error("store directory '{path}' is mounted read-only{}", remount_advice(source.as_ref()))]
    ReadOnlyMount {
        /// The real store directory.
        path: PathBuf,
        /// Why it could not be remounted for this process alone; nothing where all of the file system is read-only.
        #[source]
        source: Option<io::Error>,
    },
    /// Root was to write to a store in a place where another user could have it write elsewhere.
    #[error(
        "root does not write to a store by way of '{path}', which {reason}: copy as the owner of the store, or let \
         nobody but root write to that directory"
    )]
    ForeignDirectory {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: ForeignReason,
    },
    /// The store was opened with [`Access::ReadOnly`](crate::Access::ReadOnly).
    #[error("the store in '{path}' was opened for reading only")]
    OpenedReadOnly {
        /// The real store directory.
        path: PathBuf,
    },
    /// The store was opened with [`Medium::ReadOnly`](crate::Medium::ReadOnly), to be written to.
    #[error("the store in '{path}' is configured to be read-only")]
    ReadOnlyStore {
        /// The real store directory.
        path: PathBuf,
    },
    /// There are commits beside the database which only a process that may write there can read.
    #[error(
        "database '{path}' has a write-ahead log, which cannot be read on a read-only file system: read the store \
         without it (store parameter 'read-only=true'), or mount it for writing once"
    )]
    LeftoverLog {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The database is kept in another way than configured, and cannot be changed to that.
    #[error("database '{path}' {found}: all that use it must have the same setting 'use-sqlite-wal'")]
    OtherJournal {
        /// The database file.
        path: PathBuf,
        /// How it is kept.
        found: &'static str,
    },
    /// The database goes on changing under a reader that cannot take part in its locking.
    #[error("database '{path}' changed while it was read, {attempts} times")]
    Unstable {
        /// The database file.
        path: PathBuf,
        /// How often it was tried.
        attempts: u32,
    },
    /// A row of `ValidPaths` that this crate cannot make sense of.
    #[error("row {row} of database '{database}' (path '{path}') has an unusable {column}")]
    BadRow {
        /// The database file.
        database: PathBuf,
        /// Its id.
        row: i64,
        /// The path it is about, as it stands there.
        path: String,
        /// The column.
        column: &'static str,
        /// What is wrong with it.
        #[source]
        source: Cause,
    },
    /// A path refers to a row that is gone, as after a forced removal or a crash of the machine.
    #[error(
        "'{path}' refers to row {row} of database '{database}', which does not exist: 'nix-store --verify' finds \
         such damage"
    )]
    LostReference {
        /// The referrer.
        path: StorePath,
        /// The database file.
        database: PathBuf,
        /// The id.
        row: i64,
    },
    /// Asked about a path that is not registered.
    #[error("path '{path}' is not valid")]
    NotValid {
        /// The full path.
        path: String,
    },
    /// An object could not be read from the disk.
    #[error("cannot read object '{path}'")]
    Read {
        /// Where it lies.
        path: PathBuf,
        /// Why.
        #[source]
        source: ncc_nar::Error,
    },
    /// An object could not be written to the disk.
    #[error("cannot write object '{path}'")]
    Write {
        /// Where it was to lie.
        path: PathBuf,
        /// Why.
        #[source]
        source: ncc_nar::Error,
    },
    /// What lay at the place of a new object could not be removed.
    #[error("cannot remove what lies at '{path}'")]
    Remove {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: ncc_nar::Error,
    },
    /// The bytes are no NAR.
    #[error("what came as '{path}' is no canonical archive")]
    Malformed {
        /// The path.
        path: StorePath,
        /// What is wrong with them.
        #[source]
        source: ncc_nar::Error,
    },
    /// The content is not what its metadata says.
    #[error("what came as '{path}' has NAR hash {actual}, announced was {expected}")]
    HashMismatch {
        /// The path.
        path: StorePath,
        /// Announced.
        expected: NarHash,
        /// Of what came.
        actual: NarHash,
    },
    /// The content is longer or shorter than its metadata says.
    #[error("what came as '{path}' has a NAR of {actual} bytes, announced were {expected}")]
    SizeMismatch {
        /// The path.
        path: StorePath,
        /// Announced.
        expected: u64,
        /// What came; where there was more than announced, what was seen until then.
        actual: u64,
    },
    /// The source of the bytes failed.
    #[error("the content of '{path}' did not arrive")]
    Body {
        /// The path.
        path: StorePath,
        /// What it said.
        #[source]
        source: StoreError,
    },
    /// The content address does not give the path it came with.
    #[error("'{path}' claims to be content-addressed by '{claim}', which does not give this path")]
    FalseClaim {
        /// The path.
        path: StorePath,
        /// The content address.
        claim: String,
        /// Why it cannot give any path, if that is so.
        #[source]
        source: Option<ContentAddressError>,
    },
    /// The content does not have the hash of the content address.
    #[error("the content of '{path}' has the hash {actual}, its content address '{claim}' says otherwise")]
    ContentMismatch {
        /// The path.
        path: StorePath,
        /// The content address.
        claim: String,
        /// What was computed.
        actual: String,
    },
    /// A content address over the bytes of a file, on something that is no file.
    #[error("'{path}' is not a regular file, which its content address '{claim}' needs")]
    NotAFile {
        /// The path.
        path: StorePath,
        /// The content address.
        claim: String,
    },
    /// A kind of content address that this crate cannot compute.
    #[error("the content address '{claim}' of '{path}' cannot be verified: {what} is not supported")]
    Unverifiable {
        /// The path.
        path: StorePath,
        /// The content address.
        claim: String,
        /// "git hashing" or the algorithm.
        what: &'static str,
    },
    /// A derivation that cannot be what its name says.
    #[error("'{path}' is not a proper derivation")]
    Derivation {
        /// The path.
        path: StorePath,
        /// Why.
        #[source]
        source: Cause,
    },
    /// A path refers to one that is not valid.
    #[error("'{path}' refers to '{reference}', which is not valid")]
    InvalidReference {
        /// The path.
        path: StorePath,
        /// What it refers to.
        reference: StorePath,
    },
    /// Where the lock file of a path must be lies something else: a store path whose name ends in `.lock`, or what
    /// somebody put there.
    #[error("'{path}' is in the place of a lock file and is none")]
    NoLockFile {
        /// Where.
        path: PathBuf,
    },
    /// The caller went away while a lock was waited for, or much was read.
    #[error("gave up on '{path}'")]
    Cancelled {
        /// The lock file, socket, database or object.
        path: PathBuf,
    },
    /// No name is left for the list of temporary roots.
    #[error("the file of temporary roots '{path}' belongs to a process that is alive")]
    TempRootsTaken {
        /// The file.
        path: PathBuf,
    },
    /// Another process removed the list of temporary roots: a collector may have deleted what it protected.
    #[error("the file of temporary roots '{path}' was removed by another process")]
    TempRootsLost {
        /// The file.
        path: PathBuf,
    },
    /// A worker thread ended in a panic.
    #[error("a worker thread of the store panicked")]
    Panicked,
    /// A name that cannot be part of a store path.
    #[error("'{name}' cannot be the name of a store path")]
    Name {
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: ContentAddressError,
    },
}

impl LocalStoreError {
    /// Wraps an error of the file system. The path is copied only if there is one.
    pub(crate) fn io<E: Into<io::Error>>(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> Self {
        move |error| Self::Io { action, path: path.as_ref().to_owned(), source: error.into() }
    }

    /// The kind of the system's error at the bottom, if there is one.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Io { source, .. } => Some(source.kind()),
            Self::Read { source, .. }
            | Self::Write { source, .. }
            | Self::Remove { source, .. }
            | Self::Malformed { source, .. } => source.io_kind(),
            Self::Database { source, .. } => database_kind(source),
            Self::ReadOnlyMount { .. } => Some(io::ErrorKind::ReadOnlyFilesystem),
            Self::NoStore { .. } => Some(io::ErrorKind::NotFound),
            _ => None,
        }
    }

    /// Whether this user may not do what was tried: another user may, or a daemon.
    pub fn is_permission_denied(&self) -> bool {
        self.io_kind() == Some(io::ErrorKind::PermissionDenied)
    }

    /// Whether the trouble is with what the database says about one path.
    pub(crate) fn concerns_one_row(&self) -> bool {
        matches!(self, Self::BadRow { .. } | Self::LostReference { .. } | Self::NotValid { .. })
    }

    /// Whether the trouble is with one object only, so that others can still be added.
    pub(crate) fn concerns_one_object(&self) -> bool {
        match self {
            Self::Malformed { .. }
            | Self::HashMismatch { .. }
            | Self::SizeMismatch { .. }
            | Self::FalseClaim { .. }
            | Self::ContentMismatch { .. }
            | Self::NotAFile { .. }
            | Self::Unverifiable { .. }
            | Self::Derivation { .. }
            | Self::NoLockFile { .. }
            | Self::InvalidReference { .. }
            | Self::Name { .. } => true,
            Self::Body { source, .. } => source.scope() == Scope::Path,
            Self::Remove { source, .. } => !source.is_out_of_descriptors(),
            // Names that this file system cannot hold, and the like. Without space, rights or descriptors nothing else
            // fares better.
            Self::Write { source, .. } => {
                !source.is_out_of_descriptors()
                    && !matches!(
                        source.io_kind(),
                        Some(
                            io::ErrorKind::StorageFull
                                | io::ErrorKind::QuotaExceeded
                                | io::ErrorKind::ReadOnlyFilesystem
                                | io::ErrorKind::PermissionDenied
                        )
                    )
            }
            _ => false,
        }
    }

    /// Whether this process, or the system, has no descriptor left to open a file with.
    pub fn is_out_of_descriptors(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(Errno::from_io_error(source), Some(Errno::MFILE | Errno::NFILE))
            }
            Self::Read { source, .. } | Self::Write { source, .. } | Self::Remove { source, .. } => {
                source.is_out_of_descriptors()
            }
            _ => false,
        }
    }

    /// As an error of store `name`, about `path` if it is about one.
    pub(crate) fn about(
        self,
        side: Side,
        name: &str,
        action: &'static str,
        path: Option<&StorePath>,
    ) -> StoreError {
        let (side, store, problem) = match (self, path) {
            // The source's own words.
            (Self::Body { source, .. }, _) => return source,
            (Self::NotValid { path }, _) => (side, name.to_owned(), Problem::NotValid { path }),
            (error, Some(path))
                if error.concerns_one_object() || side == Side::Source && !error.is_out_of_descriptors() =>
            {
                (side, name.to_owned(), Problem::Path { action, path: path.clone(), source: Box::new(error) })
            }
            (error, path) => {
                let problem = Problem::Store { action, path: path.cloned(), source: Box::new(error) };
                (side, name.to_owned(), problem)
            }
        };
        StoreError::new(side, store, problem)
    }
}

/// What lets another user exchange the entries of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ForeignReason {
    /// It belongs to the user of this id.
    Owner(u32),
    /// Others may write to it: its mode.
    Mode(u32),
}

impl fmt::Display for ForeignReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner(user) => write!(formatter, "belongs to user {user}"),
            Self::Mode(mode) => write!(formatter, "others may write to (mode {mode:04o})"),
        }
    }
}

fn remount_advice(source: Option<&io::Error>) -> &'static str {
    let errno = source.and_then(Errno::from_io_error);
    match errno {
        Some(Errno::PERM) => ", and only root may remount it for this process",
        Some(Errno::INVAL) => ", together with what is around it",
        Some(_) => ", and cannot be remounted for this process",
        None => "",
    }
}

fn database_kind(error: &rusqlite::Error) -> Option<io::ErrorKind> {
    match error.sqlite_error_code()? {
        rusqlite::ErrorCode::ReadOnly
        | rusqlite::ErrorCode::PermissionDenied
        | rusqlite::ErrorCode::CannotOpen => {
            // Root is not kept out by rights.
            (!rustix::process::geteuid().is_root()).then_some(io::ErrorKind::PermissionDenied)
        }
        rusqlite::ErrorCode::DiskFull => Some(io::ErrorKind::StorageFull),
        _ => None,
    }
}

/// For [`LocalStoreError::BadRow`]: a column that holds nothing, or something of another type.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ColumnError {
    #[error(transparent)]
    Hash(#[from] HashError),
    #[error(transparent)]
    Path(#[from] StorePathError),
    #[error(transparent)]
    ContentAddress(#[from] ContentAddressError),
    #[error("{0} is no size")]
    Size(i64),
}

/// For [`LocalStoreError::Derivation`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum DerivationTrouble {
    #[error("it is not a regular file")]
    NotAFile,
    #[error("it is over {limit} bytes long")]
    TooLong { limit: u64 },
}
