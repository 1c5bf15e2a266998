//! Copying to a daemon's store.

use std::{
    collections::{BTreeSet, HashSet},
    pin::pin,
    sync::Arc,
};

use futures_util::{StreamExt as _, future::BoxFuture};
use ncc_protocol::{
    ProtocolError,
    worker::{AddOptions, AnswerError, Daemon, DerivedPath, Feature, NarForm, NarWriter, Request, Trust},
};
use ncc_store::{
    Destination, NarPlan, NarSource, OnFailure, Outcome, Outcomes, PathInfo, PlanQueue, Scope, Side,
    StoreDir, StoreError, StorePath, StorePathSet, Takes, ValidityQuery,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    DaemonStore, Shared, Work,
    ahead::{Window, queue},
    both,
};
use crate::{
    RemoteError,
    destination::{OutcomeSender, WRITE_AT, next, outcomes_of},
    session::{Answers, Requests},
    silence::Patience,
};

/// From here on a daemon substitutes when it is asked what is valid.
const SUBSTITUTING: u8 = 27;

impl Destination for DaemonStore {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn store_dir(&self) -> &StoreDir {
        self.shared.store_dir()
    }

    /// One round trip: all paths are protected, and the question is put right behind.
    fn valid_paths<'a>(
        &'a self,
        paths: &'a [StorePath],
        query: ValidityQuery,
    ) -> BoxFuture<'a, Result<BTreeSet<StorePath>, StoreError>> {
        Box::pin(async move {
            let action = "say which paths are valid";
            let mut work = self.shared.begin(Side::Destination, action).await?;
            let result = valid_paths(&self.shared, &mut work, paths.iter().cloned().collect(), query).await;
            self.shared.end(work, Side::Destination, action, result).await
        })
    }

    fn substitutable<'a>(
        &'a self,
        paths: &'a [StorePath],
    ) -> BoxFuture<'a, Result<Option<BTreeSet<StorePath>>, StoreError>> {
        Box::pin(async move {
            let action = "say what it would substitute";
            let mut work = self.shared.begin(Side::Destination, action).await?;
            let result = substitutable(&self.shared, &mut work, paths).await;
            self.shared.end(work, Side::Destination, action, result).await
        })
    }

    fn takes(&self) -> BoxFuture<'_, Result<Takes, StoreError>> {
        Box::pin(async move {
            let work = self.shared.begin(Side::Destination, "say which paths it takes").await?;
            let trust = work.daemon.trust;
            work.lease.give_back();
            Ok(match trust {
                Some(Trust::NotTrusted) => Takes::Signed,
                Some(Trust::Trusted) if self.shared.options.check_signatures => Takes::Signed,
                Some(Trust::Trusted) => Takes::Anything,
                // It is older than the question, or does not know either.
                _ => Takes::Unknown,
            })
        })
    }

    /// A path that the daemon refuses costs the others nothing, and so does one whose NAR fails on its way, from Nix 2.4 on.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    fn add_all(&self, plan: NarPlan, nars: Arc<dyn NarSource>, on_failure: OnFailure) -> Outcomes {
        let shared = Arc::clone(&self.shared);
        let queue = PlanQueue::new(plan, on_failure);
        outcomes_of(|outcomes| async move {
            let work = shared.begin(Side::Destination, "add paths").await?;
            add_all(&shared, work, queue, nars, &outcomes).await
        })
    }
}

async fn valid_paths(
    shared: &Shared,
    work: &mut Work,
    paths: StorePathSet,
    query: ValidityQuery,
) -> Result<BTreeSet<StorePath>, AnswerError> {
    let Work { lease, daemon, window } = work;
    if query.substitute && daemon.version.minor() < SUBSTITUTING {
        tracing::warn!(
            "{} is too old to substitute when it is asked (Nix 2.4 is needed): everything is sent",
            shared.name
        );
    }
    let (asking, asked) = queue(shared.store_dir(), daemon);
    let mut roots = 0;
    if query.lock && daemon.has(Feature::AddTempRoots) {
        asking.ask(&Request::AddTempRoots { paths: paths.clone() })?;
        roots = 1;
    } else if query.lock {
        for path in &paths {
            asking.ask(&Request::AddTempRoot { path: path.clone() })?;
            roots += 1;
        }
    }
    let question = Request::QueryValidPaths { paths: paths.clone(), substitute: query.substitute };
    asking.ask(&question)?;
    drop(asking);
    let (requests, answers) = (&mut lease.requests, &mut lease.answers);
    let patience = if query.substitute { Patience::Unlimited } else { Patience::Limited };
    let read = async {
        answers.pulse().expect(patience);
        for _ in 0..roots {
            shared.answers(answers, daemon).done().await?;
            window.leave();
        }
        let valid = shared.answers(answers, daemon).paths(&paths).await?;
        answers.pulse().expect(Patience::Limited);
        Ok(valid)
    };
    both(asked.write(requests, window), read).await
}

