//! The server takes whatever a client writes: it ends, it registers nothing but what is right, and how the bytes were
//! cut makes no difference.
#![no_main]

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use libfuzzer_sys::fuzz_target;
use ncc_protocol::serve::{SERVER_MAGIC, ServeError, Server, Writing};
use ncc_store::{NarHash, test_util::MemoryStore};
use tokio::io::{AsyncRead, ReadBuf};

fuzz_target!(|data: &[u8]| {
    let (store, answered, end) = serve(data);
    let (again, answered_again, end_again) = serve(Pieces(data));
    assert_eq!(answered, answered_again, "the answers depend on how the bytes were cut");
    assert_eq!(end, end_again, "the verdict depends on how the bytes were cut");
    assert_eq!(store.paths(), again.paths());
    assert!(answered.is_empty() || answered.starts_with(&SERVER_MAGIC.to_le_bytes()));
    for path in store.paths() {
        let (info, nar) = (store.info(&path).unwrap(), store.nar(&path).unwrap());
        assert_eq!(info.nar_hash, NarHash::of(&nar));
        assert_eq!(info.nar_size, nar.len() as u64);
        assert!(info.other_references().all(|reference| store.info(reference).is_some()));
    }
});

fn serve(request: impl AsyncRead + Unpin) -> (MemoryStore, Vec<u8>, Result<(), String>) {
    let store = MemoryStore::new("fuzz");
    let mut answered = Vec::new();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let server = Server::new(request, &mut answered, &store, Writing::Allowed).run();
    // The paused clock runs only when nothing else can: this is a standstill, not a slow machine.
    let end = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(1), server).await });
    let end = end.expect("the server waits for nothing").map_err(|error: ServeError| format!("{error:?}"));
    (store, answered, end)
}

struct Pieces<'a>(&'a [u8]);

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = (1 + self.0.len() % 13).min(self.0.len()).min(buffer.remaining());
        let (piece, rest) = self.0.split_at(count);
        buffer.put_slice(piece);
        self.0 = rest;
        Poll::Ready(Ok(()))
    }
}
