//! One conversation with a server: requests out and answers in at the same time, its greeting, its silence, its end.

use std::{
    ops::Deref,
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use futures_util::{
    future::{BoxFuture, Either, select},
    poll,
};
use ncc_protocol::{
    ProtocolError,
    serve::{client_greeting, read_server_greeting_or},
    wire::{Beginning, WireReader},
    worker::{self, AnswerError, ClientOptions, Daemon, DaemonError, Version},
};
use ncc_store::StoreDir;
use ncc_transport::{
    Channel, ChannelControl, Connector, End, Ending, Exit, Findings, LineSink, RESUME, Reader, StderrTail,
    Writer, throttled,
};
use tokio::{
    io::AsyncWriteExt as _,
    sync::{Mutex, OwnedMutexGuard},
};

use crate::{
    RemoteError,
    daemon::log_to,
    error::Ended,
    options::DAEMON,
    route::{Found, Language, Route},
    silence::{Patience, Pulse},
    wire::{Carried, Filter},
};

/// How long a server may take to end once its input has ended, before its process is ended for it.
const TIME_TO_END: Duration = Duration::from_secs(5);

/// How a conversation is begun, whatever leads there.
#[derive(Clone)]
pub(crate) struct Opening {
    pub(crate) stall_timeout: Option<Duration>,
    /// Is handed what the other end says for people.
    pub(crate) stderr: Option<LineSink>,
    /// Is called when the other end has greeted.
    pub(crate) greeted: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// How one answer is read; `Send` futures, which async closures cannot promise yet.
pub(crate) trait ReadAnswer<T>:
    for<'r> FnOnce(&'r mut WireReader<Reader>) -> BoxFuture<'r, Result<T, ProtocolError>> + Send
{
}

impl<T, F> ReadAnswer<T> for F where
    F: for<'r> FnOnce(&'r mut WireReader<Reader>) -> BoxFuture<'r, Result<T, ProtocolError>> + Send
{
}

/// A server and everything known about it.
///
/// Questions may be put while others wait for their answers: whoever has written waits for its turn to read. Work that
/// writes and reads at its own pace [leases](Self::lease) both directions.
pub(crate) struct Session {
    connector: Arc<dyn Connector>,
    language: Language,
    requests: Arc<Mutex<Requests>>,
    answers: Arc<Mutex<Answers>>,
    pulse: Pulse,
    greeted: Arc<AtomicBool>,
    /// Something went wrong, or was given up in the middle: nobody knows what comes next.
    broken: AtomicBool,
    process: Mutex<Process>,
    opening: Opening,
    /// What the other end says that it is, where it is not what was expected.
    found: Arc<OnceLock<Found>>,
    /// Known behind the handshake of a daemon.
    daemon: OnceLock<Daemon>,
    /// Why a daemon does not want this user.
    turned_away: OnceLock<DaemonError>,
    /// For one transfer alone, which ends it.
    apart: Option<Carried>,
}

/// What became of the process at the other end.
enum Process {
    Running(ServerProcess),
    /// It was ended by us after its last answer.
    Closed,
    /// It was ended by us in the middle of something that nobody wanted any more.
    Abandoned,
    Ended {
        error: Arc<RemoteError>,
        /// Whether something of ours ran there: the account let the command through.
        has_started: bool,
    },
}

/// Where requests go.
pub(crate) struct Requests {
    /// `None`: closed, which the server sees as the end of its input.
    stdin: Option<Writer>,
    /// Written before the next request: the greeting, so that it shares a packet with the first request.
    unsent: Vec<u8>,
    pulse: Pulse,
}

/// Where answers come from.
pub(crate) struct Answers {
    pub(crate) reader: WireReader<Reader>,
    greeted: Arc<AtomicBool>,
    on_greeting: Option<Arc<dyn Fn() + Send + Sync>>,
    found: Arc<OnceLock<Found>>,
    pulse: Pulse,
}

/// The two directions of a conversation at its beginning.
struct Streams {
    stdin: Option<Writer>,
    unsent: Vec<u8>,
    reader: WireReader<Reader>,
}

