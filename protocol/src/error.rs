//! What a peer can get wrong, and what can happen to the stream under it.

use std::io;

use ncc_store::{ContentAddressError, Escaped, HashError, StorePathError};

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
    /// A message that would take more memory than any honest one.
    #[error("{what} would make a message larger than the {limit} bytes that it may take")]
    MessageTooLarge {
        /// What was being read.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The bytes behind a string are not zero.
    #[error("{what} is followed by padding that is not zero")]
    Padding {
        /// What was being read.
        what: &'static str,
    },
    /// The stream failed under a request.
    #[error("the stream failed while writing")]
    Write(#[source] io::Error),
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
    #[error("{}", no_greeting(protocol, noise))]
    NoGreeting {
        /// The protocol whose greeting was expected.
        protocol: &'static str,
        /// The text that came instead, in a form that is safe to show.
        noise: String,
    },
    /// A version that cannot be spoken with.
    #[error("it speaks version {major}.{minor} of the {protocol} protocol, {needed} is needed")]
    UnsupportedVersion {
        /// The protocol.
        protocol: &'static str,
        /// What can be spoken with.
        needed: &'static str,
        /// Its major version.
        major: u64,
        /// Its minor version.
        minor: u64,
    },
    /// An answer about a path that was not in the question.
    #[error("the answer is about '{}', which nobody had asked for", Escaped::new(path))]
    Unasked {
        /// The full path; or what the peer put in the place of one, as it came.
        path: String,
    },
    /// Two answers about one path.
    #[error("the answer describes '{}' twice", Escaped::new(path))]
    Twice {
        /// The full path.
        path: String,
    },
    /// An archive that is not one.
    #[error("{what} is malformed")]
    Nar {
        /// What was being read.
        what: &'static str,
        /// Why, and where.
        #[source]
        source: ncc_nar::Error,
    },
    /// A request that this daemon does not know; nothing was written.
    #[error("the daemon does not know {operation}, which takes {needs}")]
    NotSpoken {
        /// The operation.
        operation: &'static str,
        /// The version or the feature that knows it.
        needs: &'static str,
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

/// How much of a peer's unexpected text is worth showing.
const SHOWN: usize = 2000;

/// Foreign text in a form that does nothing to a terminal, in quotation marks if there is any.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let text = bytes.trim_ascii();
    if text.is_empty() { String::new() } else { format!("\"{}\"", Escaped::new(text).up_to(SHOWN)) }
}

fn no_greeting(protocol: &str, noise: &str) -> String {
    if noise.is_empty() {
        format!("it ended without the greeting of the {protocol} protocol")
    } else {
        format!("the greeting of the {protocol} protocol did not come, instead: {noise}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by fuzzing the answers of daemons.
    #[test]
    fn a_message_holds_no_control_characters_whatever_it_is_about() {
        let path = "\0\u{1b}[31m".to_owned();
        for error in [ProtocolError::Unasked { path: path.clone() }, ProtocolError::Twice { path }] {
            let text = error.to_string();
            assert!(!text.contains(char::is_control), "{text:?}");
        }
    }
}
