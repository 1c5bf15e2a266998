//! What this program asks of its environment.

use std::{env, fs::File, io};

use rustix::io::Errno;

/// A variable, if it says anything.
pub(crate) fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether a program is there to be run on this machine.
pub(crate) fn is_on_path(program: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|directory| directory.join(program).is_file()))
}

/// Files that a copy opens at once beside those that are open from the start: a store and a deep tree in it, pipes to a
/// process, what the runtime needs. Whoever has fewer would fail anywhere, or nowhere on a good day.
const DESCRIPTORS: usize = 40;

/// # Errors
/// What to say where this process may not open as many files as it needs.
pub(crate) fn check_descriptors() -> Result<(), String> {
    let opened: io::Result<Vec<File>> = (0..DESCRIPTORS).map(|_| File::open("/dev/null")).collect();
    let errno = opened.as_ref().err().and_then(Errno::from_io_error);
    if !matches!(errno, Some(Errno::MFILE | Errno::NFILE)) {
        return Ok(());
    }
    Err(format!(
        "too few files may be open at once: it takes {DESCRIPTORS} beside those that are open already; 'ulimit -n' sets how many"
    ))
}
