//! Which protocol is spoken with a host, how it is found out, and what that costs.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use ncc_copy::{NoObserver, Request, copy};
use ncc_remote_store::{RemoteError, RemoteStore, ServeOptions, ServeProgram, test_util::MemoryHost};
use ncc_store::{Destination as _, Problem, StoreError, StorePath, ValidityQuery, test_util::MemoryStore};
use ncc_transport::{Channel, ChannelControl, Exit, RESUME, RemoteCommand, Transport, TransportError};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream},
    time::Instant,
};

use crate::daemon::Part;

/// What a host makes of a command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    /// Runs `nix-store --serve`.
    Serves,
    /// Is a script that becomes `nix-daemon --stdio`.
    Becomes,
    /// Runs `nix-daemon --stdio`.
    Daemon,
    /// Ends with this status, and these words on stderr.
    Ends(i32, &'static str),
}

/// What comes of each kind of command.
#[derive(Clone)]
struct Host {
    serve: MemoryHost,
    daemon: Part,
    does: [Does; 4],
    /// Whether all channels share a login.
    shares: bool,
    opened: Arc<Mutex<Vec<usize>>>,
}

const REFUSED: Does = Does::Ends(1, "refused");

impl Host {
    /// `does` is for our script, `nix-store`, `nix-daemon`, and our script for the latter alone.
    fn new(store: &MemoryStore, does: [Does; 4]) -> Self {
        Self {
            serve: MemoryHost::new(store).with_round_trip(Duration::from_secs(1)),
            daemon: Part::new(store, 37),
            does,
            shares: false,
            opened: Arc::default(),
        }
    }

    fn sharing(self) -> Self {
        Self { shares: true, ..self }
    }

    fn store(&self) -> RemoteStore {
        RemoteStore::new(Arc::new(self.clone()), ServeOptions::default())
    }

    /// The kinds of commands that came, in order.
    fn opened(&self) -> Vec<usize> {
        self.opened.lock().unwrap().clone()
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Host")
    }
}

#[derive(Debug)]
struct Over(i32, Vec<DuplexStream>);

impl ChannelControl for Over {
    fn wait(&mut self) -> BoxFuture<'_, Result<Exit, TransportError>> {
        self.1.clear();
        Box::pin(async { Ok(Exit::Code(self.0)) })
    }

    fn kill(&mut self) {}
}

impl Transport for Host {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn open<'a>(&'a self, command: &'a RemoteCommand) -> BoxFuture<'a, Result<Channel, TransportError>> {
        let line = command.to_shell().to_string_lossy().into_owned();
        let kind = match (line.contains("ncc-started"), line.contains("--serve")) {
            (true, true) => 0,
            (false, true) => 1,
            (false, false) => 2,
            (true, false) => 3,
        };
        self.opened.lock().unwrap().push(kind);
        let part = self.daemon.clone();
        Box::pin(async move {
            let does = self.does[kind];
            if does == Does::Serves {
                return self.serve.open(command).await;
            }
            let (stdin, input) = tokio::io::duplex(64 << 10);
            let (mut output, stdout) = tokio::io::duplex(64 << 10);
            let (mut says, stderr) = tokio::io::duplex(64 << 10);
            if let Does::Ends(status, words) = does {
                says.write_all(words.as_bytes()).await.unwrap();
                let control = Box::new(Over(status, vec![input]));
                let (stdin, stdout, stderr) = (Box::new(stdin), Box::new(stdout), Box::new(stderr));
                return Ok(Channel { stdin, stdout, stderr, control });
            }
            tokio::spawn(async move {
                // Stays open as long as the server runs.
                let _says = says;
                let mut input = input;
                if does == Does::Becomes {
                    output
                        .write_all(b"Welcome!\nncc-found\tbecame=nix-daemon\twhy=no nix-store\t.\n")
                        .await
                        .unwrap();
                    input = pass_over(input).await;
                }
                part.play(input, output).await;
            });
            let control = Box::new(Over(0, Vec::new()));
            Ok(Channel {
                stdin: Box::new(stdin),
                stdout: Box::new(stdout),
                stderr: Box::new(stderr),
                control,
            })
        })
    }

    fn share(&self) -> bool {
        self.shares
    }
}

/// Reads up to the line that makes a script go on; what comes next is not there before that is answered.
async fn pass_over(input: DuplexStream) -> DuplexStream {
    let mut lines = BufReader::with_capacity(1, input);
    let mut line = Vec::new();
    while line != format!("{RESUME}\n").as_bytes() {
        line.clear();
        assert!(lines.read_until(b'\n', &mut line).await.unwrap() > 0);
    }
    lines.into_inner()
}

fn cause(error: &StoreError) -> &RemoteError {
    let (Problem::Connection { source, .. } | Problem::Store { source, .. }) = error.problem() else {
        panic!("{error:?}")
    };
    source.downcast_ref::<Arc<RemoteError>>().expect("an error of the host")
}

/// Copies three paths to the host, or the closure of this path from it.
async fn copies(host: &Host, root: Option<&StorePath>) {
    let here = MemoryStore::new("here");
    let store = host.store();
    let report = match root {
        Some(root) => copy(&store, &here, &Request::new([root.clone()]), &NoObserver.shared()).await,
        None => {
            let root = here.add_chain(3).pop().unwrap();
            copy(&here, &store, &Request::new([root]), &NoObserver.shared()).await
        }
    };
    assert_eq!(report.unwrap().sent.count(), 3);
    store.close().await;
}

