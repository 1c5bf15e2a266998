//! [`MemoryStore`] as a source.

use std::{collections::BTreeSet, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures_core::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, lock::Mutex, stream};

use super::{Call, Fault, MemoryStore, Refusal, State};
use crate::{
    Closure, Nar, NarAccess, NarBody, NarPlan, NarSource, Outputs, PathInfo, Problem, Retry, Side, Source,
    StoreDir, StoreError, StorePath, sequential_nars,
};

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
    ) -> BoxFuture<'a, Result<Closure, StoreError>> {
        async move {
            let mut state = self.state();
            state.calls.push(Call::Closure { roots: roots.to_vec(), outputs });
            Ok(self.closure_now(&state, roots, outputs))
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

    fn nars(&self, plan: NarPlan) -> Arc<dyn NarSource> {
        let names = plan.iter().map(|info| info.path.clone()).collect();
        self.state().calls.push(Call::Nars { paths: names });
        if let NarAccess::Random { .. } = self.access {
            return Arc::new(self.clone());
        }
        let store = self.clone();
        // Whoever holds this lock has the one body that may be open.
        let turn = Arc::new(Mutex::new(()));
        let nars = stream::unfold(0, move |next| {
            let (store, plan, turn) = (store.clone(), Arc::clone(&plan), Arc::clone(&turn));
            async move {
                let info = Arc::clone(plan.get(next)?);
                let guard = turn.lock_owned().await;
                let Some(blocks) = store.blocks(&info.path, 0) else {
                    // A server ends the conversation here.
                    return Some((Err(store.not_valid(Side::Source, &info.path)), plan.len()));
                };
                let blocks = stream::unfold((blocks.into_iter(), guard), |(mut blocks, guard)| async move {
                    blocks.next().map(|block| (block, (blocks, guard)))
                });
                Some((Ok(Nar { info, body: NarBody::new(blocks) }), next + 1))
            }
        });
        sequential_nars(&self.name, nars.boxed())
    }
}

/// For [`NarAccess::Random`].
impl NarSource for MemoryStore {
    fn store(&self) -> &str {
        &self.name
    }

    fn access(&self) -> NarAccess {
        self.access
    }

    fn open(&self, info: &Arc<PathInfo>, offset: u64) -> BoxFuture<'static, Result<NarBody, StoreError>> {
        let (store, info) = (self.clone(), Arc::clone(info));
        async move {
            let offset = usize::try_from(offset).unwrap_or(usize::MAX);
            let blocks = store.blocks(&info.path, offset);
            let blocks = blocks.ok_or_else(|| store.not_valid(Side::Source, &info.path))?;
            Ok(NarBody::new(stream::iter(blocks)))
        }
        .boxed()
    }
}

impl MemoryStore {
    fn closure_now(&self, state: &State, roots: &[StorePath], outputs: Outputs) -> Closure {
        let mut seen: BTreeSet<StorePath> = BTreeSet::new();
        let mut queue: Vec<StorePath> = roots.to_vec();
        let mut closure = Closure::default();
        while let Some(path) = queue.pop() {
            if !seen.insert(path.clone()) {
                continue;
            }
            let Some(object) = state.valid.get(&path) else {
                let error = self.not_valid(Side::Source, &path);
                closure.failed.push((path, error));
                continue;
            };
            queue.extend(object.info.references.iter().cloned());
            if outputs == Outputs::Include {
                let known = state.outputs.get(&path).into_iter().flatten();
                queue.extend(known.filter(|output| state.valid.contains_key(*output)).cloned());
            }
            closure.infos.push(object.info.clone());
        }
        closure.infos.sort_unstable_by(|left, right| left.path.cmp(&right.path));
        closure
    }

    /// The NAR in blocks, with the faults that were injected; `None` if the path is not valid.
    fn blocks(&self, path: &StorePath, offset: usize) -> Option<Vec<Result<Bytes, StoreError>>> {
        let mut state = self.state();
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
                    error = Some(Problem::Path {
                        action: "read",
                        path: path.clone(),
                        source: Box::new(Refusal::Injected),
                    });
                }
                Fault::LoseConnection(of, length) if of == path => {
                    nar.truncate(*length);
                    error = Some(Problem::Connection {
                        action: "read",
                        path: Some(path.clone()),
                        retry: Retry::Worthwhile,
                        source: Box::new(Refusal::Injected),
                    });
                }
                _ => {}
            }
        }
        // A line breaks once, and the next one is another.
        state.faults.retain(|fault| !matches!(fault, Fault::LoseConnection(of, _) if of == path));
        drop(state);
        let mut nar = nar.slice(offset.min(nar.len())..);
        let mut blocks = Vec::with_capacity(nar.len().div_ceil(self.block_size).saturating_add(1));
        while !nar.is_empty() {
            blocks.push(Ok(nar.split_to(self.block_size.min(nar.len()))));
        }
        blocks
            .extend(error.map(|problem| Err(StoreError::new(Side::Source, Arc::clone(&self.name), problem))));
        Some(blocks)
    }
}
