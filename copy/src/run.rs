//! Carrying out a plan.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use ncc_store::{Destination, Outcome, PathInfo, Source, StoreError, StorePath, ValidityQuery};

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
    let mut open: BTreeMap<&StorePath, &Arc<PathInfo>> =
        plan.to_send.iter().map(|info| (&info.path, info)).collect();
    let mut interrupted = None;
    if !plan.to_send.is_empty() {
        let checks = Checks::new(source.name(), observer, on_failure);
        let nars = checks.clone().watch(source.nars(plan.to_send.clone()));
        let mut outcomes = destination.add_many(nars);
        while let Some(outcome) = outcomes.next().await {
            match outcome {
                Ok(Outcome::Failed { path, error }) => {
                    observer.event(Event::Failed(&path, &error));
                    checks.mark_failed(&path);
                    report.failed.push(Failed { path, error: Some(error) });
                }
                Ok(Outcome::Added(path)) => {
                    if let Some(info) = open.remove(&path) {
                        report.sent.add(info.nar_size);
                        observer.event(Event::Registered(&path));
                    }
                }
                // Somebody else has brought it meanwhile.
                Ok(Outcome::AlreadyValid(path)) => {
                    if let Some(info) = open.remove(&path) {
                        report.present.add(info.nar_size);
                        observer.event(Event::Registered(&path));
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    interrupted = Some(error);
                    break;
                }
            }
        }
    }
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
