//! [`MemoryStore`] as a destination.

use std::{collections::BTreeSet, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures_core::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};

use super::{Call, Fault, MemoryStore, Object, REGISTRATION_TIME, Refusal, State, file_content};
use crate::{
    ContentAddress, ContentMethod, Derivation, DerivationOutput, Destination, Hasher, ModuloCache, NarHash,
    NarPlan, NarSource, OnFailure, Outcome, Outcomes, PathInfo, PlanQueue, Problem, Retry, Scope, Side,
    StoreDir, StoreError, StorePath, Takes, ValidityQuery,
};

impl Destination for MemoryStore {
    fn name(&self) -> &str {
        &self.name
    }

    fn store_dir(&self) -> &StoreDir {
        &self.store_dir
    }

    fn valid_paths<'a>(
        &'a self,
        paths: &'a [StorePath],
        query: ValidityQuery,
    ) -> BoxFuture<'a, Result<BTreeSet<StorePath>, StoreError>> {
        async move {
            let mut state = self.state();
            state.calls.push(Call::ValidPaths { paths: paths.to_vec(), query });
            if query.substitute {
                for path in paths {
                    state.substitute(path);
                }
            }
            Ok(paths.iter().filter(|path| state.valid.contains_key(*path)).cloned().collect())
        }
        .boxed()
    }

    fn substitutable<'a>(
        &'a self,
        paths: &'a [StorePath],
    ) -> BoxFuture<'a, Result<Option<BTreeSet<StorePath>>, StoreError>> {
        let state = self.state();
        let found = paths.iter().filter(|path| state.substitutable.contains_key(*path)).cloned().collect();
        std::future::ready(Ok(Some(found))).boxed()
    }

    fn takes(&self) -> BoxFuture<'_, Result<Takes, StoreError>> {
        let takes = if self.trusted_keys.is_some() { Takes::Signed } else { Takes::Anything };
        std::future::ready(Ok(takes)).boxed()
    }

    fn add_all(&self, plan: NarPlan, nars: Arc<dyn NarSource>, on_failure: OnFailure) -> Outcomes {
        self.state().calls.push(Call::AddAll);
        let import =
            Import { store: self.clone(), queue: PlanQueue::new(plan, on_failure), nars, broken: false };
        stream::unfold(import, Import::step).boxed()
    }
}

/// One call of `add_all`.
struct Import {
    store: MemoryStore,
    queue: PlanQueue,
    nars: Arc<dyn NarSource>,
    /// The stream of outcomes has ended with an error.
    broken: bool,
}

impl Import {
    async fn step(mut self) -> Option<(Result<Outcome, StoreError>, Self)> {
        if self.broken {
            return None;
        }
        let info = self.queue.next()?;
        let outcome = self.take(&info).await;
        match &outcome {
            Err(_) => self.broken = true,
            Ok(Outcome::Failed { path, .. }) => self.queue.mark_failed(path),
            Ok(_) => {}
        }
        Some((outcome, self))
    }

    async fn take(&mut self, info: &Arc<PathInfo>) -> Result<Outcome, StoreError> {
        let path = info.path.clone();
        if let Some(keys) = &self.store.trusted_keys
            && info.content_address.is_none()
            && !info.is_signed_by(&self.store.store_dir, keys)
        {
            let problem = Problem::Unsigned { path: path.clone(), source: None };
            let error = StoreError::new(Side::Destination, Arc::clone(&self.store.name), problem);
            return Ok(Outcome::Failed { path, error });
        }
        if let Some(refusal) = self.refusal(info) {
            return Ok(Outcome::Failed { error: self.store.refuse(&path, refusal), path });
        }
        let mut content = BytesMut::new();
        let failed = match self.nars.open(info, 0).await {
            Ok(body) => {
                let mut body = body.verified(info, self.nars.store());
                loop {
                    match body.next().await {
                        Some(Ok(block)) => content.extend_from_slice(&block),
                        Some(Err(error)) => break Some(error),
                        None => break None,
                    }
                }
            }
            Err(error) => Some(error),
        };
        match failed {
            None => self.store.register(info, content.freeze()),
            // Nothing of it is out yet, so it is as if it had never been sent.
            Some(error) if content.is_empty() && error.scope() == Scope::Path => {
                Ok(Outcome::Failed { path, error })
            }
            Some(error) => Err(error),
        }
    }

    /// Why this object alone cannot be added.
    fn refusal(&self, info: &PathInfo) -> Option<Refusal> {
        let refused = Fault::RefusePath(info.path.clone());
        self.store.state().faults.contains(&refused).then_some(Refusal::Injected)
    }
}

