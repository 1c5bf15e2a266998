//! Plans and runs between stores in memory. (Through a host: `remote-store/tests`.)

use ncc_copy::{CopyError, NoObserver, OnFailure, Purpose, Request, copy, plan};
use ncc_store::{
    StoreDir,
    test_util::{Call, Fault, MemoryStore},
};

fn observer() -> std::sync::Arc<dyn ncc_copy::Observer> {
    NoObserver.shared()
}

#[tokio::test]
async fn a_plan_to_look_at_changes_nothing() {
    let here = MemoryStore::new("here");
    let chain = here.add_chain(3);
    let there = MemoryStore::new("there");
    let mut request = Request::new([chain[2].clone()]);
    request.purpose = Purpose::Look;
    request.substitute = true;
    let plan = plan(&here, &there, &request, &observer()).await.unwrap();
    assert_eq!(plan.to_send.len(), 3);
    assert!(plan.bytes_to_send() > 0);
    for call in there.calls() {
        let Call::ValidPaths { query, .. } = call else { panic!("{call:?}") };
        assert!(!query.lock && !query.substitute);
    }
}

#[tokio::test]
async fn what_is_substituted_is_told_apart_from_what_was_there() {
    let here = MemoryStore::new("here");
    let chain = here.add_chain(3);
    let there = MemoryStore::new("there");
    copy(&here, &there, &Request::new([chain[0].clone()]), &observer()).await.unwrap();
    there.offer_substitutes(&here, &chain[1..2]);
    let mut request = Request::new([chain[2].clone()]);
    request.substitute = true;
    let report = copy(&here, &there, &request, &observer()).await.unwrap();
    assert_eq!((report.present.paths, report.substituted.paths, report.sent.paths), (1, 1, 1));
    assert_eq!(there.paths(), here.paths());
}

#[tokio::test]
async fn stores_with_different_directories_are_told_apart() {
    let here = MemoryStore::new("here");
    let path = here.add("x", "y", &[]);
    let there = MemoryStore::in_store_dir("there", StoreDir::new("/gnu/store").unwrap());
    let error = copy(&here, &there, &Request::new([path]), &observer()).await.unwrap_err();
    assert!(error.to_string().contains("'/gnu/store'"), "{error}");
}

#[tokio::test]
async fn a_destination_that_forgets_a_root_is_not_believed() {
    let here = MemoryStore::new("here");
    let path = here.add("x", "y", &[]);
    let there = MemoryStore::new("there");
    there.inject(Fault::ForgetPath(path.clone()));
    let error = copy(&here, &there, &Request::new([path]), &observer()).await.unwrap_err();
    assert!(matches!(error, CopyError::RootMissing { .. }), "{error}");
}

#[tokio::test]
async fn what_refers_to_a_failed_path_fails_with_it() {
    let here = MemoryStore::new("here");
    let chain = here.add_chain(4);
    let other = here.add("other", "other", &[]);
    here.inject(Fault::CorruptContent(chain[1].clone()));
    let there = MemoryStore::new("there");
    let mut request = Request::new([chain[3].clone(), other]);
    request.on_failure = OnFailure::Continue;
    let error = copy(&here, &there, &request, &observer()).await.unwrap_err();
    let CopyError::Failed { report } = error else { panic!("{error}") };
    assert_eq!((report.sent.paths, report.unsent.paths, report.failed.len()), (2, 3, 3));
    let own: Vec<_> = report.failed.iter().filter(|failed| failed.error.is_some()).collect();
    assert_eq!(own.len(), 1);
    assert_eq!(own[0].path, chain[1]);
}
