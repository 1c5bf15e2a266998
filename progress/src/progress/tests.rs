//! Whole copies, seen from outside: on a terminal in memory, in a pipe, as JSON.

use std::{
    io::{self, Write},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use ncc_store::{NarHash, PathInfo, Problem, Retry, Side, StoreDir, StoreError, StorePath};

use super::*;
use crate::{
    ConsoleOptions, LogFormat,
    terminal::{Screen, Surroundings, Terminal},
    testing::{Memory, Story, seconds},
};

const PLAIN_BAR: Form = Form::Bar { look: Look { colours: false, unicode: false }, with_lines: false };

/// What was written to a pipe.
#[derive(Clone, Default)]
struct Pipe(Arc<Mutex<Vec<u8>>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Terminal for Pipe {
    fn width(&self) -> usize {
        0
    }

    fn hides_input(&self) -> bool {
        false
    }

    fn is_foreground(&self) -> bool {
        true
    }
}

/// A copy whose clock the test turns, and for which it does the work of the thread that writes.
struct Stage {
    shared: Arc<Shared>,
    screen: Mutex<Screen>,
    clock: Arc<AtomicU64>,
    progress: Option<Progress>,
}

impl Stage {
    fn new(
        form: Form,
        screen: Screen,
        change: impl FnOnce(&mut ConsoleOptions, &mut ProgressOptions),
    ) -> Self {
        let direction = Direction::to("web1");
        let mut console = ConsoleOptions::default();
        let mut options = ProgressOptions::new(direction, StoreDir::default());
        change(&mut console, &mut options);
        let clock = Arc::new(AtomicU64::new(0));
        let hand = Arc::clone(&clock);
        let now = Box::new(move || Duration::from_millis(hand.load(Ordering::SeqCst)));
        let shared = Arc::new(Shared::new(console, form, now));
        let progress = Some(Progress::start(&Console::of(Arc::clone(&shared)), options));
        Self { shared, screen: Mutex::new(screen), clock, progress }
    }

    fn on_terminal(columns: u16, change: impl FnOnce(&mut ProgressOptions)) -> (Self, Memory) {
        let terminal = Memory::new(columns);
        let screen = Screen::new(Box::new(terminal.clone()), Box::new(terminal.clone()));
        (Self::new(PLAIN_BAR, screen, |_, options| change(options)), terminal)
    }

    fn in_pipe(form: Form, change: impl FnOnce(&mut ConsoleOptions, &mut ProgressOptions)) -> (Self, Pipe) {
        let pipe = Pipe::default();
        let screen = Screen::new(Box::new(pipe.clone()), Box::new(pipe.clone()));
        (Self::new(form, screen, change), pipe)
    }

    fn at(&self, now: Duration) {
        self.clock.store(u64::try_from(now.as_millis()).unwrap(), Ordering::SeqCst);
    }

    fn draw(&self) {
        self.shared.round(&mut self.screen.lock().unwrap());
    }

    fn tick_at(&self, second: u64) {
        self.at(seconds(second));
        self.draw();
    }

    /// An event, with the thread that writes at work.
    fn event(&self, event: Event<'_>) {
        std::thread::scope(|scope| {
            let telling = scope.spawn(|| self.shared.event(event));
            while !telling.is_finished() {
                std::thread::yield_now();
                if !self.shared.is_settled() {
                    self.draw();
                }
            }
        });
    }

    /// Plays the story from after `begin` to `end`, and draws.
    fn play(&self, story: &Story, begin: Option<u64>, end: u64) {
        story.tell_until(seconds(end), |event, now| {
            if begin.is_none_or(|begin| now > seconds(begin)) {
                self.at(now);
                self.event(event);
            }
        });
        self.tick_at(end);
    }

    fn finish(&self, report: Option<&Report>) {
        self.shared.finish(report);
        self.draw();
    }
}

impl Pipe {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// That many paths, of 34.5 MiB together.
fn paths(count: usize) -> ncc_copy::Paths {
    let info = |number: usize| {
        let path = StorePath::from_parts(&[u8::try_from(number).unwrap(); 20], "path").unwrap();
        let size = if number == 0 { 36_175_872 } else { 1 };
        Arc::new(PathInfo::new(path, NarHash::new([0; 32]), size))
    };
    (0..count).map(info).collect()
}

fn report(present: usize, substituted: usize, sent: usize) -> Report {
    let mut report = Report::default();
    report.present = paths(present);
    report.substituted = paths(substituted);
    report.sent = paths(sent);
    report.elapsed = Duration::from_millis(6040);
    report
}

#[test]
fn nothing_is_drawn_before_the_host_has_answered() {
    let story = Story::new();
    let (stage, terminal) = Stage::on_terminal(80, |_| {});
    stage.play(&story, None, 0);
    assert_eq!(terminal.contents(), "");
    // The last moment before ssh starts.
    stage.play(&story, Some(0), 1);
    assert_eq!(terminal.contents(), "connecting to web1...");
    terminal.type_in("root@web1's password:\r\n");
    let asked = terminal.contents();
    for second in 2..15 {
        stage.tick_at(second);
        assert_eq!(terminal.contents(), asked);
    }
    stage.play(&story, Some(1), 6);
    assert_eq!(
        terminal.contents(),
        "connecting to web1...\n\
         root@web1's password:\n\
         copying to web1 [############=======...]  30.0/34.5 MiB   7.5 MiB/s  1 s left\n\
         1 of 3 paths registered, 2 sent: data"
    );
}

#[test]
fn where_nothing_can_ask_the_bar_stands_from_the_beginning() {
    let story = Story::new();
    let (stage, terminal) = Stage::on_terminal(80, |options| options.may_ask = false);
    stage.play(&story, None, 0);
    assert_eq!(terminal.contents(), "| computing the closure");
    stage.play(&story, Some(0), 1);
    assert_eq!(terminal.contents(), "- asking web1 about 5 paths");
}

#[test]
fn lines_stand_above_the_bar_and_the_summary_in_its_place() {
    let story = Story::new();
    let (stage, terminal) = Stage::on_terminal(40, |_| {});
    stage.play(&story, None, 6);
    stage.shared.line_of("web1", "the disk is nearly full");
    stage.shared.line_of("web1", "error: quoted at the end");
    stage.shared.say(Importance::Warning, "a warning of this program that is longer than forty columns");
    stage.tick_at(6);
    assert_eq!(
        terminal.contents(),
        "connecting to web1...\n\
         web1: the disk is nearly full\n\
         a warning of this program that is longer\n than forty columns\n\
         [###########=====...]  86 %  1 s left\n\
         1/3 paths  30.0/34.5 MiB  7.5 MiB/s\n\
         2 sent: data"
    );
    stage.play(&story, Some(6), 7);
    assert!(terminal.contents().ends_with("3 sent: registering data"));
    stage.finish(Some(&report(45, 0, 3)));
    assert_eq!(
        terminal.contents(),
        "connecting to web1...\n\
         web1: the disk is nearly full\n\
         a warning of this program that is longer\n than forty columns\n\
         copied 3 paths (34.5 MiB) to web1 in 6.0\n s; 45 were there already"
    );
    // What runs on behind draws nothing any more.
    let end = terminal.contents();
    stage.play(&story, Some(7), 8);
    assert_eq!(terminal.contents(), end);
}

#[test]
fn a_copy_that_is_dropped_leaves_no_bar() {
    let story = Story::new();
    let (mut stage, terminal) = Stage::on_terminal(80, |options| options.may_ask = false);
    stage.play(&story, None, 6);
    stage.shared.line_of("web1", "last words");
    stage.tick_at(6);
    // As the terminal answers to Ctrl-C.
    terminal.type_in("^C");
    drop(stage.progress.take());
    stage.draw();
    assert_eq!(terminal.contents(), "web1: last words");
}

#[test]
fn silence_is_told_on_the_bar_with_seconds_that_count() {
    let story = Story::new();
    let (stage, terminal) = Stage::on_terminal(80, |options| options.may_ask = false);
    stage.play(&story, None, 7);
    stage.tick_at(26);
    assert!(!terminal.contents().contains("waiting 19 s"));
    for second in [27, 33] {
        stage.tick_at(second);
        let last = format!("waiting {} s for web1 to register data", second - 7);
        assert_eq!(terminal.contents().lines().last(), Some(&*last));
    }
    stage.shared.line_of("web1", "still at it");
    stage.tick_at(34);
    assert!(!terminal.contents().contains(" s for web1"));
}

#[test]
fn silence_before_the_answer_is_not_told_while_a_password_is_typed() {
    let story = Story::new();
    let (stage, terminal) = Stage::on_terminal(80, |_| {});
    stage.play(&story, None, 1);
    terminal.1.hides_input.store(true, Ordering::SeqCst);
    stage.tick_at(21);
    assert_eq!(terminal.contents(), "connecting to web1...");
    terminal.1.hides_input.store(false, Ordering::SeqCst);
    stage.tick_at(61);
    assert_eq!(
        terminal.contents(),
        "connecting to web1...\n\nwaiting 1 min 00 s for web1 to answer; if ssh asks something above, it waits for\n you"
    );
}

#[test]
fn a_bar_with_logs_has_the_lines_too() {
    let story = Story::new();
    let terminal = Memory::new(100);
    let form = Form::Bar { look: Look { colours: false, unicode: false }, with_lines: true };
    let screen = Screen::new(Box::new(terminal.clone()), Box::new(terminal.clone()));
    let stage = Stage::new(form, screen, |_, options| options.may_ask = false);
    stage.play(&story, None, 4);
    let lines = terminal.contents();
    assert!(lines.starts_with("copying 3 paths...\ncopying path '/nix/store/"), "{lines}");
    assert!(lines.ends_with("0 of 3 paths registered, 1 sent: program-2.1"), "{lines}");
}

#[test]
fn in_a_pipe_there_are_the_lines_of_upstream_and_the_watchdog() {
    let story = Story::new();
    let (stage, pipe) = Stage::in_pipe(Form::Lines, |_, _| {});
    stage.play(&story, None, 7);
    for second in 8..=70 {
        stage.tick_at(second);
    }
    stage.finish(Some(&report(2, 0, 3)));
    let [library, program, data] = ["library-1.0", "program-2.1", "data"].map(|name| story.full(name));
    assert_eq!(
        pipe.text(),
        format!(
            "copying 3 paths...\n\
             copying path '{library}' to 'ssh://web1'...\n\
             copying path '{program}' to 'ssh://web1'...\n\
             copying path '{data}' to 'ssh://web1'...\n\
             waiting 20 s for web1 to register {data}\n\
             waiting 1 min 00 s for web1 to register {data} (a slow disk, or another process there that works on the \
             same path)\n\
             copied 3 paths (34.5 MiB) to web1 in 6.0 s; 2 were there already\n"
        )
    );
}

#[test]
fn errors_of_the_host_are_said_at_once_where_more_is_wanted() {
    for (verbosity, expected) in [(0, ""), (1, "web1: error: said at once\n")] {
        let (stage, pipe) = Stage::in_pipe(Form::Lines, |console, _| console.verbosity = verbosity);
        stage.shared.line_of("web1", "error: said at once");
        stage.draw();
        assert_eq!(pipe.text(), expected);
    }
}

/// https://github.com/NixOS/nix/issues/2477: the bar stands where somebody else's question does.
#[test]
fn a_second_connection_gets_the_terminal_for_its_question() {
    let story = Story::new();
    let (stage, terminal) = Stage::on_terminal(80, |_| {});
    stage.play(&story, None, 1);
    (stage.progress.as_ref().unwrap().greeted())();
    stage.play(&story, Some(1), 5);
    assert!(terminal.contents().contains("copying to web1 ["), "{}", terminal.contents());
    stage.event(Event::StartingAgain);
    let asked = "connecting to web1...\nconnecting again to web1...";
    assert_eq!(terminal.contents(), asked);
    stage.tick_at(6);
    assert_eq!(terminal.contents(), asked);
    (stage.progress.as_ref().unwrap().greeted())();
    stage.tick_at(7);
    assert!(
        terminal.contents().starts_with(&format!("{asked}\ncopying to web1 [")),
        "{}",
        terminal.contents()
    );
}

#[test]
fn a_lost_connection_is_a_warning_in_every_form() {
    let story = Story::new();
    let problem = Problem::Connection {
        action: "answer",
        path: None,
        retry: Retry::Worthwhile,
        source: "the line\x1b[2J broke".into(),
    };
    let error = StoreError::new(Side::Destination, "host 'web1'", problem);
    let lost = |pause| Event::Reconnecting { error: &error, pause, number: 2, limit: 5 };
    let said =
        "warning: host 'web1' could not answer: the line\\u{1b}[2J broke; trying again in 4 s (2 of 5)";

    let (stage, terminal) = Stage::on_terminal(120, |_| {});
    stage.play(&story, None, 5);
    stage.event(lost(Duration::from_millis(3_700)));
    stage.draw();
    // Without a bar: ssh may ask something at once.
    assert!(terminal.contents().ends_with(said), "{}", terminal.contents());

    let (stage, pipe) = Stage::in_pipe(Form::Lines, |_, _| {});
    stage.event(lost(Duration::from_millis(125)));
    stage.draw();
    assert_eq!(pipe.text(), said.replace(" in 4 s", "") + "\n");

    let (stage, pipe) = Stage::in_pipe(Form::InternalJson, |_, _| {});
    stage.event(lost(Duration::from_secs(4)));
    stage.draw();
    let text = pipe.text();
    assert!(text.starts_with(r#"@nix {"action":"msg","level":1,"msg":"warning: host 'web1'"#), "{text}");
}

#[test]
fn a_job_in_the_background_draws_nothing_and_says_everything() {
    let story = Story::new();
    let (stage, terminal) = Stage::on_terminal(80, |options| options.may_ask = false);
    terminal.1.is_background.store(true, Ordering::SeqCst);
    stage.play(&story, None, 5);
    stage.shared.line_of("web1", "a word");
    stage.draw();
    assert_eq!(terminal.contents(), "web1: a word");
    terminal.1.is_background.store(false, Ordering::SeqCst);
    stage.draw();
    assert!(terminal.contents().starts_with("web1: a word\ncopying to web1 ["), "{}", terminal.contents());
}

#[test]
fn a_suspended_bar_is_gone_until_it_is_resumed() {
    let story = Story::new();
    let (stage, terminal) = Stage::on_terminal(80, |options| options.may_ask = false);
    stage.play(&story, None, 5);
    let console = Console::of(Arc::clone(&stage.shared));
    std::thread::scope(|scope| {
        let suspending = scope.spawn(|| console.suspend());
        while !suspending.is_finished() {
            stage.draw();
        }
    });
    stage.tick_at(6);
    assert_eq!(terminal.contents(), "");
    terminal.type_in("[1]+  Stopped\r\n");
    console.resume();
    stage.draw();
    assert!(terminal.contents().starts_with("[1]+  Stopped\ncopying to web1 ["), "{}", terminal.contents());
}

/// Nobody waits for a terminal that takes nothing, and what finds no room is counted.
#[test]
fn a_terminal_that_takes_nothing_stops_nobody() {
    let (stage, pipe) = Stage::in_pipe(Form::Lines, |_, _| {});
    let start = Instant::now();
    for number in 0..200_000 {
        stage.shared.say(Importance::Notice, &format!("line {number} of a program that says a great deal"));
    }
    stage.shared.say(Importance::Error, "error: the last word");
    assert!(!stage.shared.flush(Some(Duration::from_millis(10))));
    assert!(start.elapsed() < Duration::from_secs(30));
    stage.draw();
    let text = pipe.text();
    let (said, last) = text.trim_end().rsplit_once('\n').unwrap();
    assert!(text.len() < (5 << 20) && said.ends_with("\nerror: the last word"), "{}", text.len());
    assert!(last.ends_with(" lines left out)"), "{last}");
}

#[test]
fn what_a_terminal_would_obey_is_written_out() {
    let (stage, pipe) = Stage::in_pipe(Form::Lines, |_, _| {});
    stage.shared.say(Importance::Error, "error: path '/tmp/\x1b[2J\u{202e}\n' is not in the Nix store");
    stage.draw();
    assert_eq!(pipe.text(), "error: path '/tmp/\\u{1b}[2J\\u{202e}\\n' is not in the Nix store\n");
}

#[test]
fn quiet_is_quiet_except_for_what_goes_wrong() {
    let story = Story::new();
    let surroundings = Surroundings { terminal: true, colours: true, unicode: true };
    let form = Form::of(Some(LogFormat::Bar), surroundings, true);
    let (stage, pipe) = Stage::in_pipe(form, |console, _| console.quiet = true);
    stage.play(&story, None, 8);
    stage.tick_at(100);
    stage.shared.line_of("web1", "a word");
    stage.finish(Some(&report(2, 0, 3)));
    stage.shared.say(Importance::Warning, "a warning");
    stage.draw();
    assert_eq!(pipe.text(), "");
    stage.shared.say(Importance::Error, "error: it went wrong");
    stage.draw();
    assert_eq!(pipe.text(), "error: it went wrong\n");
}

#[test]
fn for_programs_every_line_is_json() {
    let story = Story::new();
    let (stage, pipe) = Stage::in_pipe(Form::InternalJson, |console, _| console.verbosity = 1);
    stage.play(&story, None, 7);
    stage.tick_at(27);
    stage.shared.line_of("web1", "a \"word\"");
    stage.finish(Some(&report(2, 0, 3)));
    stage.shared.say(Importance::Error, "error: late");
    stage.draw();
    let text = pipe.text();
    for line in text.lines() {
        let object = line.strip_prefix("@nix ").unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(object).unwrap()["action"].is_string(), "{line}");
    }
    for message in [
        format!(r#""level":2,"msg":"waiting 20 s for web1 to register {}""#, story.full("data")),
        r#""level":2,"msg":"web1: a \"word\"""#.to_owned(),
        r#""level":3,"msg":"copied 3 paths (34.5 MiB) to web1 in 6.0 s; 2 were there already""#.to_owned(),
        r#""level":0,"msg":"error: late""#.to_owned(),
    ] {
        assert!(text.contains(&message), "{message}\n{text}");
    }
}

#[test]
fn the_form_follows_the_option_and_the_terminal() {
    let terminal = Surroundings { terminal: true, colours: false, unicode: false };
    let pipe = Surroundings::default();
    let bar = |with_lines| Form::Bar { look: terminal.look(), with_lines };
    for (format, on_terminal, in_pipe) in [
        (None, bar(false), Form::Lines),
        (Some(LogFormat::Bar), bar(false), Form::Lines),
        (Some(LogFormat::Multiline), bar(false), Form::Lines),
        (Some(LogFormat::BarWithLogs), bar(true), Form::Lines),
        (Some(LogFormat::MultilineWithLogs), bar(true), Form::Lines),
        (Some(LogFormat::Raw), Form::Lines, Form::Lines),
        (Some(LogFormat::RawWithLogs), Form::Lines, Form::Lines),
        (Some(LogFormat::InternalJson), Form::InternalJson, Form::InternalJson),
    ] {
        assert_eq!(Form::of(format, terminal, false), on_terminal);
        assert_eq!(Form::of(format, pipe, false), in_pipe);
    }
    assert_eq!(Form::of(None, terminal, true), Form::Quiet);
}

#[test]
fn formats_have_the_names_of_nix() {
    let expected =
        ["raw", "raw-with-logs", "bar", "bar-with-logs", "multiline", "multiline-with-logs", "internal-json"];
    assert_eq!(LogFormat::ALL.map(LogFormat::name), expected);
    assert!(LogFormat::ALL.into_iter().all(|format| LogFormat::named(format.name()) == Some(format)));
    assert_eq!(LogFormat::named("Bar"), None);
}

#[test]
fn a_summary_says_what_came_from_where() {
    let to = Direction::to("web1");
    let from = Direction::from_host("web1");
    assert_eq!(summary(&to, &report(0, 0, 1)), "copied 1 path (34.5 MiB) to web1 in 6.0 s");
    assert_eq!(
        summary(&from, &report(1, 0, 12)),
        "copied 12 paths (34.5 MiB) from web1 in 6.0 s; 1 was there already"
    );
    assert_eq!(
        summary(&to, &report(45, 7, 12)),
        "copied 12 paths (34.5 MiB) to web1 in 6.0 s; 7 substituted, 45 were there already"
    );
    assert_eq!(summary(&to, &report(45, 0, 0)), "nothing to copy to web1; 45 were there already");
    let mut valid = report(0, 0, 0);
    valid.roots_were_valid = true;
    assert_eq!(summary(&to, &valid), "nothing to copy to web1; everything was there already");
}
