//! The terminal on stderr: whether it is one, what it can, and drawing on it.

use std::{
    env, io,
    io::{IsTerminal as _, Write},
};

use super::bar::Look;

/// What a terminal is taken for that does not say how wide it is.
const USUAL_WIDTH: usize = 80;

/// Where lines go, and what stays below them.
pub(crate) enum Screen {
    /// Lines one after the other.
    Plain(Box<dyn Write + Send>),
    /// A terminal with a frame at the bottom.
    Terminal(Terminal),
}

impl Screen {
    /// Writes a line, above the frame if there is one. That stderr is closed is no reason to stop copying.
    pub(crate) fn line(&mut self, line: &str) {
        match self {
            Self::Plain(output) => {
                let _ = output.write_all(format!("{line}\n").as_bytes()).and_then(|()| output.flush());
            }
            Self::Terminal(terminal) => terminal.line(line),
        }
    }
}

/// A terminal of which the last lines can be redrawn.
///
/// indicatif fills its last line with blanks to the edge. What the terminal itself then writes there, as `^C`, goes to the
/// next line, and taking the bar away misses its first line. So the few control sequences that it takes are here: the
/// cursor stays behind the last character, and every line leaves room for `^C`.
pub(crate) struct Terminal {
    output: Box<dyn Write + Send>,
    width: Box<dyn Fn() -> usize + Send>,
    frame: Vec<String>,
}

impl Terminal {
    /// The terminal on stderr.
    pub(crate) fn stderr() -> Self {
        let width = || rustix::termios::tcgetwinsize(io::stderr()).map_or(0, |size| usize::from(size.ws_col));
        Self { output: Box::new(io::stderr()), width: Box::new(width), frame: Vec::new() }
    }

    /// A terminal in memory.
    #[cfg(test)]
    pub(crate) fn in_memory(terminal: &super::testing::Memory, width: usize) -> Self {
        Self { output: Box::new(terminal.clone()), width: Box::new(move || width), frame: Vec::new() }
    }

    pub(crate) fn width(&self) -> usize {
        match (self.width)() {
            0 => USUAL_WIDTH,
            width => width,
        }
    }

    /// Shows these lines at the bottom instead of those that are there.
    pub(crate) fn frame(&mut self, lines: &[String]) {
        let text = format!("{}{}", to_start(&self.frame, self.width()), drawn(lines));
        self.write(&text);
        self.frame = lines.to_vec();
    }

    /// Does something else with the terminal, and then puts the frame back.
    pub(crate) fn aside<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let frame = std::mem::take(&mut self.frame);
        self.write(&erased(&frame, self.width()));
        let result = work();
        self.frame(&frame);
        result
    }

    /// In one piece with the frame below, so that nothing flickers.
    fn line(&mut self, line: &str) {
        let text = format!("{}{line}\r\n{}", erased(&self.frame, self.width()), drawn(&self.frame));
        self.write(&text);
    }

    /// Takes the frame away.
    pub(crate) fn clear(&mut self) {
        let frame = std::mem::take(&mut self.frame);
        self.write(&erased(&frame, self.width()));
    }

    /// That stderr is closed is no reason to stop copying.
    fn write(&mut self, text: &str) {
        let _ = self.output.write_all(text.as_bytes()).and_then(|()| self.output.flush());
    }
}

/// From the end of a frame to its first character. A terminal that has become narrower has broken its lines.
fn to_start(frame: &[String], width: usize) -> String {
    let rows = |line: &String| console::measure_text_width(line).div_ceil(width.max(1)).max(1);
    match frame.iter().map(rows).sum() {
        0_usize => String::new(),
        1 => "\r".to_owned(),
        rows => format!("\r\x1b[{}A", rows - 1),
    }
}

/// Over whatever stands there; the cursor stays at the end.
fn drawn(frame: &[String]) -> String {
    if frame.is_empty() { String::new() } else { format!("{}\x1b[J", frame.join("\x1b[K\r\n")) }
}

fn erased(frame: &[String], width: usize) -> String {
    if frame.is_empty() { String::new() } else { format!("{}\x1b[J", to_start(frame, width)) }
}

/// What is known about stderr and what the user wants of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// Something that can be redrawn.
    pub(crate) terminal: bool,
    pub(crate) colours: bool,
    pub(crate) unicode: bool,
}

impl Surroundings {
    /// Of this process.
    pub(crate) fn detect() -> Self {
        Self::from(io::stderr().is_terminal(), |name| env::var(name).ok())
    }

    /// `NOCOLOR` is Nix's own; the others are what programs agree on. A locale that says nothing is taken to know
    /// UTF-8, as nearly all do; only one that names something else is not.
    fn from(is_terminal: bool, variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
        let is = |name: &str, wanted: &str| variable(name).is_some_and(|value| value == wanted);
        let terminal = is_terminal && !is("TERM", "dumb");
        let refused = set("NO_COLOR") || set("NOCOLOR") || is("CLICOLOR", "0");
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find(|name| set(name)).and_then(&variable);
        let unicode = locale.is_none_or(|locale| {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        });
        Self { terminal, colours: terminal && !refused, unicode }
    }

    pub(crate) const fn look(self) -> Look {
        Look { colours: self.colours, unicode: self.unicode }
    }
}

/// Whether somebody types a secret on the terminal at this moment: then it does not echo.
pub(crate) fn hides_input() -> bool {
    rustix::termios::tcgetattr(io::stderr())
        .is_ok_and(|modes| !modes.local_modes.contains(rustix::termios::LocalModes::ECHO))
}

/// A line of another machine as it may be shown: without anything that moves the cursor or changes colours.
pub(crate) fn harmless(line: &str) -> String {
    // Of what overwrites itself, the last.
    let line = line.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default();
    console::strip_ansi_codes(line).chars().filter(|sign| *sign == '\t' || !sign.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surroundings(variables: &[(&str, &str)]) -> Surroundings {
        Surroundings::from(true, |name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn what_the_user_says_about_colours_is_heard() {
        assert!(surroundings(&[("TERM", "xterm")]).colours);
        for (name, value) in [("NO_COLOR", "1"), ("NOCOLOR", "yes"), ("CLICOLOR", "0"), ("TERM", "dumb")] {
            assert!(!surroundings(&[(name, value)]).colours, "{name}");
        }
        for (name, value) in [("NO_COLOR", ""), ("CLICOLOR", "1")] {
            assert!(surroundings(&[(name, value)]).colours, "{name}");
        }
        // Colours are one thing, a bar another.
        assert!(surroundings(&[("NO_COLOR", "1")]).terminal);
        assert!(!surroundings(&[("TERM", "dumb")]).terminal);
        assert!(!Surroundings::from(false, |_| None).terminal);
    }

    #[test]
    fn the_locale_decides_about_letters() {
        assert!(surroundings(&[]).unicode);
        assert!(surroundings(&[("LANG", "de_DE.UTF-8")]).unicode);
        assert!(!surroundings(&[("LANG", "de_DE.UTF-8"), ("LC_ALL", "C")]).unicode);
        assert!(!surroundings(&[("LANG", "POSIX")]).unicode);
    }

    #[test]
    fn lines_of_others_move_no_cursor() {
        assert_eq!(harmless("\x1b[31mred\x1b[0m\x07 and\tplain"), "red and\tplain");
        assert_eq!(harmless("10 %\r20 %\r"), "20 %");
        assert_eq!(harmless("\x1b[2J\x1b[1;1Hgone"), "gone");
    }
}
