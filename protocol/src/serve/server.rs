//! The server's side, over any store.

use std::{pin::pin, sync::Arc};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};
use ncc_store::{Destination, Nar, Outcome, PathInfo, Source, StoreDir, StoreError, StorePath};
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
pub struct Server<'a, R, W> {
    reader: WireReader<R>,
    writer: W,
    reply: Vec<u8>,
    source: &'a dyn Source,
    destination: &'a dyn Destination,
    substituter: Option<&'a dyn Substituter>,
    writing: Writing,
    version: Version,
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
        let mut next = self.next_request(store_dir).await?;
        while let Some(request) = next {
            next = match request {
                Request::AddToStoreNar { info } => self.add(*info, store_dir).await?,
                other => {
                    self.answer(other, store_dir).await?;
                    self.next_request(store_dir).await?
                }
            };
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
                for info in self.source.path_infos(&paths).await? {
                    put_path_info(&info, store_dir, self.version, &mut self.reply);
                    if self.reply.len() > FLUSH_AT {
                        self.flush().await?;
                    }
                }
                self.reply.put_u64(0);
            }
            Request::QueryClosure { outputs, paths } => {
                let closure = self.source.closure(&paths, outputs).await?;
                let paths: Vec<StorePath> = closure.into_iter().map(|info| info.path).collect();
                self.reply.put_paths(store_dir, &paths);
            }
            Request::DumpStorePath { path } => self.dump(path, store_dir).await?,
            Request::AddToStoreNar { .. } => {}
            Request::Other { command } => return Err(ServeError::Unsupported { command }),
        }
        if self.reply.len() > FLUSH_AT { self.flush().await } else { Ok(()) }
    }

    async fn dump(&mut self, path: StorePath, store_dir: &StoreDir) -> Result<(), ServeError> {
        let mut infos = self.source.path_infos(std::slice::from_ref(&path)).await?;
        let Some(info) = infos.pop() else {
            return Err(ServeError::Store(StoreError::NotValid {
                store: self.source.name().to_owned(),
                path: store_dir.full(&path),
            }));
        };
        let mut nars = self.source.nars(vec![Arc::new(info)]);
        while let Some(nar) = nars.next().await {
            let mut body = nar?.body;
            while let Some(block) = body.next().await {
                let block = block?;
                if self.reply.len().saturating_add(block.len()) > FLUSH_AT {
                    self.flush().await?;
                    self.writer.write_all(&block).await.map_err(ServeError::Write)?;
                } else {
                    self.reply.extend_from_slice(&block);
                }
            }
        }
        Ok(())
    }

    /// Takes a run of AddToStoreNar requests as one sequence, so that the store can register many at once; gives the
    /// request behind the run.
    async fn add(&mut self, first: PathInfo, store_dir: &StoreDir) -> Result<Option<Request>, ServeError> {
        if self.writing == Writing::Refused {
            return Err(ServeError::ReadOnly);
        }
        let (nars, mut receiver) = mpsc::channel(1);
        let nar_stream = stream::poll_fn(move |context| receiver.poll_recv(context));
        let mut outcomes = self.destination.add_many(Box::pin(nar_stream));

        let reader = &mut self.reader;
        let mut feed = pin!(feed(reader, store_dir, first, nars).fuse());
        let (writer, reply) = (&mut self.writer, &mut self.reply);
        let mut answer = pin!(async move {
            let mut answered = 0_u64;
            loop {
                let outcome = if let Some(ready) = outcomes.next().now_or_never() {
                    ready
                } else {
                    write(writer, reply).await.map_err(|error| (answered, error))?;
                    outcomes.next().await
                };
                match outcome {
                    None => return write(writer, reply).await.map_err(|error| (answered, error)),
                    Some(Ok(Outcome::Failed { error, .. }) | Err(error)) => {
                        write(writer, reply).await.map_err(|error| (answered, error))?;
                        return Err((answered, ServeError::Store(error)));
                    }
                    Some(Ok(_)) => {
                        answered = answered.saturating_add(1);
                        reply.put_u64(1);
                    }
                }
            }
        });
        let mut rest = None;
        loop {
            tokio::select! {
                biased;
                end = &mut answer => return match (end, rest) {
                    // What the store could not do with a path that had come whole is the older story.
                    (Err((answered, error)), Some(Err((whole, _)))) if answered < whole => Err(error),
                    // A client's broken stream is the cause of what the store then says of it.
                    (_, Some(Err((_, error)))) => Err(ServeError::Protocol(error)),
                    (Err((_, error)), _) => Err(error),
                    (Ok(()), Some(Ok(next))) => Ok(next),
                    (Ok(()), None) => Ok(None),
                },
                result = &mut feed, if rest.is_none() => rest = Some(result),
            }
        }
    }
}

async fn write<W: AsyncWrite + Unpin>(writer: &mut W, reply: &mut Vec<u8>) -> Result<(), ServeError> {
    writer.write_all(reply).await.map_err(ServeError::Write)?;
    reply.clear();
    writer.flush().await.map_err(ServeError::Write)
}

/// Reads headers and NARs, hands them to the store, and stops at the first request that is something else. An error
/// comes with the number of NARs that had come whole.
async fn feed<R: AsyncRead + Unpin>(
    reader: &mut WireReader<R>,
    store_dir: &StoreDir,
    first: PathInfo,
    nars: mpsc::Sender<Result<Nar, StoreError>>,
) -> Result<Option<Request>, (u64, ProtocolError)> {
    let mut info = first;
    let mut whole = 0_u64;
    loop {
        let mut left = info.nar_size;
        let (blocks, mut receiver) = mpsc::channel(BLOCKS_AHEAD);
        let body = stream::poll_fn(move |context| receiver.poll_recv(context));
        let path = info.path.clone();
        let nar = Nar { info: Arc::new(info), body: Box::pin(body) };
        if nars.send(Ok(nar)).await.is_err() {
            // The store has ended the sequence; its outcome says why.
            return std::future::pending().await;
        }
        while left > 0 {
            let block = match reader.block("a NAR", left).await {
                Ok(block) => block,
                Err(error) => {
                    let cut = StoreError::Path {
                        store: "the client".to_owned(),
                        action: "send all of",
                        path,
                        source: "the stream ended".into(),
                    };
                    // Nobody may be listening any more; the error is returned anyway.
                    let _ = blocks.send(Err(cut)).await;
                    return Err((whole, error));
                }
            };
            left = left.saturating_sub(block.len() as u64);
            // A store that has the path already does not listen; its bytes are passed over.
            let _ = blocks.send(Ok(block)).await;
        }
        drop(blocks);
        whole = whole.saturating_add(1);
        match Request::read(reader, store_dir).await.map_err(|error| (whole, error))? {
            Some(Request::AddToStoreNar { info: next }) => info = *next,
            other => return Ok(other),
        }
    }
}
