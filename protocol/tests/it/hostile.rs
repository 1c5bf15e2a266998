//! No bytes of a peer panic, hang, or make room for more than came.

use std::{fs, path::Path};

use futures_util::FutureExt as _;
use ncc_protocol::{
    serve::{CLIENT_MAGIC, Writing, client_greeting, read_path_info, read_server_greeting},
    wire::{WireReader, WireWrite as _},
};
use ncc_store::{StoreDir, test_util::MemoryStore};
use proptest::prelude::*;

use crate::serve;

fn golden(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/serve/2.34.8").join(name)).unwrap()
}

/// Reads a QueryPathInfos session to its end or its first error.
fn read_infos(bytes: &[u8]) -> bool {
    async {
        let mut reader = WireReader::new(bytes);
        if read_server_greeting(&mut reader).await.is_err() {
            return false;
        }
        loop {
            match read_path_info(&mut reader, &StoreDir::default()).await {
                Ok(Some(_)) => {}
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }
    .now_or_never()
    .expect("a slice never waits")
}

#[test]
fn a_cut_anywhere_is_an_error_and_nothing_else() {
    let reply = golden("query-path-infos.reply");
    assert!(read_infos(&reply));
    for end in 0..reply.len() {
        assert!(!read_infos(&reply[..end]), "cut at {end}");
    }
    let request = golden("add-to-store-nar-closure.request");
    let (whole, _) = serve(&MemoryStore::new("ours"), &request, Writing::Allowed);
    for end in (0..request.len()).step_by(7) {
        let store = MemoryStore::new("ours");
        let (answered, _) = serve(&store, &request[..end], Writing::Allowed);
        assert!(whole.starts_with(&answered), "cut at {end}");
        // As many answers as registered paths: no more, no less.
        assert_eq!(store.paths().len(), answered.len().saturating_sub(16) / 8, "cut at {end}");
    }
}

#[test]
fn absurd_counts_cost_nothing() {
    for count in [u64::MAX, 1 << 40, 1 << 26] {
        let mut request = client_greeting();
        request.put_u64(1);
        request.put_u64(0);
        request.put_u64(0);
        request.put_u64(count);
        let (_, end) = serve(&MemoryStore::new("ours"), &request, Writing::Refused);
        assert!(end.is_err());
    }
}

#[test]
fn flags_beyond_32_bits_are_refused_as_nix_does() {
    let mut request = client_greeting();
    request.put_u64(1);
    request.put_u64(1 << 33);
    let (_, end) = serve(&MemoryStore::new("ours"), &request, Writing::Refused);
    assert!(end.unwrap_err().to_string().contains("the lock flag announces"));
}

proptest! {
    #[test]
    fn any_change_of_a_session_is_survived(position in 0usize..9184, value: u8) {
        let mut request = golden("add-to-store-nar-closure.request");
        let length = request.len();
        request[position % length] = value;
        let store = MemoryStore::new("ours");
        let (answered, _) = serve(&store, &request, Writing::Allowed);
        prop_assert!(store.paths().len() >= answered.len().saturating_sub(16) / 8);
    }

    #[test]
    fn any_bytes_behind_the_greeting_are_survived(bytes: Vec<u8>) {
        let mut request = CLIENT_MAGIC.to_le_bytes().to_vec();
        request.extend_from_slice(&bytes);
        let (answered, _) = serve(&MemoryStore::new("ours"), &request, Writing::Allowed);
        prop_assert!(answered.len() >= 16, "the greeting comes before the version is read");
    }
}
