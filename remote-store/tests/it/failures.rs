//! What goes wrong is named, and nothing that was answered is lost.

use ncc_copy::{CopyError, NoObserver, OnFailure, Report, Request, copy};
use ncc_remote_store::test_util::MemoryHost;
use ncc_store::{
    StorePath,
    test_util::{Fault, MemoryStore},
};

use crate::remote;

/// The whole chain of causes, as a person reads it.
fn explained(error: &CopyError) -> String {
    let mut text = error.to_string();
    if let CopyError::Failed { report } = error {
        text = format!("{text}: {}", report.failed[0].error.as_ref().unwrap());
    }
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A store with three independent paths and one that refers to the second.
fn store() -> (MemoryStore, Vec<StorePath>) {
    let store = MemoryStore::new("here");
    let mut paths: Vec<_> = ["a", "b", "c"].map(|name| store.add(name, name, &[])).into();
    paths.push(store.add("d", "refers to b", &paths[1..2]));
    (store, paths)
}

fn request(paths: &[StorePath], on_failure: OnFailure) -> Request {
    let mut request = Request::new(paths.to_vec());
    request.on_failure = on_failure;
    request
}

/// To a host with this store.
async fn send(
    here: &MemoryStore,
    there: &MemoryStore,
    paths: &[StorePath],
    on_failure: OnFailure,
) -> Result<Report, CopyError> {
    let remote = remote(&MemoryHost::new(there));
    copy(here, &remote, &request(paths, on_failure), &NoObserver.shared()).await
}

/// From a host with this store.
async fn fetch(
    there: &MemoryStore,
    here: &MemoryStore,
    paths: &[StorePath],
    on_failure: OnFailure,
) -> Result<Report, CopyError> {
    let remote = remote(&MemoryHost::new(there));
    copy(&remote, here, &request(paths, on_failure), &NoObserver.shared()).await
}

#[tokio::test(start_paused = true)]
async fn a_corrupt_path_is_named_and_not_sent() {
    let (here, paths) = store();
    here.inject(Fault::CorruptContent(paths[1].clone()));
    let there = MemoryStore::new("there");
    let result = send(&here, &there, &paths, OnFailure::Stop).await;
    let CopyError::Failed { report } = result.unwrap_err() else { panic!("another error") };
    assert_eq!(report.failed[0].path, paths[1]);
    let error = report.failed[0].error.as_ref().unwrap().to_string();
    assert!(error.contains("in here does not match its metadata"), "{error}");
    assert!(!there.paths().contains(&paths[1]));
}

#[tokio::test(start_paused = true)]
async fn all_that_can_be_copied_is_copied_if_wanted() {
    let (here, paths) = store();
    here.inject(Fault::CorruptContent(paths[1].clone()));
    let there = MemoryStore::new("there");
    let result = send(&here, &there, &paths, OnFailure::Continue).await;
    let CopyError::Failed { report } = result.unwrap_err() else { panic!("another error") };
    assert_eq!(report.failed.len(), 2, "b, and d which refers to it");
    assert_eq!(report.sent.count(), 2);
    let mut expected = vec![paths[0].clone(), paths[2].clone()];
    expected.sort();
    assert_eq!(there.paths(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_large_corrupt_path_is_cut_and_what_came_before_it_stays() {
    let here = MemoryStore::new("here").with_block_size(16 << 10);
    let good = here.add("good", "good", &[]);
    let bad = here.add("bad", vec![7; 1 << 20], std::slice::from_ref(&good));
    here.inject(Fault::CorruptContent(bad.clone()));
    let there = MemoryStore::new("there");
    let result = send(&here, &there, std::slice::from_ref(&bad), OnFailure::Stop).await;
    let text = explained(&result.unwrap_err());
    assert!(text.contains(&format!("content of '{bad}' in here does not match")), "{text}");
    assert_eq!(there.paths(), [good]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_names_the_path_and_quotes_the_host() {
    let (here, paths) = store();
    let there = MemoryStore::new("there");
    there.inject(Fault::RefusePath(paths[2].clone()));
    let result = send(&here, &there, &paths, OnFailure::Stop).await;
    let error = result.unwrap_err();
    let text = explained(&error);
    assert!(text.contains(&format!("host 'memory' could not add '{}'", paths[2])), "{text}");
    assert!(matches!(error, CopyError::Interrupted { .. }), "{text}");
}

#[tokio::test(start_paused = true)]
async fn an_answered_path_is_counted_although_the_connection_breaks_later() {
    let here = MemoryStore::new("here");
    let chain = here.add_chain(50);
    let there = MemoryStore::new("there");
    there.inject(Fault::FailAfterAdds(20));
    let request = request(&chain[49..], OnFailure::Stop);
    let result = copy(&here, &remote(&MemoryHost::new(&there)), &request, &NoObserver.shared()).await;
    let CopyError::Interrupted { report, .. } = result.unwrap_err() else { panic!("another error") };
    assert_eq!((report.sent.count(), report.unsent.count()), (20, 30));

    there.heal();
    let report =
        copy(&here, &remote(&MemoryHost::new(&there)), &request, &NoObserver.shared()).await.unwrap();
    assert_eq!((report.present.count(), report.sent.count()), (20, 30));
}

#[tokio::test(start_paused = true)]
async fn a_broken_connection_is_an_error_wherever_it_breaks() {
    for cut in (0..3000).step_by(111) {
        let there = MemoryStore::new("there");
        let chain = there.add_chain(8);
        let here = MemoryStore::new("here");
        let host = MemoryHost::new(&there).with_output_cut_at(cut);
        let request = request(&chain[7..], OnFailure::Stop);
        let result = copy(&remote(&host), &here, &request, &NoObserver.shared()).await;
        assert!(result.is_err(), "cut at {cut}");
        // Whatever did arrive is whole, and the next try completes it.
        copy(&remote(&MemoryHost::new(&there)), &here, &request, &NoObserver.shared()).await.unwrap();
        assert_eq!(here.paths(), there.paths());
    }
}

#[tokio::test(start_paused = true)]
async fn a_remote_path_that_is_corrupt_is_not_registered_here() {
    let (there, paths) = store();
    there.inject(Fault::CorruptContent(paths[1].clone()));
    let here = MemoryStore::new("here");
    let result = fetch(&there, &here, &paths, OnFailure::Continue).await;
    let CopyError::Failed { report } = result.unwrap_err() else { panic!("another error") };
    assert!(report.failed[0].error.as_ref().unwrap().to_string().contains("in host 'memory' does not match"));
    assert_eq!(here.paths().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_root_that_the_host_does_not_have_is_an_error() {
    let (there, paths) = store();
    there.delete(&paths[3]);
    let here = MemoryStore::new("here");
    let result = fetch(&there, &here, &paths, OnFailure::Stop).await;
    let text = explained(&result.unwrap_err());
    assert!(text.contains("is not valid"), "{text}");
    assert!(here.paths().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_host_that_lets_only_the_plain_command_pass_is_served() {
    let (here, paths) = store();
    let there = MemoryStore::new("there");
    let host = MemoryHost::new(&there).with_only_command("nix-store --serve --write");
    copy(&here, &remote(&host), &request(&paths, OnFailure::Stop), &NoObserver.shared()).await.unwrap();
    assert_eq!(there.paths(), here.paths());
    assert_eq!(host.connections(), 2);

    let host = MemoryHost::new(&there).with_only_command("something else");
    let result = copy(&here, &remote(&host), &request(&paths, OnFailure::Stop), &NoObserver.shared()).await;
    let text = explained(&result.unwrap_err());
    assert!(text.contains("this command is not allowed"), "{text}");
}
