//! The store, and what its errors say.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::future::BoxFuture;
use ncc_protocol::{
    serve::{Request, read_valid_paths},
    wire::WireReader,
};
use ncc_store::{Problem, Retry, Side, StoreDir, StoreError, StorePath, ValidityQuery};
use ncc_transport::{Reader, Transport};

use crate::{
    DaemonOptions, DaemonStore, RemoteError, ServeOptions,
    pool::Pool,
    requisites::Requisites,
    route::{Language, Routes},
    session::{Opening, ReadAnswer},
    silence::Patience,
    wire::Compressing,
};

/// A Nix store on a host. Clones share the sessions with it, which are opened when they are first needed.
///
/// What is spoken is found out by the first session ([`Spoken`](crate::Spoken)), without a login or a round trip more where it is the
/// serve protocol, and remembered.
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
    pub(crate) pool: Arc<Pool>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) options: ServeOptions,
    pub(crate) compressing: Compressing,
    /// The same, for where a daemon's protocol is spoken.
    pub(crate) daemon: DaemonStore,
}

impl std::fmt::Debug for RemoteStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RemoteStore").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

impl RemoteStore {
    /// A store that `transport` leads to. Nothing is started yet.
    pub fn new(transport: Arc<dyn Transport>, options: ServeOptions) -> Self {
        let routes = Routes::to_host(&transport, &options);
        let name = routes.name.clone();
        let opening = Opening {
            stall_timeout: options.stall_timeout,
            stderr: options.stderr.clone(),
            greeted: options.greeted.clone(),
        };
        let pool = Arc::new(Pool::new(routes, opening, options.data_sessions));
        let for_daemon = DaemonOptions {
            store_dir: options.store_dir.clone(),
            stderr: options.stderr.clone(),
            greeted: options.greeted.clone(),
            check_signatures: options.check_signatures,
            stall_timeout: options.stall_timeout,
        };
        let requisites = Requisites {
            transport: Arc::clone(&transport),
            command: options.requisites_command(),
            stall_timeout: options.stall_timeout,
        };
        let is_root = options.runs_as_root();
        let daemon = DaemonStore::on_host(&name, Arc::clone(&pool), is_root, requisites, for_daemon);
        let compressing = Compressing::default();
        Self { shared: Arc::new(Shared { name, pool, transport, options, compressing, daemon }) }
    }

    /// Ends the sessions, if there are any, and waits for the servers to end: they let go of their temporary roots.
    pub async fn close(&self) {
        self.shared.pool.close().await;
    }

    /// What transfers have been compressed with: `zstd` or `gzip`, if any was.
    pub fn compression(&self) -> Option<&'static str> {
        self.shared.compression()
    }

    /// Over how many channels the bulk of a transfer went, if over several.
    pub fn stripes(&self) -> Option<usize> {
        self.shared.stripes()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Does something in the language that is known to be spoken. While none is known, that is the serve protocol until it fails
    /// because it turns out to be the other one.
    pub(crate) async fn in_either<T>(
        &self,
        serve: impl Future<Output = Result<T, StoreError>>,
        daemon: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let is_daemon = || self.shared.pool.spoken() == Some(Language::Daemon);
        if !is_daemon() {
            let result = serve.await;
            if result.is_ok() || !is_daemon() {
                return result;
            }
        }
        daemon.await
    }

    /// One question of the serve protocol with its answer.
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
    /// What is spoken; a connection is made to find that out, if there was none.
    pub(crate) async fn language(&self) -> Result<Language, Arc<RemoteError>> {
        if let Some(language) = self.pool.spoken() {
            return Ok(language);
        }
        self.pool.lease().await?.give_back();
        Ok(self.pool.spoken().unwrap_or(Language::Serve))
    }

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
