//! A connection that is made anew: when, how often, after how long. The clock is not the world's.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use ncc_copy::{CopyError, Event, NoObserver, Observer, Report, Request, copy};
use ncc_store::{
    Destination, NarPlan, NarSource, OnFailure, Outcomes, Problem, Retry, Side, StoreDir, StoreError,
    StorePath, ValidityQuery,
    test_util::{Fault, MemoryStore},
};
use tokio::time::Instant;

/// A destination that cannot answer the questions whose turn in here is `Some`.
struct Flaky {
    store: MemoryStore,
    questions: Mutex<VecDeque<Option<Retry>>>,
    room: Option<u64>,
}

impl Flaky {
    fn new(questions: impl IntoIterator<Item = Option<Retry>>) -> Self {
        Self {
            store: MemoryStore::new("there"),
            questions: Mutex::new(questions.into_iter().collect()),
            room: None,
        }
    }
}

impl Destination for Flaky {
    fn name(&self) -> &'static str {
        "there"
    }

    fn store_dir(&self) -> &StoreDir {
        Destination::store_dir(&self.store)
    }

    fn valid_paths<'a>(
        &'a self,
        paths: &'a [StorePath],
        query: ValidityQuery,
    ) -> BoxFuture<'a, Result<BTreeSet<StorePath>, StoreError>> {
        let Some(retry) = self.questions.lock().unwrap().pop_front().flatten() else {
            return self.store.valid_paths(paths, query);
        };
        let problem = Problem::Connection { action: "answer", path: None, retry, source: "gone".into() };
        Box::pin(std::future::ready(Err(StoreError::new(Side::Destination, "there", problem))))
    }

    /// Asked too, where it is not at hand, while the source computes the closure.
    fn is_at_hand(&self) -> bool {
        true
    }

    fn free_space(&self) -> BoxFuture<'_, Result<Option<u64>, StoreError>> {
        Box::pin(std::future::ready(Ok(self.room)))
    }

    fn add_all(&self, plan: NarPlan, nars: Arc<dyn NarSource>, on_failure: OnFailure) -> Outcomes {
        self.store.add_all(plan, nars, on_failure)
    }
}

/// Notes each try: its number, and the pause that is announced.
#[derive(Default)]
struct Tries(Mutex<Vec<(u32, Duration)>>);

impl Observer for Tries {
    fn event(&self, event: Event<'_>) {
        if let Event::Reconnecting { pause, number, .. } = event {
            self.0.lock().unwrap().push((number, pause));
        }
    }
}

/// A copy of five paths, with this many tries: what came of it, the tries, and how long all of it took.
async fn copied(
    here: &MemoryStore,
    there: &Flaky,
    limit: u32,
) -> (Result<Report, CopyError>, Vec<(u32, Duration)>, Duration) {
    let chain = here.add_chain(5);
    let mut request = Request::new([chain[4].clone()]);
    request.retries.limit = limit;
    let tries = Arc::new(Tries::default());
    let start = Instant::now();
    let result = copy(here, there, &request, &(Arc::clone(&tries) as _)).await;
    (result, std::mem::take(&mut *tries.0.lock().unwrap()), start.elapsed())
}

const LOST: Option<Retry> = Some(Retry::Worthwhile);
const UNREACHED: Option<Retry> = Some(Retry::OnceReached);
const REFUSED: Option<Retry> = Some(Retry::Useless);

#[tokio::test(start_paused = true)]
async fn who_was_never_reached_is_not_tried_again() {
    for first in [UNREACHED, REFUSED] {
        let (result, tries, took) = copied(&MemoryStore::new("here"), &Flaky::new([first]), 5).await;
        assert!(matches!(result, Err(CopyError::Store(_))), "{result:?}");
        assert_eq!((tries.len(), took), (0, Duration::ZERO));
    }
}

