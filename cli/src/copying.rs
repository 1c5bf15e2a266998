//! Copying: both stores, the plan, and what is said about the result.

use std::sync::Arc;

use ncc_copy::{CopyError, Observer, OnFailure, Plan, Purpose, Request};
use ncc_local_store::{Access, LocalStore, LocalStoreConfig};
use ncc_picture::GraphFormat;
use ncc_progress::{
    Console, Direction, Importance, Progress, ProgressOptions, Wire, chain, nothing_json, plan_json,
};
use ncc_store::{Destination, Outputs, Source, StoreDir, StorePath};
use ncc_transport::LineSink;

use crate::{
    arguments::Arguments, dry_run, exit, failure::Failure, machine::Machine, nothing::Nothing, output,
    pictures, roots, stores, substituting::Substituting,
};

/// With `--keep-going`: how often in a row a broken connection is made anew without a single path having come through.
const RECONNECTS: u32 = 2;

/// Copies what the arguments say.
pub(crate) async fn copy(arguments: &Arguments, console: &Console) -> Result<(), Failure> {
    let mut reported = false;
    let result = prepare_and_copy(arguments, console, &mut reported).await;
    if arguments.show.json && !reported {
        let error = result.as_ref().err().map(|failure| failure.message().to_owned());
        let direction = direction(arguments, arguments.host.clone().unwrap_or_default());
        let store_dir = Machine::read(arguments).and_then(|machine| machine.local_store(Access::ReadOnly));
        let store_dir = store_dir.map(|config| config.store_dir).unwrap_or_default();
        print(&if arguments.what.dry_run {
            plan_json(&Plan::default(), &direction, &store_dir, error) + "\n"
        } else {
            nothing_json(direction, &store_dir, error) + "\n"
        })?;
    }
    result
}

fn direction(arguments: &Arguments, host: String) -> Direction {
    if arguments.what.from { Direction::From(host) } else { Direction::To(host) }
}

/// `reported`: what came of it is on standard output already.
async fn prepare_and_copy(
    arguments: &Arguments,
    console: &Console,
    reported: &mut bool,
) -> Result<(), Failure> {
    let machine = Machine::read(arguments)?;
    machine.announce(arguments)?;
    let adds = arguments.what.from && !arguments.what.dry_run;
    let config = machine.local_store(if adds { Access::ReadWrite } else { Access::ReadOnly })?;
    let host = stores::Host::parse(arguments.host.as_deref().unwrap_or_default())?;
    if let Some(file) = &arguments.show.graph {
        GraphFormat::of(file).map_err(|error| Failure::plain(&error))?;
        // Before anything is copied, rather than after.
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            return Err(Failure::text(format!(
                "the graph cannot be written to '{}': there is no folder '{}'",
                file.display(),
                folder.display()
            )));
        }
    }
    let keep_going = arguments.what.keep_going().map_or_else(|| machine.keeps_going(), Ok)?;
    let request = request(arguments, &config, keep_going)?;
    if request.roots.is_empty() {
        console.say(Importance::Notice, "no paths given, nothing to copy");
        return Ok(());
    }
    let local = Local::open(config.clone(), arguments)?;

    let may_ask = !host.target.is_localhost();
    let direction = direction(arguments, host.target.to_string());
    let progress = Progress::start(console, progress_options(arguments, direction.clone(), &config, may_ask));
    let remote = stores::remote(arguments, host, &config.store_dir, &progress)?;
    let local = local.with_substitutes(arguments, &machine, progress.own_line());
    let (source, destination): (&dyn Source, &dyn Destination) = match &local {
        Local::Store(store) if arguments.what.from => (&remote.store, store),
        Local::Substituting(store) => (&remote.store, &**store),
        Local::Store(store) => (store, &remote.store),
        Local::Nothing(nothing) => (&remote.store, nothing),
    };
    let ends = Ends { source, destination };
    let wire = || Wire { sent: remote.counter.sent(), received: remote.counter.received() };
    let result = work(arguments, &request, ends, (console, &progress), &direction, wire, reported).await;
    remote.store.close().await;
    if let Local::Substituting(store) = &local {
        store.close().await;
    }
    result
}

/// The local side.
enum Local {
    Store(LocalStore),
    /// A destination that substitutes first, with the help of the Nix on this machine.
    Substituting(Box<Substituting>),
    /// A destination that is only looked at, and does not exist yet.
    Nothing(Nothing),
}

impl Local {
    fn open(config: LocalStoreConfig, arguments: &Arguments) -> Result<Self, Failure> {
        let (from, look) = (arguments.what.from, arguments.what.dry_run);
        if let (true, true, Some(nothing)) = (from, look, Nothing::instead_of(&config)) {
            return Ok(Self::Nothing(nothing));
        }
        let access = if from && !look { Access::ReadWrite } else { Access::ReadOnly };
        LocalStore::open(config, access).map(Self::Store).map_err(|error| Failure::plain(&error))
    }

