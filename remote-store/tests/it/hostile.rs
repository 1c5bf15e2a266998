//! Hosts that say too much, too little, or something else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use ncc_protocol::{
    serve::{Version, put_path_info},
    wire::WireWrite as _,
};
use ncc_store::{
    Destination as _, NarBody, NarHash, NarPlan, OnFailure, Outcome, Outputs, PathInfo, Source as _,
    StoreDir, StoreError, StorePath, ValidityQuery,
    test_util::{Fault, MemoryStore, script_of_bodies},
};
use tokio::{io::AsyncWriteExt as _, time::timeout};

use crate::{
    add, remote,
    scripted::{ScriptedHost, greeted, swallow, without_end},
};

/// With a paused clock only a standstill takes as long as this.
const STANDSTILL: Duration = Duration::from_secs(60 * 60);

fn path(name: &str) -> StorePath {
    StorePath::from_base_name(&format!("nlhn6cma43vk5l44cgr8sw3ykiir1wmm-{name}")).unwrap()
}

fn info(name: &str, nar_size: u64) -> PathInfo {
    PathInfo::new(path(name), NarHash::of(b""), nar_size)
}

fn described(infos: &[PathInfo]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for info in infos {
        put_path_info(info, &StoreDir::default(), Version::OURS, &mut bytes);
    }
    bytes
}

