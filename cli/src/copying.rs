//! Copying: the roots, the plan, the run, and what is said about the result.

use std::collections::BTreeSet;

use ncc_copy::{CopyError, Described, OnFailure, Plan, Report, Unsigned};
use ncc_progress::{
    Console, Direction, Importance, Progress, ProgressOptions, Subject, Wire, chain, copy_json, plan_json,
};
use ncc_remote_store::{NewRoot, RootMaker};
use ncc_store::{StoreDir, StoreError, StorePath};

use crate::{
    arguments::Arguments, dry_run, exit, failure::Failure, intent::CopyIntent, output, pictures, roots,
    route::Route, stores::Stores,
};

/// How many errors are said before it is waited that they are written.
const ERRORS_AT_A_TIME: usize = 1000;

/// Copies what the arguments say.
pub(crate) async fn copy(arguments: &Arguments, console: &Console) -> Result<(), Failure> {
    let intent = CopyIntent::new(arguments);
    let mut outcome = Outcome::default();
    let (subject, result) = match intent {
        Ok(intent) => {
            let subject = Subject {
                direction: intent.ends.direction(),
                store_dir: intent.ends.source.store_dir().clone(),
            };
            (subject, Copying { intent, console, verbosity: arguments.verbosity() }.run(&mut outcome).await)
        }
        Err(failure) => {
            let Route { from, to } = arguments.route.clone();
            let direction = Direction::new(from, to);
            (Subject { direction, store_dir: StoreDir::default() }, Err(failure))
        }
    };
    if arguments.show.json {
        let error = result.as_ref().err().map(|failure| failure.message().to_owned());
        output::print(&(outcome.json(&subject, arguments.what.dry_run, error) + "\n"))?;
    }
    result
}

/// Nix up to 2.33 takes any text for a signature; newer ones fail over such a text for good.
fn say_malformed_signatures(plan: &Plan, source: &str) {
    let count: u64 = plan.to_send.iter().map(|info| u64::from(info.malformed_signatures)).sum();
    if count > 0 {
        let texts = if count == 1 { "text" } else { "texts" };
        let are = if count == 1 { "is" } else { "are" };
        tracing::warn!(
            "{count} {texts} in the place of signatures {are} left out: {source} has them, and newer Nixes cannot read them"
        );
    }
}

/// What came of it, as far as it came.
#[derive(Default)]
struct Outcome {
    roots: Vec<StorePath>,
    /// Of what was only looked at.
    plan: Option<Plan>,
    report: Option<Box<Report>>,
    wire: Option<Wire>,
}

impl Outcome {
    fn json(&self, subject: &Subject, looks: bool, error: Option<String>) -> String {
        if looks {
            plan_json(subject, self.plan.as_ref(), error)
        } else {
            copy_json(subject, &self.roots, self.report.as_deref(), self.wire, error)
        }
    }
}

/// A copy, from what is meant to what is said in the end.
struct Copying<'a> {
    intent: CopyIntent,
    console: &'a Console,
    verbosity: u8,
}

