//! Copying to a host.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::{FutureExt as _, Stream, StreamExt as _, future::BoxFuture, stream, stream::BoxStream};
use ncc_protocol::{
    ProtocolError,
    serve::{Request, read_added, read_valid_paths},
};
use ncc_store::{
    Destination, Nar, NarStream, Outcome, PathInfo, StoreDir, StoreError, StorePath, ValidityQuery,
};
use tokio::sync::mpsc;

use crate::{
    RemoteError, RemoteStore,
    connection::{Answers, Connection, Requests},
    foresight,
    silence::Patience,
    store::Shared,
};

/// Small NARs are gathered up to this before they are written.
const WRITE_AT: usize = 64 << 10;

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
        Box::pin(async move {
            let action = "say which paths are valid";
            let store_dir = self.shared().store_dir();
            let mut request = Vec::new();
            Request::QueryValidPaths { query, paths: paths.to_vec() }.encode(store_dir, &mut request);
            let (store_dir, asked) = (store_dir.clone(), Arc::new(paths.iter().cloned().collect()));
            let patience = if query.substitute { Patience::Unlimited } else { Patience::Limited };
            self.ask(action, patience, &request, |reader| {
                Box::pin(async move { read_valid_paths(reader, &store_dir, &asked).await })
            })
            .await
        })
    }

    fn substitutable<'a>(
        &'a self,
        paths: &'a [StorePath],
    ) -> BoxFuture<'a, Result<Option<BTreeSet<StorePath>>, StoreError>> {
        Box::pin(async move { Ok(foresight::substitutable(self.shared(), paths).await) })
    }

    /// # Panics
    /// Outside of a tokio runtime.
    fn add_many(&self, nars: NarStream) -> BoxStream<'static, Result<Outcome, StoreError>> {
        let store = self.clone();
        let (outcomes, mut receiver) = mpsc::channel(64);
        tokio::spawn(async move {
            tokio::select! {
                // Nobody waits for outcomes: the connection is dropped, and with it the server.
                () = outcomes.closed() => {}
                result = add_all(&store, nars, &outcomes) => {
                    if let Err(error) = result {
                        let _ = outcomes.send(Err(error)).await;
                    }
                }
            }
        });
        Box::pin(stream::poll_fn(move |context| receiver.poll_recv(context)))
    }
}

type OutcomeSender = mpsc::Sender<Result<Outcome, StoreError>>;

/// What an answer, or the place of one, is about. Kept in the order of the requests.
enum Expected {
    Answer(Arc<PathInfo>),
    Failed(StorePath, StoreError),
}

/// How the writing side ended.
enum Written {
    /// Everything that the source had, or was willing to give: `Err` is the source's own failure, between paths.
    All(Result<(), StoreError>),
    /// A body failed when its beginning was out: the stream is cut there, and registers nothing of it.
    Cut(StorePath, StoreError),
    /// The server takes no more bytes. Its answers and its stderr say why.
    Refused,
}

async fn add_all(store: &RemoteStore, nars: NarStream, outcomes: &OutcomeSender) -> Result<(), StoreError> {
    let shared = store.shared();
    let lease = store.lease().await.map_err(|error| shared.failed("add paths", error))?;
    let (Connection { requests, mut answers, server }, place) = lease.into_parts();
    let (expected, expecting) = mpsc::unbounded_channel();
    let mut writing = Box::pin(async move {
        let mut requests = requests;
        match write_all(&mut requests, shared, nars, expected).await {
            Written::All(result) => Ok((requests, result)),
            // The server sees the end of its input here, in the middle of a path, and registers nothing of it.
            Written::Cut(path, error) => Err(Some((path, error))),
            Written::Refused => Err(None),
        }
    });
    // The reader always runs: a server blocks once its answers fill the pipe. It ends when all that is expected has
    // been answered, or at the end of the stream, whatever the writer does.
    let mut reading = Box::pin(read_all(&mut answers, expecting, outcomes));
    let mut written = None;
    let read = loop {
        tokio::select! {
            read = &mut reading => break read,
            result = &mut writing, if written.is_none() => written = Some(result),
        }
    };
    drop(reading);
    drop(writing);
    match (written, read) {
        (Some(Ok((requests, result))), Ok(())) => {
            place.give_back(Connection { requests, answers, server });
            result
        }
        // What the source did wrong explains that its path was not answered. That another one was not is an older story.
        (Some(Err(Some((path, error)))), read) if read.as_ref().err().is_none_or(|read| read.0 == path) => {
            Err(error)
        }
        (written, read) => {
            drop(written);
            let greeted = answers.is_greeted();
            drop(answers);
            let (path, error) = match read {
                Err((path, error)) => (Some(path), error),
                Ok(()) => (None, ProtocolError::UnexpectedEnd { what: "answers to added paths" }),
            };
            let error = server.explain(&*shared.transport, greeted, error).await;
            Err(match path {
                Some(path) => shared.path_failed("add", &path, error),
                None => shared.failed("add paths", error),
            })
        }
    }
}

