//! A local store that does not exist yet, where nobody may make it: it has nothing, and stays so.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, ready},
    stream,
};
use ncc_local_store::LocalStoreConfig;
use ncc_store::{
    Closure, Destination, NarPlan, NarSource, OnFailure, Outcomes, Outputs, PathInfo, Problem, Side, Source,
    StoreDir, StoreError, StorePath, ValidityQuery, sequential_nars,
};

/// See above.
pub(crate) struct Nothing {
    config: LocalStoreConfig,
}

impl Nothing {
    /// `Some` where there is no store.
    pub(crate) fn instead_of(config: &LocalStoreConfig) -> Option<Self> {
        (!config.state_dir.join("db").exists()).then(|| Self { config: config.clone() })
    }

    fn not_valid(&self, path: &StorePath) -> StoreError {
        let problem = Problem::NotValid { path: self.config.store_dir.full(path) };
        StoreError::new(Side::Source, self.config.name.as_str(), problem)
    }
}

impl Source for Nothing {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn store_dir(&self) -> &StoreDir {
        &self.config.store_dir
    }

    fn closure<'a>(
        &'a self,
        roots: &'a [StorePath],
        _: Outputs,
    ) -> BoxFuture<'a, Result<Closure, StoreError>> {
        let failed = roots.iter().map(|root| (root.clone(), self.not_valid(root))).collect();
        ready(Ok(Closure { infos: Vec::new(), failed })).boxed()
    }

    fn path_infos<'a>(&'a self, _: &'a [StorePath]) -> BoxFuture<'a, Result<Vec<PathInfo>, StoreError>> {
        ready(Ok(Vec::new())).boxed()
    }

    fn nars(&self, plan: NarPlan) -> Arc<dyn NarSource> {
        let errors: Vec<_> = plan.iter().map(|info| Err(self.not_valid(&info.path))).collect();
        sequential_nars(&self.config.name, stream::iter(errors).boxed())
    }
}

impl Destination for Nothing {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn store_dir(&self) -> &StoreDir {
        &self.config.store_dir
    }

    fn valid_paths<'a>(
        &'a self,
        _: &'a [StorePath],
        _: ValidityQuery,
    ) -> BoxFuture<'a, Result<BTreeSet<StorePath>, StoreError>> {
        ready(Ok(BTreeSet::new())).boxed()
    }

    fn add_all(&self, _: NarPlan, _: Arc<dyn NarSource>, _: OnFailure) -> Outcomes {
        let source = "it does not exist and was only to be looked at".into();
        let problem = Problem::Store { action: "add paths", path: None, source };
        let refusal = StoreError::new(Side::Destination, self.config.name.as_str(), problem);
        stream::once(ready(Err(refusal))).boxed()
    }
}
