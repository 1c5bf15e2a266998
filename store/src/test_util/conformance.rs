//! What every [`Source`] and every [`Destination`] must do, whatever kind of store it is.
//!
//! [`check_source`] and [`check_destination`] panic where a store does not keep the contract that the traits document.
//! Run them in the tests of each kind, with a [`Fixture`] that makes such stores.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use bytes::Bytes;
use futures_core::future::BoxFuture;
use futures_util::{StreamExt as _, stream};

use super::{Fault, MemoryStore, script_of_bodies};
use crate::{
    Destination, Members, NarAccess, NarBody, NarHash, NarSource, OnFailure, Outcome, Outputs, PathInfo,
    Scope, SecretKey, Side, Source, StoreError, StorePath, ValidityQuery,
};

/// Too large to be held back whole, by the check of a body or by the buffers of a connection.
const LARGE: usize = 2 << 20;
/// How often [`Fixture::rest`] is waited for until something must have happened.
const RESTS: usize = 1000;

/// Makes stores of the kind that is examined.
pub trait Fixture: Sync {
    /// The kind of store.
    type Store: Source + Destination;

    /// A new store, with everything that is valid in `objects`.
    fn store<'a>(&'a self, objects: &'a MemoryStore) -> BoxFuture<'a, Self::Store>;

    /// Opens the same store once more, sharing nothing in this process that could hold answers.
    fn reopen(&self, store: &Self::Store) -> Self::Store;

