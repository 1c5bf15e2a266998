//! Processes that die.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::Stdio,
    sync::Arc,
};

use futures_util::StreamExt as _;
use ncc_nar::{Encoder, Executable};
use ncc_store::{Outcome, Scope, Source as _, test_util::MemoryStore};

use crate::support::*;

const PATHS: usize = 600;

/// The same in every process.
fn objects() -> MemoryStore {
    let memory = MemoryStore::new("memory").with_block_size(4096);
    let mut before = Vec::new();
    for number in 0..PATHS {
        let link = memory.add(&format!("link-{number}"), vec![b'x'; 1000 + number * 100], &before);
        before = vec![link];
    }
    memory
}

/// Adds them all and prints a line for each outcome.
#[test]
#[ignore = "only as a child of the test below"]
fn child_adds() {
    let store = open(std::env::var("NCC_TEST_ROOT").unwrap().as_ref());
    let memory = objects();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut outcomes = add_from(&store, &memory, memory.infos(&memory.paths()));
        while let Some(outcome) = outcomes.next().await {
            match outcome.unwrap() {
                Outcome::Added(_) | Outcome::AlreadyValid(_) => eprintln!("outcome"),
                other => panic!("{other:?}"),
            }
        }
    });
}

#[tokio::test]
async fn killing_it_leaves_nothing_half_registered() {
    let scratch = Scratch::new();
    let mut interrupted = 0;
    for lines in [1, 30, 130, 200, 300, 450] {
        let mut child = child("processes::child_adds")
            .env("NCC_TEST_ROOT", scratch.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let outcomes = BufReader::new(child.stderr.take().unwrap())
            .lines()
            .filter(|line| line.as_deref().is_ok_and(|line| line == "outcome"));
        let seen = outcomes.take(lines).count();
        child.kill().unwrap();
        let status = child.wait().unwrap();
        interrupted += usize::from(!status.success());
        let store = scratch.store();
        let registered = assert_sound(&store);
        assert!(registered >= seen, "{registered} registered, {seen} were promised");
    }
    assert!(interrupted > 0, "no child was killed in the middle");
    let store = scratch.store();
    let memory = objects();
    for outcome in add_all(&store, &memory).await {
        assert!(matches!(outcome, Ok(Outcome::Added(_) | Outcome::AlreadyValid(_))), "{outcome:?}");
    }
    assert_eq!(assert_sound(&store), PATHS);
    let objects = on_disk(&store)
        .into_iter()
        .filter(|name| Path::new(name).extension().is_none_or(|end| end != "lock"));
    assert_eq!(objects.count(), PATHS, "garbage of the dead was replaced");
}

/// A NAR whose second half does not come.
struct Stalled<'a>(&'a [u8]);

impl std::io::Read for Stalled<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.0.is_empty() {
            eprintln!("outcome");
            loop {
                std::thread::park();
            }
        }
        self.0.read(buffer)
    }
}

fn in_the_middle() -> (ncc_store::PathInfo, Vec<u8>) {
    let nar = tree_nar(&vec![b'x'; 1 << 20]);
    (output("tree", &nar), nar)
}

#[test]
#[ignore = "only as a child of the test below"]
fn child_stalls() {
    let store = open(std::env::var("NCC_TEST_ROOT").unwrap().as_ref());
    let (info, nar) = in_the_middle();
    let _ = store.add_nar(&info, &mut Stalled(&nar[..nar.len() / 2]));
}

