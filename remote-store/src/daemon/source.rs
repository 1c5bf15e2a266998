//! Copying from a daemon's store.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use futures_util::future::{BoxFuture, Either, select};
use ncc_protocol::{
    ProtocolError,
    wire::COUNT_LIMIT,
    worker::{AnswerError, Daemon, DaemonError, Request},
};
use ncc_store::{
    Closure, NarPlan, NarSource, Outputs, PathInfo, Problem, Side, Source, StoreDir, StoreError, StorePath,
};

use super::{
    DaemonStore, Shared, Work,
    ahead::{Asking, queue},
    both,
};
use crate::{
    RemoteError,
    handing::{BlockSender, Blocks, NarSender, announce, hand_over, handed_over},
    requisites::Listing,
    store::session_ended,
};

impl Source for DaemonStore {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn store_dir(&self) -> &StoreDir {
        self.shared.store_dir()
    }

    /// As many round trips as the graph is deep: each path is asked for as soon as something refers to it. On a host that lists a
    /// closure beside its daemon it is a handful, however deep it is. The roots are protected from the garbage collector first, and
    /// with them all that they refer to.
    fn closure<'a>(
        &'a self,
        roots: &'a [StorePath],
        outputs: Outputs,
    ) -> BoxFuture<'a, Result<Closure, StoreError>> {
        Box::pin(async move {
            let action = "compute the closure";
            let mut work = self.shared.begin(Side::Source, action).await?;
            let result = closure(&self.shared, &mut work, roots, outputs).await;
            self.shared.end(work, Side::Source, action, result).await
        })
    }

    fn path_infos<'a>(&'a self, paths: &'a [StorePath]) -> BoxFuture<'a, Result<Vec<PathInfo>, StoreError>> {
        Box::pin(async move {
            let action = "describe paths";
            let mut work = self.shared.begin(Side::Source, action).await?;
            let result = path_infos(&self.shared, &mut work, paths).await;
            self.shared.end(work, Side::Source, action, result).await
        })
    }

    /// # Panics
    /// Outside of a tokio runtime.
    fn nars(&self, plan: NarPlan) -> Arc<dyn NarSource> {
        let (shared, sending) = (Arc::clone(&self.shared), Arc::clone(&self.shared));
        let begin = async move { shared.begin(Side::Source, "send paths").await };
        handed_over(&self.shared.name, plan, begin, |work, plan, nars| send_nars(sending, work, plan, nars))
    }
}

async fn path_infos(
    shared: &Shared,
    work: &mut Work,
    paths: &[StorePath],
) -> Result<Vec<PathInfo>, AnswerError> {
    let Work { lease, daemon, window } = work;
    let paths: BTreeSet<&StorePath> = paths.iter().collect();
    let (asking, asked) = queue(shared.store_dir(), daemon);
    for path in &paths {
        asking.ask(&Request::QueryPathInfo { path: (*path).clone() })?;
    }
    drop(asking);
    let (requests, answers) = (&mut lease.requests, &mut lease.answers);
    let read = async {
        let mut infos = Vec::new();
        for path in &paths {
            infos.extend(shared.answers(answers, daemon).path_info(path).await?);
            window.leave();
        }
        Ok(infos)
    };
    both(asked.write(requests, window), read).await
}

/// The walk has waited so often for an answer that told it what to ask next, before it has the closure listed: most closures are
/// hardly deeper, and a list costs the host a process.
const DEEP: usize = 6;

/// What was asked while a closure is walked.
enum Step {
    Kept,
    Described {
        path: StorePath,
        /// How many answers led to it, one after another.
        depth: usize,
    },
    Outputs {
        derivation: StorePath,
        depth: usize,
        /// Whether the daemon says which is which.
        by_name: bool,
    },
}

/// A walk over the references of a store: what is still to be answered, and what was found.
struct Walk<'a> {
    asking: Asking<'a>,
    steps: VecDeque<Step>,
    asked: HashSet<StorePath>,
    outputs: Outputs,
    /// Everything that belongs to the closure, described or not.
    needed: HashSet<StorePath>,
    /// Described because it was listed; it may turn out to belong to the closure.
    ahead: HashMap<StorePath, PathInfo>,
    infos: Vec<PathInfo>,
    failed: Vec<(StorePath, StoreError)>,
    lacking: BTreeSet<StorePath>,
}

