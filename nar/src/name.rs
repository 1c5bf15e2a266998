use std::{borrow::Borrow, fmt};

use thiserror::Error;

use crate::escape::Escaped;

/// Longest entry name in bytes: what every file system Nix runs on allows, and what Nix accepts.
pub const MAX_NAME: usize = 255;

/// Longest symlink target in bytes: `PATH_MAX` of Linux without its terminating NUL.
pub const MAX_TARGET: usize = 4095;

/// Why bytes are not the name of a directory entry.
#[derive(Clone, Copy, Debug, Error, Eq, PartialEq)]
#[non_exhaustive]
pub enum NameError {
    /// The name has no bytes.
    #[error("an entry name is empty")]
    Empty,
    /// The name is longer than [`MAX_NAME`] bytes.
    #[error("an entry name of {length} bytes is longer than {MAX_NAME}")]
    TooLong {
        /// Its length in bytes.
        length: u64,
    },
    /// The name is `.` or `..`.
    #[error("an entry is called `.` or `..`")]
    Dots,
    /// The name contains a slash.
    #[error("an entry name contains a slash")]
    Slash,
    /// The name contains a NUL byte.
    #[error("an entry name contains a NUL byte")]
    Nul,
}

/// Why bytes are not the target of a symlink.
#[derive(Clone, Copy, Debug, Error, Eq, PartialEq)]
#[non_exhaustive]
pub enum TargetError {
    /// The target has no bytes.
    #[error("a symlink target is empty")]
    Empty,
    /// The target is longer than [`MAX_TARGET`] bytes.
    #[error("a symlink target of {length} bytes is longer than {MAX_TARGET}")]
    TooLong {
        /// Its length in bytes.
        length: u64,
    },
    /// The target contains a NUL byte, at which every operating system would cut it.
    #[error("a symlink target contains a NUL byte")]
    Nul,
}

pub(crate) fn check_name(bytes: &[u8]) -> Result<(), NameError> {
    match bytes {
        [] => return Err(NameError::Empty),
        b"." | b".." => return Err(NameError::Dots),
        _ if bytes.len() > MAX_NAME => {
            return Err(NameError::TooLong { length: bytes.len() as u64 });
        }
        _ => {}
    }
    for byte in bytes {
        match byte {
            b'/' => return Err(NameError::Slash),
            0 => return Err(NameError::Nul),
            _ => {}
        }
    }
    Ok(())
}

pub(crate) fn check_target(bytes: &[u8]) -> Result<(), TargetError> {
    if bytes.is_empty() {
        Err(TargetError::Empty)
    } else if bytes.len() > MAX_TARGET {
        Err(TargetError::TooLong { length: bytes.len() as u64 })
    } else if bytes.contains(&0) {
        Err(TargetError::Nul)
    } else {
        Ok(())
    }
}

/// The name of a directory entry, borrowed.
///
/// One to 255 bytes, neither `.` nor `..`, without slash and NUL. Any other byte is legal: names are
/// not text, and are shown escaped. Ordered by unsigned bytes, which is the order inside a NAR.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EntryNameRef<'a>(&'a [u8]);

impl<'a> EntryNameRef<'a> {
    /// Checks `bytes`.
    pub fn new(bytes: &'a [u8]) -> Result<Self, NameError> {
        check_name(bytes).map(|()| Self(bytes))
    }

    /// For bytes that were checked when they were stored.
    pub(crate) fn known_valid(bytes: &'a [u8]) -> Self {
        debug_assert!(check_name(bytes).is_ok());
        Self(bytes)
    }

    /// The bytes of the name.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// A copy that owns its bytes.
    pub fn to_owned(self) -> EntryName {
        EntryName(self.0.into())
    }
}

impl AsRef<[u8]> for EntryNameRef<'_> {
    fn as_ref(&self) -> &[u8] {
        self.0
    }
}

impl fmt::Debug for EntryNameRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", Escaped(self.0))
    }
}

impl fmt::Display for EntryNameRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(self.0).fmt(f)
    }
}

/// The name of a directory entry, owned. See [`EntryNameRef`].
///
/// ```
/// use ncc_nar::{EntryName, NameError};
///
/// assert_eq!(EntryName::new(b"bin").unwrap().as_bytes(), b"bin");
/// assert_eq!(EntryName::new(b"a/b"), Err(NameError::Slash));
/// ```
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EntryName(Box<[u8]>);

impl EntryName {
    /// Checks `bytes` and keeps them.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, NameError> {
        let bytes = bytes.into();
        check_name(&bytes).map(|()| Self(bytes.into()))
    }

    /// The bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The borrowed form.
    pub fn as_name_ref(&self) -> EntryNameRef<'_> {
        EntryNameRef(&self.0)
    }
}

impl AsRef<[u8]> for EntryName {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

// Sound because `Ord`, `Eq` and `Hash` of a boxed slice are those of the slice.
impl Borrow<[u8]> for EntryName {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_name_ref().fmt(f)
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(&self.0).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::one_byte(b"a", Ok(()))]
    #[case::three_dots(b"...", Ok(()))]
    #[case::newline(b"a\nb", Ok(()))]
    #[case::not_utf8(b"\xff\xfe", Ok(()))]
    #[case::empty(b"", Err(NameError::Empty))]
    #[case::dot(b".", Err(NameError::Dots))]
    #[case::dot_dot(b"..", Err(NameError::Dots))]
    #[case::slash(b"a/b", Err(NameError::Slash))]
    #[case::nul(b"a\0", Err(NameError::Nul))]
    #[case::longest(&[b'x'; 255], Ok(()))]
    #[case::too_long(&[b'x'; 256], Err(NameError::TooLong { length: 256 }))]
    fn names(#[case] bytes: &[u8], #[case] expected: Result<(), NameError>) {
        assert_eq!(EntryName::new(bytes).map(|_| ()), expected);
        assert_eq!(EntryNameRef::new(bytes).map(|_| ()), expected);
    }

    #[rstest]
    #[case::one_byte(b"a", Ok(()))]
    #[case::anything(b"../..//\n\xff", Ok(()))]
    #[case::empty(b"", Err(TargetError::Empty))]
    #[case::nul(b"a\0b", Err(TargetError::Nul))]
    #[case::longest(&[b'x'; 4095], Ok(()))]
    #[case::too_long(&[b'x'; 4096], Err(TargetError::TooLong { length: 4096 }))]
    fn targets(#[case] bytes: &[u8], #[case] expected: Result<(), TargetError>) {
        assert_eq!(check_target(bytes), expected);
    }
}
