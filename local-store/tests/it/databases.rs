//! Databases of all conditions.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Stdio};

use ncc_local_store::{
    Access, Defaults, Journal, LocalStore, LocalStoreConfig, LocalStoreError, Medium, Symlinks,
};
use ncc_store::{Destination as _, Outputs, ValidityQuery, test_util::file_nar};

use crate::support::*;

#[test]
fn a_store_is_made_from_nothing_as_nix_makes_it() {
    let scratch = Scratch::new();
    let root = scratch.path().join("some/where");
    let store = open(&root);
    let mode = |name: &str| fs::metadata(root.join("nix").join(name)).unwrap().permissions().mode() & 0o7777;
    for directory in [
        "store",
        "store/.links",
        "var/nix",
        "var/nix/db",
        "var/nix/temproots",
        "var/nix/gcroots/auto",
        "var/nix/gcroots/per-user",
        "var/nix/profiles/per-user",
    ] {
        assert_eq!(mode(directory), 0o755, "{directory}");
    }
    assert_eq!(mode("var/nix/db/db.sqlite"), 0o644);
    assert_eq!(mode("var/nix/db/schema"), 0o644);
    for file in ["db/big-lock", "db/reserved", "gc.lock"] {
        assert_eq!(mode(&format!("var/nix/{file}")), 0o600, "{file}");
    }
    assert_eq!(fs::read(root.join("nix/var/nix/db/schema")).unwrap(), b"10");
    assert_eq!(fs::metadata(root.join("nix/var/nix/db/reserved")).unwrap().len(), 8 << 20);
    assert_eq!(rows(&store, "pragma journal_mode"), ["wal"]);
    assert_eq!(rows(&store, "pragma page_size"), ["4096"]);
    drop(store);
    // A second time there is nothing to make.
    assert_eq!(rows(&open(&root), "select count(*) from ValidPaths"), ["0"]);
}

#[test]
fn many_make_the_same_store_at_once() {
    for _ in 0..20 {
        let scratch = Scratch::new();
        let start = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for number in 0..4 {
                let (scratch, start) = (&scratch, &start);
                scope.spawn(move || {
                    start.wait();
                    let store = scratch.store();
                    let nar = file_nar(b"x");
                    store.add_nar(&output(&number.to_string(), &nar), &mut &nar[..]).unwrap();
                });
            }
        });
        let store = scratch.store();
        assert_eq!(assert_sound(&store), 4);
        let names = fs::read_dir(store.state_dir().join("db")).unwrap();
        assert!(names.flatten().all(|name| !name.file_name().to_string_lossy().contains("new")));
    }
}

#[test]
fn schemas_of_other_ages_are_refused() {
    let scratch = Scratch::new();
    drop(scratch.store());
    let schema = scratch.path().join("nix/var/nix/db/schema");
    for access in [Access::ReadWrite, Access::ReadOnly] {
        let open = || LocalStore::open(LocalStoreConfig::chroot(scratch.path()), access).unwrap_err();
        for number in [7, 11] {
            fs::write(&schema, number.to_string()).unwrap();
            assert!(
                matches!(open(), LocalStoreError::Schema { found, supported: 10, .. } if found == number)
            );
        }
        for text in ["", "ten", "1\0"] {
            fs::write(&schema, text).unwrap();
            assert!(matches!(open(), LocalStoreError::BadSchema { .. }), "{text:?}");
        }
    }
}

#[test]
fn reading_needs_a_store_and_makes_none() {
    let scratch = Scratch::new();
    let root = scratch.path().join("absent");
    let error = LocalStore::open(LocalStoreConfig::chroot(&root), Access::ReadOnly).unwrap_err();
    assert!(matches!(error, LocalStoreError::NoStore { .. }));
    assert!(!root.exists());
}

