//! Ends the wait for a host from which nothing comes any more, on a line that is alive.
//!
//! That the line itself is dead is the transport's to find out (keep-alive). Here a process at the other end hangs: a
//! login shell that waits for an answer, a disk that does not come back, a lock that nobody lets go of.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use ncc_transport::{LineSink, Reader, Writer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// How long an answer is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// As the options say.
    Limited,
    /// The host downloads, and is silent meanwhile.
    Unlimited,
}

/// Bytes per second that a host at least gets through when it hashes, writes and registers what it was sent.
const SLOWEST_DISK: u64 = 20_000_000;

/// For how many times the limit words on stderr count as life while nothing else moves.
const WORDS_COUNT_FOR: u32 = 6;

/// A timer that fires so much too late says that this process did not run: it was stopped, or the machine slept. The host had
/// no chance to be heard meanwhile.
const LATE: Duration = Duration::from_secs(1);

/// What both directions of a connection, and the host's messages, have in common: when something last moved.
#[derive(Clone)]
pub(crate) struct Pulse(Arc<Shared>);

struct Shared {
    limit: Option<Duration>,
    last: Mutex<Instant>,
    /// The host does something that may take as long as it likes.
    patient: AtomicBool,
    /// The host waits for us.
    our_turn: AtomicBool,
    /// Bytes of NARs that were sent and not answered: the host may be hashing and writing them, and is silent meanwhile.
    owed: AtomicU64,
    /// When something last came on stdout, or went to stdin.
    last_moved: Mutex<Instant>,
    ended: AtomicBool,
}

impl Pulse {
    /// `None` waits for ever.
    pub(crate) fn new(limit: Option<Duration>) -> Self {
        Self(Arc::new(Shared {
            limit,
            last: Mutex::new(Instant::now()),
            patient: AtomicBool::new(false),
            our_turn: AtomicBool::new(false),
            owed: AtomicU64::new(0),
            last_moved: Mutex::new(Instant::now()),
            ended: AtomicBool::new(false),
        }))
    }

    fn beat(&self) {
        let now = Instant::now();
        *lock(&self.0.last) = now;
        *lock(&self.0.last_moved) = now;
    }

    /// A line on stderr is a sign of life too, but not for ever: a host that only talks does nothing.
    fn beat_by_words(&self) {
        let now = Instant::now();
        let talks_only_since = *lock(&self.0.last_moved);
        if self.0.limit.is_none_or(|limit| now < talks_only_since + limit * WORDS_COUNT_FOR) {
            *lock(&self.0.last) = now;
        }
    }

    /// Bytes of a NAR have been sent, whose registration will be answered.
    pub(crate) fn owe(&self, bytes: u64) {
        self.0.owed.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The registration of so many of them has been answered.
    pub(crate) fn settle(&self, bytes: u64) {
        self.0.owed.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// From now on.
    pub(crate) fn expect(&self, patience: Patience) {
        self.0.patient.store(patience == Patience::Unlimited, Ordering::Relaxed);
        self.beat();
    }

    /// Waits for something of our own, which the host in turn waits for: that is not its silence.
    pub(crate) async fn on_our_turn<F: Future>(&self, work: F) -> F::Output {
        self.0.our_turn.store(true, Ordering::Relaxed);
        let result = work.await;
        self.0.our_turn.store(false, Ordering::Relaxed);
        self.beat();
        result
    }

    /// The silence that ended the connection, if that is what ended it.
    pub(crate) fn ended_after(&self) -> Option<Duration> {
        self.0.limit.filter(|_| self.0.ended.load(Ordering::Relaxed))
    }

    /// What comes from the host. Reading fails when nothing has moved for too long while somebody waits for it.
    pub(crate) fn watch_answers(&self, reader: Reader) -> Reader {
        Box::new(Watched { reader, pulse: self.clone(), waiting_since: None, timer: None })
    }

    /// What goes to the host. It is not watched itself: whoever writes also waits for an answer; and whoever does not read
    /// answers cannot expect that the host reads on.
    pub(crate) fn note_requests(&self, writer: Writer) -> Writer {
        Box::new(Noted { writer, pulse: self.clone() })
    }

    /// The same sink for lines; each is a sign of life, but for ssh's own with `-v`, which also come while nothing does.
    pub(crate) fn note_lines(&self, sink: Option<LineSink>) -> LineSink {
        let pulse = self.clone();
        Arc::new(move |line| {
            if !line.starts_with("debug") {
                pulse.beat_by_words();
            }
            if let Some(sink) = &sink {
                sink(line);
            }
        })
    }

    /// When whoever waits since then gives up.
    fn deadline(&self, limit: Duration, waiting_since: Instant) -> Instant {
        if self.0.patient.load(Ordering::Relaxed) || self.0.our_turn.load(Ordering::Relaxed) {
            return Instant::now() + limit;
        }
        let work = Duration::from_secs(self.0.owed.load(Ordering::Relaxed) / SLOWEST_DISK);
        (*lock(&self.0.last)).max(waiting_since) + limit + work
    }
}

fn lock(instant: &Mutex<Instant>) -> MutexGuard<'_, Instant> {
    instant.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Watched {
    reader: Reader,
    pulse: Pulse,
    /// Of the wait that goes on. Time in which nobody waited is nobody's silence.
    waiting_since: Option<Instant>,
    /// Kept from wait to wait: it is set anew only when it fires.
    timer: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.reader).poll_read(context, buffer);
        if polled.is_ready() {
            this.waiting_since = None;
            this.pulse.beat();
            return polled;
        }
        let Some(limit) = this.pulse.0.limit else { return Poll::Pending };
        let since = *this.waiting_since.get_or_insert_with(Instant::now);
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        loop {
            ready!(timer.as_mut().poll(context));
            if Instant::now() > timer.deadline() + LATE {
                this.pulse.beat();
            }
            let deadline = this.pulse.deadline(limit, since);
            if deadline <= Instant::now() {
                this.pulse.0.ended.store(true, Ordering::Relaxed);
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            timer.as_mut().reset(deadline);
        }
    }
}

struct Noted {
    writer: Writer,
    pulse: Pulse,
}

impl Noted {
    fn note<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.pulse.beat();
        }
        polled
    }
}

impl AsyncWrite for Noted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.writer).poll_write(context, bytes);
        self.note(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.writer).poll_flush(context);
        self.note(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(context)
    }
}