    /// Lets other tasks and threads work for about ten milliseconds. Not needed where nothing happens in the background.
    fn rest(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Everything that a source must do.
///
/// # Panics
/// If it does not.
pub async fn check_source<F: Fixture>(fixture: &F) {
    closures_are_sorted_and_list_bad_roots(fixture).await;
    closures_have_outputs_on_request(fixture).await;
    path_infos_are_sorted_and_leave_out_what_is_not_valid(fixture).await;
    nars_come_in_the_order_of_the_plan(fixture).await;
    nars_are_skipped_dropped_and_begun_in_the_middle(fixture).await;
    nars_come_in_any_order_where_that_is_promised(fixture).await;
    an_abandoned_source_can_still_be_used(fixture).await;
}

/// Everything that a destination must do.
///
/// # Panics
/// If it does not.
pub async fn check_destination<F: Fixture>(fixture: &F) {
    a_plan_arrives_whole_and_again_changes_nothing(fixture).await;
    validity_is_asked_anew_each_time(fixture).await;
    a_bad_small_body_fails_its_path_alone(fixture).await;
    a_bad_large_body_is_never_registered(fixture).await;
    after_a_failure_nothing_more_begins_unless_told_to(fixture).await;
    a_broken_source_ends_it_and_costs_no_path(fixture).await;
    nothing_is_registered_without_its_references(fixture).await;
    dropped_outcomes_end_the_work(fixture).await;
}

/// A chain of three, a path that refers to itself and to a link, a large one.
fn objects() -> (MemoryStore, Vec<StorePath>) {
    let memory = MemoryStore::new("the fixture").with_block_size(16 << 10);
    let mut paths = memory.add_chain(3);
    let last = last(&paths);
    paths.push(memory.add_self_referring("self", std::slice::from_ref(&last)));
    paths.push(memory.add_output("large", content(LARGE), &[last]));
    for path in &paths {
        memory.sign(path, &SecretKey::from_seed("fixture-1", &[1; 32]).expect("that is a name"));
    }
    (memory, paths)
}

/// Bytes of which no two stretches are alike.
fn content(size: usize) -> Vec<u8> {
    (0_u32..).flat_map(u32::to_le_bytes).take(size).collect()
}

fn last(paths: &[StorePath]) -> StorePath {
    paths.last().cloned().expect("there is one")
}

fn absent() -> StorePath {
    StorePath::from_base_name("nlhn6cma43vk5l44cgr8sw3ykiir1wmm-absent").expect("that is a name")
}

/// What remains of metadata on any way: registration times are given anew, and not all protocols carry `ultimate`.
fn essence(info: &PathInfo) -> PathInfo {
    PathInfo { registration_time: 0, ultimate: false, ..info.clone() }
}

async fn read(mut body: NarBody) -> Result<Vec<u8>, StoreError> {
    let mut nar = Vec::new();
    while let Some(block) = body.next().await {
        nar.extend_from_slice(&block?);
    }
    Ok(nar)
}

async fn nar_from(nars: &dyn NarSource, info: &Arc<PathInfo>, offset: u64) -> Vec<u8> {
    let path = &info.path;
    let body = nars.open(info, offset).await.unwrap_or_else(|error| panic!("cannot open '{path}': {error}"));
    read(body).await.unwrap_or_else(|error| panic!("cannot read '{path}': {error}"))
}

fn tail(memory: &MemoryStore, path: &StorePath, offset: u64) -> Vec<u8> {
    let nar = memory.nar(path).expect("it was added");
    nar.get(usize::try_from(offset).expect("small")..).unwrap_or_default().to_vec()
}

async fn closures_are_sorted_and_list_bad_roots<F: Fixture>(fixture: &F) {
    let (memory, paths) = objects();
    let store = fixture.store(&memory).await;
    let asked = [last(&paths), absent()];
    let closure = store.closure(&asked, Outputs::Exclude).await.expect("bad roots stop nothing");
    let failed: Vec<_> = closure.failed.iter().map(|(path, _)| path.clone()).collect();
    assert_eq!(failed, [absent()], "bad roots are listed");
    let expected = memory.closure(&asked, Outputs::Exclude).await.expect("memory");
    let infos = |infos: &[PathInfo]| infos.iter().map(essence).collect::<Vec<_>>();
    assert_eq!(infos(&closure.infos), infos(&expected.infos), "each path once, ascending, with its metadata");
    names_and_descriptions_are_those_of_the_closure(&store, &asked, &expected).await;
    let nothing = store.closure(&[], Outputs::Exclude).await.expect("nothing is easy");
    assert!(nothing.infos.is_empty() && nothing.failed.is_empty());
}

/// Whichever of the two a source gives for [`Source::members`].
async fn names_and_descriptions_are_those_of_the_closure(
    store: &impl Source,
    roots: &[StorePath],
    expected: &crate::Closure,
) {
    let members = store.members(roots, Outputs::Exclude).await.expect("bad roots stop nothing");
    let (names, failed): (Vec<_>, _) = match members {
        Members::Described(closure) => {
            (closure.infos.into_iter().map(|info| info.path).collect(), closure.failed)
        }
        Members::Named { paths, failed } => (paths.iter().cloned().collect(), failed),
    };
    let failed: Vec<_> = failed.into_iter().map(|(path, _)| path).collect();
    assert_eq!(failed, [absent()], "bad roots are listed");
    let infos: Vec<_> = expected.infos.iter().map(essence).collect();
    assert_eq!(names, infos.iter().map(|info| info.path.clone()).collect::<Vec<_>>());
    let first = infos.first().expect("there is one");
    let some = [first.path.clone(), absent()];
    let described = store.describe(&some).await.expect("one that is not there stops nothing");
    let described_infos: Vec<_> = described.infos.iter().map(essence).collect();
    assert_eq!(described_infos, std::slice::from_ref(first), "only what was asked for");
    let failed: Vec<_> = described.failed.into_iter().map(|(path, _)| path).collect();
    assert_eq!(failed, [absent()], "what is not there is listed");
}

async fn closures_have_outputs_on_request<F: Fixture>(fixture: &F) {
    let memory = MemoryStore::new("the fixture");
    let derivation = memory.add_derivation("program", &["out", "dev"], &[]);
    let built = memory.build(&derivation, &[]);
    let store = fixture.store(&memory).await;
    for (outputs, mut expected) in [(Outputs::Exclude, Vec::new()), (Outputs::Include, built)] {
        expected.push(derivation.clone());
        expected.sort();
        let closure = store.closure(std::slice::from_ref(&derivation), outputs).await;
        let infos = closure.and_then(crate::Closure::complete).expect("all is valid");
        assert_eq!(infos.into_iter().map(|info| info.path).collect::<Vec<_>>(), expected, "{outputs:?}");
    }
}

async fn path_infos_are_sorted_and_leave_out_what_is_not_valid<F: Fixture>(fixture: &F) {
    let (memory, paths) = objects();
    let store = fixture.store(&memory).await;
    let asked: Vec<_> = [absent()].into_iter().chain(paths.iter().rev().cloned()).collect();
    let infos = store.path_infos(&asked).await.expect("it knows its paths");
    let expected: Vec<_> = memory.paths().iter().filter_map(|path| memory.info(path)).collect();
    let essences = |infos: &[PathInfo]| infos.iter().map(essence).collect::<Vec<_>>();
    assert_eq!(essences(&infos), essences(&expected));
}

async fn nars_come_in_the_order_of_the_plan<F: Fixture>(fixture: &F) {
    let (memory, paths) = objects();
    let store = fixture.store(&memory).await;
    let plan = memory.infos(&paths);
    let nars = store.nars(Arc::clone(&plan));
    assert!(!nars.store().is_empty());
    for info in plan.iter() {
        let nar = nar_from(&*nars, info, 0).await;
        assert_eq!((NarHash::of(&nar), nar.len() as u64), (info.nar_hash, info.nar_size), "{}", info.path);
    }
}

async fn nars_are_skipped_dropped_and_begun_in_the_middle<F: Fixture>(fixture: &F) {
    let memory = MemoryStore::new("the fixture").with_block_size(16 << 10);
    let paths: Vec<_> = (0..7)
        .map(|number| {
            // Every second one is large.
            let size = if number % 2 == 0 { 100 } else { LARGE };
            memory.add_output(&format!("path-{number}"), content(size + number), &[])
        })
        .collect();
    let store = fixture.store(&memory).await;
    let plan = memory.infos(&paths);
    let nars = store.nars(Arc::clone(&plan));
    let [_, unpolled, cut, middle, end, begun, whole] = &*plan else { panic!("seven were added") };
    // Nothing is read before it is polled; and the one before is passed over.
    drop(nars.open(unpolled, 0));
    for info in [unpolled, cut, begun] {
        if info.path == begun.path {
            for (info, offset) in [(middle, 1_000_001), (end, end.nar_size)] {
                let nar = nar_from(&*nars, info, offset).await;
                assert!(nar == tail(&memory, &info.path, offset), "'{}' from byte {offset}", info.path);
            }
        }
        let mut body = nars.open(info, 0).await.expect("it is valid");
        assert!(matches!(body.next().await, Some(Ok(block)) if !block.is_empty()), "{}", info.path);
        // The rest is not wanted.
    }
    assert!(nar_from(&*nars, whole, 0).await == tail(&memory, &whole.path, 0));
}

async fn nars_come_in_any_order_where_that_is_promised<F: Fixture>(fixture: &F) {
    let (memory, paths) = objects();
    let store = fixture.store(&memory).await;
    let plan = memory.infos(&paths);
    let nars = store.nars(Arc::clone(&plan));
    let NarAccess::Random { at_once } = nars.access() else { return };
    assert!(at_once > 0);
    for info in plan.iter().rev().chain(plan.iter()) {
        for offset in [0, 50] {
            assert!(nar_from(&*nars, info, offset).await == tail(&memory, &info.path, offset));
        }
    }
    let mut open = Vec::new();
    for info in plan.iter().rev().take(at_once) {
        open.push((info, nars.open(info, 0).await.expect("it is valid")));
    }
    for (info, body) in open {
        assert!(read(body).await.expect("it is whole") == tail(&memory, &info.path, 0));
    }
}

async fn an_abandoned_source_can_still_be_used<F: Fixture>(fixture: &F) {
    let (memory, paths) = objects();
    let store = fixture.store(&memory).await;
    let plan = memory.infos(&paths);
    let large = plan.last().expect("there are some");
    for _ in 0..3 {
        let mut body = store.nars(Arc::clone(&plan)).open(large, 0).await.expect("it is valid");
        assert!(matches!(body.next().await, Some(Ok(_))));
    }
    // A body may outlive what it came from.
    let body = store.nars(Arc::clone(&plan)).open(large, 0).await.expect("it is valid");
    assert!(read(body).await.expect("it is whole") == tail(&memory, &large.path, 0));
    assert_eq!(store.path_infos(&paths).await.expect("it still answers").len(), paths.len());
}

async fn add_all(
    store: &dyn Destination,
    from: &MemoryStore,
    paths: &[StorePath],
    on_failure: OnFailure,
) -> Vec<Result<Outcome, StoreError>> {
    let plan = from.infos(paths);
    let outcomes: Vec<_> = store.add_all(Arc::clone(&plan), from.nars(plan), on_failure).collect().await;
    let errors = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    let last_is_error = outcomes.last().is_some_and(Result::is_err);
    assert!(errors == usize::from(last_is_error), "an error ends the stream: {outcomes:?}");
    // Whatever was answered is true, whatever came after it.
    let answered: BTreeSet<_> = outcomes.iter().filter_map(added).cloned().collect();
    assert_eq!(valid(store, paths).await.intersection(&answered).count(), answered.len(), "{outcomes:?}");
    outcomes
}

fn added(outcome: &Result<Outcome, StoreError>) -> Option<&StorePath> {
    match outcome {
        Ok(Outcome::Added(path) | Outcome::AlreadyValid(path)) => Some(path),
        _ => None,
    }
}

async fn valid(store: &dyn Destination, paths: &[StorePath]) -> BTreeSet<StorePath> {
    store.valid_paths(paths, ValidityQuery::default()).await.expect("it knows its paths")
}

async fn a_plan_arrives_whole_and_again_changes_nothing<F: Fixture>(fixture: &F) {
    let (memory, paths) = objects();
    let store = fixture.store(&MemoryStore::new("empty")).await;
    let all: BTreeSet<_> = paths.iter().cloned().collect();
    for _ in 0..2 {
        let outcomes = add_all(&store, &memory, &paths, OnFailure::Stop).await;
        let named: Vec<_> = outcomes.iter().filter_map(added).collect();
        assert_eq!(named.len(), paths.len(), "each path has its outcome: {outcomes:?}");
        assert_eq!(named.into_iter().cloned().collect::<BTreeSet<_>>(), all);
    }
    let infos = store.path_infos(&paths).await.expect("it knows its paths");
    assert_eq!(infos.len(), paths.len());
    for info in infos {
        let expected = memory.info(&info.path).expect("it was added");
        assert_eq!(essence(&info), essence(&expected));
        let nars = store.nars([Arc::new(info.clone())].into());
        assert!(nar_from(&*nars, &Arc::new(info), 0).await == tail(&memory, &expected.path, 0));
    }
    assert!(add_all(&store, &memory, &[], OnFailure::Stop).await.is_empty());
}

async fn validity_is_asked_anew_each_time<F: Fixture>(fixture: &F) {
    let memory = MemoryStore::new("the fixture");
    let path = memory.add("path", "x", &[]);
    let store = fixture.store(&MemoryStore::new("empty")).await;
    let asked = [absent(), path.clone()];
    let plain = ValidityQuery::default();
    for query in [plain, plain.locking(), plain.locking().substituting(true)] {
        let answer = store.valid_paths(&asked, query).await.expect("whatever is wished besides");
        assert!(answer.is_empty(), "{query:?}");
    }
    let outcomes =
        add_all(&fixture.reopen(&store), &memory, std::slice::from_ref(&path), OnFailure::Stop).await;
    assert!(matches!(outcomes.as_slice(), [Ok(Outcome::Added(_))]), "{outcomes:?}");
    for query in [plain, plain.locking()] {
        let answer = store.valid_paths(&asked, query).await.expect("it knows its paths");
        assert_eq!(answer, BTreeSet::from([path.clone()]), "{query:?}");
    }
}

type MakeFault = fn(StorePath) -> Fault;

const DAMAGE: [(&str, MakeFault); 4] = [
    ("wrong hash", Fault::CorruptContent),
    ("too short", |path| Fault::TruncateContent(path, 90)),
    ("too long", |path| Fault::ExtendContent(path, 8)),
    ("cannot be read", |path| Fault::FailReading(path, 90)),
];

async fn a_bad_small_body_fails_its_path_alone<F: Fixture>(fixture: &F) {
    for (name, fault) in DAMAGE {
        let memory = MemoryStore::new("the fixture");
        let before = memory.add("before", "good", &[]);
        let bad = memory.add("bad", "bad", std::slice::from_ref(&before));
        let referrer = memory.add("referrer", "good itself", std::slice::from_ref(&bad));
        let after = memory.add("after", "good", std::slice::from_ref(&before));
        memory.inject(fault(bad.clone()));
        let store = fixture.store(&MemoryStore::new("empty")).await;
        let all = [before.clone(), bad.clone(), referrer, after.clone()];
        let outcomes = add_all(&store, &memory, &all, OnFailure::Continue).await;
        assert_eq!(outcomes.len(), 3, "the referrer has no outcome ({name}): {outcomes:?}");
        let failed: Vec<_> = outcomes
            .iter()
            .filter_map(|outcome| match outcome {
                Ok(Outcome::Failed { path, error }) => Some((path, error.scope())),
                _ => None,
            })
            .collect();
        assert_eq!(failed, [(&bad, Scope::Path)], "{name}: {outcomes:?}");
        assert_eq!(valid(&store, &all).await, BTreeSet::from([before, after]), "{name}");
        memory.heal();
        let again = add_all(&store, &memory, &all, OnFailure::Continue).await;
        assert_eq!(again.iter().filter_map(added).count(), all.len(), "{name}: {again:?}");
    }
}

async fn a_bad_large_body_is_never_registered<F: Fixture>(fixture: &F) {
    for (name, fault) in DAMAGE {
        let memory = MemoryStore::new("the fixture").with_block_size(64 << 10);
        let before = memory.add("before", "good", &[]);
        let bad = memory.add_output("bad", content(LARGE), &[]);
        memory.inject(fault(bad.clone()));
        let store = fixture.store(&MemoryStore::new("empty")).await;
        let all = [before.clone(), bad.clone()];
        let outcomes = add_all(&store, &memory, &all, OnFailure::Continue).await;
        // Where its beginning is out, nothing more can be taken.
        let (Some(Ok(Outcome::Failed { error, .. }) | Err(error)), 2) = (outcomes.last(), outcomes.len())
        else {
            panic!("{name}: {outcomes:?}")
        };
        assert_eq!((error.scope(), error.path()), (Scope::Path, Some(&bad)), "{name}: {error}");
        assert_eq!(valid(&store, &all).await, BTreeSet::from([before]), "{name}");
    }
}

async fn after_a_failure_nothing_more_begins_unless_told_to<F: Fixture>(fixture: &F) {
    let memory = MemoryStore::new("the fixture");
    let bad = memory.add("bad", "bad", &[]);
    memory.inject(Fault::CorruptContent(bad.clone()));
    let mut all = vec![bad];
    // Many, as some may be under way together with the bad one.
    all.extend((0..200).map(|number| memory.add(&format!("after-{number}"), "good", &[])));
    for (on_failure, all_arrive) in [(OnFailure::Stop, false), (OnFailure::Continue, true)] {
        let store = fixture.store(&MemoryStore::new("empty")).await;
        let outcomes = add_all(&store, &memory, &all, on_failure).await;
        assert!(outcomes.iter().any(|outcome| matches!(outcome, Ok(Outcome::Failed { .. }))), "{outcomes:?}");
        let arrived = valid(&store, &all).await;
        assert_eq!(arrived.contains(&last(&all)), all_arrive, "{on_failure:?}");
        assert_eq!(arrived.len() == all.len() - 1, all_arrive, "{on_failure:?}: {}", arrived.len());
    }
}

async fn a_broken_source_ends_it_and_costs_no_path<F: Fixture>(fixture: &F) {
    for size in [100, LARGE] {
        let memory = MemoryStore::new("the fixture").with_block_size(64 << 10);
        let mut all = memory.add_chain(3);
        let cut = memory.add_output("cut", content(size), &all);
        all.push(cut.clone());
        all.push(memory.add("after", "good", &[]));
        let store = fixture.store(&MemoryStore::new("empty")).await;
        memory.inject(Fault::LoseConnection(cut.clone(), 90));
        let outcomes = add_all(&store, &memory, &all, OnFailure::Continue).await;
        let Some(Err(error)) = outcomes.last() else { panic!("{outcomes:?}") };
        assert_eq!((error.scope(), error.side()), (Scope::Connection, Side::Source), "{error}");
        assert!(error.is_temporary(), "{error}");
        let failed = |outcome: &Result<_, _>| matches!(outcome, Ok(Outcome::Failed { .. }));
        assert!(!outcomes.iter().any(failed), "{outcomes:?}");
        assert!(!valid(&store, &all).await.contains(&cut));
        // A line breaks once.
        let again = add_all(&store, &memory, &all, OnFailure::Stop).await;
        assert_eq!(again.iter().filter_map(added).count(), all.len(), "{again:?}");
    }
}

async fn nothing_is_registered_without_its_references<F: Fixture>(fixture: &F) {
    let memory = MemoryStore::new("the fixture");
    let library = memory.add("library", "x", &[]);
    let program = memory.add("program", "x", std::slice::from_ref(&library));
    let store = fixture.store(&MemoryStore::new("empty")).await;
    let outcomes = add_all(&store, &memory, std::slice::from_ref(&program), OnFailure::Continue).await;
    assert!(matches!(outcomes.as_slice(), [Ok(Outcome::Failed { .. }) | Err(_)]), "{outcomes:?}");
    assert!(valid(&store, &[program]).await.is_empty());
}

async fn dropped_outcomes_end_the_work<F: Fixture>(fixture: &F) {
    let memory = MemoryStore::new("the fixture");
    let first = memory.add("first", "x", &[]);
    let stalled = memory.add_output("stalled", content(LARGE), &[]);
    let store = fixture.store(&MemoryStore::new("empty")).await;
    let plan = memory.infos(&[first.clone(), stalled.clone()]);
    let nar = |path: &StorePath| memory.nar(path).expect("it was added");
    let gone = Arc::new(AtomicBool::new(false));
    let guard = SetOnDrop(Arc::clone(&gone));
    // More than is held back by anybody, and then nothing any more.
    let mut beginning = vec![Ok(nar(&stalled).slice(..LARGE / 2))].into_iter();
    let body = stream::poll_fn(move |_| {
        let _ = &guard;
        beginning.next().map_or(Poll::Pending, |block: Result<Bytes, StoreError>| Poll::Ready(Some(block)))
    });
    let bodies = [NarBody::new(stream::iter([Ok(nar(&first))])), NarBody::new(body)];
    let (plan, nars) = script_of_bodies(plan.iter().cloned(), bodies);
    let mut outcomes = store.add_all(plan, nars, OnFailure::Stop);
    let outcome = outcomes.next().await;
    assert!(matches!(&outcome, Some(Ok(Outcome::Added(path))) if *path == first), "{outcome:?}");
    assert!(!gone.load(Ordering::SeqCst));
    drop(outcomes);
    for _ in 0..RESTS {
        if gone.load(Ordering::SeqCst) {
            break;
        }
        fixture.rest().await;
    }
    assert!(gone.load(Ordering::SeqCst), "the body is still held");
    assert_eq!(valid(&store, &[first.clone(), stalled.clone()]).await, BTreeSet::from([first]));
    let again = add_all(&store, &memory, std::slice::from_ref(&stalled), OnFailure::Stop).await;
    assert!(matches!(again.as_slice(), [Ok(Outcome::Added(_))]), "{again:?}");
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
