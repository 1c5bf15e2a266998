use std::{ffi::OsString, fmt, io, path::PathBuf};

use thiserror::Error;

use crate::{
    escape::{Escaped, shown},
    name::{NameError, TargetError},
    path::NarPath,
};

/// Everything that can go wrong in this crate.
///
/// The text is one clause without its cause; print the [source](std::error::Error::source) chain
/// after it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The archive is not in canonical form.
    #[error("malformed archive at byte {offset}, in '{path}': {kind}")]
    Malformed {
        /// Where: the first byte of the offending token, of the padding byte, or the end of the input.
        offset: u64,
        /// The node (or, between two entries, the directory) that was being decoded.
        path: NarPath,
        /// What is wrong.
        kind: Malformation,
    },
    /// The reader under the decoder failed.
    #[error("cannot read the archive at byte {offset}, in '{path}'")]
    ReadArchive {
        /// How many bytes of the archive had arrived.
        offset: u64,
        /// The node that was being decoded.
        path: NarPath,
        /// What the reader said.
        source: io::Error,
    },
    /// The writer under the encoder failed.
    #[error("cannot write the archive at byte {offset}")]
    WriteArchive {
        /// How many bytes the writer had taken.
        offset: u64,
        /// What the writer said.
        source: io::Error,
    },
    /// The encoder was asked for something that no canonical archive contains.
    #[error("cannot encode '{path}': {kind}")]
    NotCanonical {
        /// The node that was being encoded.
        path: NarPath,
        /// What was asked.
        kind: NotCanonical,
    },
    /// A system call failed.
    #[error("cannot {operation} '{}'", shown(path))]
    FileSystem {
        /// What was tried.
        operation: Operation,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An extended attribute that could not be removed. If it does no harm, name it in
    /// [`UnpackOptions::ignored_acls`](crate::UnpackOptions).
    #[error("cannot remove the extended attribute '{}' of '{}'", Escaped(attribute.as_bytes()), shown(path))]
    Attribute {
        /// Name of the attribute.
        attribute: String,
        /// The object that has it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something that is neither a regular file, nor a directory, nor a symlink.
    #[error("'{}' is {file_type}, which an archive cannot hold", shown(path))]
    Unsupported {
        /// Where it lies.
        path: PathBuf,
        /// What it is, with an article.
        file_type: &'static str,
    },
    /// A file grew or shrank while it was packed.
    #[error(
        "'{}' changed its size while it was read: expected {expected} bytes, found {}{found}",
        shown(path), if found > expected { "at least " } else { "" }
    )]
    SizeChanged {
        /// The file.
        path: PathBuf,
        /// Its size when it was opened.
        expected: u64,
        /// How many bytes it gave; at least one more than expected if it grew.
        found: u64,
    },
    /// An object on disk lies deeper than [`PackOptions::max_depth`](crate::PackOptions).
    #[error("'{}' is nested deeper than {limit} directories", shown(path))]
    TooDeep {
        /// The object.
        path: PathBuf,
        /// The configured limit.
        limit: usize,
    },
    /// A directory is not where it was when it was entered.
    #[error("directory '{}' was moved while it was in use", shown(path))]
    Moved {
        /// Where it was.
        path: PathBuf,
    },
    /// Two entries of a directory have one name under the [case hack](crate::CaseHack), or one of them
    /// looks like the suffixed name of the other.
    #[error("'{}' collides with '{}' under the case hack", shown(path), Escaped(other.as_encoded_bytes()))]
    CaseHackCollision {
        /// The second one, as it lies or would lie on disk.
        path: PathBuf,
        /// The first one, as it lies on disk in the same directory.
        other: OsString,
    },
    /// Two names that differ in the archive are one name to the file system, which ignores case or
    /// normalises Unicode. For case, [`CaseHack::On`](crate::CaseHack) helps.
    #[error("'{}' and '{}' are the same name to this file system", shown(path), Escaped(other.as_encoded_bytes()))]
    SameName {
        /// The second one, which could not be created.
        path: PathBuf,
        /// The first one, as it lies on disk in the same directory.
        other: OsString,
    },
    /// An [`Unpacker`](crate::Unpacker) was used after it had failed.
    #[error("unpacking has failed before")]
    FailedBefore,
    /// A path that does not end in a name (such as `/` or `..`) where one must be created or removed.
    #[error("'{}' does not end in a file name", shown(path))]
    NoFileName {
        /// The path.
        path: PathBuf,
    },
}

impl Error {
    /// The kind of the system's error, if this is one: `StorageFull`, `AlreadyExists`, `NotFound`, ...
    /// An archive that ends too early is `UnexpectedEof`.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::ReadArchive { source, .. }
            | Self::WriteArchive { source, .. }
            | Self::FileSystem { source, .. }
            | Self::Attribute { source, .. } => Some(source.kind()),
            Self::SameName { .. } => Some(io::ErrorKind::AlreadyExists),
            Self::Malformed { kind: Malformation::UnexpectedEof, .. } => Some(io::ErrorKind::UnexpectedEof),
            _ => None,
        }
    }

    /// Whether this process, or the system, has no descriptor left to open a file with: nothing is wrong with the object.
    pub fn is_out_of_descriptors(&self) -> bool {
        match self {
            Self::FileSystem { source, .. } => matches!(
                rustix::io::Errno::from_io_error(source),
                Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE)
            ),
            _ => false,
        }
    }

    /// What is wrong with the archive, if that is the problem.
    pub fn malformation(&self) -> Option<&Malformation> {
        match self {
            Self::Malformed { kind, .. } => Some(kind),
            _ => None,
        }
    }
}