async fn write_all(
    requests: &mut Requests,
    shared: &Shared,
    mut nars: NarStream,
    expected: mpsc::UnboundedSender<Expected>,
) -> Written {
    let mut buffer = Vec::with_capacity(WRITE_AT * 2);
    loop {
        let result = match next(&mut nars, requests, &mut buffer).await {
            Err(written) => return written,
            Ok(None) => Ok(()),
            Ok(Some(Err(error))) => Err(error),
            Ok(Some(Ok(nar))) => match write_nar(requests, shared, nar, &expected, &mut buffer).await {
                Ok(()) => continue,
                Err(written) => {
                    // The complete paths in front of the one that failed.
                    let _ = requests.write(&buffer).await;
                    return written;
                }
            },
        };
        return if requests.write(&buffer).await.is_err() { Written::Refused } else { Written::All(result) };
    }
}

/// What the stream has next. If that is not there yet, what has been gathered goes out before waiting: it may be
/// complete paths, and whoever is slow must not hold them back.
async fn next<S: Stream + Unpin>(
    stream: &mut S,
    requests: &mut Requests,
    buffer: &mut Vec<u8>,
) -> Result<Option<S::Item>, Written> {
    if let Some(ready) = stream.next().now_or_never() {
        return Ok(ready);
    }
    requests.write(buffer).await.map_err(|_| Written::Refused)?;
    buffer.clear();
    Ok(requests.pulse().on_our_turn(stream.next()).await)
}

/// Writes one path. A body that fails before its first block is out costs nothing but that path.
async fn write_nar(
    requests: &mut Requests,
    shared: &Shared,
    nar: Nar,
    expected: &mpsc::UnboundedSender<Expected>,
    buffer: &mut Vec<u8>,
) -> Result<(), Written> {
    let Nar { info, mut body } = nar;
    let mut left = info.nar_size;
    if left == 0 {
        // The server would end the connection over it.
        let error = shared.path_failed("add", &info.path, RemoteError::NoSize);
        let _ = expected.send(Expected::Failed(info.path.clone(), error));
        return Ok(());
    }
    let mut block = match next(&mut body, requests, buffer).await? {
        Some(Ok(block)) => block,
        failed => {
            let error = match failed {
                Some(Err(error)) => error,
                _ => size_mismatch(shared, &info, 0),
            };
            let _ = expected.send(Expected::Failed(info.path.clone(), error));
            return Ok(());
        }
    };
    Request::encode_add(&info, shared.store_dir(), buffer);
    let _ = expected.send(Expected::Answer(Arc::clone(&info)));
    let cut = |error| Written::Cut(info.path.clone(), error);
    loop {
        let sent = info.nar_size.saturating_sub(left);
        // A byte too many would be read as the next request.
        left = match left.checked_sub(block.len() as u64) {
            Some(left) => left,
            None => {
                let seen = sent.saturating_add(block.len() as u64);
                return Err(cut(size_mismatch(shared, &info, seen)));
            }
        };
        if buffer.len() + block.len() < WRITE_AT {
            buffer.extend_from_slice(&block);
        } else {
            requests.write(buffer).await.map_err(|_| Written::Refused)?;
            buffer.clear();
            requests.write(&block).await.map_err(|_| Written::Refused)?;
        }
        block = match requests.pulse().on_our_turn(body.next()).await {
            Some(Ok(block)) => block,
            Some(Err(error)) => return Err(cut(error)),
            None if left == 0 => return Ok(()),
            None => {
                let sent = info.nar_size.saturating_sub(left);
                return Err(cut(size_mismatch(shared, &info, sent)));
            }
        };
    }
}

fn size_mismatch(shared: &Shared, info: &PathInfo, actual: u64) -> StoreError {
    StoreError::SizeMismatch {
        store: format!("what is sent to {}", shared.name),
        path: info.path.clone(),
        expected: info.nar_size,
        actual,
    }
}

/// Counts the answers. `Err` names the path whose answer did not come.
async fn read_all(
    answers: &mut Answers,
    mut expecting: mpsc::UnboundedReceiver<Expected>,
    outcomes: &OutcomeSender,
) -> Result<(), (StorePath, ProtocolError)> {
    while let Some(expected) = expecting.recv().await {
        let outcome = match expected {
            Expected::Failed(path, error) => Outcome::Failed { path, error },
            Expected::Answer(info) => {
                let answer = async { read_added(answers.greeted().await?).await };
                match answer.await {
                    Ok(()) => Outcome::Added(info.path.clone()),
                    Err(error) => return Err((info.path.clone(), error)),
                }
            }
        };
        let _ = outcomes.send(Ok(outcome)).await;
    }
    Ok(())
}
