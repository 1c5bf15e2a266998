//! From what is meant to stores that can be copied between.

use std::{sync::Arc, time::Duration};

use ncc_local_store::{Access, LocalStore};
use ncc_progress::{Progress, Wire};
use ncc_remote_store::{DaemonOptions, DaemonStore, NewRoot, RemoteStore, RootMaker, ServeOptions};
use ncc_store::{Destination, Source, StorePath};
use ncc_transport::{Limited, LocalProcess, Transport};

use crate::{
    environment::is_on_path,
    failure::Failure,
    host::Host,
    intent::{CopyIntent, End, Ends, Local},
    nothing::Nothing,
    ssh,
    substituting::Substituting,
    turns::{InTurn, Turn},
    wire::{Counted, Counter},
};

/// Both ends of a copy. Nothing is connected before it is asked for something.
pub(crate) struct Stores {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) destination: Arc<dyn Destination>,
    /// Has everything that belongs to a root that is valid at the destination, and is the nearest that has.
    pub(crate) complete: Arc<dyn Source>,
    counter: Counter,
    hosts: Vec<RemoteStore>,
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

/// One store, to be read and to be added to.
type BothWays = (Arc<dyn Source>, Arc<dyn Destination>);

/// What opens both ends.
struct Opener<'a> {
    intent: &'a CopyIntent,
    progress: &'a Progress,
    counter: Counter,
    hosts: Vec<RemoteStore>,
    daemon: Option<DaemonStore>,
    substituting: Option<Arc<Substituting>>,
}

impl Stores {
    pub(crate) fn open(intent: &CopyIntent, progress: &Progress) -> Result<Self, Failure> {
        let mut opener = Opener {
            intent,
            progress,
            counter: Counter::default(),
            hosts: Vec::new(),
            daemon: None,
            substituting: None,
        };
        let Ends { source, destination } = &intent.ends;
        let turn = match (source, destination) {
            (End::There(_), End::There(_)) => Some(Turn::new()),
            _ => None,
        };
        let (source, at_hand) = match source {
            End::Here(local) => {
                let store = open(local, Access::ReadOnly)?;
                let store: Arc<dyn Source> =
                    Arc::new(if intent.looks() { store } else { store.protecting() });
                (Arc::clone(&store), Some(store))
            }
            End::There(host) => {
                let greeted = turn.as_ref().map_or_else(|| progress.greeted(), Turn::greeted);
                let transport = transport(host, turn.as_ref().map(|turn| (turn, true)))?;
                let (source, _) = opener.host(host, transport, greeted);
                (source, None)
            }
        };
        let (complete, destination, keeper) = match destination {
            End::Here(local) => {
                let (complete, destination) = opener.destination_here(local)?;
                (complete, destination, Keeper::here(local, intent.stall_timeout, progress))
            }
            End::There(host) => {
                let transport = transport(host, turn.as_ref().map(|turn| (turn, false)))?;
                let keeper = Keeper::on_host(host, Arc::clone(&transport), intent.stall_timeout, progress);
                let (complete, destination) = opener.host(host, transport, progress.greeted());
                (complete, destination, keeper)
            }
        };
        let Opener { counter, hosts, daemon, substituting, .. } = opener;
        let complete = at_hand.unwrap_or(complete);
        Ok(Self { source, destination, complete, counter, hosts, daemon, substituting, keeper })
    }

    /// The bytes that went to and came from hosts so far.
    pub(crate) fn wire(&self) -> Wire {
        let compression = self.hosts.iter().find_map(RemoteStore::compression);
        let channels = self.hosts.iter().find_map(RemoteStore::stripes).unwrap_or(1);
        Wire { sent: self.counter.sent(), received: self.counter.received(), compression, channels }
    }

    /// Makes what keeps these paths at the destination. Until then the connections that brought them do.
    pub(crate) async fn keep(&self, root: &NewRoot, paths: &[StorePath]) -> Result<(), Failure> {
        let Keeper { transport, nix } = &self.keeper;
        nix.make(&**transport, root, paths).await.map_err(|error| Failure::plain(&error))
    }

    /// Ends what was started.
    pub(crate) async fn close(&self) {
        for host in &self.hosts {
            host.close().await;
        }
        if let Some(daemon) = &self.daemon {
            daemon.close().await;
        }
        if let Some(substituting) = &self.substituting {
            substituting.close().await;
        }
    }
}

