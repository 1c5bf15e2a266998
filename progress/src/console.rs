//! Standard error, written by one thread: whoever has something to say leaves it in a queue and never waits for a terminal.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crate::{
    ConsoleOptions, Importance, LogFormat,
    bar::Look,
    internal_json,
    progress::Copy,
    queue::Queue,
    terminal::{Screen, Surroundings, printable},
};

/// How often the bar is redrawn.
const REDRAW: Duration = Duration::from_millis(100);

/// How often silence is looked for where there is no bar.
const LISTEN: Duration = Duration::from_secs(1);

/// How long somebody waits who wants the bar out of the way. A terminal that takes nothing for so long shows nothing either.
const OUT_OF_THE_WAY: Duration = Duration::from_millis(200);

/// What a program says on standard error, in the form that was asked for. Clones speak through the same writer.
///
/// Saying something never blocks. A terminal that is stopped, or a pipe that nobody reads, takes what it takes later, up to
/// some megabytes; what is beyond that is counted and left out, except that errors have more room.
///
/// ```
/// use ncc_progress::{Console, ConsoleOptions, Importance};
///
/// let console = Console::start(ConsoleOptions::default())?;
/// console.say(Importance::Notice, "hello");
/// console.flush(None);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Console {
    pub(crate) shared: Arc<Shared>,
    _end: Arc<End>,
}

/// Ends the thread with the last console.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        lock(&self.0.inner).ended = true;
        self.0.wake.notify_all();
    }
}

impl Console {
    /// Starts the thread that writes to this process's standard error.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(options: ConsoleOptions) -> io::Result<Self> {
        let start = Instant::now();
        let form = Form::of(options.format, Surroundings::detect(), options.quiet);
        let shared = Arc::new(Shared::new(options, form, Box::new(move || start.elapsed())));
        let writing = Arc::clone(&shared);
        thread::Builder::new().name("stderr".to_owned()).spawn(move || writing.write(Screen::stderr()))?;
        Ok(Self::of(shared))
    }

    pub(crate) fn of(shared: Arc<Shared>) -> Self {
        Self { _end: Arc::new(End(Arc::clone(&shared))), shared }
    }

    /// Says one line. Control characters are written out; see [`printable`].
    pub fn say(&self, importance: Importance, line: &str) {
        self.shared.say(importance, line);
    }

    /// Waits until everything is written: for so long at most, or `None` for as long as it takes.
    /// Whether it is.
    pub fn flush(&self, limit: Option<Duration>) -> bool {
        self.shared.flush(limit)
    }

    /// Takes the bar away until [`resume`](Self::resume): before this process is stopped, or the terminal is used for
    /// something else. Calls may nest.
    pub fn suspend(&self) {
        lock(&self.shared.inner).suspended += 1;
        self.shared.flush(Some(OUT_OF_THE_WAY));
    }

    /// Puts the bar back.
    pub fn resume(&self) {
        let suspended = &mut lock(&self.shared.inner).suspended;
        *suspended = suspended.saturating_sub(1);
    }

    /// Does something with the terminal, such as writing to standard output, with the bar out of the way.
    pub fn aside<T>(&self, work: impl FnOnce() -> T) -> T {
        self.suspend();
        let result = work();
        self.resume();
        result
    }
}

/// What is made of what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Errors alone.
    Quiet,
    Lines,
    Bar {
        look: Look,
        with_lines: bool,
    },
    InternalJson,
}

impl Form {
    pub(crate) fn of(format: Option<LogFormat>, surroundings: Surroundings, quiet: bool) -> Self {
        let with_lines = match format {
            Some(LogFormat::InternalJson) => return Self::InternalJson,
            _ if quiet => return Self::Quiet,
            Some(LogFormat::Raw | LogFormat::RawWithLogs) => return Self::Lines,
            Some(LogFormat::BarWithLogs | LogFormat::MultilineWithLogs) => true,
            Some(LogFormat::Bar | LogFormat::Multiline) | None => false,
        };
        if surroundings.terminal { Self::Bar { look: surroundings.look(), with_lines } } else { Self::Lines }
    }

