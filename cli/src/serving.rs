//! `--serve`: this program as the other side.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use ncc_local_store::{Access, LocalStore};
use ncc_progress::{Console, Importance, printable};
use ncc_protocol::serve::{Server, Substituter, Writing};
use ncc_store::{Destination, Source, StorePath};

use crate::{
    arguments::Arguments,
    environment::is_on_path,
    failure::Failure,
    intent::{Local, ServeIntent},
    nothing::Nothing,
    streams::{standard_input, standard_output},
    substituting::Nix,
};

/// Serves the local store over stdin and stdout until the client ends.
pub(crate) async fn serve(arguments: &Arguments, console: &Console) -> Result<(), Failure> {
    let intent = ServeIntent::new(arguments)?;
    // What can be done here is not what can be done at the other end, where it is read.
    serve_store(intent, console).await.map_err(Failure::without_hints)
}

async fn serve_store(ServeIntent { local, write }: ServeIntent, console: &Console) -> Result<(), Failure> {
    let config = local.config.clone();
    // Whoever only looks at a store that is not there yet finds it empty, and does not make it.
    if let Some(nothing) = Nothing::instead_of(&config).filter(|_| !write) {
        return run(&nothing, Writing::Refused, None).await;
    }
    let access = if write { Access::ReadWrite } else { Access::ReadOnly };
    let store = LocalStore::open(config, access).map_err(|error| Failure::plain(&error))?;
    if !write {
        // Such a client's wish to substitute is ignored, as by Nix.
        return run(&store, Writing::Refused, None).await;
    }
    let beside = Beside::new(&local, console);
    let result = run(&store, Writing::Allowed, Some(&beside)).await;
    if let Beside::Nix(nix) = &beside {
        nix.close().await;
    }
    result
}

async fn run<S: Source + Destination>(
    store: &S,
    writing: Writing,
    substituter: Option<&dyn Substituter>,
) -> Result<(), Failure> {
    let no_streams = |error| Failure::new("could not start", error);
    let input = standard_input().map_err(no_streams)?;
    let (output, written) = standard_output().map_err(no_streams)?;
    let mut server = Server::new(input, output, store, writing);
    if let Some(substituter) = substituter {
        server = server.substituting_with(substituter);
    }
    let result = server.run().await;
    // The answers that were given hold, also where an error came after them.
    let _ = written.await;
    result.map_err(|error| Failure::plain(&error))
}

/// What substitutes for clients that ask for it.
enum Beside {
    /// The Nix of this machine, on the same store.
    Nix(Nix),
    /// There is none, which is said to the first client that asks.
    None,
}

impl Beside {
    fn new(local: &Local, console: &Console) -> Self {
        if is_on_path("nix-store") {
            let console = console.clone();
            let stderr = move |line: &str| console.say(Importance::Notice, &printable(line));
            Self::Nix(Nix::new(local, Arc::new(stderr)))
        } else {
            Self::None
        }
    }
}

impl Substituter for Beside {
    fn substitute<'a>(&'a self, missing: &'a [StorePath]) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            match self {
                Self::Nix(nix) => nix.substitute(missing).await,
                Self::None => tracing::warn!(
                    "there is no 'nix-store' beside this server that could substitute: everything has to be sent"
                ),
            }
        })
    }
}