async fn substitutable(
    shared: &Shared,
    work: &mut Work,
    paths: &[StorePath],
) -> Result<Option<BTreeSet<StorePath>>, AnswerError> {
    let Work { lease, daemon, window } = work;
    let (asking, asked) = queue(shared.store_dir(), daemon);
    asking.ask(&Request::QueryMissing { wanted: paths.iter().cloned().map(DerivedPath::Path).collect() })?;
    drop(asking);
    let (requests, answers) = (&mut lease.requests, &mut lease.answers);
    let read = async {
        answers.pulse().expect(Patience::Unlimited);
        let missing = shared.answers(answers, daemon).missing().await?;
        answers.pulse().expect(Patience::Limited);
        Ok(Some(paths.iter().filter(|path| missing.substitute.contains(*path)).cloned().collect()))
    };
    both(asked.write(requests, window), read).await
}

/// What an answer, or the place of one, is about. Kept in the order of the requests.
enum Expected {
    Answer {
        info: Arc<PathInfo>,
        /// Why its NAR was cut, if it was; nothing where that is said elsewhere.
        cut: oneshot::Receiver<Option<StoreError>>,
    },
    Failed(StorePath, StoreError),
}

/// How the writing side ended.
enum Written {
    /// Everything that could be sent was: `Err` is the source's own failure.
    All(Result<(), StoreError>),
    /// A NAR failed when its beginning was out, and this daemon has no other way to be told than the end of the stream.
    Cut(StoreError),
    /// The daemon takes no more bytes. Its answers say why.
    Refused,
}

/// Why the answers ended early.
enum Unread {
    /// It did not come for this path.
    Broken(StorePath, ProtocolError),
    /// Nothing more can be asked.
    Final(StoreError),
}

pub(crate) async fn add_all(
    shared: &Shared,
    mut work: Work,
    queue: PlanQueue,
    nars: Arc<dyn NarSource>,
    outcomes: &OutcomeSender,
) -> Result<(), StoreError> {
    let (written, read) = {
        let Work { lease, daemon, window } = &mut work;
        let (daemon, window) = (&*daemon, &*window);
        let (requests, answers) = (&mut lease.requests, &mut lease.answers);
        let (expected, expecting) = mpsc::unbounded_channel();
        let (failing, failed) = mpsc::unbounded_channel();
        let mut writing = pin!(async move {
            let mut adding = Adding { shared, daemon, window, requests, expected, buffer: Vec::new() };
            let written = adding.write_all(queue, &*nars, failed).await;
            if matches!(written, Written::Cut(_)) {
                adding.requests.close();
            }
            written
        });
        // The reader always runs: a daemon whose answers nobody reads stops reading too. It ends when all that is expected has been
        // answered, or at the end of the stream, whatever the writer does.
        let mut reading = pin!(read_all(shared, daemon, window, answers, expecting, failing, outcomes));
        let mut written = None;
        let read = loop {
            tokio::select! {
                read = &mut reading => break read,
                result = &mut writing, if written.is_none() => written = Some(result),
            }
        };
        (written, read)
    };
    match (written, read) {
        (Some(Written::All(result)), Ok(())) => {
            work.lease.give_back();
            result
        }
        (_, Err(Unread::Final(error))) | (Some(Written::Cut(error)), _) => Err(error),
        (_, read) => {
            let (path, error) = match read {
                Err(Unread::Broken(path, error)) => (Some(path), error),
                _ => (None, ProtocolError::UnexpectedEnd { what: "answers to added paths" }),
            };
            let action = if path.is_some() { "add" } else { "add paths" };
            let error = work.lease.explain(error).await;
            Err(shared.failed(Side::Destination, action, path.as_ref(), error))
        }
    }
}

/// The writing side of an addition.
struct Adding<'a> {
    shared: &'a Shared,
    daemon: &'a Daemon,
    window: &'a Window,
    requests: &'a mut Requests,
    expected: mpsc::UnboundedSender<Expected>,
    /// Small NARs are gathered here before they are written.
    buffer: Vec<u8>,
}

/// Why a path was not written.
enum NotWritten {
    /// Nothing of it is out: that costs this path alone.
    Path(StoreError),
    /// The daemon will refuse it, for it was cut.
    Cut,
    /// Nothing more can be written.
    All(Written),
}

/// It is the writing that failed.
impl From<ProtocolError> for NotWritten {
    fn from(_: ProtocolError) -> Self {
        Self::All(Written::Refused)
    }
}

