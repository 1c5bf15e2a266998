//! [`MemoryStore`] as a source.

use std::{collections::BTreeSet, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures_core::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, lock::Mutex, stream};

use super::{Call, Fault, MemoryStore, Refusal, State};
use crate::{Nar, NarBody, NarStream, Outputs, PathInfo, Source, StoreDir, StoreError, StorePath};

impl Source for MemoryStore {
    fn name(&self) -> &str {
        &self.name
    }

    fn store_dir(&self) -> &StoreDir {
        &self.store_dir
    }

    fn closure<'a>(
        &'a self,
        roots: &'a [StorePath],
        outputs: Outputs,
    ) -> BoxFuture<'a, Result<Vec<PathInfo>, StoreError>> {
        async move {
            let mut state = self.state();
            state.calls.push(Call::Closure { roots: roots.to_vec(), outputs });
            self.closure_now(&state, roots, outputs)
        }
        .boxed()
    }

    fn path_infos<'a>(&'a self, paths: &'a [StorePath]) -> BoxFuture<'a, Result<Vec<PathInfo>, StoreError>> {
        async move {
            let mut state = self.state();
            state.calls.push(Call::PathInfos { paths: paths.to_vec() });
            let asked: BTreeSet<_> = paths.iter().collect();
            let valid = asked.into_iter().filter_map(|path| state.valid.get(path));
            Ok(valid.map(|object| object.info.clone()).collect())
        }
        .boxed()
    }

    fn nars(&self, paths: Vec<Arc<PathInfo>>) -> NarStream {
        let names = paths.iter().map(|info| info.path.clone()).collect();
        self.state().calls.push(Call::Nars { paths: names });
        let store = self.clone();
        // Whoever holds this lock has the one body that may be open.
        let turn = Arc::new(Mutex::new(()));
        stream::unfold(paths.into_iter(), move |mut paths| {
            let (store, turn) = (store.clone(), Arc::clone(&turn));
            async move {
                let info = paths.next()?;
                let guard = turn.lock_owned().await;
                let Some(blocks) = store.blocks(&info.path) else {
                    // A server ends the conversation here.
                    return Some((Err(store.not_valid(&info.path)), Vec::new().into_iter()));
                };
                let body: NarBody =
                    stream::unfold((blocks.into_iter(), guard), |(mut blocks, guard)| async move {
                        blocks.next().map(|block| (block, (blocks, guard)))
                    })
                    .boxed();
                Some((Ok(Nar { info, body }), paths))
            }
        })
        .boxed()
    }
}

impl MemoryStore {
    fn closure_now(
        &self,
        state: &State,
        roots: &[StorePath],
        outputs: Outputs,
    ) -> Result<Vec<PathInfo>, StoreError> {
        let mut seen: BTreeSet<StorePath> = BTreeSet::new();
        let mut queue: Vec<StorePath> = roots.to_vec();
        let mut infos = Vec::new();
        while let Some(path) = queue.pop() {
            if seen.contains(&path) {
                continue;
            }
            let object = state.valid.get(&path).ok_or_else(|| self.not_valid(&path))?;
            queue.extend(object.info.references.iter().cloned());
            if outputs == Outputs::Include {
                let known = state.outputs.get(&path).into_iter().flatten();
                queue.extend(known.filter(|output| state.valid.contains_key(*output)).cloned());
            }
            infos.push(object.info.clone());
            seen.insert(path);
        }
        infos.sort_unstable_by(|left, right| left.path.cmp(&right.path));
        Ok(infos)
    }

    /// The NAR in blocks, with the faults that were injected; `None` if the path is not valid.
    fn blocks(&self, path: &StorePath) -> Option<Vec<Result<Bytes, StoreError>>> {
        let state = self.state();
        let mut nar = state.valid.get(path)?.nar.clone();
        let mut error = None;
        for fault in &state.faults {
            match fault {
                Fault::CorruptContent(of) if of == path => {
                    let mut changed = BytesMut::from(nar);
                    let middle = changed.len() / 2;
                    changed.iter_mut().skip(middle).take(1).for_each(|byte| *byte ^= 1);
                    nar = changed.freeze();
                }
                Fault::TruncateContent(of, length) if of == path => nar.truncate(*length),
                Fault::ExtendContent(of, more) if of == path => {
                    let mut longer = BytesMut::from(nar);
                    longer.resize(longer.len().saturating_add(*more), 0);
                    nar = longer.freeze();
                }
                Fault::FailReading(of, length) if of == path => {
                    nar.truncate(*length);
                    error = Some(StoreError::Path {
                        store: self.name.to_string(),
                        action: "read",
                        path: path.clone(),
                        source: Box::new(Refusal::Injected),
                    });
                }
                _ => {}
            }
        }
        let mut blocks = Vec::with_capacity(nar.len().div_ceil(self.block_size).saturating_add(1));
        while !nar.is_empty() {
            blocks.push(Ok(nar.split_to(self.block_size.min(nar.len()))));
        }
        blocks.extend(error.map(Err));
        Some(blocks)
    }
}