impl Walk<'_> {
    /// Keeps what nothing else in the closure keeps.
    fn keep(&mut self, path: &StorePath) -> Result<(), ProtocolError> {
        self.asking.ask(&Request::AddTempRoot { path: path.clone() })?;
        self.steps.push_back(Step::Kept);
        Ok(())
    }

    /// Asks for the metadata of a path, once.
    fn describe(&mut self, path: &StorePath, depth: usize) -> Result<(), ProtocolError> {
        if !self.asked.insert(path.clone()) {
            return Ok(());
        }
        if self.asked.len() as u64 > COUNT_LIMIT {
            let (announced, limit) = (self.asked.len() as u64, COUNT_LIMIT);
            return Err(ProtocolError::TooLarge { what: "a closure", announced, limit });
        }
        self.asking.ask(&Request::QueryPathInfo { path: path.clone() })?;
        self.steps.push_back(Step::Described { path: path.clone(), depth });
        Ok(())
    }

    /// Goes on with paths that belong to the closure, and with what those refer to that are described already.
    fn need(
        &mut self,
        paths: impl IntoIterator<Item = StorePath>,
        depth: usize,
        daemon: &Daemon,
    ) -> Result<(), ProtocolError> {
        let mut next: Vec<StorePath> = paths.into_iter().collect();
        while let Some(path) = next.pop() {
            if !self.needed.insert(path.clone()) {
                continue;
            }
            match self.ahead.remove(&path) {
                Some(info) => next.extend(self.take(info, depth, daemon)?),
                None => self.describe(&path, depth)?,
            }
        }
        Ok(())
    }

    /// Takes a path into the closure. Gives what it refers to.
    fn take(
        &mut self,
        info: PathInfo,
        depth: usize,
        daemon: &Daemon,
    ) -> Result<Vec<StorePath>, ProtocolError> {
        if self.outputs == Outputs::Include && info.path.is_derivation() {
            self.ask_outputs(info.path.clone(), depth, daemon)?;
        }
        let references = info.other_references().cloned().collect();
        self.infos.push(info);
        Ok(references)
    }

    /// The metadata of a path has come.
    fn found(&mut self, info: PathInfo, depth: usize, daemon: &Daemon) -> Result<(), ProtocolError> {
        if !self.needed.contains(&info.path) {
            self.ahead.insert(info.path.clone(), info);
            return Ok(());
        }
        let references = self.take(info, depth, daemon)?;
        self.need(references, depth + 1, daemon)
    }

    /// Asks a daemon for the outputs of a derivation, in the way that it knows.
    fn ask_outputs(
        &mut self,
        derivation: StorePath,
        depth: usize,
        daemon: &Daemon,
    ) -> Result<(), ProtocolError> {
        let mut request = Request::QueryDerivationOutputMap { path: derivation.clone() };
        let by_name = request.check(daemon).is_ok();
        if !by_name {
            request = Request::QueryDerivationOutputs { path: derivation.clone() };
        }
        self.steps.push_back(Step::Outputs { derivation, depth, by_name });
        self.asking.ask(&request)
    }

    /// What was found, once everything is answered. What was only listed is no part of it.
    fn end(self, shared: &Shared) -> Closure {
        let Self { needed, mut infos, mut failed, lacking, .. } = self;
        failed.retain(|(path, _)| needed.contains(path));
        infos.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        for path in lacking.into_iter().filter(|path| needed.contains(path)) {
            let problem = Problem::NotValid { path: shared.store_dir().full(&path) };
            failed.push((path, StoreError::new(Side::Source, shared.name.as_str(), problem)));
        }
        Closure { infos, failed }
    }
}

