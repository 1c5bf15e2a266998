//! What a peer can get wrong, and what can happen to the stream under it.

use std::io;

use ncc_store::{ContentAddressError, HashError, StorePathError};

/// Why a conversation with a peer cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The stream itself failed.
    #[error("the stream failed while reading {what}")]
    Io {
        /// What was being read.
        what: &'static str,
        /// The failure.
        #[source]
        source: io::Error,
    },
    /// The stream ended in the middle of something.
    #[error("the stream ended while reading {what}")]
    UnexpectedEnd {
        /// What was being read.
        what: &'static str,
    },
    /// A length or count over what this place can have.
    #[error("{what} announces {announced}, the limit is {limit}")]
    TooLarge {
        /// What was being read.
        what: &'static str,
        /// The length or count that the peer announced.
        announced: u64,
        /// The limit.
        limit: u64,
    },
    /// The bytes behind a string are not zero.
    #[error("{what} is followed by padding that is not zero")]
    Padding {
        /// What was being read.
        what: &'static str,
    },
    /// A text that must be UTF-8 is not.
    #[error("{what} is not UTF-8")]
    NotText {
        /// What was being read.
        what: &'static str,
    },
    /// Not a store path.
    #[error("{what} is no store path")]
    Path {
        /// What was being read.
        what: &'static str,
        /// Why.
        #[source]
        source: StorePathError,
    },
    /// Not a hash.
    #[error("{what} is no hash")]
    Hash {
        /// What was being read.
        what: &'static str,
        /// Why.
        #[source]
        source: HashError,
    },
    /// Not a content address.
    #[error("{what} is no content address")]
    ContentAddress {
        /// What was being read.
        what: &'static str,
        /// Why.
        #[source]
        source: ContentAddressError,
    },
    /// The greeting did not come; something else did, or nothing.
    #[error("{}", no_greeting(noise))]
    NoGreeting {
        /// The text that came instead, in a form that is safe to show.
        noise: String,
    },
    /// A version that cannot be spoken with.
    #[error("it speaks version {major}.{minor} of the serve protocol, 2.5 or a later 2.x is needed")]
    UnsupportedVersion {
        /// Its major version.
        major: u64,
        /// Its minor version.
        minor: u64,
    },
    /// A value that must not stand in this place.
    #[error("{what} is {found}, expected {expected}")]
    Unexpected {
        /// What was being read.
        what: &'static str,
        /// What may stand there.
        expected: &'static str,
        /// What stood there.
        found: u64,
    },
}

fn no_greeting(noise: &str) -> String {
    if noise.is_empty() {
        "it ended without the greeting of the serve protocol".to_owned()
    } else {
        format!("the greeting of the serve protocol did not come, instead: {noise}")
    }
}
