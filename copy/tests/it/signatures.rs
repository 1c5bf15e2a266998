//! What is decided about signatures before anything is sent.

use ncc_copy::{CopyError, OnFailure, Purpose, Request, Signatures, copy, plan};
use ncc_store::{
    SecretKey, Side, StoreDir, StorePath,
    test_util::{Call, MemoryStore},
};

use crate::observer;

fn key(name: &str) -> SecretKey {
    SecretKey::from_seed(name, &[7; 32]).unwrap()
}

/// A source with an output that nobody has signed, one that a key has signed, something that refers to the first, and a
/// content-addressed path.
struct Here {
    store: MemoryStore,
    unsigned: StorePath,
    signed: StorePath,
    above: StorePath,
    addressed: StorePath,
}

impl Here {
    fn new(secret_key: &SecretKey) -> Self {
        let store = MemoryStore::new("here");
        let unsigned = store.add_output("unsigned", "a", &[]);
        let signed = store.add_output("signed", "b", &[]);
        let above = store.add("above", "c", std::slice::from_ref(&unsigned));
        let addressed = store.add("addressed", "d", &[]);
        store.sign(&signed, secret_key);
        Self { store, unsigned, signed, above, addressed }
    }

    fn request(&self) -> Request {
        Request::new(self.store.paths())
    }
}

fn has_sent_nothing(here: &MemoryStore, there: &MemoryStore) -> bool {
    let sends = |call: &Call| matches!(call, Call::AddAll | Call::Nars { .. });
    !here.calls().iter().any(sends) && !there.calls().iter().any(sends)
}

#[tokio::test]
async fn what_a_destination_is_known_to_refuse_is_refused_before_anything_is_sent() {
    let here = Here::new(&key("k"));
    let there = MemoryStore::new("there").trusting_only([key("k").public_key()]);
    let mut request = here.request();
    for purpose in [Purpose::Look, Purpose::Copy] {
        request.purpose = purpose;
        let error = copy(&here.store, &there, &request, &observer()).await.unwrap_err();
        let full = StoreDir::default().full(&here.unsigned);
        assert_eq!(
            error.to_string(),
            format!("nothing is copied: 1 path lacks a signature that there trusts: '{full}'")
        );
        let CopyError::Unsigned(unsigned) = error else { panic!("{error}") };
        assert_eq!((unsigned.side, unsigned.paths), (Side::Destination, vec![full]));
        assert!(has_sent_nothing(&here.store, &there));
    }
    // Who insists learns it from the destination.
    request.signatures = Signatures::Unchecked;
    let error = copy(&here.store, &there, &request, &observer()).await.unwrap_err();
    let CopyError::Failed { report } = error else { panic!("{error}") };
    assert!(report.failed[0].error.as_ref().unwrap().is_unsigned());
}

#[tokio::test]
async fn what_does_not_need_an_unsigned_path_is_copied_all_the_same() {
    let here = Here::new(&key("k"));
    let there = MemoryStore::new("there").trusting_only([key("k").public_key()]);
    let mut request = here.request();
    request.on_failure = OnFailure::Continue;
    let error = copy(&here.store, &there, &request, &observer()).await.unwrap_err();
    let CopyError::Failed { report } = error else { panic!("{error}") };
    let failed: Vec<_> = report.failed.iter().map(|failed| (&failed.path, failed.error.is_some())).collect();
    assert_eq!(failed, [(&here.unsigned, true), (&here.above, false)]);
    let mut copied = [here.signed, here.addressed];
    copied.sort();
    assert_eq!(there.paths(), copied);
}

#[tokio::test]
async fn what_is_signed_on_its_way_is_taken_and_the_source_keeps_what_it_has() {
    let here = Here::new(&key("k"));
    let before = here.store.infos(&here.store.paths());
    let there = MemoryStore::new("there").trusting_only([key("mine").public_key()]);
    let mut request = here.request();
    request.sign_with = [key("mine"), key("other")].into();
    let report = copy(&here.store, &there, &request, &observer()).await.unwrap();
    assert_eq!(report.sent.count(), 4);
    for info in &report.sent {
        let arrived = there.info(&info.path).unwrap();
        for name in ["mine", "other"] {
            assert!(arrived.is_signed_by(&StoreDir::default(), &[key(name).public_key()]));
        }
    }
    assert!(there.info(&here.signed).unwrap().signatures.len() == 3);
    assert_eq!(here.store.infos(&here.store.paths()), before);
}

#[tokio::test]
async fn what_no_trusted_key_has_signed_is_refused_wherever_it_goes() {
    let here = Here::new(&key("k"));
    let there = MemoryStore::new("there");
    let mut request = here.request();
    for (keys, lacking) in [(vec![key("k")], 1), (vec![key("another")], 2), (vec![], 2)] {
        request.signatures = Signatures::SignedBy(keys.iter().map(SecretKey::public_key).collect());
        let error = plan(&here.store, &there, &request, &observer()).await.unwrap_err();
        let CopyError::Unsigned(unsigned) = error else { panic!("{error}") };
        assert_eq!((unsigned.side, unsigned.store.as_str()), (Side::Source, "this machine"));
        assert_eq!(unsigned.paths.len(), lacking);
    }
    assert!(has_sent_nothing(&here.store, &there));
    // A key of the right name is not the right key.
    let impostor = SecretKey::from_seed("k", &[8; 32]).unwrap();
    request.signatures = Signatures::SignedBy([impostor.public_key()].into());
    assert!(copy(&here.store, &there, &request, &observer()).await.is_err());

    let mut request = Request::new([here.signed.clone(), here.addressed.clone()]);
    request.signatures = Signatures::SignedBy([key("k").public_key()].into());
    let report = copy(&here.store, &there, &request, &observer()).await.unwrap();
    assert_eq!(report.sent.count(), 2);
}

/// A content address that gives the path, for content that is another.
#[tokio::test]
async fn a_content_address_that_the_metadata_contradicts_is_none() {
    let here = Here::new(&key("k"));
    let honest = here.store.info(&here.addressed).unwrap();
    let nar = here.store.nar(&here.signed).unwrap();
    let mut liar =
        ncc_store::PathInfo::new(here.addressed.clone(), ncc_store::NarHash::of(&nar), nar.len() as u64);
    liar.content_address = honest.content_address;
    assert!(liar.content_address_gives_path(&StoreDir::default()));
    let source = MemoryStore::new("source");
    source.insert(liar, nar);
    let mut request = Request::new([here.addressed]);
    request.signatures = Signatures::SignedBy([].into());
    let there = MemoryStore::new("there");
    assert!(matches!(copy(&source, &there, &request, &observer()).await, Err(CopyError::Unsigned(_))));
}
