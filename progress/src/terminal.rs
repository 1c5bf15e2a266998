//! The terminal on stderr: whether it is one, what it can, and drawing on it.

use std::{
    borrow::Cow,
    env, io,
    io::{IsTerminal as _, Write},
};

use rustix::termios::{LocalModes, tcgetattr, tcgetpgrp, tcgetwinsize};

use crate::{bar::Look, patient::Patient};

/// What a terminal is taken for that does not say how wide it is.
const USUAL_WIDTH: usize = 80;

/// What has to be asked of a terminal.
pub(crate) trait Terminal: Send {
    /// Columns; 0 where it does not know.
    fn width(&self) -> usize;

    /// Whether somebody types a secret at this moment: then it does not echo.
    fn hides_input(&self) -> bool;

    /// Whether it is ours to draw on. A job in the background shares its screen with whatever runs in front.
    fn is_foreground(&self) -> bool;
}

/// Standard error, if that is a terminal.
struct Stderr;

impl Terminal for Stderr {
    fn width(&self) -> usize {
        tcgetwinsize(io::stderr()).map_or(0, |size| usize::from(size.ws_col))
    }

    fn hides_input(&self) -> bool {
        tcgetattr(io::stderr()).is_ok_and(|modes| !modes.local_modes.contains(LocalModes::ECHO))
    }

    fn is_foreground(&self) -> bool {
        // A terminal that is not the controlling one has no foreground to ask about.
        tcgetpgrp(io::stderr()).map_or(true, |group| group == rustix::process::getpgrp())
    }
}

/// Where lines go, and the frame that stays below them on a terminal.
///
/// indicatif fills its last line with blanks to the edge. What the terminal itself then writes there, as `^C`, goes to the
/// next line, and taking the bar away misses its first line. So the few control sequences that it takes are here: the
/// cursor stays behind the last character, and every line leaves room for `^C`.
pub(crate) struct Screen {
    output: Box<dyn Write + Send>,
    terminal: Box<dyn Terminal>,
    frame: Vec<String>,
}

impl Screen {
    pub(crate) fn stderr() -> Self {
        Self::new(Box::new(Patient::new(io::stderr())), Box::new(Stderr))
    }

    pub(crate) fn new(output: Box<dyn Write + Send>, terminal: Box<dyn Terminal>) -> Self {
        Self { output, terminal, frame: Vec::new() }
    }

    pub(crate) fn terminal(&self) -> &dyn Terminal {
        &*self.terminal
    }

    pub(crate) fn width(&self) -> usize {
        match self.terminal.width() {
            0 => USUAL_WIDTH,
            width => width,
        }
    }

    /// Whether something stands at the bottom that is to be redrawn.
    pub(crate) fn has_frame(&self) -> bool {
        !self.frame.is_empty()
    }

    /// What stands there is not ours any more: another program has written below it.
    pub(crate) fn forget_frame(&mut self) {
        self.frame.clear();
    }

    /// Writes lines, and below them this frame in the place of the one that is there. In one piece, so that nothing flickers.
    ///
    /// That stderr is closed is no reason to stop copying.
    pub(crate) fn show(&mut self, lines: &[String], line_end: &str, frame: Vec<String>) {
        let width = self.width();
        let mut text = match (lines, &*frame) {
            // Over what is there.
            ([], [_, ..]) => to_start(&self.frame, width),
            _ => erased(&self.frame, width),
        };
        for line in lines {
            text.push_str(line);
            text.push_str(line_end);
        }
        text.push_str(&drawn(&frame));
        self.frame = frame;
        if !text.is_empty() {
            let _ = self.output.write_all(text.as_bytes()).and_then(|()| self.output.flush());
        }
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
        // As Nix: a terminal that does not say what it is can be nothing but a teletype.
        let terminal = is_terminal && set("TERM") && !is("TERM", "dumb");
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

/// A text in which everything that a terminal would obey, or show in another place, is written out: `\u{1b}`.
///
/// Names of files may hold anything, and come from command lines, lists and archives.
///
/// ```
/// assert_eq!(ncc_progress::printable("/tmp/\x1b[31mred\n"), r"/tmp/\u{1b}[31mred\n");
/// assert_eq!(ncc_progress::printable("/tmp/grün"), "/tmp/grün");
/// ```
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hostile) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for sign in text.chars() {
        if is_hostile(sign) && sign != '\t' {
            escaped.extend(sign.escape_default());
        } else {
            escaped.push(sign);
        }
    }
    Cow::Owned(escaped)
}

/// Control characters, and those that turn the direction of writing.
fn is_hostile(sign: char) -> bool {
    let turns = matches!(sign, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || sign.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surroundings(variables: &[(&str, &str)]) -> Surroundings {
        let variables = [variables, &[("TERM", "xterm")]].concat();
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
        assert!(!surroundings(&[("TERM", "")]).terminal);
        // https://github.com/NixOS/nix/issues/10131, https://github.com/console-rs/indicatif/issues/763
        assert!(!Surroundings::from(true, |_| None).terminal);
        assert!(!Surroundings::from(false, |_| Some("xterm".to_owned())).terminal);
    }

    #[test]
    fn the_locale_decides_about_letters() {
        assert!(surroundings(&[]).unicode);
        assert!(surroundings(&[("LANG", "de_DE.UTF-8")]).unicode);
        assert!(!surroundings(&[("LANG", "de_DE.UTF-8"), ("LC_ALL", "C")]).unicode);
        assert!(!surroundings(&[("LANG", "POSIX")]).unicode);
    }
}
