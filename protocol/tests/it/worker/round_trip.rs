//! What no recorded daemon speaks: features, and realisations in both forms.

use ncc_protocol::wire::{WireReader, WireWrite as _};
use ncc_protocol::worker::{
    Answer, Daemon, DerivedPath, Feature, OutputId, Realisation, Request, SERVER_MAGIC, Version,
};
use ncc_store::{SecretKey, StoreDir, StorePath};
use rstest::rstest;

use super::{Outcome, understand};

const LAST: u64 = 0x616c_7473;

fn path(name: &str) -> StorePath {
    StorePath::from_parts(&[7; 20], name).unwrap()
}

fn by_path() -> OutputId {
    OutputId::OfDerivation { derivation: path("x.drv"), output: "out".to_owned() }
}

fn by_hash() -> OutputId {
    OutputId::Hashed(format!("sha256:{}!out", "0".repeat(64)))
}

fn realised() -> Realisation {
    let signatures = vec![SecretKey::from_seed("k", &[1; 32]).unwrap().sign("x")];
    Realisation::Path { out_path: path("x"), signatures }
}

fn json() -> Realisation {
    Realisation::Json("{\"outPath\":\"x\"}".to_owned())
}

fn with_features() -> Daemon {
    let mut daemon = Daemon::of_version(Version::NEWEST);
    daemon.features.extend(Feature::ALL);
    daemon
}

fn without() -> Daemon {
    Daemon::of_version(Version::from_minor(34).unwrap())
}

#[rstest]
#[case::roots(with_features(), Request::AddTempRoots { paths: [path("a"), path("b")].into_iter().collect() })]
#[case::query(with_features(), Request::QueryRealisation { output: by_path() })]
#[case::query_by_hash(without(), Request::QueryRealisation { output: by_hash() })]
#[case::register(
    with_features(),
    Request::RegisterRealisation { output: Some(by_path()), realisation: realised() }
)]
#[case::register_json(without(), Request::RegisterRealisation { output: None, realisation: json() })]
#[case::derived(
    without(),
    Request::QueryMissing {
        wanted: vec![
            DerivedPath::Path(path("x.drv")),
            DerivedPath::AllOutputs(path("x.drv")),
            DerivedPath::Outputs(path("x.drv"), ["a", "b"].map(str::to_owned).into()),
        ],
    }
)]
#[tokio::test]
async fn requests(#[case] daemon: Daemon, #[case] request: Request) {
    let (store_dir, mut bytes) = (StoreDir::default(), Vec::new());
    request.encode(&store_dir, &daemon, &mut bytes).unwrap();
    let mut reader = WireReader::new(&bytes[..]);
    let read = Request::read(&mut reader, &store_dir, &daemon).await.unwrap();
    assert_eq!(read, Some(request));
    assert!(reader.at_end().await.unwrap());
}

/// The wrong form of a realisation would be taken for something else.
#[rstest]
#[case::hash_with_the_feature(with_features(), Request::QueryRealisation { output: by_hash() })]
#[case::path_without(without(), Request::QueryRealisation { output: by_path() })]
#[case::json_with_the_feature(
    with_features(),
    Request::RegisterRealisation { output: Some(by_path()), realisation: json() }
)]
#[case::nothing_named(with_features(), Request::RegisterRealisation { output: None, realisation: realised() })]
#[case::too_old(
    Daemon::of_version(Version::from_minor(21).unwrap()),
    Request::QueryRealisation { output: by_hash() }
)]
fn requests_of_another_daemon_are_not_written(#[case] daemon: Daemon, #[case] request: Request) {
    let mut bytes = Vec::new();
    request.encode(&StoreDir::default(), &daemon, &mut bytes).unwrap_err();
    assert!(bytes.is_empty());
}

/// A daemon with these features, which answers each request so.
fn answers(features: &[&str], asked: &[Request], put: impl FnOnce(&mut Vec<u8>)) -> Vec<Outcome> {
    let mut reply = Vec::new();
    reply.put_u64(SERVER_MAGIC);
    reply.put_u64(0x100 | u64::from(Version::NEWEST.minor()));
    reply.put_u64(features.len() as u64);
    features.iter().map(|name| name.as_bytes()).for_each(|name| reply.put_bytes(name));
    reply.put_bytes(b"2.36pre");
    reply.put_u64(1);
    reply.put_u64(LAST);
    put(&mut reply);
    understand(Version::NEWEST, |_| asked.to_vec(), &reply[..]).unwrap().outcomes
}

#[test]
fn answers_with_features() {
    let asked = [
        Request::QueryRealisation { output: by_path() },
        Request::QueryRealisation { output: by_path() },
        Request::AddTempRoots { paths: [path("a")].into_iter().collect() },
    ];
    let names = ["something-new", "addTempRoots", "realisation-with-path-not-hash"];
    let outcomes = answers(&names, &asked, |reply| {
        let Realisation::Path { out_path, signatures } = realised() else { unreachable!() };
        reply.put_u64(LAST);
        reply.put_u64(1);
        reply.put_path(&StoreDir::default(), &out_path);
        reply.put_u64(1);
        reply.put_bytes(signatures[0].to_string().as_bytes());
        reply.put_u64(LAST);
        reply.put_u64(0);
        reply.put_u64(LAST);
        reply.put_u64(1);
    });
    let [
        Outcome::Answer(Answer::Realisation(Some(found))),
        Outcome::Answer(Answer::Realisation(None)),
        Outcome::Answer(Answer::Done),
    ] = &outcomes[..]
    else {
        panic!("{outcomes:?}")
    };
    assert_eq!(found, &realised());
}

#[test]
fn answers_without_features() {
    let asked = [Request::QueryRealisation { output: by_hash() }];
    let outcomes = answers(&[], &asked, |reply| {
        reply.put_u64(LAST);
        reply.put_u64(1);
        reply.put_bytes(b"{\"outPath\":\"x\"}");
    });
    let [Outcome::Answer(Answer::Realisation(Some(found)))] = &outcomes[..] else { panic!("{outcomes:?}") };
    assert_eq!(found, &json());
}
