//! A host that hangs is waited for so long and no longer. The clock is paused: minutes cost nothing.

use std::future::pending;

use ncc_remote_store::{RemoteError, STALL_TIMEOUT};
use ncc_store::{Destination as _, Outputs, Source as _, StoreError, ValidityQuery, test_util::MemoryStore};
use tokio::{
    io::AsyncWriteExt as _,
    time::{Instant, sleep, timeout},
};

use crate::scripted::{ScriptedHost, greeted};

/// The remote error in this one; it is about silence.
fn silent(error: &StoreError) -> (&RemoteError, bool) {
    let (StoreError::Failed { source, .. } | StoreError::Path { source, .. }) = error else {
        panic!("{error:?}")
    };
    let error = source.downcast_ref::<RemoteError>().expect("an error of the host");
    let RemoteError::Silent { limit, greeted, .. } = error else { panic!("{error:?}") };
    assert_eq!(*limit, STALL_TIMEOUT);
    (error, *greeted)
}

/// Ends after the limit, and not before it.
async fn in_time<T>(work: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let result = timeout(STALL_TIMEOUT * 2, work).await.expect("it ends");
    assert!(start.elapsed() >= STALL_TIMEOUT, "after {:?}", start.elapsed());
    result
}

#[tokio::test(start_paused = true)]
async fn a_host_that_never_greets_is_given_up_and_what_it_said_is_quoted() {
    for menu in ["", "Choose: [1] [2] > "] {
        let host = ScriptedHost::new(move |input, mut output| async move {
            output.write_all(menu.as_bytes()).await.unwrap();
            pending::<()>().await;
            drop((input, output));
        });
        let store = host.store();
        let path = MemoryStore::new("here").add("a", "a", &[]);
        let error = in_time(store.valid_paths(&[path], ValidityQuery::default())).await.unwrap_err();
        let (error, greeted) = silent(&error);
        assert!(!greeted);
        let cause = std::error::Error::source(error).expect("what was waited for").to_string();
        assert!(cause.contains(menu.trim()) && cause.contains("greeting"), "{cause}");
        // Its process has been ended too, though it would not have by itself.
        host.left.notified().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_stops_answering_is_given_up() {
    let store = ScriptedHost::answering([]).store();
    let root = MemoryStore::new("here").add("a", "a", &[]);
    let error = in_time(store.closure(&[root], Outputs::Exclude)).await.unwrap_err();
    assert!(silent(&error).1);
}

/// Takes the greeting and a little more, and then nothing.
#[tokio::test(start_paused = true)]
async fn a_host_that_stops_reading_is_given_up_and_the_path_is_named() {
    let host = ScriptedHost::new(|input, mut output| async move {
        output.write_all(&greeted(&[])).await.unwrap();
        pending::<()>().await;
        drop((input, output));
    });
    let here = MemoryStore::new("here");
    let path = here.add("big", vec![7; 1 << 20], &[]);
    let infos = here.path_infos(std::slice::from_ref(&path)).await.unwrap();
    let nars = here.nars(infos.into_iter().map(Into::into).collect());
    let mut outcomes = host.store().add_many(nars);
    let next = futures_util::StreamExt::next(&mut outcomes);
    let error = in_time(next).await.expect("an outcome").unwrap_err();
    assert!(matches!(&error, StoreError::Path { path: named, .. } if *named == path), "{error:?}");
    silent(&error);
}

/// One byte now and then is life.
#[tokio::test(start_paused = true)]
async fn a_slow_host_is_waited_for() {
    let host = ScriptedHost::new(|input, mut output| async move {
        for byte in greeted(&0_u64.to_le_bytes()) {
            sleep(STALL_TIMEOUT.mul_f32(0.99)).await;
            output.write_all(&[byte]).await.unwrap();
        }
        drop(input);
    });
    let path = MemoryStore::new("here").add("a", "a", &[]);
    let valid = host.store().valid_paths(&[path], ValidityQuery::default()).await.unwrap();
    assert!(valid.is_empty());
}

/// Downloading takes as long as it takes, and says nothing.
#[tokio::test(start_paused = true)]
async fn a_host_that_substitutes_is_waited_for() {
    let host = ScriptedHost::new(|input, mut output| async move {
        output.write_all(&greeted(&[])).await.unwrap();
        sleep(STALL_TIMEOUT * 10).await;
        output.write_all(&0_u64.to_le_bytes()).await.unwrap();
        // And the next question again finds it silent.
        pending::<()>().await;
        drop((input, output));
    });
    let store = host.store();
    let path = [MemoryStore::new("here").add("a", "a", &[])];
    let query = ValidityQuery::default();
    assert!(store.valid_paths(&path, query.substituting(true)).await.unwrap().is_empty());
    let error = in_time(store.valid_paths(&path, query)).await.unwrap_err();
    assert!(silent(&error).1);
}