/// <https://github.com/NixOS/nix/issues/374>, <https://github.com/nix-community/disko/issues/1178>
#[test]
fn r374_symlinks_may_lead_to_the_root_and_elsewhere_only_if_allowed() {
    let scratch = Scratch::new();
    let link = scratch.path().join("link");
    fs::create_dir(scratch.path().join("real")).unwrap();
    std::os::unix::fs::symlink("real", &link).unwrap();
    // The names in the database do not depend on where a chroot store lies.
    let store = open(&link.join("x"));
    let nar = file_nar(b"x");
    store.add_nar(&output("x", &nar), &mut &nar[..]).unwrap();
    assert_eq!(assert_sound(&open_read_only(&scratch.path().join("real/x"))), 1);

    // But within the root, and for a store that is no chroot store.
    let root = scratch.path().join("inside");
    fs::create_dir_all(root.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", root.join("nix")).unwrap();
    let mut config = LocalStoreConfig::chroot(&root);
    let error = LocalStore::open(config.clone(), Access::ReadWrite).unwrap_err();
    assert!(matches!(error, LocalStoreError::SymlinkedStore { path } if path == root.join("nix")));
    config.symlinks = Symlinks::Allow;
    LocalStore::open(config, Access::ReadWrite).unwrap();

    let mut config = LocalStoreConfig::system(&Defaults::default().with_state_dir(root.join("state")));
    config.real_store_dir = link.join("store");
    let error = LocalStore::open(config, Access::ReadWrite).unwrap_err();
    assert!(matches!(error, LocalStoreError::SymlinkedStore { path } if path == link));
}

#[tokio::test]
async fn a_store_for_reading_takes_nothing() {
    let scratch = Scratch::new();
    let nar = file_nar(b"x");
    let info = output("x", &nar);
    drop(scratch.store());
    let store = open_read_only(&scratch.path());
    assert!(matches!(store.add_nar(&info, &mut &nar[..]), Err(LocalStoreError::OpenedReadOnly { .. })));
    assert!(add_one(&store, info.clone(), whole(&nar)).await.is_err());
    assert!(store.valid_paths(&[info.path.clone()], ValidityQuery::default().locking()).await.is_err());
    assert!(store.valid_paths(&[info.path], ValidityQuery::default()).await.unwrap().is_empty());
    assert_eq!(on_disk(&store), [""; 0]);
}

#[test]
fn odd_rows_matter_only_to_the_closures_they_are_in() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let nar = file_nar(b"x");
    let mut infos = ["good", "hash", "ca", "size", "nosize"].map(|name| output(name, &nar));
    let good = infos[0].path.clone();
    for info in &mut infos[1..] {
        info.references = [good.clone()].into_iter().collect();
    }
    for info in &infos {
        store.add_nar(info, &mut &nar[..]).unwrap();
    }
    let connection = database(&store);
    for (column, value, name) in [
        ("hash", "'sha256:zz'", "hash"),
        ("ca", "'fixed:x'", "ca"),
        ("narSize", "-5", "size"),
        ("narSize", "null", "nosize"),
        ("deriver", "'/nix/store/what is this'", "good"),
        ("sigs", "'nonsense x:y'", "good"),
    ] {
        let sql = format!("update ValidPaths set {column} = {value} where path like '%-{name}'");
        assert_eq!(connection.execute(&sql, []).unwrap(), 1);
    }
    let odd =
        "insert into ValidPaths (path, hash, registrationTime) values ('/nix/store/an old path', 'x', 1)";
    connection.execute(odd, []).unwrap();

    let closure = |path| store.query_closure(&[path], Outputs::Include);
    assert_eq!(closure(good).unwrap().len(), 1);
    for (info, expected) in infos[1..4].iter().zip(["hash", "ca", "narSize"]) {
        match closure(info.path.clone()) {
            Err(LocalStoreError::BadRow { column, path, .. }) => {
                assert_eq!((column, path), (expected, full(&info.path)));
            }
            other => panic!("{other:?}"),
        }
    }
    let recomputed = closure(infos[4].path.clone()).unwrap();
    assert!(recomputed.iter().all(|info| info.nar_size == nar.len() as u64));
}

#[test]
fn a_missing_root_is_named() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let path = output("x", b"").path;
    match store.query_closure(&[path.clone()], Outputs::Exclude) {
        Err(LocalStoreError::NotValid { path: named }) => assert_eq!(named, full(&path)),
        other => panic!("{other:?}"),
    }
}

