//! What stands at the bottom of a terminal while a copy goes on. A function of what is known, the time and the width:
//! drawing is elsewhere.
//!
//! The bar has two tones, because two things are true of every byte: it has left, and the other side has registered
//! it. A bar that knew only the first would stand at its end while the other side still unpacks, and look hung.

use std::time::Duration;

use super::{
    human,
    state::{Phase, State},
    watchdog,
};

/// From this width on, everything stands in two lines; below, in three short ones.
const WIDE: usize = 60;

/// The longest name of a host that is written out beside a bar.
const HOST_WIDTH: usize = 20;

/// A bar shorter than this shows nothing.
const LEAST_BAR: usize = 8;

/// How what stands there looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// Colours may be used.
    pub(crate) colours: bool,
    /// The terminal knows more than ASCII.
    pub(crate) unicode: bool,
}

impl Look {
    /// Registered, sent, to do.
    const fn tones(self) -> [char; 3] {
        if self.unicode { ['█', '▒', '░'] } else { ['#', '=', '.'] }
    }

    fn spinner(self, now: Duration) -> char {
        let signs: &[char] = if self.unicode {
            &['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏']
        } else {
            &['|', '/', '-', '\\']
        };
        let turn = usize::try_from(now.as_millis() / 100).unwrap_or_default();
        signs.get(turn % signs.len()).copied().unwrap_or(' ')
    }

    const fn ellipsis(self) -> &'static str {
        if self.unicode { "…" } else { "..." }
    }

    fn paint(self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Bold => "1",
            Colour::Green => "32",
            Colour::Yellow => "33",
            Colour::Red => "31",
            Colour::Faint => "2",
        };
        if self.colours && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Cut to `width` characters, with a sign where something is missing.
    fn cut(self, text: &str, width: usize) -> String {
        let mark = self.ellipsis();
        if text.chars().count() <= width {
            text.to_owned()
        } else if width <= mark.chars().count() {
            text.chars().take(width).collect()
        } else {
            let kept: String = text.chars().take(width - mark.chars().count()).collect();
            format!("{}{mark}", kept.trim_end())
        }
    }

    fn bar(self, state: &State, width: usize) -> String {
        let [registered, sent, open] = self.tones();
        // Never beyond what was sent: a registered path has left whole, even where two counts meet in one moment.
        let filled = cells(state.sent.bytes, state.total.bytes, width);
        let done = cells(state.registered.bytes, state.total.bytes, width).min(filled);
        let run = |sign: char, count: usize| sign.to_string().repeat(count);
        format!(
            "[{}{}{}]",
            self.paint(Colour::Green, &run(registered, done)),
            self.paint(Colour::Yellow, &run(sent, filled - done)),
            self.paint(Colour::Faint, &run(open, width - filled)),
        )
    }
}

#[derive(Clone, Copy)]
enum Colour {
    Bold,
    Green,
    Yellow,
    Red,
    Faint,
}

/// The lines to show, none of them wider than `width`.
pub(crate) fn frame(state: &State, now: Duration, width: usize, look: Look) -> Vec<String> {
    // Room for `^C`, which must not push the cursor to the next line.
    let width = width.saturating_sub(2).max(1);
    let mut lines = match state.phase {
        Phase::Copying if state.total.paths > 0 && width >= WIDE => wide(state, now, width, look),
        Phase::Copying if state.total.paths > 0 => narrow(state, now, width, look),
        _ => vec![spinning(state, now, width, look)],
    };
    if state.silence(now) >= watchdog::FIRST {
        let text = shorten_paths(&watchdog::describe(state, now), state);
        lines.push(look.paint(Colour::Yellow, &look.cut(&text, width)));
    }
    lines
}

/// A phase without a measure: what it is, and for how long.
fn spinning(state: &State, now: Duration, width: usize, look: Look) -> String {
    let source = state.direction.source_host().map(|host| look.cut(host, HOST_WIDTH));
    let destination = look.cut(state.direction.destination(), HOST_WIDTH);
    let to_host = state.direction.destination_host().is_some();
    let text = match state.phase {
        Phase::Starting => format!("connecting to {}", look.cut(state.direction.first_host(), HOST_WIDTH)),
        Phase::Closure => match source {
            None => "computing the closure".to_owned(),
            Some(host) => format!("computing the closure on {host}"),
        },
        Phase::Asking(paths) if to_host => format!("asking {destination} about {}", human::paths(paths)),
        Phase::Asking(paths) => format!("looking for {} on this machine", human::paths(paths)),
        Phase::Substituting(paths) => {
            format!("{destination} substitutes what it can of {}", human::paths(paths))
        }
        Phase::Foreseeing(paths) => {
            format!("asking what {destination} would substitute of {}", human::paths(paths))
        }
        Phase::Copying => "nothing is missing".to_owned(),
        Phase::Checking if to_host => format!("checking that {destination} has everything"),
        Phase::Checking => "checking that everything has come".to_owned(),
        Phase::Pausing => format!("lost {}, trying again", state.direction.either_host()),
    };
    let since = now.saturating_sub(state.phase_since);
    // A number that is gone before it can be read is noise.
    let time = if since >= Duration::from_secs(3) {
        format!("  {}", human::whole_seconds(since))
    } else {
        String::new()
    };
    let room = width.saturating_sub(2 + time.chars().count());
    let text = format!("{} {}{time}", look.spinner(now), look.cut(&text, room));
    look.cut(&text, width)
}

