//! Which sessions are opened, when, and what goes over them.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, future::BoxFuture, stream};
use ncc_copy::{NoObserver, Request, copy};
use ncc_remote_store::{RemoteError, RemoteStore, ServeOptions, test_util::MemoryHost};
use ncc_store::{
    Destination as _, NarBody, OnFailure, Outputs, Problem, Source as _, StoreError, StorePath,
    ValidityQuery,
    test_util::{MemoryStore, script_of_bodies},
};
use ncc_transport::{Channel, Exit, Failure, FailureKind, RemoteCommand, Transport, TransportError};
use tokio::{
    io::{AsyncWriteExt as _, DuplexStream},
    time::Instant,
};

use crate::remote;

const ROUND_TRIP: Duration = Duration::from_secs(1);

fn cause(error: &StoreError) -> &RemoteError {
    let (Problem::Connection { source, .. } | Problem::Path { source, .. } | Problem::Store { source, .. }) =
        error.problem()
    else {
        panic!("{error:?}")
    };
    source.downcast_ref::<Arc<RemoteError>>().expect("an error of the host")
}

#[tokio::test(start_paused = true)]
async fn questions_do_not_wait_for_each_others_answers() {
    let there = MemoryStore::new("there");
    let paths = there.add_chain(2000);
    let host = MemoryHost::new(&there).with_round_trip(ROUND_TRIP);
    let store = remote(&host);
    let start = Instant::now();
    let ask = |paths: &[StorePath]| {
        let (store, paths) = (store.clone(), paths.to_vec());
        async move { store.valid_paths(&paths, ValidityQuery::default()).await.unwrap().len() }
    };
    let answers = tokio::join!(ask(&paths), ask(&paths[..1]), ask(&paths[..20]), ask(&[]));
    assert_eq!(answers, (2000, 1, 20, 0));
    assert!(start.elapsed() < ROUND_TRIP * 2, "{:?}", start.elapsed());
    assert_eq!(host.connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_question_that_is_given_up_costs_the_session_and_nothing_else() {
    let there = MemoryStore::new("there");
    let paths = there.add_chain(3);
    let host = MemoryHost::new(&there).with_round_trip(ROUND_TRIP);
    let store = remote(&host);
    let given_up =
        tokio::time::timeout(ROUND_TRIP / 4, store.valid_paths(&paths, ValidityQuery::default())).await;
    assert!(given_up.is_err());
    assert_eq!(store.valid_paths(&paths, ValidityQuery::default()).await.unwrap().len(), 3);
    assert_eq!(host.connections(), 2);
}

#[tokio::test(start_paused = true)]
async fn sessions_for_data_are_opened_when_the_first_one_is_up_and_leave_questions_alone() {
    let here = MemoryStore::new("here");
    let there = MemoryStore::new("there");
    let host = MemoryHost::new(&there).with_round_trip(ROUND_TRIP);
    let mut options = ServeOptions::default();
    options.data_sessions = 2;
    let store = RemoteStore::new(Arc::new(host.clone()), options);
    // Two transfers whose bodies never come, and a question beside them.
    let paths = ["a", "b"].map(|name| here.add(name, name, &[]));
    let mut transfers = paths.each_ref().map(|path| {
        let plan = here.infos(std::slice::from_ref(path));
        let (plan, nars) = script_of_bodies(plan.iter().cloned(), [NarBody::new(stream::pending())]);
        store.add_all(plan, nars, OnFailure::Stop)
    });
    let next = futures_util::future::join_all(transfers.iter_mut().map(StreamExt::next));
    assert!(tokio::time::timeout(ROUND_TRIP / 2, next).await.is_err());
    // Nobody has been let in yet, so there is one login.
    assert_eq!(host.connections(), 1);
    let next = futures_util::future::join_all(transfers.iter_mut().map(StreamExt::next));
    assert!(tokio::time::timeout(ROUND_TRIP * 4, next).await.is_err());
    assert_eq!(host.connections(), 3);
    let start = Instant::now();
    assert!(store.valid_paths(&paths, ValidityQuery::default()).await.unwrap().is_empty());
    assert!(start.elapsed() < ROUND_TRIP * 2);
    drop(transfers);
    let report = copy(&here, &store, &Request::new(paths), &NoObserver.shared()).await.unwrap();
    assert_eq!(report.sent.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn which_command_an_account_lets_through_is_found_out_once() {
    let there = MemoryStore::new("there");
    let paths = there.add_chain(3);
    let host = MemoryHost::new(&there).with_only_command("nix-store --serve --write");
    let store = remote(&host);
    // Two questions at once: both find out, with one login more and not two.
    let (one, two) = tokio::join!(
        store.valid_paths(&paths, ValidityQuery::default()),
        store.valid_paths(&paths[..1], ValidityQuery::default())
    );
    assert_eq!((one.unwrap().len(), two.unwrap().len()), (3, 1));
    assert_eq!(host.connections(), 2);
    // A session that is lost is opened in the way that is known.
    let lost =
        tokio::time::timeout(Duration::ZERO, store.valid_paths(&paths, ValidityQuery::default())).await;
    assert!(lost.is_err());
    assert_eq!(store.valid_paths(&paths, ValidityQuery::default()).await.unwrap().len(), 3);
    assert_eq!(host.connections(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_transfer_falls_back_to_the_plain_command_too() {
    let there = MemoryStore::new("there");
    let path = there.add("x", "y", &[]);
    let host = MemoryHost::new(&there).with_only_command("nix-store --serve --write");
    let store = remote(&host);
    let plan = there.infos(&[path]);
    let body = store.nars(plan.clone()).open(&plan[0], 0).await.unwrap();
    assert!(body.map(|block| block.unwrap().len()).fold(0, |sum, size| async move { sum + size }).await > 0);
    assert_eq!(host.connections(), 2);
}

#[tokio::test(start_paused = true)]
async fn roots_that_are_not_valid_do_not_stop_the_others() {
    let there = MemoryStore::new("there");
    let chain = there.add_chain(3);
    let gone = there.add("gone", "x", &[]);
    there.delete(&gone);
    let host = MemoryHost::new(&there);
    let store = remote(&host);
    let closure = store.closure(&[gone.clone(), chain[2].clone()], Outputs::Exclude).await.unwrap();
    assert_eq!(closure.infos.len(), 3);
    assert!(matches!(&closure.failed[..], [(path, _)] if *path == gone), "{closure:?}");
    assert_eq!(host.connections(), 1);
}

/// How one attempt to reach the host goes.
enum Attempt {
    /// The host hangs up before any login.
    HungUp,
    /// The key is not accepted.
    Denied,
    /// The command ends with this status and these words on stderr and stdout.
    Ends(i32, &'static str, &'static str),
    /// A server answers.
    Serves,
}

/// A host that can be reached in the end, or not.
#[derive(Clone)]
struct Reluctant {
    host: MemoryHost,
    attempts: Arc<Mutex<VecDeque<Attempt>>>,
    commands: Arc<Mutex<Vec<String>>>,
    tried: Arc<AtomicUsize>,
}

impl fmt::Debug for Reluctant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Reluctant")
    }
}

impl Reluctant {
    fn new(there: &MemoryStore, attempts: impl IntoIterator<Item = Attempt>) -> Self {
        Self {
            host: MemoryHost::new(there),
            attempts: Arc::new(Mutex::new(attempts.into_iter().collect())),
            commands: Arc::default(),
            tried: Arc::default(),
        }
    }

    fn store(&self) -> RemoteStore {
        RemoteStore::new(Arc::new(self.clone()), ServeOptions::default())
    }

    fn tried(&self) -> usize {
        self.tried.load(Ordering::SeqCst)
    }
}

#[derive(Debug)]
struct Over(i32, Vec<DuplexStream>);

impl ncc_transport::ChannelControl for Over {
    fn wait(&mut self) -> BoxFuture<'_, Result<Exit, TransportError>> {
        self.1.clear();
        Box::pin(async { Ok(Exit::Code(self.0)) })
    }

    fn kill(&mut self) {}
}

impl Transport for Reluctant {
    fn describe(&self) -> String {
        "reluctant".to_owned()
    }

    fn open<'a>(&'a self, command: &'a RemoteCommand) -> BoxFuture<'a, Result<Channel, TransportError>> {
        self.tried.fetch_add(1, Ordering::SeqCst);
        self.commands.lock().unwrap().push(command.to_string());
        let attempt = self.attempts.lock().unwrap().pop_front().unwrap_or(Attempt::Serves);
        Box::pin(async move {
            let refuse = |kind| {
                let failure = Failure::new(kind, "the evidence", "");
                Err(TransportError::Connect { host: "reluctant".to_owned(), failure, source: None })
            };
            match attempt {
                Attempt::HungUp => refuse(FailureKind::ClosedByServer),
                Attempt::Denied => refuse(FailureKind::PermissionDenied),
                Attempt::Serves => self.host.open(command).await,
                Attempt::Ends(status, words, output) => {
                    let (stdin, input) = tokio::io::duplex(1 << 20);
                    let (mut says, stderr) = tokio::io::duplex(1 << 16);
                    let (mut prints, stdout) = tokio::io::duplex(1 << 16);
                    says.write_all(words.as_bytes()).await.unwrap();
                    prints.write_all(output.as_bytes()).await.unwrap();
                    Ok(Channel {
                        stdin: Box::new(stdin),
                        stdout: Box::new(stdout),
                        stderr: Box::new(stderr),
                        control: Box::new(Over(status, vec![input])),
                    })
                }
            }
        })
    }
}

async fn asked(host: &Reluctant) -> Result<usize, StoreError> {
    let paths = [MemoryStore::new("any").add("x", "y", &[])];
    host.store().valid_paths(&paths, ValidityQuery::default()).await.map(|valid| valid.len())
}

/// <https://github.com/nix-community/srvos/issues/490>: busy servers drop new connections at random (MaxStartups).
#[tokio::test(start_paused = true)]
async fn srvos_490_a_host_that_hung_up_before_any_login_is_tried_once_more_after_a_pause() {
    let there = MemoryStore::new("there");
    let host = Reluctant::new(&there, [Attempt::HungUp]);
    let start = Instant::now();
    assert_eq!(asked(&host).await.unwrap(), 0);
    assert_eq!(host.tried(), 2);
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());

    let host = Reluctant::new(&there, [Attempt::HungUp, Attempt::HungUp, Attempt::Serves]);
    let error = asked(&host).await.unwrap_err();
    assert_eq!(cause(&error).failure().unwrap().kind, FailureKind::ClosedByServer);
    assert_eq!(host.tried(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refused_key_is_not_tried_again() {
    let host = Reluctant::new(&MemoryStore::new("there"), [Attempt::Denied]);
    let error = asked(&host).await.unwrap_err();
    assert!(!error.is_temporary());
    assert_eq!(host.tried(), 1);
}

/// <https://github.com/NixOS/nixpkgs/pull/413627>: accounts that allow certain commands only, in all their answers.
#[tokio::test(start_paused = true)]
async fn nixpkgs_413627_an_account_with_an_allow_list_gets_the_plain_command_whatever_its_refusal_looks_like()
{
    for status in [0, 1, 126, 127, 255] {
        for (words, output) in [("refused here\n", ""), ("", "refused here\n"), ("", "")] {
            let host = Reluctant::new(&MemoryStore::new("there"), [Attempt::Ends(status, words, output)]);
            let found = asked(&host).await;
            assert!(found.is_ok(), "{status} {words:?} {output:?}: {found:?}");
            let commands = host.commands.lock().unwrap().clone();
            assert_eq!((commands.len(), commands[1].as_str()), (2, "nix-store --serve --write"));
        }
    }
}

/// Something of ours ran there: the account let it through, so that another login would be for nothing.
#[tokio::test(start_paused = true)]
async fn a_server_that_started_and_failed_is_not_started_again() {
    for words in ["cannot connect to daemon", "sudo: a password is required", "database or disk is full"] {
        let said: &'static str = Box::leak(format!("ncc-started\nerror: {words}\n").into_boxed_str());
        let host = Reluctant::new(&MemoryStore::new("there"), [Attempt::Ends(1, said, "")]);
        let error = asked(&host).await.unwrap_err();
        assert!(cause(&error).to_string().contains(words), "{:?}", cause(&error));
        assert_eq!(host.tried(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn if_the_plain_command_fails_too_the_first_refusal_counts() {
    // Whoever says the same twice is not asked a third time.
    for (second, tried) in [("this account is closed\n", 2), ("no such command\n", 3)] {
        let attempts = ["this account is closed\n", second, "no such command\n"];
        let attempts = attempts.map(|words| Attempt::Ends(1, words, ""));
        let host = Reluctant::new(&MemoryStore::new("there"), attempts);
        let error = asked(&host).await.unwrap_err();
        let RemoteError::NotAllowed { source } = cause(&error) else { panic!("{error:?}") };
        assert!(source.to_string().contains("this account is closed"), "{source:?}");
        assert!(!error.is_temporary());
        assert_eq!(host.tried(), tried);
    }
}