    /// The same, substituting first where this is the destination, that is wanted, and there is a Nix that can.
    fn with_substitutes(self, arguments: &Arguments, machine: &Machine, stderr: LineSink) -> Self {
        let wanted = arguments.how.use_substitutes && arguments.what.from;
        match self {
            Self::Store(store) if wanted && stores::is_on_path("nix-store") => {
                let uri = machine.store_uri();
                Self::Substituting(Box::new(Substituting::new(store, uri, &arguments.settings, stderr)))
            }
            other => {
                // What is only looked at says itself that this cannot be told.
                if wanted && !arguments.what.dry_run {
                    tracing::warn!("there is no 'nix-store' here that could substitute: everything is sent");
                }
                other
            }
        }
    }
}

fn progress_options(
    arguments: &Arguments,
    direction: Direction,
    config: &LocalStoreConfig,
    may_ask: bool,
) -> ProgressOptions {
    let mut options = ProgressOptions::new(direction, config.store_dir.clone());
    options.looking = arguments.what.dry_run;
    options.may_ask = may_ask;
    options
}

fn request(arguments: &Arguments, config: &LocalStoreConfig, keep_going: bool) -> Result<Request, Failure> {
    let words =
        roots::words(&arguments.paths, arguments.what.stdin).map_err(|error| Failure::plain(&error))?;
    let paths: Result<Vec<StorePath>, _> = words.iter().map(|word| roots::resolve(word, config)).collect();
    let mut request = Request::new(paths.map_err(|error| Failure::plain(&error))?);
    request.substitute = arguments.how.use_substitutes;
    if arguments.what.include_outputs {
        request.outputs = Outputs::Include;
    }
    if keep_going {
        request.on_failure = OnFailure::Continue;
        request.reconnects = RECONNECTS;
    }
    if arguments.what.dry_run {
        request.purpose = Purpose::Look;
    }
    Ok(request)
}

/// Where paths come from, and where they go.
#[derive(Clone, Copy)]
struct Ends<'a> {
    source: &'a dyn Source,
    destination: &'a dyn Destination,
}

async fn work(
    arguments: &Arguments,
    request: &Request,
    Ends { source, destination }: Ends<'_>,
    (console, progress): (&Console, &Progress),
    direction: &Direction,
    wire: impl Fn() -> Wire,
    reported: &mut bool,
) -> Result<(), Failure> {
    let observer = progress.observer();
    let result = plan_and_run(arguments, request, source, destination, (console, &observer), direction).await;
    let report = match result {
        Ok(Done::Looked(text)) => {
            progress.finish(None);
            *reported = true;
            return print(&text);
        }
        Ok(Done::Copied(report)) => Ok(report),
        Err(Trouble::Copy(error)) => Err(error),
        Err(Trouble::Other(failure)) => return Err(failure),
    };
    progress.finish(report.as_deref().ok());
    if arguments.show.json && !arguments.what.dry_run {
        *reported = true;
        print(&(progress.report_json(report.as_deref(), Some(wire())) + "\n"))?;
    }
    match report {
        Ok(_) => Ok(()),
        Err(error) => Err(explain(console, &error, request.on_failure, source.store_dir())),
    }
}

enum Done {
    /// This is to be printed.
    Looked(String),
    Copied(Box<ncc_copy::Report>),
}

enum Trouble {
    Copy(CopyError),
    Other(Failure),
}

async fn plan_and_run(
    arguments: &Arguments,
    request: &Request,
    source: &dyn Source,
    destination: &dyn Destination,
    (console, observer): (&Console, &Arc<dyn Observer>),
    direction: &Direction,
) -> Result<Done, Trouble> {
    let plan: Plan = ncc_copy::plan(source, destination, request, observer).await.map_err(Trouble::Copy)?;
    console.aside(|| pictures::draw(arguments, &plan, source.store_dir())).map_err(Trouble::Other)?;
    if arguments.what.dry_run {
        return Ok(Done::Looked(dry_run::describe(arguments, &plan, direction, destination.store_dir())));
    }
    let report = ncc_copy::run(source, destination, plan, request, observer).await;
    report.map(Box::new).map(Done::Copied).map_err(Trouble::Copy)
}

fn print(text: &str) -> Result<(), Failure> {
    output::print(text).map_err(|error| Failure::new("standard output cannot be written to", error))
}

/// Where several paths failed, each gets its own line before the summary, and so does what needs them.
fn explain(console: &Console, error: &CopyError, on_failure: OnFailure, store_dir: &StoreDir) -> Failure {
    let mut failure = Failure::plain(error);
    let CopyError::Failed { report } = error else { return failure };
    for failed in &report.failed {
        let line = match &failed.error {
            Some(error) => chain(error),
            None => format!(
                "'{}' was not copied, since it refers to a path that could not be",
                store_dir.full(&failed.path)
            ),
        };
        console.say(Importance::Error, &format!("error: {line}"));
        // A screen full of advice is none.
        if let Some(error) = failed.error.as_ref().filter(|_| failure.advises_little()) {
            failure = failure.hints_of(error);
        }
    }
    match on_failure {
        OnFailure::Stop => failure.hint("'--keep-going' copies everything that does not need these paths"),
        OnFailure::Continue => failure.with_code(exit::PARTIAL),
    }
}
