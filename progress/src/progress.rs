//! One copy on the screen: what happens goes in, and one of three forms comes out.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use ncc_copy::{CopyError, Event, Observer, Report};

use crate::{
    Direction, Importance, LogFormat, ProgressOptions,
    bar::{self, Look},
    human,
    internal_json::{self, InternalJson},
    lines,
    report::{self, Wire},
    state::State,
    terminal::{self, Screen, Surroundings, Terminal},
    watchdog::Watchdog,
};

/// How often the bar is redrawn.
const REDRAW: Duration = Duration::from_millis(100);

/// How often silence is looked for where there is no bar.
const LISTEN: Duration = Duration::from_secs(1);

/// The copy that goes on, for [`tell`].
static CURRENT: Mutex<Option<Arc<Shared>>> = Mutex::new(None);

/// Says a line on stderr, above the bar and in the form that was asked for.
pub fn tell(importance: Importance, line: &str) {
    let current = lock(&CURRENT).clone();
    match current {
        Some(shared) => shared.say(importance, line),
        None => Screen::Plain(Box::new(io::stderr())).line(line),
    }
}

/// Writes to standard output, which may be the same terminal, with the bar out of the way.
pub fn aside<T>(work: impl FnOnce() -> T) -> T {
    let current = lock(&CURRENT).clone();
    match current.as_ref().map(|shared| lock(&shared.screen)).as_deref_mut() {
        Some(Screen::Terminal(terminal)) => terminal.aside(work),
        _ => work(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is shown of one copy, from its beginning to [`Progress::finish`] or until this is dropped.
pub struct Progress {
    shared: Arc<Shared>,
}

impl Progress {
    /// Shows nothing yet. From now on [`tell`] respects this copy's form.
    pub fn start(options: ProgressOptions) -> Self {
        let surroundings = Surroundings::detect();
        let form = Form::of(options.format, surroundings, options.quiet);
        let screen = match form {
            Form::Bar { .. } => Screen::Terminal(Terminal::stderr()),
            _ => Screen::Plain(Box::new(io::stderr())),
        };
        let start = Instant::now();
        let shared = Arc::new(Shared::new(options, form, screen, Box::new(move || start.elapsed())));
        *lock(&CURRENT) = Some(Arc::clone(&shared));
        let ticking = Arc::clone(&shared);
        // Never waited for: it ends by itself, or with the process. Without it there is no bar, and the copy is as good.
        let _ =
            thread::Builder::new().name("progress".to_owned()).spawn(move || ticking.tick_until_finished());
        Self { shared }
    }

    /// What the engine tells.
    pub fn observer(&self) -> Arc<dyn Observer> {
        Arc::clone(&self.shared) as Arc<dyn Observer>
    }

    /// What the transport hands the host's stderr to, line by line.
    pub fn host_line(&self) -> Arc<dyn Fn(&str) + Send + Sync> {
        let shared = Arc::clone(&self.shared);
        let host = lock(&shared.core).state.direction.host().to_owned();
        Arc::new(move |line| shared.line_of(&host, line))
    }

    /// The same for a program of this machine.
    pub fn own_line(&self) -> Arc<dyn Fn(&str) + Send + Sync> {
        let shared = Arc::clone(&self.shared);
        Arc::new(move |line| shared.line_of("this machine", line))
    }

    /// What is called when the host has greeted: ssh asks nothing any more.
    pub fn greeted(&self) -> Arc<dyn Fn() + Send + Sync> {
        let shared = Arc::clone(&self.shared);
        Arc::new(move || {
            let now = shared.now();
            let state = &mut lock(&shared.core).state;
            state.answered = true;
            state.touch(now);
        })
    }

    /// Takes the bar away and sums up what was done; says nothing of a failure, for which there is a message.
    pub fn finish(&self, report: Option<&Report>) {
        self.shared.finish(report);
    }

    /// What was done, for `--json`.
    pub fn report_json(&self, result: Result<&Report, &CopyError>, wire: Option<Wire>) -> String {
        report::report_json(&lock(&self.shared.core).state, result, wire)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.shared.finish(None);
    }
}

/// What is made of what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Nothing,
    Lines,
    Bar { look: Look, with_lines: bool },
    InternalJson,
}

impl Form {
    fn of(format: Option<LogFormat>, surroundings: Surroundings, quiet: bool) -> Self {
        let with_lines = match format {
            Some(LogFormat::InternalJson) => return Self::InternalJson,
            _ if quiet => return Self::Nothing,
            Some(LogFormat::Raw | LogFormat::RawWithLogs) => return Self::Lines,
            Some(LogFormat::BarWithLogs | LogFormat::MultilineWithLogs) => true,
            Some(LogFormat::Bar | LogFormat::Multiline) | None => false,
        };
        if surroundings.terminal { Self::Bar { look: surroundings.look(), with_lines } } else { Self::Lines }
    }
}

/// What the engine, the transport, the thread that draws and [`tell`] have in common.
struct Shared {
    form: Form,
    verbosity: u8,
    quiet: bool,
    looking: bool,
    may_ask: bool,
    core: Mutex<Core>,
    /// Apart from `core`, so that a terminal that takes nothing (Ctrl-S) does not stop the copy behind a bar: nobody
    /// waits for this while holding that.
    screen: Mutex<Screen>,
    clock: Box<dyn Fn() -> Duration + Send + Sync>,
    /// Wakes the thread that draws when the copy is finished.
    finished: Condvar,
}

struct Core {
    state: State,
    json: InternalJson,
    watchdog: Watchdog,
    /// Lines that the next drawing puts above the bar.
    pending: Vec<String>,
    /// `connecting to HOST...` was said.
    connecting: bool,
    finished: bool,
}

impl Core {
    /// Whether a bar may stand on the terminal.
    const fn is_visible(&self, may_ask: bool) -> bool {
        !self.finished && (self.state.answered || !may_ask)
    }
}

impl Shared {
    fn new(
        options: ProgressOptions,
        form: Form,
        screen: Screen,
        clock: Box<dyn Fn() -> Duration + Send + Sync>,
    ) -> Self {
        let ProgressOptions { direction, store_dir, verbosity, quiet, looking, may_ask, format: _ } = options;
        Self {
            form,
            verbosity,
            quiet,
            looking,
            may_ask,
            core: Mutex::new(Core {
                state: State::new(direction, store_dir),
                json: InternalJson::new(std::process::id()),
                watchdog: Watchdog::new(),
                pending: Vec::new(),
                connecting: false,
                finished: false,
            }),
            screen: Mutex::new(screen),
            clock,
            finished: Condvar::new(),
        }
    }

    fn now(&self) -> Duration {
        (self.clock)()
    }

    /// What upstream prints at this event.
    fn line(&self, state: &State, event: &Event<'_>) -> Option<String> {
        if self.looking { None } else { lines::line(state, event) }
    }

    /// A line from outside.
    fn say(&self, importance: Importance, line: &str) {
        let line = match self.form {
            Form::InternalJson => internal_json::message(importance, line),
            _ => line.to_owned(),
        };
        self.print([line]);
    }

    /// Prints lines: at once, or with the next drawing where there is a bar.
    fn print(&self, lines: impl IntoIterator<Item = String>) {
        if matches!(self.form, Form::Bar { .. }) {
            let mut core = lock(&self.core);
            if core.is_visible(self.may_ask) {
                core.pending.extend(lines);
                return;
            }
        }
        let mut screen = lock(&self.screen);
        for line in lines {
            screen.line(&line);
        }
    }

    /// Errors are left to the message at the end, which quotes them, unless everything is wanted.
    fn line_of(&self, speaker: &str, line: &str) {
        let now = self.now();
        let line = terminal::harmless(line);
        lock(&self.core).state.touch(now);
        if !self.quiet && (self.verbosity > 0 || !line.trim_start().starts_with("error:")) {
            self.say(Importance::Notice, &format!("{speaker}: {line}"));
        }
    }

    /// Called again and again while the copy goes on.
    fn tick(&self, hides_input: impl Fn() -> bool) {
        let now = self.now();
        let (lines, frame) = {
            let core = &mut *lock(&self.core);
            if core.finished {
                return;
            }
            let visible = core.is_visible(self.may_ask);
            let silent_for_long = core.watchdog.check(&core.state, now);
            match self.form {
                Form::Nothing => return,
                Form::Lines => (silent_for_long.into_iter().collect(), false),
                Form::InternalJson => {
                    let message = |line: String| internal_json::message(Importance::Notice, &line);
                    (silent_for_long.map(message).into_iter().collect(), false)
                }
                // The bar says it itself, with seconds that count.
                Form::Bar { .. } if visible => (std::mem::take(&mut core.pending), true),
                // Somebody types a password: not a word. If not, ssh may have asked something openly, and the
                // cursor stands behind its question.
                Form::Bar { .. } => match silent_for_long.filter(|_| core.connecting && !hides_input()) {
                    Some(line) => {
                        let hint = "if ssh asks something above, it waits for you";
                        (vec![String::new(), format!("{line}; {hint}")], false)
                    }
                    None => (Vec::new(), false),
                },
            }
        };
        let screen = &mut *lock(&self.screen);
        // Whoever has finished meanwhile holds the screen while it clears: look again, with the screen in hand.
        let frame = match (&self.form, &screen) {
            (Form::Bar { look, .. }, Screen::Terminal(terminal)) if frame => {
                let core = lock(&self.core);
                (!core.finished).then(|| bar::frame(&core.state, now, terminal.width(), *look))
            }
            _ => None,
        };
        for line in lines {
            screen.line(&line);
        }
        if let (Screen::Terminal(terminal), Some(frame)) = (screen, frame) {
            terminal.frame(&frame);
        }
    }

    fn tick_until_finished(&self) {
        let period = if matches!(self.form, Form::Bar { .. }) { REDRAW } else { LISTEN };
        loop {
            let core = lock(&self.core);
            let (core, _) = self.finished.wait_timeout(core, period).unwrap_or_else(PoisonError::into_inner);
            let finished = core.finished;
            drop(core);
            if finished {
                return;
            }
            self.tick(terminal::hides_input);
        }
    }

    fn finish(&self, report: Option<&Report>) {
        let (lines, last) = {
            let core = &mut *lock(&self.core);
            if core.finished {
                return;
            }
            core.finished = true;
            let mut lines = std::mem::take(&mut core.pending);
            let last = report.map(|report| summary(&core.state.direction, report));
            let last = match self.form {
                Form::Nothing => None,
                Form::Bar { .. } => last,
                Form::Lines => last.filter(|_| self.verbosity > 0),
                Form::InternalJson => {
                    lines.extend(core.json.finish());
                    last.filter(|_| self.verbosity > 0)
                        .map(|line| internal_json::message(Importance::Info, &line))
                }
            };
            (lines, last)
        };
        self.finished.notify_all();
        let screen = &mut *lock(&self.screen);
        for line in lines {
            screen.line(&line);
        }
        if let Screen::Terminal(terminal) = screen {
            terminal.clear();
        }
        if let Some(last) = last {
            screen.line(&last);
        }
    }
}

impl Observer for Shared {
    fn event(&self, event: Event<'_>) {
        let now = self.now();
        let lines = {
            let core = &mut *lock(&self.core);
            core.state.apply(&event, now);
            match self.form {
                // After the end there is nothing more to say, though tasks that are cut off may still be at it.
                _ if core.finished => Vec::new(),
                Form::Nothing => Vec::new(),
                Form::Lines => self.line(&core.state, &event).into_iter().collect(),
                Form::InternalJson => core.json.event(&core.state, &event, now),
                Form::Bar { with_lines, .. } => {
                    let connecting =
                        connects(&core.state.direction, &event) && self.may_ask && !core.connecting;
                    core.connecting |= connecting;
                    let host = core.state.direction.host();
                    let connecting = connecting.then(|| format!("connecting to {host}..."));
                    let line = if with_lines { self.line(&core.state, &event) } else { None };
                    connecting.into_iter().chain(line).collect()
                }
            }
        };
        if !lines.is_empty() {
            self.print(lines);
        }
    }
}

/// Whether the host is needed from here on: the moment before ssh is started, which is the last in which a line can be
/// written that no question of ssh is in front of.
const fn connects(direction: &Direction, event: &Event<'_>) -> bool {
    match direction {
        Direction::To(_) => matches!(event, Event::Asking { .. }),
        Direction::From(_) => matches!(event, Event::ComputingClosure),
    }
}

/// `copied 12 paths (34.5 MiB) to HOST in 3.2 s; 45 were there already`.
fn summary(direction: &Direction, report: &Report) -> String {
    let host = direction.host();
    let mut others = Vec::new();
    if report.substituted.paths > 0 {
        others.push(format!("{} substituted", report.substituted.paths));
    }
    if report.present.paths > 0 {
        let were = if report.present.paths == 1 { "was" } else { "were" };
        others.push(format!("{} {were} there already", report.present.paths));
    }
    let others = others.join(", ");
    let copied = if report.sent.paths == 0 {
        format!("nothing to copy {} {host}", direction.word())
    } else {
        format!(
            "copied {} ({}) {} {host} in {}",
            human::paths(report.sent.paths),
            human::bytes(report.sent.bytes),
            direction.word(),
            human::duration(report.elapsed),
        )
    };
    if others.is_empty() { copied } else { format!("{copied}; {others}") }
}

#[cfg(test)]
mod tests;
