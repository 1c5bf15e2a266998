//! Where a local store lies, and how it is opened.

use std::path::{Path, PathBuf};

use ncc_nar::{CaseHack, DEFAULT_IGNORED_ACLS};
use ncc_store::StoreDir;

/// The state directory of a system-wide Nix.
const SYSTEM_STATE_DIR: &str = "/nix/var/nix";
/// Where a chroot store keeps its objects, whatever its logical store directory is.
const CHROOT_STORE_DIR: &str = "nix/store";
/// Where a chroot store keeps its state.
const CHROOT_STATE_DIR: &str = "nix/var/nix";

/// What the caller may do with a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Read and add. Creates the store if there is none, and takes part in all of Nix's locking.
    #[default]
    ReadWrite,
    /// Read only: needs no more than the right to read, and fails where there is no store. Changes nothing, but for
    /// the empty `-wal` and `-shm` that SQLite makes beside the database where it may, as Nix since 2.23 does.
    ReadOnly,
}

/// Whether the store directory may be reached through symlinks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Symlinks {
    /// No, as in Nix: builds that resolve them would record another store directory.
    #[default]
    Refuse,
    /// Yes, as with Nix's setting `allow-symlinked-store`.
    Allow,
}

/// What a store lies on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Medium {
    /// A file system where this process, or others, may write.
    #[default]
    Writable,
    /// One where nobody writes, as with the parameter `read-only` of Nix's local store: the database is taken as it
    /// is, without locks, and commits in a write-ahead log beside it are passed over.
    ReadOnly,
}

/// When new objects are on the disk, and not only in the memory of the system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When the system gets to it, usually within half a minute. This is what Nix does unless told otherwise. If the
    /// power fails before, an object may be registered whose files are empty; `nix-store --verify --check-contents`
    /// finds it. The end of this process, however it comes, does no harm.
    #[default]
    System,
    /// Before they are registered: the file system that holds the store is synchronised once for each batch of
    /// objects. This gives what Nix's `fsync-store-paths` and `sync-before-registering` give. And once all outcomes of
    /// [`add_all`](ncc_store::Destination::add_all) have come, the registrations are on the disk as well.
    BeforeRegistration,
}

/// What becomes durable when the database is told to write a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DatabaseSync {
    /// The database cannot be damaged by a power cut, as with Nix's `fsync-metadata = true`.
    #[default]
    Normal,
    /// It is not waited for the disk; a power cut may damage it. As with `fsync-metadata = false`.
    Off,
}

/// How changes of the database are made safe. All processes that use a store must agree: each way has its own locks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Journal {
    /// A write-ahead log (Nix: `use-sqlite-wal = true`).
    #[default]
    WriteAhead,
    /// A rollback journal, and lock files in the place of locks (Nix: `use-sqlite-wal = false`): for file systems
    /// without shared memory.
    Rollback,
}

/// Whether equal files of new objects become hard links of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Optimise {
    /// No. `nix-store --optimise` does it later.
    #[default]
    Never,
    /// Yes, by way of the directory `.links` (Nix: `auto-optimise-store = true`).
    NewObjects,
}

/// What replaces the built-in directories of Nix: the values of `NIX_STORE_DIR` and `NIX_STATE_DIR`, given by the
/// caller (this crate reads no environment).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Defaults {
    /// The logical store directory instead of `/nix/store`.
    pub store_dir: Option<StoreDir>,
    /// The state directory instead of `/nix/var/nix`; chroot stores have their own.
    pub state_dir: Option<PathBuf>,
}

impl Defaults {
    /// With another logical store directory.
    #[must_use]
    pub fn with_store_dir(mut self, store_dir: StoreDir) -> Self {
        self.store_dir = Some(store_dir);
        self
    }

    /// With another state directory.
    #[must_use]
    pub fn with_state_dir(mut self, state_dir: impl Into<PathBuf>) -> Self {
        self.state_dir = Some(state_dir.into());
        self
    }
}

