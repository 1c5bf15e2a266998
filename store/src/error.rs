//! What can go wrong in a store, whichever kind it is.

use std::{fmt, sync::Arc};

use crate::{NarHash, StorePath};

/// The cause below a [`StoreError`]: an error of the crate that implements the store.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// How far a failure reaches. This alone decides what a copy does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One path: all that does not refer to it can still be copied.
    Path,
    /// The connection, or whatever else is made anew: every path that was not registered can be tried again over a new one.
    Connection,
    /// The store: nothing more can be done with it.
    Store,
}

/// Which end of a copy a failure arose at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Where paths come from.
    Source,
    /// Where they go.
    Destination,
}

/// Whether trying again is likely to help, without anybody changing anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// Yes: a line broke, a host was busy.
    Worthwhile,
    /// Where the same store was reached before: it cannot be reached, as while a network is down or a host boots. Else its name may
    /// be mistyped, and trying again would only keep that from being said.
    OnceReached,
    /// No: a key was refused, a program is missing.
    Useless,
}

/// Why a store could not do its part: at which side, in which store, and what happened.
#[derive(Debug)]
pub struct StoreError(Box<Parts>);

#[derive(Debug)]
struct Parts {
    side: Side,
    store: Arc<str>,
    problem: Problem,
}

/// What happened, as data.
#[derive(Debug)]
#[non_exhaustive]
pub enum Problem {
    /// A path was asked for that the store does not have.
    NotValid {
        /// The full path.
        path: String,
    },
    /// The content of a path is not what its metadata says.
    HashMismatch {
        /// The path.
        path: StorePath,
        /// What was recorded.
        expected: NarHash,
        /// What came.
        actual: NarHash,
    },
    /// The content of a path is longer or shorter than its metadata says.
    SizeMismatch {
        /// The path.
        path: StorePath,
        /// Bytes recorded.
        expected: u64,
        /// Bytes that came; where there were more than recorded, those seen until then.
        actual: u64,
    },
    /// A path is not content-addressed, and no key that the store trusts has signed it: the store does not take it from this user.
    Unsigned {
        /// The path.
        path: StorePath,
        /// How the store said so, if it was asked to add the path.
        source: Option<Cause>,
    },
    /// The store could not do something with one path. Others are not affected.
    Path {
        /// A verb: "read", "add", "register".
        action: &'static str,
        /// The path.
        path: StorePath,
        /// Why.
        source: Cause,
    },
    /// The connection to the store failed. Whatever was not answered may be tried again over a new one.
    Connection {
        /// What it was to do: "answer", "add paths".
        action: &'static str,
        /// The path that was under way, if one was.
        path: Option<StorePath>,
        /// Whether a new connection is likely to fare better.
        retry: Retry,
        /// Why.
        source: Cause,
    },
    /// The store could not do something, and will not do better with other paths: its disk is full, its database cannot be
    /// read.
    Store {
        /// What it was to do: "compute the closure", "register paths".
        action: &'static str,
        /// The path that was under way, if one was.
        path: Option<StorePath>,
        /// Why.
        source: Cause,
    },
}

impl StoreError {
    /// An error of the store that messages call `store`.
    pub fn new(side: Side, store: impl Into<Arc<str>>, problem: Problem) -> Self {
        Self(Box::new(Parts { side, store: store.into(), problem }))
    }

    /// At which end of the copy it arose.
    pub fn side(&self) -> Side {
        self.0.side
    }

    /// The store's name: for [`Problem::HashMismatch`] and [`Problem::SizeMismatch`] the one that the content came from.
    pub fn store(&self) -> &str {
        &self.0.store
    }

    /// What happened.
    pub fn problem(&self) -> &Problem {
        &self.0.problem
    }

    /// How far it reaches.
    pub fn scope(&self) -> Scope {
        match self.problem() {
            Problem::NotValid { .. }
            | Problem::HashMismatch { .. }
            | Problem::SizeMismatch { .. }
            | Problem::Unsigned { .. }
            | Problem::Path { .. } => Scope::Path,
            Problem::Connection { .. } => Scope::Connection,
            Problem::Store { .. } => Scope::Store,
        }
    }

    /// Whether the same may succeed if it is simply tried again.
    pub fn is_temporary(&self) -> bool {
        matches!(self.problem(), Problem::Connection { retry: Retry::Worthwhile | Retry::OnceReached, .. })
    }

    /// Whether the store could not even be reached, for a reason that may pass.
    pub fn is_unreached(&self) -> bool {
        matches!(self.problem(), Problem::Connection { retry: Retry::OnceReached, .. })
    }

    /// The one path this is about, or that was under way.
    pub fn path(&self) -> Option<&StorePath> {
        match self.problem() {
            Problem::HashMismatch { path, .. }
            | Problem::SizeMismatch { path, .. }
            | Problem::Unsigned { path, .. }
            | Problem::Path { path, .. } => Some(path),
            Problem::Connection { path, .. } | Problem::Store { path, .. } => path.as_ref(),
            Problem::NotValid { .. } => None,
        }
    }

    /// Whether the path lacks a signature, and nothing else is wrong.
    pub fn is_unsigned(&self) -> bool {
        matches!(self.problem(), Problem::Unsigned { .. })
    }

    /// Whether the content itself is wrong: it differs from what its store recorded.
    pub fn is_damage(&self) -> bool {
        matches!(self.problem(), Problem::HashMismatch { .. } | Problem::SizeMismatch { .. })
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let store = self.store();
        match self.problem() {
            Problem::NotValid { path } => write!(formatter, "path '{path}' is not valid in {store}"),
            Problem::HashMismatch { path, expected, actual } => write!(
                formatter,
                "content of '{path}' in {store} does not match its metadata: \
                 NAR hash is {actual}, recorded is {expected}"
            ),
            Problem::SizeMismatch { path, expected, actual } => write!(
                formatter,
                "content of '{path}' in {store} does not match its metadata: \
                 NAR has {actual} bytes, recorded are {expected}"
            ),
            Problem::Unsigned { path, .. } => {
                write!(formatter, "'{path}' lacks a signature that {store} trusts")
            }
            Problem::Path { action, path, .. }
            | Problem::Connection { action, path: Some(path), .. }
            | Problem::Store { action, path: Some(path), .. } => {
                write!(formatter, "{store} could not {action} '{path}'")
            }
            Problem::Connection { action, path: None, .. } | Problem::Store { action, path: None, .. } => {
                write!(formatter, "{store} could not {action}")
            }
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self.problem() {
            Problem::Path { source, .. }
            | Problem::Connection { source, .. }
            | Problem::Store { source, .. } => Some(&**source),
            Problem::Unsigned { source, .. } => source.as_deref().map(|source| source as _),
            Problem::NotValid { .. } | Problem::HashMismatch { .. } | Problem::SizeMismatch { .. } => None,
        }
    }
}
