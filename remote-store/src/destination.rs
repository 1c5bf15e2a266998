//! Copying to a host.

use std::{collections::BTreeSet, pin::pin, sync::Arc};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};
use ncc_protocol::{
    ProtocolError,
    serve::{Request, read_added},
};
use ncc_store::{
    Destination, NarPlan, NarSource, OnFailure, Outcome, Outcomes, PathInfo, PlanQueue, Scope, Side,
    StoreDir, StoreError, StorePath, Takes, ValidityQuery,
};
use ncc_transport::FilteredStream;
use tokio::sync::mpsc;

use crate::{
    RemoteError, RemoteStore, daemon, foresight,
    session::{Answers, Lease, Requests},
    store::Shared,
};

/// Small NARs are gathered up to this before they are written.
pub(crate) const WRITE_AT: usize = 64 << 10;

impl Destination for RemoteStore {
    fn name(&self) -> &str {
        &self.shared().name
    }

    fn store_dir(&self) -> &StoreDir {
        self.shared().store_dir()
    }

    fn valid_paths<'a>(
        &'a self,
        paths: &'a [StorePath],
        query: ValidityQuery,
    ) -> BoxFuture<'a, Result<BTreeSet<StorePath>, StoreError>> {
        let daemon = Destination::valid_paths(&self.shared().daemon, paths, query);
        Box::pin(self.in_either(self.ask_valid(Side::Destination, paths, query), daemon))
    }

    fn substitutable<'a>(
        &'a self,
        paths: &'a [StorePath],
    ) -> BoxFuture<'a, Result<Option<BTreeSet<StorePath>>, StoreError>> {
        let serve = async { Ok(foresight::substitutable(self.shared(), paths).await) };
        Box::pin(self.in_either(serve, self.shared().daemon.substitutable(paths)))
    }

    /// Known only where a daemon says so. The serve protocol has no word for it.
    fn takes(&self) -> BoxFuture<'_, Result<Takes, StoreError>> {
        Box::pin(async move {
            let shared = self.shared();
            let failed = |error| shared.failed(Side::Destination, "say which paths it takes", None, error);
            shared.language().await.map_err(failed)?;
            self.in_either(async { Ok(Takes::Unknown) }, shared.daemon.takes()).await
        })
    }

    /// # Panics
    /// Outside of a tokio runtime.
    fn add_all(&self, plan: NarPlan, nars: Arc<dyn NarSource>, on_failure: OnFailure) -> Outcomes {
        let shared = Arc::clone(self.shared());
        let queue = PlanQueue::new(NarPlan::clone(&plan), on_failure);
        outcomes_of(|outcomes| async move {
            let lease = shared.lease_for(FilteredStream::Stdin, &plan).await;
            let lease = lease.map_err(|error| shared.failed(Side::Destination, "add paths", None, error))?;
            if lease.daemon().is_some() {
                let shared = &shared.daemon.shared;
                return daemon::destination::add_all(shared, shared.work(lease), queue, nars, &outcomes)
                    .await;
            }
            add_all(&shared, lease, queue, nars, &outcomes).await
        })
    }
}

/// What `add` reports from a task of its own, for as long as somebody listens: then the connection is dropped, and with it the
/// server.
pub(crate) fn outcomes_of<F: Future<Output = Result<(), StoreError>> + Send + 'static>(
    add: impl FnOnce(OutcomeSender) -> F,
) -> Outcomes {
    let (outcomes, mut receiver) = mpsc::channel(64);
    let adding = add(outcomes.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = outcomes.closed() => {}
            result = adding => {
                if let Err(error) = result {
                    let _ = outcomes.send(Err(error)).await;
                }
            }
        }
    });
    Box::pin(stream::poll_fn(move |context| receiver.poll_recv(context)))
}

pub(crate) type OutcomeSender = mpsc::Sender<Result<Outcome, StoreError>>;

/// What an answer, or the place of one, is about. Kept in the order of the requests.
enum Expected {
    Answer(Arc<PathInfo>),
    Failed(StorePath, StoreError),
}

/// How the writing side ended.
enum Written {
    /// Everything that could be sent was: `Err` is the source's own failure, between paths.
    All(Result<(), StoreError>),
    /// A body failed when its beginning was out: the stream is cut there, and registers nothing of it.
    Cut(StorePath, StoreError),
    /// The server takes no more bytes. Its answers and its stderr say why.
    Refused,
}

async fn add_all(
    shared: &Shared,
    mut lease: Lease,
    queue: PlanQueue,
    nars: Arc<dyn NarSource>,
    outcomes: &OutcomeSender,
) -> Result<(), StoreError> {
    let failed = |path: Option<&StorePath>, error| {
        let action = if path.is_some() { "add" } else { "add paths" };
        shared.failed(Side::Destination, action, path, error)
    };
    let is_apart = lease.is_apart();
    let (expected, expecting) = mpsc::unbounded_channel();
    let mut progressed = false;
    let Lease { requests, answers, .. } = &mut lease;
    let (written, read) = {
        let mut writing = pin!(async {
            let written = write_all(requests, shared, queue, &*nars, expected).await;
            if is_apart || !matches!(written, Written::All(_)) {
                // The server sees the end of its input here; in the middle of a path it registers nothing of that.
                requests.close();
            }
            written
        });
        // The reader always runs: a server blocks once its answers fill the pipe. It ends when all that is expected has
        // been answered, or at the end of the stream, whatever the writer does.
        let mut reading = pin!(read_all(answers, expecting, outcomes, &mut progressed));
        let mut written = None;
        let read = loop {
            tokio::select! {
                read = &mut reading => break read,
                result = &mut writing, if written.is_none() => written = Some(result),
            }
        };
        (written, read)
    };
    match (written, read) {
        (Some(Written::All(result)), Ok(())) => {
            lease.finish().await;
            result
        }
        // What the source did wrong explains that its path was not answered. That another one was not is an older story.
        (Some(Written::Cut(path, error)), read) if read.as_ref().err().is_none_or(|read| read.0 == path) => {
            Err(error)
        }
        (_, read) => {
            let (path, error) = match read {
                Err((path, error)) => (Some(path), error),
                Ok(()) => (None, ProtocolError::UnexpectedEnd { what: "answers to added paths" }),
            };
            let error = lease.explain(error).await;
            if !progressed && matches!(*error, RemoteError::Filtered { .. }) {
                shared.give_up_compressing(&error);
            }
            Err(failed(path.as_ref(), error))
        }
    }
}