impl Copying<'_> {
    async fn run(mut self, outcome: &mut Outcome) -> Result<(), Failure> {
        let unusable = self.find_roots().await?;
        outcome.roots.clone_from(&self.intent.request.roots);
        if outcome.roots.is_empty() && unusable == 0 {
            self.console.say(Importance::Notice, "no paths given, nothing to copy");
            return Ok(());
        }
        if !outcome.roots.is_empty() {
            let ends = &self.intent.ends;
            let mut options = ProgressOptions::new(ends.direction(), ends.source.store_dir().clone());
            options.looking = self.intent.looks();
            options.may_ask = ends.ask();
            let progress = Progress::start(self.console, options);
            let stores = Stores::open(&self.intent, &progress)?;
            let mut result = self.plan_and_run(&stores, &progress, outcome).await;
            outcome.wire = Some(stores.wire());
            if let Some(root) = &self.intent.keep {
                result = self.keep(root, &stores, outcome, result).await;
            }
            stores.close().await;
            result?;
        }
        match unusable {
            0 => Ok(()),
            count => Err(Failure::text(format!("{count} of the given words stand for no store path"))
                .with_code(exit::PARTIAL)),
        }
    }

    /// Keeps at the destination what has come there.
    async fn keep(
        &self,
        root: &NewRoot,
        stores: &Stores,
        outcome: &Outcome,
        result: Result<(), Failure>,
    ) -> Result<(), Failure> {
        let Some(report) = outcome.report.as_deref() else {
            return match result {
                Ok(()) if !self.intent.show.json => output::print(&format!("would make {root}\n")),
                result => result,
            };
        };
        if result.as_ref().is_err_and(|failure| !failure.is_partial()) {
            return result;
        }
        let mut roots = outcome.roots.clone();
        roots.retain(|root| report.failed.iter().all(|failed| failed.path != *root));
        if roots.is_empty() {
            return result;
        }
        stores.keep(root, &roots).await?;
        tracing::info!("made {root}");
        result
    }

    /// Finds the paths that the words stand for. Each word that stands for none is named; how many, where the others are
    /// copied all the same.
    async fn find_roots(&mut self) -> Result<usize, Failure> {
        let words = roots::words(&self.intent.words, self.intent.stdin, self.console).await;
        let words = words.map_err(|error| Failure::plain(&error))?;
        let mut found = Vec::with_capacity(words.len());
        let mut errors = Vec::new();
        for word in &words {
            match roots::resolve(word, self.intent.ends.paths()) {
                Ok(path) => found.push(path),
                Err(error) => errors.push(error),
            }
        }
        if self.intent.request.on_failure == OnFailure::Stop
            && let Some(last) = errors.pop()
        {
            self.say_all(errors.iter().map(|error| chain(error)));
            return Err(Failure::plain(&last));
        }
        self.say_all(errors.iter().map(|error| chain(error)));
        let mut seen = BTreeSet::new();
        found.retain(|path| seen.insert(path.clone()));
        if let Some(root) = &self.intent.keep {
            RootMaker::check(root, found.len()).map_err(|error| Failure::plain(&error))?;
        }
        self.intent.request.roots = found;
        Ok(errors.len())
    }

    async fn plan_and_run(
        &self,
        stores: &Stores,
        progress: &Progress,
        outcome: &mut Outcome,
    ) -> Result<(), Failure> {
        let Stores { source, destination, complete, .. } = stores;
        let (request, show) = (&self.intent.request, &self.intent.show);
        let observer = progress.observer();
        let plan = ncc_copy::plan(&**source, &**destination, request, &observer).await;
        let mut plan = plan.map_err(|error| Failure::plain(&error))?;
        if plan.roots_are_valid && request.described == Described::Everything {
            // Nobody has asked what belongs to them, and it is wanted here.
            let closure = complete.closure(&plan.roots, request.outputs).await;
            let closure = closure.map_err(|error| Failure::plain(&error))?;
            plan.present = closure.infos.into_iter().map(Into::into).collect();
        }
        let drawn = self.console.aside(|| pictures::draw(show, &plan, source.store_dir()));
        drawn?;
        if self.intent.looks() {
            progress.finish(None);
            if !show.json {
                let direction = self.intent.ends.direction();
                let text = dry_run::describe(&plan, &direction, destination.store_dir(), show.tree);
                output::print(&text)?;
            }
            let failed = self.say_failed(&plan.failed, source.store_dir());
            outcome.plan = Some(plan);
            return failed.map_or(Ok(()), |failure| Err(failure.with_code(exit::PARTIAL)));
        }
        say_malformed_signatures(&plan, source.name());
        let report = ncc_copy::run(&**source, &**destination, plan, request, &observer).await;
        progress.finish(report.as_ref().ok());
        match report {
            Ok(report) => {
                outcome.report = Some(Box::new(report));
                Ok(())
            }
            Err(error) => {
                let failure = self.explain(&error, source.store_dir());
                outcome.report = match error {
                    CopyError::Interrupted { report, .. }
                    | CopyError::Failed { report }
                    | CopyError::RootMissing { report, .. } => Some(report),
                    _ => None,
                };
                Err(failure)
            }
        }
    }

    /// Where several paths failed, each gets its own line before the summary.
    fn explain(&self, error: &CopyError, store_dir: &StoreDir) -> Failure {
        let failure = Failure::plain(error);
        let CopyError::Failed { report } = error else { return failure };
        let failure = match self.say_failed(&report.failed, store_dir) {
            Some(said) => said.with_message_of(failure),
            None => failure,
        };
        match self.intent.request.on_failure {
            OnFailure::Continue => failure.with_code(exit::PARTIAL),
            OnFailure::Stop => {
                failure.hint("'--keep-going' copies everything that does not need these paths")
            }
        }
    }

    /// Says what could not be copied and why; what only needs one of these paths is counted, and named with `-v`.
    /// `None` if there is nothing of the kind.
    fn say_failed(&self, failed: &[ncc_copy::Failed], store_dir: &StoreDir) -> Option<Failure> {
        let (by_themselves, dependants): (Vec<_>, Vec<_>) =
            failed.iter().partition(|failed| failed.error.is_some());
        let errors = || by_themselves.iter().filter_map(|failed| failed.error.as_ref());
        // Many of these have one reason, and one remedy.
        let unsigned = Unsigned::among(errors(), store_dir).filter(|unsigned| unsigned.paths.len() > 1);
        if let Some(unsigned) = &unsigned {
            self.console.say(Importance::Error, &format!("error: {unsigned}"));
        }
        let one_by_one = errors().filter(|error| unsigned.is_none() || !error.is_unsigned());
        self.say_all(one_by_one.map(|error| chain(error)));
        if self.verbosity > 0 {
            self.say_all(dependants.iter().map(|failed| {
                let path = store_dir.full(&failed.path);
                format!("'{path}' was not copied, since it refers to a path that could not be")
            }));
        } else if !dependants.is_empty() {
            let text = match dependants.len() {
                1 => "1 more path could not be copied, since it refers to one that could not be".to_owned(),
                count => format!(
                    "{count} more paths could not be copied, since they refer to ones that could not be"
                ),
            };
            self.console.say(Importance::Error, &format!("error: {text} ('-v' names them)"));
        }
        let mut failure = Failure::text(match failed.len() {
            0 => return None,
            1 => "1 path could not be copied".to_owned(),
            count => format!("{count} paths could not be copied"),
        });
        if errors().all(StoreError::is_unsigned) {
            failure = failure.with_code(exit::REFUSED);
        }
        for error in errors() {
            // A screen full of advice is none.
            if !failure.advises_little() {
                break;
            }
            failure = failure.hints_of(error);
        }
        Some(failure)
    }

    /// Says errors, all of them: where there are many, not faster than they are read.
    fn say_all(&self, errors: impl Iterator<Item = String>) {
        for (number, error) in errors.enumerate() {
            if number % ERRORS_AT_A_TIME == ERRORS_AT_A_TIME - 1 {
                self.console.flush(Some(std::time::Duration::from_secs(1)));
            }
            self.console.say(Importance::Error, &format!("error: {error}"));
        }
    }
}