fn wide(state: &State, now: Duration, width: usize, look: Look) -> Vec<String> {
    let destination = look.cut(state.direction.destination(), HOST_WIDTH);
    let label = match (state.direction.source_host(), state.direction.destination_host()) {
        _ if state.only_waits() => format!("waiting for {destination}"),
        (Some(source), None) => format!("copying from {}", look.cut(source, HOST_WIDTH)),
        _ => format!("copying to {destination}"),
    };
    let numbers = numbers(state, now);
    let room = |label: &str| width.saturating_sub(label.chars().count() + numbers.chars().count() + 5);
    let first = if room(&label) >= LEAST_BAR {
        let bar = look.bar(state, room(&label));
        format!("{} {bar}  {}", look.paint(Colour::Bold, &label), numbers.trim_end())
    } else {
        look.cut(&format!("{label}  {}", numbers.trim_end()), width)
    };

    let counts = format!(
        "{} of {} registered, {} {}",
        state.registered.paths,
        human::paths(state.total.paths),
        state.sent.paths,
        sent(state),
    );
    vec![first, with_name(state, &counts, width, look)]
}

fn narrow(state: &State, now: Duration, width: usize, look: Look) -> Vec<String> {
    let percent = format!("{:>3} %", cells(state.sent.bytes, state.total.bytes, 100));
    let left = time_left(state, now).unwrap_or_default();
    let mut numbers =
        if state.only_waits() { percent.clone() } else { format!("{percent}  {left:LEFT_WIDTH$}") };
    let room = |numbers: &str| width.saturating_sub(numbers.chars().count() + 3);
    if room(&numbers) < LEAST_BAR {
        numbers = percent;
    }
    let first = if room(&numbers) >= LEAST_BAR {
        format!("{} {}", look.bar(state, room(&numbers)), numbers.trim_end())
    } else {
        look.cut(numbers.trim(), width)
    };

    let mut second = format!("{}/{}", state.registered.paths, human::paths(state.total.paths));
    for more in std::iter::once(human::bytes_of(state.sent.bytes, state.total.bytes)).chain(rate(state, now))
    {
        let longer = format!("{second}  {more}");
        if longer.chars().count() > width {
            break;
        }
        second = longer;
    }
    let counts = format!("{} {}", state.sent.paths, sent(state));
    vec![first, look.cut(&second, width), with_name(state, &counts, width, look)]
}

/// What most rates and times have room in. A bar that changes its length as they come and go is restless.
const RATE_WIDTH: usize = "99.9 MiB/s".len();
const LEFT_WIDTH: usize = "59 s left".len();

/// Bytes, rate and time left, each with room to grow.
fn numbers(state: &State, now: Duration) -> String {
    let widest = human::bytes_of(state.total.bytes, state.total.bytes).len();
    let bytes = format!("{:>widest$}", human::bytes_of(state.sent.bytes, state.total.bytes));
    if state.only_waits() {
        return bytes;
    }
    let rate = rate(state, now).unwrap_or_default();
    let left = time_left(state, now).unwrap_or_default();
    format!("{bytes}  {rate:>RATE_WIDTH$}  {left:LEFT_WIDTH$}")
}

fn rate(state: &State, now: Duration) -> Option<String> {
    let rate = state.rate(now).filter(|_| !state.only_waits())?;
    Some(format!("{}/s", human::bytes(rate)))
}

fn time_left(state: &State, now: Duration) -> Option<String> {
    state.time_left(now).map(|left| format!("{} left", human::whole_seconds(left)))
}

/// Counts, then the name of the path that is on its way. Its digest tells nobody anything.
fn with_name(state: &State, counts: &str, width: usize, look: Look) -> String {
    let mut text = counts.to_owned();
    let failed = if state.failed > 0 { format!(", {} failed", state.failed) } else { String::new() };
    let plain = text.chars().count() + failed.chars().count();
    let name = state.current().map_or("", |path| path.name());
    let doing = if state.only_waits() && !name.is_empty() { "registering " } else { "" };
    text.push_str(&look.paint(Colour::Red, &failed));
    if plain > width {
        return look.cut(&format!("{counts}{failed}"), width);
    }
    // Fewer than a few letters of a name are none.
    if !name.is_empty() && width >= plain + 10 {
        text.push_str(": ");
        text.push_str(&look.cut(&format!("{doing}{name}"), width - plain - 2));
    }
    text
}

fn sent(state: &State) -> &'static str {
    if state.direction.destination_host().is_some() { "sent" } else { "received" }
}

