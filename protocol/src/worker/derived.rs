//! What can be asked of a derivation: its outputs, and what they turned out to be.

use std::collections::BTreeSet;

use ncc_store::{Signature, StoreDir, StorePath};
use tokio::io::AsyncRead;

use super::{Daemon, Feature};
use crate::{
    ProtocolError,
    path_info::{put_signatures, read_signatures},
    wire::{PATH_LIMIT, WireReader, WireWrite as _},
};

/// How long the name of an output can be, in bytes: it becomes part of a file name.
pub(super) const OUTPUT_NAME_LIMIT: u64 = 255;

/// How many outputs one derivation can have.
pub(super) const OUTPUT_LIMIT: u64 = 1 << 16;

/// How long a realisation can be, in bytes, where it is JSON.
const REALISATION_LIMIT: u64 = 1 << 20;

/// Something that a daemon can make valid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DerivedPath {
    /// A path as it is, by substitution. **A derivation too, from 1.30 on; an older daemon takes it for all of its outputs.**
    Path(StorePath),
    /// All outputs of a derivation, by substitution or by building it.
    AllOutputs(StorePath),
    /// Some outputs of a derivation.
    Outputs(StorePath, BTreeSet<String>),
}

impl DerivedPath {
    pub(super) fn encode(&self, store_dir: &StoreDir, bytes: &mut Vec<u8>) {
        let text = match self {
            Self::Path(path) => store_dir.full(path),
            Self::AllOutputs(path) => format!("{}!*", store_dir.full(path)),
            Self::Outputs(path, names) => {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                format!("{}!{}", store_dir.full(path), names.join(","))
            }
        };
        bytes.put_bytes(text.as_bytes());
    }

    pub(super) async fn read<R: AsyncRead + Unpin>(
        reader: &mut WireReader<R>,
        store_dir: &StoreDir,
    ) -> Result<Self, ProtocolError> {
        let what = "a derived path";
        let limit = OUTPUT_LIMIT.saturating_mul(OUTPUT_NAME_LIMIT);
        let text = reader.string(what, PATH_LIMIT.saturating_add(limit)).await?;
        let (path, outputs) = match text.split_once('!') {
            Some((path, outputs)) => (path, Some(outputs)),
            None => (text.as_str(), None),
        };
        let path = store_dir.parse(path).map_err(|source| ProtocolError::Path { what, source })?;
        Ok(match outputs {
            None => Self::Path(path),
            Some("*") => Self::AllOutputs(path),
            Some(names) => Self::Outputs(path, names.split(',').map(str::to_owned).collect()),
        })
    }
}

/// One output of a content-addressing derivation (experimental in Nix).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OutputId {
    /// By the derivation's path: with [`Feature::RealisationWithPath`].
    OfDerivation {
        /// The derivation.
        derivation: StorePath,
        /// The output's name.
        output: String,
    },
    /// By a hash of the derivation, `sha256:HEX!NAME`: without the feature.
    Hashed(String),
}

/// What an output turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Realisation {
    /// With [`Feature::RealisationWithPath`].
    Path {
        /// Where the output is.
        out_path: StorePath,
        /// Who says so.
        signatures: Vec<Signature>,
    },
    /// Without the feature: the JSON that Nix keeps, with its id in it. Not looked into.
    Json(String),
}

impl OutputId {
    /// Whether this is the form that the daemon knows.
    pub(super) fn suits(&self, daemon: &Daemon) -> bool {
        matches!(self, Self::OfDerivation { .. }) == daemon.has(Feature::RealisationWithPath)
    }

    pub(super) fn encode(&self, store_dir: &StoreDir, bytes: &mut Vec<u8>) {
        match self {
            Self::OfDerivation { derivation, output } => {
                bytes.put_path(store_dir, derivation);
                bytes.put_bytes(output.as_bytes());
            }
            Self::Hashed(id) => bytes.put_bytes(id.as_bytes()),
        }
    }

    pub(super) async fn read<R: AsyncRead + Unpin>(
        reader: &mut WireReader<R>,
        store_dir: &StoreDir,
        daemon: &Daemon,
    ) -> Result<Self, ProtocolError> {
        if daemon.has(Feature::RealisationWithPath) {
            let derivation = reader.path("the derivation of an output", store_dir).await?;
            let output = reader.string("the name of an output", OUTPUT_NAME_LIMIT).await?;
            return Ok(Self::OfDerivation { derivation, output });
        }
        reader.text("an output").await.map(Self::Hashed)
    }
}

impl Realisation {
    /// Whether this is the form that the daemon knows.
    pub(super) fn suits(&self, daemon: &Daemon) -> bool {
        matches!(self, Self::Path { .. }) == daemon.has(Feature::RealisationWithPath)
    }

    pub(super) fn encode(&self, store_dir: &StoreDir, bytes: &mut Vec<u8>) {
        match self {
            Self::Path { out_path, signatures } => {
                bytes.put_path(store_dir, out_path);
                put_signatures(signatures, bytes);
            }
            Self::Json(text) => bytes.put_bytes(text.as_bytes()),
        }
    }

    pub(super) async fn read<R: AsyncRead + Unpin>(
        reader: &mut WireReader<R>,
        store_dir: &StoreDir,
        daemon: &Daemon,
    ) -> Result<Self, ProtocolError> {
        if daemon.has(Feature::RealisationWithPath) {
            let out_path = reader.path("the path of a realisation", store_dir).await?;
            return Ok(Self::Path { out_path, signatures: read_signatures(reader).await?.0 });
        }
        reader.string("a realisation", REALISATION_LIMIT).await.map(Self::Json)
    }

    /// Reads the answer about one output.
    pub(super) async fn read_answer<R: AsyncRead + Unpin>(
        reader: &mut WireReader<R>,
        store_dir: &StoreDir,
        daemon: &Daemon,
    ) -> Result<Option<Self>, ProtocolError> {
        // An optional value with the feature, a set before: either way a count of at most one.
        match reader.count_up_to("the realisations of an output", 1).await? {
            0 => Ok(None),
            _ => Self::read(reader, store_dir, daemon).await.map(Some),
        }
    }
}
