use std::{
    fmt::{self, Write as _},
    path::Path,
};

/// Shows bytes on one line: printable UTF-8 as it is, everything else as an escape.
pub(crate) struct Escaped<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    // `escape_debug` would also escape these two, which are harmless outside quotes.
                    '\'' | '"' => f.write_char(character)?,
                    _ => write!(f, "{}", character.escape_debug())?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// The same with no more than the last 1,024 bytes: a hostile archive can make a path megabytes long,
/// and messages are for people.
pub(crate) struct EscapedEnd<'a>(pub(crate) &'a [u8]);

impl fmt::Display for EscapedEnd<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 1024;
        match self.0.len().checked_sub(SHOWN).filter(|left_out| *left_out > 0) {
            Some(left_out) => write!(f, "...{}", Escaped(self.0.get(left_out..).unwrap_or_default())),
            None => Escaped(self.0).fmt(f),
        }
    }
}

/// A path on disk.
pub(crate) fn shown(path: &Path) -> EscapedEnd<'_> {
    EscapedEnd(path.as_os_str().as_encoded_bytes())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::plain(b"bin/it's", "bin/it's")]
    #[case::utf8("grüße".as_bytes(), "grüße")]
    #[case::newline(b"a\nb", "a\\nb")]
    #[case::terminal_escape(b"\x1b[31m", "\\u{1b}[31m")]
    #[case::not_utf8(b"a\xffb", "a\\xffb")]
    #[case::backslash(b"a\\b", "a\\\\b")]
    fn shows(#[case] bytes: &[u8], #[case] expected: &str) {
        assert_eq!(Escaped(bytes).to_string(), expected);
    }
}
