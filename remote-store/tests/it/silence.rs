//! A host that hangs is waited for so long and no longer. The clock is paused: minutes cost nothing.

use std::{future::pending, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use ncc_remote_store::{RemoteError, RemoteStore, STALL_TIMEOUT, ServeOptions, test_util::MemoryHost};
use ncc_store::{
    Destination as _, Nar, NarBody, OnFailure, Outcome, Outputs, Problem, Source as _, StoreError,
    ValidityQuery, sequential_nars, test_util::MemoryStore,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, sleep, timeout},
};

use crate::scripted::{ScriptedHost, greeted};

/// The remote error in this one; it is about silence.
fn silent(error: &StoreError) -> (&RemoteError, bool) {
    let Problem::Connection { source, .. } = error.problem() else { panic!("{error:?}") };
    let error = source.downcast_ref::<Arc<RemoteError>>().expect("an error of the host");
    let RemoteError::Silent { limit, greeted, .. } = &**error else { panic!("{error:?}") };
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
        let expected =
            if menu.is_empty() { "the stream failed while reading the greeting" } else { menu.trim() };
        assert!(cause.contains(expected), "{cause}");
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
    let plan = here.infos(std::slice::from_ref(&path));
    let mut outcomes = crate::add(&host.store(), &here, plan);
    let next = outcomes.next();
    let error = in_time(next).await.expect("an outcome").unwrap_err();
    assert_eq!(error.path(), Some(&path));
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

/// What the host says on stderr is a sign of life, unless ssh says it.
#[tokio::test(start_paused = true)]
async fn a_host_that_talks_is_waited_for() {
    for (line, waited) in [("waiting for the big lock\n", true), ("debug3: send packet\n", false)] {
        let host = ScriptedHost::new(|input, mut output| async move {
            output.write_all(&greeted(&[])).await.unwrap();
            sleep(STALL_TIMEOUT * 3).await;
            // Whoever has heard enough leaves.
            let _ = output.write_all(&0_u64.to_le_bytes()).await;
            drop(input);
        });
        let store = host.saying(line, 5, STALL_TIMEOUT / 2).store();
        let path = MemoryStore::new("here").add("a", "a", &[]);
        let answer = store.valid_paths(&[path], ValidityQuery::default()).await;
        assert_eq!(answer.is_ok(), waited, "{line}: {answer:?}");
    }
}

/// A NAR that takes long, and one whose beginning does: the host waits for us.
#[tokio::test(start_paused = true)]
async fn a_slow_source_is_not_the_hosts_silence() {
    let here = MemoryStore::new("here");
    let path = here.add("slow", vec![7; 1000], &[]);
    let plan = here.infos(std::slice::from_ref(&path));
    let nar = here.nar(&path).unwrap();
    let (first, rest) = (nar.slice(..100), nar.slice(100..));
    let blocks = stream::iter([first, rest]).then(|block| async move {
        sleep(STALL_TIMEOUT * 2).await;
        Ok(block)
    });
    let nar = Nar { info: Arc::clone(&plan[0]), body: NarBody::new(blocks) };
    let late = stream::once(async move {
        sleep(STALL_TIMEOUT * 2).await;
        Ok(nar)
    });
    let late = sequential_nars("a slow source", late.boxed());
    let there = MemoryStore::new("there");
    let host = MemoryHost::new(&there);
    let outcomes: Vec<_> = crate::remote(&host).add_all(plan, late, OnFailure::Stop).collect().await;
    assert!(matches!(outcomes[..], [Ok(Outcome::Added(_))]), "{outcomes:?}");
    assert_eq!(there.paths(), [path]);
}

/// A host that takes a little now and then, and answers only in the end, is alive.
#[tokio::test(start_paused = true)]
async fn a_host_that_reads_slowly_is_waited_for() {
    let host = ScriptedHost::new(|mut input, mut output| async move {
        output.write_all(&greeted(&[])).await.unwrap();
        let mut buffer = vec![0; 64 << 10];
        while let Ok(Ok(1..)) = timeout(STALL_TIMEOUT / 8, input.read(&mut buffer)).await {
            sleep(STALL_TIMEOUT / 4).await;
        }
        output.write_all(&1_u64.to_le_bytes()).await.unwrap();
        pending::<()>().await;
    });
    let here = MemoryStore::new("here");
    let path = here.add("big", vec![7; 1 << 20], &[]);
    let plan = here.infos(std::slice::from_ref(&path));
    let mut outcomes = crate::add(&host.store(), &here, plan);
    let outcome = outcomes.next().await.expect("an outcome");
    assert!(matches!(outcome, Ok(Outcome::Added(_))), "{outcome:?}");
}

/// Time in which this process was stopped is not the host's silence. A real clock: that is what stands still.
#[tokio::test]
async fn time_that_we_slept_through_does_not_count() {
    let mut options = ServeOptions::default();
    options.stall_timeout = Some(Duration::from_millis(500));
    let host = ScriptedHost::new(|input, mut output| async move {
        // As a process that was stopped: nothing runs here, and then everything at once.
        std::thread::sleep(Duration::from_secs(2));
        sleep(Duration::from_millis(100)).await;
        output.write_all(&greeted(&0_u64.to_le_bytes())).await.unwrap();
        drop(input);
    });
    let store = RemoteStore::new(Arc::new(host), options);
    let path = MemoryStore::new("here").add("a", "a", &[]);
    assert!(store.valid_paths(&[path], ValidityQuery::default()).await.unwrap().is_empty());
}

/// 200 MB that were sent and not answered take a slow disk its time; a limit as long as for one question would end every
/// copy of something large.
#[tokio::test(start_paused = true)]
async fn a_host_has_time_to_write_what_it_was_sent() {
    const SIZE: usize = 200_000_000;
    let host = ScriptedHost::new(|mut input, mut output| async move {
        output.write_all(&greeted(&[])).await.unwrap();
        let mut buffer = vec![0; 64 << 10];
        let mut seen = 0;
        while seen < SIZE {
            seen += input.read(&mut buffer).await.unwrap();
        }
        sleep(STALL_TIMEOUT + Duration::from_secs(9)).await;
        output.write_all(&1_u64.to_le_bytes()).await.unwrap();
        crate::scripted::swallow(&mut input).await;
    });
    let here = MemoryStore::new("here").with_block_size(1 << 20);
    let path = here.add("big", vec![7; SIZE], &[]);
    let outcomes: Vec<_> =
        crate::add(&host.store(), &here, here.infos(std::slice::from_ref(&path))).collect().await;
    assert!(matches!(outcomes[..], [Ok(Outcome::Added(_))]), "{outcomes:?}");
}

/// Words alone are no work: a host that says something every minute, and does nothing, is given up in the end.
#[tokio::test(start_paused = true)]
async fn a_host_that_only_talks_is_given_up() {
    let host = ScriptedHost::answering([]).saying("still here\n", 100_000, Duration::from_secs(60));
    let store = host.store();
    let path = MemoryStore::new("here").add("x", "y", &[]);
    let paths = [path];
    let asking = store.valid_paths(&paths, ValidityQuery::default());
    let error = timeout(STALL_TIMEOUT * 8, asking).await.expect("an end").unwrap_err();
    silent(&error);
}
