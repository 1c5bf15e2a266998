//! Objects from a stream of streams into the store: a task pumps, one thread writes.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_core::{Stream, future::BoxFuture};
use futures_util::stream;
use ncc_store::{
    Nar, NarBody, NarSource, NarStream, Outcome, Outcomes, PathInfo, PlanQueue, Scope, Side, StoreError,
};
use tokio::{
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    task::spawn_blocking,
};

use crate::{
    LocalStore, LocalStoreError,
    channel::{Closed, Receiver, Sender, channel},
    writer::{Body, BodyEvent, Done, Writer},
};

/// Adds what the queue says. Everything happens while the result is polled; dropping it ends the work.
pub(crate) fn add_all(store: LocalStore, queue: PlanQueue, nars: Arc<dyn NarSource>) -> Outcomes {
    let (outcomes, receiver) = mpsc::unbounded_channel();
    let queue = Arc::new(Mutex::new(queue));
    let pump = Box::pin(pump(store, Arc::clone(&queue), pull(queue, nars), outcomes));
    Box::pin(Adding { pump: Some(pump), receiver, failed: false })
}

/// The NARs of a queue, one after another.
fn pull(queue: Arc<Mutex<PlanQueue>>, nars: Arc<dyn NarSource>) -> NarStream {
    Box::pin(stream::unfold(false, move |ended| {
        let next = if ended { None } else { lock(&queue).next() };
        let nars = Arc::clone(&nars);
        async move {
            let info = next?;
            Some(match nars.open(&info, 0).await {
                Ok(body) => (Ok(Nar { info, body }), false),
                Err(error) if error.scope() == Scope::Path => {
                    let body = NarBody::new(stream::once(std::future::ready(Err(error))));
                    (Ok(Nar { info, body }), false)
                }
                Err(error) => (Err(error), true),
            })
        }
    }))
}

fn lock(queue: &Mutex<PlanQueue>) -> MutexGuard<'_, PlanQueue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Adding {
    pump: Option<BoxFuture<'static, ()>>,
    receiver: UnboundedReceiver<Result<Outcome, StoreError>>,
    failed: bool,
}

impl Stream for Adding {
    type Item = Result<Outcome, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.failed {
            return Poll::Ready(None);
        }
        if let Some(pump) = &mut this.pump
            && pump.as_mut().poll(context).is_ready()
        {
            this.pump = None;
        }
        let outcome = this.receiver.poll_recv(context);
        if let Poll::Ready(Some(Err(_))) = outcome {
            this.failed = true;
            this.pump = None;
        }
        outcome
    }
}

enum Part {
    Begin(Arc<PathInfo>),
    Block(Bytes),
    BodyFailed(StoreError),
    End,
    /// Nothing has arrived after what was sent so far.
    Idle,
    /// The stream of objects failed.
    Abort(StoreError),
}

async fn pump(
    store: LocalStore,
    queue: Arc<Mutex<PlanQueue>>,
    nars: NarStream,
    outcomes: UnboundedSender<Result<Outcome, StoreError>>,
) {
    let (sender, receiver) = channel();
    let unwanted = Arc::new(AtomicUsize::new(0));
    let name = store.name().to_owned();
    let thread = {
        let (unwanted, outcomes) = (unwanted.clone(), outcomes.clone());
        spawn_blocking(move || write_all(&store, receiver, &unwanted, &queue, &outcomes))
    };
    // Closed: the thread has said why it ended.
    let _ = Pump { sender, unwanted, fresh: false }.run(nars).await;
    if thread.await.is_err() {
        let _ =
            outcomes.send(Err(LocalStoreError::Panicked.about(Side::Destination, &name, "add paths", None)));
    }
}

struct Pump {
    sender: Sender<Part>,
    /// Objects up to this one (counted from 1) need no more bytes.
    unwanted: Arc<AtomicUsize>,
    /// Something was sent since the last [`Part::Idle`].
    fresh: bool,
}

impl Pump {
    async fn run(mut self, mut nars: NarStream) -> Result<(), Closed> {
        let mut number = 0;
        while let Some(nar) = self.next(&mut nars).await? {
            let nar = match nar {
                Ok(nar) => nar,
                Err(error) => return self.send(Part::Abort(error), 0).await,
            };
            number += 1;
            self.send(Part::Begin(nar.info), 0).await?;
            let mut body = nar.body;
            while self.unwanted.load(Ordering::Relaxed) < number {
                match self.next(&mut body).await? {
                    Some(Ok(block)) => {
                        let size = block.len();
                        self.send(Part::Block(block), size).await?;
                    }
                    Some(Err(error)) => {
                        self.send(Part::BodyFailed(error), 0).await?;
                        break;
                    }
                    None => break,
                }
            }
            drop(body);
            self.send(Part::End, 0).await?;
        }
        Ok(())
    }

    async fn send(&mut self, part: Part, size: usize) -> Result<(), Closed> {
        self.fresh = true;
        self.sender.send(part, size).await
    }

