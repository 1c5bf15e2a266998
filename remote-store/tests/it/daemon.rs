//! A daemon that plays its part over a store in memory, one round trip away. (Real ones are in the tests of the program.)

use std::{
    collections::{BTreeSet, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, future::BoxFuture};
use ncc_copy::{CopyError, NoObserver, Request as Copy, copy};
use ncc_protocol::{
    wire::{WireReader, WireWrite as _},
    worker::{CLIENT_MAGIC, Daemon, Request, SAFE_WINDOW, SERVER_MAGIC, Version, put_path_info},
};
use ncc_remote_store::{RemoteStore, ServeOptions, Spoken};
use ncc_store::{
    Destination as _, OnFailure, Outcome, Outputs, PathInfo, Scope, Source as _, StoreDir, StorePath,
    ValidityQuery,
    test_util::{MemoryStore, script},
};
use ncc_transport::{Channel, RemoteCommand, Transport, TransportError};
use tokio::{
    io::{AsyncWriteExt as _, DuplexStream},
    sync::mpsc,
    time::Instant,
};

use crate::scripted::{ScriptedHost, swallow};

const ROUND_TRIP: Duration = Duration::from_secs(1);
const LAST: u64 = 0x616c_7473;
const ERROR: u64 = 0x6378_7470;

/// What one daemon has and does.
#[derive(Clone)]
pub(crate) struct Part {
    store: MemoryStore,
    minor: u8,
    /// What it says of this client: 1 for trusted, 2 for not, 0 for neither.
    trust: u64,
    /// Of each path, whether it may be added without a signature.
    unsigned: Arc<Mutex<Vec<bool>>>,
    refused: Arc<HashSet<StorePath>>,
    /// In the order in which they were added.
    added: Arc<Mutex<Vec<StorePath>>>,
    unanswered: Arc<AtomicUsize>,
    most_unanswered: Arc<AtomicUsize>,
}

impl Part {
    pub(crate) fn new(store: &MemoryStore, minor: u8) -> Self {
        Self {
            store: store.clone(),
            minor,
            trust: 1,
            unsigned: Arc::default(),
            refused: Arc::default(),
            added: Arc::default(),
            unanswered: Arc::default(),
            most_unanswered: Arc::default(),
        }
    }

    fn host(&self) -> Arc<dyn Transport> {
        let part = self.clone();
        Arc::new(ScriptedHost::new(move |input, output| part.clone().play(input, output)))
    }

    pub(crate) fn store(&self, login_is_root: bool) -> RemoteStore {
        let mut options = asking_for_a_daemon();
        options.login_is_root = login_is_root;
        RemoteStore::new(self.host(), options)
    }

    pub(crate) async fn play(self, input: DuplexStream, output: DuplexStream) {
        let (answers, answered) = mpsc::unbounded_channel();
        let unanswered = Arc::clone(&self.unanswered);
        tokio::join!(self.take(input, answers), deliver(answered, output, unanswered));
    }

    async fn take(self, input: DuplexStream, answers: mpsc::UnboundedSender<(Instant, Vec<u8>)>) {
        let say = |bytes: Vec<u8>| {
            let _ = answers.send((Instant::now() + ROUND_TRIP, bytes));
        };
        let mut reader = WireReader::new(input);
        assert_eq!(reader.u64("the magic").await.unwrap(), CLIENT_MAGIC);
        reader.u64("the version").await.unwrap();
        say(words(&[SERVER_MAGIC, 0x100 | u64::from(self.minor)]));
        // Without features: those are left to the tests of the protocol.
        assert!(self.minor < 38);
        for what in ["the CPU", "the reserve"] {
            assert_eq!(reader.u64(what).await.unwrap(), 0);
        }
        let mut hello = Vec::new();
        if self.minor >= 33 {
            hello.put_bytes(b"2.x");
        }
        if self.minor >= 35 {
            hello.put_u64(self.trust);
        }
        hello.put_u64(LAST);
        say(hello);
        let (store_dir, daemon) =
            (StoreDir::default(), Daemon::of_version(Version::from_minor(self.minor).unwrap()));
        while let Ok(Some(request)) = Request::read(&mut reader, &store_dir, &daemon).await {
            let now = self.unanswered.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_unanswered.fetch_max(now, Ordering::SeqCst);
            let mut answer = words(&[LAST]);
            match request {
                Request::SetOptions(_) => {}
                Request::AddTempRoot { .. } => answer.put_u64(1),
                Request::QueryValidPaths { paths, .. } => {
                    let valid: Vec<_> =
                        paths.iter().filter(|path| self.store.info(path).is_some()).cloned().collect();
                    answer.put_paths(&store_dir, &valid);
                }
                Request::QueryPathInfo { path } => match self.store.info(&path) {
                    None => answer.put_u64(0),
                    Some(info) => {
                        let (mut whole, mut front) = (Vec::new(), Vec::new());
                        put_path_info(&info, &store_dir, &mut whole);
                        front.put_path(&store_dir, &path);
                        answer.put_u64(1);
                        answer.extend_from_slice(&whole[front.len()..]);
                    }
                },
                Request::QueryDerivationOutputs { path } if self.minor < 22 => {
                    answer.put_paths(&store_dir, &self.outputs(path).await);
                }
                Request::QueryDerivationOutputMap { path } if self.minor >= 22 => {
                    let outputs = self.outputs(path).await;
                    answer.put_u64(outputs.len() as u64);
                    for path in &outputs {
                        answer.put_bytes(path.name().as_bytes());
                        answer.put_path(&store_dir, path);
                    }
                }
                Request::NarFromPath { path } => match self.store.nar(&path) {
                    Some(nar) => answer.extend_from_slice(&nar),
                    None => {
                        say(refusal("path is not valid"));
                        break;
                    }
                },
                Request::AddToStoreNar { info, options } => {
                    self.unsigned.lock().unwrap().push(options.without_signatures);
                    let nar = frames(&mut reader).await;
                    let path = info.path.clone();
                    if self.refused.contains(&path) {
                        answer = refusal("cannot add path because it lacks a signature by a trusted key");
                    } else if let Err(error) = self.add(*info, nar).await {
                        answer = refusal(&error);
                    } else {
                        self.added.lock().unwrap().push(path);
                    }
                }
                other => panic!("{other:?}"),
            }
            say(answer);
        }
        swallow_rest(reader).await;
    }

    async fn add(&self, info: PathInfo, nar: Vec<u8>) -> Result<(), String> {
        let (plan, nars) = script([(info, vec![Ok(nar.into())])]);
        match self.store.add_all(plan, nars, OnFailure::Stop).next().await {
            Some(Ok(Outcome::Added(_) | Outcome::AlreadyValid(_))) => Ok(()),
            refused => Err(format!("{refused:?}")),
        }
    }

    /// Those of a derivation that refer to nothing else.
    async fn outputs(&self, derivation: StorePath) -> Vec<StorePath> {
        let closure = self.store.closure(std::slice::from_ref(&derivation), Outputs::Include).await.unwrap();
        closure.infos.into_iter().map(|info| info.path).filter(|path| *path != derivation).collect()
    }
}

/// A NAR in frames, as from 1.23 on.
async fn frames(reader: &mut WireReader<DuplexStream>) -> Vec<u8> {
    let mut nar = Vec::new();
    loop {
        let mut left = reader.u64("the size of a frame").await.unwrap();
        if left == 0 {
            return nar;
        }
        while left > 0 {
            let block = reader.block("a frame", left).await.unwrap();
            left -= block.len() as u64;
            nar.extend_from_slice(&block);
        }
    }
}

fn asking_for_a_daemon() -> ServeOptions {
    let mut options = ServeOptions::default();
    options.spoken = Spoken::Daemon;
    options
}

/// Answers arrive a round trip after their requests were sent.
async fn deliver(
    mut answered: mpsc::UnboundedReceiver<(Instant, Vec<u8>)>,
    mut output: DuplexStream,
    unanswered: Arc<AtomicUsize>,
) {
    let mut of_the_handshake = 2;
    while let Some((when, bytes)) = answered.recv().await {
        tokio::time::sleep_until(when).await;
        if of_the_handshake > 0 {
            of_the_handshake -= 1;
        } else {
            unanswered.fetch_sub(1, Ordering::SeqCst);
        }
        if output.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn swallow_rest(mut reader: WireReader<DuplexStream>) {
    while reader.block("the rest", 1 << 20).await.is_ok() {}
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// As from 1.26 on.
fn refusal(message: &str) -> Vec<u8> {
    let mut bytes = words(&[ERROR]);
    bytes.put_bytes(b"Error");
    bytes.put_u64(0);
    bytes.put_bytes(b"Error");
    bytes.put_bytes(message.as_bytes());
    bytes.put_u64(0);
    bytes.put_u64(0);
    bytes
}

/// A path that refers to so many others.
fn star(store: &MemoryStore, rays: usize) -> StorePath {
    let rays: Vec<_> = (0..rays).map(|ray| store.add(&format!("ray-{ray}"), "x", &[])).collect();
    store.add("centre", "y", &rays)
}

fn round_trips(start: Instant) -> u128 {
    start.elapsed().as_millis().div_ceil(ROUND_TRIP.as_millis())
}

#[tokio::test(start_paused = true)]
async fn two_thousand_paths_from_a_daemon_take_as_many_round_trips_as_the_graph_is_deep() {
    let there = MemoryStore::new("there");
    let centre = star(&there, 2000);
    let here = MemoryStore::new("here");
    let part = Part::new(&there, 37);
    let start = Instant::now();
    let report = copy(&part.store(false), &here, &Copy::new([centre]), &NoObserver.shared()).await.unwrap();
    assert_eq!(report.sent.count(), 2001);
    assert_eq!(here.paths(), there.paths());
    // Two for the handshake, two for the closure, one for the NARs.
    assert!(round_trips(start) <= 5, "{:?}, {} round trips", start.elapsed(), round_trips(start));
}

/// A daemon, and beside it a program that lists closures.
#[derive(Debug)]
struct Listed {
    daemon: Arc<dyn Transport>,
    lister: ScriptedHost,
}

impl Listed {
    /// The lister says `list` once it has been asked.
    fn new(part: &Part, list: String) -> Arc<Self> {
        let lister = ScriptedHost::new(move |mut input, mut output| {
            let list = list.clone();
            async move {
                swallow(&mut input).await;
                tokio::time::sleep(ROUND_TRIP).await;
                let _ = output.write_all(list.as_bytes()).await;
            }
        });
        Arc::new(Self { daemon: part.host(), lister })
    }
}

impl Transport for Listed {
    fn describe(&self) -> String {
        self.daemon.describe()
    }

    fn open<'a>(&'a self, command: &'a RemoteCommand) -> BoxFuture<'a, Result<Channel, TransportError>> {
        let lists = command.to_shell().to_string_lossy().contains("--requisites");
        if lists { self.lister.open(command) } else { self.daemon.open(command) }
    }
}

#[tokio::test(start_paused = true)]
async fn a_closure_that_is_deep_is_listed_beside_the_daemon() {
    let there = MemoryStore::new("there");
    let chain = there.add_chain(200);
    let stranger = there.add("stranger", "nobody asked for this", &[]);
    let unknown = "/nix/store/00000000000000000000000000000000-unknown\n".to_owned();
    let lines = |paths: &[StorePath]| -> String {
        paths.iter().map(|path| StoreDir::default().full(path) + "\n").collect()
    };
    let part = Part::new(&there, 37);
    // In no order; with what is no part of it, which must not be copied; and one that lists nothing, which costs only time.
    let whole = lines(&chain) + &unknown + "a word of the login shell\n" + &lines(&[stranger]);
    for (list, most) in [(whole, 16), (String::new(), 210)] {
        let here = MemoryStore::new("here");
        let store = RemoteStore::new(Listed::new(&part, list), asking_for_a_daemon());
        let start = Instant::now();
        let request = Copy::new([chain.last().unwrap().clone()]);
        let report = copy(&store, &here, &request, &NoObserver.shared()).await.unwrap();
        assert_eq!(report.sent.count(), 200);
        let copied: BTreeSet<_> = here.paths().into_iter().collect();
        assert_eq!(copied, chain.iter().cloned().collect());
        assert!(round_trips(start) <= most, "{:?}, {} round trips", start.elapsed(), round_trips(start));
    }
}

#[tokio::test(start_paused = true)]
async fn two_thousand_paths_to_a_daemon_take_six_round_trips() {
    let here = MemoryStore::new("here");
    let chain = here.add_chain(2000);
    let part = Part::new(&MemoryStore::new("there"), 37);
    let start = Instant::now();
    let request = Copy::new([chain.last().unwrap().clone()]);
    let report = copy(&here, &part.store(false), &request, &NoObserver.shared()).await.unwrap();
    assert_eq!(report.sent.count(), 2000);
    assert_eq!(part.added.lock().unwrap().len(), 2000);
    // Two for the handshake, one for the root, one for all paths, one for the NARs, one for the last check.
    assert!(round_trips(start) <= 6, "{:?}, {} round trips", start.elapsed(), round_trips(start));
}

/// Nix up to 2.19 stops for good over more, where it copies bytes for somebody who is not root.
#[tokio::test(start_paused = true)]
async fn only_few_requests_are_unanswered_where_too_many_stop_a_daemon() {
    for (minor, is_root, limited) in
        [(34, false, true), (35, false, true), (34, true, false), (37, false, false)]
    {
        let store = MemoryStore::new("there");
        let centre = star(&store, 500);
        let part = Part::new(&store, minor);
        let there = part.store(is_root);
        let here = MemoryStore::new("here");
        copy(&there, &here, &Copy::new([centre.clone()]), &NoObserver.shared()).await.unwrap();
        there.valid_paths(&store.paths(), ValidityQuery::default().locking()).await.unwrap();

        let empty = Part::new(&MemoryStore::new("empty"), minor);
        let report = copy(&store, &empty.store(is_root), &Copy::new([centre]), &NoObserver.shared()).await;
        assert_eq!(report.unwrap().sent.count(), 501);
        for most in [&part.most_unanswered, &empty.most_unanswered] {
            let most = most.load(Ordering::SeqCst);
            assert_eq!(most <= SAFE_WINDOW, limited, "1.{minor}: {most} unanswered requests");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_path_costs_only_what_refers_to_it() {
    let here = MemoryStore::new("here");
    let [bad, good] = ["bad", "good"].map(|name| here.add(name, name, &[]));
    let above_bad = here.add("above-bad", "x", std::slice::from_ref(&bad));
    let above_good = here.add("above-good", "y", std::slice::from_ref(&good));
    let mut part = Part::new(&MemoryStore::new("there"), 34);
    part.refused = Arc::new([bad.clone()].into());
    let store = part.store(true);
    let plan = here.infos(&[bad.clone(), above_bad, good.clone(), above_good.clone()]);
    let nars = here.nars(plan.clone());
    let outcomes: Vec<_> = store.add_all(plan, nars, OnFailure::Continue).collect().await;
    let mut added = Vec::new();
    let mut failed = Vec::new();
    for outcome in outcomes {
        match outcome.unwrap() {
            Outcome::Added(path) => added.push(path),
            Outcome::Failed { path, error } => {
                assert_eq!(error.scope(), Scope::Path);
                failed.push(path);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(failed, [bad]);
    assert_eq!(added, [good, above_good]);
    // The connection goes on.
    assert_eq!(store.valid_paths(&added, ValidityQuery::default()).await.unwrap().len(), 2);
}

/// Nix 2.3 speaks 1.21 and knows no names of outputs.
#[tokio::test(start_paused = true)]
async fn outputs_come_along_from_a_daemon_of_any_age() {
    for minor in [21, 22, 37] {
        let there = MemoryStore::new("there");
        let derivation = there.add_derivation("program", &["out", "dev"], &[]);
        let mut expected = there.build(&derivation, &[]);
        let store = Part::new(&there, minor).store(false);
        let closure = store.closure(std::slice::from_ref(&derivation), Outputs::Include).await.unwrap();
        expected.push(derivation);
        expected.sort();
        assert!(closure.failed.is_empty(), "1.{minor}");
        assert_eq!(closure.infos.into_iter().map(|info| info.path).collect::<Vec<_>>(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_does_not_trust_the_user_is_sent_nothing_that_it_refuses() {
    let here = MemoryStore::new("here");
    let output = here.add_output("output", "x", &[]);
    let addressed = here.add("addressed", "y", &[]);
    // Whether it is stopped, by what the daemon says and from which version on it does.
    for (minor, trust, stopped) in
        [(37, 2, true), (35, 2, true), (34, 2, false), (37, 0, false), (37, 1, false)]
    {
        let mut part = Part::new(&MemoryStore::new("there"), minor);
        part.trust = trust;
        let request = Copy::new([output.clone(), addressed.clone()]);
        let result = copy(&here, &part.store(true), &request, &NoObserver.shared()).await;
        assert_eq!(matches!(result, Err(CopyError::Unsigned(_))), stopped, "1.{minor}: {result:?}");
        assert_eq!(part.added.lock().unwrap().len(), if stopped { 0 } else { 2 });
        let report =
            copy(&here, &part.store(true), &Copy::new([addressed.clone()]), &NoObserver.shared()).await;
        assert_eq!(report.unwrap().sent.count(), usize::from(stopped));
    }
}

#[tokio::test(start_paused = true)]
async fn a_daemon_is_told_whether_to_look_at_signatures() {
    let here = MemoryStore::new("here");
    let path = here.add("x", "y", &[]);
    for check in [true, false] {
        let part = Part::new(&MemoryStore::new("there"), 37);
        let mut options = asking_for_a_daemon();
        options.check_signatures = check;
        let store = RemoteStore::new(part.host(), options);
        copy(&here, &store, &Copy::new([path.clone()]), &NoObserver.shared()).await.unwrap();
        assert_eq!(*part.unsigned.lock().unwrap(), [!check]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_closure_lacks_is_named_and_the_rest_is_there() {
    let there = MemoryStore::new("there");
    let library = there.add("library", "x", &[]);
    let top = there.add("top", "y", std::slice::from_ref(&library));
    let elsewhere = MemoryStore::new("elsewhere").add("none", "z", &[]);
    let store = Part::new(&there, 34).store(false);
    let closure = store.closure(&[top.clone(), elsewhere.clone()], Outputs::Exclude).await.unwrap();
    let mut paths: Vec<_> = closure.infos.iter().map(|info| info.path.clone()).collect();
    paths.sort();
    assert_eq!(paths, there.paths());
    assert_eq!(closure.failed.len(), 1);
    assert_eq!(closure.failed[0].0, elsewhere);
    assert!(closure.failed[0].1.to_string().contains("is not valid in host"));
}

/// Both ways of a path that is gone by now: as one of many, and with nothing behind it.
#[tokio::test(start_paused = true)]
async fn a_path_that_vanished_is_named_and_the_next_connection_serves_the_rest() {
    let there = MemoryStore::new("there");
    let [gone, stays] = ["gone", "stays"].map(|name| there.add(name, name, &[]));
    let plan = there.infos(&[gone.clone(), stays.clone()]);
    there.delete(&gone);
    let store = Part::new(&there, 34).store(false);
    let nars = store.nars(plan.clone());
    let mut body = nars.open(&plan[0], 0).await.unwrap();
    let error = body.next().await.unwrap().unwrap_err();
    assert_eq!((error.scope(), error.path()), (Scope::Path, Some(&gone)));
    drop(body);
    let error = nars.open(&plan[1], 0).await.unwrap_err();
    assert!(error.scope() == Scope::Connection && error.is_temporary(), "{error:?}");
    let plan = there.infos(&[stays]);
    assert!(store.nars(plan.clone()).open(&plan[0], 0).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_user_who_is_turned_away_is_told_why() {
    let host: Arc<dyn Transport> = Arc::new(ScriptedHost::new(|mut input, mut output| async move {
        let mut bytes = words(&[SERVER_MAGIC, 0x122]);
        bytes.put_bytes(b"2.8.0");
        bytes.extend(refusal("user 'nobody' is not allowed to connect to the Nix daemon"));
        let _ = output.write_all(&bytes).await;
        swallow(&mut input).await;
    }));
    let store = RemoteStore::new(host, asking_for_a_daemon());
    let paths = [MemoryStore::new("any").add("any", "x", &[])];
    let error = store.valid_paths(&paths, ValidityQuery::default()).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(cause, "user 'nobody' is not allowed to connect to the Nix daemon");
    assert_eq!(error.scope(), Scope::Store);
}
