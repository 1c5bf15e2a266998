//! From what is meant to stores that can be copied between.

use std::sync::Arc;

use ncc_local_store::{Access, LocalStore};
use ncc_progress::{Direction, Progress, Wire};
use ncc_remote_store::{
    DaemonOptions, DaemonProgram, DaemonStore, NewRoot, RemoteStore, RootMaker, ServeOptions,
};
use ncc_store::{Destination, Source, StorePath};
use ncc_transport::{Limited, LocalProcess, Transport};

use crate::{
    environment::is_on_path,
    failure::Failure,
    host::Protocol,
    intent::{CopyIntent, Local},
    nothing::Nothing,
    ssh,
    substituting::Substituting,
    wire::{Counted, Counter},
};

/// Both ends of a copy. Nothing is connected before it is asked for something.
pub(crate) struct Stores {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) destination: Arc<dyn Destination>,
    /// The one on this machine, as what it can always be: a source.
    pub(crate) here: Arc<dyn Source>,
    counter: Counter,
    remote: Remote,
    daemon: Option<DaemonStore>,
    substituting: Option<Arc<Substituting>>,
    keeper: Keeper,
}

/// Makes what keeps the roots at the destination.
struct Keeper {
    /// Leads to the machine of the destination.
    transport: Arc<dyn Transport>,
    nix: RootMaker,
}

/// The store at the other end, by what is spoken with it.
enum Remote {
    Serve(RemoteStore),
    Daemon(DaemonStore),
}

impl Remote {
    fn ends(&self) -> (Arc<dyn Source>, Arc<dyn Destination>) {
        match self {
            Self::Serve(store) => (Arc::new(store.clone()), Arc::new(store.clone())),
            Self::Daemon(store) => (Arc::new(store.clone()), Arc::new(store.clone())),
        }
    }

    async fn close(&self) {
        match self {
            Self::Serve(store) => store.close().await,
            Self::Daemon(store) => store.close().await,
        }
    }
}

impl Stores {
    pub(crate) fn open(intent: &CopyIntent, progress: &Progress) -> Result<Self, Failure> {
        let counter = Counter::default();
        let transport = ssh::transport(intent.host.target.clone(), intent.host.way.clone())?;
        let keeper = Keeper::new(intent, &transport, progress);
        let mut transport: Arc<dyn Transport> = Arc::new(Counted::new(transport, counter.clone()));
        if let Some(rate) = intent.host.rate {
            transport = Arc::new(Limited::new(transport, rate));
        }
        let remote = remote(intent, progress, &transport);
        let (source, destination) = remote.ends();
        let mut stores = Self {
            here: Arc::clone(&source),
            source,
            destination,
            counter,
            remote,
            daemon: None,
            substituting: None,
            keeper,
        };
        let looks = intent.looks();
        match (&intent.direction, &intent.local.daemon) {
            (Direction::To(_), _) => {
                stores.source = local(&intent.local, Access::ReadOnly)?;
                stores.here = Arc::clone(&stores.source);
            }
            (Direction::From(_), Some(socket)) => {
                tracing::info!("the daemon at '{}' adds the paths to the store", socket.display());
                let mut options = DaemonOptions::default();
                options.store_dir = intent.local.config.store_dir.clone();
                options.stall_timeout = intent.host.stall_timeout;
                options.stderr = Some(progress.own_line());
                options.check_signatures = intent.checks_signatures;
                let daemon = DaemonStore::at_socket(socket, options);
                // Reading is faster without it, once there is something to read.
                stores.here = match local(&intent.local, Access::ReadOnly) {
                    Ok(store) => store,
                    Err(_) => Arc::new(daemon.clone()),
                };
                stores.destination = Arc::new(daemon.clone());
                stores.daemon = Some(daemon);
            }
            (Direction::From(_), None) => match Nothing::instead_of(&intent.local.config).filter(|_| looks) {
                Some(nothing) => {
                    let nothing = Arc::new(nothing);
                    stores.here = Arc::clone(&nothing) as Arc<dyn Source>;
                    stores.destination = nothing;
                }
                None => {
                    let store =
                        local(&intent.local, if looks { Access::ReadOnly } else { Access::ReadWrite })?;
                    stores.here = Arc::clone(&store) as Arc<dyn Source>;
                    stores.destination = store.clone();
                    if intent.request.substitute {
                        stores.substitute(store, &intent.local, looks, progress);
                    }
                }
            },
        }
        Ok(stores)
    }

