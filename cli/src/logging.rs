//! Diagnostics of the crates below, on stderr, for `-v`.

use std::io;

use ncc_progress::Importance;
use tracing::{Level, Metadata};
use tracing_subscriber::{filter::LevelFilter, fmt::MakeWriter};

/// Starts diagnostics: nothing but warnings, then info, debug, trace.
pub(crate) fn start(verbosity: u8) {
    let level = match verbosity {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(Lines)
        .without_time()
        .with_target(false)
        .with_level(false)
        .init();
}

/// Gives each diagnostic to whoever has the terminal, so that a progress bar is not torn.
struct Lines;

impl MakeWriter<'_> for Lines {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line { importance: Importance::Info, text: Vec::new() }
    }

    fn make_writer_for(&self, metadata: &Metadata<'_>) -> Line {
        let importance = match *metadata.level() {
            Level::ERROR => Importance::Error,
            Level::WARN => Importance::Warning,
            Level::INFO => Importance::Info,
            _ => Importance::Debug,
        };
        Line { importance, text: Vec::new() }
    }
}

/// Gathers one diagnostic and says it when it is dropped.
struct Line {
    importance: Importance,
    text: Vec<u8>,
}

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // As Nix begins them.
        let prefix = match self.importance {
            Importance::Error => "error: ",
            Importance::Warning => "warning: ",
            _ => "",
        };
        for line in String::from_utf8_lossy(&self.text).lines() {
            ncc_progress::tell(self.importance, &format!("{prefix}{line}"));
        }
    }
}
