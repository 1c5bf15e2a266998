//! The NARs of a plan in any order: a disk is not a wire.
//!
//! Whoever takes them in the order of the plan has them from one thread that packs ahead ([`reader`]), which is what small objects
//! need. Whoever takes another one has it from a thread of its own, and may have many at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures_core::future::BoxFuture;
use ncc_store::{NarAccess, NarBody, NarPlan, NarSource, PathInfo, StoreError, sequential_nars};

use crate::{LocalStore, reader};

/// Each may keep a thread waiting, and a disk has no more to give.
const AT_ONCE: usize = 8;

/// See [`Source::nars`](ncc_store::Source::nars).
pub(crate) struct Nars {
    store: LocalStore,
    plan: NarPlan,
    order: Arc<Mutex<Order>>,
}

/// How the plan is being taken.
#[derive(Default)]
struct Order {
    /// The place in the plan behind what was opened last.
    next: usize,
    ahead: Option<Ahead>,
    /// The places in the order of their paths, once somebody has left the order of the plan.
    by_path: Option<Box<[u32]>>,
}

/// The thread that packs ahead.
struct Ahead {
    nars: Arc<dyn NarSource>,
    shared: Arc<reader::Shared>,
    /// The place of what it gives next.
    next: usize,
    /// Held by whoever waits for its next one.
    opening: Weak<()>,
}

/// Where a NAR comes from; the second part is held until it has come.
type Way = (Arc<dyn NarSource>, Option<Arc<()>>);

impl Nars {
    pub(crate) fn new(store: LocalStore, plan: NarPlan) -> Self {
        Self { store, plan, order: Arc::default() }
    }
}

impl NarSource for Nars {
    fn store(&self) -> &str {
        self.store.name()
    }

    fn access(&self) -> NarAccess {
        NarAccess::Random { at_once: AT_ONCE }
    }

    fn open(&self, info: &Arc<PathInfo>, offset: u64) -> BoxFuture<'static, Result<NarBody, StoreError>> {
        let (store, plan, order) = (self.store.clone(), Arc::clone(&self.plan), Arc::clone(&self.order));
        let info = Arc::clone(info);
        Box::pin(async move {
            let (nars, _opening) = lock(&order).way(&store, &plan, &info);
            nars.open(&info, offset).await
        })
    }
}

fn lock(order: &Mutex<Order>) -> MutexGuard<'_, Order> {
    order.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Order {
    fn way(&mut self, store: &LocalStore, plan: &NarPlan, info: &Arc<PathInfo>) -> Way {
        let expected = self.next;
        let place = self.place(plan, info);
        self.next = place.map_or(expected, |place| place + 1);
        if let (Some(place), Some(ahead)) = (place, &mut self.ahead) {
            let is_idle = ahead.opening.strong_count() == 0 && ahead.shared.is_idle();
            if !is_idle {
                return alone(store, info);
            }
            if ahead.next == place {
                return ahead.take(place);
            }
        }
        match place {
            // From here on somebody takes them one after another.
            Some(place) if place == expected => {
                let (nars, shared) = reader::nars(store.clone(), Arc::clone(plan), place);
                let nars = sequential_nars(store.name(), nars);
                self.ahead.insert(Ahead { nars, shared, next: place, opening: Weak::new() }).take(place)
            }
            _ => alone(store, info),
        }
    }

    /// Where a path stands in the plan.
    fn place(&mut self, plan: &NarPlan, info: &PathInfo) -> Option<usize> {
        if plan.get(self.next).is_some_and(|next| next.path == info.path) {
            return Some(self.next);
        }
        let at = |place: &u32| plan.get(usize::try_from(*place).ok()?).map(|info| &info.path);
        let by_path = self.by_path.get_or_insert_with(|| {
            let mut places: Box<[u32]> = (0..u32::try_from(plan.len()).unwrap_or(u32::MAX)).collect();
            places.sort_unstable_by(|a, b| at(a).cmp(&at(b)));
            places
        });
        let found = by_path.binary_search_by(|place| at(place).cmp(&Some(&info.path))).ok()?;
        usize::try_from(*by_path.get(found)?).ok()
    }
}

impl Ahead {
    fn take(&mut self, place: usize) -> Way {
        self.next = place + 1;
        let opening = Arc::new(());
        self.opening = Arc::downgrade(&opening);
        (Arc::clone(&self.nars), Some(opening))
    }
}

/// A thread for this one.
fn alone(store: &LocalStore, info: &Arc<PathInfo>) -> Way {
    let (nars, _) = reader::nars(store.clone(), [Arc::clone(info)].into(), 0);
    (sequential_nars(store.name(), nars), None)
}

#[cfg(test)]
mod tests {
    use ncc_store::test_util::MemoryStore;

    use super::*;
    use crate::{Access, LocalStoreConfig};

    /// Which of the opened ones come from the thread that packs ahead.
    fn taken_ahead(places: &[usize]) -> Vec<bool> {
        let directory = tempfile::tempdir().unwrap();
        let config = LocalStoreConfig::chroot(directory.path());
        let store = LocalStore::open(config, Access::ReadWrite).unwrap();
        let memory = MemoryStore::new("memory");
        let plan = memory.infos(&memory.add_chain(10));
        let mut order = Order::default();
        places.iter().map(|place| order.way(&store, &plan, &plan[*place]).1.is_some()).collect()
    }

    #[test]
    fn whoever_keeps_to_the_order_has_a_thread_that_packs_ahead() {
        assert_eq!(taken_ahead(&[0, 1, 2, 3]), [true; 4]);
        // What is passed over costs one of its own.
        assert_eq!(taken_ahead(&[0, 1, 5, 6, 7]), [true, true, false, true, true]);
        assert_eq!(taken_ahead(&[9, 8, 7, 6]), [false; 4]);
    }

    #[test]
    fn nobody_waits_for_another_ones_nar() {
        let directory = tempfile::tempdir().unwrap();
        let config = LocalStoreConfig::chroot(directory.path());
        let store = LocalStore::open(config, Access::ReadWrite).unwrap();
        let memory = MemoryStore::new("memory");
        let plan = memory.infos(&memory.add_chain(3));
        let mut order = Order::default();
        let first = order.way(&store, &plan, &plan[0]);
        assert!(first.1.is_some());
        assert!(order.way(&store, &plan, &plan[1]).1.is_none());
        drop(first);
        assert!(order.way(&store, &plan, &plan[2]).1.is_some());
    }
}