async fn closure(
    shared: &Shared,
    work: &mut Work,
    roots: &[StorePath],
    outputs: Outputs,
) -> Result<Closure, AnswerError> {
    let Work { lease, daemon, window } = work;
    let (asking, asked) = queue(shared.store_dir(), daemon);
    let mut walk = Walk {
        asking,
        steps: VecDeque::new(),
        asked: HashSet::new(),
        outputs,
        needed: HashSet::new(),
        ahead: HashMap::new(),
        infos: Vec::new(),
        failed: Vec::new(),
        lacking: BTreeSet::new(),
    };
    for root in roots {
        walk.keep(root)?;
        walk.need([root.clone()], 0, daemon)?;
    }
    let (requests, answers) = (&mut lease.requests, &mut lease.answers);
    let (daemon, window) = (&*daemon, &*window);
    let read = async move {
        let mut listing = None;
        let mut is_deep = false;
        while let Some(step) = walk.steps.pop_front() {
            let mut next = shared.answers(answers, daemon);
            match step {
                Step::Kept => next.done().await?,
                Step::Described { path, depth } => {
                    if depth >= DEEP && !is_deep {
                        is_deep = true;
                        listing = shared.list(roots);
                    }
                    match next.path_info(&path).await {
                        Ok(Some(info)) => walk.found(info, depth, daemon)?,
                        Ok(None) => {
                            walk.lacking.insert(path);
                        }
                        Err(AnswerError::Refused(error)) => {
                            let error = shared.refused(Side::Source, "describe", &path, error);
                            walk.failed.push((path, error));
                        }
                        Err(broken) => return Err(broken),
                    }
                    for listed in listing.as_mut().and_then(Listing::take).into_iter().flatten() {
                        walk.describe(&listed, depth + 1)?;
                    }
                }
                Step::Outputs { derivation, depth, by_name } => {
                    let outputs = if by_name {
                        next.outputs().await.map(|outputs| outputs.into_values().flatten().collect())
                    } else {
                        next.output_paths().await
                    };
                    match outputs {
                        // Nothing else keeps them.
                        Ok(outputs) => {
                            let outputs: BTreeSet<StorePath> = outputs;
                            outputs.iter().try_for_each(|output| walk.keep(output))?;
                            walk.need(outputs, depth + 1, daemon)?;
                        }
                        Err(AnswerError::Refused(error)) => {
                            let error =
                                shared.refused(Side::Source, "say the outputs of", &derivation, error);
                            walk.failed.push((derivation, error));
                        }
                        Err(broken) => return Err(broken),
                    }
                }
            }
            window.leave();
        }
        Ok(walk.end(shared))
    };
    both(asked.write(requests, window), read).await
}

impl Shared {
    /// What the daemon refused about one path.
    pub(super) fn refused(
        &self,
        side: Side,
        action: &'static str,
        path: &StorePath,
        error: DaemonError,
    ) -> StoreError {
        self.failed(side, action, Some(path), RemoteError::Refused(error))
    }
}

/// Asks for all NARs ahead and hands each on as it comes.
pub(crate) async fn send_nars(shared: Arc<Shared>, mut work: Work, paths: NarPlan, nars: NarSender) {
    let (path, error, blocks) = match transfer(&shared, &mut work, &paths, &nars).await {
        Transferred::All => return work.lease.give_back(),
        Transferred::Unwanted => return,
        Transferred::Failed { path, error, blocks } => (path, error, blocks),
    };
    let error = match error {
        // The connection ends with this, and with it all that was asked behind.
        AnswerError::Refused(error) => {
            drop(work);
            Arc::new(RemoteError::Refused(error))
        }
        AnswerError::Broken(error) => work.lease.explain(error).await,
    };
    let failed = shared.failed(Side::Source, "send", Some(&path), Arc::clone(&error));
    // In the body of the NAR that was cut; and in the place of the next one, that the connection has ended.
    let _ = blocks.send(Err(failed)).await;
    let _ = nars.send(Err(session_ended(&shared.name, Side::Source, "send paths", error))).await;
}

enum Transferred {
    /// Every NAR was handed over, or passed over at the wish of whoever took it.
    All,
    /// Nobody takes NARs any more.
    Unwanted,
    /// There is no more to be had, since `path` was awaited.
    Failed { path: StorePath, error: AnswerError, blocks: BlockSender },
}

async fn transfer(
    shared: &Shared,
    work: &mut Work,
    paths: &[Arc<PathInfo>],
    nars: &NarSender,
) -> Transferred {
    let Work { lease, daemon, window } = work;
    let (daemon, window) = (&*daemon, &*window);
    let (asking, asked) = queue(shared.store_dir(), daemon);
    for info in paths {
        // Every daemon knows this request.
        let _ = asking.ask(&Request::NarFromPath { path: info.path.clone() });
    }
    drop(asking);
    let (requests, answers) = (&mut lease.requests, &mut lease.answers);
    let take = async {
        for info in paths {
            let Some(blocks) = announce(info, nars).await else { return Transferred::Unwanted };
            let taken = async {
                let archive = shared.answers(answers, daemon).nar().await?;
                hand_over(&mut answers.reader, Blocks::Daemon(archive), &blocks, nars).await
            };
            match taken.await {
                Ok(true) => window.leave(),
                Ok(false) => return Transferred::Unwanted,
                Err(error) => return Transferred::Failed { path: info.path.clone(), error, blocks },
            }
        }
        Transferred::All
    };
    let (ask, take) = (std::pin::pin!(asked.write(requests, window)), std::pin::pin!(take));
    match select(ask, take).await {
        // If the daemon is gone, reading tells why.
        Either::Left((_, take)) => take.await,
        // Answers to requests that it has not read: all that is left to say is not heard then.
        Either::Right((Transferred::All, _)) => Transferred::Unwanted,
        Either::Right((transferred, _)) => transferred,
    }
}
