//! The requests that copying needs.

use ncc_store::{PathInfo, Signature, StoreDir, StorePath, StorePathSet};
use tokio::io::AsyncRead;

use super::{ClientOptions, Daemon, DerivedPath, Feature, OutputId, Realisation, Version};
use crate::{
    ProtocolError,
    path_info::{put_registration, put_signatures, read_metadata, read_signatures},
    wire::{PATHS_LIMIT, WireReader, WireWrite as _},
};

const IS_VALID_PATH: u64 = 1;
const ENSURE_PATH: u64 = 10;
const ADD_TEMP_ROOT: u64 = 11;
const ADD_INDIRECT_ROOT: u64 = 12;
const SET_OPTIONS: u64 = 19;
const QUERY_DERIVATION_OUTPUTS: u64 = 22;
const QUERY_PATH_INFO: u64 = 26;
const QUERY_VALID_PATHS: u64 = 31;
const QUERY_SUBSTITUTABLE_PATHS: u64 = 32;
const ADD_SIGNATURES: u64 = 37;
const NAR_FROM_PATH: u64 = 38;
const ADD_TO_STORE_NAR: u64 = 39;
const QUERY_MISSING: u64 = 40;
const QUERY_DERIVATION_OUTPUT_MAP: u64 = 41;
const REGISTER_REALISATION: u64 = 42;
const QUERY_REALISATION: u64 = 43;
const ADD_MULTIPLE_TO_STORE: u64 = 44;
const ADD_PERM_ROOT: u64 = 47;
const ADD_TEMP_ROOTS: u64 = 49;

/// How long the path of a garbage collector's root can be, in bytes.
const LINK_LIMIT: u64 = 4096;

/// What an addition does besides adding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AddOptions {
    /// Whether to replace a path that is valid already.
    pub repair: bool,
    /// Whether paths without a signature will do. A daemon ignores this from a client that it does not trust.
    pub without_signatures: bool,
}

/// One request of a client.
///
/// The answers are what [`Answers::read`](super::Answers::read) gives for each.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// Settings for the rest of the connection.
    SetOptions(Box<ClientOptions>),
    /// Is this path valid?
    IsValidPath {
        /// The path.
        path: StorePath,
    },
    /// Which of these are valid?
    QueryValidPaths {
        /// The paths.
        paths: StorePathSet,
        /// Whether to substitute those that are not. The answer then tells which that worked for. Left out before 1.27, where
        /// no daemon does this.
        substitute: bool,
    },
    /// Which of these has a substituter? Asks only substituters that say `WantMassQuery: 1`; [`Request::QueryMissing`] asks
    /// all.
    QuerySubstitutablePaths {
        /// The paths.
        paths: StorePathSet,
    },
    /// The metadata of a path.
    QueryPathInfo {
        /// The path.
        path: StorePath,
    },
    /// What would be built and substituted to make these valid?
    QueryMissing {
        /// What is wanted.
        wanted: Vec<DerivedPath>,
    },
    /// The paths of a derivation's outputs, valid or not: all that a daemon before 1.22 can say. A newer one fails where one of
    /// them is not known yet.
    QueryDerivationOutputs {
        /// The derivation, which has to be valid.
        path: StorePath,
    },
    /// The outputs of a derivation, valid or not. Since 1.22.
    QueryDerivationOutputMap {
        /// The derivation, which has to be valid.
        path: StorePath,
    },
    /// What an output turned out to be. Since 1.31.
    QueryRealisation {
        /// The output.
        output: OutputId,
    },
    /// Records what an output turned out to be. Since 1.31.
    RegisterRealisation {
        /// The output; with [`Realisation::Json`], which has it inside, `None`.
        output: Option<OutputId>,
        /// What it is.
        realisation: Realisation,
    },
    /// Makes a path valid by substitution.
    EnsurePath {
        /// The path.
        path: StorePath,
    },
    /// Keeps the garbage collector from a path, valid or not, and from all that it refers to, until the connection ends.
    AddTempRoot {
        /// The path.
        path: StorePath,
    },
    /// The same for many paths. With [`Feature::AddTempRoots`].
    AddTempRoots {
        /// The paths.
        paths: StorePathSet,
    },
    /// Makes a symlink somewhere on the daemon's machine, which exists already, a root of the garbage collector.
    AddIndirectRoot {
        /// The absolute path of the link.
        link: String,
    },
    /// Makes such a link and a root of it. Since 1.36, in Nix 2.20 and later.
    AddPermRoot {
        /// What the link is to point to.
        path: StorePath,
        /// The absolute path of the link.
        link: String,
    },
    /// Adds signatures to a path.
    ///
    /// **Never send this for a path that is not known, by an answer on this connection behind a temporary root, to be valid:** the
    /// daemon's process for this connection crashes (2.4 to 2.34, also for clients that it does not trust). Up to 2.13 a client
    /// that is not trusted is refused, so with an empty list this asks for trust where the handshake does not say.
    AddSignatures {
        /// The path.
        path: StorePath,
        /// The signatures.
        signatures: Vec<Signature>,
    },
    /// The NAR of a path, which has to be valid; if it is not, the connection is lost with all that was asked behind this.
    NarFromPath {
        /// The path.
        path: StorePath,
    },
    /// Adds a path. Its NAR follows, as a [`NarWriter`](super::NarWriter) writes it.
    AddToStoreNar {
        /// What to register.
        info: Box<PathInfo>,
        /// What else.
        options: AddOptions,
    },
    /// Adds many paths. One sequence of frames follows: their number ([`put_count`](super::put_count)), then for each
    /// path its metadata ([`put_path_info`](super::put_path_info)) and its NAR, references before referrers. Since 1.32.
    ///
    /// There is no answer before the end of all, not even to the first path being refused. Before Nix 2.18 a path that is
    /// valid already breaks the conversation. [`Request::AddToStoreNar`] has neither fault and is as fast.
    AddMultipleToStore {
        /// How.
        options: AddOptions,
    },
}

