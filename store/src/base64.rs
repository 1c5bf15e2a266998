//! Base 64 as Nix reads and writes it.

use std::sync::LazyLock;

use data_encoding::{BASE64, Encoding, Specification};

/// As Nix's decoder: newlines are passed over, nothing is said about bits that are left over.
static LENIENT: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
    specification.check_trailing_bits = false;
    specification.ignore.push('\n');
    specification.encoding().unwrap_or(data_encoding::BASE64_NOPAD)
});

/// Padded base 64.
pub(crate) fn encode(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// Reads base 64 with or without padding, at which it ends, as in Nix.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = text.split('=').next()?;
    LENIENT.decode(digits.as_bytes()).ok()
}