/// What the client begins with.
fn greeting(language: Language) -> Vec<u8> {
    match language {
        Language::Serve => client_greeting(),
        Language::Daemon => worker::client_greeting(Version::NEWEST),
    }
}

/// Both directions of a session, for one piece of work. Unless it is [given back](Self::give_back), the session is broken.
pub(crate) struct Lease {
    /// In front of the locks: fields are dropped in this order, and whoever waits for a lock must find the session broken.
    breaks: Breaks<Arc<Session>>,
    pub(crate) session: Arc<Session>,
    pub(crate) requests: OwnedMutexGuard<Requests>,
    pub(crate) answers: OwnedMutexGuard<Answers>,
    unfinished: Unfinished<Arc<Session>>,
}

impl Lease {
    /// Lets others go on, between requests.
    pub(crate) fn give_back(mut self) {
        self.breaks.done();
        self.unfinished.done();
    }

    /// Whether the session is for this transfer alone: nothing is sure to arrive before the requests are closed.
    pub(crate) fn is_apart(&self) -> bool {
        self.session.apart.is_some()
    }

    /// Ends a transfer that has all its answers, and the session where it is [apart](Self::is_apart).
    pub(crate) async fn finish(self) {
        let session = Arc::clone(&self.session);
        let is_apart = self.is_apart();
        self.give_back();
        if is_apart {
            session.close().await;
        }
    }

    /// Ends the session, which failed with `error`, and finds out why.
    pub(crate) async fn explain(self, error: ProtocolError) -> Arc<RemoteError> {
        let Self { breaks, session, mut requests, mut answers, mut unfinished } = self;
        drop(breaks);
        requests.close();
        answers.close();
        unfinished.failed();
        drop((requests, answers));
        session.explain(error).await.0
    }

    /// Waits for the greeting, if it has not come yet.
    pub(crate) async fn greet(&mut self) -> Result<(), ProtocolError> {
        let greeted = match self.session.language {
            Language::Serve => {
                let greeted = async {
                    self.requests.write(&[]).await?;
                    self.answers.greeted().await.map(drop)
                };
                greeted.await
            }
            Language::Daemon => self.greet_daemon().await,
        };
        if greeted.is_err() {
            self.unfinished.failed();
        }
        greeted
    }
}

impl Lease {
    /// What the handshake told of the daemon. There is none where the server is no daemon.
    pub(crate) fn daemon(&self) -> Option<&Daemon> {
        self.session.daemon.get()
    }

    /// The handshake with a daemon, in two round trips: what comes behind the greetings depends on the version in common.
    async fn greet_daemon(&mut self) -> Result<(), ProtocolError> {
        if self.daemon().is_some() {
            return Ok(());
        }
        self.requests.write(&[]).await?;
        let reader = &mut self.answers.reader;
        let version = worker::read_server_greeting(reader, Version::NEWEST).await?;
        let mut settings = Vec::new();
        worker::put_client_settings(version, &mut settings);
        // The request looks the same in all versions, so it need not wait for the rest of the handshake.
        let request = worker::Request::SetOptions(Box::<ClientOptions>::default());
        request.encode(&StoreDir::default(), &Daemon::of_version(version), &mut settings)?;
        self.requests.write(&settings).await?;
        let sink = self.session.opening.stderr.clone().map(throttled);
        let greeted = async {
            let daemon = worker::read_daemon(reader, version, log_to(sink.as_ref())).await?;
            let store_dir = StoreDir::default();
            let mut answers = worker::Answers::new(reader, &store_dir, &daemon, log_to(sink.as_ref()));
            answers.read(&request).await?;
            Ok(daemon)
        };
        match greeted.await {
            Ok(daemon) => {
                tracing::debug!(
                    version = %daemon.version, release = daemon.release, trust = ?daemon.trust, "the daemon has greeted"
                );
                let _ = self.session.daemon.set(daemon);
                self.answers.note_greeted();
                Ok(())
            }
            Err(AnswerError::Broken(error)) => Err(error),
            Err(AnswerError::Refused(error)) => {
                let _ = self.session.turned_away.set(error);
                Err(ProtocolError::UnexpectedEnd { what: "the daemon's greeting" })
            }
        }
    }
}

