//! What the tests of several crates share.

#![allow(clippy::missing_panics_doc, clippy::panic, reason = "panicking is how a test says no")]

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

/// The environment variable that, set to `1`, forbids leaving tests out.
pub const REQUIRE_REAL: &str = "NCC_REQUIRE_REAL";

/// Whether tests must not be left out: the variable is `1`.
pub fn required() -> bool {
    std::env::var_os(REQUIRE_REAL).is_some_and(|value| value == "1")
}

/// Says on stderr that the current test, or a part of it, is left out, also under a harness that captures output; panics where
/// that is [forbidden](required).
pub fn leave_out(reason: &str) {
    assert!(!required(), "{reason}, and {REQUIRE_REAL} forbids to leave this test out");
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    // Not eprintln, which the harness would swallow.
    let _ = writeln!(std::io::stderr(), "LEFT OUT: {name}: {reason}");
}

/// Those of these shells that are installed, each with the words that start it; a missing one is [left out](leave_out).
fn installed(shells: &[&'static str]) -> Vec<&'static str> {
    let runs = |shell: &str| {
        let mut words = shell.split(' ');
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).args(["-c", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let (there, missing): (Vec<_>, Vec<_>) = shells.iter().copied().partition(|shell| runs(shell));
    if !missing.is_empty() {
        leave_out(&format!("not installed: {}", missing.join(", ")));
    }
    there
}

/// What a user may have as login shell.
pub fn login_shells() -> Vec<&'static str> {
    installed(&["sh", "dash", "bash", "zsh", "ksh", "mksh", "fish", "tcsh", "busybox sh"])
}

/// What a system may have as `sh`.
pub fn posix_shells() -> Vec<&'static str> {
    installed(&["sh", "dash", "bash --posix", "zsh --emulate sh", "ksh", "mksh", "busybox sh"])
}
