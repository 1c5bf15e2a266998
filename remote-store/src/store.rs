//! The store, and the one connection that it keeps.

use std::sync::Arc;

use ncc_store::{Problem, Retry, Side, StoreDir, StoreError, StorePath};
use ncc_transport::{RemoteCommand, Transport};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{
    RemoteError, ServeOptions,
    connection::{Connection, ReadAnswer},
    silence::Patience,
};

/// A Nix store on a host. Clones share one connection, which is made when it is first needed.
///
/// A connection serves one question, one sequence of adds, or one sequence of NARs at a time: a second one waits. One that
/// has failed is replaced by a new one when it is next needed, which means another login, and that nothing is protected from
/// the host's garbage collector until it is asked for again.
#[derive(Clone)]
pub struct RemoteStore {
    shared: Arc<Shared>,
    connection: Arc<Mutex<State>>,
}

pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) options: ServeOptions,
}

#[derive(Default)]
pub(crate) enum State {
    /// Nothing has been asked yet.
    #[default]
    Unopened,
    Open(Box<Connection>),
    /// It failed, or is away with a task that did not bring it back: the next use makes a new one.
    Lost,
    /// It was closed, for good.
    Closed,
}

/// The connection, for as long as one piece of work lasts.
pub(crate) struct Lease {
    pub(crate) connection: Connection,
    place: Place,
}

/// Where a leased connection belongs. Nobody else gets one until it is given back or this is dropped.
pub(crate) struct Place(OwnedMutexGuard<State>);

impl Place {
    /// Gives a connection back that is between requests.
    pub(crate) fn give_back(mut self, connection: Connection) {
        *self.0 = State::Open(Box::new(connection));
    }
}

impl Lease {
    pub(crate) fn into_parts(self) -> (Connection, Place) {
        (self.connection, self.place)
    }

    /// Gives the connection back, which must be between requests.
    pub(crate) fn give_back(self) {
        self.place.give_back(self.connection);
    }
}

impl std::fmt::Debug for RemoteStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("RemoteStore")
            .field("host", &self.shared.transport.describe())
            .finish_non_exhaustive()
    }
}

impl RemoteStore {
    /// A store that `transport` leads to. Nothing is started yet.
    pub fn new(transport: Arc<dyn Transport>, options: ServeOptions) -> Self {
        let name = format!("host '{}'", transport.describe());
        Self { shared: Arc::new(Shared { name, transport, options }), connection: Arc::default() }
    }

    /// Ends the connection, if there is one, and waits for the server to end: it lets go of its temporary roots.
    pub async fn close(&self) {
        let state = std::mem::replace(&mut *self.connection.lock().await, State::Closed);
        if let State::Open(connection) = state {
            connection.close().await;
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Takes the connection, and makes it first if need be. Unless it is given back, it counts as gone.
    pub(crate) async fn lease(&self) -> Result<Lease, RemoteError> {
        let mut place = Arc::clone(&self.connection).lock_owned().await;
        if matches!(*place, State::Unopened | State::Lost) {
            // Until this has succeeded the next one may try again.
            *place = State::Open(Box::new(self.shared.open(self.shared.options.command()).await?));
        }
        let State::Open(connection) = std::mem::replace(&mut *place, State::Lost) else {
            *place = State::Closed;
            return Err(RemoteError::Closed);
        };
        Ok(Lease { connection: *connection, place: Place(place) })
    }

    /// One question with its answer.
    pub(crate) async fn ask<T>(
        &self,
        side: Side,
        action: &'static str,
        patience: Patience,
        request: &[u8],
        read: impl ReadAnswer<T> + Clone,
    ) -> Result<T, StoreError> {
        let mut lease =
            self.lease().await.map_err(|error| self.shared.failed(side, action, None, Arc::new(error)))?;
        match lease.connection.exchange(request, patience, read.clone()).await {
            Ok(answer) => {
                lease.give_back();
                Ok(answer)
            }
            Err(error) => {
                let greeted = lease.connection.answers.is_greeted();
                let (connection, place) = lease.into_parts();
                let error = connection.explain(&*self.shared.transport, error).await;
                let plain = if greeted { None } else { self.shared.fallback(&error) };
                let Some(command) = plain else {
                    return Err(self.shared.failed(side, action, None, Arc::new(error)));
                };
                tracing::info!(%error, "the host did not let the command pass, trying the plain one");
                self.ask_again(side, action, patience, request, read, command, place, error).await
            }
        }
    }

    /// The question once more, to a server that was started with another command. If that fails too, the first error
    /// is the one that counts.
    #[expect(clippy::too_many_arguments, reason = "the question, and what is left of its first try")]
    async fn ask_again<T>(
        &self,
        side: Side,
        action: &'static str,
        patience: Patience,
        request: &[u8],
        read: impl ReadAnswer<T>,
        command: RemoteCommand,
        place: Place,
        first: RemoteError,
    ) -> Result<T, StoreError> {
        let Ok(mut connection) = self.shared.open(command).await else {
            return Err(self.shared.failed(side, action, None, Arc::new(first)));
        };
        match connection.exchange(request, patience, read).await {
            Ok(answer) => {
                place.give_back(connection);
                Ok(answer)
            }
            Err(error) if connection.answers.is_greeted() => {
                let error = connection.explain(&*self.shared.transport, error).await;
                Err(self.shared.failed(side, action, None, Arc::new(error)))
            }
            Err(_) => Err(self.shared.failed(side, action, None, Arc::new(first))),
        }
    }
}

impl Shared {
    pub(crate) fn store_dir(&self) -> &StoreDir {
        &self.options.store_dir
    }

    async fn open(&self, command: RemoteCommand) -> Result<Connection, RemoteError> {
        Connection::open(&*self.transport, &self.options, command).await
    }

    /// The command to try next, if `error` can mean that the host runs only certain commands.
    fn fallback(&self, error: &RemoteError) -> Option<RemoteCommand> {
        match error {
            RemoteError::Ended { exit, .. } | RemoteError::Lost { exit, .. } if !exit.is_success() => {
                self.options.plain_command()
            }
            _ => None,
        }
    }

    /// What the host did wrong, at this side of the copy; with the path that was under way, if one was.
    pub(crate) fn failed(
        &self,
        side: Side,
        action: &'static str,
        path: Option<&StorePath>,
        error: Arc<RemoteError>,
    ) -> StoreError {
        // What was to be asked matters little where nobody was there to be asked.
        let (action, path) = match error.failed_before_any_question() {
            Some(instead) => (instead, None),
            None => (action, path.cloned()),
        };
        let problem = match path {
            Some(path) if error.is_about_the_path() => {
                Problem::Path { action, path, source: Box::new(error) }
            }
            path => {
                let retry = if error.is_temporary() { Retry::Worthwhile } else { Retry::Useless };
                Problem::Connection { action, path, retry, source: Box::new(error) }
            }
        };
        StoreError::new(side, self.name.as_str(), problem)
    }

    /// The connection ended with `error`, which is what [`failed`](Self::failed) says of the path that was under way; this is
    /// for all others.
    pub(crate) fn connection_ended(
        &self,
        side: Side,
        action: &'static str,
        error: Arc<RemoteError>,
    ) -> StoreError {
        let worthwhile = error.is_temporary() || error.is_about_the_path();
        let retry = if worthwhile { Retry::Worthwhile } else { Retry::Useless };
        let problem = Problem::Connection { action, path: None, retry, source: Box::new(error) };
        StoreError::new(side, self.name.as_str(), problem)
    }
}