/// The process at the other end.
pub(crate) struct ServerProcess {
    stderr: StderrTail,
    control: Box<dyn ChannelControl>,
    pulse: Pulse,
    program: String,
    /// It is started by a script, which says when it has.
    is_script: bool,
}

/// Marks a session as broken, before anybody else can go on with it: dropped while the locks are still held.
struct Breaks<S: Deref<Target = Session>>(Option<S>);

impl<S: Deref<Target = Session>> Breaks<S> {
    /// The session is between requests.
    fn done(&mut self) {
        self.0 = None;
    }
}

impl<S: Deref<Target = Session>> Drop for Breaks<S> {
    fn drop(&mut self) {
        if let Some(session) = &self.0 {
            session.broken.store(true, Ordering::Release);
        }
    }
}

/// Work with a session. Dropped in the middle, it takes the session with it, once the locks are free.
struct Unfinished<S: Deref<Target = Session>>(Option<S>);

impl<S: Deref<Target = Session>> Unfinished<S> {
    /// The session is between requests.
    fn done(&mut self) {
        self.0 = None;
    }

    /// The session is broken, and will be asked why.
    fn failed(&mut self) {
        if let Some(session) = self.0.take() {
            session.broken.store(true, Ordering::Release);
        }
    }
}

impl<S: Deref<Target = Session>> Drop for Unfinished<S> {
    fn drop(&mut self) {
        if let Some(session) = &self.0 {
            session.abandon();
        }
    }
}

impl Session {
    /// Begins a conversation; with a filter, one that is for one transfer.
    pub(crate) async fn open(
        route: &Route,
        opening: &Opening,
        filter: Option<&Filter>,
    ) -> Result<Self, RemoteError> {
        let connector = Arc::clone(&route.connector);
        tracing::debug!(service = ?connector, "starting the server");
        let Channel { mut stdin, mut stdout, stderr, control } = connector.connect().await?;
        let pulse = Pulse::new(opening.stall_timeout);
        let process = ServerProcess {
            is_script: route.is_script,
            ..ServerProcess::new(
                stderr,
                control,
                pulse.clone(),
                route.program.clone(),
                opening.stderr.clone().map(throttled),
            )
        };
        let mut apart = None;
        if let Some(filter) = filter {
            let carried;
            (stdin, stdout, carried) = match filter.begin(stdin, stdout).await {
                Ok(streams) => streams,
                Err(error) => return Err(process.explain(&*connector, false, error).await.0),
            };
            apart = Some(carried);
        }
        let streams = Streams {
            stdin: Some(pulse.note_requests(stdin)),
            unsent: greeting(route.language),
            reader: WireReader::new(pulse.watch_answers(stdout)),
        };
        Ok(Self { apart, ..Self::over(streams, process, connector, route.language, opening) })
    }

    fn over(
        streams: Streams,
        process: ServerProcess,
        connector: Arc<dyn Connector>,
        language: Language,
        opening: &Opening,
    ) -> Self {
        let pulse = process.pulse.clone();
        let greeted = Arc::new(AtomicBool::new(false));
        let found = Arc::default();
        let requests = Requests { stdin: streams.stdin, unsent: streams.unsent, pulse: pulse.clone() };
        let answers = Answers {
            reader: streams.reader,
            greeted: Arc::clone(&greeted),
            on_greeting: opening.greeted.clone(),
            found: Arc::clone(&found),
            pulse: pulse.clone(),
        };
        Self {
            connector,
            language,
            requests: Arc::new(Mutex::new(requests)),
            answers: Arc::new(Mutex::new(answers)),
            pulse,
            greeted,
            broken: AtomicBool::new(false),
            process: Mutex::new(Process::Running(process)),
            opening: opening.clone(),
            found,
            daemon: OnceLock::new(),
            turned_away: OnceLock::new(),
            apart: None,
        }
    }

