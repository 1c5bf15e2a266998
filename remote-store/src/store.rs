//! The store, and what its errors say.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::future::BoxFuture;
use ncc_protocol::{
    serve::{Request, read_valid_paths},
    wire::WireReader,
};
use ncc_store::{Problem, Retry, Side, StoreDir, StoreError, StorePath, ValidityQuery};
use ncc_transport::{CommandOnHost, Connector, Reader, Transport};

use crate::{
    RemoteError, ServeOptions, ServeProgram,
    pool::{Connectors, Pool},
    session::{Opening, Protocol, ReadAnswer},
    silence::Patience,
    wire::Compressing,
};

/// A Nix store on a host. Clones share the sessions with it, which are opened when they are first needed.
///
/// Questions are put while others wait for their answers. A transfer has a session to itself: one of
/// [`ServeOptions::data_sessions`], or the one for questions, which wait then. A session that has failed is replaced by a
/// new one when it is next needed, which may mean another login, and that nothing is protected from the host's garbage
/// collector until it is asked for again.
#[derive(Clone)]
pub struct RemoteStore {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) pool: Pool,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) options: ServeOptions,
    pub(crate) compressing: Compressing,
}

impl std::fmt::Debug for RemoteStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RemoteStore").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

impl RemoteStore {
    /// A store that `transport` leads to. Nothing is started yet.
    pub fn new(transport: Arc<dyn Transport>, options: ServeOptions) -> Self {
        let name = format!("host '{}'", transport.describe());
        let on_host =
            |command| -> Arc<dyn Connector> { Arc::new(CommandOnHost::new(Arc::clone(&transport), command)) };
        let connectors = Connectors {
            first: on_host(options.command()),
            first_says_that_it_runs: options.program == ServeProgram::Search,
            second: Some(on_host(options.second_command())),
        };
        let opening = Opening {
            protocol: Protocol::Serve,
            program: options.program.name().to_owned(),
            stall_timeout: options.stall_timeout,
            stderr: options.stderr.clone(),
            greeted: options.greeted.clone(),
        };
        let pool = Pool::new(connectors, opening, options.data_sessions);
        Self {
            shared: Arc::new(Shared { name, pool, transport, options, compressing: Compressing::default() }),
        }
    }

    /// Ends the sessions, if there are any, and waits for the servers to end: they let go of their temporary roots.
    pub async fn close(&self) {
        self.shared.pool.close().await;
    }

    /// What transfers have been compressed with: `zstd` or `gzip`, if any was.
    pub fn compression(&self) -> Option<&'static str> {
        self.shared.compression()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// One question with its answer.
    pub(crate) async fn ask<T: Send>(
        &self,
        side: Side,
        action: &'static str,
        patience: Patience,
        request: &[u8],
        read: impl ReadAnswer<T> + Clone + Sync,
    ) -> Result<T, StoreError> {
        let answer = self.shared.pool.ask(patience, request, read).await;
        answer.map_err(|error| self.shared.failed(side, action, None, error))
    }
}

impl RemoteStore {
    /// Which of `paths` are valid.
    pub(crate) async fn ask_valid(
        &self,
        side: Side,
        paths: &[StorePath],
        query: ValidityQuery,
    ) -> Result<BTreeSet<StorePath>, StoreError> {
        let store_dir = self.shared.store_dir();
        let mut request = Vec::new();
        Request::QueryValidPaths { query, paths: paths.to_vec() }.encode(store_dir, &mut request);
        let (store_dir, asked) = (store_dir.clone(), Arc::new(paths.iter().cloned().collect()));
        let patience = if query.substitute { Patience::Unlimited } else { Patience::Limited };
        let action = "say which paths are valid";
        self.ask(side, action, patience, &request, |reader: &mut WireReader<Reader>| -> BoxFuture<'_, _> {
            Box::pin(async move { read_valid_paths(reader, &store_dir, &asked).await })
        })
        .await
    }
}

impl Shared {
    pub(crate) fn store_dir(&self) -> &StoreDir {
        &self.options.store_dir
    }

    /// As [`store_error`].
    pub(crate) fn failed(
        &self,
        side: Side,
        action: &'static str,
        path: Option<&StorePath>,
        error: Arc<RemoteError>,
    ) -> StoreError {
        store_error(&self.name, side, action, path, error)
    }
}

/// What the other end did wrong, at this side of the copy; with the path that was under way, if one was.
pub(crate) fn store_error(
    store: &str,
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
        Some(path) if error.is_unsigned() => Problem::Unsigned { path, source: Some(Box::new(error)) },
        path if error.is_about_the_store() => Problem::Store { action, path, source: Box::new(error) },
        Some(path) if error.is_about_the_path() => Problem::Path { action, path, source: Box::new(error) },
        // It answered, and will not answer otherwise over another connection.
        None if matches!(*error, RemoteError::Refused(_)) => {
            Problem::Store { action, path: None, source: Box::new(error) }
        }
        path => Problem::Connection { action, path, retry: error.retry(), source: Box::new(error) },
    };
    StoreError::new(side, store, problem)
}

/// The session ended with `error`, which is what [`store_error`] says of the path that was under way; this is for all
/// others.
pub(crate) fn session_ended(
    store: &str,
    side: Side,
    action: &'static str,
    error: Arc<RemoteError>,
) -> StoreError {
    let retry = if error.is_about_the_path() { Retry::Worthwhile } else { error.retry() };
    let problem = Problem::Connection { action, path: None, retry, source: Box::new(error) };
    StoreError::new(side, store, problem)
}
