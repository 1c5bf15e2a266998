//! The directories and files of a store, made where they are missing.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use rustix::fs::{FallocateFlags, FlockOperation, OFlags, StatVfsMountFlags};

use crate::{LocalStoreConfig, LocalStoreError, Symlinks, database::Database};

/// The one schema since Nix 1.11.
const SCHEMA: u64 = 10;
/// Longest content of `db/schema` that is looked at.
const SCHEMA_FILE_LIMIT: usize = 32;
/// Space that the garbage collector frees before it begins, as it must write to the database on a full disk.
const RESERVED_BYTES: u64 = 8 << 20;

/// Held by whoever of this process looks for a database and makes one.
static CREATING: Mutex<()> = Mutex::new(());

/// Makes the store in `config` if there is none, and locks its schema. The lock ends with the file.
pub(crate) fn prepare(config: &LocalStoreConfig) -> Result<File, LocalStoreError> {
    if config.symlinks == Symlinks::Refuse {
        refuse_symlinks(&config.real_store_dir)?;
    }
    let state = |name: &str| config.state_dir.join(name);
    make_directory(&config.real_store_dir)?;
    refuse_read_only_mount(&config.real_store_dir)?;
    make_directory(&config.real_store_dir.join(".links"))?;
    for name in ["db", "temproots", "gcroots/auto", "gcroots/per-user", "profiles/per-user"] {
        make_directory(&state(name))?;
    }
    let lock = lock_schema(&state("db/big-lock"))?;
    // Other processes may be at it too, which SQLite sorts out; its locks do not hold between threads of one process
    // that close the file.
    let creating = CREATING.lock().unwrap_or_else(PoisonError::into_inner);
    match read_schema(&state("db/schema"))? {
        Some(SCHEMA) => {}
        Some(found) => {
            return Err(LocalStoreError::Schema { path: state("db/schema"), found, supported: SCHEMA });
        }
        None => {
            create_file(&config.database_file(), 0o644)?;
            Database::create(&config.database_file())?;
            write_schema(&config.database_dir())?;
        }
    }
    drop(creating);
    reserve_space(&state("db/reserved"));
    Ok(lock)
}

/// Checks that the store in `config` is one that this crate can read.
pub(crate) fn check(config: &LocalStoreConfig) -> Result<(), LocalStoreError> {
    let path = config.database_dir().join("schema");
    match read_schema(&path)? {
        Some(SCHEMA) => Ok(()),
        Some(found) => Err(LocalStoreError::Schema { path, found, supported: SCHEMA }),
        None => Err(LocalStoreError::NoStore { path: config.database_file() }),
    }
}

/// Opens a file, creating it with exactly this mode. Follows no link.
pub(crate) fn make_file(path: &Path, mode: u32) -> Result<File, LocalStoreError> {
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    loop {
        if let Some(file) = create_file(path, mode)? {
            return Ok(file);
        }
        match OpenOptions::new().read(true).write(true).custom_flags(flags).open(path) {
            // Removed between the two calls, as lock files are. (A link that leads nowhere is another error.)
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened.map_err(LocalStoreError::io("open", path)),
        }
    }
}

/// Creates a file with exactly this mode, unless there is one.
fn create_file(path: &Path, mode: u32) -> Result<Option<File>, LocalStoreError> {
    let failed = |error| LocalStoreError::io("create", path)(error);
    match OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path) {
        Ok(file) => {
            // The mode above passed through the umask, which leaves the owner alone.
            if mode & 0o077 != 0 {
                file.set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
            }
            Ok(Some(file))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

fn make_directory(path: &Path) -> Result<(), LocalStoreError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_directory(parent)?;
    }
    match fs::DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(0o755))
            .map_err(LocalStoreError::io("set the mode of", path)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(LocalStoreError::io("create directory", path)(error)),
    }
}

fn refuse_symlinks(store: &Path) -> Result<(), LocalStoreError> {
    for path in store.ancestors() {
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_symlink() => {
                return Err(LocalStoreError::SymlinkedStore { path: path.to_owned() });
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(LocalStoreError::io("examine", path)(error)),
        }
    }
    Ok(())
}

/// NixOS mounts the store read-only, and Nix itself remounts it in a mount namespace of its own.
fn refuse_read_only_mount(store: &Path) -> Result<(), LocalStoreError> {
    let statistics = rustix::fs::statvfs(store).map_err(LocalStoreError::errno("examine", store))?;
    if statistics.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err(LocalStoreError::ReadOnlyMount { path: store.to_owned() });
    }
    Ok(())
}

fn lock_schema(path: &Path) -> Result<File, LocalStoreError> {
    let file = make_file(path, 0o600)?;
    // Exclusive is only who changes the schema; that ends by itself.
    rustix::fs::flock(&file, FlockOperation::LockShared).map_err(LocalStoreError::errno("lock", path))?;
    Ok(file)
}

fn read_schema(path: &Path) -> Result<Option<u64>, LocalStoreError> {
    let content = match fs::read(path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LocalStoreError::io("read", path)(error)),
    };
    let text = String::from_utf8_lossy(content.get(..SCHEMA_FILE_LIMIT).unwrap_or(&content));
    text.trim().parse().map(Some).map_err(|_| LocalStoreError::BadSchema {
        path: path.to_owned(),
        text: text.escape_debug().to_string(),
    })
}

/// By way of a rename, because an empty file would stop every Nix.
fn write_schema(directory: &Path) -> Result<(), LocalStoreError> {
    let path = directory.join("schema");
    let temporary = directory.join(format!("schema.new-{}", std::process::id()));
    let mut file = make_file(&temporary, 0o644)?;
    file.write_all(SCHEMA.to_string().as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(LocalStoreError::io("write", &temporary))?;
    match fs::rename(&temporary, &path) {
        // A process of the same number in another container was at it too, and done first.
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.exists() => Ok(()),
        renamed => renamed.map_err(LocalStoreError::io("create", path)),
    }
}

fn reserve_space(path: &PathBuf) {
    let reserve = || {
        let file = make_file(path, 0o600)?;
        let size = file.metadata().map_err(LocalStoreError::io("examine", path))?.len();
        if size != RESERVED_BYTES {
            rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, RESERVED_BYTES)
                .map_err(LocalStoreError::errno("reserve space in", path))?;
            file.set_len(RESERVED_BYTES).map_err(LocalStoreError::io("resize", path))?;
        }
        Ok::<_, LocalStoreError>(())
    };
    // Only a comfort for the collector: a full disk is no reason not to open the store.
    if let Err(error) = reserve() {
        tracing::debug!(%error, "no space reserved for the garbage collector");
    }
}
