//! What real Nix keeps in its database comes out as it went in.

use std::{
    env,
    io::Write as _,
    process::{Command, Stdio},
};

use futures_util::FutureExt as _;
use ncc_protocol::{
    serve::{Request, client_greeting, read_added, read_path_infos, read_server_greeting},
    wire::{WireReader, WireWrite as _},
};
use ncc_store::{PathInfo, StoreDir, StorePathSet, test_util::MemoryStore};

/// Writes all of `requests` to a `nix-store --serve --write` on a store of its own, and gives the answers.
fn serve(root: &std::path::Path, requests: &[u8]) -> Option<Vec<u8>> {
    let spawned = Command::new("nix-store")
        .args(["--serve", "--write", "--store"])
        .arg(root)
        .env("HOME", root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut server = match spawned {
        Ok(server) => server,
        Err(error) => {
            assert!(
                env::var_os("NCC_REQUIRE_REAL").is_none_or(|value| value != "1"),
                "NCC_REQUIRE_REAL=1, but nix-store: {error}"
            );
            // Written past the capture of the test harness, so that it is seen.
            let note = b"LEFT OUT: signatures in the database of real Nix, for there is no nix-store here\n";
            std::io::stderr().write_all(note).unwrap();
            return None;
        }
    };
    // A server that refuses something ends before it has read everything; its answers tell.
    let _ = server.stdin.take().unwrap().write_all(requests);
    Some(server.wait_with_output().unwrap().stdout)
}

/// Names of keys that are odd, and allowed; and others that would fall apart in the database.
#[test]
fn signatures_come_out_of_the_database_of_nix_as_they_went_in() {
    let odd =
        ["!", "~", "a=b", "cache.example.org-1", "\"quoted\"", "a/b\\c", "'; drop table ValidPaths; --"];
    let memory = MemoryStore::new("ours");
    let path = memory.add("signed", "x", &[]);
    let mut info: PathInfo = memory.info(&path).unwrap();
    info.set_signatures(odd.iter().map(|name| format!("{name}:{}", "A".repeat(86))));
    assert_eq!((info.signatures.len(), info.malformed_signatures), (6, 1), "one has blanks");

    let store_dir = StoreDir::default();
    let asked: StorePathSet = [path.clone()].into_iter().collect();
    let mut requests = client_greeting();
    Request::AddToStoreNar { info: Box::new(info.clone()) }.encode(&store_dir, &mut requests);
    requests.extend_from_slice(&memory.nar(&path).unwrap());
    let directory = tempfile::tempdir().unwrap();
    let Some(_) = serve(directory.path(), &requests) else { return };

    // Another process, which has nothing but the database.
    let mut requests = client_greeting();
    Request::QueryPathInfos { paths: vec![path] }.encode(&store_dir, &mut requests);
    let answers = serve(directory.path(), &requests).unwrap();
    let mut reader = WireReader::new(&answers[..]);
    read_server_greeting(&mut reader).now_or_never().unwrap().unwrap();
    let infos = read_path_infos(&mut reader, &store_dir, &asked).now_or_never().unwrap().unwrap();
    assert_eq!(infos[0].signatures, info.signatures);
    assert_eq!(infos[0].malformed_signatures, 0);
}

/// What stores of Nix up to 2.33 hold and hand out is left out, and counted.
#[test]
fn texts_that_nix_took_for_signatures_are_counted() {
    let memory = MemoryStore::new("ours");
    let path = memory.add("signed", "x", &[]);
    let store_dir = StoreDir::default();
    let mut info = memory.info(&path).unwrap();
    info.content_address = None;
    let mut requests = client_greeting();
    let mut add = Vec::new();
    Request::AddToStoreNar { info: Box::new(info) }.encode(&store_dir, &mut add);
    // Without its last two fields: no signatures, no content address.
    requests.extend_from_slice(add.strip_suffix(&[0; 16]).unwrap());
    requests.put_u64(1);
    requests.put_bytes(format!("two words:{}", "A".repeat(86)).as_bytes());
    requests.put_u64(0);
    requests.extend_from_slice(&memory.nar(&path).unwrap());
    Request::QueryPathInfos { paths: vec![path.clone()] }.encode(&store_dir, &mut requests);
    let directory = tempfile::tempdir().unwrap();
    let Some(answers) = serve(directory.path(), &requests) else { return };

    let mut reader = WireReader::new(&answers[..]);
    read_server_greeting(&mut reader).now_or_never().unwrap().unwrap();
    if read_added(&mut reader).now_or_never().unwrap().is_err() {
        // From 2.34 on Nix refuses it.
        return;
    }
    let asked: StorePathSet = [path].into_iter().collect();
    let infos = read_path_infos(&mut reader, &store_dir, &asked).now_or_never().unwrap().unwrap();
    assert_eq!(infos[0].malformed_signatures, 1, "{:?}", infos[0].signatures);
    assert!(infos[0].signatures.iter().all(|signature| signature.key_name() == "words"));
}
