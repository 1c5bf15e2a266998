//! No wait per path, in either direction.

use std::time::Duration;

use ncc_copy::{NoObserver, Request, copy};
use ncc_remote_store::test_util::MemoryHost;
use ncc_store::test_util::{Call, MemoryStore};
use tokio::time::Instant;

use crate::remote;

const ROUND_TRIP: Duration = Duration::from_secs(1);

/// Whole round trips since `start`, rounded up.
fn round_trips(start: Instant) -> u128 {
    start.elapsed().as_millis().div_ceil(ROUND_TRIP.as_millis())
}

#[tokio::test(start_paused = true)]
async fn two_thousand_paths_to_a_host_take_at_most_four_round_trips() {
    let here = MemoryStore::new("here");
    let chain = here.add_chain(2000);
    let there = MemoryStore::new("there");
    let host = MemoryHost::new(&there).with_round_trip(ROUND_TRIP);
    let store = remote(&host);

    let start = Instant::now();
    let request = Request::new([chain.last().unwrap().clone()]);
    let report = copy(&here, &store, &request, &NoObserver.shared()).await.unwrap();
    let taken = round_trips(start);

    assert_eq!(report.sent.count(), 2000);
    assert_eq!(there.paths(), here.paths());
    assert_eq!(host.connections(), 1);
    assert!(taken <= 4, "{taken} round trips");
}

#[tokio::test(start_paused = true)]
async fn two_thousand_paths_from_a_host_take_at_most_four_round_trips() {
    let there = MemoryStore::new("there");
    let chain = there.add_chain(2000);
    let here = MemoryStore::new("here");
    let host = MemoryHost::new(&there).with_round_trip(ROUND_TRIP);
    let store = remote(&host);

    let start = Instant::now();
    let request = Request::new([chain.last().unwrap().clone()]);
    let report = copy(&store, &here, &request, &NoObserver.shared()).await.unwrap();
    let taken = round_trips(start);

    assert_eq!(report.sent.count(), 2000);
    assert_eq!(here.paths(), there.paths());
    assert_eq!(host.connections(), 1);
    assert!(taken <= 4, "{taken} round trips");
}

#[tokio::test(start_paused = true)]
async fn a_host_is_asked_for_the_metadata_of_what_is_missing_alone() {
    let there = MemoryStore::new("there");
    let chain = there.add_chain(2000);
    let here = MemoryStore::new("here");
    copy(&there, &here, &Request::new([chain[1998].clone()]), &NoObserver.shared()).await.unwrap();
    let before = there.calls().len();
    let store = remote(&MemoryHost::new(&there).with_round_trip(ROUND_TRIP));

    let start = Instant::now();
    let request = Request::new([chain[1999].clone()]);
    let report = copy(&store, &here, &request, &NoObserver.shared()).await.unwrap();
    let taken = round_trips(start);

    assert_eq!((report.sent.count(), report.present_count()), (1, 1999));
    let asked = there.calls().split_off(before);
    let described = asked.into_iter().filter_map(|call| match call {
        Call::PathInfos { paths } => Some(paths),
        _ => None,
    });
    // A second time by the server itself, for the NAR.
    assert_eq!(described.collect::<Vec<_>>(), [[chain[1999].clone()], [chain[1999].clone()]]);
    assert!(taken <= 3, "{taken} round trips");
}

#[tokio::test(start_paused = true)]
async fn metadata_arrives_as_it_was_but_for_ultimate() {
    let here = MemoryStore::new("here");
    let library = here.add("library", "code", &[]);
    let program = here.add("program", "more", &[library]);
    let there = MemoryStore::new("there");
    let store = remote(&MemoryHost::new(&there));
    copy(&here, &store, &Request::new([program.clone()]), &NoObserver.shared()).await.unwrap();
    for path in here.paths() {
        let mut expected = here.info(&path).unwrap();
        expected.ultimate = false;
        assert_eq!(there.info(&path).unwrap(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_whole_closure_is_protected_on_both_sides() {
    let here = MemoryStore::new("here");
    let library = here.add("library", "code", &[]);
    let program = here.add("program", "more", std::slice::from_ref(&library));
    let there = MemoryStore::new("there");
    let store = remote(&MemoryHost::new(&there));
    copy(&here, &store, &Request::new([program.clone()]), &NoObserver.shared()).await.unwrap();
    let locked = |calls: Vec<Call>| {
        calls.into_iter().any(|call| {
            matches!(call, Call::ValidPaths { paths, query } if query.lock && paths.len() == 2 && !query.substitute)
        })
    };
    assert!(locked(there.calls()), "destination");

    let back = MemoryStore::new("back");
    let source = MemoryStore::new("source");
    let library = source.add("library", "code", &[]);
    let program = source.add("program", "more", &[library]);
    let store = remote(&MemoryHost::new(&source));
    copy(&store, &back, &Request::new([program]), &NoObserver.shared()).await.unwrap();
    assert!(locked(source.calls()), "source");
}

#[tokio::test(start_paused = true)]
async fn a_banner_before_the_greeting_is_passed_over() {
    let here = MemoryStore::new("here");
    let path = here.add("x", "y", &[]);
    let there = MemoryStore::new("there");
    let host = MemoryHost::new(&there).with_banner("Last login: yesterday\r\nWelcome\r\n");
    copy(&here, &remote(&host), &Request::new([path]), &NoObserver.shared()).await.unwrap();
    assert_eq!(there.paths(), here.paths());
}
