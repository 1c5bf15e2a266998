//! Substituting into a local store: `--from -s`, as upstream's program does it, and a client's wish at `--serve`.
//!
//! Knowing binary caches is Nix's business. Where the machine has Nix, its own `nix-store --serve --write` on the same
//! store is asked to substitute; the paths it brings are then valid here too. Where it has none, everything is sent.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::future::BoxFuture;
use ncc_local_store::LocalStore;
use ncc_remote_store::{RemoteStore, ServeOptions, ServeProgram};
use ncc_store::{
    Destination, NarPlan, NarSource, OnFailure, Outcomes, StoreDir, StoreError, StorePath, Takes,
    ValidityQuery,
};
use ncc_transport::{LineSink, LocalProcess};

use crate::intent::Local;

/// The Nix of this machine, asked to substitute into one of its stores. It is started when it is asked first.
pub(crate) struct Nix(RemoteStore);

impl Nix {
    /// What it says on stderr goes to `stderr`, line by line.
    pub(crate) fn new(local: &Local, stderr: LineSink) -> Self {
        let mut options = ServeOptions::default();
        let settings = local.given.iter().flat_map(|(name, value)| ["--option", name, value]);
        options.program =
            ServeProgram::Words(["nix-store"].into_iter().chain(settings).map(str::to_owned).collect());
        options.store_dir = local.config.store_dir.clone();
        options.store.clone_from(&local.uri);
        options.stderr = Some(stderr);
        Self(RemoteStore::new(Arc::new(LocalProcess::new()), options))
    }

    /// Tries to make these paths valid, and keeps its garbage collector off them until it is closed. Whether they are valid
    /// then is what the store itself is asked for.
    pub(crate) async fn substitute(&self, paths: &[StorePath]) {
        let query = ValidityQuery::default().locking().substituting(true);
        if let Err(error) = self.0.valid_paths(paths, query).await {
            tracing::warn!("nothing is substituted here: {}", ncc_progress::chain(&error));
        }
    }

    /// Ends it, if it was started.
    pub(crate) async fn close(&self) {
        self.0.close().await;
    }
}

/// A local store with a Nix beside it that substitutes.
pub(crate) struct Substituting {
    store: Arc<LocalStore>,
    nix: Nix,
}

impl Substituting {
    pub(crate) fn new(store: Arc<LocalStore>, local: &Local, stderr: LineSink) -> Self {
        Self { store, nix: Nix::new(local, stderr) }
    }

    /// Ends the Nix that was started, if it was.
    pub(crate) async fn close(&self) {
        self.nix.close().await;
    }
}

impl Destination for Substituting {
    fn name(&self) -> &str {
        Destination::name(&*self.store)
    }

    fn store_dir(&self) -> &StoreDir {
        Destination::store_dir(&*self.store)
    }

    fn valid_paths<'a>(
        &'a self,
        paths: &'a [StorePath],
        query: ValidityQuery,
    ) -> BoxFuture<'a, Result<BTreeSet<StorePath>, StoreError>> {
        Box::pin(async move {
            if query.substitute {
                self.nix.substitute(paths).await;
            }
            self.store.valid_paths(paths, query.substituting(false)).await
        })
    }

    fn substitutable<'a>(
        &'a self,
        paths: &'a [StorePath],
    ) -> BoxFuture<'a, Result<Option<BTreeSet<StorePath>>, StoreError>> {
        self.nix.0.substitutable(paths)
    }

    fn takes(&self) -> BoxFuture<'_, Result<Takes, StoreError>> {
        self.store.takes()
    }

    fn free_space(&self) -> BoxFuture<'_, Result<Option<u64>, StoreError>> {
        self.store.free_space()
    }

    fn add_all(&self, plan: NarPlan, nars: Arc<dyn NarSource>, on_failure: OnFailure) -> Outcomes {
        self.store.add_all(plan, nars, on_failure)
    }
}
