//! With `OnFailure::Continue`, a path that takes its connection with it takes nothing else.

use ncc_copy::{CopyError, NoObserver, OnFailure, Report, Request, copy};
use ncc_remote_store::test_util::MemoryHost;
use ncc_store::{
    Destination, Source, StorePath,
    test_util::{Fault, MemoryStore},
};

use crate::remote;

/// Large enough to be cut in the middle.
const LARGE: usize = 1 << 20;

/// Six independent large paths, and one that refers to the third.
fn store() -> (MemoryStore, Vec<StorePath>) {
    let store = MemoryStore::new("here").with_block_size(16 << 10);
    let mut paths: Vec<_> =
        (0_u8..6).map(|number| store.add(&format!("p{number}"), vec![number; LARGE], &[])).collect();
    paths.push(store.add("top", "refers to the third", &paths[2..3]));
    (store, paths)
}

async fn copied(source: &dyn Source, destination: &dyn Destination, roots: &[StorePath]) -> Report {
    let mut request = Request::new(roots.to_vec());
    request.on_failure = OnFailure::Continue;
    match copy(source, destination, &request, &NoObserver.shared()).await {
        Err(CopyError::Failed { report }) => *report,
        other => panic!("{other:?}"),
    }
}

/// Checks that all but these, and what refers to them, has arrived.
fn arrived(report: &Report, destination: &MemoryStore, paths: &[StorePath], damaged: &[usize]) {
    let failed: Vec<_> = report.failed.iter().map(|failed| &failed.path).collect();
    let mut expected: Vec<_> = damaged.iter().map(|&number| &paths[number]).collect();
    if damaged.contains(&2) {
        expected.push(&paths[6]);
    }
    let sorted = |mut paths: Vec<&StorePath>| {
        paths.sort();
        paths.into_iter().cloned().collect::<Vec<_>>()
    };
    assert_eq!(sorted(failed), sorted(expected.clone()));
    let rest = sorted(paths.iter().filter(|path| !expected.contains(path)).collect());
    assert_eq!(destination.paths(), rest);
    assert_eq!((report.sent.count(), report.unsent.count()), (rest.len(), expected.len()));
}

#[tokio::test(start_paused = true)]
async fn large_damaged_paths_fail_alone_to_a_host() {
    for fault in [
        Fault::CorruptContent,
        |path| Fault::ExtendContent(path, 1000),
        |path| Fault::TruncateContent(path, 1000),
    ] {
        let (here, paths) = store();
        for number in [0, 2, 5] {
            here.inject(fault(paths[number].clone()));
        }
        let there = MemoryStore::new("there");
        let host = MemoryHost::new(&there);
        let report = copied(&here, &remote(&host), &paths).await;
        arrived(&report, &there, &paths, &[0, 2, 5]);
        assert!(host.connections() <= 4, "{}", host.connections());
    }
}

#[tokio::test(start_paused = true)]
async fn large_damaged_paths_fail_alone_from_a_host() {
    let (there, paths) = store();
    for number in [1, 2] {
        there.inject(Fault::CorruptContent(paths[number].clone()));
    }
    let here = MemoryStore::new("here");
    let report = copied(&remote(&MemoryHost::new(&there)), &here, &paths).await;
    arrived(&report, &here, &paths, &[1, 2]);
}

/// Nix's server dies when it cannot read a path.
#[tokio::test(start_paused = true)]
async fn a_path_that_the_host_cannot_read_fails_alone() {
    for read in [0, LARGE / 2] {
        let (there, paths) = store();
        there.inject(Fault::FailReading(paths[3].clone(), read));
        let here = MemoryStore::new("here");
        let report = copied(&remote(&MemoryHost::new(&there)), &here, &paths).await;
        arrived(&report, &here, &paths, &[3]);
    }
}

/// And when it cannot add one.
#[tokio::test(start_paused = true)]
async fn a_path_that_the_host_refuses_fails_alone() {
    let (here, paths) = store();
    let there = MemoryStore::new("there");
    there.inject(Fault::RefusePath(paths[4].clone()));
    let report = copied(&here, &remote(&MemoryHost::new(&there)), &paths).await;
    arrived(&report, &there, &paths, &[4]);
}

/// A connection that breaks by itself costs no path.
#[tokio::test(start_paused = true)]
async fn a_host_that_always_breaks_ends_in_bounded_rounds() {
    let (there, paths) = store();
    let here = MemoryStore::new("here");
    // Each connection gives a little more than one NAR.
    let host = MemoryHost::new(&there).with_output_cut_at((LARGE + LARGE / 2) as u64);
    let mut request = Request::new(paths.clone());
    request.on_failure = OnFailure::Continue;
    request.retries.limit = 2;
    copy(&remote(&host), &here, &request, &NoObserver.shared()).await.unwrap();
    assert_eq!(here.paths(), there.paths());
    assert!(host.connections() <= 8, "{}", host.connections());
    // One that gives less than one never gets further.
    let here = MemoryStore::new("here");
    let host = MemoryHost::new(&there).with_output_cut_at((LARGE / 2) as u64);
    let error = copy(&remote(&host), &here, &request, &NoObserver.shared()).await.unwrap_err();
    let CopyError::Interrupted { report, .. } = error else { panic!("{error:?}") };
    assert_eq!((report.failed.len(), report.reconnects, host.connections()), (0, 2, 3));
}

#[tokio::test(start_paused = true)]
async fn otherwise_the_first_one_ends_it() {
    let (here, paths) = store();
    here.inject(Fault::CorruptContent(paths[0].clone()));
    let there = MemoryStore::new("there");
    let host = MemoryHost::new(&there);
    let result = copy(&here, &remote(&host), &Request::new(paths), &NoObserver.shared()).await;
    assert!(matches!(result, Err(CopyError::Interrupted { .. })), "{result:?}");
    assert_eq!(host.connections(), 1);
}
