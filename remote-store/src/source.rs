//! Copying from a host.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{future::BoxFuture, stream};
use ncc_protocol::{
    ProtocolError,
    serve::{self, Request, read_path_infos, read_valid_paths},
    wire::WireReader,
};
use ncc_store::{
    Closure, Nar, NarBody, NarPlan, NarSource, NarStream, Outputs, PathInfo, Problem, Side, Source, StoreDir,
    StoreError, StorePath, StorePathSet, ValidityQuery, sequential_nars,
};
use ncc_transport::Reader;
use tokio::sync::mpsc;

use crate::{
    RemoteError, RemoteStore,
    connection::{Connection, ReadAnswer},
    silence::Patience,
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
    ) -> BoxFuture<'a, Result<Closure, StoreError>> {
        Box::pin(async move {
            let store_dir = self.store_dir();
            let request = encode(store_dir, &[Request::QueryClosure { outputs, paths: roots.to_vec() }]);
            let action = "compute the closure";
            let closure =
                self.ask(Side::Source, action, Patience::Limited, &request, read_closure(store_dir)).await?;
            let asked = Arc::new(closure);
            let paths = asked.as_slice();
            let request = encode(
                store_dir,
                &[
                    // Locking first: whatever is described afterwards stays until this connection ends.
                    Request::QueryValidPaths {
                        query: ValidityQuery::default().locking(),
                        paths: paths.to_vec(),
                    },
                    Request::QueryPathInfos { paths: paths.to_vec() },
                ],
            );
            let read = read_infos(store_dir, &asked, Before::ValidPaths);
            let infos =
                self.ask(Side::Source, "describe the closure", Patience::Limited, &request, read).await?;
            let described = |path: &StorePath| infos.binary_search_by(|info| info.path.cmp(path)).is_ok();
            match paths.iter().chain(roots).find(|path| !described(path)) {
                Some(missing) => {
                    let problem = Problem::NotValid { path: store_dir.full(missing) };
                    Err(StoreError::new(Side::Source, self.shared().name.as_str(), problem))
                }
                None => Ok(infos.into()),
            }
        })
    }

    fn path_infos<'a>(&'a self, paths: &'a [StorePath]) -> BoxFuture<'a, Result<Vec<PathInfo>, StoreError>> {
        Box::pin(async move {
            let store_dir = self.store_dir();
            let request = encode(store_dir, &[Request::QueryPathInfos { paths: paths.to_vec() }]);
            let asked = Arc::new(paths.iter().cloned().collect());
            self.ask(
                Side::Source,
                "describe paths",
                Patience::Limited,
                &request,
                read_infos(store_dir, &asked, Before::Nothing),
            )
            .await
        })
    }

    /// # Panics
    /// Outside of a tokio runtime.
    fn nars(&self, plan: NarPlan) -> Arc<dyn NarSource> {
        let nars: NarStream = if plan.is_empty() {
            Box::pin(stream::empty())
        } else {
            let (nars, mut receiver) = mpsc::channel(1);
            // Ends by itself once neither the stream nor the last body is wanted any more.
            tokio::spawn(send_nars(self.clone(), plan, nars));
            Box::pin(stream::poll_fn(move |context| receiver.poll_recv(context)))
        };
        sequential_nars(self.name(), nars)
    }
}

fn encode(store_dir: &StoreDir, requests: &[Request]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for request in requests {
        request.encode(store_dir, &mut bytes);
    }
    bytes
}

fn read_closure(store_dir: &StoreDir) -> impl ReadAnswer<StorePathSet> + Clone {
    let store_dir = store_dir.clone();
    move |reader: &mut WireReader<Reader>| -> BoxFuture<'_, Result<StorePathSet, ProtocolError>> {
        Box::pin(async move { serve::read_closure(reader, &store_dir).await })
    }
}

/// What is answered in front of path infos.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    ValidPaths,
}

