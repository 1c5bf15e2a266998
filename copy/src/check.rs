//! The check that every NAR passes on its way: size and hash, before its last block is handed on.

use std::{
    collections::BTreeSet,
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
            held: None,
            checks: self.clone(),
        };
        let body = stream::unfold(watched, |mut watched| async {
            let block = watched.next().await?;
            Some((block, watched))
        });
        Nar { info, body: Box::pin(body) }
    }
}

/// A body whose blocks go out one behind: the last one only when all of it has turned out right, so that what is
/// wrong never arrives whole, and a small NAR that is wrong does not even begin.
struct Watched {
    info: Arc<PathInfo>,
    body: NarBody,
    /// `None` once the end has been seen.
    hasher: Option<NarHasher>,
    held: Option<Bytes>,
    checks: Checks,
}

impl Watched {
    async fn next(&mut self) -> Option<Result<Bytes, StoreError>> {
        loop {
            let hasher = self.hasher.as_mut()?;
            let result = match self.body.next().await {
                Some(Ok(block)) => {
                    if hasher.size() == 0 {
                        self.checks.observer.event(Event::Started(&self.info));
                    }
                    hasher.update(&block);
                    let size = hasher.size();
                    if size > self.info.nar_size {
                        Err(self.size_mismatch(size))
                    } else {
                        match self.held.replace(block) {
                            Some(held) => Ok(held),
                            None => continue,
                        }
                    }
                }
                Some(Err(error)) => Err(error),
                None => self.finish().map(|()| self.held.take().unwrap_or_default()),
            };
            return Some(match result {
                Ok(block) => {
                    let bytes = block.len() as u64;
                    self.checks.observer.event(Event::Sent { path: &self.info.path, bytes });
                    if self.hasher.is_none() {
                        self.checks.observer.event(Event::Finished(&self.info));
                    }
                    Ok(block)
                }
                Err(error) => {
                    self.hasher = None;
                    self.checks.mark_failed(&self.info.path);
                    Err(error)
                }
            });
        }
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