fn header(root: &std::path::Path) -> [u8; 2] {
    let header = fs::read(root.join("nix/var/nix/db/db.sqlite")).unwrap();
    [header[18], header[19]]
}

fn without_log(root: &std::path::Path) -> LocalStoreConfig {
    let mut config = LocalStoreConfig::chroot(root);
    config.journal = Journal::Rollback;
    config
}

#[test]
fn a_database_without_write_ahead_log_is_made_and_used() {
    let scratch = Scratch::new();
    let open_without_log = || LocalStore::open(without_log(&scratch.path()), Access::ReadWrite).unwrap();
    let store = open_without_log();
    let nar = file_nar(b"x");
    let info = output("x", &nar);
    store.add_nar(&info, &mut &nar[..]).unwrap();
    let reader = open_read_only(&scratch.path());
    assert!(reader.query_path_info(&info.path).unwrap().is_some());
    let later = output("later", &nar);
    store.add_nar(&later, &mut &nar[..]).unwrap();
    assert!(reader.query_path_info(&later.path).unwrap().is_some(), "changes are noticed");
    drop(store);
    assert_eq!(header(&scratch.path()), [1, 1]);
    if nix_is_here() {
        let arguments = ["--option", "use-sqlite-wal", "false", "--verify", "--check-contents"];
        nix_ok(&scratch.path(), "nix-store", arguments);
        open_without_log().add_nar(&output("last", &nar), &mut &nar[..]).unwrap();
        assert_eq!(header(&scratch.path()), [1, 1]);
    }
}

/// Each way of journaling has locks of its own, so that it must be the configured one, as in Nix.
#[test]
fn the_journal_is_the_configured_one_or_nothing_is_written() {
    let scratch = Scratch::new();
    drop(scratch.store());
    assert_eq!(header(&scratch.path()), [2, 2]);
    let error = LocalStore::open(without_log(&scratch.path()), Access::ReadWrite).unwrap_err();
    assert!(matches!(error, LocalStoreError::OtherJournal { .. }), "{error:?}");

    let connection = rusqlite::Connection::open(scratch.path().join("nix/var/nix/db/db.sqlite")).unwrap();
    connection.query_row("pragma journal_mode = truncate", [], |_| Ok(())).unwrap();
    drop(connection);
    let lock = scratch.path().join("nix/var/nix/db/db.sqlite.lock");
    fs::create_dir(&lock).unwrap();
    let error = LocalStore::open(LocalStoreConfig::chroot(scratch.path()), Access::ReadWrite).unwrap_err();
    assert!(matches!(error, LocalStoreError::OtherJournal { .. }), "{error:?}");
    fs::remove_dir(&lock).unwrap();
    drop(scratch.store());
    assert_eq!(header(&scratch.path()), [2, 2], "as Nix does");
}

/// An embedder may have the database open too: POSIX locks go with the first descriptor that is closed.
#[test]
fn closing_a_store_leaves_the_locks_of_other_connections_alone() {
    let scratch = Scratch::new();
    let path = scratch.path().join("nix/var/nix/db/db.sqlite");
    drop(scratch.store());
    let own = rusqlite::Connection::open(&path).unwrap();
    own.execute_batch("begin immediate").unwrap();
    drop(open_read_only(&scratch.path()));
    let script = "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1], timeout=0)\nc.isolation_level = None\n\
                  try: c.execute('begin immediate'); print('won')\n\
                  except sqlite3.OperationalError as e: print(e)";
    let Ok(output) = std::process::Command::new("python3").args(["-c", script]).arg(&path).output() else {
        return left_out("no python3: locks were not looked at from another process");
    };
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "database is locked");
}

