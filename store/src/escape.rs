//! Text of unknown origin, for people to read.

use std::fmt::{self, Write as _};

/// How much of one text is worth showing, in bytes. The base name of a store path has at most 244.
const SHOWN: usize = 400;

/// Shows text from a peer, a file or the command line so that it does nothing to a terminal: printable UTF-8 as it is,
/// everything else (control characters, marks that reorder text, bytes that are no UTF-8) as an escape. Of a long
/// text only the first 400 bytes are shown, then `...`.
///
/// Every error of this crate shows foreign text in this way.
///
/// ```
/// use ncc_store::Escaped;
///
/// assert_eq!(Escaped::new("it's plain").to_string(), "it's plain");
/// assert_eq!(Escaped::new(b"\x1b[31mred\xff").to_string(), r"\u{1b}[31mred\xff");
/// ```
#[derive(Clone, Copy)]
pub struct Escaped<'a> {
    text: &'a [u8],
    limit: usize,
}

impl<'a> Escaped<'a> {
    /// Wraps text or bytes.
    pub fn new<T: AsRef<[u8]> + ?Sized>(text: &'a T) -> Self {
        Self { text: text.as_ref(), limit: SHOWN }
    }

    /// Shows up to `bytes` bytes of it, not 400.
    #[must_use]
    pub const fn up_to(self, bytes: usize) -> Self {
        Self { limit: bytes, ..self }
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not in the middle of a character.
        let is_inside = |&end: &usize| self.text.get(end).is_some_and(|byte| byte & 0xc0 == 0x80);
        let end = (0..=self.limit.min(self.text.len())).rev().find(|end| !is_inside(end)).unwrap_or(0);
        let (shown, rest) = self.text.split_at(end);
        for chunk in shown.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    // `escape_debug` would also escape these two, which are harmless outside of quotes.
                    '\'' | '"' => formatter.write_char(character)?,
                    _ => write!(formatter, "{}", character.escape_debug())?,
                }
            }
            for byte in chunk.invalid() {
                write!(formatter, "\\x{byte:02x}")?;
            }
        }
        formatter.write_str(if rest.is_empty() { "" } else { "..." })
    }
}

impl fmt::Debug for Escaped<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "'{self}'")
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::plain(b"bin/it's", "bin/it's")]
    #[case::utf8("gr\u{fc}\u{df}e".as_bytes(), "gr\u{fc}\u{df}e")]
    #[case::newline(b"a\nb", "a\\nb")]
    #[case::terminal_escape(b"\x1b[31m", "\\u{1b}[31m")]
    #[case::direction("\u{202e}x\u{2066}".as_bytes(), "\\u{202e}x\\u{2066}")]
    #[case::invisible("\u{200b}\u{feff}".as_bytes(), "\\u{200b}\\u{feff}")]
    #[case::not_utf8(b"a\xffb", "a\\xffb")]
    #[case::backslash(b"a\\b", "a\\\\b")]
    fn shows(#[case] bytes: &[u8], #[case] expected: &str) {
        assert_eq!(Escaped::new(bytes).to_string(), expected);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(Escaped::new(&"x".repeat(400)).to_string(), "x".repeat(400));
        assert_eq!(Escaped::new(&"x".repeat(401)).to_string(), "x".repeat(400) + "...");
        let euros = "\u{20ac}".repeat(400);
        assert_eq!(Escaped::new(&euros).to_string(), "\u{20ac}".repeat(133) + "...");
        assert_eq!(Escaped::new(&euros).up_to(2).to_string(), "...");
    }
}
