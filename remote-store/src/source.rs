//! Copying from a host.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use futures_util::{future::BoxFuture, stream};
use ncc_protocol::{
    ProtocolError,
    serve::{Request, read_path_info},
    wire::WireReader,
};
use ncc_store::{
    Nar, NarBody, NarStream, Outputs, PathInfo, Source, StoreDir, StoreError, StorePath, StorePathSet,
    ValidityQuery,
};
use ncc_transport::Reader;
use tokio::sync::mpsc;

use crate::{
    RemoteStore,
    connection::{Connection, ReadAnswer},
    store::{Lease, Shared},
};

/// Blocks of one NAR under way between the connection and whoever takes it, at most 128 KiB each.
const BLOCKS_AHEAD: usize = 8;

/// How much of the requests for NARs is written at once. They are answered in order, so this is only about memory.
const REQUESTS_AT_ONCE: usize = 64 << 10;

impl Source for RemoteStore {
    fn name(&self) -> &str {
        &self.shared().name
    }

    fn store_dir(&self) -> &StoreDir {
        self.shared().store_dir()
    }

    /// Two round trips: the closure; then its metadata, and its protection from the host's garbage collector.
    fn closure<'a>(
        &'a self,
        roots: &'a [StorePath],
        outputs: Outputs,
    ) -> BoxFuture<'a, Result<Vec<PathInfo>, StoreError>> {
        Box::pin(async move {
            let action = "compute the closure";
            let store_dir = self.store_dir();
            let request = encode(store_dir, &[Request::QueryClosure { outputs, paths: roots.to_vec() }]);
            let paths = self.ask(action, &request, read_paths(store_dir, "the closure")).await?;
            let paths = StorePathSet::from_iter(paths).as_slice().to_vec();
            let request = encode(
                store_dir,
                &[
                    // Locking first: whatever is described afterwards stays until this connection ends.
                    Request::QueryValidPaths {
                        query: ValidityQuery::default().locking(),
                        paths: paths.clone(),
                    },
                    Request::QueryPathInfos { paths: paths.clone() },
                ],
            );
            let action = "describe the closure";
            let infos = self
                .ask(action, &request, {
                    let store_dir = store_dir.clone();
                    |reader| {
                        Box::pin(async move {
                            reader.paths("the valid paths", &store_dir).await?;
                            read_infos(reader, &store_dir).await
                        })
                    }
                })
                .await?;
            let asked = paths.iter().collect();
            self.shared().check_asked(action, &asked, infos.iter().map(|info| &info.path))?;
            let described: BTreeSet<_> = infos.iter().map(|info| &info.path).collect();
            match asked.into_iter().chain(roots).find(|path| !described.contains(path)) {
                Some(missing) => Err(StoreError::NotValid {
                    store: self.shared().name.clone(),
                    path: store_dir.full(missing),
                }),
                None => Ok(infos),
            }
        })
    }

    fn path_infos<'a>(&'a self, paths: &'a [StorePath]) -> BoxFuture<'a, Result<Vec<PathInfo>, StoreError>> {
        Box::pin(async move {
            let action = "describe paths";
            let store_dir = self.store_dir();
            let request = encode(store_dir, &[Request::QueryPathInfos { paths: paths.to_vec() }]);
            let infos = self
                .ask(action, &request, {
                    let store_dir = store_dir.clone();
                    |reader| Box::pin(async move { read_infos(reader, &store_dir).await })
                })
                .await?;
            self.shared().check_asked(
                action,
                &paths.iter().collect(),
                infos.iter().map(|info| &info.path),
            )?;
            Ok(infos)
        })
    }

    fn nars(&self, paths: Vec<Arc<PathInfo>>) -> NarStream {
        let store = self.clone();
        let (nars, mut receiver) = mpsc::channel(1);
        // Ends by itself once neither the stream nor the last body is wanted any more.
        tokio::spawn(send_nars(store, paths, nars));
        Box::pin(stream::poll_fn(move |context| receiver.poll_recv(context)))
    }
}

fn encode(store_dir: &StoreDir, requests: &[Request]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for request in requests {
        request.encode(store_dir, &mut bytes);
    }
    bytes
}

/// Reads a set of paths as an answer.
pub(crate) fn read_paths(
    store_dir: &StoreDir,
    what: &'static str,
) -> impl ReadAnswer<Vec<StorePath>> + Clone {
    let store_dir = store_dir.clone();
    move |reader: &mut WireReader<Reader>| -> BoxFuture<'_, Result<Vec<StorePath>, ProtocolError>> {
        Box::pin(async move { reader.paths(what, &store_dir).await })
    }
}

