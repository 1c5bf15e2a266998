//! What every store must do, by those behind a connection.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use ncc_remote_store::{RemoteStore, test_util::MemoryHost};
use ncc_store::test_util::{
    MemoryStore,
    conformance::{Fixture, check_destination, check_source},
};

use crate::{daemon::Part, remote};

/// Remembers the host of the store that was made last.
#[derive(Default)]
struct Remote(Mutex<Option<MemoryHost>>);

impl Fixture for Remote {
    type Store = RemoteStore;

    fn store<'a>(&'a self, objects: &'a MemoryStore) -> BoxFuture<'a, RemoteStore> {
        let host = MemoryHost::new(objects).with_round_trip(Duration::from_millis(1));
        let store = remote(&host);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(host);
        std::future::ready(store).boxed()
    }

    fn reopen(&self, _: &RemoteStore) -> RemoteStore {
        remote(self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().unwrap())
    }

    fn rest(&self) -> BoxFuture<'static, ()> {
        tokio::time::sleep(Duration::from_millis(10)).boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn as_a_source() {
    check_source(&Remote::default()).await;
}

#[tokio::test(start_paused = true)]
async fn as_a_destination() {
    check_destination(&Remote::default()).await;
}

/// The same for a daemon.
#[derive(Default)]
struct Daemon(Mutex<Option<Part>>);

impl Fixture for Daemon {
    type Store = RemoteStore;

    fn store<'a>(&'a self, objects: &'a MemoryStore) -> BoxFuture<'a, RemoteStore> {
        let part = Part::new(objects, 37);
        let store = part.store(true);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(part);
        std::future::ready(store).boxed()
    }

    fn reopen(&self, _: &RemoteStore) -> RemoteStore {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().unwrap().store(true)
    }

    fn rest(&self) -> BoxFuture<'static, ()> {
        tokio::time::sleep(Duration::from_millis(10)).boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_daemon_as_a_source() {
    check_source(&Daemon::default()).await;
}

#[tokio::test(start_paused = true)]
async fn a_daemon_as_a_destination() {
    check_destination(&Daemon::default()).await;
}