#[test]
fn who_waits_for_the_database_can_give_up() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let other = database(&store);
    other.execute_batch("begin immediate").unwrap();
    let nar = file_nar(b"x");
    let memory = ncc_store::test_util::MemoryStore::new("memory");
    memory.insert(output("x", &nar), nar);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let task = runtime.spawn({
        let store = store.clone();
        async move { add_all(&store, &memory).await.len() }
    });
    // Until it is written, and waits to be registered.
    while on_disk(&store).len() < 2 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(!task.is_finished());
    let start = std::time::Instant::now();
    task.abort();
    // Waits for the thread.
    drop(runtime);
    // SQLite itself waits one second at a time; it was an hour.
    assert!(start.elapsed() < std::time::Duration::from_secs(60));
    other.execute_batch("rollback").unwrap();
    assert_eq!(registered(&store), []);
}

#[test]
fn temporary_files_of_who_was_killed_go_away() {
    let scratch = Scratch::new();
    let directory = scratch.path().join("nix/var/nix/db");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("schema.new-1"), "1").unwrap();
    drop(scratch.store());
    let names = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.filter(|name| name.to_string_lossy().contains("new")).count(), 0);
}

/// <https://github.com/NixOS/nix/pull/8356>
#[test]
fn r8356_a_read_only_store_is_read_without_locks_and_not_written() {
    let scratch = Scratch::new();
    let nar = file_nar(b"x");
    let store = scratch.store();
    store.add_nar(&output("a", &nar), &mut &nar[..]).unwrap();
    drop(store);
    let files = |root: &std::path::Path| {
        let names = fs::read_dir(root.join("nix/var/nix/db")).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = files(&scratch.path());
    let mut config = LocalStoreConfig::chroot(scratch.path());
    config.medium = Medium::ReadOnly;
    let error = LocalStore::open(config.clone(), Access::ReadWrite).unwrap_err();
    assert!(matches!(error, LocalStoreError::ReadOnlyStore { .. }));
    let reader = LocalStore::open(config.clone(), Access::ReadOnly).unwrap();
    assert_eq!(reader.query_valid_paths(&[output("a", b"").path]).unwrap().len(), 1);
    assert_eq!(files(&scratch.path()), before);

    // A writer of another process was killed: its log is passed over.
    fs::write(scratch.path().join("nix/var/nix/db/db.sqlite-wal"), "not a log").unwrap();
    let reader = LocalStore::open(config, Access::ReadOnly).unwrap();
    assert_eq!(reader.query_valid_paths(&[output("a", b"").path]).unwrap().len(), 1);
}

/// <https://github.com/NixOS/nix/issues/6843>: rows go while others refer to them.
#[test]
fn r6843_a_lost_row_is_named_by_who_refers_to_it_and_stops_nobody_else() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let nar = file_nar(b"x");
    let [lost, good, odd, mut referrer, mut user, mut odd_user] =
        ["lost", "good", "odd", "referrer", "user", "odd-user"].map(|name| output(name, &nar));
    referrer.references = [lost.path.clone(), good.path.clone()].into_iter().collect();
    user.references = [referrer.path.clone()].into_iter().collect();
    odd_user.references = [odd.path.clone()].into_iter().collect();
    for info in [&lost, &good, &odd, &referrer, &user, &odd_user] {
        store.add_nar(info, &mut &nar[..]).unwrap();
    }
    database(&store)
        .execute_batch(
            "pragma foreign_keys = off; delete from ValidPaths where path like '%-lost'; \
             update ValidPaths set path = '/nix/store/odd one' where path like '%-odd'",
        )
        .unwrap();
    let roots = [&user, &good, &lost, &odd_user].map(|info| info.path.clone());
    let closure = store.examine_closure(&roots, Outputs::Exclude).unwrap();
    let mut names: Vec<_> = closure.infos.iter().map(|info| info.path.name()).collect();
    names.sort_unstable();
    assert_eq!(names, ["good", "user"]);
    let text = |name: &str| {
        let (_, error) = closure.bad.iter().find(|(path, _)| path.name() == name).unwrap();
        chain(error)
    };
    assert_eq!(closure.bad.len(), 3, "{closure:?}");
    assert_eq!(text("lost"), format!("path '{}' is not valid", full(&lost.path)));
    let referrers = text("referrer");
    assert!(
        referrers.starts_with(&format!("'{}' refers to row 1 of database '", referrer.path)),
        "{referrers}"
    );
    assert!(referrers.contains("db/db.sqlite'") && referrers.contains("nix-store --verify"), "{referrers}");
    let odd = text("odd-user");
    assert!(odd.contains("row 3") && odd.contains("/nix/store/odd one"), "{odd}");

    // One by one it is the same.
    let infos = store.examine_paths(&[referrer.path.clone(), good.path.clone(), odd_user.path]).unwrap();
    assert_eq!((infos.infos.len(), infos.bad.len()), (1, 2));
    assert!(store.query_path_info(&referrer.path).is_err());
    assert!(store.query_path_info(&good.path).unwrap().is_some());
}

