//! Copies to and from a host in memory, with a clock that counts round trips.

mod failures;
mod hostile;
mod keep_going;
mod pipelining;
mod scripted;
mod silence;

use std::sync::Arc;

use ncc_remote_store::{RemoteStore, ServeOptions, test_util::MemoryHost};

fn remote(host: &MemoryHost) -> RemoteStore {
    RemoteStore::new(Arc::new(host.clone()), ServeOptions::default())
}
