//! Copying from a host.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::future::{BoxFuture, Either, select};
use ncc_protocol::{
    ProtocolError,
    serve::{Request, read_path_infos, read_valid_paths},
    wire::WireReader,
    worker::AnswerError,
};
use ncc_store::{
    Closure, Members, NarPlan, NarSource, Outputs, PathInfo, Problem, Side, Source, StoreDir, StoreError,
    StorePath, StorePathSet, ValidityQuery,
};
use ncc_transport::{FilteredStream, Reader};

use crate::{
    RemoteError, RemoteStore,
    closure::{Names, encode, locking},
    daemon,
    handing::{BlockSender, Blocks, NarSender, announce, hand_over, handed_over},
    session::{Lease, ReadAnswer},
    silence::Patience,
    store::{Shared, session_ended},
};

/// How much of the requests for NARs is written at once. They are answered in order, so this is only about memory.
pub(crate) const REQUESTS_AT_ONCE: usize = 64 << 10;

impl Source for RemoteStore {
    fn name(&self) -> &str {
        &self.shared().name
    }

    fn store_dir(&self) -> &StoreDir {
        self.shared().store_dir()
    }

    /// By the serve protocol in two round trips: the closure; then its metadata, and its protection from the host's garbage
    /// collector. Where there are several roots, another one before them asks which are valid: a server ends over one that is not.
    fn closure<'a>(
        &'a self,
        roots: &'a [StorePath],
        outputs: Outputs,
    ) -> BoxFuture<'a, Result<Closure, StoreError>> {
        let daemon = self.shared().daemon.closure(roots, outputs);
        Box::pin(self.in_either(self.ask_closure(roots, outputs), daemon))
    }

    /// By the serve protocol, names alone: the first of the round trips of [`closure`](Source::closure). A daemon is asked path by
    /// path, and tells the metadata with the references.
    fn members<'a>(
        &'a self,
        roots: &'a [StorePath],
        outputs: Outputs,
    ) -> BoxFuture<'a, Result<Members, StoreError>> {
        let names = async move {
            let Names { paths, failed } = self.ask_names(roots, outputs).await?;
            Ok(Members::Named { paths, failed })
        };
        Box::pin(self.in_either(names, self.shared().daemon.members(roots, outputs)))
    }

    fn describe<'a>(&'a self, paths: &'a [StorePath]) -> BoxFuture<'a, Result<Closure, StoreError>> {
        let asked = async move { self.ask_description(paths.iter().cloned().collect()).await };
        Box::pin(self.in_either(asked, self.shared().daemon.describe(paths)))
    }

    fn path_infos<'a>(&'a self, paths: &'a [StorePath]) -> BoxFuture<'a, Result<Vec<PathInfo>, StoreError>> {
        Box::pin(self.in_either(self.ask_path_infos(paths), self.shared().daemon.path_infos(paths)))
    }

    /// # Panics
    /// Outside of a tokio runtime.
    fn nars(&self, plan: NarPlan) -> Arc<dyn NarSource> {
        let (shared, sending) = (Arc::clone(self.shared()), Arc::clone(self.shared()));
        let wanted = NarPlan::clone(&plan);
        let begin = async move {
            let lease = shared.lease_for(FilteredStream::Stdout, &wanted).await;
            lease.map_err(|error| shared.failed(Side::Source, "send paths", None, error))
        };
        handed_over(Source::name(self), plan, begin, |lease: Lease, plan, nars| async move {
            if lease.daemon().is_some() {
                let daemon = Arc::clone(&sending.daemon.shared);
                let work = daemon.work(lease);
                return daemon::source::send_nars(daemon, work, plan, nars).await;
            }
            send_nars(&sending, lease, plan, nars).await;
        })
    }
}

impl RemoteStore {
    /// The closure, by the serve protocol.
    async fn ask_closure(&self, roots: &[StorePath], outputs: Outputs) -> Result<Closure, StoreError> {
        let Names { paths, mut failed } = self.ask_names(roots, outputs).await?;
        let mut closure = self.ask_description(paths).await?;
        failed.append(&mut closure.failed);
        Ok(Closure { failed, ..closure })
    }

    /// Which paths belong to it. The host protects the roots, and with them what they refer to, before it says so.
    async fn ask_names(&self, roots: &[StorePath], outputs: Outputs) -> Result<Names, StoreError> {
        let mut valid_roots = roots.to_vec();
        if roots.len() > 1 {
            let valid = self.ask_valid(Side::Source, roots, ValidityQuery::default().locking()).await?;
            valid_roots.retain(|root| valid.contains(root));
        }
        let Names { paths, mut failed } = self.names(&valid_roots, outputs).await?;
        let is_told_of =
            |root: &StorePath| paths.contains(root) || failed.iter().any(|(path, _)| path == root);
        let lacking: BTreeSet<&StorePath> = roots.iter().filter(|root| !is_told_of(root)).collect();
        let lacking: Vec<_> = lacking.into_iter().map(|root| self.not_valid(root)).collect();
        failed.extend(lacking);
        Ok(Names { paths, failed })
    }

