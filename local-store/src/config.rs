//! Where a local store lies, and how it is opened.

use std::path::{Path, PathBuf};

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

/// Where a local store lies.
///
/// ```
/// use ncc_local_store::LocalStoreConfig;
///
/// let config = LocalStoreConfig::chroot("/mnt");
/// assert_eq!(config.real_store_dir, std::path::Path::new("/mnt/nix/store"));
/// assert_eq!(config, LocalStoreConfig::from_uri("local?root=/mnt")?);
/// # Ok::<(), ncc_local_store::StoreUriError>(())
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
    /// How messages call the store.
    pub name: String,
    /// Whether the store directory may be reached through symlinks.
    pub symlinks: Symlinks,
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
            name: "the local store".to_owned(),
            store_dir,
            symlinks: Symlinks::default(),
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
            store_dir: defaults.store_dir.clone().unwrap_or_default(),
            real_store_dir: root.join(CHROOT_STORE_DIR),
            state_dir: root.join(CHROOT_STATE_DIR),
            name: format!("the store in {}", root.display()),
            symlinks: Symlinks::default(),
        }
    }

    /// With another name for messages.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// With symlinks allowed or refused.
    #[must_use]
    pub const fn with_symlinks(mut self, symlinks: Symlinks) -> Self {
        self.symlinks = symlinks;
        self
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
