//! What can be wrong with configuration and with the names of stores.

use std::{fmt, io, path::PathBuf};

use ncc_store::{SignatureError, StorePathError};

use crate::Origin;

/// Why settings cannot be read, or a text names no store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// A line of a configuration file is neither `NAME = VALUE` nor an `include`.
    #[error("syntax error in {origin}: '{}' is not of the form 'NAME = VALUE'", shown(.line))]
    Syntax {
        /// Where.
        origin: Origin,
        /// The line, without its comment, cut to a readable length.
        line: String,
    },
    /// A line of a configuration file is not UTF-8.
    #[error("syntax error in {origin}: the line is not UTF-8")]
    NotUtf8 {
        /// Where.
        origin: Origin,
    },
    /// A file that is included does not exist.
    #[error("file '{}', included by {origin}, does not exist", shown(.path.display()))]
    MissingInclude {
        /// The file.
        path: PathBuf,
        /// Where it is included.
        origin: Origin,
    },
    /// Files include each other in a circle.
    #[error("file '{}', included by {origin}, includes itself", shown(.path.display()))]
    IncludeCycle {
        /// The file.
        path: PathBuf,
        /// Where it is included.
        origin: Origin,
    },
    /// There is more configuration than anybody writes.
    #[error("file '{}' exceeds the limit of {limit} {what} for configuration", shown(.path.display()))]
    TooMuch {
        /// The file that went too far.
        path: PathBuf,
        /// How much is allowed.
        limit: u64,
        /// Of what: bytes, files, nested files.
        what: &'static str,
    },
    /// A setting has a value that makes no sense.
    #[error("setting '{name}' is '{}' ({origin}), which is not {expected}", shown(.value))]
    Value {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: String,
        /// Where it is set.
        origin: Origin,
        /// What it should be: "a boolean (true or false)".
        expected: &'static str,
    },
    /// A file with a secret key cannot be read.
    #[error("key file '{}' cannot be read: {kind}", shown(.path.display()))]
    UnreadableKey {
        /// The file.
        path: PathBuf,
        /// Why.
        kind: io::ErrorKind,
    },
    /// What should be a file with a secret key is something else.
    #[error("file '{}' is no secret key of Nix", shown(.path.display()))]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: SignatureError,
    },
    /// A key that is to be trusted is none.
    #[error("setting 'trusted-public-keys' ({origin}) has a word that is no public key")]
    TrustedKey {
        /// Where it is set.
        origin: Origin,
        /// What is wrong with it.
        #[source]
        source: SignatureError,
    },
    /// An environment variable has a value that makes no sense.
    #[error("the environment variable {name} cannot be used")]
    StoreDirVariable {
        /// The variable.
        name: &'static str,
        /// What is wrong.
        #[source]
        source: StorePathError,
    },
    /// A text that is not UTF-8, where one is needed.
    #[error("the environment variable {name} is not UTF-8")]
    VariableNotUtf8 {
        /// The variable.
        name: &'static str,
    },
    /// A text names no store at all.
    #[error("'{}' is not the name of a store", shown(.text))]
    NotAStore {
        /// The text.
        text: String,
    },
    /// A single word that might be meant as a directory.
    #[error("'{}' is not the name of a store; a directory is written './{}'", shown(.text), shown(.text))]
    BareWord {
        /// The word.
        text: String,
    },
    /// A URI whose scheme no version of Nix knows.
    #[error("no kind of store is called '{}'", shown(.scheme))]
    UnknownScheme {
        /// What stands before the colon.
        scheme: String,
    },
    /// A path inside of a URI or parameter that must be absolute.
    #[error("'{}' in the store '{}' is not an absolute path", shown(.path), shown(.store))]
    Relative {
        /// The path.
        path: String,
        /// The whole text.
        store: String,
    },
    /// A percent sign that is not followed by two hexadecimal digits, or an escaped byte that cannot be in a path.
    #[error("'{}' has a percent sign that begins no valid escape", shown(.text))]
    Escape {
        /// The text.
        text: String,
    },
    /// A parameter of a store has a value that makes no sense.
    #[error("parameter '{name}' of the store is '{}', which is not {expected}", shown(.value))]
    Parameter {
        /// The parameter.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// The logical store directory of a store is malformed.
    #[error("parameter 'store' cannot be used")]
    StoreDirParameter {
        /// What is wrong.
        #[source]
        source: StorePathError,
    },
}

/// A text without control characters, which could be orders to a terminal.
pub(crate) fn shown(text: impl fmt::Display) -> String {
    let mut shown = String::new();
    for character in text.to_string().chars() {
        if character.is_control() {
            shown.extend(character.escape_debug());
        } else {
            shown.push(character);
        }
    }
    shown
}
