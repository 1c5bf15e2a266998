//! Diagnostics of the crates below, on stderr, for `-v`.

use std::io;

use ncc_progress::{Console, Importance};
use tracing::{Level, Metadata};
use tracing_subscriber::{filter::LevelFilter, fmt::MakeWriter};

/// Starts diagnostics: warnings, then with each `-v` info, debug, trace; `None` is for errors alone.
pub(crate) fn start(console: Console, verbosity: Option<u8>) {
    let level = match verbosity {
        None => LevelFilter::ERROR,
        Some(0) => LevelFilter::WARN,
        Some(1) => LevelFilter::INFO,
        Some(2) => LevelFilter::DEBUG,
        Some(_) => LevelFilter::TRACE,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(Lines(console))
        .without_time()
        .with_target(false)
        .with_level(false)
        .init();
}

/// Gives each diagnostic to whoever has the terminal, so that a progress bar is not torn.
struct Lines(Console);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { console: &self.0, importance: Importance::Info, text: Vec::new() }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a> {
        let importance = match *metadata.level() {
            Level::ERROR => Importance::Error,
            Level::WARN => Importance::Warning,
            Level::INFO => Importance::Info,
            _ => Importance::Debug,
        };
        Line { console: &self.0, importance, text: Vec::new() }
    }
}

/// Gathers one diagnostic and says it when it is dropped.
struct Line<'a> {
    console: &'a Console,
    importance: Importance,
    text: Vec<u8>,
}

impl io::Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        // As Nix begins them.
        let prefix = match self.importance {
            Importance::Error => "error: ",
            Importance::Warning => "warning: ",
            _ => "",
        };
        for line in String::from_utf8_lossy(&self.text).lines() {
            self.console.say(self.importance, &format!("{prefix}{line}"));
        }
    }
}
