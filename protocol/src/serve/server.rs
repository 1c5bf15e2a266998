//! The server's side, over any store.

use std::{collections::BTreeSet, error::Error, iter, pin::pin, sync::Arc};

use bytes::Bytes;
use futures_util::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, Either, select},
    stream,
};
use ncc_store::{
    Closure, Destination, Nar, NarBody, OnFailure, Outcome, PathInfo, Problem, Scope, Side, Source, StoreDir,
    StoreError, StorePath, sequential_nars,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    sync::mpsc,
};

use super::{Request, Version, greeting, put_path_info};
use crate::{
    ProtocolError,
    wire::{WireReader, WireWrite as _},
};

/// Blocks of a NAR under way between the reader and the store, at most 128 KiB each.
const BLOCKS_AHEAD: usize = 8;

/// When a reply buffer is written out although more is to come.
const FLUSH_AT: usize = 64 << 10;

/// Whether clients may add paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Writing {
    /// Queries and dumps only.
    #[default]
    Refused,
    /// `--write`.
    Allowed,
}

/// Gets missing paths from elsewhere, for clients that ask for it (`nix copy --substitute-on-destination`).
///
/// A server without one hands the wish on to its store, in [`ValidityQuery`](ncc_store::ValidityQuery).
pub trait Substituter: Send + Sync {
    /// Tries to make `missing` valid, which the client means to send otherwise.
    ///
    /// There is no error: the store is asked again, and whatever is still missing then the client sends. An implementation that
    /// cannot do anything should tell the user, on the stderr that the client gets to see.
    fn substitute<'a>(&'a self, missing: &'a [StorePath]) -> BoxFuture<'a, ()>;
}

/// Why a server stopped. There is no reply for that: the text belongs on stderr, then the stream ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The client's bytes, or the stream under them.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The store behind the server.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A command that needs `--write`.
    #[error("importing paths is not allowed: the server was started without '--write'")]
    ReadOnly,
    /// A command that this server does not have.
    #[error(
        "serve command {command} is not supported: this server copies paths, it does not build, export or import"
    )]
    Unsupported {
        /// Its number.
        command: u64,
    },
    /// The client is gone.
    #[error("could not write to the client")]
    Write(#[source] std::io::Error),
}

/// Answers one client until it ends.
///
/// The protocol knows no answer that says "this one not": whatever fails ends the conversation. One path that its store cannot
/// describe, for its row in the database is damaged, is no reason to end it for all others. Its metadata is left out, as that of a
/// path that is not valid would be, and a closure holds its name and not what it refers to. A warning is logged, once for each
/// such path; the program around the server has to show it on stderr, where the client gets to see it.
pub struct Server<'a, R, W> {
    reader: WireReader<R>,
    writer: W,
    reply: Vec<u8>,
    source: &'a dyn Source,
    destination: &'a dyn Destination,
    substituter: Option<&'a dyn Substituter>,
    writing: Writing,
    version: Version,
    /// What could not be described, and was warned of.
    warned_of: BTreeSet<StorePath>,
}

impl<R, W> std::fmt::Debug for Server<'_, R, W> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Server").field("writing", &self.writing).finish_non_exhaustive()
    }
}

impl<'a, R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Server<'a, R, W> {
    /// A server for `store`, reading requests from `reader` and answering on `writer`.
    pub fn new<S: Source + Destination>(reader: R, writer: W, store: &'a S, writing: Writing) -> Self {
        Self {
            reader: WireReader::new(reader),
            writer,
            reply: Vec::new(),
            source: store,
            destination: store,
            substituter: None,
            writing,
            version: Version::OURS,
            warned_of: BTreeSet::new(),
        }
    }

    /// Has `substituter` get what clients ask to be substituted.
    #[must_use]
    pub fn substituting_with(mut self, substituter: &'a dyn Substituter) -> Self {
        self.substituter = Some(substituter);
        self
    }

    /// Greets, then answers until the client ends.
    ///
    /// # Errors
    /// [`ServeError`]. Every answer given before it holds.
    pub async fn run(mut self) -> Result<(), ServeError> {
        self.reply = greeting::read_client_magic(&mut self.reader).await?;
        self.flush().await?;
        self.version = greeting::read_client_version(&mut self.reader).await?;
        let store_dir = self.source.store_dir().clone();
        let end = self.converse(&store_dir).await;
        // Also what was answered before an error.
        let flushed = self.flush().await;
        end.and(flushed)
    }