    /// The metadata of what the host has named, by the serve protocol.
    async fn ask_description(&self, paths: StorePathSet) -> Result<Closure, StoreError> {
        if paths.is_empty() {
            return Ok(Closure::default());
        }
        let store_dir = self.shared().store_dir();
        let asked = Arc::new(paths);
        let paths = asked.as_slice();
        // Locking first: whatever is described afterwards stays until this session ends.
        let request = encode(store_dir, &[locking(paths), Request::QueryPathInfos { paths: paths.to_vec() }]);
        let read = read_description(store_dir, &asked);
        let (infos, undescribed) =
            self.ask(Side::Source, "describe the closure", Patience::Limited, &request, read).await?;
        let is_described =
            |path: &StorePath| infos.binary_search_by(|info: &PathInfo| info.path.cmp(path)).is_ok();
        let lacking = paths.iter().filter(|path| !is_described(path)).map(|path| {
            if undescribed.contains(path) { self.undescribed(path) } else { self.not_valid(path) }
        });
        let failed = lacking.collect();
        Ok(Closure { infos, failed })
    }

    fn not_valid(&self, path: &StorePath) -> (StorePath, StoreError) {
        let problem = Problem::NotValid { path: self.shared().store_dir().full(path) };
        (path.clone(), StoreError::new(Side::Source, self.shared().name.as_str(), problem))
    }

    /// What is known of paths, by the serve protocol.
    async fn ask_path_infos(&self, paths: &[StorePath]) -> Result<Vec<PathInfo>, StoreError> {
        let store_dir = self.shared().store_dir();
        let request = encode(store_dir, &[Request::QueryPathInfos { paths: paths.to_vec() }]);
        let asked = Arc::new(paths.iter().cloned().collect());
        self.ask(Side::Source, "describe paths", Patience::Limited, &request, read_infos(store_dir, &asked))
            .await
    }

    /// The failure of a path that the host calls valid and does not describe. Why it does not, it may have said on stderr.
    fn undescribed(&self, path: &StorePath) -> (StorePath, StoreError) {
        let source = "the host has it, but gives no metadata of it: perhaps its database is damaged".into();
        let problem = Problem::Path { action: "describe", path: path.clone(), source };
        (path.clone(), StoreError::new(Side::Source, self.shared().name.as_str(), problem))
    }
}

fn read_infos(store_dir: &StoreDir, asked: &Arc<StorePathSet>) -> impl ReadAnswer<Vec<PathInfo>> + Clone {
    let (store_dir, asked) = (store_dir.clone(), Arc::clone(asked));
    move |reader: &mut WireReader<Reader>| -> BoxFuture<'_, Result<Vec<PathInfo>, ProtocolError>> {
        Box::pin(async move { read_path_infos(reader, &store_dir, &asked).await })
    }
}

/// Path infos, and the paths that are valid and were left out all the same.
type Description = (Vec<PathInfo>, BTreeSet<StorePath>);

/// Reads which of the paths asked for are valid, and their metadata behind that.
fn read_description(store_dir: &StoreDir, asked: &Arc<StorePathSet>) -> impl ReadAnswer<Description> + Clone {
    let (store_dir, asked) = (store_dir.clone(), Arc::clone(asked));
    move |reader: &mut WireReader<Reader>| -> BoxFuture<'_, Result<Description, ProtocolError>> {
        Box::pin(async move {
            let mut undescribed = read_valid_paths(reader, &store_dir, &asked).await?;
            let infos = read_path_infos(reader, &store_dir, &asked).await?;
            for info in &infos {
                undescribed.remove(&info.path);
            }
            Ok((infos, undescribed))
        })
    }
}

/// Asks for all NARs ahead and hands each on as it comes.
async fn send_nars(shared: &Shared, mut lease: Lease, paths: NarPlan, nars: NarSender) {
    match transfer(shared, &mut lease, &paths, &nars).await {
        Transferred::All => lease.finish().await,
        Transferred::Unwanted => {}
        Transferred::Failed { path, error, blocks } => {
            let error = lease.explain(error).await;
            let is_first = paths.first().is_some_and(|info| info.path == path);
            if is_first && matches!(*error, RemoteError::Filtered { .. }) {
                shared.give_up_compressing(&error);
            }
            let failed = shared.failed(Side::Source, "send", Some(&path), Arc::clone(&error));
            // In the body of the NAR that was cut; and in the place of the next one, that the session has ended.
            let _ = blocks.send(Err(failed)).await;
            let _ = nars.send(Err(session_ended(&shared.name, Side::Source, "send paths", error))).await;
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
    let is_apart = lease.is_apart();
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
        if is_apart {
            // A filter gives the last of it away only at the end.
            requests.close();
        }
    };
    let take = async {
        for info in paths {
            let Some(blocks) = announce(info, nars).await else { return Transferred::Unwanted };
            let reader = match answers.greeted().await {
                Ok(reader) => reader,
                Err(error) => return Transferred::Failed { path: info.path.clone(), error, blocks },
            };
            match hand_over(reader, Blocks::of_size(info.nar_size), &blocks, nars).await {
                Ok(true) => {}
                Err(AnswerError::Broken(error)) => {
                    return Transferred::Failed { path: info.path.clone(), error, blocks };
                }
                // The serve protocol knows no refusals.
                Ok(false) | Err(AnswerError::Refused(_)) => return Transferred::Unwanted,
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