    /// Lets the destination here substitute, if there is a Nix that can.
    fn substitute(&mut self, store: Arc<LocalStore>, local: &Local, looks: bool, progress: &Progress) {
        if is_on_path("nix-store") {
            let substituting = Arc::new(Substituting::new(store, local, progress.own_line()));
            self.destination = Arc::clone(&substituting) as Arc<dyn Destination>;
            self.substituting = Some(substituting);
        } else if !looks {
            // What is only looked at says itself that this cannot be told.
            tracing::warn!(
                "there is no 'nix-store' on this machine that could substitute: everything is sent"
            );
        }
    }

    /// The bytes that went to and came from the host so far.
    pub(crate) fn wire(&self) -> Wire {
        let compression = match &self.remote {
            Remote::Serve(store) => store.compression(),
            Remote::Daemon(_) => None,
        };
        Wire { sent: self.counter.sent(), received: self.counter.received(), compression }
    }

    /// Makes what keeps these paths at the destination. Until then the connections that brought them do.
    pub(crate) async fn keep(&self, root: &NewRoot, paths: &[StorePath]) -> Result<(), Failure> {
        let Keeper { transport, nix } = &self.keeper;
        nix.make(&**transport, root, paths).await.map_err(|error| Failure::plain(&error))
    }

    /// Ends what was started.
    pub(crate) async fn close(&self) {
        self.remote.close().await;
        if let Some(daemon) = &self.daemon {
            daemon.close().await;
        }
        if let Some(substituting) = &self.substituting {
            substituting.close().await;
        }
    }
}

impl Keeper {
    fn new(intent: &CopyIntent, to_host: &Arc<dyn Transport>, progress: &Progress) -> Self {
        let CopyIntent { host, local, .. } = intent;
        let mut nix = RootMaker::default();
        nix.store_dir = local.config.store_dir.clone();
        nix.stall_timeout = host.stall_timeout;
        if let Direction::From(_) = intent.direction {
            nix.store.clone_from(&local.uri);
            nix.stderr = Some(progress.own_line());
            return Self { transport: Arc::new(LocalProcess::new()), nix };
        }
        nix.program = host.program.clone();
        nix.elevation = host.elevation;
        nix.store.clone_from(&host.store);
        nix.stderr = Some(progress.host_line());
        Self { transport: Arc::clone(to_host), nix }
    }
}

fn local(local: &Local, access: Access) -> Result<Arc<LocalStore>, Failure> {
    LocalStore::open(local.config.clone(), access).map(Arc::new).map_err(|error| Failure::plain(&error))
}

fn remote(intent: &CopyIntent, progress: &Progress, transport: &Arc<dyn Transport>) -> Remote {
    let (host, local) = (&intent.host, &intent.local);
    let store_dir = host.store_dir.clone().unwrap_or_else(|| local.config.store_dir.clone());
    if host.protocol == Protocol::Daemon {
        let mut program = DaemonProgram::default();
        program.program = host.program.clone();
        program.elevation = host.elevation;
        program.store.clone_from(&host.store);
        program.login_is_root = host.logs_in_as_root();
        let mut options = DaemonOptions::default();
        options.store_dir = store_dir;
        options.stall_timeout = host.stall_timeout;
        options.stderr = Some(progress.host_line());
        options.greeted = Some(progress.greeted());
        options.check_signatures = intent.checks_signatures;
        return Remote::Daemon(DaemonStore::on_host(transport, &program, options));
    }
    let mut options = ServeOptions::default();
    options.program = host.program.clone();
    options.elevation = host.elevation;
    options.access = host.access;
    options.store.clone_from(&host.store);
    options.store_dir = store_dir;
    options.stall_timeout = host.stall_timeout;
    options.compress = host.compress;
    options.line_is_slow = host.rate.is_some();
    options.stderr = Some(progress.host_line());
    options.greeted = Some(progress.greeted());
    Remote::Serve(RemoteStore::new(Arc::clone(transport), options))
}
