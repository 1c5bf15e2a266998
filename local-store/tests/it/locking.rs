//! Several writers, in this process and others.

use std::{
    fs::{self, File},
    io::Write as _,
    thread,
    time::Duration,
};

use futures_util::StreamExt as _;
use ncc_store::{
    Destination as _, Outcome, ValidityQuery,
    test_util::{MemoryStore, file_nar, script},
};
use rustix::fs::FlockOperation;

use crate::support::*;

#[test]
fn a_path_under_a_foreign_lock_is_waited_for_and_then_found_valid() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let nar = file_nar(b"theirs");
    let info = output("x", &nar);
    let lock_path = store.real_store_dir().join(format!("{}.lock", info.path));
    let mut lock = File::create(&lock_path).unwrap();
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let nars = script([
        (output("before", &nar), whole(&nar)),
        (info.clone(), whole(&nar)),
        (output("after", &nar), whole(&nar)),
    ]);
    let mut outcomes = add_script(&store, nars);
    let before = runtime.block_on(outcomes.next());
    assert!(matches!(before, Some(Ok(Outcome::Added(_)))), "registered before waiting: {before:?}");
    let lock_of_before = store.real_store_dir().join(format!("{}.lock", output("before", &nar).path));
    assert!(!lock_of_before.exists(), "nothing is held while waiting");

    let rest = runtime.spawn(outcomes.collect::<Vec<_>>());
    thread::sleep(Duration::from_millis(200));
    assert!(!rest.is_finished());
    // The other one is done: object, row, then the lock file goes, with a byte for those who wait.
    let mut options = ncc_nar::UnpackOptions::default();
    options.metadata = ncc_nar::Metadata::Canonical;
    ncc_nar::unpack(&nar[..], &store.real_path(&info.path), &options).unwrap();
    database(&store)
        .execute(
            "insert into ValidPaths (path, hash, registrationTime, narSize) values (?1, ?2, 1, ?3)",
            rusqlite::params![
                full(&info.path),
                format!("sha256:{}", info.nar_hash.to_base16()),
                i64::try_from(info.nar_size).unwrap()
            ],
        )
        .unwrap();
    fs::remove_file(&lock_path).unwrap();
    lock.write_all(b"d").unwrap();
    drop(lock);
    let rest = runtime.block_on(rest).unwrap();
    assert!(matches!(&rest[0], Ok(Outcome::AlreadyValid(path)) if *path == info.path), "{rest:?}");
    assert!(matches!(&rest[1], Ok(Outcome::Added(_))), "{rest:?}");
    assert_eq!(assert_sound(&store), 3);
    assert_eq!(on_disk(&store).len(), 3, "{:?}", on_disk(&store));
}

/// A writer that is killed behind the registration of a batch has not let go of its last locks: those of the root and of some of what
/// it refers to. The next copy only asks for the root.
#[tokio::test]
async fn lock_files_of_a_writer_that_was_killed_behind_the_registration_go_with_the_next_copy() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let nar = file_nar(b"x");
    let early = output("early", &nar);
    let mut low = output("low", &nar);
    low.references = [early.path.clone()].into_iter().collect();
    let mut busy = output("busy", &nar);
    busy.references = [early.path.clone()].into_iter().collect();
    let mut root = output("root", &nar);
    root.references = [&low, &busy, &root].into_iter().map(|info| info.path.clone()).collect();
    let plan = [&early, &low, &busy, &root].map(|info| (info.clone(), whole(&nar)));
    assert_eq!(add_script(&store, script(plan)).collect::<Vec<_>>().await.len(), 4);
    let lock_path = |path: &ncc_store::StorePath| store.real_store_dir().join(format!("{path}.lock"));
    for info in [&low, &root] {
        File::create(lock_path(&info.path)).unwrap();
    }
    // Somebody else is about to find it valid.
    let held = File::create(lock_path(&busy.path)).unwrap();
    rustix::fs::flock(&held, FlockOperation::LockExclusive).unwrap();

    let roots = [root.path.clone()];
    store.valid_paths(&roots, ValidityQuery::default()).await.unwrap();
    assert!(lock_path(&root.path).exists(), "who only looks changes nothing");
    let valid = store.valid_paths(&roots, ValidityQuery::default().locking()).await.unwrap();
    assert!(valid.contains(&root.path));
    assert!(!lock_path(&root.path).exists() && !lock_path(&low.path).exists(), "{:?}", on_disk(&store));
    assert!(lock_path(&busy.path).exists(), "it is held");
    assert_eq!(assert_sound(&store), 4);
}