fn read_infos(
    store_dir: &StoreDir,
    asked: &Arc<StorePathSet>,
    before: Before,
) -> impl ReadAnswer<Vec<PathInfo>> + Clone {
    let (store_dir, asked) = (store_dir.clone(), Arc::clone(asked));
    move |reader: &mut WireReader<Reader>| -> BoxFuture<'_, Result<Vec<PathInfo>, ProtocolError>> {
        Box::pin(async move {
            if before == Before::ValidPaths {
                read_valid_paths(reader, &store_dir, &asked).await?;
            }
            read_path_infos(reader, &store_dir, &asked).await
        })
    }
}

type NarSender = mpsc::Sender<Result<Nar, StoreError>>;
type BlockSender = mpsc::Sender<Result<Bytes, StoreError>>;

/// Asks for all NARs ahead and hands each on as it comes.
async fn send_nars(store: RemoteStore, paths: NarPlan, nars: NarSender) {
    let shared = Arc::clone(store.shared());
    let lease = tokio::select! {
        biased;
        () = nars.closed() => return,
        lease = store.lease() => lease,
    };
    let mut lease = match lease {
        Ok(lease) => lease,
        Err(error) => {
            let _ = nars.send(Err(shared.failed(Side::Source, "send paths", None, Arc::new(error)))).await;
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
        for info in paths.iter().filter(|info| has_size(info)) {
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
        let greeted = tokio::select! {
            biased;
            () = nars.closed() => return Ended::Unwanted,
            greeted = answers.greeted() => greeted,
        };
        let reader = match (greeted, paths.first()) {
            (Ok(reader), _) => reader,
            (Err(error), Some(first)) => {
                return Ended::Failed { path: first.path.clone(), error, blocks: None };
            }
            (Err(_), None) => return Ended::Unwanted,
        };
        for info in paths {
            let (blocks, mut receiver) = mpsc::channel(BLOCKS_AHEAD);
            let body = NarBody::new(stream::poll_fn(move |context| receiver.poll_recv(context)));
            if nars.send(Ok(Nar { info: Arc::clone(info), body })).await.is_err() {
                return Ended::Unwanted;
            }
            if !has_size(info) {
                let error = Arc::new(RemoteError::NoSize);
                let error = shared.failed(Side::Source, "send", Some(&info.path), error);
                let _ = blocks.send(Err(error)).await;
                continue;
            }
            match take_one(reader, info.nar_size, &blocks, nars).await {
                Taken::All => {}
                Taken::Unwanted => return Ended::Unwanted,
                Taken::Failed(error) => {
                    return Ended::Failed { path: info.path.clone(), error, blocks: Some(blocks) };
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

/// Whether it is known where the NAR of a path ends. Nix has recorded no size for what it registered long ago.
fn has_size(info: &PathInfo) -> bool {
    info.nar_size > 0
}

/// What became of one NAR.
enum Taken {
    All,
    Unwanted,
    Failed(ProtocolError),
}

async fn take_one(
    reader: &mut WireReader<Reader>,
    size: u64,
    blocks: &BlockSender,
    nars: &NarSender,
) -> Taken {
    // A body that nobody reads is passed over, for the sake of the next; unless nobody wants the next either.
    let mut unwanted = std::pin::pin!(async {
        blocks.closed().await;
        nars.closed().await;
    });
    let mut left = size;
    while left > 0 {
        let block = tokio::select! {
            biased;
            () = &mut unwanted => return Taken::Unwanted,
            block = reader.block("a NAR", left) => block,
        };
        match block {
            Ok(block) => {
                left = left.saturating_sub(block.len() as u64);
                let _ = blocks.send(Ok(block)).await;
            }
            Err(error) => return Taken::Failed(error),
        }
    }
    Taken::All
}

/// Says why: in the body of the NAR that was cut, and in the place of the next one that the connection has ended.
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
        let _ = blocks.send(Err(shared.failed(Side::Source, "send", Some(path), Arc::clone(&error)))).await;
    }
    let _ = nars.send(Err(shared.connection_ended(Side::Source, "send paths", error))).await;
}
