//! The store as [`Source`] and [`Destination`]: the blocking work on threads of tokio's runtime.

use std::{collections::BTreeSet, sync::Arc};

use futures_core::future::BoxFuture;
use ncc_store::{
    Closure, Destination, NarPlan, NarSource, OnFailure, Outcomes, Outputs, PathInfo, PlanQueue, Side,
    Source, StoreDir, StoreError, StorePath, Takes, ValidityQuery,
};
use tokio::task::spawn_blocking;

use crate::{LocalStore, LocalStoreError, adder, nars::Nars};

/// Futures and streams need a tokio runtime once they are polled.
impl Source for LocalStore {
    fn name(&self) -> &str {
        self.name()
    }

    fn store_dir(&self) -> &StoreDir {
        self.store_dir()
    }

    fn is_at_hand(&self) -> bool {
        true
    }

    fn closure<'a>(
        &'a self,
        roots: &'a [StorePath],
        outputs: Outputs,
    ) -> BoxFuture<'a, Result<Closure, StoreError>> {
        let roots = roots.to_vec();
        self.on_a_thread(Side::Source, "compute the closure", move |store, cancelled| {
            // First the roots, then the question: what is valid now, and all that it refers to, stays.
            store.root_for_reading(&roots, cancelled)?;
            let found = store.examine_closure_until(&roots, outputs, cancelled)?;
            if outputs == Outputs::Include {
                // Of these nobody keeps the outputs, unless its settings say so.
                let paths: Vec<_> = found.infos.iter().map(|info| info.path.clone()).collect();
                store.root_for_reading(&paths, cancelled)?;
            }
            let failed = found.bad.into_iter().map(|(path, error)| {
                let error = error.about(Side::Source, store.name(), "describe", Some(&path));
                (path, error)
            });
            Ok(Closure { infos: found.infos, failed: failed.collect() })
        })
    }

    fn path_infos<'a>(&'a self, paths: &'a [StorePath]) -> BoxFuture<'a, Result<Vec<PathInfo>, StoreError>> {
        let paths = paths.to_vec();
        Box::pin(async move {
            let action = "read path metadata";
            let examine = move |store: &Self, cancelled: &dyn Fn() -> bool| {
                store.examine_paths_until(&paths, cancelled)
            };
            let found = self.on_a_thread(Side::Source, action, examine).await?;
            match found.bad.into_iter().next() {
                None => Ok(found.infos),
                Some((path, error)) => Err(error.about(Side::Source, self.name(), "describe", Some(&path))),
            }
        })
    }

    fn nars(&self, plan: NarPlan) -> Arc<dyn NarSource> {
        Arc::new(Nars::new(self.clone(), plan))
    }
}

/// Futures and streams need a tokio runtime once they are polled.
impl Destination for LocalStore {
    fn name(&self) -> &str {
        self.name()
    }

    fn store_dir(&self) -> &StoreDir {
        self.store_dir()
    }

    fn is_at_hand(&self) -> bool {
        true
    }

    /// There is nothing to substitute from: that wish is noted and passed over.
    fn valid_paths<'a>(
        &'a self,
        paths: &'a [StorePath],
        query: ValidityQuery,
    ) -> BoxFuture<'a, Result<BTreeSet<StorePath>, StoreError>> {
        if query.substitute {
            tracing::debug!(store = self.name(), "asked to substitute, which this store cannot");
        }
        let paths = paths.to_vec();
        self.on_a_thread(Side::Destination, "look up paths", move |store, cancelled| {
            if query.lock {
                store.root(&paths, cancelled)?;
            }
            let valid = store.query_valid_paths_until(&paths, cancelled)?;
            if query.lock {
                store.clear_leftovers(&valid, cancelled);
            }
            Ok(valid)
        })
    }

    fn takes(&self) -> BoxFuture<'_, Result<Takes, StoreError>> {
        Box::pin(std::future::ready(Ok(Takes::Anything)))
    }

    fn free_space(&self) -> BoxFuture<'_, Result<Option<u64>, StoreError>> {
        self.on_a_thread(Side::Destination, "say how much room there is", |store, _| {
            let path = store.real_store_dir();
            let status = rustix::fs::statvfs(path).map_err(LocalStoreError::io("examine", path))?;
            // What is kept back is kept for root.
            let blocks = if rustix::process::geteuid().is_root() { status.f_bfree } else { status.f_bavail };
            Ok(Some(blocks.saturating_mul(status.f_frsize)))
        })
    }

    fn add_all(&self, plan: NarPlan, nars: Arc<dyn NarSource>, on_failure: OnFailure) -> Outcomes {
        adder::add_all(self.clone(), PlanQueue::new(plan, on_failure), nars)
    }
}

impl LocalStore {
    fn on_a_thread<T: Send + 'static>(
        &self,
        side: Side,
        action: &'static str,
        work: impl FnOnce(&Self, &dyn Fn() -> bool) -> Result<T, LocalStoreError> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, StoreError>> {
        let store = self.clone();
        Box::pin(async move {
            // Gone with this future, which a thread that waits for a collector must learn.
            let wanted = Arc::new(());
            let still_wanted = Arc::downgrade(&wanted);
            let cancelled = move || still_wanted.strong_count() == 0;
            let thread = spawn_blocking(move || work(&store, &cancelled));
            let result = thread.await.unwrap_or(Err(LocalStoreError::Panicked));
            drop(wanted);
            result.map_err(|error| error.about(side, self.name(), action, None))
        })
    }
}