impl Adding<'_> {
    async fn write_all(
        &mut self,
        mut queue: PlanQueue,
        nars: &dyn NarSource,
        mut failed: mpsc::UnboundedReceiver<StorePath>,
    ) -> Written {
        loop {
            while let Ok(path) = failed.try_recv() {
                queue.mark_failed(&path);
            }
            let Some(info) = queue.next() else { break };
            match self.write_nar(&info, nars).await {
                Ok(()) => {}
                Err(NotWritten::Cut) => queue.mark_failed(&info.path),
                Err(NotWritten::Path(error)) => {
                    queue.mark_failed(&info.path);
                    let _ = self.expected.send(Expected::Failed(info.path.clone(), error));
                }
                Err(NotWritten::All(written)) => {
                    // The complete paths in front of the one that failed.
                    let complete = self.requests.write(&self.buffer).await;
                    return if complete.is_err() { Written::Refused } else { written };
                }
            }
        }
        if self.requests.write(&self.buffer).await.is_err() { Written::Refused } else { Written::All(Ok(())) }
    }

    /// Writes one path. What fails before the first block is out costs nothing but that path.
    async fn write_nar(&mut self, info: &Arc<PathInfo>, nars: &dyn NarSource) -> Result<(), NotWritten> {
        let before = |error: StoreError| match error.scope() {
            Scope::Path => NotWritten::Path(error),
            Scope::Connection | Scope::Store => NotWritten::All(Written::All(Err(error))),
        };
        if info.nar_size == 0 {
            let error = RemoteError::NoSize;
            return Err(before(self.shared.failed(Side::Destination, "add", Some(&info.path), error)));
        }
        let body = next(nars.open(info, 0), self.requests, &mut self.buffer).await?.map_err(before)?;
        let mut body = body.verified(info, nars.store());
        // What is verified is not empty, or it is wrong.
        let Some(block) = next(body.next(), self.requests, &mut self.buffer).await? else { return Ok(()) };
        let mut block = block.map_err(before)?;
        self.window.enter(self.requests, &mut self.buffer).await?;
        let mut options = AddOptions::default();
        // The daemon ignores this where it does not trust the user.
        options.without_signatures = !self.shared.options.check_signatures;
        Request::encode_add(info, options, self.shared.store_dir(), &mut self.buffer);
        self.requests.pulse().owe(info.nar_size);
        let (cutting, cut) = oneshot::channel();
        let _ = self.expected.send(Expected::Answer { info: Arc::clone(info), cut });
        let mut nar = NarWriter::new(self.daemon.version);
        loop {
            nar.put(&block, &mut self.buffer);
            if self.buffer.len() >= WRITE_AT {
                self.requests.write(&self.buffer).await?;
                self.buffer.clear();
            }
            block = match self.requests.pulse().on_our_turn(body.next()).await {
                Some(Ok(block)) => block,
                None => {
                    nar.finish(&mut self.buffer);
                    return Ok(());
                }
                Some(Err(error)) if NarForm::of(self.daemon.version) == NarForm::Framed => {
                    // The frames can end here. What came is no whole NAR, or not the right one: the daemon refuses it, and goes on
                    // with the next request.
                    let is_about_the_path = error.scope() == Scope::Path;
                    let (mine, rest) =
                        if is_about_the_path { (Some(error), None) } else { (None, Some(error)) };
                    let _ = cutting.send(mine);
                    nar.finish(&mut self.buffer);
                    return Err(match rest {
                        None => NotWritten::Cut,
                        Some(error) => NotWritten::All(Written::All(Err(error))),
                    });
                }
                Some(Err(error)) => return Err(NotWritten::All(Written::Cut(error))),
            };
        }
    }
}

/// Reads the answers, and tells the writer which paths `failed`, so that it passes over what refers to them.
async fn read_all(
    shared: &Shared,
    daemon: &Daemon,
    window: &Window,
    answers: &mut Answers,
    mut expecting: mpsc::UnboundedReceiver<Expected>,
    failing: mpsc::UnboundedSender<StorePath>,
    outcomes: &OutcomeSender,
) -> Result<(), Unread> {
    let mut failed = HashSet::new();
    let in_step = NarForm::of(daemon.version) == NarForm::Framed;
    while let Some(expected) = expecting.recv().await {
        let (info, mut cut) = match expected {
            Expected::Answer { info, cut } => (info, cut),
            Expected::Failed(path, error) => {
                failed.insert(path.clone());
                let _ = outcomes.send(Ok(Outcome::Failed { path, error })).await;
                continue;
            }
        };
        let answer = shared.answers(answers, daemon).added().await;
        answers.pulse().settle(info.nar_size);
        window.leave();
        let outcome = match answer {
            Ok(()) => Outcome::Added(info.path.clone()),
            Err(AnswerError::Broken(error)) => return Err(Unread::Broken(info.path.clone(), error)),
            Err(AnswerError::Refused(refusal)) => {
                failed.insert(info.path.clone());
                let _ = failing.send(info.path.clone());
                let path = info.path.clone();
                let error = match cut.try_recv() {
                    Ok(Some(error)) => error,
                    // What the source failed at ends the stream.
                    Ok(None) => continue,
                    Err(_) => shared.refused(Side::Destination, "add", &path, refusal),
                };
                // An old daemon refuses without having read the NAR, and takes it for requests.
                if error.scope() != Scope::Path || !in_step {
                    return Err(Unread::Final(error));
                }
                // It was on its way when what it refers to was refused.
                if info.other_references().any(|reference| failed.contains(reference)) {
                    continue;
                }
                Outcome::Failed { path, error }
            }
        };
        let _ = outcomes.send(Ok(outcome)).await;
    }
    Ok(())
}