impl Opener<'_> {
    /// Both things that the store on a host can be.
    fn host(
        &mut self,
        host: &Host,
        transport: Arc<dyn Transport>,
        greeted: Arc<dyn Fn() + Send + Sync>,
    ) -> BothWays {
        let counter = self.counter.clone();
        let mut transport: Arc<dyn Transport> = Arc::new(Counted::new(transport, counter, host.name.clone()));
        if let Some(rate) = host.rate {
            transport = Arc::new(Limited::new(transport, rate));
        }
        let store = remote(host, self.intent, self.progress, transport, greeted);
        self.hosts.push(store.clone());
        (Arc::new(store.clone()), Arc::new(store))
    }

    /// The local store, to read what it has and to add what it lacks.
    fn destination_here(&mut self, local: &Local) -> Result<BothWays, Failure> {
        let looks = self.intent.looks();
        if let Some(socket) = &local.daemon {
            tracing::info!("the daemon at '{}' adds the paths to the store", socket.display());
            let mut options = DaemonOptions::default();
            options.store_dir = local.config.store_dir.clone();
            options.stall_timeout = self.intent.stall_timeout;
            options.stderr = Some(self.progress.own_line());
            options.check_signatures = self.intent.checks_signatures;
            let daemon = DaemonStore::at_socket(socket, options);
            self.daemon = Some(daemon.clone());
            // Reading is faster without it, once there is something to read.
            let read: Arc<dyn Source> = match open_local(local, Access::ReadOnly) {
                Ok(store) => store,
                Err(_) => Arc::new(daemon.clone()),
            };
            return Ok((read, Arc::new(daemon)));
        }
        if let Some(nothing) = Nothing::instead_of(&local.config).filter(|_| looks) {
            let nothing = Arc::new(nothing);
            return Ok((Arc::clone(&nothing) as Arc<dyn Source>, nothing));
        }
        let store = open_local(local, if looks { Access::ReadOnly } else { Access::ReadWrite })?;
        let destination = match self.substituting(&store, local, looks) {
            Some(substituting) => substituting,
            None => Arc::clone(&store) as Arc<dyn Destination>,
        };
        Ok((store, destination))
    }

    /// Lets the destination here substitute, if that is wanted and there is a Nix that can.
    fn substituting(
        &mut self,
        store: &Arc<LocalStore>,
        local: &Local,
        looks: bool,
    ) -> Option<Arc<dyn Destination>> {
        if !self.intent.request.substitute {
            return None;
        }
        if is_on_path("nix-store") {
            let stderr = self.progress.own_line();
            let substituting = Arc::new(Substituting::new(Arc::clone(store), local, stderr));
            self.substituting = Some(Arc::clone(&substituting));
            return Some(substituting);
        }
        if !looks {
            // What is only looked at says itself that this cannot be told.
            tracing::warn!(
                "there is no 'nix-store' on this machine that could substitute: everything is sent"
            );
        }
        None
    }
}

/// What leads to a host; of two, in turn, and this is the first or not.
fn transport(host: &Host, turn: Option<(&Turn, bool)>) -> Result<Arc<dyn Transport>, Failure> {
    let transport = ssh::transport(host.target.clone(), host.way.clone())?;
    Ok(match turn {
        Some((turn, is_first)) => Arc::new(InTurn { transport, turn: turn.clone(), is_first }),
        None => transport,
    })
}

impl Keeper {
    fn here(local: &Local, stall_timeout: Option<Duration>, progress: &Progress) -> Self {
        let mut nix = RootMaker::default();
        nix.store_dir = local.config.store_dir.clone();
        nix.stall_timeout = stall_timeout;
        nix.store.clone_from(&local.uri);
        nix.stderr = Some(progress.own_line());
        Self { transport: Arc::new(LocalProcess::new()), nix }
    }

    fn on_host(
        host: &Host,
        transport: Arc<dyn Transport>,
        stall_timeout: Option<Duration>,
        progress: &Progress,
    ) -> Self {
        let mut nix = RootMaker::default();
        nix.store_dir = host.store_dir.clone();
        nix.stall_timeout = stall_timeout;
        nix.program = host.program.clone();
        nix.elevation = host.elevation;
        nix.store.clone_from(&host.store);
        nix.stderr = Some(progress.host_line(&host.name));
        Self { transport, nix }
    }
}

fn open_local(local: &Local, access: Access) -> Result<Arc<LocalStore>, Failure> {
    open(local, access).map(Arc::new)
}

fn open(local: &Local, access: Access) -> Result<LocalStore, Failure> {
    LocalStore::open(local.config.clone(), access).map_err(|error| Failure::plain(&error))
}

fn remote(
    host: &Host,
    intent: &CopyIntent,
    progress: &Progress,
    transport: Arc<dyn Transport>,
    greeted: Arc<dyn Fn() + Send + Sync>,
) -> RemoteStore {
    let mut options = ServeOptions::default();
    options.spoken = host.spoken;
    options.program = host.program.clone();
    options.elevation = host.elevation;
    options.access = host.access;
    options.store.clone_from(&host.store);
    options.store_dir = host.store_dir.clone();
    options.check_signatures = intent.checks_signatures;
    options.login_is_root = host.logs_in_as_root();
    options.stall_timeout = intent.stall_timeout;
    options.compress = host.compress;
    options.connections = host.connections;
    options.line_is_slow = host.rate.is_some();
    options.stderr = Some(progress.host_line(&host.name));
    options.greeted = Some(greeted);
    RemoteStore::new(transport, options)
}