async fn read_infos(
    reader: &mut WireReader<Reader>,
    store_dir: &StoreDir,
) -> Result<Vec<PathInfo>, ProtocolError> {
    let mut infos = Vec::new();
    while let Some(info) = read_path_info(reader, store_dir).await? {
        infos.push(info);
    }
    infos.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    infos.dedup_by(|a, b| a.path == b.path);
    Ok(infos)
}

type NarSender = mpsc::Sender<Result<Nar, StoreError>>;
type BlockSender = mpsc::Sender<Result<Bytes, StoreError>>;

/// Asks for all NARs ahead and hands each on as it comes.
async fn send_nars(store: RemoteStore, paths: Vec<Arc<PathInfo>>, nars: NarSender) {
    let shared = Arc::clone(store.shared());
    let mut lease = match store.lease().await {
        Ok(lease) => lease,
        Err(error) => {
            let _ = nars.send(Err(shared.failed("send paths", error))).await;
            return;
        }
    };
    match transfer(&shared, &mut lease.connection, &paths, &nars).await {
        Ended::Complete => lease.give_back(),
        Ended::Unwanted => {}
        Ended::Failed { path, error, blocks } => {
            fail(&shared, lease, &path, error, blocks, &nars).await;
        }
    }
}

enum Ended {
    /// Every NAR was handed over, or passed over at the wish of whoever took it.
    Complete,
    /// Nobody takes NARs any more.
    Unwanted,
    /// The stream broke while `path` was awaited.
    Failed { path: StorePath, error: ProtocolError, blocks: Option<BlockSender> },
}

async fn transfer(
    shared: &Shared,
    connection: &mut Connection,
    paths: &[Arc<PathInfo>],
    nars: &NarSender,
) -> Ended {
    let Connection { requests, answers, .. } = connection;
    let ask = async {
        let mut bytes = Vec::new();
        for info in paths {
            Request::DumpStorePath { path: info.path.clone() }.encode(shared.store_dir(), &mut bytes);
            if bytes.len() > REQUESTS_AT_ONCE {
                // If the server is gone, reading will tell.
                if requests.write(&bytes).await.is_err() {
                    return;
                }
                bytes.clear();
            }
        }
        let _ = requests.write(&bytes).await;
    };
    let take = async {
        for info in paths {
            let reader = match answers.greeted().await {
                Ok(reader) => reader,
                Err(error) => return Ended::Failed { path: info.path.clone(), error, blocks: None },
            };
            let (blocks, mut receiver) = mpsc::channel(BLOCKS_AHEAD);
            let body: NarBody = Box::pin(stream::poll_fn(move |context| receiver.poll_recv(context)));
            if nars.send(Ok(Nar { info: Arc::clone(info), body })).await.is_err() {
                return Ended::Unwanted;
            }
            let mut left = info.nar_size;
            while left > 0 {
                match reader.block("a NAR", left).await {
                    Ok(block) => {
                        left = left.saturating_sub(block.len() as u64);
                        // A body that nobody reads is passed over, for the sake of the next.
                        let _ = blocks.send(Ok(block)).await;
                    }
                    Err(error) => {
                        return Ended::Failed { path: info.path.clone(), error, blocks: Some(blocks) };
                    }
                }
            }
        }
        Ended::Complete
    };
    // `take` ends first unless the server answers requests that it has not read.
    let (ask, take) = (std::pin::pin!(ask), std::pin::pin!(take));
    match futures_util::future::select(ask, take).await {
        futures_util::future::Either::Left(((), take)) => take.await,
        futures_util::future::Either::Right((ended, ask)) => {
            if matches!(ended, Ended::Complete) {
                ask.await;
            }
            ended
        }
    }
}

/// Says why, in the body of the NAR that was cut and in the place of those that will not come.
async fn fail(
    shared: &Shared,
    lease: Lease,
    path: &StorePath,
    error: ProtocolError,
    blocks: Option<BlockSender>,
    nars: &NarSender,
) {
    let error = Arc::new(lease.connection.explain(&*shared.transport, error).await);
    if let Some(blocks) = blocks {
        let _ = blocks.send(Err(shared.path_failed("send", path, Arc::clone(&error)))).await;
    }
    let _ = nars.send(Err(shared.path_failed("send", path, error))).await;
}
