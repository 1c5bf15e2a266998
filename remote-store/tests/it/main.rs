//! Copies to and from a host in memory, with a clock that counts round trips.

mod choosing;
mod conformance;
mod daemon;
mod failures;
mod hostile;
mod keep_going;
mod pipelining;
mod scripted;
mod sessions;
mod silence;

use std::sync::Arc;

use ncc_remote_store::{RemoteStore, ServeOptions, test_util::MemoryHost};
use ncc_store::{Destination as _, NarPlan, OnFailure, Outcomes, Source as _, test_util::MemoryStore};

fn remote(host: &MemoryHost) -> RemoteStore {
    RemoteStore::new(Arc::new(host.clone()), ServeOptions::default())
}

/// Adds `plan` from a store in memory, going on behind what fails.
fn add(store: &RemoteStore, source: &MemoryStore, plan: NarPlan) -> Outcomes {
    let nars = source.nars(plan.clone());
    store.add_all(plan, nars, OnFailure::Continue)
}