    /// Begins again over the same streams, whose other end waits for another language. `None` if they are gone.
    ///
    /// Everybody who has a question here finds this session broken.
    pub(crate) async fn begin_anew(&self, route: &Route) -> Option<Self> {
        let (mut requests, mut answers) = (self.requests.lock().await, self.answers.lock().await);
        let process = std::mem::replace(&mut *self.process.lock().await, Process::Abandoned);
        let Process::Running(mut process) = process else { return None };
        process.program.clone_from(&route.program);
        let streams = Streams {
            stdin: requests.stdin.take(),
            // What was sent ahead may have been cut short anywhere.
            unsent: [b"\n", RESUME.as_bytes(), b"\n", &greeting(route.language)].concat(),
            reader: answers.take_reader(),
        };
        Some(Self::over(streams, process, Arc::clone(&self.connector), route.language, &self.opening))
    }

    pub(crate) const fn language(&self) -> Language {
        self.language
    }

    /// What the other end is, where it is not what was expected.
    pub(crate) fn found(&self) -> Option<&Found> {
        self.found.get()
    }

    /// Whether the other end waits for another language.
    pub(crate) fn waits_for_another_language(&self) -> bool {
        !self.is_greeted() && self.found().is_some()
    }

    /// How the bulk of one direction goes, where the session is for one transfer.
    pub(crate) const fn carried(&self) -> Option<&Carried> {
        self.apart.as_ref()
    }

