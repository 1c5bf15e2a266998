//! Plans and runs between stores in memory. (Through a host: `remote-store/tests`.)

mod retrying;
mod rounds;
mod signatures;

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
async fn a_plan_to_look_at_tells_what_would_be_substituted() {
    let here = MemoryStore::new("here");
    let chain = here.add_chain(3);
    let there = MemoryStore::new("there");
    // The last one is offered too; but the one before, which it refers to, has to be sent.
    there.offer_substitutes(&here, &[chain[0].clone(), chain[2].clone()]);
    let mut request = Request::new([chain[2].clone()]);
    request.substitute = true;
    request.purpose = Purpose::Look;
    let looked = plan(&here, &there, &request, &observer()).await.unwrap();
    assert!(there.paths().is_empty() && !looked.unforeseen);
    let names = |infos: &[std::sync::Arc<ncc_store::PathInfo>]| {
        infos.iter().map(|info| info.path.clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        (names(&looked.substituted), names(&looked.to_send)),
        (chain[..1].to_vec(), chain[1..].to_vec())
    );
    // And so it comes.
    request.purpose = Purpose::Copy;
    let planned = plan(&here, &there, &request, &observer()).await.unwrap();
    assert_eq!(names(&planned.to_send), names(&looked.to_send));
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
    assert_eq!((report.present.count(), report.substituted.count(), report.sent.count()), (1, 1, 1));
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
    assert_eq!((report.sent.count(), report.unsent.count(), report.failed.len()), (2, 3, 3));
    let own: Vec<_> = report.failed.iter().filter(|failed| failed.error.is_some()).collect();
    assert_eq!(own.len(), 1);
    assert_eq!(own[0].path, chain[1]);
}

#[tokio::test]
async fn what_was_never_tried_is_not_called_failed() {
    let here = MemoryStore::new("here");
    let paths: Vec<_> = ["a", "b", "c", "d"].map(|name| here.add(name, name, &[])).into();
    let mut sorted = paths.clone();
    sorted.sort();
    let needs_bad = here.add("needs-bad", "x", &sorted[..1]);
    here.inject(Fault::CorruptContent(sorted[0].clone()));
    let there = MemoryStore::new("there");
    let roots = sorted.iter().cloned().chain([needs_bad.clone()]);
    let error = copy(&here, &there, &Request::new(roots), &observer()).await.unwrap_err();
    let text = error.to_string();
    let CopyError::Failed { report } = error else { panic!("{error}") };
    let failed: Vec<_> = report.failed.iter().map(|failed| &failed.path).collect();
    assert_eq!(failed, [&sorted[0], &needs_bad], "the one that is wrong, and the one that needs it");
    assert_eq!((report.sent.count(), report.unsent.count()), (0, 5), "the first of the plan ends it");
    assert_eq!(text, "2 of 5 paths could not be copied, and 3 were not tried");
}

#[tokio::test]
async fn the_report_has_what_failed_in_the_order_of_the_plan() {
    let here = MemoryStore::new("here");
    let chain = here.add_chain(30);
    here.inject(Fault::CorruptContent(chain[0].clone()));
    let there = MemoryStore::new("there");
    let mut request = Request::new([chain[29].clone()]);
    request.on_failure = OnFailure::Continue;
    let error = copy(&here, &there, &request, &observer()).await.unwrap_err();
    let CopyError::Failed { report } = error else { panic!("{error}") };
    let failed: Vec<_> = report.failed.into_iter().map(|failed| failed.path).collect();
    assert_eq!(failed, chain);
}

/// A program that copies to many hosts runs each copy as a task of its own.
#[test]
fn a_copy_can_be_a_task() {
    fn task<T: Send>(_: T) {}
    let (here, there) = (MemoryStore::new("here"), MemoryStore::new("there"));
    let (request, observer) = (Request::default(), observer());
    task(copy(&here, &there, &request, &observer));
}
