//! Diagnostics of the crates below, on stderr, for `-v`.

use tracing_subscriber::{filter::LevelFilter, fmt};

/// Starts diagnostics: nothing but warnings, then info, debug, trace.
pub(crate) fn start(verbosity: u8) {
    let level = match verbosity {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    fmt().with_max_level(level).with_writer(std::io::stderr).without_time().with_target(false).init();
}