#[test]
fn who_stops_listening_stops_waiting() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let nar = file_nar(b"x");
    let info = output("x", &nar);
    let lock = File::create(store.real_store_dir().join(format!("{}.lock", info.path))).unwrap();
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let timed_out = runtime.block_on(async {
        let mut outcomes = add_script(&store, script([(info, whole(&nar))]));
        tokio::time::timeout(Duration::from_millis(100), outcomes.next()).await.is_err()
    });
    assert!(timed_out);
    // Without the end of the thread this would wait for ever.
    drop(runtime);
    assert_eq!(assert_sound(&store), 0);
}

#[test]
fn who_stops_asking_stops_waiting_for_a_collector() {
    let scratch = Scratch::new();
    let store = scratch.store();
    // One of the old kind, which cannot be told.
    let collector = File::options().write(true).open(store.state_dir().join("gc.lock")).unwrap();
    rustix::fs::flock(&collector, FlockOperation::LockExclusive).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let path = output("x", b"").path;
    let timed_out = runtime.block_on(async {
        let paths = [path];
        let asked = store.valid_paths(&paths, ValidityQuery::default().locking());
        tokio::time::timeout(Duration::from_millis(100), asked).await.is_err()
    });
    assert!(timed_out);
    // Without the end of the thread this would wait for ever.
    drop(runtime);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_add_every_path_once() {
    let scratch = Scratch::new();
    let memory = MemoryStore::new("memory");
    memory.add_chain(300);
    let (a, b) = (scratch.store(), scratch.store());
    let (ours, theirs) = tokio::join!(add_all(&a, &memory), add_all(&b, &memory));
    let added = |outcomes: &[Result<Outcome, _>]| {
        outcomes.iter().filter(|outcome| matches!(outcome, Ok(Outcome::Added(_)))).count()
    };
    let valid = |outcomes: &[Result<Outcome, _>]| {
        outcomes.iter().filter(|outcome| matches!(outcome, Ok(Outcome::AlreadyValid(_)))).count()
    };
    assert_eq!(added(&ours) + added(&theirs), 300);
    assert_eq!(valid(&ours) + valid(&theirs), 300);
    assert_eq!(assert_sound(&a), 300);
    assert_eq!(on_disk(&a).len(), 300);
}

#[tokio::test]
async fn the_same_path_twice_in_one_stream() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let nar = file_nar(b"x");
    let info = output("x", &nar);
    let outcomes: Vec<_> =
        add_script(&store, script([(info.clone(), whole(&nar)), (info.clone(), whole(&nar))]))
            .collect()
            .await;
    assert!(matches!(&outcomes[..], [Ok(Outcome::Added(_)), Ok(Outcome::AlreadyValid(_))]), "{outcomes:?}");
}

#[tokio::test]
async fn whatever_is_asked_about_with_a_lock_is_listed_once() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let memory = MemoryStore::new("memory");
    let mut paths = memory.add_chain(50);
    paths.extend(paths.clone());
    store.valid_paths(&paths, ValidityQuery::default().locking()).await.unwrap();
    fill(&store, &memory).await;
    // One above all process ids: see `temp_roots.rs`.
    let number = std::process::id() + (1 << 22);
    let list = store.state_dir().join("temproots").join(number.to_string());
    let text = fs::read_to_string(&list).unwrap();
    let mut listed: Vec<_> = text.split_terminator('\0').map(str::to_owned).collect();
    listed.sort();
    let mut expected: Vec<_> = paths[..50].iter().map(full).collect();
    expected.sort();
    assert_eq!(listed, expected);
    drop(store);
    assert!(!list.exists());
}

/// Whether SQLite of another process would take itself for the only one that has the database open.
#[test]
#[ignore = "only as a child of the test below"]
fn child_tries_to_lock_the_database() {
    let path =
        std::path::PathBuf::from(std::env::var("NCC_TEST_ROOT").unwrap()).join("nix/var/nix/db/db.sqlite");
    let file = File::options().read(true).write(true).open(path).unwrap();
    let free = rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
    eprintln!("free: {free}");
}

/// A process that closes any descriptor of a file loses all its POSIX locks on it, those of SQLite too. Another
/// process then takes itself for the last one and deletes the write-ahead log under the first.
#[test]
fn looking_at_the_database_file_does_not_end_the_locks_on_it() {
    let scratch = Scratch::new();
    let locked = |when: &str| {
        let output = child("locking::child_tries_to_lock_the_database")
            .env("NCC_TEST_ROOT", scratch.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("free: false"), "{when}: {text}");
    };
    let store = scratch.store();
    locked("one store");
    // Each opens the file to see what kind of journal it has.
    let again = scratch.store();
    locked("a second one");
    let reader = open_read_only(&scratch.path());
    locked("and one for reading");
    drop((again, reader));
    locked("the first one is left");
    drop(store);
}