#[tokio::test(start_paused = true)]
async fn where_there_is_a_serve_protocol_it_is_spoken_and_costs_no_round_trip_more() {
    for from in [true, false] {
        let there = MemoryStore::new("there");
        let root = from.then(|| there.add_chain(3).pop().unwrap());
        let host = Host::new(&there, [Does::Serves, REFUSED, REFUSED, REFUSED]);
        let start = Instant::now();
        copies(&host, root.as_ref()).await;
        assert!(start.elapsed() < Duration::from_millis(3100), "{:?}", start.elapsed());
        assert_eq!(host.opened(), [0]);
    }
}

#[tokio::test(start_paused = true)]
async fn where_there_is_none_the_daemon_is_asked_over_the_same_connection() {
    for from in [true, false] {
        let there = MemoryStore::new("there");
        let root = from.then(|| there.add_chain(3).pop().unwrap());
        let host = Host::new(&there, [Does::Becomes, REFUSED, REFUSED, REFUSED]);
        copies(&host, root.as_ref()).await;
        assert_eq!(host.opened(), [0]);
    }
}

#[tokio::test(start_paused = true)]
async fn several_questions_at_once_find_out_once() {
    let there = MemoryStore::new("there");
    let paths = there.add_chain(2000);
    let host = Host::new(&there, [Does::Becomes, REFUSED, REFUSED, Does::Daemon]);
    let store = host.store();
    let ask = |count: usize| {
        let (store, paths) = (store.clone(), paths[..count].to_vec());
        async move { store.valid_paths(&paths, ValidityQuery::default()).await.unwrap().len() }
    };
    assert_eq!(tokio::join!(ask(2000), ask(1), ask(20)), (2000, 1, 20));
    assert_eq!(host.opened(), [0]);
    // A session that is lost is opened in the way that is known.
    let lost =
        tokio::time::timeout(Duration::ZERO, store.valid_paths(&paths, ValidityQuery::default())).await;
    assert!(lost.is_err());
    assert_eq!(ask(2000).await, 2000);
    assert_eq!(host.opened(), [0, 3]);
}

/// Two logins at most where channels can share one; and where they cannot, whoever says the same twice is believed.
#[tokio::test(start_paused = true)]
async fn an_account_that_lets_only_the_daemon_pass_costs_one_login_more() {
    let there = MemoryStore::new("there");
    let root = there.add_chain(3).pop().unwrap();
    let host = Host::new(&there, [REFUSED, REFUSED, Does::Daemon, REFUSED]);
    copies(&host.clone().sharing(), Some(&root)).await;
    assert_eq!(host.opened(), [0, 1, 2]);

    let host = Host::new(&there, [REFUSED, REFUSED, Does::Daemon, REFUSED]);
    let error = host.store().valid_paths(&there.paths(), ValidityQuery::default()).await.unwrap_err();
    assert!(matches!(cause(&error), RemoteError::NotAllowed { .. }), "{error:?}");
    assert_eq!(host.opened(), [0, 1]);

    // It says two things: it looks at what it is asked for.
    let host = Host::new(&there, [REFUSED, Does::Ends(1, "not this one"), Does::Daemon, REFUSED]);
    copies(&host, Some(&root)).await;
    assert_eq!(host.opened(), [0, 1, 2]);
}

/// <https://github.com/NixOS/nix/pull/16185>
#[tokio::test(start_paused = true)]
async fn nix_16185_a_plain_nix_store_without_a_serve_protocol_leads_to_the_daemon() {
    let words = [
        "error: unrecognised flag '--serve'",
        "error: 'nix-store --serve' is no longer supported\nuse 'ssh-ng://'",
        "error: this is no longer supported, use 'nix-daemon --stdio'",
    ];
    for words in words {
        let there = MemoryStore::new("there");
        let root = there.add_chain(3).pop().unwrap();
        let host = Host::new(&there, [REFUSED, Does::Ends(1, words), Does::Daemon, REFUSED]);
        copies(&host, Some(&root)).await;
        assert_eq!(host.opened(), [0, 1, 2]);

        // And a named one to its neighbour.
        let mut options = ServeOptions::default();
        options.program = ServeProgram::Named("/opt/nix/bin/nix-store".to_owned());
        let store = RemoteStore::new(Arc::new(host.clone()), options.clone());
        assert_eq!(store.valid_paths(&there.paths(), ValidityQuery::default()).await.unwrap().len(), 3);
        assert_eq!(host.opened()[3..], [1, 2]);

        let gone = Does::Ends(127, "sh: 1: /opt/nix/bin/nix-daemon: not found");
        let host = Host::new(&there, [REFUSED, Does::Ends(1, words), gone, REFUSED]);
        let store = RemoteStore::new(Arc::new(host.clone()), options);
        let error = store.valid_paths(&there.paths(), ValidityQuery::default()).await.unwrap_err();
        let RemoteError::NoServer { why } = cause(&error) else { panic!("{error:?}") };
        assert!(why.contains("'/opt/nix/bin/nix-daemon' was not found there"), "{why}");
        assert!(!error.is_temporary());
    }
}

#[tokio::test(start_paused = true)]
async fn a_program_that_ends_without_a_word_is_no_server_and_no_login_shell() {
    let there = MemoryStore::new("there");
    let host = Host::new(&there, [Does::Ends(3, "ncc-started\n"), Does::Ends(3, ""), REFUSED, REFUSED]);
    let mut options = ServeOptions::default();
    options.program = ServeProgram::Named("/opt/server".to_owned());
    let store = RemoteStore::new(Arc::new(host.clone()), options);
    let error = store.valid_paths(&[], ValidityQuery::default()).await.unwrap_err();
    let expected = "there is no server there: '/opt/server' ended without a word (exit status 3)";
    assert_eq!(cause(&error).to_string(), expected);
    assert!(!error.is_temporary());
    // A script tells that it has run.
    assert_eq!(host.opened(), [1, 0]);
}
