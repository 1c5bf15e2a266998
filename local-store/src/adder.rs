//! Objects of a plan into the store: one thread pulls their bytes and writes them.

use std::{
    cell::RefCell,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use futures_core::Stream;
use futures_util::{StreamExt as _, stream};
use ncc_store::{NarSource, Outcome, Outcomes, PathInfo, PlanQueue, Problem, Side, StoreError, StorePath};
use tokio::{
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    task::{JoinHandle, spawn_blocking},
};

use crate::{
    Durability, LocalStore, LocalStoreError,
    writer::{Begun, Done, Incoming, Writer},
};

/// How long bytes are waited for before that time is used to register what is complete. A source that is only a little
/// slower than this disk would have every path registered by itself; and whoever waits for each answer before it sends
/// the next path loses this time with each.
const GRACE: Duration = Duration::from_micros(200);

type Sender = UnboundedSender<Result<Outcome, StoreError>>;

/// Adds what the queue says. The thread starts with the first poll; dropping the stream ends it.
pub(crate) fn add_all(store: LocalStore, queue: PlanQueue, nars: Arc<dyn NarSource>) -> Outcomes {
    let started = async move {
        let (sender, receiver) = mpsc::unbounded_channel();
        let name = store.name().to_owned();
        let thread = spawn_blocking(move || {
            let adder = Adder { store: &store, nars: &*nars, outcomes: &sender };
            if let Err(error) = adder.run(queue) {
                // If nobody listens any more, nobody wants to know.
                let _ = sender.send(Err(error));
            }
        });
        outcomes(receiver, thread, name)
    };
    Box::pin(stream::once(started).flatten())
}

/// What the thread says, and whether it panicked.
fn outcomes(
    receiver: UnboundedReceiver<Result<Outcome, StoreError>>,
    thread: JoinHandle<()>,
    name: String,
) -> impl Stream<Item = Result<Outcome, StoreError>> {
    stream::unfold(Some((receiver, thread)), move |state| {
        let name = name.clone();
        async move {
            let (mut receiver, thread) = state?;
            if let Some(outcome) = receiver.recv().await {
                return Some((outcome, Some((receiver, thread))));
            }
            let panicked = || LocalStoreError::Panicked.about(Side::Destination, &name, "add paths", None);
            thread.await.is_err().then(|| (Err(panicked()), None))
        }
    })
}

struct Adder<'a> {
    store: &'a LocalStore,
    nars: &'a dyn NarSource,
    outcomes: &'a Sender,
}

impl Adder<'_> {
    fn run(&self, queue: PlanQueue) -> Result<(), StoreError> {
        let queue = RefCell::new(queue);
        let mut report = |done| {
            if let Done::Failed(path, _) | Done::PassedOver(path) = &done {
                queue.borrow_mut().mark_failed(path);
            }
            // Nobody there: `cancelled` says so too.
            let _ = self.outcomes.send(Ok(match done {
                Done::PassedOver(_) => return,
                Done::Added(path) => Outcome::Added(path),
                Done::AlreadyValid(path) => Outcome::AlreadyValid(path),
                Done::Failed(path, error) => {
                    Outcome::Failed { error: self.about(error, "add", Some(&path)), path }
                }
            }));
        };
        let cancelled = || self.outcomes.is_closed();
        let mut writer = Writer::new(self.store, &mut report, &cancelled);
        loop {
            let next = queue.borrow_mut().next();
            let Some(info) = next else { break };
            let complete =
                self.add(&mut writer, &info).map_err(|error| self.about(error, "add", Some(&info.path)))?;
            if !complete {
                queue.borrow_mut().mark_failed(&info.path);
            }
        }
        let registered = writer.commit().and_then(|()| match self.store.config().durability {
            Durability::BeforeRegistration => self.store.database().checkpoint(),
            Durability::System => Ok(()),
        });
        registered.map_err(|error| self.about(error, "register paths", None))
    }

    fn about(&self, error: LocalStoreError, action: &'static str, path: Option<&StorePath>) -> StoreError {
        // What is wrong with the content is so where it came from.
        let problem = match error {
            LocalStoreError::HashMismatch { path, expected, actual } => {
                Problem::HashMismatch { path, expected, actual }
            }
            LocalStoreError::SizeMismatch { path, expected, actual } => {
                Problem::SizeMismatch { path, expected, actual }
            }
            error => return error.about(Side::Destination, self.store.name(), action, path),
        };
        StoreError::new(Side::Source, self.nars.store(), problem)
    }

    /// Whether the object is complete, or was so before.
    fn add(&self, writer: &mut Writer<'_>, info: &Arc<PathInfo>) -> Result<bool, LocalStoreError> {
        let mut incoming = match writer.begin(info)? {
            Begun::Incoming(incoming) => incoming,
            Begun::AlreadyValid => return Ok(true),
            Begun::Failed => return Ok(false),
        };
        let received = self.receive(writer, info, &mut incoming);
        writer.finish(incoming, received)
    }

    fn receive(
        &self,
        writer: &mut Writer<'_>,
        info: &Arc<PathInfo>,
        incoming: &mut Incoming,
    ) -> Result<(), LocalStoreError> {
        let failed = |source| LocalStoreError::Body { path: info.path.clone(), source };
        let mut body = self.wait(writer, info, self.nars.open(info, 0))?.map_err(failed)?;
        if body.is_verified() {
            incoming.trust_hash();
        }
        while let Some(block) = self.wait(writer, info, body.next())? {
            incoming.push(&block.map_err(failed)?)?;
        }
        Ok(())
    }

    /// What a future comes to. If that takes time, what is complete is registered meanwhile.
    fn wait<T>(
        &self,
        writer: &mut Writer<'_>,
        info: &PathInfo,
        future: impl Future<Output = T>,
    ) -> Result<T, LocalStoreError> {
        let (mut future, mut gone) = (pin!(future), pin!(self.outcomes.closed()));
        let waker = Arc::new(Unpark(thread::current())).into();
        let mut context = Context::from_waker(&waker);
        let since = Instant::now();
        loop {
            if let Poll::Ready(ready) = future.as_mut().poll(&mut context) {
                return Ok(ready);
            }
            if gone.as_mut().poll(&mut context).is_ready() {
                return Err(LocalStoreError::Cancelled { path: self.store.real_path(&info.path) });
            }
            if writer.is_idle() {
                thread::park();
            } else if let Some(rest) = GRACE.checked_sub(since.elapsed()) {
                thread::park_timeout(rest);
            } else {
                writer.commit()?;
            }
        }
    }
}

/// Wakes a thread that is parked.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
