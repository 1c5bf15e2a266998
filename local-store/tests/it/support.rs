//! Scratch stores, objects that lie, and other programs.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use bytes::Bytes;
use futures_util::StreamExt as _;
use ncc_local_store::{Access, LocalStore, LocalStoreConfig};
use ncc_nar::{Encoder, Executable};
use ncc_store::{
    ContentAddress, Destination as _, NarHash, NarPlan, OnFailure, Outcome, Outcomes, PathInfo, Source,
    StoreDir, StoreError, StorePath,
    test_util::{MemoryStore, Script, script},
};

/// A directory that other users can look into, away again after the test.
pub(crate) struct Scratch(tempfile::TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self(directory)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().canonicalize().unwrap()
    }

    pub(crate) fn store(&self) -> LocalStore {
        open(&self.path())
    }
}

/// Objects are read-only, which stops `TempDir` where tests do not run as root.
impl Drop for Scratch {
    fn drop(&mut self) {
        if let Ok(objects) = fs::read_dir(self.0.path().join("nix/store")) {
            for object in objects.flatten() {
                let _ = ncc_nar::remove(&object.path());
            }
        }
    }
}

pub(crate) fn open(root: &Path) -> LocalStore {
    LocalStore::open(LocalStoreConfig::chroot(root), Access::ReadWrite).unwrap()
}

pub(crate) fn open_read_only(root: &Path) -> LocalStore {
    LocalStore::open(LocalStoreConfig::chroot(root), Access::ReadOnly).unwrap()
}

pub(crate) fn full(path: &StorePath) -> String {
    StoreDir::default().full(path)
}

/// Adds everything in `memory`.
pub(crate) async fn add_all(store: &LocalStore, memory: &MemoryStore) -> Vec<Result<Outcome, StoreError>> {
    add_from(store, memory, memory.infos(&memory.paths())).collect().await
}

/// Adds everything in `memory`, all of which must be new.
pub(crate) async fn fill(store: &LocalStore, memory: &MemoryStore) {
    for outcome in add_all(store, memory).await {
        assert!(matches!(outcome, Ok(Outcome::Added(_))), "{outcome:?}");
    }
}

/// Adds what a script says, going on behind what fails.
pub(crate) fn add_script(store: &LocalStore, (plan, nars): Script) -> Outcomes {
    store.add_all(plan, nars, OnFailure::Continue)
}

/// Adds `plan` from another store.
pub(crate) fn add_from(store: &LocalStore, source: &dyn Source, plan: NarPlan) -> Outcomes {
    let nars = source.nars(plan.clone());
    store.add_all(plan, nars, OnFailure::Continue)
}

/// Adds one object with this body.
pub(crate) async fn add_one(
    store: &LocalStore,
    info: PathInfo,
    body: Vec<Result<Bytes, StoreError>>,
) -> Result<Outcome, StoreError> {
    let mut outcomes: Vec<_> = add_script(store, script([(info, body)])).collect().await;
    assert_eq!(outcomes.len(), 1);
    outcomes.pop().unwrap()
}

/// The error and all its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The failure of the one path that was added.
pub(crate) fn failure(outcome: Result<Outcome, StoreError>) -> String {
    match outcome {
        Ok(Outcome::Failed { error, .. }) => chain(&error),
        other => panic!("expected a failed path, got {other:?}"),
    }
}

/// A tree with everything an archive can hold.
pub(crate) fn tree_nar(text: &[u8]) -> Vec<u8> {
    let mut nar = Encoder::new(Vec::new());
    nar.directory().unwrap();
    nar.entry("bin").unwrap();
    nar.directory().unwrap();
    nar.entry("run").unwrap();
    nar.file(Executable::Yes, text).unwrap();
    nar.directory_end().unwrap();
    nar.entry("empty").unwrap();
    nar.file(Executable::No, "").unwrap();
    nar.entry("hollow").unwrap();
    nar.directory().unwrap();
    nar.directory_end().unwrap();
    nar.entry("link").unwrap();
    nar.symlink("bin/run").unwrap();
    nar.entry(b"\xff name").unwrap();
    nar.file(Executable::No, "bytes").unwrap();
    nar.directory_end().unwrap();
    nar.finish().unwrap()
}