/// Where a local store lies, and how it is kept.
///
/// Change the fields of what one of the constructors returns:
///
/// ```
/// use ncc_local_store::{Durability, LocalStoreConfig};
///
/// let mut config = LocalStoreConfig::chroot("/mnt");
/// assert_eq!(config.real_store_dir, std::path::Path::new("/mnt/nix/store"));
/// config.durability = Durability::BeforeRegistration;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LocalStoreConfig {
    /// The prefix of all path texts, which is part of every digest.
    pub store_dir: StoreDir,
    /// Where the objects lie on disk.
    pub real_store_dir: PathBuf,
    /// Where database, temporary roots and collector locks lie.
    pub state_dir: PathBuf,
    /// The root of a chroot store.
    pub root: Option<PathBuf>,
    /// How messages call the store.
    pub name: String,
    /// Whether the store directory may be reached through symlinks. The way to the root of a chroot store may lead
    /// over symlinks in any case.
    pub symlinks: Symlinks,
    /// Whether anybody writes to the store.
    pub medium: Medium,
    /// When new objects are safe from a power cut.
    pub durability: Durability,
    /// Whether the database is safe from one.
    pub database_sync: DatabaseSync,
    /// How the database is journaled.
    pub journal: Journal,
    /// Whether names in objects that differ in case only have a suffix on this disk (Nix: `use-case-hack`). This must
    /// be what the store was filled with. [`CaseHack::On`] is Nix's default on macOS.
    pub case_hack: CaseHack,
    /// Extended attributes that new objects may keep: some file systems have such as nobody may remove. All others are
    /// removed.
    pub ignored_acls: Vec<String>,
    /// Whether new objects share equal files with others.
    pub optimise: Optimise,
}

/// The store of the system.
impl Default for LocalStoreConfig {
    fn default() -> Self {
        Self::system(&Defaults::default())
    }
}

impl LocalStoreConfig {
    /// The store of the system: `/nix/store` and `/nix/var/nix`, or what `defaults` says.
    pub fn system(defaults: &Defaults) -> Self {
        let store_dir = defaults.store_dir.clone().unwrap_or_default();
        Self {
            real_store_dir: PathBuf::from(store_dir.as_str()),
            state_dir: defaults.state_dir.clone().unwrap_or_else(|| SYSTEM_STATE_DIR.into()),
            root: None,
            name: "the local store".to_owned(),
            store_dir,
            symlinks: Symlinks::default(),
            medium: Medium::default(),
            durability: Durability::default(),
            database_sync: DatabaseSync::default(),
            journal: Journal::default(),
            case_hack: if cfg!(target_vendor = "apple") { CaseHack::On } else { CaseHack::Off },
            ignored_acls: DEFAULT_IGNORED_ACLS.map(str::to_owned).to_vec(),
            optimise: Optimise::default(),
        }
    }

    /// The chroot store in `root`, as Nix means it with `--store root`: files in `root/nix/store`, state in
    /// `root/nix/var/nix`, while its paths are texts in `/nix/store`.
    pub fn chroot(root: impl AsRef<Path>) -> Self {
        Self::chroot_with(root, &Defaults::default())
    }

    /// The same with another logical store directory. (The state directory of `defaults` does not count.)
    pub fn chroot_with(root: impl AsRef<Path>, defaults: &Defaults) -> Self {
        let root = root.as_ref();
        Self {
            real_store_dir: root.join(CHROOT_STORE_DIR),
            state_dir: root.join(CHROOT_STATE_DIR),
            root: Some(root.to_owned()),
            name: format!("the store in {}", root.display()),
            ..Self::system(defaults)
        }
    }

    /// The directory of the database.
    pub(crate) fn database_dir(&self) -> PathBuf {
        self.state_dir.join("db")
    }

    /// The database file.
    pub(crate) fn database_file(&self) -> PathBuf {
        self.database_dir().join("db.sqlite")
    }
}