fn explained(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[tokio::test(start_paused = true)]
async fn path_infos_without_end_are_not_gathered() {
    let host = ScriptedHost::new(|mut input, mut output| async move {
        output.write_all(&greeted(&[])).await.unwrap();
        let same = described(&[info("asked", 96)]);
        tokio::join!(without_end(&mut output, &same), swallow(&mut input));
    });
    let store = host.store();
    let asked = [path("asked")];
    let described = timeout(STANDSTILL, store.path_infos(&asked));
    let text = explained(&described.await.unwrap().unwrap_err());
    assert!(text.contains("-asked' twice"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_path_that_is_described_in_two_ways_is_an_error() {
    let mut bytes = described(&[info("asked", 96), info("asked", 104)]);
    bytes.put_u64(0);
    let asked = [path("asked"), path("other")];
    let store = ScriptedHost::answering(bytes).store();
    let text = explained(&store.path_infos(&asked).await.unwrap_err());
    assert!(text.contains("-asked' twice"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_description_of_another_path_is_an_error() {
    let mut bytes = described(&[info("other", 96)]);
    bytes.put_u64(0);
    let store = ScriptedHost::answering(bytes).store();
    let text = explained(&store.path_infos(&[path("asked")]).await.unwrap_err());
    assert!(text.contains("-other', which nobody had asked for"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn more_valid_paths_than_were_asked_for_are_not_gathered() {
    let host = ScriptedHost::new(|mut input, mut output| async move {
        let mut bytes = greeted(&[]);
        bytes.put_u64(1 << 25);
        output.write_all(&bytes).await.unwrap();
        let mut same = Vec::new();
        same.put_path(&StoreDir::default(), &path("asked"));
        tokio::join!(without_end(&mut output, &same), swallow(&mut input));
    });
    let store = host.store();
    let asked = [path("asked")];
    let valid = timeout(STANDSTILL, store.valid_paths(&asked, ValidityQuery::default()));
    let text = explained(&valid.await.unwrap().unwrap_err());
    assert!(text.contains("the valid paths announces 33554432, the limit is 1"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_closure_without_its_root_is_an_error() {
    let mut bytes = Vec::new();
    // Which roots are valid, the closure, and which of it is valid.
    for name in ["asked", "other", "other"] {
        bytes.put_paths(&StoreDir::default(), &[path(name)]);
    }
    bytes.extend(described(&[info("other", 96)]));
    bytes.put_u64(0);
    let store = ScriptedHost::answering(bytes).store();
    let closure = store.closure(&[path("asked")], Outputs::Exclude).await.unwrap();
    let text = explained(&closure.complete().unwrap_err());
    assert!(text.contains("-asked' is not valid in host 'liar'"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn the_archive_says_where_it_ends_of_which_nobody_recorded_the_size() {
    let there = MemoryStore::new("there");
    let paths: Vec<_> = ["a", "b", "c"].map(|name| there.add(name, name, &[])).into();
    let store = remote(&ncc_remote_store::test_util::MemoryHost::new(&there));
    let mut infos = there.infos(&paths).to_vec();
    Arc::make_mut(&mut infos[1]).nar_size = 0;
    let plan: NarPlan = infos.into();
    let nars = store.nars(plan.clone());
    let mut seen = Vec::new();
    for info in plan.iter() {
        let blocks: Vec<_> = nars.open(info, 0).await.unwrap().collect().await;
        let whole: Result<Vec<_>, StoreError> = blocks.into_iter().collect();
        seen.push(whole.map(|blocks| blocks.concat() == there.nar(&info.path).unwrap()));
    }
    assert!(matches!(&seen[..], [Ok(true), Ok(true), Ok(true)]), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_path_without_a_size_is_not_sent() {
    let here = MemoryStore::new("here");
    let paths: Vec<_> = ["a", "b", "c"].map(|name| here.add(name, name, &[])).into();
    let mut infos = here.infos(&paths).to_vec();
    Arc::make_mut(&mut infos[1]).nar_size = 0;
    let there = MemoryStore::new("there");
    let store = remote(&ncc_remote_store::test_util::MemoryHost::new(&there));
    let outcomes: Vec<_> = add(&store, &here, infos.into()).collect().await;
    let [Ok(Outcome::Added(_)), Ok(Outcome::Failed { error, .. }), Ok(Outcome::Added(_))] = &outcomes[..]
    else {
        panic!("{outcomes:?}")
    };
    assert!(explained(error).contains("how large"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_the_host_refused_first_is_the_error_although_a_later_path_was_cut_here() {
    let here = MemoryStore::new("here").with_block_size(16 << 10);
    let refused = here.add("refused", "x", &[]);
    let cut = here.add("cut", vec![7; 100_000], &[]);
    here.inject(Fault::FailReading(cut.clone(), 50_000));
    let there = MemoryStore::new("there");
    there.inject(Fault::RefusePath(refused.clone()));
    let host = ncc_remote_store::test_util::MemoryHost::new(&there).with_round_trip(Duration::from_secs(1));
    let store = remote(&host);
    let outcomes: Vec<_> = add(&store, &here, here.infos(&[refused.clone(), cut])).collect().await;
    let [Err(error)] = &outcomes[..] else { panic!("{outcomes:?}") };
    let text = explained(error);
    assert!(text.contains(&format!("host 'memory' could not add '{refused}'")), "{text}");
}

#[tokio::test(start_paused = true)]
async fn complete_paths_go_out_while_the_next_one_is_awaited() {
    let here = MemoryStore::new("here");
    let first = here.add("first", "x", &[]);
    let second = here.add("second", "x", &[]);
    let plan = here.infos(&[first.clone(), second]);
    let body = NarBody::new(stream::iter([Ok(here.nar(&first).unwrap())]));
    // Begun, but its first block is long in coming.
    let slow = NarBody::new(stream::pending());
    let (plan, nars) = script_of_bodies(plan.iter().cloned(), [body, slow]);
    let there = MemoryStore::new("there");
    let store = remote(&ncc_remote_store::test_util::MemoryHost::new(&there));
    let mut outcomes = store.add_all(plan, nars, OnFailure::Stop);
    let outcome = timeout(STANDSTILL, outcomes.next()).await.expect("the first path is complete");
    assert!(matches!(outcome, Some(Ok(Outcome::Added(path))) if path == first));
}

/// A host that has begun to send a NAR and says nothing more.
fn silent(bytes: usize) -> ScriptedHost {
    ScriptedHost::answering(vec![0; bytes])
}

#[tokio::test(start_paused = true)]
async fn a_transfer_that_nobody_wants_lets_go_of_the_host() {
    let endless = ScriptedHost::new(|mut input, mut output| async move {
        output.write_all(&greeted(&[])).await.unwrap();
        tokio::join!(without_end(&mut output, &[0; 1000]), swallow(&mut input));
    });
    let before_the_greeting = ScriptedHost::new(|mut input, output| async move {
        swallow(&mut input).await;
        drop(output);
    });
    for host in [silent(0), silent(50), endless, before_the_greeting] {
        let store = host.store();
        let huge = Arc::new(info("huge", u64::MAX));
        let nars = store.nars([Arc::clone(&huge)].into());
        // Until something has come, if anything comes.
        let nar = timeout(Duration::from_secs(1), nars.open(&huge, 0)).await;
        drop((nar, nars));
        timeout(STANDSTILL, host.left.notified()).await.expect("the connection is ended");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_to_transfer_needs_no_host() {
    let host = ncc_remote_store::test_util::MemoryHost::new(&MemoryStore::new("there"));
    let store = remote(&host);
    drop(store.nars([].into()));
    assert_eq!(host.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn answers_that_nobody_asked_for_prove_nothing() {
    let here = MemoryStore::new("here");
    let path = here.add("x", "y", &[]);
    let mut bytes = Vec::new();
    // Nothing is valid; one path was added; and now it is valid, in a form that is no answer.
    for word in [0, 1, u64::MAX] {
        bytes.put_u64(word);
    }
    let store = ScriptedHost::answering(bytes).store();
    let request = ncc_copy::Request::new([path]);
    let copied = ncc_copy::copy(&here, &store, &request, &ncc_copy::NoObserver.shared()).await;
    assert!(copied.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_host_that_neither_reads_nor_answers_can_be_left() {
    let host = ScriptedHost::new(|input, mut output| async move {
        output.write_all(&greeted(&0_u64.to_le_bytes())).await.unwrap();
        std::future::pending::<()>().await;
        drop((input, output));
    });
    let here = MemoryStore::new("here");
    let path = here.add("x", vec![7; 1 << 20], &[]);
    let store = host.store();
    let request = ncc_copy::Request::new([path]);
    let observer = ncc_copy::NoObserver.shared();
    let copying = ncc_copy::copy(&here, &store, &request, &observer);
    assert!(timeout(Duration::from_secs(10), copying).await.is_err(), "it cannot be done");
    timeout(STANDSTILL, host.left.notified()).await.expect("the connection is ended");
}

/// Takes two questions about valid paths from its first visitor and answers both at once, so that the answer to the first is
/// there whoever reads it; tells `answered`. Whoever comes later gets the second answer.
fn answering_both(
    first: &[StorePath],
    second: &[StorePath],
    answered: &Arc<tokio::sync::Notify>,
) -> ScriptedHost {
    let answers = [first, second].map(|paths| {
        let mut bytes = Vec::new();
        bytes.put_paths(&StoreDir::default(), paths);
        bytes
    });
    let (answered, visitors) = (Arc::clone(answered), Arc::new(AtomicUsize::new(0)));
    ScriptedHost::new(move |mut input, mut output| {
        let bytes = match visitors.fetch_add(1, Ordering::SeqCst) {
            0 => answers.concat(),
            _ => answers[1].clone(),
        };
        let answered = Arc::clone(&answered);
        async move {
            let _ = output.write_all(&greeted(&bytes)).await;
            answered.notify_one();
            swallow(&mut input).await;
        }
    })
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_a_question_that_was_given_up_is_nobody_elses() {
    let paths = ["one", "two"].map(path);
    let answered = Arc::default();
    let host = answering_both(&paths[..1], &paths, &answered);
    let store = host.store();
    let mut given_up = store.valid_paths(&paths[..1], ValidityQuery::default());
    assert!(futures_util::poll!(&mut given_up).is_pending());
    let mut other = store.valid_paths(&paths, ValidityQuery::default());
    assert!(futures_util::poll!(&mut other).is_pending());
    answered.notified().await;
    drop(given_up);
    assert_eq!(other.await.unwrap(), paths.into());
}

/// The host hangs up in front of two questions, and takes its time to end.
#[tokio::test(start_paused = true)]
async fn whoever_gives_up_while_it_is_found_out_what_went_wrong_leaves_that_to_the_others() {
    let paths = ["one", "two"].map(path);
    let visitors = Arc::new(AtomicUsize::new(0));
    let mut bytes = Vec::new();
    bytes.put_paths(&StoreDir::default(), &paths);
    let both_wait = Arc::new(tokio::sync::Notify::new());
    let hang_up = Arc::clone(&both_wait);
    let host = ScriptedHost::new(move |mut input, mut output| {
        let (first, bytes) = (visitors.fetch_add(1, Ordering::SeqCst) == 0, bytes.clone());
        let hang_up = Arc::clone(&hang_up);
        async move {
            if first {
                hang_up.notified().await;
                let _ = output.write_all(&greeted(&[])).await;
                drop(output);
                tokio::time::sleep(Duration::from_secs(3)).await;
            } else {
                let _ = output.write_all(&greeted(&bytes)).await;
                swallow(&mut input).await;
            }
        }
    });
    let store = host.store();
    let mut given_up = store.valid_paths(&paths, ValidityQuery::default());
    let mut other = store.valid_paths(&paths, ValidityQuery::default());
    assert!(futures_util::poll!(&mut given_up).is_pending());
    assert!(futures_util::poll!(&mut other).is_pending());
    both_wait.notify_one();
    // It is being found out why the host hung up.
    assert!(timeout(Duration::from_secs(1), &mut given_up).await.is_err());
    drop(given_up);
    assert_eq!(other.await.unwrap(), paths.into());
}

/// What such a server says next nobody knows: its connection is not used again.
#[tokio::test(start_paused = true)]
async fn a_server_that_answers_what_it_has_not_read_is_left() {
    let there = MemoryStore::new("there");
    // Their requests are larger than what the connection holds.
    let paths: Vec<_> = (0..2000).map(|number| there.add(&format!("path-{number}"), "x", &[])).collect();
    let plan = there.infos(&paths);
    let answers: Vec<u8> = plan.iter().flat_map(|info| there.nar(&info.path).unwrap()).collect();
    let opened = Arc::new(AtomicUsize::new(0));
    let host = {
        let opened = Arc::clone(&opened);
        ScriptedHost::new(move |input, mut output| {
            let is_first = opened.fetch_add(1, Ordering::SeqCst) == 0;
            let bytes = greeted(if is_first { &answers } else { &[0; 8] });
            async move {
                output.write_all(&bytes).await.unwrap();
                std::future::pending::<()>().await;
                drop(input);
            }
        })
    };
    let store = host.store();
    let nars = store.nars(Arc::clone(&plan));
    for info in plan.iter() {
        let mut body = nars.open(info, 0).await.unwrap();
        while let Some(block) = body.next().await {
            block.unwrap();
        }
    }
    let valid = timeout(STANDSTILL, store.valid_paths(&paths[..1], ValidityQuery::default()));
    assert!(valid.await.unwrap().unwrap().is_empty());
    assert_eq!(opened.load(Ordering::SeqCst), 2);
}