/// Store paths without directory and digest, so that the name stands within the width.
fn shorten_paths(text: &str, state: &State) -> String {
    let Some(start) = text.find(&format!("{}/", state.store_dir)) else { return text.to_owned() };
    let (before, path) = text.split_at(start);
    let end = path.find(' ').unwrap_or(path.len());
    let (path, after) = path.split_at(end);
    let name = state.store_dir.parse(path).map_or_else(|_| path.to_owned(), |path| path.name().to_owned());
    format!("{before}{name}{after}")
}

/// How much of `width` is filled. Full only when all is done.
fn cells(done: u64, total: u64, width: usize) -> usize {
    if done >= total {
        return width;
    }
    let filled = u128::from(done) * (width as u128) / u128::from(total);
    usize::try_from(filled).unwrap_or(width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Direction,
        testing::{Story, seconds},
    };

    const PLAIN: Look = Look { colours: false, unicode: false };

    fn at(second: u64, direction: Direction) -> State {
        let story = Story::new();
        let mut state = story.state(direction);
        story.tell_until(seconds(second), |event, now| state.apply(&event, now));
        state
    }

    fn to(second: u64) -> State {
        at(second, Direction::to("web1"))
    }

    fn shown(state: &State, second: u64, width: usize) -> Vec<String> {
        let lines = frame(state, seconds(second), width, PLAIN);
        for line in &lines {
            assert!(line.chars().count() < (width - 1).max(2), "{line:?} has no room in {width} columns");
        }
        lines
    }

    #[test]
    fn eighty_columns_have_everything() {
        assert_eq!(shown(&to(0), 0, 80), ["| computing the closure"]);
        assert_eq!(shown(&to(1), 5, 80), ["- asking web1 about 5 paths  4 s"]);
        assert_eq!(
            shown(&to(5), 5, 80),
            [
                "copying to web1 [===============.......]  25.0/34.5 MiB   8.3 MiB/s  2 s left",
                "0 of 3 paths registered, 1 sent: program-2.1"
            ]
        );
        assert_eq!(
            shown(&to(6), 6, 80),
            [
                "copying to web1 [############=======...]  30.0/34.5 MiB   7.5 MiB/s  1 s left",
                "1 of 3 paths registered, 2 sent: data"
            ]
        );
        assert_eq!(
            shown(&to(7), 7, 80),
            [
                "waiting for web1 [######################################======]  34.5/34.5 MiB",
                "2 of 3 paths registered, 3 sent: registering data"
            ]
        );
        assert_eq!(shown(&to(8), 8, 80), ["| checking that web1 has everything"]);
    }

    #[test]
    fn forty_columns_have_it_in_three_lines() {
        assert_eq!(shown(&to(1), 5, 40), ["- asking web1 about 5 paths  4 s"]);
        assert_eq!(
            shown(&to(6), 6, 40),
            ["[###########=====...]  86 %  1 s left", "1/3 paths  30.0/34.5 MiB  7.5 MiB/s", "2 sent: data"]
        );
        assert_eq!(
            shown(&to(7), 7, 40),
            [
                "[##########################====] 100 %",
                "2/3 paths  34.5/34.5 MiB",
                "3 sent: registering data"
            ]
        );
    }

    #[test]
    fn any_width_is_kept() {
        for second in 0..=8 {
            for width in 2..200 {
                shown(&to(second), second, width);
                shown(&to(second), second + 30, width);
                let long = at(second, Direction::from_host("a-host-with-a.very.long.name.example.org"));
                shown(&long, second, width);
            }
        }
    }

    #[test]
    fn from_a_host_paths_are_received() {
        let state = at(5, Direction::from_host("web1"));
        let lines = shown(&state, 5, 80);
        assert!(lines[0].starts_with("copying from web1 ["), "{lines:?}");
        assert_eq!(lines[1], "0 of 3 paths registered, 1 received: program-2.1");
        let asking = at(1, Direction::from_host("web1"));
        assert_eq!(shown(&asking, 1, 80), ["- looking for 5 paths on this machine"]);
        assert!(
            shown(&at(7, Direction::from_host("web1")), 7, 80)[0].starts_with("waiting for this machine [")
        );
    }

    #[test]
    fn silence_gets_a_line_of_its_own() {
        let lines = shown(&to(7), 32, 80);
        assert_eq!(lines[2], "waiting 25 s for web1 to register data");
        assert_eq!(shown(&to(1), 21, 40)[1], "waiting 20 s for web1 to answer");
    }

    #[test]
    fn what_failed_is_counted() {
        let mut state = to(6);
        state.failed = 2;
        assert_eq!(shown(&state, 6, 80)[1], "1 of 3 paths registered, 2 sent, 2 failed: data");
    }

    #[test]
    fn colours_and_letters_are_a_choice() {
        let look = Look { colours: true, unicode: true };
        let lines = frame(&to(6), seconds(6), 80, look);
        assert_eq!(
            lines[0],
            "\x1b[1mcopying to web1\x1b[0m [\x1b[32m████████████\x1b[0m\x1b[33m▒▒▒▒▒▒▒\x1b[0m\x1b[2m░░░\x1b[0m]  \
             30.0/34.5 MiB   7.5 MiB/s  1 s left"
        );
    }
}
