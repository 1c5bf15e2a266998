//! Processes that die.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::Stdio,
};

use futures_util::StreamExt as _;
use ncc_store::{Outcome, test_util::MemoryStore};

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
