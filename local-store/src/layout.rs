//! The directories and files of a store, made where they are missing.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use rustix::fs::{FallocateFlags, FlockOperation};

use crate::{
    LocalStoreConfig, LocalStoreError, Symlinks,
    database::Database,
    directory::Directory,
    mount,
    owners::{self, Last},
};

/// The one schema since Nix 1.11.
const SCHEMA: u64 = 10;
/// Longest content of `db/schema` that is looked at.
const SCHEMA_FILE_LIMIT: usize = 32;
/// Space that the garbage collector frees before it begins, as it must write to the database on a full disk.
const RESERVED_BYTES: u64 = 8 << 20;

/// What the file that becomes `schema` is called until then, with a process id behind.
const TEMPORARY_SCHEMA: &str = "schema.new-";

/// Held by whoever of this process looks for a database and makes one.
static CREATING: Mutex<()> = Mutex::new(());

/// What is held open of a store that may be written to.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Where the objects lie.
    pub(crate) objects: Arc<Directory>,
    /// Locked as long as it is open: nobody changes the schema meanwhile.
    _schema_lock: File,
}

/// Makes the store in `config` if there is none, and locks its schema.
pub(crate) fn prepare(config: &LocalStoreConfig) -> Result<Layout, LocalStoreError> {
    if config.symlinks == Symlinks::Refuse {
        refuse_symlinks(config)?;
    }
    // Before anything is made, and again when all is there.
    check_owners(config)?;
    let objects = mount::open_writable(&config.real_store_dir)?;
    objects.make_below(".links")?;
    let state = Directory::make(&config.state_dir)?;
    let database = state.make_below("db")?;
    state.make_below("temproots")?;
    for (above, name) in [("gcroots", "auto"), ("gcroots", "per-user"), ("profiles", "per-user")] {
        Directory::make(&state.path_of(above).join(name))?;
    }
    check_owners(config)?;
    let schema_lock = lock_schema(&database)?;
    // Other processes may be at it too, which SQLite sorts out; its locks do not hold between threads of one process
    // that close the file.
    let creating = CREATING.lock().unwrap_or_else(PoisonError::into_inner);
    match read_schema(&database.path_of("schema"))? {
        Some(SCHEMA) => {}
        Some(found) => {
            let path = database.path_of("schema");
            return Err(LocalStoreError::Schema { path, found, supported: SCHEMA });
        }
        None => {
            database.create_file("db.sqlite", 0o644)?;
            Database::create(config)?;
            write_schema(&database)?;
        }
    }
    drop(creating);
    reserve_space(&database);
    Ok(Layout { objects: Arc::new(objects), _schema_lock: schema_lock })
}

fn check_owners(config: &LocalStoreConfig) -> Result<(), LocalStoreError> {
    owners::check(&config.real_store_dir, Last::Shared)?;
    owners::check(&config.database_dir(), Last::Closed)?;
    owners::check(&config.state_dir.join("temproots"), Last::Closed)
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

/// Links that lead to the root of a chroot store do no harm, as its paths do not depend on it.
fn refuse_symlinks(config: &LocalStoreConfig) -> Result<(), LocalStoreError> {
    let store = &config.real_store_dir;
    let root = config.root.as_deref().filter(|root| store.starts_with(root));
    for path in store.ancestors().take_while(|path| Some(*path) != root) {
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

fn lock_schema(database: &Directory) -> Result<File, LocalStoreError> {
    let file = database.make_file("big-lock", 0o600)?;
    // Exclusive is only who changes the schema; that ends by itself.
    rustix::fs::flock(&file, FlockOperation::LockShared)
        .map_err(LocalStoreError::io("lock", database.path_of("big-lock")))?;
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
fn write_schema(database: &Directory) -> Result<(), LocalStoreError> {
    let temporary = format!("{TEMPORARY_SCHEMA}{}", std::process::id());
    let mut file = database.make_file(&temporary, 0o644)?;
    file.write_all(SCHEMA.to_string().as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(LocalStoreError::io("write", database.path_of(&temporary)))?;
    match database.rename(&temporary, "schema") {
        // A process of the same number in another container was at it too, or removed it below.
        Err(error) if error.kind() == io::ErrorKind::NotFound && database.status("schema")?.is_some() => {}
        renamed => renamed.map_err(LocalStoreError::io("create", database.path_of("schema")))?,
    }
    remove_temporary_schemas(database);
    Ok(())
}

/// Of processes that were killed in between. Whoever is at it right now finds that the schema is there.
fn remove_temporary_schemas(database: &Directory) {
    let Ok(entries) = fs::read_dir(database.path()) else { return };
    for name in entries.flatten().map(|entry| entry.file_name()) {
        if let Some(name) = name.to_str().filter(|name| name.starts_with(TEMPORARY_SCHEMA))
            && let Err(error) = database.remove_file(name)
        {
            tracing::debug!(%error, "a temporary file stays behind");
        }
    }
}

fn reserve_space(database: &Directory) {
    let reserve = || {
        let path = database.path_of("reserved");
        let file = database.make_file("reserved", 0o600)?;
        let size = file.metadata().map_err(LocalStoreError::io("examine", &path))?.len();
        if size != RESERVED_BYTES {
            rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, RESERVED_BYTES)
                .map_err(LocalStoreError::io("reserve space in", &path))?;
            file.set_len(RESERVED_BYTES).map_err(LocalStoreError::io("resize", &path))?;
        }
        Ok::<_, LocalStoreError>(())
    };
    // Only a comfort for the collector: a full disk is no reason not to open the store.
    if let Err(error) = reserve() {
        tracing::debug!(%error, "no space reserved for the garbage collector");
    }
}