    pub(crate) fn is_greeted(&self) -> bool {
        self.greeted.load(Ordering::Acquire)
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    fn check(&self) -> Result<(), ProtocolError> {
        if self.is_broken() { Err(ProtocolError::UnexpectedEnd { what: "an answer" }) } else { Ok(()) }
    }

    /// Writes `request` and reads its answer, both at once, since either side may block on a full pipe.
    pub(crate) async fn exchange<T>(
        &self,
        request: &[u8],
        patience: Patience,
        read: impl ReadAnswer<T>,
    ) -> Result<T, ProtocolError> {
        let mut requests = self.requests.lock().await;
        self.check()?;
        let mut unfinished = Unfinished(Some(self));
        // Answers come in the order of the questions: this takes its place in the queue before the next may write.
        let mut turn = pin!(self.answers.lock());
        let at_once = poll!(&mut turn);
        let write = pin!(async move {
            let written = requests.write(request).await;
            drop(requests);
            written
        });
        let read = pin!(async {
            let mut answers = match at_once {
                Poll::Ready(answers) => answers,
                Poll::Pending => turn.await,
            };
            // Whoever left before its turn has left its answer behind, and it must not be taken for ours.
            self.check()?;
            let mut breaks = Breaks(Some(self));
            self.pulse.expect(patience);
            let answer = async { read(answers.greeted().await?).await }.await;
            self.pulse.expect(Patience::Limited);
            if answer.is_ok() {
                breaks.done();
            }
            answer
        });
        // Nothing was awaited since it took its place in the queue. Dropped before `turn`, `write` and `read`.
        let mut breaks = Breaks(Some(self));
        let answer = match select(write, read).await {
            // A failed write means that the server is gone: what can still be read says more.
            Either::Left((_, read)) => read.await,
            // All of the answer can only have come after all of the request, but for a server that lies.
            Either::Right((Ok(answer), write)) => write.await.map(|()| answer),
            Either::Right((Err(error), _)) => Err(error),
        };
        match &answer {
            Ok(_) => {
                breaks.done();
                unfinished.done();
            }
            Err(_) => unfinished.failed(),
        }
        answer
    }

    /// Takes both directions, behind everybody who asks something now.
    pub(crate) async fn lease(self: &Arc<Self>) -> Result<Lease, ProtocolError> {
        let requests = Arc::clone(&self.requests).lock_owned().await;
        let answers = Arc::clone(&self.answers).lock_owned().await;
        self.check()?;
        let (breaks, unfinished) = (Breaks(Some(Arc::clone(self))), Unfinished(Some(Arc::clone(self))));
        Ok(Lease { breaks, session: Arc::clone(self), requests, answers, unfinished })
    }

    /// Ends a conversation that has nothing more to do.
    pub(crate) async fn close(&self) {
        self.requests.lock().await.close();
        self.broken.store(true, Ordering::Release);
        let mut process = self.process.lock().await;
        if let Process::Running(server) = std::mem::replace(&mut *process, Process::Closed) {
            server.end().await;
        }
    }

    /// Ends a conversation in the middle.
    fn abandon(&self) {
        self.broken.store(true, Ordering::Release);
        if let Ok(mut process) = self.process.try_lock() {
            // Dropping the process ends it.
            *process = Process::Abandoned;
        }
        self.close_streams();
    }

    /// Whether somebody has left in the middle, and taken the session with him.
    pub(crate) async fn is_abandoned(&self) -> bool {
        matches!(*self.process.lock().await, Process::Abandoned)
    }

    /// The server sees the end of its input, and nobody reads from it any more. Whoever is in the middle of either holds on to
    /// it only until it sees that the session is broken.
    fn close_streams(&self) {
        if let Ok(mut requests) = self.requests.try_lock() {
            requests.close();
        }
        if let Ok(mut answers) = self.answers.try_lock() {
            answers.close();
        }
    }

    /// Ends a conversation that failed with `error`, and finds out why. Whoever waits for an answer too gets the same.
    ///
    /// The second is whether the account let the command through.
    pub(crate) async fn explain(&self, error: ProtocolError) -> (Arc<RemoteError>, bool) {
        self.broken.store(true, Ordering::Release);
        let mut process = self.process.lock().await;
        // If this is given up before it knows why, nobody knows.
        let server = match std::mem::replace(&mut *process, Process::Abandoned) {
            Process::Running(server) => server,
            Process::Closed => {
                *process = Process::Closed;
                return (Arc::new(RemoteError::Closed), true);
            }
            Process::Abandoned => return (Arc::new(RemoteError::Closed), true),
            Process::Ended { error, has_started } => {
                let known = (Arc::clone(&error), has_started);
                *process = Process::Ended { error, has_started };
                return known;
            }
        };
        self.close_streams();
        let (mut error, mut has_started) = server.explain(&*self.connector, self.is_greeted(), error).await;
        if let Some(why) = self.turned_away.get() {
            (error, has_started) = (RemoteError::Refused(why.clone()), true);
        }
        let mut error = Arc::new(error);
        if let Some(what) = self.carried().and_then(Carried::what)
            && !(self.is_greeted() && error.is_the_servers_own())
        {
            error = Arc::new(RemoteError::Filtered { what, source: error });
        }
        *process = Process::Ended { error: Arc::clone(&error), has_started };
        (error, has_started)
    }
}

impl Requests {
    /// For whoever makes the host wait.
    pub(crate) const fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        let Some(stdin) = &mut self.stdin else {
            return Err(ProtocolError::Write(std::io::ErrorKind::BrokenPipe.into()));
        };
        if self.unsent.is_empty() {
            return write_all(stdin, bytes).await;
        }
        let mut first = std::mem::take(&mut self.unsent);
        first.extend_from_slice(bytes);
        write_all(stdin, &first).await
    }

    /// Lets the server see the end of its input.
    pub(crate) fn close(&mut self) {
        self.stdin = None;
    }
}

async fn write_all(stdin: &mut Writer, bytes: &[u8]) -> Result<(), ProtocolError> {
    stdin.write_all(bytes).await.map_err(ProtocolError::Write)?;
    stdin.flush().await.map_err(ProtocolError::Write)
}

