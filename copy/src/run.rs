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
    plan, signatures,
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
/// [`CopyError::Interrupted`], [`CopyError::Failed`], [`CopyError::RootMissing`], each with a report of what has been
/// done.
pub async fn run(
    source: &dyn Source,
    destination: &dyn Destination,
    plan: Plan,
    request: &Request,
    observer: &Arc<dyn Observer>,
) -> Result<Report, CopyError> {
    let start = Instant::now();
    let Plan { roots, roots_are_valid, present, substituted, to_send, failed, .. } = plan;
    let mut report = Report {
        roots_were_valid: roots_are_valid,
        present: present.into(),
        substituted: substituted.into(),
        failed,
        ..Report::default()
    };
    if to_send.is_empty() && report.failed.is_empty() {
        // The destination has said so a moment ago.
        return Ok(report);
    }
    let missing: BTreeMap<_, _> = to_send.iter().map(|info| (info.path.clone(), Arc::clone(info))).collect();
    let mut copying = Copying { source, destination, request, observer, report: &mut report, missing };
    let interrupted = copying.send_all(to_send.into()).await.err();
    let missing = copying.missing;
    report.elapsed = start.elapsed();
    report.unsent = missing.into_values().collect();
    if let Some(source) = interrupted {
        return Err(CopyError::Interrupted { report: Box::new(report), source });
    }
    check_roots(destination, &roots, report, request.on_failure, observer).await
}

/// A copy under way.
struct Copying<'a> {
    source: &'a dyn Source,
    destination: &'a dyn Destination,
    request: &'a Request,
    observer: &'a Arc<dyn Observer>,
    report: &'a mut Report,
    /// What is not registered yet.
    missing: BTreeMap<StorePath, Arc<PathInfo>>,
}

impl Copying<'_> {
    /// Sends everything, in as many rounds as that takes. Each further round has fewer paths missing than there ever were,
    /// or one more that failed, or is one of the reconnects without progress that the request allows, so there is an end.
    async fn send_all(&mut self, mut plan: NarPlan) -> Result<(), StoreError> {
        let mut in_vain = 0;
        let mut fewest = self.missing.len();
        while !plan.is_empty() {
            let failed_before = self.report.failed.len();
            let Err(error) = self.send(plan).await else { break };
            // What is registered and then gone again is no progress.
            if self.missing.len() < fewest {
                fewest = self.missing.len();
                in_vain = 0;
            }
            // A path that failed may have taken the connection with it.
            let has_failed = self.report.failed.len() > failed_before;
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
                _ if !has_failed && in_vain < self.request.reconnects => {
                    in_vain += 1;
                    self.report.reconnects += 1;
                    self.observer.event(Event::Reconnecting(&error));
                }
                _ => return Err(error),
            }
            plan = self.plan_again().await?;
        }
        let paths: Vec<Arc<PathInfo>> = self.missing.values().cloned().collect();
        self.note_dependants(&paths);
        Ok(())
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

    /// One round.
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
        let paths: Vec<_> = known.keys().cloned().collect();
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

    /// What is missing and can still be sent, references before their referrers.
    fn rest(&self) -> Vec<Arc<PathInfo>> {
        let failed: HashSet<&StorePath> = self.report.failed.iter().map(|failed| &failed.path).collect();
        let mut rest = in_order(self.missing.values());
        let hopeless: HashSet<_> = dependants(&rest, failed.iter().copied()).into_iter().collect();
        rest.retain(|info| !failed.contains(&info.path) && !hopeless.contains(&info.path));
        rest
    }

    /// Notes what failed because of others.
    fn note_dependants(&mut self, missing: &[Arc<PathInfo>]) {
        let missing = in_order(missing);
        let dependants = dependants(&missing, self.report.failed.iter().map(|failed| &failed.path));
        let noted: HashSet<&StorePath> = self.report.failed.iter().map(|failed| &failed.path).collect();
        let new: Vec<_> = dependants.into_iter().filter(|path| !noted.contains(path)).collect();
        self.report.failed.extend(new.into_iter().map(|path| Failed { path, error: None }));
    }
}

/// References before their referrers.
fn in_order<'a>(infos: impl IntoIterator<Item = &'a Arc<PathInfo>>) -> Vec<Arc<PathInfo>> {
    // They were a graph without cycles before, and so is every part of it.
    let graph = ncc_closure::Graph::partial(infos.into_iter().cloned()).unwrap_or_default();
    graph.iter().cloned().collect()
}

/// The streams said that all is well; this is the only thing that proves it. Where paths failed, it proves that the
/// others are there.
async fn check_roots(
    destination: &dyn Destination,
    roots: &[StorePath],
    report: Report,
    on_failure: OnFailure,
    observer: &Arc<dyn Observer>,
) -> Result<Report, CopyError> {
    let failed: HashSet<&StorePath> = report.failed.iter().map(|failed| &failed.path).collect();
    let unsent: HashSet<&StorePath> = report.unsent.iter().map(|info| &info.path).collect();
    // With `OnFailure::Stop`, what was not tried is not expected either.
    let stopped = on_failure == OnFailure::Stop && !failed.is_empty();
    let mut expected: Vec<StorePath> = roots
        .iter()
        .filter(|root| !(failed.contains(root) || stopped && unsent.contains(root)))
        .cloned()
        .collect();
    if !expected.is_empty() {
        observer.event(Event::Checking);
        match destination.valid_paths(&expected, ValidityQuery::default()).await {
            Ok(valid) => expected.retain(|root| !valid.contains(root)),
            Err(source) => return Err(CopyError::Interrupted { report: Box::new(report), source }),
        }
    }
    match expected.first() {
        Some(missing) => Err(CopyError::RootMissing {
            store: destination.name().to_owned(),
            path: destination.store_dir().full(missing),
            report: Box::new(report),
        }),
        None if report.failed.is_empty() => Ok(report),
        None => Err(CopyError::Failed { report: Box::new(report) }),
    }
}