    async fn converse(&mut self, store_dir: &StoreDir) -> Result<(), ServeError> {
        while let Some(request) = self.next_request(store_dir).await? {
            self.answer(request, store_dir).await?;
        }
        Ok(())
    }

    /// The next request. What has been answered goes out before waiting for it; if it is there already, small answers
    /// share one write.
    async fn next_request(&mut self, store_dir: &StoreDir) -> Result<Option<Request>, ServeError> {
        let mut request = pin!(Request::read(&mut self.reader, store_dir));
        if let Some(ready) = request.as_mut().now_or_never() {
            return Ok(ready?);
        }
        write(&mut self.writer, &mut self.reply).await?;
        Ok(request.await?)
    }

    async fn flush(&mut self) -> Result<(), ServeError> {
        write(&mut self.writer, &mut self.reply).await
    }

    async fn answer(&mut self, request: Request, store_dir: &StoreDir) -> Result<(), ServeError> {
        match request {
            Request::QueryValidPaths { mut query, paths } => {
                // Without --write both flags are ignored in silence, as Nix does.
                query.lock &= self.writing == Writing::Allowed;
                query.substitute &= self.writing == Writing::Allowed;
                let substituter = self.substituter.filter(|_| std::mem::take(&mut query.substitute));
                let mut valid = self.destination.valid_paths(&paths, query).await?;
                if let Some(substituter) = substituter {
                    let missing: Vec<_> =
                        paths.iter().filter(|path| !valid.contains(*path)).cloned().collect();
                    if !missing.is_empty() {
                        // That may take long, and what was answered can go.
                        self.flush().await?;
                        substituter.substitute(&missing).await;
                        valid = self.destination.valid_paths(&paths, query).await?;
                    }
                }
                self.reply.put_paths(store_dir, &valid);
            }
            Request::QueryPathInfos { paths } => {
                for info in self.describe(&paths).await? {
                    put_path_info(&info, store_dir, self.version, &mut self.reply);
                    if self.reply.len() > FLUSH_AT {
                        self.flush().await?;
                    }
                }
                self.reply.put_u64(0);
            }
            Request::QueryClosure { outputs, paths } => {
                let closure = self.source.closure(&paths, outputs).await?;
                let paths = self.members(closure)?;
                self.reply.put_paths(store_dir, &paths);
            }
            Request::DumpStorePath { path } => self.dump(path, store_dir).await?,
            Request::AddToStoreNar { info } => self.add(*info).await?,
            Request::Other { command } => return Err(ServeError::Unsupported { command }),
        }
        if self.reply.len() > FLUSH_AT { self.flush().await } else { Ok(()) }
    }

    /// The metadata of those of `paths` that are valid and can be described.
    ///
    /// A source answers for all paths or for none. If one of them stands in the way, halves are asked for, and so on: of many
    /// paths with few bad ones most are still described together.
    async fn describe(&mut self, paths: &[StorePath]) -> Result<Vec<PathInfo>, ServeError> {
        let mut infos = Vec::new();
        let mut left = vec![paths];
        while let Some(paths) = left.pop() {
            match self.source.path_infos(paths).await {
                Ok(more) => infos.extend(more),
                Err(error) if error.scope() != Scope::Path => return Err(error.into()),
                Err(error) => match paths {
                    [] => return Err(error.into()),
                    [path] => self.warn_of(path, &error),
                    _ => {
                        let (front, back) = paths.split_at(paths.len() / 2);
                        left.extend([back, front]);
                    }
                },
            }
        }
        Ok(infos)
    }

    /// The paths of a closure, with those that cannot be described.
    fn members(&mut self, closure: Closure) -> Result<Vec<StorePath>, StoreError> {
        let mut paths: Vec<StorePath> = closure.infos.into_iter().map(|info| info.path).collect();
        for (path, error) in closure.failed {
            // A client that asks for the closure of a path that is not valid must not take the answer for a closure.
            if matches!(error.problem(), Problem::NotValid { .. }) {
                return Err(error);
            }
            self.warn_of(&path, &error);
            paths.push(path);
        }
        paths.sort_unstable();
        Ok(paths)
    }