/// For callers that read contents through [`std::io::Read`]; the typed error is the inner one.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = error.io_kind().unwrap_or(match error {
            Error::Malformed { .. } => io::ErrorKind::InvalidData,
            Error::NotCanonical { .. } => io::ErrorKind::InvalidInput,
            _ => io::ErrorKind::Other,
        });
        Self::new(kind, error)
    }
}

/// A way in which bytes are not an archive in canonical form.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum Malformation {
    /// The input ended inside the archive.
    #[error("unexpected end of input")]
    UnexpectedEof,
    /// The input does not start with `nix-archive-1`.
    #[error("not a Nix archive")]
    BadMagic,
    /// Another keyword than the grammar allows here. Missing, repeated and misplaced fields are this.
    #[error("expected {expected}, found '{}'", Escaped(found))]
    UnexpectedTag {
        /// What may stand here.
        expected: &'static str,
        /// What does.
        found: Vec<u8>,
    },
    /// A keyword of more than 16 bytes; there is none.
    #[error("expected {expected}, found a string of {length} bytes")]
    TagTooLong {
        /// What may stand here.
        expected: &'static str,
        /// The length that the string claims.
        length: u64,
    },
    /// A padding byte is not zero.
    #[error("padding that is not zero")]
    NonZeroPadding,
    /// The value of `executable` is not empty.
    #[error("the executable mark has a value")]
    ExecutableValue,
    /// An entry name that is not one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// An entry that may not come after its predecessor.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// A symlink target that is not one.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A node lies deeper than [`DecodeOptions::max_depth`](crate::DecodeOptions::max_depth).
    #[error("nested deeper than {limit} directories")]
    TooDeep {
        /// The configured limit.
        limit: usize,
    },
    /// The archive ends before [`DecodeOptions::nar_size`](crate::DecodeOptions::nar_size).
    #[error("the archive is shorter than its announced size of {announced} bytes")]
    ShorterThanAnnounced {
        /// What was announced.
        announced: u64,
    },
    /// The archive goes on beyond [`DecodeOptions::nar_size`](crate::DecodeOptions::nar_size).
    #[error("the archive is longer than its announced size of {announced} bytes")]
    LongerThanAnnounced {
        /// What was announced.
        announced: u64,
    },
}

/// Entries of a directory that do not ascend by the bytes of their names.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum OrderError {
    /// An entry that sorts before its predecessor.
    #[error("entry '{}' after '{}' is out of order", Escaped(name), Escaped(previous))]
    OutOfOrder {
        /// The predecessor.
        previous: Vec<u8>,
        /// The entry.
        name: Vec<u8>,
    },
    /// Two entries of one name.
    #[error("entry '{}' appears twice", Escaped(name))]
    Duplicate {
        /// The name.
        name: Vec<u8>,
    },
}

/// What a caller asked of the encoder that no canonical archive contains.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum NotCanonical {
    /// An entry name that is not one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// An entry that may not come after its predecessor.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// A symlink target that is not one.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// More contents than announced.
    #[error("more than the announced {announced} bytes of contents")]
    TooMuchContents {
        /// The announced size of the file.
        announced: u64,
    },
    /// Less contents than announced.
    #[error("{missing} of the announced {announced} bytes of contents are missing")]
    MissingContents {
        /// The announced size of the file.
        announced: u64,
        /// How many did not come.
        missing: u64,
    },
    /// A call where the grammar has no place for it.
    #[error("{call} where {expected} must come")]
    OutOfPlace {
        /// What was called.
        call: &'static str,
        /// What would have been right.
        expected: &'static str,
    },
}

/// What was tried on the file system when it failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Operation {
    /// Open an existing file or directory.
    Open,
    /// Read a file.
    Read,
    /// List a directory.
    ReadDirectory,
    /// Read a symlink.
    ReadLink,
    /// Read the metadata.
    Examine,
    /// Create a regular file.
    CreateFile,
    /// Create a directory.
    CreateDirectory,
    /// Create a symlink.
    CreateSymlink,
    /// Write a file.
    Write,
    /// Change the mode.
    SetMode,
    /// Change the modification time.
    SetTime,
    /// List extended attributes.
    ListAttributes,
    /// Remove a file or directory.
    Remove,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Read => "read",
            Self::ReadDirectory => "list directory",
            Self::ReadLink => "read symlink",
            Self::Examine => "examine",
            Self::CreateFile => "create file",
            Self::CreateDirectory => "create directory",
            Self::CreateSymlink => "create symlink",
            Self::Write => "write",
            Self::SetMode => "set the mode of",
            Self::SetTime => "set the modification time of",
            Self::ListAttributes => "list the extended attributes of",
            Self::Remove => "remove",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn texts_name_the_place_and_leave_the_cause_to_the_source() {
        let error = Error::FileSystem {
            operation: Operation::CreateFile,
            path: "/x/a\nb".into(),
            source: io::Error::from(io::ErrorKind::StorageFull),
        };
        assert_eq!(error.to_string(), "cannot create file '/x/a\\nb'");
        assert_eq!(error.io_kind(), Some(io::ErrorKind::StorageFull));
        assert!(error.source().is_some());

        let error = Error::Malformed {
            offset: 96,
            path: NarPath::new(b"bin/\xff").unwrap(),
            kind: NameError::Slash.into(),
        };
        assert_eq!(
            error.to_string(),
            "malformed archive at byte 96, in 'bin/\\xff': an entry name contains a slash"
        );

        let long: PathBuf = vec!["x".repeat(255); 4096].iter().collect();
        assert!(Error::TooDeep { path: long, limit: 1 }.to_string().len() < 1100);

        let grown = Error::SizeChanged { path: "f".into(), expected: 1, found: 2 };
        assert_eq!(
            grown.to_string(),
            "'f' changed its size while it was read: expected 1 bytes, found at least 2"
        );
    }
}