#[tokio::test(start_paused = true)]
async fn who_was_lost_while_the_plan_was_made_is_tried_again_also_while_unreached() {
    let there = Flaky::new([LOST, UNREACHED, UNREACHED]);
    let (result, tries, _) = copied(&MemoryStore::new("here"), &there, 3).await;
    assert_eq!(result.unwrap().sent.count(), 5);
    assert_eq!(tries.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn who_stays_away_is_given_up_after_pauses_that_grow() {
    let here = MemoryStore::new("here");
    // The roots and the closure are answered for; then the line breaks, and nobody is there any more.
    let there = Flaky::new([None, None].into_iter().chain([UNREACHED; 50]));
    let chain = here.add_chain(5);
    here.inject(Fault::LoseConnection(chain[2].clone(), 10));
    let (result, tries, took) = copied(&here, &there, 6).await;
    let Err(CopyError::Interrupted { report, source }) = result else { panic!("{result:?}") };
    assert!(source.is_unreached() && source.is_temporary());
    assert_eq!((report.sent.count(), report.unsent.count(), report.reconnects), (2, 3, 6));
    let whole = [250, 1000, 4000, 16_000, 30_000, 30_000].map(Duration::from_millis);
    assert_eq!(tries.len(), whole.len());
    for ((_, pause), whole) in tries.iter().zip(whole) {
        // A moment of it is over before it is announced.
        let pause = *pause + Duration::from_millis(100);
        assert!((whole / 2..=whole).contains(&pause), "{pause:?} of {whole:?}");
    }
    let together: Duration = tries.iter().map(|(_, pause)| *pause + Duration::from_millis(100)).sum();
    assert!(took >= together && took < together + Duration::from_millis(50), "{took:?}, {together:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_behind_a_loss_ends_it() {
    let here = MemoryStore::new("here");
    let there = Flaky::new([None, None, UNREACHED, REFUSED]);
    let chain = here.add_chain(5);
    here.inject(Fault::LoseConnection(chain[2].clone(), 10));
    let (result, tries, _) = copied(&here, &there, 5).await;
    let Err(CopyError::Interrupted { source, .. }) = result else { panic!("{result:?}") };
    assert!(!source.is_temporary());
    assert_eq!(tries.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_path_that_came_through_makes_all_tries_new() {
    let here = MemoryStore::new("here");
    let chain = here.add_chain(5);
    for path in &chain {
        here.inject(Fault::LoseConnection(path.clone(), 10));
    }
    let (result, tries, _) = copied(&here, &Flaky::new([]), 1).await;
    let report = result.unwrap();
    assert_eq!((report.sent.count(), report.reconnects), (5, 5));
    assert!(tries.iter().all(|(number, pause)| *number == 1 && *pause <= Duration::from_millis(250)));
}

#[tokio::test]
async fn what_does_not_fit_is_not_begun_unless_that_is_wanted() {
    let here = MemoryStore::new("here");
    let path = here.add("path", "content", &[]);
    let size = here.info(&path).unwrap().nar_size;
    let mut request = Request::new([path]);
    for (check_space, room, fits) in [(true, size - 1, false), (true, size, true), (false, size - 1, true)] {
        request.check_space = check_space;
        let there = Flaky { room: Some(room), ..Flaky::new([]) };
        let result = copy(&here, &there, &request, &NoObserver.shared()).await;
        match result {
            Ok(report) => assert!(fits && report.sent.count() == 1),
            Err(CopyError::NoSpace { needed, free, .. }) => {
                assert!(!fits && there.store.paths().is_empty());
                assert_eq!((needed, free), (size, room));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// What was registered over the lost connection nobody protected any more.
#[tokio::test(start_paused = true)]
async fn the_last_question_is_put_again_with_everything_protected() {
    let here = MemoryStore::new("here");
    let there = Flaky::new([None, None, LOST, UNREACHED]);
    let (result, tries, _) = copied(&here, &there, 2).await;
    assert_eq!((result.unwrap().sent.count(), tries.len()), (5, 2));
    let calls = there.store.calls();
    let locks = |call: &ncc_store::test_util::Call| matches!(call, ncc_store::test_util::Call::ValidPaths { paths, query } if query.lock && paths.len() == 5);
    assert_eq!(calls.iter().filter(|call| locks(call)).count(), 2, "{calls:#?}");
}
