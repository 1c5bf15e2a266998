//! The requests that copying needs.

use ncc_store::{Outputs, PathInfo, StoreDir, StorePath, ValidityQuery};
use tokio::io::AsyncRead;

use super::reply::{read_content_address, read_nar_hash, read_signatures};
use crate::{
    ProtocolError,
    wire::{WireReader, WireWrite as _},
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
        bytes.put_path(store_dir, &info.path);
        bytes.put_optional_path(store_dir, info.deriver.as_ref());
        bytes.put_bytes(info.nar_hash.to_base16().as_bytes());
        bytes.put_paths(store_dir, &info.references);
        bytes.put_u64(u64::try_from(info.registration_time).unwrap_or(0));
        bytes.put_u64(info.nar_size);
        bytes.put_u64(0);
        super::reply::put_signatures(info, bytes);
        super::reply::put_content_address(info, bytes);
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
        Ok(Some(match reader.u64("a command").await? {
            QUERY_VALID_PATHS => {
                let mut query = ValidityQuery::default();
                query.lock = reader.bool32("the lock flag").await?;
                query.substitute = reader.bool32("the substitute flag").await?;
                Self::QueryValidPaths { query, paths: reader.paths("paths to check", store_dir).await? }
            }
            QUERY_PATH_INFOS => {
                Self::QueryPathInfos { paths: reader.paths("paths to describe", store_dir).await? }
            }
            DUMP_STORE_PATH => {
                Self::DumpStorePath { path: reader.path("the path to dump", store_dir).await? }
            }
            QUERY_CLOSURE => {
                let include = reader.bool32("the outputs flag").await?;
                Self::QueryClosure {
                    outputs: if include { Outputs::Include } else { Outputs::Exclude },
                    paths: reader.paths("roots of a closure", store_dir).await?,
                }
            }
            ADD_TO_STORE_NAR => Self::AddToStoreNar { info: Box::new(read_add(reader, store_dir).await?) },
            command => Self::Other { command },
        }))
    }
}

async fn read_add<R: AsyncRead + Unpin>(
    reader: &mut WireReader<R>,
    store_dir: &StoreDir,
) -> Result<PathInfo, ProtocolError> {
    let path = reader.path("the path to add", store_dir).await?;
    let deriver = reader.optional_path("the deriver", store_dir).await?;
    let nar_hash = read_nar_hash(reader).await?;
    let references = reader.paths("the references", store_dir).await?;
    let time = reader.u64("the registration time").await?;
    let limit = i64::MAX.unsigned_abs();
    let registration_time = i64::try_from(time).map_err(|_| ProtocolError::TooLarge {
        what: "the registration time",
        announced: time,
        limit,
    })?;
    let nar_size = reader.u64("the NAR size").await?;
    if nar_size == 0 {
        return Err(ProtocolError::Unexpected { what: "the NAR size", expected: "more", found: 0 });
    }
    let mut info = PathInfo::new(path, nar_hash, nar_size);
    info.deriver = deriver;
    info.references = references.into_iter().collect();
    info.registration_time = registration_time;
    info.ultimate = reader.u64("the ultimate flag").await? != 0;
    read_signatures(reader, &mut info).await?;
    info.content_address = read_content_address(reader).await?;
    Ok(info)
}
