//! What is meant by what was typed. Everything that a command line leaves open, the direction, which stores, which of two
//! options wins, is decided here and in what this calls, once; behind this nobody looks at arguments.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use ncc_copy::{Described, OnFailure, Purpose, Request, Signatures};
use ncc_local_store::{Access, LocalStoreConfig};
use ncc_picture::GraphFormat;
use ncc_progress::Direction;
use ncc_remote_store::NewRoot;
use ncc_store::{Outputs, Side, StoreDir};

use crate::{
    arguments::Arguments,
    failure::Failure,
    host::{Asked, Host},
    machine::Machine,
    roots::{Place, Separated},
};

/// The store on this machine.
pub(crate) struct Local {
    pub(crate) config: LocalStoreConfig,
    /// The socket of the daemon that adds paths to it, if that is not this process.
    pub(crate) daemon: Option<PathBuf>,
    /// Its URI, for other programs; `None` is the default.
    pub(crate) uri: Option<String>,
    /// Settings of the command line, which a Nix that substitutes for us is told too.
    pub(crate) given: Vec<(String, String)>,
}

impl Local {
    fn new(machine: &Machine, arguments: &Arguments, access: Access) -> Result<Self, Failure> {
        let given = arguments.settings.iter().filter(|(name, _)| name != "store");
        Ok(Self {
            config: machine.local_store(access)?,
            daemon: machine.daemon().filter(|_| access == Access::ReadWrite).map(Path::to_owned),
            uri: machine.store_uri(),
            given: given.cloned().collect(),
        })
    }

    /// How messages call it where the other end is on this machine too.
    fn url(&self) -> String {
        match &self.daemon {
            Some(socket) => format!("unix://{}", socket.display()),
            None => {
                let directory = self.config.real_store_dir.display().to_string();
                format!("local://{}", directory.strip_suffix("/nix/store").unwrap_or(&directory))
            }
        }
    }
}

/// What the store of this machine is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Uses {
    /// Paths go past it.
    Nothing,
    /// Paths are read from it.
    Reads,
    /// Paths are added to it.
    Adds,
}

/// One end of a copy.
#[expect(clippy::large_enum_variant, reason = "there are two of them in a run")]
pub(crate) enum End {
    Here(Local),
    There(Box<Host>),
}

impl End {
    /// Its logical store directory.
    pub(crate) fn store_dir(&self) -> &StoreDir {
        match self {
            Self::Here(local) => &local.config.store_dir,
            Self::There(host) => &host.store_dir,
        }
    }

    /// The host, as messages call it.
    fn host_name(&self) -> Option<String> {
        match self {
            Self::Here(_) => None,
            Self::There(host) => Some(host.target.to_string()),
        }
    }
}

/// Both ends of a copy.
pub(crate) struct Ends {
    pub(crate) source: End,
    pub(crate) destination: End,
}

impl Ends {
    /// Who is asked to be which end: a host that the command line names, or whatever is the local store, which may be one on a
    /// host as well.
    fn new(arguments: &Arguments, machine: &Machine) -> Result<Self, Failure> {
        let route = &arguments.route;
        if route.is_complete() && machine.store_is_given() {
            let text = "'--store' names a third store, besides those that '--from' and '--to' name: it has no part in the copy";
            return Err(Failure::text(text));
        }
        let word =
            |host: &Option<String>| host.clone().or_else(|| machine.store_on_host().map(str::to_owned));
        let (from, to) = (word(&route.from), word(&route.to));
        let uses = match (&from, &to) {
            (Some(_), Some(_)) => Uses::Nothing,
            (_, None) => Uses::Adds,
            (None, Some(_)) => Uses::Reads,
        };
        machine.announce(arguments, uses)?;
        let adds = uses == Uses::Adds && !arguments.what.dry_run;
        let access = if adds { Access::ReadWrite } else { Access::ReadOnly };
        let is_one_of_two = uses == Uses::Nothing;
        let here = || Local::new(machine, arguments, access);
        let there = |word: &str, side, store_dir: &StoreDir| {
            Host::new(Asked { word, side, is_one_of_two, store_dir }, arguments)
                .map(|host| End::There(Box::new(host)))
        };
        let usual = machine.store_dir();
        Ok(match (from, to) {
            (None, Some(to)) => {
                let source = here()?;
                let destination = there(&to, Side::Destination, &source.config.store_dir)?;
                Self { source: End::Here(source), destination }
            }
            (Some(from), None) => {
                let destination = here()?;
                let source = there(&from, Side::Source, &destination.config.store_dir)?;
                Self { source, destination: End::Here(destination) }
            }
            (Some(from), Some(to)) => {
                let mut source = there(&from, Side::Source, usual)?;
                let mut destination = there(&to, Side::Destination, usual)?;
                if let (End::There(source), End::There(destination)) = (&mut source, &mut destination)
                    && source.name == destination.name
                {
                    source.name.push_str(" (source)");
                    destination.name.push_str(" (destination)");
                }
                Self { source, destination }
            }
            (None, None) => {
                let source = Machine::of(arguments, arguments.nix_copy.source.as_deref())?;
                let source = End::Here(Local::new(&source, arguments, Access::ReadOnly)?);
                Self { source, destination: End::Here(here()?) }
            }
        })
    }

    /// What the store of this machine is.
    fn uses(&self) -> Uses {
        match (&self.source, &self.destination) {
            (_, End::Here(_)) => Uses::Adds,
            (End::Here(_), _) => Uses::Reads,
            _ => Uses::Nothing,
        }
    }

