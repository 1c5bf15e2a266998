//! Standard output, which whoever reads it may close at any time.

use std::io::{self, Write as _};

use ncc_progress::Patient;

use crate::failure::Failure;

/// Prints a whole text. A reader that has gone away is none of our business: `nix-copy-closure ... | head`.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    match Patient::new(io::stdout()).write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new("standard output cannot be written to", error))
        }
        _ => Ok(()),
    }
}
