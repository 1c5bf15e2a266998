//! Standard output, which whoever reads it may close at any time.

use std::io::{self, Write as _};

use ncc_progress::Patient;

/// Prints a whole text. A reader that has gone away is none of our business: `nix-copy-closure ... | head`.
pub(crate) fn print(text: &str) -> io::Result<()> {
    match Patient::new(io::stdout()).write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