/// Reads as somebody else: prints the names of the paths that are valid, whenever a line comes in.
#[test]
#[ignore = "only as a child of the test below"]
fn child_reads() {
    let root = std::env::var("NCC_TEST_ROOT").unwrap();
    let store = open_read_only(root.as_ref());
    let paths = ["a", "b", "c"].map(|name| output(name, b"").path);
    for _ in std::io::stdin().lines() {
        let valid = store.query_valid_paths(&paths).unwrap();
        let names: Vec<_> = valid.iter().map(|path| path.name().to_owned()).collect();
        let mut names: Vec<_> = names.iter().map(String::as_str).collect();
        names.sort_unstable();
        eprintln!("valid: {}", names.join(" "));
    }
}

#[test]
fn another_user_reads_idle_stores_and_busy_ones() {
    use std::io::{BufRead as _, BufReader, Write as _};
    if !is_root() || !std::path::Path::new("/usr/bin/setpriv").exists() {
        return left_out("not root, or no setpriv: reading as another user was not tried");
    }
    let scratch = Scratch::new();
    let nar = file_nar(b"x");
    let store = scratch.store();
    store.add_nar(&output("a", &nar), &mut &nar[..]).unwrap();
    drop(store);
    let database = scratch.path().join("nix/var/nix/db");
    assert!(!database.join("db.sqlite-wal").exists(), "idle: what mode=ro cannot open");

    // The test program lies where nobody else may look.
    let program = scratch.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut reader = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&program)
        .args(["--exact", "databases::child_reads", "--ignored", "--nocapture"])
        .env("NCC_TEST_ROOT", scratch.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut questions = reader.stdin.take().unwrap();
    let mut answers = BufReader::new(reader.stderr.take().unwrap()).lines();
    let mut ask = || {
        writeln!(questions).unwrap();
        answers.find_map(|line| line.unwrap().strip_prefix("valid: ").map(str::to_owned)).unwrap()
    };
    assert_eq!(ask(), "a");
    let store = scratch.store();
    store.add_nar(&output("b", &nar), &mut &nar[..]).unwrap();
    assert!(database.join("db.sqlite-wal").metadata().unwrap().len() > 0);
    assert_eq!(ask(), "a b", "a commit that is only in the write-ahead log");
    store.add_nar(&output("c", &nar), &mut &nar[..]).unwrap();
    drop(store);
    assert_eq!(ask(), "a b c", "after the last writer closed");
    drop(questions);
    assert!(reader.wait().unwrap().success());
}

/// Opens for writing as somebody else.
#[test]
#[ignore = "only as a child of the test below"]
fn child_writes() {
    let config = LocalStoreConfig::chroot(std::env::var("NCC_TEST_ROOT").unwrap());
    let error = LocalStore::open(config, Access::ReadWrite).unwrap_err();
    assert!(error.is_permission_denied(), "{error:?}");
    eprintln!("refused: {}", chain(&error));
}

#[test]
fn another_user_is_told_which_file_stops_it() {
    if !is_root() || !std::path::Path::new("/usr/bin/setpriv").exists() {
        return left_out("not root, or no setpriv: writing as another user was not tried");
    }
    let scratch = Scratch::new();
    drop(scratch.store());
    let program = scratch.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let output = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&program)
        .args(["--exact", "databases::child_writes", "--ignored", "--nocapture"])
        .env("NCC_TEST_ROOT", scratch.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("nix/var/nix/db/big-lock': Permission denied"), "{text}");
}
