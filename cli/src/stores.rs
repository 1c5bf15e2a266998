//! From what is meant to stores that can be copied between.

use std::sync::Arc;

use ncc_local_store::{Access, LocalStore};
use ncc_progress::{Direction, Progress, Wire};
use ncc_remote_store::{RemoteStore, ServeOptions};
use ncc_store::{Destination, Source};

use crate::{
    environment::is_on_path,
    failure::Failure,
    host::Host,
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
    remote: Arc<RemoteStore>,
    substituting: Option<Arc<Substituting>>,
}

impl Stores {
    pub(crate) fn open(intent: &CopyIntent, progress: &Progress) -> Result<Self, Failure> {
        let counter = Counter::default();
        let remote = Arc::new(remote(&intent.host, &intent.local, progress, &counter)?);
        let mut stores = Self {
            source: Arc::clone(&remote) as Arc<dyn Source>,
            destination: Arc::clone(&remote) as Arc<dyn Destination>,
            here: Arc::clone(&remote) as Arc<dyn Source>,
            counter,
            remote,
            substituting: None,
        };
        let looks = intent.looks();
        match intent.direction {
            Direction::To(_) => {
                stores.source = local(&intent.local, Access::ReadOnly)?;
                stores.here = Arc::clone(&stores.source);
            }
            Direction::From(_) => match Nothing::instead_of(&intent.local.config).filter(|_| looks) {
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
        Wire { sent: self.counter.sent(), received: self.counter.received() }
    }

    /// Ends what was started.
    pub(crate) async fn close(&self) {
        self.remote.close().await;
        if let Some(substituting) = &self.substituting {
            substituting.close().await;
        }
    }
}

fn local(local: &Local, access: Access) -> Result<Arc<LocalStore>, Failure> {
    LocalStore::open(local.config.clone(), access).map(Arc::new).map_err(|error| Failure::plain(&error))
}

fn remote(
    host: &Host,
    local: &Local,
    progress: &Progress,
    counter: &Counter,
) -> Result<RemoteStore, Failure> {
    let mut options = ServeOptions::default();
    options.program = host.program.clone();
    options.elevation = host.elevation;
    options.access = host.access;
    options.store.clone_from(&host.store);
    options.store_dir = host.store_dir.clone().unwrap_or_else(|| local.config.store_dir.clone());
    options.stall_timeout = host.stall_timeout;
    options.stderr = Some(progress.host_line());
    options.greeted = Some(progress.greeted());
    let transport = ssh::transport(host.target.clone(), host.way.clone())?;
    Ok(RemoteStore::new(Arc::new(Counted::new(transport, counter.clone())), options))
}
