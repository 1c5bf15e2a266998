//! Derivations: what a `.drv` file says, and whether the output paths in it are the ones it must have.

mod error;
mod modulo;
mod parse;
mod write;

use std::collections::{BTreeMap, BTreeSet};

pub use self::{
    error::{DerivationError, OutputsError},
    modulo::ModuloCache,
};
use crate::{
    ContentAddress, ContentAddressError, ContentMethod, HashAlgorithm, NarHash, StoreDir, StorePath,
    StorePathSet,
};

/// The content of a `.drv` file.
///
/// Texts that Nix does not require to be UTF-8 are bytes. Whatever order a file has, this has the canonical one.
///
/// ```
/// use ncc_store::{Derivation, StoreDir};
///
/// let text = br#"Derive([("out","","r:sha256","")],[],[],"x86_64-linux","/bin/sh",[],[("name","hi")])"#;
/// let derivation = Derivation::parse(text, &StoreDir::default())?;
/// assert_eq!(derivation.outputs["out"].path(), None, "nobody knows before it is built");
/// assert_eq!(derivation.to_bytes(&StoreDir::default()), text);
/// # Ok::<(), ncc_store::DerivationError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Derivation {
    /// By name: `out`, `dev`, ...
    pub outputs: BTreeMap<String, DerivationOutput>,
    /// The derivations whose outputs it needs, and which of them.
    pub input_derivations: BTreeMap<StorePath, WantedOutputs>,
    /// The other paths it needs.
    pub input_sources: StorePathSet,
    /// The system it builds on: `x86_64-linux`.
    pub platform: Vec<u8>,
    /// The program that builds it.
    pub builder: Vec<u8>,
    /// The arguments of the builder.
    pub arguments: Vec<Vec<u8>>,
    /// The environment of the builder.
    pub environment: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// One output, by what is known of its path.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DerivationOutput {
    /// The path follows from the derivation.
    InputAddressed(StorePath),
    /// The path follows from a content that is known beforehand.
    Fixed {
        /// The path as the file says it.
        path: StorePath,
        /// What it follows from.
        address: ContentAddress,
    },
    /// The path will follow from the content.
    Floating {
        /// What will be hashed.
        method: ContentMethod,
        /// With what.
        algorithm: HashAlgorithm,
    },
    /// The path will follow from the derivation, once its floating inputs are known.
    Deferred,
    /// As [`DerivationOutput::Floating`], but every build may give another content.
    Impure {
        /// What will be hashed.
        method: ContentMethod,
        /// With what.
        algorithm: HashAlgorithm,
    },
}

impl DerivationOutput {
    /// The path, if it is known before anything is built.
    pub const fn path(&self) -> Option<&StorePath> {
        match self {
            Self::InputAddressed(path) | Self::Fixed { path, .. } => Some(path),
            Self::Floating { .. } | Self::Deferred | Self::Impure { .. } => None,
        }
    }
}

/// Which outputs of an input derivation are needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedOutputs {
    /// Its own outputs.
    pub names: BTreeSet<String>,
    /// Outputs that are derivations themselves, and which of *their* outputs are needed (dynamic derivations,
    /// experimental in Nix).
    pub dynamic: BTreeMap<String, WantedOutputs>,
}

impl<T: Into<String>> FromIterator<T> for WantedOutputs {
    fn from_iter<I: IntoIterator<Item = T>>(names: I) -> Self {
        Self { names: names.into_iter().map(Into::into).collect(), dynamic: BTreeMap::new() }
    }
}

impl Derivation {
    /// Reads a `.drv` file.
    ///
    /// Accepts what Nix accepts. That includes lists that are not sorted and anything behind the closing
    /// parenthesis, which 2.3.7, 2.8.0 and 2.34.8 do not look at.
    ///
    /// # Errors
    /// [`DerivationError`], with the place.
    pub fn parse(text: &[u8], store_dir: &StoreDir) -> Result<Self, DerivationError> {
        parse::parse(text, store_dir)
    }

    /// Writes the canonical file: the one that Nix writes.
    pub fn to_bytes(&self, store_dir: &StoreDir) -> Vec<u8> {
        write::derivation(self, store_dir)
    }

    /// What its file refers to.
    pub fn references(&self) -> StorePathSet {
        self.input_derivations.keys().chain(&self.input_sources).cloned().collect()
    }

    /// Where its file belongs. `name` is without `.drv`.
    ///
    /// # Errors
    /// [`ContentAddressError::Path`] if the name is not allowed.
    pub fn store_path(&self, store_dir: &StoreDir, name: &str) -> Result<StorePath, ContentAddressError> {
        ContentAddress::text(NarHash::of(&self.to_bytes(store_dir))).store_path(
            store_dir,
            &format!("{name}.drv"),
            &self.references(),
            None,
        )
    }

    /// Whether anything in it is about dynamic derivations, which takes the newer form of the file.
    fn is_dynamic(&self) -> bool {
        self.input_derivations.values().any(|wanted| !wanted.dynamic.is_empty())
    }
}

/// The name of an output's path: `out` adds nothing to the derivation's.
fn output_path_name(derivation: &str, output: &str) -> String {
    if output == "out" { derivation.to_owned() } else { format!("{derivation}-{output}") }
}

/// What stands before the algorithm in the list of outputs. (In `fixed:` addresses text has no prefix of its own.)
fn method_prefix(method: ContentMethod) -> &'static str {
    if method == ContentMethod::Text { "text:" } else { method.fixed_prefix() }
}

#[cfg(test)]
mod tests;
