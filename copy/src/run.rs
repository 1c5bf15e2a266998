//! Carrying out a plan.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use ncc_store::{Destination, Outcome, Outputs, PathInfo, Source, StoreError, StorePath, ValidityQuery};

use crate::{CopyError, Event, Observer, OnFailure, Plan, Request, check::Checks, plan};

/// A number of paths with their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// How many paths.
    pub paths: usize,
    /// Bytes of their NARs.
    pub bytes: u64,
}

impl Total {
    fn add(&mut self, bytes: u64) {
        self.paths += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn of(infos: &[Arc<PathInfo>]) -> Self {
        let mut total = Self::default();
        for info in infos {
            total.add(info.nar_size);
        }
        total
    }
}

/// A path that could not be copied.
#[derive(Debug)]
pub struct Failed {
    /// The path.
    pub path: StorePath,
    /// Why; `None` where it refers to another one that failed, directly or not.
    pub error: Option<StoreError>,
}

/// What a copy has done.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// What the destination had already, or got from somebody else meanwhile.
    pub present: Total,
    /// What it substituted.
    pub substituted: Total,
    /// What was sent and is registered.
    pub sent: Total,
    /// What was to be sent and is not registered.
    pub unsent: Total,
    /// The paths among those that failed by themselves, then those that failed because of one that did, references
    /// before their referrers. With [`OnFailure::Stop`] others may be unsent that were never tried.
    pub failed: Vec<Failed>,
    /// How long sending took.
    pub elapsed: Duration,
}

/// Plans and runs.
///
/// # Errors
/// [`CopyError`].
pub async fn copy(
    source: &dyn Source,
    destination: &dyn Destination,
    request: &Request,
    observer: &Arc<dyn Observer>,
) -> Result<Report, CopyError> {
    let plan = plan(source, destination, request, observer).await?;
    run(source, destination, &plan, request.on_failure, observer).await
}

/// Sends what a plan says, then asks the destination whether all roots are valid.
///
/// # Errors
/// [`CopyError::Interrupted`], [`CopyError::Failed`], [`CopyError::RootMissing`], each with a report of what has been
/// done.
pub async fn run(
    source: &dyn Source,
    destination: &dyn Destination,
    plan: &Plan,
    on_failure: OnFailure,
    observer: &Arc<dyn Observer>,
) -> Result<Report, CopyError> {
    let start = Instant::now();
    let mut report = Report {
        present: Total::of(&plan.present),
        substituted: Total::of(&plan.substituted),
        ..Report::default()
    };
    let mut sending = Sending {
        ends: (source, destination),
        plan,
        on_failure,
        observer,
        open: plan.to_send.iter().map(|info| (&info.path, info)).collect(),
        doubtful: HashSet::new(),
    };
    let interrupted = sending.send_all(&mut report).await.err();
    let open = sending.open;
    report.elapsed = start.elapsed();
    for info in open.values() {
        report.unsent.add(info.nar_size);
    }
    if let Some(source) = interrupted {
        return Err(CopyError::Interrupted { report: Box::new(report), source });
    }
    if !report.failed.is_empty() {
        let dependants = dependants(&plan.to_send, &report.failed);
        report.failed.extend(dependants.into_iter().map(|path| Failed { path, error: None }));
        return Err(CopyError::Failed { report: Box::new(report) });
    }
    check_roots(destination, plan, report, observer).await
}

/// What is still to be done.
struct Sending<'a> {
    ends: (&'a dyn Source, &'a dyn Destination),
    plan: &'a Plan,
    on_failure: OnFailure,
    observer: &'a Arc<dyn Observer>,
    /// Not registered yet.
    open: BTreeMap<&'a StorePath, &'a Arc<PathInfo>>,
    /// Paths with which a connection has ended once, which may have had another reason.
    doubtful: HashSet<StorePath>,
}