impl Answers {
    /// For whoever knows what the host owes us.
    pub(crate) const fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// The reader, behind the server's greeting.
    pub(crate) async fn greeted(&mut self) -> Result<&mut WireReader<Reader>, ProtocolError> {
        if !self.greeted.load(Ordering::Acquire) {
            let other = |came: &[u8]| {
                let (findings, end) = Findings::find(came)?;
                Some((end, found(&findings).filter(|found| found.program == DAEMON)?))
            };
            match read_server_greeting_or(&mut self.reader, other).await? {
                Beginning::Greeting((version, noise)) => {
                    tracing::debug!(%version, "the server has greeted");
                    if let Some(found) = Findings::parse(&noise).as_ref().and_then(found) {
                        let _ = self.found.set(found);
                    }
                    self.note_greeted();
                }
                Beginning::Instead(daemon) => {
                    let _ = self.found.set(daemon);
                    return Err(ProtocolError::UnexpectedEnd { what: "the greeting of the serve protocol" });
                }
            }
        }
        Ok(&mut self.reader)
    }

    fn note_greeted(&self) {
        self.greeted.store(true, Ordering::Release);
        if let Some(greeted) = &self.on_greeting {
            greeted();
        }
    }

    /// Reads nothing more.
    pub(crate) fn close(&mut self) {
        drop(self.take_reader());
    }

    fn take_reader(&mut self) -> WireReader<Reader> {
        std::mem::replace(&mut self.reader, WireReader::new(Box::new(tokio::io::empty())))
    }
}

/// What a script reports to have become.
fn found(findings: &Findings) -> Option<Found> {
    let (program, why) = findings.became()?;
    Some(Found { program: program.to_owned(), why: why.to_owned() })
}

impl ServerProcess {
    /// Listens to its stderr; each line goes to `sink`.
    pub(crate) fn new(
        stderr: Reader,
        control: Box<dyn ChannelControl>,
        pulse: Pulse,
        program: String,
        sink: Option<LineSink>,
    ) -> Self {
        let stderr = StderrTail::collect(stderr, Some(pulse.note_lines(sink)));
        Self { stderr, control, pulse, program, is_script: false }
    }

    /// The silence that ended the connection to it, if that is what ended it.
    pub(crate) fn silence(&self) -> Option<Duration> {
        self.pulse.ended_after()
    }

    /// Waits for the end, and brings it about if it does not come by itself.
    ///
    /// The second text is what came on stderr since something of ours ran there, if that is known.
    pub(crate) async fn end(mut self) -> (Exit, String, Option<String>) {
        // Whoever was silent for so long has had its time.
        let time = if self.silence().is_some() { Duration::ZERO } else { TIME_TO_END };
        let exit = match tokio::time::timeout(time, self.control.wait()).await {
            Ok(exit) => exit,
            Err(_) => {
                self.control.kill();
                self.control.wait().await
            }
        };
        let stderr = self.stderr.finish().await;
        (exit.unwrap_or(Exit::Unknown), stderr, self.stderr.since_start())
    }

    async fn explain(
        self,
        connector: &dyn Connector,
        greeted: bool,
        error: ProtocolError,
    ) -> (RemoteError, bool) {
        let (program, silence, is_script) = (self.program.clone(), self.silence(), self.is_script);
        // What it says because it is ended explains nothing.
        let before = silence.map(|_| self.stderr.text());
        let (exit, stderr, since_start) = self.end().await;
        let stderr = before.unwrap_or(stderr);
        tracing::debug!(%exit, %error, "the server has ended");
        // Whoever says something wrong has greeted, or tried to: it is not the login that failed.
        let greeted = greeted || matches!(error, ProtocolError::UnsupportedVersion { .. });
        let noise = matches!(&error, ProtocolError::NoGreeting { noise, .. } if !noise.is_empty());
        let end = End::new(&exit, greeted, &stderr).since_start(since_start.as_deref()).said_on_stdout(noise);
        let end = if is_script { end } else { end.without_mark() };
        let has_started = end.has_started();
        let ending = Ending::of_service(connector, &end, &program);
        (Ended { exit, stderr, ending, greeted, program, silence }.into_error(error), has_started)
    }
}
