//! One copy, from its start to its end, as it is shown.

use std::{sync::Arc, time::Duration};

use ncc_copy::{Event, Observer, Report};

use crate::{
    Console, Direction, Importance, ProgressOptions,
    bar::{self, Look},
    chain,
    console::{Form, Shared},
    human,
    internal_json::InternalJson,
    lines,
    state::State,
    watchdog::Watchdog,
};

/// How long a copy waits, once, for a line to stand on the terminal before ssh may ask something there.
const BEFORE_SSH: Duration = Duration::from_millis(200);

/// A pause that is over before anybody has read that there is one.
const MOMENT: Duration = Duration::from_secs(1);

/// What is shown of one copy, from its beginning to [`Progress::finish`] or until this is dropped.
pub struct Progress {
    console: Console,
}

impl Progress {
    /// Shows nothing yet.
    pub fn start(console: &Console, options: ProgressOptions) -> Self {
        let now = console.shared.now();
        console.shared.begin(Copy::new(options, now));
        Self { console: console.clone() }
    }

    /// What the engine tells.
    pub fn observer(&self) -> Arc<dyn Observer> {
        Arc::clone(&self.console.shared) as Arc<dyn Observer>
    }

    /// What the transport hands the stderr of a host to, line by line.
    pub fn host_line(&self, host: &str) -> Arc<dyn Fn(&str) + Send + Sync> {
        self.line_of(host.to_owned())
    }

    /// The same for a program of this machine.
    pub fn own_line(&self) -> Arc<dyn Fn(&str) + Send + Sync> {
        self.line_of("this machine".to_owned())
    }

    fn line_of(&self, speaker: String) -> Arc<dyn Fn(&str) + Send + Sync> {
        let shared = Arc::clone(&self.console.shared);
        Arc::new(move |line| shared.line_of(&speaker, line))
    }

    /// What is called when the host that is called last has greeted: ssh asks nothing any more.
    pub fn greeted(&self) -> Arc<dyn Fn() + Send + Sync> {
        let shared = Arc::clone(&self.console.shared);
        Arc::new(move || {
            let now = shared.now();
            shared.change(|inner| {
                if let Some(copy) = &mut inner.copy {
                    copy.state.greeted(now);
                }
            });
        })
    }

    /// Takes the bar away and sums up what was done; says nothing of a failure, for which there is a message.
    pub fn finish(&self, report: Option<&Report>) {
        self.console.shared.finish(report);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish(None);
    }
}

/// What is known of the copy that goes on.
pub(crate) struct Copy {
    pub(crate) state: State,
    json: InternalJson,
    watchdog: Watchdog,
    looking: bool,
    may_ask: bool,
    /// `connecting to HOST...` was said.
    connecting: bool,
}

impl Copy {
    fn new(options: ProgressOptions, now: Duration) -> Self {
        let ProgressOptions { direction, store_dir, looking, may_ask } = options;
        let mut state = State::new(direction, store_dir);
        state.touch(now);
        state.phase_since = now;
        Self {
            state,
            json: InternalJson::new(std::process::id()),
            watchdog: Watchdog::new(),
            looking,
            may_ask,
            connecting: false,
        }
    }

    /// Whether a bar may stand on the terminal: ssh has asked what it had to ask.
    pub(crate) const fn is_answered(&self) -> bool {
        self.state.answered || !self.may_ask
    }

    pub(crate) fn frame(&self, now: Duration, width: usize, look: Look) -> Vec<String> {
        bar::frame(&self.state, now, width, look)
    }

    /// Called again and again: what is to be said of a silence.
    pub(crate) fn listen(
        &mut self,
        form: Form,
        has_bar: bool,
        now: Duration,
        hides_input: impl Fn() -> bool,
    ) -> Vec<String> {
        let Some(line) = self.watchdog.check(&self.state, now) else { return Vec::new() };
        match form {
            Form::Lines | Form::InternalJson => vec![line],
            // Somebody types a password: not a word. If not, ssh may have asked something openly, and the cursor stands
            // behind its question.
            Form::Bar { .. } if !has_bar && self.connecting && !hides_input() => {
                vec![String::new(), format!("{line}; if ssh asks something above, it waits for you")]
            }
            // A bar says it itself, with seconds that count.
            Form::Bar { .. } | Form::Quiet => Vec::new(),
        }
    }

    /// What upstream prints at this event.
    fn line(&self, event: &Event<'_>) -> Option<String> {
        if self.looking { None } else { lines::line(&self.state, event) }
    }
}

