//! What every store must do, by the one behind a real daemon's socket.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture};
use ncc_local_store::Access;
use ncc_remote_store::{DaemonOptions, DaemonStore};
use ncc_store::{
    Destination as _, OnFailure, Outcome, Source as _,
    test_util::{
        MemoryStore,
        conformance::{Fixture, check_destination, check_source},
    },
};
use tempfile::TempDir;

use crate::{
    daemons::{Listening, has_daemon},
    support::open,
};

/// Keeps its daemons, and below them their stores, until all is checked.
#[derive(Default)]
struct Daemons(Mutex<Vec<(Listening, TempDir)>>);

fn at(daemon: &Listening) -> DaemonStore {
    DaemonStore::at_socket(daemon.socket(), DaemonOptions::default())
}

impl Fixture for Daemons {
    type Store = DaemonStore;

    fn store<'a>(&'a self, objects: &'a MemoryStore) -> BoxFuture<'a, DaemonStore> {
        async move {
            let directory = TempDir::with_prefix("ncc-daemon-").expect("a temporary directory");
            let store = directory.path().join("store");
            let local = open(&store, Access::ReadWrite);
            let plan = objects.infos(&objects.paths());
            let mut outcomes = local.add_all(plan.clone(), objects.nars(plan), OnFailure::Stop);
            while let Some(outcome) = outcomes.next().await {
                assert!(matches!(outcome, Ok(Outcome::Added(_))), "{outcome:?}");
            }
            let settings = "trusted-users = root\nsubstituters =\n";
            let daemon = Listening::over(&store, directory.path(), settings);
            let store = at(&daemon);
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push((daemon, directory));
            store
        }
        .boxed()
    }

    fn reopen(&self, store: &DaemonStore) -> DaemonStore {
        let daemons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = ncc_store::Source::name(store);
        let found = daemons.iter().find(|(daemon, _)| name.contains(&daemon.socket().display().to_string()));
        at(&found.expect("a store of this fixture").0)
    }

    fn rest(&self) -> BoxFuture<'static, ()> {
        tokio::time::sleep(Duration::from_millis(10)).boxed()
    }
}

#[tokio::test]
async fn a_real_daemon_as_a_source() {
    if has_daemon() {
        check_source(&Daemons::default()).await;
    }
}

#[tokio::test]
async fn a_real_daemon_as_a_destination() {
    if has_daemon() {
        check_destination(&Daemons::default()).await;
    }
}
