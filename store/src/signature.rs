//! Signatures in their text form, `name:base64`.

use std::{fmt, str::FromStr};

use crate::{Escaped, base64};

/// Why a text is not a signature or a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// No `name:` in front of the base 64.
    #[error("{what} has no key name before a colon")]
    MissingName {
        /// "signature", "public key" or "secret key".
        what: &'static str,
    },
    /// The name of the key has a character outside of `!` to `~`, or a colon.
    #[error("{what} has the key name '{}', which can only have visible ASCII characters", Escaped::new(name))]
    BadName {
        /// "signature", "public key" or "secret key".
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Not base 64, or not as many bytes as it must have.
    #[error("{what} '{}' is not {expected} bytes in base 64", Escaped::new(name))]
    BadBytes {
        /// "signature", "public key" or "secret key".
        what: &'static str,
        /// The key's name (never the key itself).
        name: String,
        /// Bytes it must have.
        expected: usize,
    },
    /// The bytes are not a point of the curve, or the two halves of a secret key do not belong together.
    #[error("{what} '{}' is not an Ed25519 key", Escaped::new(name))]
    BadKey {
        /// "public key" or "secret key".
        what: &'static str,
        /// The key's name.
        name: String,
    },
}

/// Checks the name of a key.
///
/// Nix checks nothing, but writes the signatures of a path into one column of its database with blanks between, and into
/// one line each of other formats. From 2.34 on it refuses the whole path, and with it every garbage collection, if what it
/// reads there is not a signature. So a name can only have characters that separate nothing.
pub(crate) fn check_key_name(what: &'static str, name: &str) -> Result<(), SignatureError> {
    if name.is_empty() {
        Err(SignatureError::MissingName { what })
    } else if name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':') {
        Ok(())
    } else {
        Err(SignatureError::BadName { what, name: name.to_owned() })
    }
}

/// Takes `name:base64` apart.
pub(crate) fn split<'a, const N: usize>(
    what: &'static str,
    text: &'a str,
) -> Result<(&'a str, [u8; N]), SignatureError> {
    let (name, encoded) = text.split_once(':').ok_or(SignatureError::MissingName { what })?;
    check_key_name(what, name)?;
    base64::decode(encoded)
        .and_then(|bytes| bytes.try_into().ok())
        .map(|bytes| (name, bytes))
        .ok_or_else(|| SignatureError::BadBytes { what, name: name.to_owned(), expected: N })
}

/// A detached Ed25519 signature, `name:base64`.
///
/// Read as leniently as Nix does (base 64 without padding), and always written in the one canonical form, which has no
/// blank: so the signatures of a path can be joined by blanks, as in the database, and taken apart again.
///
/// ```
/// use ncc_store::Signature;
///
/// let base64 = "A".repeat(86);
/// let signature: Signature = format!("cache.example.org-1:{base64}").parse()?;
/// assert_eq!(signature.key_name(), "cache.example.org-1");
/// assert_eq!(signature.to_string(), format!("cache.example.org-1:{base64}=="));
/// assert!(format!("two words:{base64}").parse::<Signature>().is_err());
/// # Ok::<(), ncc_store::SignatureError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature {
    key_name: Box<str>,
    bytes: [u8; 64],
}

impl Signature {
    /// Puts a signature together.
    ///
    /// # Errors
    /// [`SignatureError::MissingName`], [`SignatureError::BadName`].
    pub fn new(key_name: &str, bytes: [u8; 64]) -> Result<Self, SignatureError> {
        check_key_name("signature", key_name)?;
        Ok(Self { key_name: key_name.into(), bytes })
    }

    /// With the name of a key, which has been checked.
    #[cfg(feature = "signing")]
    pub(crate) const fn unchecked(key_name: Box<str>, bytes: [u8; 64]) -> Self {
        Self { key_name, bytes }
    }

    /// The name of the key that made it: one or more characters from `!` to `~`, no colon.
    pub fn key_name(&self) -> &str {
        &self.key_name
    }

    /// The signature proper.
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.bytes
    }
}

impl FromStr for Signature {
    type Err = SignatureError;

    fn from_str(text: &str) -> Result<Self, SignatureError> {
        let (name, bytes) = split("signature", text)?;
        Ok(Self { key_name: name.into(), bytes })
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.key_name, base64::encode(&self.bytes))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Signature({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::empty("")]
    #[case::no_colon("nocolon")]
    #[case::no_name(":AAAA")]
    #[case::short("name:AAAA")]
    #[case::not_base64("name:!")]
    fn other_texts_are_refused(#[case] text: &str) {
        assert!(text.parse::<Signature>().is_err(), "{text}");
    }

    // One such signature in the database of Nix 2.34 ends every garbage collection of that machine.
    #[rstest]
    #[case::blank("a b")]
    #[case::leading_blank(" a")]
    #[case::newline("a\nSig")]
    #[case::tab("a\tb")]
    #[case::escape("\x1b[2Jgone")]
    #[case::delete("a\x7f")]
    #[case::nul("a\0b")]
    #[case::not_ascii("schl\u{fc}ssel")]
    #[case::other_blank("a\u{a0}b")]
    fn a_key_name_that_could_be_read_as_something_else_is_refused(#[case] name: &str) {
        let text = format!("{name}:{}", "A".repeat(86));
        let error = text.parse::<Signature>().unwrap_err();
        assert!(matches!(error, SignatureError::BadName { .. }), "{error}");
        assert!(!error.to_string().contains(char::is_control), "{error}");
        assert!(Signature::new(name, [0; 64]).is_err());
    }

    #[rstest]
    #[case::padded("==")]
    #[case::unpadded("")]
    #[case::half_padded("=")]
    #[case::newline("\n")]
    #[case::junk_behind_the_end("=x")]
    fn base_64_is_read_as_nix_reads_it(#[case] end: &str) {
        let signature: Signature = format!("k:{}{end}", "A".repeat(86)).parse().unwrap();
        assert_eq!(signature, Signature::new("k", [0; 64]).unwrap());
        // Bits that belong to no byte.
        let digits = "A".repeat(85);
        assert_eq!(format!("k:{digits}P{end}").parse::<Signature>().unwrap(), signature);
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_written_as_one_word_that_reads_the_same(
            name in "\\PC{0,20}|[!-~]{1,20}|[ -~\n\t]{1,9}",
            bytes: Vec<u8>,
            padding in "=?=?",
        ) {
            let bytes = bytes.iter().copied().cycle().chain([0; 64]).take(64).collect::<Vec<_>>();
            let encoded = base64::encode(&bytes);
            let text = format!("{name}:{}{padding}", encoded.trim_end_matches('='));
            if let Ok(signature) = text.parse::<Signature>() {
                let written = signature.to_string();
                prop_assert_eq!(written.split([' ', '\t', '\n', '\r']).count(), 1);
                prop_assert_eq!(written.parse::<Signature>().unwrap(), signature);
            } else {
                prop_assert!(check_key_name("signature", &name).is_err() || name.contains(':'));
            }
        }
    }
}
