//! The check that every NAR passes on its way: size and hash, before its last block is handed on.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use ncc_store::{Nar, NarBody, NarHasher, NarStream, PathInfo, StoreError, StorePath};

use crate::{Event, Observer, OnFailure};

/// What all NARs of one run share.
#[derive(Clone)]
pub(crate) struct Checks {
    source_name: Arc<str>,
    observer: Arc<dyn Observer>,
    on_failure: OnFailure,
    failed: Arc<Mutex<BTreeSet<StorePath>>>,
}

impl Checks {
    pub(crate) fn new(source_name: &str, observer: &Arc<dyn Observer>, on_failure: OnFailure) -> Self {
        Self {
            source_name: source_name.into(),
            observer: Arc::clone(observer),
            on_failure,
            failed: Arc::default(),
        }
    }

    /// Notes that a path will not become valid, so that what refers to it is not sent.
    pub(crate) fn mark_failed(&self, path: &StorePath) {
        self.failed().insert(path.clone());
    }

    fn failed(&self) -> MutexGuard<'_, BTreeSet<StorePath>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing at all is to be started any more.
    fn stopped(&self) -> bool {
        self.on_failure == OnFailure::Stop && !self.failed().is_empty()
    }

    /// Whether a path can become valid. What refers to a failed path fails with it.
    fn admits(&self, info: &PathInfo) -> bool {
        let mut failed = self.failed();
        let admitted = !info.other_references().any(|reference| failed.contains(reference));
        if !admitted {
            failed.insert(info.path.clone());
        }
        admitted
    }

    /// The stream of NARs with this check in front of every body, and without the paths that cannot become valid.
    pub(crate) fn watch(self, nars: NarStream) -> NarStream {
        let stop = self.clone();
        let nars = nars.take_while(move |_| std::future::ready(!stop.stopped()));
        Box::pin(nars.filter_map(move |nar| {
            let watched = match nar {
                Ok(nar) => self.admits(&nar.info).then(|| Ok(self.watch_one(nar))),
                Err(error) => Some(Err(error)),
            };
            std::future::ready(watched)
        }))
    }

    fn watch_one(&self, nar: Nar) -> Nar {
        let Nar { info, body } = nar;
        let watched = Watched {
            info: Arc::clone(&info),
            body,
            hasher: Some(NarHasher::new()),
            held: VecDeque::new(),
            held_size: 0,
            checks: self.clone(),
        };
        let body = stream::unfold(watched, |mut watched| async {
            let block = watched.next().await?;
            Some((block, watched))
        });
        Nar { info, body: Box::pin(body) }
    }
}

/// How much of a NAR, at least, is held back until more has come, or all of it has turned out right.
///
/// So what is wrong never arrives whole, however large the source's blocks are; and a small NAR that is wrong does not
/// even begin, which leaves the destination's connection usable for all the others.
const HELD_BACK: u64 = 256 << 10;

/// A body on its way through the check.
struct Watched {
    info: Arc<PathInfo>,
    body: NarBody,
    /// `None` once the end has been seen, right or wrong.
    hasher: Option<NarHasher>,
    held: VecDeque<Bytes>,
    held_size: u64,
    checks: Checks,
}

impl Watched {
    /// Whether enough is held for the first block to go, although the end has not been seen.
    fn holds_enough(&self) -> bool {
        let first = self.held.front().map_or(0, |block| block.len() as u64);
        self.held_size.saturating_sub(first) >= HELD_BACK
    }

    async fn next(&mut self) -> Option<Result<Bytes, StoreError>> {
        let result = loop {
            if self.holds_enough() {
                break None;
            }
            let Some(hasher) = &mut self.hasher else { break None };
            match self.body.next().await {
                // Nothing: it would be held for nothing, and without end.
                Some(Ok(block)) if block.is_empty() => {}
                Some(Ok(block)) => {
                    if hasher.size() == 0 {
                        self.checks.observer.event(Event::Started(&self.info));
                    }
                    hasher.update(&block);
                    let size = hasher.size();
                    self.held_size += block.len() as u64;
                    self.held.push_back(block);
                    if size > self.info.nar_size {
                        break Some(self.size_mismatch(size));
                    }
                }
                Some(Err(error)) => break Some(error),
                None => {
                    if let Err(error) = self.finish() {
                        break Some(error);
                    }
                }
            }
        };
        if let Some(error) = result {
            self.hasher = None;
            self.held.clear();
            self.checks.mark_failed(&self.info.path);
            return Some(Err(error));
        }
        let block = self.held.pop_front()?;
        let bytes = block.len() as u64;
        self.held_size -= bytes;
        self.checks.observer.event(Event::Sent { path: &self.info.path, bytes });
        if self.hasher.is_none() && self.held.is_empty() {
            self.checks.observer.event(Event::Finished(&self.info));
        }
        Some(Ok(block))
    }

    fn finish(&mut self) -> Result<(), StoreError> {
        let (actual, size) = self.hasher.take().unwrap_or_default().finish();
        if size != self.info.nar_size {
            return Err(self.size_mismatch(size));
        }
        if actual != self.info.nar_hash {
            return Err(StoreError::HashMismatch {
                store: self.checks.source_name.to_string(),
                path: self.info.path.clone(),
                expected: self.info.nar_hash,
                actual,
            });
        }
        Ok(())
    }

    fn size_mismatch(&self, actual: u64) -> StoreError {
        StoreError::SizeMismatch {
            store: self.checks.source_name.to_string(),
            path: self.info.path.clone(),
            expected: self.info.nar_size,
            actual,
        }
    }
}