/// A path that says nothing about its content.
pub(crate) fn output(name: &str, nar: &[u8]) -> PathInfo {
    let inner = NarHash::of(name.as_bytes());
    let path =
        ncc_store::make_store_path("output:out", inner.as_bytes(), &StoreDir::default(), name).unwrap();
    PathInfo::new(path, NarHash::of(nar), nar.len() as u64)
}

/// A path with this claim, true or false.
pub(crate) fn claimed(name: &str, claim: &str, nar: &[u8]) -> PathInfo {
    let claim: ContentAddress = claim.parse().unwrap();
    let path = claim.store_path(&StoreDir::default(), name, &[].into_iter().collect(), None).unwrap();
    let mut info = PathInfo::new(path, NarHash::of(nar), nar.len() as u64);
    info.content_address = Some(claim);
    info
}

pub(crate) fn whole(nar: &[u8]) -> Vec<Result<Bytes, StoreError>> {
    vec![Ok(Bytes::copy_from_slice(nar))]
}

/// Every object in the database is on the disk, with the hash it is registered with.
pub(crate) fn assert_sound(store: &LocalStore) -> usize {
    let paths = registered(store);
    for info in store.query_path_infos(&paths).unwrap() {
        let mut hasher = ncc_store::NarHasher::new();
        store.write_nar(&info.path, &mut hasher).unwrap();
        assert_eq!(hasher.finish(), (info.nar_hash, info.nar_size), "{}", info.path);
    }
    paths.len()
}

pub(crate) fn database(store: &LocalStore) -> rusqlite::Connection {
    rusqlite::Connection::open(store.state_dir().join("db/db.sqlite")).unwrap()
}

pub(crate) fn registered(store: &LocalStore) -> Vec<StorePath> {
    rows(store, "select path from ValidPaths order by path")
        .iter()
        .map(|row| store.store_dir().parse(row).unwrap())
        .collect()
}

/// The rows of a query, columns joined by `|`, NULL as nothing.
pub(crate) fn rows(store: &LocalStore, query: &str) -> Vec<String> {
    let connection = database(store);
    let mut statement = connection.prepare(query).unwrap();
    let columns = statement.column_count();
    statement
        .query_map([], |row| {
            let cells: Vec<String> = (0..columns)
                .map(|column| match row.get::<_, rusqlite::types::Value>(column).unwrap() {
                    rusqlite::types::Value::Null => String::new(),
                    rusqlite::types::Value::Integer(number) => number.to_string(),
                    rusqlite::types::Value::Text(text) => text,
                    other => format!("{other:?}"),
                })
                .collect();
            Ok(cells.join("|"))
        })
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap()
}

/// Names in the real store directory other than `.links`.
pub(crate) fn on_disk(store: &LocalStore) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(store.real_store_dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != ".links")
        .collect();
    names.sort();
    names
}

/// Says that something is left out, or fails where that is not allowed.
pub(crate) fn left_out(what: &str) {
    assert!(
        env::var_os("NCC_REQUIRE_REAL").is_none_or(|value| value != "1"),
        "NCC_REQUIRE_REAL=1, but {what}"
    );
    eprintln!("\n*** LEFT OUT: {what} ***\n");
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs this test program again, for one of its ignored functions.
pub(crate) fn child(function: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", function, "--ignored", "--nocapture", "--test-threads=1"]);
    command
}

/// Whether Nix is installed here.
pub(crate) fn nix_is_here() -> bool {
    let here =
        Command::new("nix-store").arg("--version").output().is_ok_and(|output| output.status.success());
    if !here {
        left_out("no nix-store here: nothing was compared with real Nix");
    }
    here
}

/// Runs a program of Nix on the chroot store in `root`.
pub(crate) fn nix<S: AsRef<OsStr>>(
    root: &Path,
    program: &str,
    arguments: impl IntoIterator<Item = S>,
) -> Output {
    let mut command = Command::new(program);
    command.env("NIX_REMOTE", "").env("HOME", root).env(
        "NIX_CONFIG",
        "extra-experimental-features = nix-command\nsandbox = false\nsubstitute = false\nbuild-users-group =",
    );
    if program != "nix" {
        command.arg("--store").arg(root);
    }
    command.args(arguments).output().unwrap()
}

/// The same, which must succeed: what it printed.
pub(crate) fn nix_ok<S: AsRef<OsStr>>(
    root: &Path,
    program: &str,
    arguments: impl IntoIterator<Item = S>,
) -> String {
    let output = nix(root, program, arguments);
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
