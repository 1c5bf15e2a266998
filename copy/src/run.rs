//! Carrying out a plan.
//!
//! A plan is sent in *rounds*. One is enough unless something takes a connection with it: then both sides are asked
//! again, and what is missing now, whatever the reason, is the next round. What is decided is decided by the
//! [`Scope`] of the error alone.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Instant,
};

use futures_util::StreamExt as _;
use ncc_store::{
    Destination, NarPlan, OnFailure, Outcome, Outputs, PathInfo, Scope, Source, StoreError, StorePath,
    ValidityQuery,
};

use crate::{
    CopyError, Event, Failed, Observer, Plan, Report, Request, dependants::dependants, observed::Observed,
    plan, retrying::Tries, signatures,
};

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
    run(source, destination, plan, request, observer).await
}

/// Sends what a plan says, then asks the destination whether all roots are valid.
///
/// # Errors
/// [`CopyError::NoSpace`]; and [`CopyError::Interrupted`], [`CopyError::Failed`], [`CopyError::RootMissing`], each with a
/// report of what has been done.
pub async fn run(
    source: &dyn Source,
    destination: &dyn Destination,
    plan: Plan,
    request: &Request,
    observer: &Arc<dyn Observer>,
) -> Result<Report, CopyError> {
    let Plan { roots, roots_are_valid, present, present_by_name, substituted, to_send, failed, .. } = plan;
    let mut report = Report {
        roots_were_valid: roots_are_valid,
        present: present.into(),
        present_by_name,
        substituted: substituted.into(),
        failed,
        ..Report::default()
    };
    if to_send.is_empty() && report.failed.is_empty() {
        // The destination has said so a moment ago.
        return Ok(report);
    }
    let needed = to_send.iter().fold(0_u64, |sum, info| sum.saturating_add(info.nar_size));
    if request.check_space
        && let Some(free) = destination.free_space().await?
        && needed > free
    {
        return Err(CopyError::NoSpace { store: destination.name().to_owned(), needed, free });
    }
    let missing: BTreeMap<_, _> = to_send.iter().map(|info| (info.path.clone(), Arc::clone(info))).collect();
    let start = Instant::now();
    let mut copying = Copying {
        source,
        destination,
        request,
        observer,
        roots: &roots,
        start,
        report: &mut report,
        missing,
    };
    let ended = copying.copy_all(to_send.into()).await;
    report.unsent = copying.missing.into_values().collect();
    match ended {
        Err(source) => Err(CopyError::Interrupted { report: Box::new(report), source }),
        Ok(Some(missing)) => Err(CopyError::RootMissing {
            store: destination.name().to_owned(),
            path: destination.store_dir().full(&missing),
            report: Box::new(report),
        }),
        Ok(None) if report.failed.is_empty() => Ok(report),
        Ok(None) => Err(CopyError::Failed { report: Box::new(report) }),
    }
}

/// A copy under way.
struct Copying<'a> {
    source: &'a dyn Source,
    destination: &'a dyn Destination,
    request: &'a Request,
    observer: &'a Arc<dyn Observer>,
    roots: &'a [StorePath],
    start: Instant,
    report: &'a mut Report,
    /// What is not registered yet.
    missing: BTreeMap<StorePath, Arc<PathInfo>>,
}

