//! What can go wrong in a store, whichever kind it is.

use crate::{NarHash, StorePath};

/// The cause below a [`StoreError::Failed`]: an error of the crate that implements the store.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a store could not do its part. Every variant says which store, and which path where it is about one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A path was asked for that the store does not have.
    #[error("path '{path}' is not valid in {store}")]
    NotValid {
        /// The store's name.
        store: String,
        /// The full path.
        path: String,
    },
    /// The content is not what the metadata says.
    #[error(
        "content of '{path}' in {store} does not match its metadata: NAR hash is {actual}, recorded is {expected}"
    )]
    HashMismatch {
        /// The store the content came from.
        store: String,
        /// The path.
        path: StorePath,
        /// What was recorded.
        expected: NarHash,
        /// What came.
        actual: NarHash,
    },
    /// The content is longer or shorter than the metadata says.
    #[error(
        "content of '{path}' in {store} does not match its metadata: NAR has {actual} bytes, recorded are {expected}"
    )]
    SizeMismatch {
        /// The store the content came from.
        store: String,
        /// The path.
        path: StorePath,
        /// Bytes recorded.
        expected: u64,
        /// Bytes that came; where there were more than recorded, those seen until then.
        actual: u64,
    },
    /// The store could not do something with one path.
    #[error("{store} could not {action} '{path}'")]
    Path {
        /// The store's name.
        store: String,
        /// A verb: "read", "add", "register".
        action: &'static str,
        /// The path.
        path: StorePath,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The store could not do something that is not about one path.
    #[error("{store} could not {action}")]
    Failed {
        /// The store's name.
        store: String,
        /// What it was to do: "compute the closure", "answer".
        action: &'static str,
        /// Why.
        #[source]
        source: Cause,
    },
}

impl StoreError {
    /// The one path this is about, if it is about one.
    pub fn path(&self) -> Option<&StorePath> {
        match self {
            Self::HashMismatch { path, .. } | Self::SizeMismatch { path, .. } | Self::Path { path, .. } => {
                Some(path)
            }
            Self::NotValid { .. } | Self::Failed { .. } => None,
        }
    }
}