    pub(crate) const fn has_bar(self) -> bool {
        matches!(self, Self::Bar { .. })
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What everybody who speaks and the thread that writes have in common.
pub(crate) struct Shared {
    pub(crate) form: Form,
    pub(crate) verbosity: u8,
    quiet: bool,
    pub(crate) inner: Mutex<Inner>,
    clock: Box<dyn Fn() -> Duration + Send + Sync>,
    /// There is something to write that does not wait for the next drawing.
    wake: Condvar,
    /// A round of writing is over.
    written: Condvar,
}

pub(crate) struct Inner {
    pub(crate) queue: Queue,
    /// The copy that goes on.
    pub(crate) copy: Option<Copy>,
    /// How many want the bar out of the way.
    suspended: usize,
    /// How many wait until everything is written.
    flushing: usize,
    /// The thread has taken lines, and is writing them.
    writing: bool,
    /// A bar stands on the terminal.
    drawn: bool,
    ended: bool,
}

impl Inner {
    fn wants_bar(&self, form: Form) -> bool {
        form.has_bar() && self.suspended == 0 && self.copy.as_ref().is_some_and(Copy::is_answered)
    }

    /// Whether the thread has to write at once. Lines above a bar wait for the next drawing, so that it does not flicker.
    fn is_urgent(&self, form: Form) -> bool {
        let bar = self.wants_bar(form);
        self.ended || self.drawn && !bar || !self.queue.is_empty() && (!bar || self.flushing > 0)
    }

    fn is_settled(&self, form: Form) -> bool {
        self.queue.is_empty() && !self.writing && (!self.drawn || self.wants_bar(form))
    }
}

impl Shared {
    pub(crate) fn new(
        options: ConsoleOptions,
        form: Form,
        clock: Box<dyn Fn() -> Duration + Send + Sync>,
    ) -> Self {
        Self {
            form,
            verbosity: options.verbosity,
            quiet: options.quiet,
            inner: Mutex::new(Inner {
                queue: Queue::default(),
                copy: None,
                suspended: 0,
                flushing: 0,
                writing: false,
                drawn: false,
                ended: false,
            }),
            clock,
            wake: Condvar::new(),
            written: Condvar::new(),
        }
    }

    pub(crate) fn now(&self) -> Duration {
        (self.clock)()
    }

    pub(crate) fn say(&self, importance: Importance, line: &str) {
        let is_error = importance == Importance::Error;
        if self.quiet && !is_error {
            return;
        }
        let line = self.message(importance, &printable(line));
        self.change(|inner| inner.queue.push(line, is_error));
    }

    /// A line in the form that was asked for.
    pub(crate) fn message(&self, importance: Importance, line: &str) -> String {
        match self.form {
            Form::InternalJson => internal_json::message(importance, line),
            _ => line.to_owned(),
        }
    }

    /// Shows a copy from now on.
    pub(crate) fn begin(&self, copy: Copy) {
        lock(&self.inner).copy = Some(copy);
        self.wake.notify_all();
    }

    /// Changes something, and wakes the thread if that is to be seen at once.
    pub(crate) fn change<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        let inner = &mut *lock(&self.inner);
        let result = work(inner);
        if inner.is_urgent(self.form) {
            self.wake.notify_all();
        }
        result
    }

    /// Waits until the thread has written everything, and taken away what has no business on the terminal.
    pub(crate) fn flush(&self, limit: Option<Duration>) -> bool {
        let end = limit.map(|limit| Instant::now() + limit);
        let mut inner = lock(&self.inner);
        inner.flushing += 1;
        self.wake.notify_all();
        let settled = loop {
            if inner.is_settled(self.form) {
                break true;
            }
            // The thread is woken again and again, for what became urgent while it was writing.
            let left = match end {
                Some(end) => end.saturating_duration_since(Instant::now()),
                None => LISTEN,
            };
            if left.is_zero() {
                break false;
            }
            (inner, _) = self.written.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner);
        };
        inner.flushing -= 1;
        settled
    }

    /// Whether the thread has nothing to do at once.
    #[cfg(test)]
    pub(crate) fn is_settled(&self) -> bool {
        lock(&self.inner).is_settled(self.form)
    }

    /// What the thread does until the end.
    fn write(&self, mut screen: Screen) {
        loop {
            let inner = lock(&self.inner);
            let quiet = |inner: &mut Inner| !inner.is_urgent(self.form);
            let inner = match inner.copy {
                // Nothing to draw, and nobody to listen to.
                None => {
                    let idle = |inner: &mut Inner| quiet(inner) && inner.copy.is_none();
                    self.wake.wait_while(inner, idle).unwrap_or_else(PoisonError::into_inner)
                }
                Some(_) => {
                    let period = if self.form.has_bar() { REDRAW } else { LISTEN };
                    let waited = self.wake.wait_timeout_while(inner, period, quiet);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            let last = inner.ended && inner.queue.is_empty() && !inner.drawn;
            drop(inner);
            if last {
                return;
            }
            self.round(&mut screen);
        }
    }

    /// Writes what waits, and draws.
    pub(crate) fn round(&self, screen: &mut Screen) {
        let now = self.now();
        let is_foreground = !self.form.has_bar() || screen.terminal().is_foreground();
        if !is_foreground {
            screen.forget_frame();
        }
        let (lines, frame) = {
            let inner = &mut *lock(&self.inner);
            let wants_bar = inner.wants_bar(self.form);
            if let Some(copy) = &mut inner.copy {
                let told = copy.listen(self.form, wants_bar, now, || screen.terminal().hides_input());
                for line in told {
                    inner.queue.push(self.message(Importance::Notice, &line), false);
                }
            }
            let (mut lines, left_out) = inner.queue.take();
            if left_out > 0 {
                lines.push(self.message(Importance::Warning, &left_out_text(left_out)));
            }
            let frame = match (self.form, &inner.copy) {
                (Form::Bar { look, .. }, Some(copy)) if wants_bar && is_foreground => {
                    copy.frame(now, screen.width(), look)
                }
                _ => Vec::new(),
            };
            inner.writing = true;
            (lines, frame)
        };
        // ssh may have left a terminal in a mode where a line feed is only that.
        let line_end = if self.form.has_bar() { "\r\n" } else { "\n" };
        screen.show(&lines, line_end, frame);
        let inner = &mut *lock(&self.inner);
        inner.writing = false;
        inner.drawn = screen.has_frame();
        self.written.notify_all();
    }
}

/// What stands in the place of lines that found no room.
fn left_out_text(count: usize) -> String {
    if count == 1 { "(1 line left out)".to_owned() } else { format!("({count} lines left out)") }
}
