//! What a copy does when something takes a connection with it.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use futures_util::{StreamExt as _, future::BoxFuture, stream};
use ncc_copy::{CopyError, Described, Event, Observer, OnFailure, Purpose, Request, copy, plan};
use ncc_store::{
    Closure, Destination, Members, NarAccess, NarPlan, NarSource, Outcome, Outcomes, Outputs, PathInfo,
    Problem, Retry, Side, Source, StoreDir, StoreError, StorePath,
    test_util::{Call, Fault, MemoryStore},
};

use super::observer;

fn sizes(calls: &[Call]) -> Vec<usize> {
    calls
        .iter()
        .filter_map(|call| match call {
            Call::ValidPaths { paths, .. } => Some(paths.len()),
            _ => None,
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_broken_line_costs_no_path() {
    for on_failure in [OnFailure::Stop, OnFailure::Continue] {
        let here = MemoryStore::new("here");
        let chain = here.add_chain(5);
        here.inject(Fault::LoseConnection(chain[2].clone(), 10));
        let there = MemoryStore::new("there");
        let mut request = Request::new([chain[4].clone()]);
        request.on_failure = on_failure;
        request.retries.limit = 1;
        let report = copy(&here, &there, &request, &observer()).await.unwrap();
        assert_eq!((report.sent.count(), report.failed.len(), report.reconnects), (5, 0, 1));
        assert_eq!(there.paths(), here.paths());
    }
}

#[tokio::test(start_paused = true)]
async fn without_leave_to_reconnect_a_broken_line_ends_the_copy_and_fails_no_path() {
    let here = MemoryStore::new("here");
    let chain = here.add_chain(3);
    here.inject(Fault::LoseConnection(chain[1].clone(), 10));
    let there = MemoryStore::new("there");
    let mut request = Request::new([chain[2].clone()]);
    request.on_failure = OnFailure::Continue;
    let error = copy(&here, &there, &request, &observer()).await.unwrap_err();
    let CopyError::Interrupted { report, source } = error else { panic!("{error}") };
    assert!(source.is_temporary());
    assert_eq!((report.sent.count(), report.unsent.count(), report.failed.len()), (1, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn reconnects_without_progress_come_to_an_end() {
    let here = MemoryStore::new("here");
    let chain = here.add_chain(5);
    let there = MemoryStore::new("there");
    there.inject(Fault::FailAfterAdds(2));
    let mut request = Request::new([chain[4].clone()]);
    request.retries.limit = 3;
    let error = copy(&here, &there, &request, &observer()).await.unwrap_err();
    let CopyError::Interrupted { report, .. } = error else { panic!("{error}") };
    assert_eq!((report.sent.count(), report.reconnects), (2, 3));
}

/// Deletes a path at the destination when a connection breaks, as a collector may: nothing protects it any more.
struct Collector {
    there: MemoryStore,
    prey: ncc_store::StorePath,
    seen: Mutex<u32>,
}

impl Observer for Collector {
    fn event(&self, event: Event<'_>) {
        if let Event::Reconnecting { .. } = event {
            self.there.delete(&self.prey);
            *self.seen.lock().unwrap() += 1;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_vanished_while_nothing_protected_it_is_sent_again() {
    let here = MemoryStore::new("here");
    let chain = here.add_chain(5);
    let there = MemoryStore::new("there");
    copy(&here, &there, &Request::new([chain[1].clone()]), &observer()).await.unwrap();
    // Present before; and sent in the first round.
    for prey in [&chain[1], &chain[2]] {
        here.inject(Fault::LoseConnection(chain[3].clone(), 10));
        let collector =
            Arc::new(Collector { there: there.clone(), prey: prey.clone(), seen: Mutex::default() });
        let mut request = Request::new([chain[4].clone()]);
        request.retries.limit = 1;
        let report = copy(&here, &there, &request, &(Arc::clone(&collector) as _)).await.unwrap();
        assert_eq!(*collector.seen.lock().unwrap(), 1);
        assert_eq!(there.paths(), here.paths());
        let listed = report.sent.count() + report.present.count();
        assert_eq!(listed, 5, "each path is in one list: {report:?}");
        for path in &chain[2..] {
            there.delete(path);
        }
    }
}

/// A store that tells names first, as one on a host does.
struct Distant(MemoryStore);

impl Source for Distant {
    fn name(&self) -> &str {
        Source::name(&self.0)
    }

    fn store_dir(&self) -> &StoreDir {
        Source::store_dir(&self.0)
    }

    fn closure<'a>(
        &'a self,
        roots: &'a [StorePath],
        outputs: Outputs,
    ) -> BoxFuture<'a, Result<Closure, StoreError>> {
        self.0.closure(roots, outputs)
    }

    fn members<'a>(
        &'a self,
        roots: &'a [StorePath],
        outputs: Outputs,
    ) -> BoxFuture<'a, Result<Members, StoreError>> {
        Box::pin(async move {
            let Closure { infos, failed } = self.0.closure(roots, outputs).await?;
            Ok(Members::Named { paths: infos.into_iter().map(|info| info.path).collect(), failed })
        })
    }

    fn path_infos<'a>(&'a self, paths: &'a [StorePath]) -> BoxFuture<'a, Result<Vec<PathInfo>, StoreError>> {
        self.0.path_infos(paths)
    }

    fn nars(&self, plan: NarPlan) -> Arc<dyn NarSource> {
        self.0.nars(plan)
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_known_by_name_and_vanished_is_described_and_sent() {
    let here = Distant(MemoryStore::new("here"));
    let chain = here.0.add_chain(5);
    let there = MemoryStore::new("there");
    copy(&here, &there, &Request::new([chain[1].clone()]), &observer()).await.unwrap();
    here.0.inject(Fault::LoseConnection(chain[3].clone(), 10));
    let prey = chain[1].clone();
    let collector = Arc::new(Collector { there: there.clone(), prey, seen: Mutex::default() });
    let mut request = Request::new([chain[4].clone()]);
    request.retries.limit = 1;
    let report = copy(&here, &there, &request, &(Arc::clone(&collector) as _)).await.unwrap();
    assert_eq!(*collector.seen.lock().unwrap(), 1);
    assert_eq!(there.paths(), here.0.paths());
    assert_eq!(report.present_by_name, chain[..1]);
    assert_eq!((report.sent.count(), report.present_count()), (4, 1));
}

#[tokio::test(start_paused = true)]
async fn whoever_wants_the_metadata_of_what_is_present_gets_it() {
    let here = Distant(MemoryStore::new("here"));
    let chain = here.0.add_chain(3);
    let there = MemoryStore::new("there");
    copy(&here, &there, &Request::new([chain[1].clone()]), &observer()).await.unwrap();
    let mut request = Request::new([chain[2].clone()]);
    for (purpose, described, count) in [
        (Purpose::Copy, Described::Missing, 0),
        (Purpose::Copy, Described::Everything, 2),
        (Purpose::Look, Described::Missing, 2),
    ] {
        request.purpose = purpose;
        request.described = described;
        let plan = plan(&here, &there, &request, &observer()).await.unwrap();
        assert_eq!((plan.present.len(), plan.present_by_name.len()), (count, 2 - count));
        assert_eq!(plan.to_send.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_path_that_takes_the_connection_with_it_leaves_the_others() {
    let here = MemoryStore::new("here").with_block_size(100 << 10);
    let big = here.add("big", vec![7; 1 << 20], &[]);
    let needs_big = here.add("needs-big", "x", std::slice::from_ref(&big));
    let others = here.add_chain(3);
    here.inject(Fault::CorruptContent(big.clone()));
    let there = MemoryStore::new("there");
    let mut request = Request::new([others[2].clone(), needs_big.clone()]);
    request.on_failure = OnFailure::Continue;
    let error = copy(&here, &there, &request, &observer()).await.unwrap_err();
    let CopyError::Failed { report } = error else { panic!("{error}") };
    let failed: Vec<_> = report.failed.iter().map(|failed| &failed.path).collect();
    assert_eq!(failed, [&big, &needs_big]);
    assert_eq!((report.sent.count(), report.reconnects), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn the_roots_that_did_not_fail_are_checked_too() {
    let here = MemoryStore::new("here");
    let (good, bad) = (here.add("good", "x", &[]), here.add("bad", "y", &[]));
    here.inject(Fault::CorruptContent(bad.clone()));
    let there = MemoryStore::new("there");
    there.inject(Fault::ForgetPath(good.clone()));
    let mut request = Request::new([good, bad]);
    request.on_failure = OnFailure::Continue;
    let error = copy(&here, &there, &request, &observer()).await.unwrap_err();
    assert!(matches!(error, CopyError::RootMissing { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn roots_that_are_not_valid_leave_the_others() {
    let here = MemoryStore::new("here");
    let good = here.add_chain(2);
    let mut broken: Vec<ncc_store::StorePath> = Vec::new();
    for name in ["base", "gone", "needs-gone", "needs-more"] {
        let below: Vec<_> = broken.last().cloned().into_iter().collect();
        broken.push(here.add(name, name, &below));
    }
    let gone: Vec<_> = ["one", "two"].map(|name| here.add(name, name, &[])).into();
    for path in &gone {
        here.delete(path);
    }
    here.delete(&broken[1]);
    let there = MemoryStore::new("there");
    let mut request = Request::new(gone.iter().cloned().chain([good[1].clone(), broken[3].clone()]));
    let error = copy(&here, &there, &request, &observer()).await.unwrap_err();
    assert!(matches!(error, CopyError::Store(_)), "{error}");
    assert!(there.paths().is_empty());

    request.on_failure = OnFailure::Continue;
    let error = copy(&here, &there, &request, &observer()).await.unwrap_err();
    assert_eq!(error.to_string(), "5 of 7 paths could not be copied");
    let CopyError::Failed { report } = error else { panic!("{error}") };
    let by_themselves = report.failed.iter().filter(|failed| failed.error.is_some()).count();
    assert_eq!((report.sent.count(), by_themselves, report.failed.len()), (2, 3, 5));
    assert!(good.iter().all(|path| there.paths().contains(path)));
}

/// A store on this machine with a row that cannot be read: whoever asks for that path alone gets an error, and a closure
/// lists it among what failed.
struct OddRow {
    store: MemoryStore,
    odd: StorePath,
}

impl OddRow {
    fn error(&self) -> StoreError {
        StoreError::new(Side::Source, "here", Problem::NotValid { path: self.store_dir().full(&self.odd) })
    }
}

impl Source for OddRow {
    fn name(&self) -> &str {
        Source::name(&self.store)
    }

    fn store_dir(&self) -> &StoreDir {
        Source::store_dir(&self.store)
    }

    fn is_at_hand(&self) -> bool {
        true
    }

    fn closure<'a>(
        &'a self,
        roots: &'a [StorePath],
        outputs: Outputs,
    ) -> BoxFuture<'a, Result<Closure, StoreError>> {
        Box::pin(async move {
            let good: Vec<_> = roots.iter().filter(|root| **root != self.odd).cloned().collect();
            let mut closure = self.store.closure(&good, outputs).await?;
            if good.len() < roots.len() {
                closure.failed.push((self.odd.clone(), self.error()));
            }
            Ok(closure)
        })
    }

    fn path_infos<'a>(&'a self, paths: &'a [StorePath]) -> BoxFuture<'a, Result<Vec<PathInfo>, StoreError>> {
        if paths.contains(&self.odd) {
            return Box::pin(std::future::ready(Err(self.error())));
        }
        self.store.path_infos(paths)
    }

    fn nars(&self, plan: NarPlan) -> Arc<dyn NarSource> {
        self.store.nars(plan)
    }
}

/// <https://github.com/NixOS/nix/issues/6843>
#[tokio::test(start_paused = true)]
async fn r6843_a_root_whose_row_cannot_be_read_leaves_the_others() {
    let store = MemoryStore::new("here");
    let good = store.add_chain(2);
    let odd = store.add("odd", "x", &[]);
    let here = OddRow { store, odd: odd.clone() };
    let there = MemoryStore::new("there");
    let mut request = Request::new([odd.clone(), good[1].clone()]);
    let error = copy(&here, &there, &request, &observer()).await.unwrap_err();
    assert!(matches!(error, CopyError::Store(_)), "{error}");
    assert!(there.paths().is_empty());

    request.on_failure = OnFailure::Continue;
    let error = copy(&here, &there, &request, &observer()).await.unwrap_err();
    let CopyError::Failed { report } = error else { panic!("{error}") };
    assert_eq!((report.sent.count(), report.failed.len()), (2, 1));
    assert_eq!(report.failed[0].path, odd);
    assert!(good.iter().all(|path| there.paths().contains(path)));
}

#[tokio::test(start_paused = true)]
async fn nothing_to_do_costs_one_question_about_the_roots() {
    let here = MemoryStore::new("here");
    let chain = here.add_chain(5000);
    let there = MemoryStore::new("there");
    let request = Request::new([chain[4999].clone()]);
    copy(&here, &there, &request, &observer()).await.unwrap();
    there.forget_calls();
    let report = copy(&here, &there, &request, &observer()).await.unwrap();
    assert!(report.roots_were_valid && report.present.is_empty());
    assert_eq!(sizes(&there.calls()), [1]);
    let protects = |call: &Call| matches!(call, Call::ValidPaths { query, .. } if query.lock);
    assert!(there.calls().iter().all(protects));
}

#[tokio::test(start_paused = true)]
async fn a_large_closure_is_asked_for_only_when_a_root_is_missing() {
    let here = MemoryStore::new("here");
    let chain = here.add_chain(5000);
    let there = MemoryStore::new("there");
    let plan = plan(&here, &there, &Request::new([chain[4999].clone()]), &observer()).await.unwrap();
    assert_eq!(plan.to_send.len(), 5000);
    assert_eq!(sizes(&there.calls()), [1, 5000]);
}

#[tokio::test(start_paused = true)]
async fn a_source_of_many_open_nars_gives_the_same() {
    let here = MemoryStore::new("here").with_access(NarAccess::Random { at_once: 8 });
    let chain = here.add_chain(20);
    let there = MemoryStore::new("there");
    let report = copy(&here, &there, &Request::new([chain[19].clone()]), &observer()).await.unwrap();
    assert_eq!(report.sent.count(), 20);
    assert_eq!(there.paths(), here.paths());
}

/// Says that the first path of each plan was added, loses its connection, and then does not have the path.
struct Liar(ncc_store::StoreDir, Mutex<u32>);

impl Destination for Liar {
    fn name(&self) -> &'static str {
        "liar"
    }

    fn store_dir(&self) -> &ncc_store::StoreDir {
        &self.0
    }

    fn valid_paths<'a>(
        &'a self,
        _: &'a [StorePath],
        _: ncc_store::ValidityQuery,
    ) -> BoxFuture<'a, Result<BTreeSet<StorePath>, StoreError>> {
        Box::pin(std::future::ready(Ok(BTreeSet::new())))
    }

    fn add_all(&self, plan: NarPlan, _: Arc<dyn NarSource>, _: OnFailure) -> Outcomes {
        *self.1.lock().unwrap() += 1;
        let problem = Problem::Connection {
            action: "answer",
            path: None,
            retry: Retry::Worthwhile,
            source: "gone".into(),
        };
        let lost = StoreError::new(Side::Destination, "liar", problem);
        stream::iter([Ok(Outcome::Added(plan[0].path.clone())), Err(lost)]).boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_registered_and_then_gone_again_is_no_progress() {
    let here = MemoryStore::new("here");
    let chain = here.add_chain(3);
    let liar = Liar(ncc_store::StoreDir::default(), Mutex::default());
    let mut request = Request::new([chain[2].clone()]);
    request.retries.limit = 2;
    let error = copy(&here, &liar, &request, &observer()).await.unwrap_err();
    assert!(matches!(error, CopyError::Interrupted { .. }), "{error}");
    assert_eq!(*liar.1.lock().unwrap(), 3, "the first, and the two reconnects that were allowed");
}

/// Deletes a path at the source when a connection breaks.
#[tokio::test(start_paused = true)]
async fn what_the_source_lost_meanwhile_costs_only_what_needs_it() {
    let here = MemoryStore::new("here");
    let chain = here.add_chain(2);
    let [prey, other] = ["prey", "other"].map(|name| here.add(name, name, &[]));
    let needs_prey = here.add("needs-prey", "x", std::slice::from_ref(&prey));
    let there = MemoryStore::new("there");
    here.inject(Fault::LoseConnection(chain[0].clone(), 10));
    here.inject(Fault::LoseConnection(prey.clone(), 10));
    here.inject(Fault::LoseConnection(other.clone(), 10));
    let collector = Arc::new(Collector { there: here.clone(), prey: prey.clone(), seen: Mutex::default() });
    let mut request = Request::new([chain[1].clone(), needs_prey.clone(), other.clone()]);
    request.on_failure = OnFailure::Continue;
    request.retries.limit = 5;
    let error = copy(&here, &there, &request, &(Arc::clone(&collector) as _)).await.unwrap_err();
    let CopyError::Failed { report } = error else { panic!("{error}") };
    let failed: Vec<_> = report.failed.iter().map(|failed| &failed.path).collect();
    assert_eq!(failed, [&prey, &needs_prey]);
    assert_eq!((report.sent.count(), report.unsent.count()), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn a_root_that_only_the_destination_has_is_there() {
    let here = MemoryStore::new("here");
    let there = MemoryStore::new("there");
    let good = here.add("good", "x", &[]);
    let only_there = there.add("only-there", "x", &[]);
    let mut request = Request::new([good, only_there]);
    request.on_failure = OnFailure::Continue;
    let report = copy(&here, &there, &request, &observer()).await.unwrap();
    assert_eq!((report.sent.count(), report.failed.len()), (1, 0));
}
