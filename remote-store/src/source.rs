//! Copying from a host.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use futures_util::{
    future::{BoxFuture, Either, select},
    stream,
};
use ncc_protocol::{
    ProtocolError,
    serve::{self, Request, read_path_infos, read_valid_paths},
    wire::{NarReader, WireReader},
};
use ncc_store::{
    Closure, Nar, NarBody, NarPlan, NarSource, NarStream, Outputs, PathInfo, Problem, Side, Source, StoreDir,
    StoreError, StorePath, StorePathSet, ValidityQuery, sequential_nars,
};
use ncc_transport::Reader;
use tokio::sync::mpsc;

use crate::{
    RemoteStore,
    session::{Lease, ReadAnswer},
    silence::Patience,
    store::Shared,
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

    /// Two round trips: the closure; then its metadata, and its protection from the host's garbage collector. Where there
    /// are several roots, another one before them asks which are valid: a server ends over one that is not.
    fn closure<'a>(
        &'a self,
        roots: &'a [StorePath],
        outputs: Outputs,
    ) -> BoxFuture<'a, Result<Closure, StoreError>> {
        Box::pin(async move {
            let store_dir = self.store_dir();
            let not_valid = |path: &StorePath| {
                let problem = Problem::NotValid { path: store_dir.full(path) };
                (path.clone(), StoreError::new(Side::Source, self.shared().name.as_str(), problem))
            };
            let mut closure = Closure::default();
            let mut valid_roots = roots.to_vec();
            if roots.len() > 1 {
                let valid = self.ask_valid(Side::Source, roots, ValidityQuery::default().locking()).await?;
                valid_roots.retain(|root| valid.contains(root));
                closure.failed = roots.iter().filter(|root| !valid.contains(*root)).map(not_valid).collect();
            }
            if valid_roots.is_empty() {
                return Ok(closure);
            }
            let action = "compute the closure";
            let request = encode(store_dir, &[Request::QueryClosure { outputs, paths: valid_roots.clone() }]);
            let paths =
                self.ask(Side::Source, action, Patience::Limited, &request, read_closure(store_dir)).await?;
            let asked = Arc::new(paths);
            let paths = asked.as_slice();
            let request = encode(
                store_dir,
                &[
                    // Locking first: whatever is described afterwards stays until this session ends.
                    Request::QueryValidPaths {
                        query: ValidityQuery::default().locking(),
                        paths: paths.to_vec(),
                    },
                    Request::QueryPathInfos { paths: paths.to_vec() },
                ],
            );
            let read = read_infos(store_dir, &asked, Before::ValidPaths);
            closure.infos =
                self.ask(Side::Source, "describe the closure", Patience::Limited, &request, read).await?;
            let described =
                |path: &&StorePath| closure.infos.binary_search_by(|info| info.path.cmp(path)).is_ok();
            let lacking: BTreeSet<&StorePath> =
                paths.iter().chain(&valid_roots).filter(|path| !described(path)).collect();
            let lacking: Vec<_> = lacking.into_iter().map(not_valid).collect();
            closure.failed.extend(lacking);
            Ok(closure)
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
        lease = shared.pool.lease() => lease,
    };
    let mut lease = match lease {
        Ok(lease) => lease,
        Err(error) => {
            let _ = nars.send(Err(shared.failed(Side::Source, "send paths", None, error))).await;
            return;
        }
    };
    match transfer(&shared, &mut lease, &paths, &nars).await {
        Transferred::All => lease.give_back(),
        Transferred::Unwanted => {}
        Transferred::Failed { path, error, blocks } => {
            let error = lease.explain(error).await;
            let failed = shared.failed(Side::Source, "send", Some(&path), Arc::clone(&error));
            // In the body of the NAR that was cut; and in the place of the next one, that the session has ended.
            let _ = blocks.send(Err(failed)).await;
            let _ = nars.send(Err(shared.session_ended(Side::Source, "send paths", error))).await;
        }
    }
}

enum Transferred {
    /// Every NAR was handed over, or passed over at the wish of whoever took it.
    All,
    /// Nobody takes NARs any more.
    Unwanted,
    /// The stream broke while `path` was awaited.
    Failed { path: StorePath, error: ProtocolError, blocks: BlockSender },
}

async fn transfer(
    shared: &Shared,
    lease: &mut Lease,
    paths: &[Arc<PathInfo>],
    nars: &NarSender,
) -> Transferred {
    let Lease { requests, answers, .. } = lease;
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
            let (blocks, mut receiver) = mpsc::channel(BLOCKS_AHEAD);
            let body = NarBody::new(stream::poll_fn(move |context| receiver.poll_recv(context)));
            if nars.send(Ok(Nar { info: Arc::clone(info), body })).await.is_err() {
                return Transferred::Unwanted;
            }
            match take_one(&mut answers.reader, info.nar_size, &blocks, nars).await {
                Ok(true) => {}
                Ok(false) => return Transferred::Unwanted,
                Err(error) => return Transferred::Failed { path: info.path.clone(), error, blocks },
            }
        }
        Transferred::All
    };
    // `take` ends first unless the server answers requests that it has not read: all that is left to say is not heard then.
    let (ask, take) = (std::pin::pin!(ask), std::pin::pin!(take));
    match select(ask, take).await {
        Either::Left(((), take)) => take.await,
        Either::Right((Transferred::All, _)) => Transferred::Unwanted,
        Either::Right((transferred, _)) => transferred,
    }
}

/// Hands on one NAR; `false` if nobody wants this one and those behind it. A size of 0 is not known, which Nix has not
/// recorded of what it registered long ago: then the archive itself says where it ends.
async fn take_one(
    reader: &mut WireReader<Reader>,
    size: u64,
    blocks: &BlockSender,
    nars: &NarSender,
) -> Result<bool, ProtocolError> {
    // A body that nobody reads is passed over, for the sake of the next; unless nobody wants the next either.
    let mut unwanted = std::pin::pin!(async {
        blocks.closed().await;
        nars.closed().await;
    });
    let mut left = size;
    let mut archive = (size == 0).then(NarReader::new);
    loop {
        let block = async {
            match &mut archive {
                Some(archive) => archive.next(reader).await,
                None if left == 0 => Ok(None),
                None => reader.block("a NAR", left).await.map(Some),
            }
        };
        let block = tokio::select! {
            biased;
            () = &mut unwanted => return Ok(false),
            block = block => block?,
        };
        let Some(block) = block else { return Ok(true) };
        left = left.saturating_sub(block.len() as u64);
        let _ = blocks.send(Ok(block)).await;
    }
}