    /// How messages call them.
    pub(crate) fn direction(&self) -> Direction {
        match (&self.source, &self.destination) {
            // This machine is not said twice.
            (End::Here(_), End::Here(destination)) => Direction::to(destination.url()),
            (source, destination) => Direction::new(source.host_name(), destination.host_name()),
        }
    }

    /// Where the paths are that words stand for. One that is to come here may be called by where it will lie.
    pub(crate) fn paths(&self) -> Place<'_> {
        let files = [&self.source, &self.destination].into_iter().find_map(|end| match end {
            End::Here(local) => Some(&*local.config.real_store_dir),
            End::There(_) => None,
        });
        Place { store_dir: self.source.store_dir(), files }
    }

    /// Whether somebody may be asked something on the way there.
    pub(crate) fn ask(&self) -> bool {
        [&self.source, &self.destination].iter().any(|end| matches!(end, End::There(host) if host.asks()))
    }
}

/// A copy that is meant.
pub(crate) struct CopyIntent {
    pub(crate) ends: Ends,
    /// How long any of them may be silent.
    pub(crate) stall_timeout: Option<Duration>,
    /// What is wanted, still without roots.
    pub(crate) request: Request,
    /// Words that stand for roots, or for lists of them.
    pub(crate) words: Vec<OsString>,
    /// More of them are on standard input.
    pub(crate) stdin: Option<Separated>,
    /// Daemons are to look at signatures even where they trust the user.
    pub(crate) checks_signatures: bool,
    /// What keeps the roots at the destination afterwards.
    pub(crate) keep: Option<NewRoot>,
    pub(crate) show: Show,
}

/// What is printed or drawn.
pub(crate) struct Show {
    pub(crate) json: bool,
    pub(crate) tree: bool,
    pub(crate) graph: Option<PathBuf>,
}

impl CopyIntent {
    pub(crate) fn new(arguments: &Arguments) -> Result<Self, Failure> {
        let Arguments { what, how, keep, show, .. } = arguments;
        for (given, name) in [(how.bzip2, "--bzip2"), (how.xz, "--xz")] {
            if given {
                tracing::warn!("'{name}' is obsolete and means '--gzip'");
            }
        }
        let machine = Machine::read(arguments)?;
        let ends = Ends::new(arguments, &machine)?;
        let mut request = Request::default();
        request.without_references = arguments.nix_copy.without_references;
        // What is written or drawn has sizes.
        if show.json || show.tree || show.graph.is_some() {
            request.described = Described::Everything;
        }
        request.substitute = how.use_substitutes;
        if what.include_outputs {
            request.outputs = Outputs::Include;
        }
        if what.keep_going().map_or_else(|| machine.keeps_going(), Ok)? {
            request.on_failure = OnFailure::Continue;
        }
        request.check_space = !how.no_check_space;
        request.retries.limit = how.retries;
        request.sign_with = machine.signing_keys(arguments)?.into();
        request.signatures = machine.signatures(arguments, ends.uses())?;
        if what.dry_run {
            request.purpose = Purpose::Look;
        }
        let graph = show.graph.clone();
        graph.as_ref().map_or(Ok(()), check_graph)?;
        Ok(Self {
            ends,
            stall_timeout: (how.stall_timeout > 0).then(|| Duration::from_secs(how.stall_timeout)),
            words: arguments.paths.clone(),
            stdin: what.stdin.then_some(if arguments.nix_copy.is_meant {
                Separated::ByBlanks
            } else {
                Separated::ByLines
            }),
            checks_signatures: matches!(request.signatures, Signatures::SignedBy(_))
                || arguments.nix_copy.is_meant && !arguments.trust.no_check_sigs,
            keep: keep.add_root.clone().map(NewRoot::Link).or(keep.profile.clone().map(NewRoot::Profile)),
            show: Show { json: show.json, tree: show.tree, graph },
            request,
        })
    }

    /// Whether nothing is to change anywhere.
    pub(crate) fn looks(&self) -> bool {
        self.request.purpose == Purpose::Look
    }
}

/// Whether a graph can be written, before anything is copied rather than after.
#[expect(clippy::ptr_arg, reason = "for map_or")]
fn check_graph(file: &PathBuf) -> Result<(), Failure> {
    GraphFormat::of(file).map_err(|error| Failure::plain(&error))?;
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => Err(Failure::text(format!(
            "the graph cannot be written to '{}': there is no directory '{}'",
            file.display(),
            folder.display()
        ))),
        _ => Ok(()),
    }
}

/// A store that is to be served.
pub(crate) struct ServeIntent {
    pub(crate) local: Local,
    /// Clients may add paths.
    pub(crate) write: bool,
}

impl ServeIntent {
    pub(crate) fn new(arguments: &Arguments) -> Result<Self, Failure> {
        let write = arguments.serving.write;
        let machine = Machine::read(arguments)?;
        machine.announce(arguments, if write { Uses::Adds } else { Uses::Reads })?;
        let access = if write { Access::ReadWrite } else { Access::ReadOnly };
        if let Some(socket) = machine.daemon().filter(|_| write) {
            tracing::info!("the daemon at '{}' is not asked: the store is opened directly", socket.display());
        }
        Ok(Self { local: Local::new(&machine, arguments, access)?, write })
    }
}
