//! Why a file is no derivation, or has outputs that it cannot have.

use crate::{Cause, ContentAddressError, Escaped, HashError, StorePath, StorePathError};

/// Why a file is no derivation. Offsets are bytes from its beginning.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DerivationError {
    /// Something else stands there, or nothing.
    #[error("expected {expected} at byte {offset}")]
    Expected {
        /// Where.
        offset: usize,
        /// What should stand there.
        expected: &'static str,
    },
    /// A version of the format that is not known.
    #[error("format '{}' at byte {offset} is not known", Escaped::new(version))]
    Version {
        /// Where.
        offset: usize,
        /// The version, shortened if it is long.
        version: String,
    },
    /// A name or a path is not UTF-8.
    #[error("the text at byte {offset} is not UTF-8")]
    NotUtf8 {
        /// Where.
        offset: usize,
    },
    /// A text is no store path.
    #[error("the text at byte {offset} is no store path")]
    Path {
        /// Where.
        offset: usize,
        /// Why.
        #[source]
        source: StorePathError,
    },
    /// The hash or the algorithm of an output cannot be read.
    #[error("the output at byte {offset} has a bad hash")]
    Hash {
        /// Where.
        offset: usize,
        /// Why.
        #[source]
        source: HashError,
    },
    /// Path, algorithm and hash of an output do not go together.
    #[error("the output at byte {offset} has {problem}")]
    Output {
        /// Where.
        offset: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Dynamic derivations are nested deeper than anyone nests them.
    #[error("wanted outputs at byte {offset} are nested over {limit} deep")]
    TooDeep {
        /// Where.
        offset: usize,
        /// The limit.
        limit: usize,
    },
}

/// Why the outputs of a derivation are not what they must be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputsError {
    /// The path does not end in `.drv`.
    #[error("'{derivation}' is not the path of a derivation")]
    NotADerivation {
        /// The path.
        derivation: StorePath,
    },
    /// Outputs of kinds that cannot stand together, or none at all.
    #[error("derivation '{derivation}' has {problem}")]
    Kinds {
        /// The derivation.
        derivation: StorePath,
        /// What is wrong with them.
        problem: &'static str,
    },
    /// No store path can be named after this output.
    #[error("derivation '{derivation}' has an output '{}' that gives no store path", Escaped::new(output))]
    Name {
        /// The derivation.
        derivation: StorePath,
        /// The output's name.
        output: String,
        /// Why.
        #[source]
        source: ContentAddressError,
    },
    /// The path of an output is not the one that follows.
    #[error("derivation '{derivation}' has incorrect output '{found}', should be '{expected}'")]
    Path {
        /// The derivation.
        derivation: StorePath,
        /// What it says.
        found: StorePath,
        /// What follows from it.
        expected: StorePath,
    },
    /// The environment does not carry the path of an output under the output's name.
    #[error(
        "derivation '{derivation}' has incorrect environment variable '{}', should be '{expected}'",
        Escaped::new(output)
    )]
    Environment {
        /// The derivation.
        derivation: StorePath,
        /// The output's name.
        output: String,
        /// The path of the output.
        expected: StorePath,
    },
    /// An input derivation could not be read.
    #[error("input derivation '{input}' could not be read")]
    Input {
        /// The input.
        input: StorePath,
        /// Why.
        #[source]
        source: Cause,
    },
    /// An input derivation lacks an output that is wanted of it.
    #[error(
        "derivation '{derivation}' wants output '{}' of '{input}', which has none of this name",
        Escaped::new(output)
    )]
    MissingOutput {
        /// The derivation.
        derivation: StorePath,
        /// The input.
        input: StorePath,
        /// The output's name.
        output: String,
    },
    /// A derivation is its own input, directly or through others.
    #[error("derivation '{derivation}' is among its own inputs")]
    Cycle {
        /// The derivation.
        derivation: StorePath,
    },
}