impl MemoryStore {
    fn register(&self, info: &PathInfo, nar: Bytes) -> Result<Outcome, StoreError> {
        let mut state = self.state();
        let path = &info.path;
        for fault in &state.faults {
            if matches!(fault, Fault::FailAfterAdds(adds) if state.adds >= *adds) {
                let problem = Problem::Connection {
                    action: "answer",
                    path: None,
                    retry: Retry::Worthwhile,
                    source: Box::new(Refusal::Injected),
                };
                return Err(StoreError::new(Side::Destination, Arc::clone(&self.name), problem));
            }
        }
        if state.valid.contains_key(path) {
            return Ok(Outcome::AlreadyValid(path.clone()));
        }
        self.check(&state, info, &nar).map_err(|refusal| self.refuse(path, refusal))?;
        if path.is_derivation() {
            self.register_derivation(&mut state, path, &nar).map_err(|refusal| self.refuse(path, refusal))?;
        }
        state.adds = state.adds.saturating_add(1);
        if !state.faults.contains(&Fault::ForgetPath(path.clone())) {
            let mut info = info.clone();
            if info.registration_time == 0 {
                info.registration_time = REGISTRATION_TIME;
            }
            state.insert(Object { info, nar });
        }
        Ok(Outcome::Added(path.clone()))
    }

    /// Checks a derivation, whose inputs must be valid, and records its known outputs.
    fn register_derivation(&self, state: &mut State, path: &StorePath, nar: &[u8]) -> Result<(), Refusal> {
        let derivation = self.parse_derivation(nar)?;
        let State { valid, hashes, .. } = &mut *state;
        let cache = hashes.get_or_insert_with(|| ModuloCache::new(self.store_dir.clone()));
        let mut read = |input: &StorePath| {
            let object = valid.get(input).ok_or_else(|| self.not_valid(Side::Destination, input))?;
            Ok(self.parse_derivation(&object.nar)?)
        };
        derivation
            .check_outputs(path, cache, &mut read)
            .and_then(|()| cache.insert(path, &derivation, &mut read))
            .map_err(|error| Refusal::DerivationOutputs(Box::new(error)))?;
        let outputs = derivation.outputs.values().filter_map(DerivationOutput::path).cloned().collect();
        state.outputs.insert(path.clone(), outputs);
        Ok(())
    }

    pub(super) fn parse_derivation(&self, nar: &[u8]) -> Result<Derivation, Refusal> {
        let content = file_content(nar).ok_or(Refusal::DerivationFile)?;
        Derivation::parse(content, &self.store_dir).map_err(Refusal::Derivation)
    }

    /// What a Nix server checks before it registers a path.
    fn check(&self, state: &State, info: &PathInfo, nar: &Bytes) -> Result<(), Refusal> {
        let size = nar.len() as u64;
        if info.nar_size == 0 {
            return Err(Refusal::NoSize);
        }
        if info.nar_size != size {
            return Err(Refusal::Size { expected: info.nar_size, actual: size });
        }
        if info.nar_hash != NarHash::of(nar) {
            return Err(Refusal::Hash);
        }
        if !info.content_address_gives_path(&self.store_dir) {
            return Err(Refusal::ContentAddress);
        }
        let self_reference = info.references.contains(&info.path);
        if info.content_address.is_some_and(|address| !self_reference && !addresses(address, nar)) {
            return Err(Refusal::ContentAddressHash);
        }
        match info.other_references().find(|reference| !state.valid.contains_key(*reference)) {
            Some(missing) => Err(Refusal::Reference(missing.clone())),
            None => Ok(()),
        }
    }
}

/// Whether the content is what its address says.
fn addresses(address: ContentAddress, nar: &[u8]) -> bool {
    let content = match address.method() {
        ContentMethod::Recursive => Some(nar),
        ContentMethod::Text | ContentMethod::Flat => file_content(nar),
        ContentMethod::Git => return true,
    };
    let (Some(content), Some(mut hasher)) = (content, Hasher::new(address.hash().algorithm())) else {
        return false;
    };
    hasher.update(content);
    hasher.finish() == *address.hash()
}

impl State {
    pub(super) fn insert(&mut self, object: Object) {
        self.valid.insert(object.info.path.clone(), object);
    }

    /// Registers `root` and what it refers to, if all of that is valid or substitutable.
    fn substitute(&mut self, root: &StorePath) {
        let mut queue = vec![root.clone()];
        let mut found: Vec<Object> = Vec::new();
        while let Some(path) = queue.pop() {
            if self.valid.contains_key(&path) || found.iter().any(|object| object.info.path == path) {
                continue;
            }
            let Some(object) = self.substitutable.get(&path) else { return };
            queue.extend(object.info.other_references().cloned());
            found.push(object.clone());
        }
        for object in found {
            self.insert(object);
        }
    }
}