impl Request {
    /// Its name in Nix.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::SetOptions(_) => "SetOptions",
            Self::IsValidPath { .. } => "IsValidPath",
            Self::QueryValidPaths { .. } => "QueryValidPaths",
            Self::QuerySubstitutablePaths { .. } => "QuerySubstitutablePaths",
            Self::QueryPathInfo { .. } => "QueryPathInfo",
            Self::QueryMissing { .. } => "QueryMissing",
            Self::QueryDerivationOutputs { .. } => "QueryDerivationOutputs",
            Self::QueryDerivationOutputMap { .. } => "QueryDerivationOutputMap",
            Self::QueryRealisation { .. } => "QueryRealisation",
            Self::RegisterRealisation { .. } => "RegisterDrvOutput",
            Self::EnsurePath { .. } => "EnsurePath",
            Self::AddTempRoot { .. } => "AddTempRoot",
            Self::AddTempRoots { .. } => "AddTempRoots",
            Self::AddIndirectRoot { .. } => "AddIndirectRoot",
            Self::AddPermRoot { .. } => "AddPermRoot",
            Self::AddSignatures { .. } => "AddSignatures",
            Self::NarFromPath { .. } => "NarFromPath",
            Self::AddToStoreNar { .. } => "AddToStoreNar",
            Self::AddMultipleToStore { .. } => "AddMultipleToStore",
        }
    }

    /// Whether `daemon` knows this request. Sent one that it does not know, it ends the connection.
    ///
    /// # Errors
    /// [`ProtocolError::NotSpoken`].
    pub fn check(&self, daemon: &Daemon) -> Result<(), ProtocolError> {
        let since = |minor: u8, needs| (daemon.version.minor() >= minor, needs);
        let realisation = |suits: bool| {
            if daemon.has(Feature::RealisationWithPath) {
                (suits, "an output of a derivation by its path")
            } else {
                (suits && daemon.version.minor() >= 31, "protocol 1.31 and an output by its hash")
            }
        };
        let (known, needs) = match self {
            Self::QueryDerivationOutputMap { .. } => since(22, "protocol 1.22"),
            Self::AddMultipleToStore { .. } => since(32, "protocol 1.32"),
            Self::AddPermRoot { .. } => since(36, "protocol 1.36"),
            Self::AddTempRoots { .. } => (daemon.has(Feature::AddTempRoots), "the feature addTempRoots"),
            Self::QueryRealisation { output } => realisation(output.suits(daemon)),
            Self::RegisterRealisation { output, realisation: what } => {
                let alike = output.is_some() == matches!(what, Realisation::Path { .. });
                realisation(alike && what.suits(daemon) && output.iter().all(|id| id.suits(daemon)))
            }
            _ => (true, ""),
        };
        if known { Ok(()) } else { Err(ProtocolError::NotSpoken { operation: self.name(), needs }) }
    }

    /// Appends the bytes of this request.
    ///
    /// # Errors
    /// Those of [`Request::check`]; nothing is appended then.
    pub fn encode(
        &self,
        store_dir: &StoreDir,
        daemon: &Daemon,
        bytes: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        self.check(daemon)?;
        let mut about = |operation, path| {
            bytes.put_u64(operation);
            bytes.put_path(store_dir, path);
        };
        match self {
            Self::IsValidPath { path } => about(IS_VALID_PATH, path),
            Self::QueryPathInfo { path } => about(QUERY_PATH_INFO, path),
            Self::QueryDerivationOutputs { path } => about(QUERY_DERIVATION_OUTPUTS, path),
            Self::QueryDerivationOutputMap { path } => about(QUERY_DERIVATION_OUTPUT_MAP, path),
            Self::EnsurePath { path } => about(ENSURE_PATH, path),
            Self::AddTempRoot { path } => about(ADD_TEMP_ROOT, path),
            Self::NarFromPath { path } => about(NAR_FROM_PATH, path),
            Self::AddSignatures { path, signatures } => {
                about(ADD_SIGNATURES, path);
                put_signatures(signatures, bytes);
            }
            Self::AddPermRoot { path, link } => {
                about(ADD_PERM_ROOT, path);
                bytes.put_bytes(link.as_bytes());
            }
            Self::SetOptions(options) => {
                bytes.put_u64(SET_OPTIONS);
                options.encode(bytes);
            }
            Self::QueryValidPaths { paths, substitute } => {
                bytes.put_u64(QUERY_VALID_PATHS);
                bytes.put_paths(store_dir, paths);
                if daemon.version >= Version::SUBSTITUTE_FLAG {
                    bytes.put_u64(u64::from(*substitute));
                }
            }
            Self::QuerySubstitutablePaths { paths } => {
                bytes.put_u64(QUERY_SUBSTITUTABLE_PATHS);
                bytes.put_paths(store_dir, paths);
            }
            Self::AddTempRoots { paths } => {
                bytes.put_u64(ADD_TEMP_ROOTS);
                bytes.put_paths(store_dir, paths);
            }
            Self::QueryMissing { wanted } => {
                bytes.put_u64(QUERY_MISSING);
                bytes.put_u64(wanted.len() as u64);
                for wanted in wanted {
                    wanted.encode(store_dir, bytes);
                }
            }
            Self::QueryRealisation { output } => {
                bytes.put_u64(QUERY_REALISATION);
                output.encode(store_dir, bytes);
            }
            Self::RegisterRealisation { output, realisation } => {
                bytes.put_u64(REGISTER_REALISATION);
                if let Some(output) = output {
                    output.encode(store_dir, bytes);
                }
                realisation.encode(store_dir, bytes);
            }
            Self::AddIndirectRoot { link } => {
                bytes.put_u64(ADD_INDIRECT_ROOT);
                bytes.put_bytes(link.as_bytes());
            }
            Self::AddToStoreNar { info, options } => Self::encode_add(info, *options, store_dir, bytes),
            Self::AddMultipleToStore { options } => {
                bytes.put_u64(ADD_MULTIPLE_TO_STORE);
                options.encode(bytes);
            }
        }
        Ok(())
    }

    /// Appends a [`Request::AddToStoreNar`] without taking the metadata.
    ///
    /// `ultimate` is written as false whatever it is: having been built on one machine says nothing on another.
    pub fn encode_add(info: &PathInfo, options: AddOptions, store_dir: &StoreDir, bytes: &mut Vec<u8>) {
        bytes.put_u64(ADD_TO_STORE_NAR);
        put_registration(info, store_dir, bytes);
        options.encode(bytes);
    }

    /// Reads the next request, as `daemon` would; `None` where the client has ended.
    ///
    /// # Errors
    /// [`ProtocolError`], naming the field that is wrong.
    pub async fn read<R: AsyncRead + Unpin>(
        reader: &mut WireReader<R>,
        store_dir: &StoreDir,
        daemon: &Daemon,
    ) -> Result<Option<Self>, ProtocolError> {
        if reader.at_end().await? {
            return Ok(None);
        }
        reader.begin(PATHS_LIMIT);
        let operation = reader.u64("an operation").await?;
        let request = match operation {
            IS_VALID_PATH => Self::IsValidPath { path: path(reader, store_dir).await? },
            QUERY_PATH_INFO => Self::QueryPathInfo { path: path(reader, store_dir).await? },
            QUERY_DERIVATION_OUTPUTS => Self::QueryDerivationOutputs { path: path(reader, store_dir).await? },
            QUERY_DERIVATION_OUTPUT_MAP => {
                Self::QueryDerivationOutputMap { path: path(reader, store_dir).await? }
            }
            ENSURE_PATH => Self::EnsurePath { path: path(reader, store_dir).await? },
            ADD_TEMP_ROOT => Self::AddTempRoot { path: path(reader, store_dir).await? },
            NAR_FROM_PATH => Self::NarFromPath { path: path(reader, store_dir).await? },
            ADD_SIGNATURES => Self::AddSignatures {
                path: path(reader, store_dir).await?,
                signatures: read_signatures(reader).await?.0,
            },
            ADD_PERM_ROOT => {
                Self::AddPermRoot { path: path(reader, store_dir).await?, link: link(reader).await? }
            }
            ADD_INDIRECT_ROOT => Self::AddIndirectRoot { link: link(reader).await? },
            SET_OPTIONS => Self::SetOptions(Box::new(ClientOptions::read(reader).await?)),
            QUERY_VALID_PATHS => {
                let paths = paths(reader, store_dir).await?;
                let with_flag = daemon.version >= Version::SUBSTITUTE_FLAG;
                let substitute = with_flag && reader.bool32("the substitute flag").await?;
                Self::QueryValidPaths { paths, substitute }
            }
            QUERY_SUBSTITUTABLE_PATHS => {
                Self::QuerySubstitutablePaths { paths: paths(reader, store_dir).await? }
            }
            ADD_TEMP_ROOTS => Self::AddTempRoots { paths: paths(reader, store_dir).await? },
            QUERY_MISSING => {
                let mut wanted = Vec::new();
                for _ in 0..reader.count("what is wanted").await? {
                    wanted.push(DerivedPath::read(reader, store_dir).await?);
                }
                Self::QueryMissing { wanted }
            }
            QUERY_REALISATION => {
                Self::QueryRealisation { output: OutputId::read(reader, store_dir, daemon).await? }
            }
            REGISTER_REALISATION => {
                let output = if daemon.has(Feature::RealisationWithPath) {
                    Some(OutputId::read(reader, store_dir, daemon).await?)
                } else {
                    None
                };
                let realisation = Realisation::read(reader, store_dir, daemon).await?;
                Self::RegisterRealisation { output, realisation }
            }
            ADD_TO_STORE_NAR => {
                let path = path(reader, store_dir).await?;
                let info = Box::new(read_metadata(reader, store_dir, path).await?);
                Self::AddToStoreNar { info, options: AddOptions::read(reader).await? }
            }
            ADD_MULTIPLE_TO_STORE => Self::AddMultipleToStore { options: AddOptions::read(reader).await? },
            found => {
                let (what, expected) = ("an operation", "one that copying needs");
                return Err(ProtocolError::Unexpected { what, expected, found });
            }
        };
        request.check(daemon)?;
        Ok(Some(request))
    }
}

impl AddOptions {
    fn encode(self, bytes: &mut Vec<u8>) {
        bytes.put_u64(u64::from(self.repair));
        bytes.put_u64(u64::from(self.without_signatures));
    }

    async fn read<R: AsyncRead + Unpin>(reader: &mut WireReader<R>) -> Result<Self, ProtocolError> {
        let repair = reader.u64("the repair flag").await? != 0;
        Ok(Self { repair, without_signatures: reader.u64("the signatures flag").await? != 0 })
    }
}

async fn path<R: AsyncRead + Unpin>(
    reader: &mut WireReader<R>,
    store_dir: &StoreDir,
) -> Result<StorePath, ProtocolError> {
    reader.path("the path of a request", store_dir).await
}

async fn paths<R: AsyncRead + Unpin>(
    reader: &mut WireReader<R>,
    store_dir: &StoreDir,
) -> Result<StorePathSet, ProtocolError> {
    Ok(reader.paths("the paths of a request", store_dir).await?.into_iter().collect())
}

async fn link<R: AsyncRead + Unpin>(reader: &mut WireReader<R>) -> Result<String, ProtocolError> {
    reader.string("the link of a root", LINK_LIMIT).await
}
