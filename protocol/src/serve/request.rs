//! The requests that copying needs.

use ncc_store::{Outputs, PathInfo, StoreDir, StorePath, ValidityQuery};
use tokio::io::AsyncRead;

use crate::{
    ProtocolError,
    path_info::{put_registration, read_metadata},
    wire::{MESSAGE_LIMIT, PATHS_LIMIT, WireReader, WireWrite as _},
};

const QUERY_VALID_PATHS: u64 = 1;
const QUERY_PATH_INFOS: u64 = 2;
const DUMP_STORE_PATH: u64 = 3;
const QUERY_CLOSURE: u64 = 7;
const ADD_TO_STORE_NAR: u64 = 9;

/// One request of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// Which of these are valid? Answer: a set of paths.
    QueryValidPaths {
        /// What to do besides answering.
        query: ValidityQuery,
        /// The paths asked for.
        paths: Vec<StorePath>,
    },
    /// The metadata of those that are valid. Answer: path infos, then an empty string.
    ///
    /// Never ask this about a path that the same connection may add: servers up to Nix 2.35 remember "missing" for
    /// an hour and then replace what another process has registered meanwhile. Ask [`Request::QueryValidPaths`].
    QueryPathInfos {
        /// The paths asked for.
        paths: Vec<StorePath>,
    },
    /// The NAR of a path. Answer: its bytes, with nothing around them.
    DumpStorePath {
        /// The path.
        path: StorePath,
    },
    /// Everything these refer to. Answer: a set of paths.
    QueryClosure {
        /// Whether derivations bring their valid outputs.
        outputs: Outputs,
        /// Where to start.
        paths: Vec<StorePath>,
    },
    /// Adds a path; exactly `nar_size` bytes of NAR follow. Answer: 1, or the end of the stream.
    AddToStoreNar {
        /// What to register.
        info: Box<PathInfo>,
    },
    /// A command that copying does not need. What follows it cannot be read.
    Other {
        /// Its number.
        command: u64,
    },
}

impl Request {
    /// Appends the bytes of this request.
    pub fn encode(&self, store_dir: &StoreDir, bytes: &mut Vec<u8>) {
        match self {
            Self::QueryValidPaths { query, paths } => {
                bytes.put_u64(QUERY_VALID_PATHS);
                bytes.put_u64(u64::from(query.lock));
                bytes.put_u64(u64::from(query.substitute));
                bytes.put_paths(store_dir, paths);
            }
            Self::QueryPathInfos { paths } => {
                bytes.put_u64(QUERY_PATH_INFOS);
                bytes.put_paths(store_dir, paths);
            }
            Self::DumpStorePath { path } => {
                bytes.put_u64(DUMP_STORE_PATH);
                bytes.put_path(store_dir, path);
            }
            Self::QueryClosure { outputs, paths } => {
                bytes.put_u64(QUERY_CLOSURE);
                bytes.put_u64(u64::from(*outputs == Outputs::Include));
                bytes.put_paths(store_dir, paths);
            }
            Self::AddToStoreNar { info } => Self::encode_add(info, store_dir, bytes),
            Self::Other { command } => bytes.put_u64(*command),
        }
    }

    /// Appends an [`Request::AddToStoreNar`] without taking the metadata.
    ///
    /// `ultimate` is written as false whatever it is: having been built on one machine says nothing on another.
    pub fn encode_add(info: &PathInfo, store_dir: &StoreDir, bytes: &mut Vec<u8>) {
        bytes.put_u64(ADD_TO_STORE_NAR);
        put_registration(info, store_dir, bytes);
    }

    /// Reads the next request; `None` where the client has ended.
    ///
    /// # Errors
    /// [`ProtocolError`], naming the field that is wrong.
    pub async fn read<R: AsyncRead + Unpin>(
        reader: &mut WireReader<R>,
        store_dir: &StoreDir,
    ) -> Result<Option<Self>, ProtocolError> {
        if reader.at_end().await? {
            return Ok(None);
        }
        reader.begin(PATHS_LIMIT);
        Ok(Some(match reader.u64("a command").await? {
            QUERY_VALID_PATHS => {
                let mut query = ValidityQuery::default();
                query.lock = reader.bool32("the lock flag").await?;
                query.substitute = reader.bool32("the substitute flag").await?;
                Self::QueryValidPaths {
                    query,
                    paths: reader.paths("paths to check", store_dir).await?.into_vec(),
                }
            }
            QUERY_PATH_INFOS => {
                Self::QueryPathInfos { paths: reader.paths("paths to describe", store_dir).await?.into_vec() }
            }
            DUMP_STORE_PATH => {
                Self::DumpStorePath { path: reader.path("the path to dump", store_dir).await? }
            }
            QUERY_CLOSURE => {
                let include = reader.bool32("the outputs flag").await?;
                Self::QueryClosure {
                    outputs: if include { Outputs::Include } else { Outputs::Exclude },
                    paths: reader.paths("roots of a closure", store_dir).await?.into_vec(),
                }
            }
            ADD_TO_STORE_NAR => {
                reader.begin(MESSAGE_LIMIT);
                let path = reader.path("the path to add", store_dir).await?;
                let info = Box::new(read_metadata(reader, store_dir, path).await?);
                if info.nar_size == 0 {
                    let what = "the NAR size";
                    return Err(ProtocolError::Unexpected { what, expected: "more", found: 0 });
                }
                Self::AddToStoreNar { info }
            }
            command => Self::Other { command },
        }))
    }
}
