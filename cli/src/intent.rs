//! What is meant by what was typed. Everything that a command line leaves open, the direction, which stores, which of two
//! options wins, is decided here and in what this calls, once; behind this nobody looks at arguments.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use ncc_copy::{OnFailure, Purpose, Request, Signatures};
use ncc_local_store::{Access, LocalStoreConfig};
use ncc_picture::GraphFormat;
use ncc_progress::Direction;
use ncc_remote_store::NewRoot;
use ncc_store::Outputs;

use crate::{arguments::Arguments, failure::Failure, host::Host, machine::Machine, roots::Separated};

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
}

/// A copy that is meant.
pub(crate) struct CopyIntent {
    pub(crate) direction: Direction,
    pub(crate) local: Local,
    pub(crate) host: Host,
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
        machine.announce(arguments)?;
        let adds = what.from && !what.dry_run;
        let access = if adds { Access::ReadWrite } else { Access::ReadOnly };
        let local = Local::new(&machine, arguments, access)?;
        let host = Host::new(arguments)?;
        let name = host.target.to_string();
        let mut request = Request::default();
        request.without_references = arguments.nix_copy.without_references;
        request.substitute = how.use_substitutes;
        if what.include_outputs {
            request.outputs = Outputs::Include;
        }
        if what.keep_going().map_or_else(|| machine.keeps_going(), Ok)? {
            request.on_failure = OnFailure::Continue;
        }
        request.retries.limit = how.retries;
        request.sign_with = machine.signing_keys(arguments)?.into();
        request.signatures = machine.signatures(arguments)?;
        if what.dry_run {
            request.purpose = Purpose::Look;
        }
        let graph = show.graph.clone();
        graph.as_ref().map_or(Ok(()), check_graph)?;
        Ok(Self {
            direction: if what.from { Direction::From(name) } else { Direction::To(name) },
            local,
            host,
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
        machine.announce(arguments)?;
        let access = if write { Access::ReadWrite } else { Access::ReadOnly };
        if let Some(socket) = machine.daemon().filter(|_| write) {
            tracing::info!("the daemon at '{}' is not asked: the store is opened directly", socket.display());
        }
        Ok(Self { local: Local::new(&machine, arguments, access)?, write })
    }
}