    fn warn_of(&mut self, path: &StorePath, error: &StoreError) {
        if self.warned_of.insert(path.clone()) {
            let causes = iter::successors(error.source(), |&cause| cause.source());
            let text = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
            tracing::warn!("{text}");
        }
    }

    async fn dump(&mut self, path: StorePath, store_dir: &StoreDir) -> Result<(), ServeError> {
        let mut infos = self.source.path_infos(std::slice::from_ref(&path)).await?;
        let Some(info) = infos.pop().map(Arc::new) else {
            let problem = Problem::NotValid { path: store_dir.full(&path) };
            return Err(ServeError::Store(StoreError::new(Side::Source, self.source.name(), problem)));
        };
        let mut body = self.source.nars([Arc::clone(&info)].into()).open(&info, 0).await?;
        while let Some(block) = body.next().await {
            let block = block?;
            if self.reply.len().saturating_add(block.len()) > FLUSH_AT {
                self.flush().await?;
                self.writer.write_all(&block).await.map_err(ServeError::Write)?;
            } else {
                self.reply.extend_from_slice(&block);
            }
        }
        Ok(())
    }

    /// Takes one path: the client's bytes go to the store as they come.
    async fn add(&mut self, info: PathInfo) -> Result<(), ServeError> {
        if self.writing == Writing::Refused {
            return Err(ServeError::ReadOnly);
        }
        if info.nar_size > FLUSH_AT as u64 {
            // That takes time, and what was answered can go.
            self.flush().await?;
        }
        let info = Arc::new(info);
        let (blocks, mut receiver) = mpsc::channel(BLOCKS_AHEAD);
        let body = NarBody::new(stream::poll_fn(move |context| receiver.poll_recv(context)));
        let nar = Nar { info: Arc::clone(&info), body };
        let nars = sequential_nars("the client", stream::iter([Ok(nar)]).boxed());
        let mut outcomes = self.destination.add_all([Arc::clone(&info)].into(), nars, OnFailure::Stop);
        let feeding = feed(&mut self.reader, info.nar_size, blocks);
        let (fed, outcome) = match select(pin!(feeding), outcomes.next()).await {
            Either::Left((fed, outcome)) => {
                // Also of a stream that broke, so that the store has tidied up.
                (fed, outcome.await)
            }
            Either::Right((outcome @ Some(Ok(Outcome::Added(_) | Outcome::AlreadyValid(_))), feeding)) => {
                // A store that has the path already does not listen.
                (feeding.await, outcome)
            }
            Either::Right((outcome, _)) => (Ok(()), outcome),
        };
        // What the store says of a stream that broke is only a consequence.
        fed?;
        match outcome {
            Some(Ok(Outcome::Added(_) | Outcome::AlreadyValid(_))) => {
                self.reply.put_u64(1);
                Ok(())
            }
            Some(Ok(Outcome::Failed { error, .. }) | Err(error)) => Err(ServeError::Store(error)),
            // Nothing was said about the path, so nothing is promised.
            Some(Ok(_)) | None => {
                let (action, path) = ("add", info.path.clone());
                let problem =
                    Problem::Path { action, path, source: "it did not say what became of it".into() };
                Err(ServeError::Store(StoreError::new(Side::Destination, self.destination.name(), problem)))
            }
        }
    }
}

async fn write<W: AsyncWrite + Unpin>(writer: &mut W, reply: &mut Vec<u8>) -> Result<(), ServeError> {
    writer.write_all(reply).await.map_err(ServeError::Write)?;
    reply.clear();
    writer.flush().await.map_err(ServeError::Write)
}

/// Hands on the `left` bytes of a NAR. Where nobody listens they are passed over.
async fn feed<R: AsyncRead + Unpin>(
    reader: &mut WireReader<R>,
    mut left: u64,
    blocks: mpsc::Sender<Result<Bytes, StoreError>>,
) -> Result<(), ProtocolError> {
    while left > 0 {
        let block = reader.block("a NAR", left).await?;
        left = left.saturating_sub(block.len() as u64);
        let _ = blocks.send(Ok(block)).await;
    }
    Ok(())
}
