//! What every store must do, by this one.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use ncc_local_store::{Access, LocalStore};
use ncc_store::test_util::{
    MemoryStore,
    conformance::{Fixture, check_destination, check_source},
};

use crate::support::*;

/// Keeps the folders of its stores until all is checked.
#[derive(Default)]
struct Local(Mutex<Vec<Scratch>>);

impl Fixture for Local {
    type Store = LocalStore;

    fn store<'a>(&'a self, objects: &'a MemoryStore) -> BoxFuture<'a, LocalStore> {
        async move {
            let scratch = Scratch::new();
            let store = scratch.store();
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
            fill(&store, objects).await;
            store
        }
        .boxed()
    }

    fn reopen(&self, store: &LocalStore) -> LocalStore {
        LocalStore::open(store.config().clone(), Access::ReadWrite).unwrap()
    }

    fn rest(&self) -> BoxFuture<'static, ()> {
        tokio::time::sleep(Duration::from_millis(10)).boxed()
    }
}

#[tokio::test]
async fn as_a_source() {
    check_source(&Local::default()).await;
}

#[tokio::test]
async fn as_a_destination() {
    check_destination(&Local::default()).await;
}
