//! A local store that does not exist yet, where nobody may make it: it has nothing, and stays so.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, ready},
    stream::{self, BoxStream},
};
use ncc_local_store::LocalStoreConfig;
use ncc_store::{
    Destination, NarStream, Outcome, Outputs, PathInfo, Source, StoreDir, StoreError, StorePath,
    ValidityQuery,
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
        StoreError::NotValid { store: self.config.name.clone(), path: self.config.store_dir.full(path) }
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
    ) -> BoxFuture<'a, Result<Vec<PathInfo>, StoreError>> {
        let result = roots.first().map_or(Ok(Vec::new()), |root| Err(self.not_valid(root)));
        ready(result).boxed()
    }

    fn path_infos<'a>(&'a self, _: &'a [StorePath]) -> BoxFuture<'a, Result<Vec<PathInfo>, StoreError>> {
        ready(Ok(Vec::new())).boxed()
    }

    fn nars(&self, paths: Vec<Arc<PathInfo>>) -> NarStream {
        let errors: Vec<_> = paths.iter().map(|info| Err(self.not_valid(&info.path))).collect();
        stream::iter(errors).boxed()
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

    fn add_many(&self, _: NarStream) -> BoxStream<'static, Result<Outcome, StoreError>> {
        let refusal = StoreError::Failed {
            store: self.config.name.clone(),
            action: "add paths",
            source: "it does not exist and was only to be looked at".into(),
        };
        stream::once(ready(Err(refusal))).boxed()
    }
}