    /// The next item; if that is not there yet, tells the thread before waiting for it.
    async fn next<S: Stream + Unpin>(&mut self, stream: &mut S) -> Result<Option<S::Item>, Closed> {
        if self.fresh {
            let ready = poll_fn(|context| {
                Poll::Ready(match Pin::new(&mut *stream).poll_next(context) {
                    Poll::Ready(item) => Some(item),
                    Poll::Pending => None,
                })
            });
            if let Some(item) = ready.await {
                return Ok(item);
            }
            self.send(Part::Idle, 0).await?;
            self.fresh = false;
        }
        Ok(poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await)
    }
}

fn write_all(
    store: &LocalStore,
    receiver: Receiver<Part>,
    unwanted: &AtomicUsize,
    queue: &Mutex<PlanQueue>,
    outcomes: &UnboundedSender<Result<Outcome, StoreError>>,
) {
    let name = store.name();
    let mut report = |done| {
        // Nobody there: `cancelled` says so too.
        let _ = outcomes.send(Ok(match done {
            Done::Added(path) => Outcome::Added(path),
            Done::AlreadyValid(path) => Outcome::AlreadyValid(path),
            Done::Failed(path, error) => {
                lock(queue).mark_failed(&path);
                Outcome::Failed { error: error.about(Side::Destination, name, "add", Some(&path)), path }
            }
        }));
    };
    let cancelled = || outcomes.is_closed();
    let mut incoming = Objects { receiver, current: None, abort: None };
    let mut writer = Writer::new(store, &mut report, &cancelled);
    let mut number = 0;
    let result = loop {
        match incoming.next_object() {
            NextObject::Object(info) => {
                number += 1;
                let added = writer.add(&info, &mut incoming);
                unwanted.store(number, Ordering::Relaxed);
                if let Err(error) = added {
                    break Err(error.about(Side::Destination, name, "add", Some(&info.path)));
                }
                while let Skipped::Idle = incoming.skip() {
                    if let Err(error) = writer.commit() {
                        return send_error(
                            outcomes,
                            error.about(Side::Destination, name, "register paths", None),
                        );
                    }
                }
            }
            NextObject::Idle => {
                if let Err(error) = writer.commit() {
                    break Err(error.about(Side::Destination, name, "register paths", None));
                }
            }
            NextObject::End => {
                break match (writer.commit(), incoming.abort.take()) {
                    (Err(error), _) => Err(error.about(Side::Destination, name, "register paths", None)),
                    (Ok(()), Some(error)) => Err(error),
                    (Ok(()), None) => Ok(()),
                };
            }
        }
    };
    if let Err(error) = result {
        send_error(outcomes, error);
    }
}

fn send_error(outcomes: &UnboundedSender<Result<Outcome, StoreError>>, error: StoreError) {
    // If nobody listens any more, nobody wants to know.
    let _ = outcomes.send(Err(error));
}

/// The receiving end, as the writer sees it.
struct Objects {
    receiver: Receiver<Part>,
    /// How the body under way goes on.
    current: Option<Progress>,
    abort: Option<StoreError>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Running,
    Over,
}

enum Skipped {
    All,
    /// There is more, but it has not arrived.
    Idle,
}

enum NextObject {
    Object(Arc<PathInfo>),
    Idle,
    End,
}

impl Objects {
    fn next_object(&mut self) -> NextObject {
        loop {
            match self.receiver.receive_blocking() {
                Some(Part::Begin(info)) => {
                    self.current = Some(Progress::Running);
                    return NextObject::Object(info);
                }
                // While that was under way more has come: not idle any more.
                Some(Part::Idle) if self.receiver.is_empty() => return NextObject::Idle,
                Some(Part::Abort(error)) => {
                    self.abort = Some(error);
                    return NextObject::End;
                }
                Some(Part::Idle | Part::Block(_) | Part::BodyFailed(_) | Part::End) => {}
                None => return NextObject::End,
            }
        }
    }

    /// Passes over what the writer did not want of the body.
    fn skip(&mut self) -> Skipped {
        while self.current == Some(Progress::Running) {
            match self.receiver.receive_blocking() {
                Some(Part::End) | None => self.current = None,
                Some(Part::Idle) if self.receiver.is_empty() => return Skipped::Idle,
                Some(_) => {}
            }
        }
        self.current = None;
        Skipped::All
    }
}

impl Body for Objects {
    fn next(&mut self) -> BodyEvent {
        if self.current != Some(Progress::Running) {
            return BodyEvent::End;
        }
        loop {
            return match self.receiver.receive_blocking() {
                Some(Part::Block(block)) => BodyEvent::Block(block),
                Some(Part::Idle) if self.receiver.is_empty() => BodyEvent::Idle,
                Some(Part::Idle | Part::Begin(_)) => continue,
                Some(Part::BodyFailed(error)) => BodyEvent::Failed(error),
                Some(Part::End) => {
                    self.current = Some(Progress::Over);
                    BodyEvent::End
                }
                Some(Part::Abort(_)) | None => BodyEvent::Gone,
            };
        }
    }
}