impl Copying<'_> {
    /// Sends everything, in as many rounds as that takes, and gives the first root that is not there then. Each further round
    /// has fewer paths missing than there ever were, or more that failed, or is one of the tries without progress that the
    /// request allows, so there is an end.
    async fn copy_all(&mut self, plan: NarPlan) -> Result<Option<StorePath>, StoreError> {
        let mut tries = Tries::new(self.request.retries, self.observer).reached();
        let (mut fewest, mut most_failed) = (self.missing.len(), self.report.failed.len());
        let mut plan = Some(plan);
        loop {
            let error = match self.round(plan.take()).await {
                Ok(missing) => return Ok(missing),
                Err(error) => error,
            };
            // What is registered and then gone again is no progress.
            if self.missing.len() < fewest {
                fewest = self.missing.len();
                tries.progress();
            }
            // A path that failed may have taken the connection with it.
            let has_failed = self.report.failed.len() > most_failed;
            most_failed = self.report.failed.len().max(most_failed);
            match (error.scope(), error.path().cloned()) {
                // It cannot be copied, and the connection went with it.
                (Scope::Path, Some(path))
                    if self.request.on_failure == OnFailure::Continue
                        && self.missing.contains_key(&path)
                        && !self.has_failed(&path) =>
                {
                    self.fail(path, error);
                }
                _ if !error.is_temporary() => return Err(error),
                _ if has_failed && self.request.on_failure == OnFailure::Continue => {}
                _ if self.request.on_failure == OnFailure::Stop && most_failed > 0 => return Err(error),
                _ => {
                    tries.wait_after(error).await?;
                    self.report.reconnects += 1;
                }
            }
        }
    }

    /// Sends a plan, or what is missing now, and asks for the roots.
    async fn round(&mut self, plan: Option<NarPlan>) -> Result<Option<StorePath>, StoreError> {
        let plan = match plan {
            Some(plan) => plan,
            None => self.plan_again().await?,
        };
        if !plan.is_empty() {
            self.send(plan).await?;
        }
        self.note_dependants();
        self.report.elapsed = self.start.elapsed();
        self.missing_root().await
    }

    fn has_failed(&self, path: &StorePath) -> bool {
        self.report.failed.iter().any(|failed| failed.path == *path)
    }

    /// Notes a failure, once for each path.
    fn fail(&mut self, path: StorePath, error: StoreError) {
        if self.has_failed(&path) {
            return;
        }
        self.observer.event(Event::Failed(&path, &error));
        self.report.failed.push(Failed { path, error: Some(error) });
    }

    async fn send(&mut self, plan: NarPlan) -> Result<(), StoreError> {
        let nars = self.source.nars(Arc::clone(&plan));
        let nars = Arc::new(Observed { nars, observer: Arc::clone(self.observer) });
        let mut outcomes = self.destination.add_all(plan, nars, self.request.on_failure);
        while let Some(outcome) = outcomes.next().await {
            match outcome? {
                Outcome::Failed { path, error } => self.fail(path, error),
                Outcome::Added(path) => {
                    if let Some(info) = self.registered(&path) {
                        self.report.sent.push(info);
                    }
                }
                // Somebody else has brought it meanwhile.
                Outcome::AlreadyValid(path) => {
                    if let Some(info) = self.registered(&path) {
                        self.report.present.push(info);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn registered(&mut self, path: &StorePath) -> Option<Arc<PathInfo>> {
        let info = self.missing.remove(path)?;
        self.observer.event(Event::Registered(path));
        Some(info)
    }

    /// What is left to send, with both sides asked again: a connection that ended has taken its protection from the
    /// garbage collector with it, and has registered more than it could answer.
    async fn plan_again(&mut self) -> Result<NarPlan, StoreError> {
        self.observer.event(Event::StartingAgain);
        let Report { present, substituted, sent, .. } = &mut *self.report;
        let known: BTreeMap<StorePath, Arc<PathInfo>> = present
            .iter()
            .chain(&*substituted)
            .chain(&*sent)
            .chain(self.missing.values())
            .map(|info| (info.path.clone(), Arc::clone(info)))
            .collect();
        let named = std::mem::take(&mut self.report.present_by_name);
        let paths: Vec<_> = known.keys().chain(&named).cloned().collect();
        let valid = self.destination.valid_paths(&paths, ValidityQuery::default().locking()).await?;
        for path in &valid {
            if let Some(info) = self.registered(path) {
                self.report.sent.push(info);
            }
        }
        // A collector may have taken what was there before, or has been sent.
        let is_lost =
            |info: &Arc<PathInfo>| !valid.contains(&info.path) && !self.missing.contains_key(&info.path);
        let mut lost: Vec<_> = known.into_values().filter(is_lost).collect();
        let (named, lost_names): (Vec<_>, Vec<_>) = named.into_iter().partition(|path| valid.contains(path));
        self.report.present_by_name = named;
        lost.extend(self.describe(&lost_names).await?);
        signatures::sign(&mut lost, self.request, self.source.store_dir());
        let refused = signatures::refused(&lost, self.request, self.destination).await?;
        self.missing.extend(lost.into_iter().map(|info| (info.path.clone(), info)));
        for (path, error) in refused {
            if self.request.on_failure == OnFailure::Stop {
                return Err(error);
            }
            self.fail(path, error);
        }
        let Report { present, substituted, sent, .. } = &mut *self.report;
        for list in [present, substituted, sent] {
            *list = list.iter().filter(|info| valid.contains(&info.path)).cloned().collect();
        }
        // What could not be sent, and has come from somebody else.
        self.report.failed.retain(|failed| !valid.contains(&failed.path));
        let rest = self.rest();
        if rest.is_empty() {
            return Ok(rest.into());
        }
        // The source's protection has to be had anew as well, and it may have lost some of them meanwhile.
        let roots: Vec<_> = rest.iter().map(|info| info.path.clone()).collect();
        let wanted: HashSet<&StorePath> = roots.iter().collect();
        let closure = self.source.closure(&roots, Outputs::Exclude).await?;
        for (path, error) in closure.failed.into_iter().filter(|(path, _)| wanted.contains(path)) {
            if self.request.on_failure == OnFailure::Stop {
                return Err(error);
            }
            self.fail(path, error);
        }
        Ok(self.rest().into())
    }

    /// The metadata of what nobody had to know before. What the source has lost as well fails.
    async fn describe(&mut self, paths: &[StorePath]) -> Result<Vec<Arc<PathInfo>>, StoreError> {
        if paths.is_empty() {
            return Ok(Vec::new());
        }
        let described = self.source.describe(paths).await?;
        for (path, error) in described.failed {
            if self.request.on_failure == OnFailure::Stop {
                return Err(error);
            }
            self.fail(path, error);
        }
        let mut infos = described.infos;
        for info in &mut infos {
            info.ultimate = false;
        }
        Ok(infos.into_iter().map(Arc::new).collect())
    }

    /// What is missing and can still be sent, references before their referrers.
    fn rest(&self) -> Vec<Arc<PathInfo>> {
        let failed: HashSet<&StorePath> = self.report.failed.iter().map(|failed| &failed.path).collect();
        let mut rest = in_order(self.missing.values());
        let hopeless: HashSet<_> = dependants(&rest, failed.iter().copied()).into_iter().collect();
        rest.retain(|info| !failed.contains(&info.path) && !hopeless.contains(&info.path));
        rest
    }

    /// Notes what failed because of others.
    fn note_dependants(&mut self) {
        let missing = in_order(self.missing.values());
        let dependants = dependants(&missing, self.report.failed.iter().map(|failed| &failed.path));
        let noted: HashSet<&StorePath> = self.report.failed.iter().map(|failed| &failed.path).collect();
        let new: Vec<_> = dependants.into_iter().filter(|path| !noted.contains(path)).collect();
        self.report.failed.extend(new.into_iter().map(|path| Failed { path, error: None }));
    }

    /// The streams said that all is well; this is the only thing that proves it. Where paths failed, it proves that the
    /// others are there.
    async fn missing_root(&self) -> Result<Option<StorePath>, StoreError> {
        let failed: HashSet<&StorePath> = self.report.failed.iter().map(|failed| &failed.path).collect();
        // With `OnFailure::Stop`, what was not tried is not expected either.
        let stopped = self.request.on_failure == OnFailure::Stop && !failed.is_empty();
        let is_expected =
            |root: &&StorePath| !(failed.contains(*root) || stopped && self.missing.contains_key(*root));
        let expected: Vec<StorePath> = self.roots.iter().filter(is_expected).cloned().collect();
        if expected.is_empty() {
            return Ok(None);
        }
        self.observer.event(Event::Checking);
        let valid = self.destination.valid_paths(&expected, ValidityQuery::default()).await?;
        Ok(expected.into_iter().find(|root| !valid.contains(root)))
    }
}

/// References before their referrers.
fn in_order<'a>(infos: impl IntoIterator<Item = &'a Arc<PathInfo>>) -> Vec<Arc<PathInfo>> {
    // They were a graph without cycles before, and so is every part of it.
    let graph = ncc_closure::Graph::partial(infos.into_iter().cloned()).unwrap_or_default();
    graph.iter().cloned().collect()
}
