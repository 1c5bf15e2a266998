//! NARs one after another: the way of a stream, a pipe or a wire.
//!
//! [`NarSequence::into_source`] lets whoever produces NARs in the order of a plan be pulled; [`PlanQueue`] says what a
//! destination that works in the order of the plan takes next.

use std::{collections::HashSet, fmt, sync::Arc};

use bytes::Bytes;
use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::{StreamExt as _, lock::Mutex};

use crate::{
    NarAccess, NarBody, NarPlan, NarSource, OnFailure, PathInfo, Problem, Side, StoreError, StorePath,
};

/// One object on its way.
#[derive(Debug)]
pub struct Nar {
    /// What the source recorded about it.
    pub info: Arc<PathInfo>,
    /// Its NAR: `info.nar_size` bytes if all is well.
    pub body: NarBody,
}

/// Objects one after another, in the order of a plan.
///
/// Whoever produces it may hold back the next [`Nar`] until the body of the one before is finished or dropped. Whoever
/// wants to look ahead must therefore go on reading the body meanwhile.
pub type NarStream = BoxStream<'static, Result<Nar, StoreError>>;

/// A [`NarSource`] over a [`NarStream`].
struct Sequential {
    store: Arc<str>,
    nars: Arc<Mutex<NarStream>>,
}

/// The NARs of `nars`, which come in the order of their plan, to be pulled: [`NarAccess::Sequential`]. `store` is the name
/// of the store that they come from.
pub fn sequential_nars(store: &str, nars: NarStream) -> Arc<dyn NarSource> {
    Arc::new(Sequential { store: store.into(), nars: Arc::new(Mutex::new(nars)) })
}

impl NarSource for Sequential {
    fn store(&self) -> &str {
        &self.store
    }

    fn access(&self) -> NarAccess {
        NarAccess::Sequential
    }

    fn open(&self, info: &Arc<PathInfo>, offset: u64) -> BoxFuture<'static, Result<NarBody, StoreError>> {
        let (store, nars, info) = (Arc::clone(&self.store), Arc::clone(&self.nars), Arc::clone(info));
        Box::pin(async move {
            let mut nars = nars.lock().await;
            // Those in between were passed over: dropping their bodies says so.
            while let Some(nar) = nars.next().await {
                let nar = nar?;
                if nar.info.path == info.path {
                    return Ok(if offset == 0 { nar.body } else { from_offset(nar.body, offset) });
                }
            }
            let problem =
                Problem::Path { action: "read", path: info.path.clone(), source: Box::new(OutOfTurn) };
            Err(StoreError::new(Side::Source, store, problem))
        })
    }
}

/// A path was opened that the plan does not have, or had before the one that was opened last.
#[derive(Debug, thiserror::Error)]
#[error("NARs are read in the order of the plan here, and this one's turn is over")]
struct OutOfTurn;

/// The body without its first bytes.
fn from_offset(body: NarBody, offset: u64) -> NarBody {
    body.map_blocks(|blocks| {
        let mut left = offset;
        blocks.filter_map(move |block| {
            let kept = match block {
                Ok(mut block) => {
                    let passed_over = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
                    left = left.saturating_sub(passed_over as u64);
                    let rest: Bytes = block.split_off(passed_over);
                    (!rest.is_empty()).then_some(Ok(rest))
                }
                Err(error) => Some(Err(error)),
            };
            std::future::ready(kept)
        })
    })
}

/// The paths of a plan in their order, without those that cannot become valid: for destinations that take one after
/// another.
pub struct PlanQueue {
    plan: NarPlan,
    next: usize,
    on_failure: OnFailure,
    failed: HashSet<StorePath>,
}

impl fmt::Debug for PlanQueue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PlanQueue").field("next", &self.next).finish_non_exhaustive()
    }
}

impl PlanQueue {
    /// Everything is still to come.
    pub fn new(plan: NarPlan, on_failure: OnFailure) -> Self {
        Self { plan, next: 0, on_failure, failed: HashSet::new() }
    }

    /// Notes that a path will not become valid, and that what refers to it will not either.
    pub fn mark_failed(&mut self, path: &StorePath) {
        self.failed.insert(path.clone());
    }
}

impl Iterator for PlanQueue {
    type Item = Arc<PathInfo>;

    fn next(&mut self) -> Option<Arc<PathInfo>> {
        if self.on_failure == OnFailure::Stop && !self.failed.is_empty() {
            return None;
        }
        loop {
            let info = self.plan.get(self.next)?;
            self.next += 1;
            if info.other_references().any(|reference| self.failed.contains(reference)) {
                self.failed.insert(info.path.clone());
            } else {
                return Some(Arc::clone(info));
            }
        }
    }
}
