//! Standard output, which whoever reads it may close at any time.

use std::io::{self, Write as _};

/// Prints a whole text. A reader that has gone away is none of our business: `nix-copy-closure ... | head`.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
