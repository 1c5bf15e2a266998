//! libssh2 against a real sshd on loopback: the conformance suite, and what only this transport does.

mod auth;
mod host_keys;
#[cfg(target_os = "linux")] // it looks at threads and processes in /proc
mod streams;
mod ways;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use ncc_transport::{
    Channel, Exit, Failure, FailureKind, RemoteCommand, StderrTail, Transport, TransportError,
    conformance::Case,
};
use ncc_transport_ssh::test_util::Sshd;
use ncc_transport_ssh2::{Answer, Prompter, Question, Ssh2, Ssh2Options, parse_ssh_options};
use tokio::io::AsyncReadExt as _;

/// An sshd with these additional lines, whose sessions read no start-up files of the user's shell: they may take their time, and
/// those of pyenv wait a minute for a lock that a killed session leaves behind.
fn start(config: &[&str]) -> Option<Sshd> {
    Sshd::start(&[config, &["SetEnv HOME=/nonexistent"]].concat())
}

/// Options with which the server is reached, and nothing of the user's own interferes.
fn options(sshd: &Sshd) -> Ssh2Options {
    with(sshd, "")
}

/// The same, with others before them, which win.
fn with(sshd: &Sshd, words: &str) -> Ssh2Options {
    let mut options = Ssh2Options::default();
    options.extra = parse_ssh_options(words).unwrap();
    options.extra.extend(sshd.ssh_words().into_iter().map(Into::into));
    options.prompter = Arc::new(Script::default());
    options
}

async fn with_sshd(case: Case) {
    let Some(sshd) = start(&[]) else { return };
    case(&Ssh2::new(sshd.target(), options(&sshd))).await;
}

ncc_transport::conformance_tests!(with_sshd);

/// Gives these answers one after the other, then none; keeps the questions.
#[derive(Debug, Default)]
struct Script {
    answers: Mutex<Vec<String>>,
    asked: Mutex<Vec<String>>,
}

impl Script {
    fn new(answers: &[&str]) -> Arc<Self> {
        let answers = answers.iter().rev().map(|&answer| answer.to_owned()).collect();
        Arc::new(Self { answers: Mutex::new(answers), asked: Mutex::default() })
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Prompter for Script {
    fn ask(&self, question: &Question<'_>, _: &dyn Fn() -> bool) -> Answer {
        self.asked.lock().unwrap().push(question.text());
        self.answers.lock().unwrap().pop().map_or(Answer::Nobody, Answer::Text)
    }
}

async fn bounded<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("it does not hang")
}

fn sh(script: &str) -> RemoteCommand {
    RemoteCommand::new("sh").args(["-c", script])
}

/// Runs a command that needs no input: stdout, stderr, exit.
async fn run(transport: &Ssh2, command: &RemoteCommand) -> (String, String, Exit) {
    let opened = bounded(transport.open(command)).await;
    let Channel { stdin, mut stdout, stderr, mut control } =
        opened.unwrap_or_else(|error| panic!("{error:?}"));
    drop(stdin);
    let mut stderr = StderrTail::collect(stderr, None);
    let mut output = String::new();
    bounded(stdout.read_to_string(&mut output)).await.unwrap();
    let exit = bounded(control.wait()).await.unwrap();
    (output, stderr.finish().await, exit)
}

/// Connects, which works: what a person is told of it.
async fn works(sshd: &Sshd, options: Ssh2Options) -> String {
    reaches(&Ssh2::new(sshd.target(), options)).await
}

async fn reaches(transport: &Ssh2) -> String {
    let notices = Notices::default();
    let writer = notices.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _listening = tracing::subscriber::set_default(subscriber);
    let (stdout, stderr, exit) = run(transport, &RemoteCommand::new("echo").arg("in")).await;
    // What we say ourselves is not what the command says, which may be taken for the reason of a failure.
    assert_eq!((stdout.as_str(), stderr.as_str(), exit), ("in\n", "", Exit::Code(0)));
    String::from_utf8(notices.0.lock().unwrap().clone()).unwrap()
}

/// What is told through `tracing`.
#[derive(Debug, Clone, Default)]
struct Notices(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Notices {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Connects, which fails.
async fn fails(transport: &Ssh2) -> Failure {
    match bounded(transport.open(&RemoteCommand::new("true"))).await {
        Err(TransportError::Connect { failure, .. }) => {
            assert!(!failure.evidence.is_empty() && !failure.hint.is_empty(), "{failure:?}");
            failure
        }
        other => panic!("{other:?}"),
    }
}

async fn refused(sshd: &Sshd, options: Ssh2Options, kind: FailureKind, evidence: &str) {
    let failure = fails(&Ssh2::new(sshd.target(), options)).await;
    assert!(!evidence.is_empty(), "everything contains the empty string");
    assert_eq!(failure.kind, kind, "{failure:?}");
    assert!(failure.evidence.contains(evidence), "{evidence:?} is not in {failure:?}");
}