impl Sending<'_> {
    /// Sends everything; where failures are to be passed over, in as many rounds as that takes.
    ///
    /// A path that fails in the middle of its NAR takes the connection with it. Each further round has one such path less,
    /// or tries one for the last time, so there is an end.
    async fn send_all(&mut self, report: &mut Report) -> Result<(), StoreError> {
        let mut paths = self.plan.to_send.clone();
        while !paths.is_empty() {
            let failed_before = report.failed.len();
            let Err(error) = self.send(paths, report).await else { break };
            if self.on_failure == OnFailure::Stop {
                return Err(error);
            }
            let tried_in_vain = match error.path() {
                Some(path) if self.open.contains_key(path) => self.blame(path.clone(), error, report),
                _ => Some(error),
            };
            match tried_in_vain {
                Some(error) if report.failed.len() == failed_before => return Err(error),
                _ => paths = self.rest(report).await?,
            }
        }
        Ok(())
    }

    /// Decides about a path with which a round has ended. Gives the error back if it says nothing new.
    fn blame(&mut self, path: StorePath, error: StoreError, report: &mut Report) -> Option<StoreError> {
        if report.failed.iter().any(|failed| failed.path == path) {
            return Some(error);
        }
        let is_wrong = matches!(error, StoreError::HashMismatch { .. } | StoreError::SizeMismatch { .. });
        if is_wrong || !self.doubtful.insert(path.clone()) {
            self.observer.event(Event::Failed(&path, &error));
            report.failed.push(Failed { path, error: Some(error) });
        }
        None
    }

    /// What is left to send in a new round, with both sides asked again: a connection that ended has taken its protection
    /// from the garbage collector with it, and has registered more than it could answer.
    async fn rest(&mut self, report: &mut Report) -> Result<Vec<Arc<PathInfo>>, StoreError> {
        let (source, destination) = self.ends;
        self.observer.event(Event::StartingAgain);
        let closure: Vec<_> =
            self.plan.present.iter().chain(&self.plan.substituted).chain(&self.plan.to_send).collect();
        let closure: Vec<_> = closure.into_iter().map(|info| info.path.clone()).collect();
        for path in destination.valid_paths(&closure, ValidityQuery::default().locking()).await? {
            if let Some(info) = self.open.remove(&path) {
                report.sent.add(info.nar_size);
                self.observer.event(Event::Registered(&path));
            }
        }
        let hopeless: HashSet<_> = dependants(&self.plan.to_send, &report.failed).into_iter().collect();
        let is_failed = |path: &StorePath| report.failed.iter().any(|failed| failed.path == *path);
        let wanted =
            |path: &StorePath| self.open.contains_key(path) && !hopeless.contains(path) && !is_failed(path);
        let rest: Vec<_> = self.plan.to_send.iter().filter(|info| wanted(&info.path)).cloned().collect();
        let roots: Vec<_> = rest.iter().map(|info| info.path.clone()).collect();
        if !roots.is_empty() {
            source.closure(&roots, Outputs::Exclude).await?;
        }
        Ok(rest)
    }

    /// One round.
    async fn send(&mut self, paths: Vec<Arc<PathInfo>>, report: &mut Report) -> Result<(), StoreError> {
        let (source, destination) = self.ends;
        let checks = Checks::new(source.name(), self.observer, self.on_failure);
        let nars = checks.clone().watch(source.nars(paths));
        let mut outcomes = destination.add_many(nars);
        while let Some(outcome) = outcomes.next().await {
            match outcome? {
                Outcome::Failed { path, error } => {
                    self.observer.event(Event::Failed(&path, &error));
                    checks.mark_failed(&path);
                    report.failed.push(Failed { path, error: Some(error) });
                }
                Outcome::Added(path) => {
                    if let Some(info) = self.open.remove(&path) {
                        report.sent.add(info.nar_size);
                        self.observer.event(Event::Registered(&path));
                    }
                }
                // Somebody else has brought it meanwhile.
                Outcome::AlreadyValid(path) => {
                    if let Some(info) = self.open.remove(&path) {
                        report.present.add(info.nar_size);
                        self.observer.event(Event::Registered(&path));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// What refers to a path that failed, directly or not. `infos` are in topological order.
fn dependants(infos: &[Arc<PathInfo>], failed: &[Failed]) -> Vec<StorePath> {
    let mut hopeless: HashSet<&StorePath> = failed.iter().map(|failed| &failed.path).collect();
    let mut dependants = Vec::new();
    for info in infos {
        if !hopeless.contains(&info.path)
            && info.other_references().any(|reference| hopeless.contains(reference))
        {
            hopeless.insert(&info.path);
            dependants.push(info.path.clone());
        }
    }
    dependants
}

/// The streams said that all is well; this is the only thing that proves it.
async fn check_roots(
    destination: &dyn Destination,
    plan: &Plan,
    report: Report,
    observer: &Arc<dyn Observer>,
) -> Result<Report, CopyError> {
    observer.event(Event::Checking);
    let valid = destination.valid_paths(&plan.roots, ValidityQuery::default()).await;
    let valid = match valid {
        Ok(valid) => valid,
        Err(source) => return Err(CopyError::Interrupted { report: Box::new(report), source }),
    };
    match plan.roots.iter().find(|root| !valid.contains(*root)) {
        None => Ok(report),
        Some(missing) => Err(CopyError::RootMissing {
            store: destination.name().to_owned(),
            path: destination.store_dir().full(missing),
            report: Box::new(report),
        }),
    }
}
