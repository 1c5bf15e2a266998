//! Sessions of real Nix 2.3.7, 2.8.0, 2.26.3 and 2.34.x; see `testdata/serve/README.md`.

use std::{fs, path::PathBuf};

use ncc_protocol::{
    serve::{
        Request, SERVER_MAGIC, Version, Writing, client_greeting, put_path_info, read_added, read_path_info,
        read_server_greeting,
    },
    wire::{WireReader, WireWrite as _},
};
use ncc_store::{StoreDir, test_util::MemoryStore};
use rstest::rstest;

use crate::serve;

struct Session {
    request: Vec<u8>,
    reply: Vec<u8>,
}

fn folder(version: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/serve").join(version)
}

fn session(version: &str, case: &str) -> Session {
    let read = |kind: &str| fs::read(folder(version).join(format!("{case}.{kind}"))).unwrap();
    Session { request: read("request"), reply: read("reply") }
}

/// Reads requests behind the greeting, with their NARs.
async fn requests(bytes: &[u8]) -> Vec<(Request, Vec<u8>)> {
    let store_dir = StoreDir::default();
    let mut reader = WireReader::new(&bytes[16..]);
    let mut requests = Vec::new();
    while let Some(request) = Request::read(&mut reader, &store_dir).await.unwrap() {
        let mut nar = Vec::new();
        if let Request::AddToStoreNar { info } = &request {
            while let Some(left @ 1..) = info.nar_size.checked_sub(nar.len() as u64) {
                nar.extend_from_slice(&reader.block("a NAR", left).await.unwrap());
            }
        }
        requests.push((request, nar));
    }
    requests
}

#[rstest]
#[tokio::test]
async fn requests_are_read_and_written_byte_for_byte(
    #[values("2.3.7", "2.8.0", "2.26.3", "2.34.8")] version: &str,
    #[values(
        "query-valid-paths",
        "query-valid-paths-none",
        "query-valid-paths-lock-substitute",
        "query-path-infos",
        "query-closure",
        "query-closure-include-outputs",
        "dump-store-path-pipelined",
        "all-pipelined",
        "add-to-store-nar",
        "add-to-store-nar-closure"
    )]
    case: &str,
) {
    let Session { request, .. } = session(version, case);
    let mut written = client_greeting();
    for (request, nar) in requests(&request).await {
        request.encode(&StoreDir::default(), &mut written);
        written.extend_from_slice(&nar);
    }
    // The version that the captures offer is the one we offer.
    assert_eq!(written, request);
}

#[rstest]
#[tokio::test]
async fn path_infos_are_read_and_written_byte_for_byte(
    #[values("2.3.7", "2.8.0", "2.26.3", "2.34.8")] version: &str,
) {
    let store_dir = StoreDir::default();
    let Session { reply, .. } = session(version, "query-path-infos");
    let mut reader = WireReader::new(&reply[..]);
    let common = read_server_greeting(&mut reader).await.unwrap();
    let mut written = reply[..16].to_vec();
    let mut names = Vec::new();
    while let Some(info) = read_path_info(&mut reader, &store_dir).await.unwrap() {
        assert!(info.content_address_gives_path(&store_dir), "{}", info.path);
        put_path_info(&info, &store_dir, common, &mut written);
        names.push((info.path.name().to_owned(), info.content_address.is_some(), info.signatures.len()));
    }
    written.put_u64(0);
    assert!(reader.at_end().await.unwrap());
    assert_eq!(written, reply);
    assert!(names.iter().any(|(_, addressed, _)| *addressed), "{names:?}");
    assert!(names.iter().any(|(_, _, signatures)| *signatures == 2), "{names:?}");
}

#[rstest]
#[tokio::test]
async fn sets_and_answers_are_read_to_their_end(
    #[values("2.3.7", "2.8.0", "2.26.3", "2.34.8")] version: &str,
) {
    let store_dir = StoreDir::default();
    for case in ["query-valid-paths", "query-valid-paths-none", "query-closure", "query-closure-derivation"] {
        let Session { reply, .. } = session(version, case);
        let mut reader = WireReader::new(&reply[..]);
        read_server_greeting(&mut reader).await.unwrap();
        let paths = reader.paths("paths", &store_dir).await.unwrap();
        let mut again = Vec::new();
        again.put_paths(&store_dir, &paths);
        assert!(reply.ends_with(&again), "{case}");
        assert!(reader.at_end().await.unwrap(), "{case}");
    }
    let Session { request, reply } = session(version, "add-to-store-nar-closure");
    let mut reader = WireReader::new(&reply[..]);
    read_server_greeting(&mut reader).await.unwrap();
    for _ in requests(&request).await {
        read_added(&mut reader).await.unwrap();
    }
    assert!(reader.at_end().await.unwrap());
}

/// What our server answers to the very bytes that real Nix was sent.
#[rstest]
#[case::handshake("handshake", Writing::Refused)]
#[case::newer_client("handshake-client-2.99", Writing::Refused)]
#[case::add("add-to-store-nar", Writing::Allowed)]
#[case::closure("add-to-store-nar-closure", Writing::Allowed)]
#[case::already_valid("add-to-store-nar-already-valid", Writing::Allowed)]
#[case::read_only("add-to-store-nar-read-only-server", Writing::Refused)]
#[case::missing_reference("add-to-store-nar-missing-reference", Writing::Allowed)]
#[case::good_bad_good("add-to-store-nar-good-bad-good", Writing::Allowed)]
#[case::truncated("add-to-store-nar-truncated", Writing::Allowed)]
#[case::hash_mismatch("add-to-store-nar-hash-mismatch", Writing::Allowed)]
#[case::size_zero("add-to-store-nar-size-zero", Writing::Allowed)]
fn our_server_answers_as_nix_does(
    #[values("2.3.7", "2.8.0", "2.26.3", "2.34.8")] version: &str,
    #[case] case: &str,
    #[case] writing: Writing,
) {
    let Session { request, mut reply } = session(version, case);
    // Only the version that the server announces differs.
    reply[8..16].copy_from_slice(&(0x200 | u64::from(Version::OURS.minor())).to_le_bytes());
    let (answered, end) = serve(&MemoryStore::new("ours"), &request[..], writing);
    assert_eq!(answered, reply, "{end:?}");
    let failed = fs::read_to_string(folder(version).join("index.tsv")).unwrap().lines().any(|line| {
        let columns: Vec<_> = line.split('\t').collect();
        columns[0] == case && columns[2] != "0"
    });
    assert_eq!(end.is_err(), failed, "{end:?}");
}

#[test]
fn another_magic_is_refused_without_an_answer() {
    let Session { request, reply } = session("2.34.8", "wrong-magic");
    let (answered, end) = serve(&MemoryStore::new("ours"), &request[..], Writing::Refused);
    assert_eq!(answered, reply);
    assert!(end.is_err());
    assert!(!reply.starts_with(&SERVER_MAGIC.to_le_bytes()));
}
