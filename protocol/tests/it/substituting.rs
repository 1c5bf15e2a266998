//! Whether a client's wish to substitute reaches whoever can grant it.

use std::sync::Mutex;

use futures_util::{FutureExt as _, future::BoxFuture};
use ncc_protocol::{
    serve::{Request, Server, Substituter, Writing, client_greeting, read_server_greeting, read_valid_paths},
    wire::WireReader,
};
use ncc_store::{StorePath, StorePathSet, ValidityQuery, test_util::MemoryStore};
use rstest::rstest;

/// Adds one path to the store, whatever it is asked for, and notes that.
struct Adding<'a> {
    store: &'a MemoryStore,
    asked: Mutex<Vec<Vec<StorePath>>>,
}

impl Substituter for Adding<'_> {
    fn substitute<'a>(&'a self, missing: &'a [StorePath]) -> BoxFuture<'a, ()> {
        self.asked.lock().unwrap().push(missing.to_vec());
        self.store.add("substitutable", "", &[]);
        Box::pin(std::future::ready(()))
    }
}

#[rstest]
#[case::asked_for(true, Writing::Allowed, true)]
#[case::not_asked_for(false, Writing::Allowed, false)]
#[case::read_only(true, Writing::Refused, false)]
fn missing_paths_are_substituted(#[case] wish: bool, #[case] writing: Writing, #[case] granted: bool) {
    let elsewhere = MemoryStore::new("elsewhere");
    let substitutable = elsewhere.add("substitutable", "", &[]);
    let other = elsewhere.add("other", "", &[]);
    let store = MemoryStore::new("ours");
    let present = store.add("present", "", &[]);
    let substituter = Adding { store: &store, asked: Mutex::default() };

    let asked: StorePathSet = [present.clone(), substitutable.clone(), other.clone()].into_iter().collect();
    let mut request = client_greeting();
    let query = ValidityQuery::default().locking().substituting(wish);
    let store_dir = ncc_store::StoreDir::default();
    Request::QueryValidPaths { query, paths: asked.clone().into_vec() }.encode(&store_dir, &mut request);
    let mut reply = Vec::new();
    let server = Server::new(&request[..], &mut reply, &store, writing).substituting_with(&substituter);
    server.run().now_or_never().expect("it waits for nothing").unwrap();

    let mut reader = WireReader::new(&reply[..]);
    read_server_greeting(&mut reader).now_or_never().unwrap().unwrap();
    let valid = read_valid_paths(&mut reader, &store_dir, &asked).now_or_never().unwrap().unwrap();
    assert!(valid.contains(&present) && !valid.contains(&other));
    assert_eq!(valid.contains(&substitutable), granted);
    let missing: StorePathSet = [substitutable, other].into_iter().collect();
    let expected = if granted { vec![missing.into_vec()] } else { Vec::new() };
    assert_eq!(*substituter.asked.lock().unwrap(), expected);
}
