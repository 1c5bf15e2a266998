//! A local destination that substitutes, as upstream's does with `--from -s`.
//!
//! Knowing binary caches is Nix's business. Where the machine has Nix, its own `nix-store --serve --write` on the same
//! store is asked to substitute; the paths it brings are then valid here too. Where it has none, everything is sent.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::future::BoxFuture;
use ncc_local_store::LocalStore;
use ncc_remote_store::{RemoteStore, ServeOptions, ServeProgram};
use ncc_store::{
    Destination, NarPlan, NarSource, OnFailure, Outcomes, StoreDir, StoreError, StorePath, ValidityQuery,
};
use ncc_transport::{LineSink, LocalProcess};

use crate::intent::Local;

/// A local store with a Nix beside it that substitutes.
pub(crate) struct Substituting {
    store: Arc<LocalStore>,
    nix: RemoteStore,
}

impl Substituting {
    pub(crate) fn new(store: Arc<LocalStore>, local: &Local, stderr: LineSink) -> Self {
        let mut options = ServeOptions::default();
        let settings = local.given.iter().flat_map(|(name, value)| ["--option", name, value]);
        options.program =
            ServeProgram::Words(["nix-store"].into_iter().chain(settings).map(str::to_owned).collect());
        options.store_dir = store.store_dir().clone();
        options.store.clone_from(&local.uri);
        options.stderr = Some(stderr);
        Self { store, nix: RemoteStore::new(Arc::new(LocalProcess::new()), options) }
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
                // What it says is valid was brought into this very store; the store itself is asked all the same.
                if let Err(error) = self.nix.valid_paths(paths, query).await {
                    tracing::warn!("nothing is substituted here: {}", ncc_progress::chain(&error));
                }
            }
            self.store.valid_paths(paths, query.substituting(false)).await
        })
    }

    fn substitutable<'a>(
        &'a self,
        paths: &'a [StorePath],
    ) -> BoxFuture<'a, Result<Option<BTreeSet<StorePath>>, StoreError>> {
        self.nix.substitutable(paths)
    }

    fn add_all(&self, plan: NarPlan, nars: Arc<dyn NarSource>, on_failure: OnFailure) -> Outcomes {
        self.store.add_all(plan, nars, on_failure)
    }
}