async fn write_all(
    requests: &mut Requests,
    shared: &Shared,
    mut queue: PlanQueue,
    nars: &dyn NarSource,
    expected: mpsc::UnboundedSender<Expected>,
) -> Written {
    let mut buffer = Vec::with_capacity(WRITE_AT * 2);
    while let Some(info) = queue.next() {
        match write_nar(requests, shared, &info, nars, &expected, &mut buffer).await {
            Ok(()) => {}
            Err(NotWritten::Path(error)) => {
                queue.mark_failed(&info.path);
                let _ = expected.send(Expected::Failed(info.path.clone(), error));
            }
            Err(NotWritten::All(written)) => {
                // The complete paths in front of the one that failed.
                let complete = requests.write(&buffer).await;
                return if complete.is_err() { Written::Refused } else { written };
            }
        }
    }
    if requests.write(&buffer).await.is_err() { Written::Refused } else { Written::All(Ok(())) }
}

/// Why a path was not written.
enum NotWritten {
    /// Nothing of it is out: that costs this path alone.
    Path(StoreError),
    /// Nothing more can be written.
    All(Written),
}

/// It is the writing that failed.
impl From<ProtocolError> for NotWritten {
    fn from(_: ProtocolError) -> Self {
        Self::All(Written::Refused)
    }
}

/// What the source has next. If that is not there yet, what has been gathered goes out before waiting: it may be
/// complete paths, and whoever is slow must not hold them back.
pub(crate) async fn next<F: Future + Unpin>(
    mut next: F,
    requests: &mut Requests,
    buffer: &mut Vec<u8>,
) -> Result<F::Output, ProtocolError> {
    if let Some(ready) = (&mut next).now_or_never() {
        return Ok(ready);
    }
    requests.write(buffer).await?;
    buffer.clear();
    Ok(requests.pulse().on_our_turn(next).await)
}

/// Writes one path. What fails before the first block is out costs nothing but that path.
async fn write_nar(
    requests: &mut Requests,
    shared: &Shared,
    info: &Arc<PathInfo>,
    nars: &dyn NarSource,
    expected: &mpsc::UnboundedSender<Expected>,
    buffer: &mut Vec<u8>,
) -> Result<(), NotWritten> {
    let cut = |error| NotWritten::All(Written::Cut(info.path.clone(), error));
    let before = |error: StoreError| match error.scope() {
        Scope::Path => NotWritten::Path(error),
        Scope::Connection | Scope::Store => NotWritten::All(Written::All(Err(error))),
    };
    let mut left = info.nar_size;
    if left == 0 {
        // The server would end the connection over it.
        let error = Arc::new(RemoteError::NoSize);
        return Err(before(shared.failed(Side::Destination, "add", Some(&info.path), error)));
    }
    let body = next(nars.open(info, 0), requests, buffer).await?.map_err(before)?;
    let mut body = body.verified(info, nars.store());
    // What is verified is not empty, or it is wrong.
    let Some(block) = next(body.next(), requests, buffer).await? else { return Ok(()) };
    let mut block = block.map_err(before)?;
    Request::encode_add(info, shared.store_dir(), buffer);
    requests.pulse().owe(info.nar_size);
    let _ = expected.send(Expected::Answer(Arc::clone(info)));
    loop {
        // Never more than announced: a byte too many would be read as the next request.
        left = left.saturating_sub(block.len() as u64);
        if buffer.len() + block.len() < WRITE_AT {
            buffer.extend_from_slice(&block);
        } else {
            requests.write(buffer).await?;
            buffer.clear();
            requests.write(&block).await?;
        }
        block = match requests.pulse().on_our_turn(body.next()).await {
            Some(block) => block.map_err(cut)?,
            None => {
                debug_assert_eq!(left, 0, "a verified body has the size that was recorded");
                return Ok(());
            }
        };
    }
}

/// Counts the answers. `Err` names the path whose answer did not come.
async fn read_all(
    answers: &mut Answers,
    mut expecting: mpsc::UnboundedReceiver<Expected>,
    outcomes: &OutcomeSender,
    progressed: &mut bool,
) -> Result<(), (StorePath, ProtocolError)> {
    while let Some(expected) = expecting.recv().await {
        let outcome = match expected {
            Expected::Failed(path, error) => Outcome::Failed { path, error },
            Expected::Answer(info) => {
                let answer = async { read_added(answers.greeted().await?).await }.await;
                answers.pulse().settle(info.nar_size);
                match answer {
                    Ok(()) => {
                        *progressed = true;
                        Outcome::Added(info.path.clone())
                    }
                    Err(error) => return Err((info.path.clone(), error)),
                }
            }
        };
        let _ = outcomes.send(Ok(outcome)).await;
    }
    Ok(())
}