impl Shared {
    /// A line that somebody else wrote. Errors are left to the message at the end, which quotes them, unless everything is
    /// wanted.
    pub(crate) fn line_of(&self, speaker: &str, line: &str) {
        let now = self.now();
        self.change(|inner| {
            if let Some(copy) = &mut inner.copy {
                copy.state.touch(now);
            }
        });
        if self.verbosity > 0 || !line.trim_start().starts_with("error:") {
            self.say(Importance::Notice, &format!("{speaker}: {line}"));
        }
    }

    fn finish(&self, report: Option<&Report>) {
        let quiet = self.form == Form::Quiet;
        self.change(|inner| {
            let Some(mut copy) = inner.copy.take() else { return };
            if self.form == Form::InternalJson {
                for line in copy.json.finish() {
                    inner.queue.push(line, false);
                }
            }
            let summary = report.map(|report| summary(&copy.state.direction, report));
            if let Some(summary) = summary.filter(|_| !quiet && !copy.looking) {
                inner.queue.push(self.message(Importance::Info, &summary), false);
            }
        });
    }
}

impl Observer for Shared {
    fn event(&self, event: Event<'_>) {
        let now = self.now();
        if let Event::Reconnecting { error, pause, number, limit } = event {
            let when =
                if pause < MOMENT { String::new() } else { format!(" in {} s", pause.as_secs_f64().round()) };
            let text = format!("warning: {}; trying again{when} ({number} of {limit})", chain(error));
            self.say(Importance::Warning, &text);
        }
        let before_ssh = self.change(|inner| {
            // After the end there is nothing more to say, though tasks that are cut off may still be at it.
            let Some(copy) = &mut inner.copy else { return false };
            copy.state.apply(&event, now);
            let mut before_ssh = false;
            let lines = match self.form {
                Form::Quiet => Vec::new(),
                Form::Lines => copy.line(&event).into_iter().collect(),
                Form::InternalJson => copy.json.event(&copy.state, &event, now),
                Form::Bar { with_lines, .. } => {
                    let again = matches!(event, Event::StartingAgain);
                    let connects = again || connects(&copy.state.direction, &event) && !copy.connecting;
                    before_ssh = connects && copy.may_ask;
                    copy.connecting |= before_ssh;
                    let again = if again { "again " } else { "" };
                    let connecting = before_ssh
                        .then(|| format!("connecting {again}to {}...", hosts(&copy.state.direction)));
                    let line = if with_lines { copy.line(&event) } else { None };
                    connecting.into_iter().chain(line).collect()
                }
            };
            for line in lines {
                inner.queue.push(line, false);
            }
            before_ssh
        });
        if before_ssh {
            // With the bar taken away, too.
            self.flush(Some(BEFORE_SSH));
        }
    }
}

/// Whether the host is needed from here on: the moment before ssh is started, which is the last in which a line can be
/// written that no question of ssh is in front of.
fn connects(direction: &Direction, event: &Event<'_>) -> bool {
    match direction.source_host() {
        None => matches!(event, Event::AskingForRoots { .. } | Event::Asking { .. }),
        Some(_) => matches!(event, Event::ComputingClosure),
    }
}

/// The hosts in the order in which they are called.
fn hosts(direction: &Direction) -> String {
    match (direction.source_host(), direction.destination_host()) {
        (Some(first), Some(then)) => format!("{first}, then to {then}"),
        _ => direction.first_host().to_owned(),
    }
}

/// `copied 12 paths (34.5 MiB) to HOST in 3.2 s; 45 were there already`.
fn summary(direction: &Direction, report: &Report) -> String {
    let way = direction.words();
    let mut others = Vec::new();
    if !report.substituted.is_empty() {
        others.push(format!("{} substituted", report.substituted.count()));
    }
    match report.present_count() {
        0 if report.roots_were_valid => others.push("everything was there already".to_owned()),
        0 => {}
        1 => others.push("1 was there already".to_owned()),
        count => others.push(format!("{count} were there already")),
    }
    let others = others.join(", ");
    let copied = if report.sent.is_empty() {
        format!("nothing to copy {way}")
    } else {
        format!(
            "copied {} ({}) {way} in {}",
            human::paths(report.sent.count()),
            human::nars(report.sent.iter().map(|info| info.nar_size)),
            human::duration(report.elapsed),
        )
    };
    if others.is_empty() { copied } else { format!("{copied}; {others}") }
}

#[cfg(test)]
mod tests;