fn spawn(function: &str, scratch: &Scratch) -> std::process::Child {
    let mut command = child(function);
    command.env("NCC_TEST_ROOT", scratch.path()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[test]
fn killing_it_in_the_middle_of_an_object_leaves_garbage_that_makes_way() {
    let scratch = Scratch::new();
    let mut child = spawn("processes::child_stalls", &scratch);
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.map(Result::unwrap).any(|line| line == "outcome"));
    child.kill().unwrap();
    child.wait().unwrap();
    let store = scratch.store();
    let (info, nar) = in_the_middle();
    assert_eq!(assert_sound(&store), 0);
    assert!(on_disk(&store).contains(&info.path.base_name().to_owned()));
    store.add_nar(&info, &mut &nar[..]).unwrap();
    assert_eq!(assert_sound(&store), 1);
    assert_eq!(on_disk(&store), [info.path.base_name()]);
}

#[tokio::test]
async fn killing_it_in_the_middle_of_a_transaction_registers_nothing_of_it() {
    let scratch = Scratch::new();
    drop(scratch.store());
    let path = scratch.path().join("nix/var/nix/db/db.sqlite");
    let connection = rusqlite::Connection::open(&path).unwrap();
    // The row of one path takes for ever.
    connection
        .execute_batch(
            "create trigger slow after insert on ValidPaths when new.path like '%-link-30' begin \
             update ValidPaths set narSize = (with recursive n(i) as (select 1 union all select i + 1 from n \
             where i < 10000000000) select count(*) from n) where id = new.id; end",
        )
        .unwrap();
    let mut child = spawn("processes::child_adds", &scratch);
    let locked = || connection.execute_batch("begin immediate; rollback").is_err();
    connection.busy_timeout(std::time::Duration::ZERO).unwrap();
    // Other batches are short: what is locked for a second is the one.
    let mut since = std::time::Instant::now();
    while since.elapsed() < std::time::Duration::from_secs(1) {
        if !locked() {
            since = std::time::Instant::now();
        }
        assert!(child.try_wait().unwrap().is_none(), "it came to an end");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    connection.execute_batch("drop trigger slow").unwrap();
    drop(connection);
    let store = scratch.store();
    assert!(assert_sound(&store) <= 30);
    for outcome in add_all(&store, &objects()).await {
        assert!(matches!(outcome, Ok(Outcome::Added(_) | Outcome::AlreadyValid(_))), "{outcome:?}");
    }
    assert_eq!(assert_sound(&store), PATHS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_at_work_takes_nothing_that_is_being_added() {
    if !nix_is_here() {
        return;
    }
    let scratch = Scratch::new();
    let store = scratch.store();
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let collector = std::thread::spawn({
        let (root, done) = (scratch.path(), done.clone());
        move || {
            let mut collections = 0;
            while collections == 0 || !done.load(std::sync::atomic::Ordering::Relaxed) {
                nix_ok(&root, "nix-store", ["--gc"]);
                collections += 1;
            }
            collections
        }
    });
    for outcome in add_all(&store, &objects()).await {
        assert!(matches!(outcome, Ok(Outcome::Added(_))), "{outcome:?}");
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(collector.join().unwrap() > 0);
    assert_eq!(assert_sound(&store), PATHS);
    // And once nobody wants them any more, it does.
    drop(store);
    nix_ok(&scratch.path(), "nix-store", ["--gc"]);
    assert_eq!(assert_sound(&scratch.store()), 0);
}

/// Lets this process open only so many files.
fn limit_files(files: u64) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(files);
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// With as many descriptors as `NCC_TEST_FILES` says.
#[test]
#[ignore = "only as a child of the test below"]
fn child_adds_with_few_descriptors() {
    limit_files(std::env::var("NCC_TEST_FILES").unwrap().parse().unwrap());
    child_adds();
}

#[test]
fn few_descriptors_make_small_batches() {
    for files in ["24", "32", "64", "128"] {
        let scratch = Scratch::new();
        let output = child("processes::child_adds_with_few_descriptors")
            .env("NCC_TEST_ROOT", scratch.path())
            .env("NCC_TEST_FILES", files)
            .output()
            .unwrap();
        assert!(output.status.success(), "{files}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(assert_sound(&scratch.store()), PATHS);
    }
}

/// Into a directory below directories, each in the one before.
fn deep_nar() -> Vec<u8> {
    const DEPTH: usize = 40;
    let mut nar = Encoder::new(Vec::new());
    for _ in 0..DEPTH {
        nar.directory().unwrap();
        nar.entry("d").unwrap();
    }
    nar.file(Executable::No, "deep").unwrap();
    for _ in 0..DEPTH {
        nar.directory_end().unwrap();
    }
    nar.finish().unwrap()
}

/// Nothing is wrong with a path over which the descriptors run out, and nobody should be told so.
#[test]
#[ignore = "only as a child of the test below"]
fn child_runs_out_of_descriptors() {
    let root = std::env::var("NCC_TEST_ROOT").unwrap();
    let nar = deep_nar();
    let info = output("deep", &nar);
    let (writing, reading) = (open(root.as_ref()), open(root.as_ref()));
    // What is open, and a few more.
    let open_now = u64::try_from(std::fs::read_dir("/proc/self/fd").unwrap().count()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let add = async |files| {
            limit_files(files);
            add_one(&writing, info.clone(), [Ok(nar.clone().into())].into()).await
        };
        let error = add(open_now + 8).await.unwrap_err();
        assert_eq!(error.scope(), Scope::Store, "{error}");
        assert!(matches!(add(1024).await, Ok(Outcome::Added(_))));
        limit_files(open_now + 8);
        let nars = reading.nars([Arc::new(info.clone())].into());
        let mut body = nars.open(&Arc::new(info.clone()), 0).await.unwrap();
        let error = loop {
            match body.next().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => break error,
                None => panic!("there were enough"),
            }
        };
        assert_eq!(error.scope(), Scope::Store, "{error}");
    });
    limit_files(1024);
    assert_eq!(assert_sound(&writing), 1);
}

#[test]
fn descriptors_that_run_out_are_no_fault_of_a_path() {
    let scratch = Scratch::new();
    let output = child("processes::child_runs_out_of_descriptors")
        .env("NCC_TEST_ROOT", scratch.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
