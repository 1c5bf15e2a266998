//! The codecs and the server against what real Nix wrote, and against hostile bytes.

mod golden;
mod hostile;
mod memory;
mod odd_rows;
mod real_nix;
mod substituting;
mod worker;

use std::time::Duration;

use ncc_protocol::serve::{ServeError, Server, Writing};
use ncc_store::test_util::MemoryStore;
use tokio::io::AsyncRead;

/// Serves `request` from `store`; gives what was answered and how it ended.
fn serve(
    store: &MemoryStore,
    request: impl AsyncRead + Unpin,
    writing: Writing,
) -> (Vec<u8>, Result<(), ServeError>) {
    let mut reply = Vec::new();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let server = Server::new(request, &mut reply, store, writing).run();
    // The paused clock runs only when nothing else can: this is a deadlock, not a slow machine.
    let end = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(1), server).await });
    let end = end.expect("the server waits for nothing");
    (reply, end)
}
