//! The replies that have a form of their own.

use std::collections::BTreeSet;

use ncc_store::{PathInfo, StoreDir, StorePath, StorePathSet};
use tokio::io::AsyncRead;

use super::Version;
use crate::{
    ProtocolError,
    path_info::{put_content_address, put_signatures, read_content_address, read_nar_hash, read_signatures},
    wire::{PATHS_LIMIT, WireReader, WireWrite as _},
};

/// The minor version that added NAR hash, content address and signatures to path infos.
const WITH_NAR_HASH: u8 = 4;

/// Appends one element of the answer to QueryPathInfos. The answer ends with an empty string: `put_u64(0)`.
pub fn put_path_info(info: &PathInfo, store_dir: &StoreDir, version: Version, bytes: &mut Vec<u8>) {
    bytes.put_path(store_dir, &info.path);
    bytes.put_optional_path(store_dir, info.deriver.as_ref());
    bytes.put_paths(store_dir, &info.references);
    bytes.put_u64(info.nar_size); // "download size", which nobody uses
    bytes.put_u64(info.nar_size);
    if version.minor() >= WITH_NAR_HASH {
        bytes.put_bytes(info.nar_hash.to_string().as_bytes());
        put_content_address(info, bytes);
        put_signatures(&info.signatures, bytes);
    }
}

/// Reads one element of the answer to QueryPathInfos, or `None` at its end. The version is 2.5 or later. All elements
/// together are one message: see [`WireReader::begin`].
///
/// # Errors
/// [`ProtocolError`], naming the field that is wrong.
pub async fn read_path_info<R: AsyncRead + Unpin>(
    reader: &mut WireReader<R>,
    store_dir: &StoreDir,
) -> Result<Option<PathInfo>, ProtocolError> {
    let Some(path) = reader.optional_path("the path of a path info", store_dir).await? else {
        return Ok(None);
    };
    let deriver = reader.optional_path("the deriver", store_dir).await?;
    let references = reader.paths("the references", store_dir).await?;
    reader.u64("the download size").await?;
    let nar_size = reader.u64("the NAR size").await?;
    let nar_hash = read_nar_hash(reader).await?;
    let mut info = PathInfo::new(path, nar_hash, nar_size);
    info.deriver = deriver;
    info.references = references;
    info.content_address = read_content_address(reader).await?;
    (info.signatures, info.malformed_signatures) = read_signatures(reader).await?;
    Ok(Some(info))
}

/// Reads the whole answer to QueryPathInfos, which may be about each path of `asked` once and about no other: an
/// answer without end is not gathered. Gives it in ascending order.
///
/// # Errors
/// [`ProtocolError::Unasked`], [`ProtocolError::Twice`], and those of [`read_path_info`].
pub async fn read_path_infos<R: AsyncRead + Unpin>(
    reader: &mut WireReader<R>,
    store_dir: &StoreDir,
    asked: &StorePathSet,
) -> Result<Vec<PathInfo>, ProtocolError> {
    reader.begin_answer(asked);
    let mut described = vec![false; asked.len()];
    let mut infos = Vec::new();
    while let Some(info) = read_path_info(reader, store_dir).await? {
        let place =
            asked.as_slice().binary_search(&info.path).ok().and_then(|place| described.get_mut(place));
        match place {
            Some(twice @ false) => *twice = true,
            Some(true) => return Err(ProtocolError::Twice { path: store_dir.full(&info.path) }),
            None => return Err(ProtocolError::Unasked { path: store_dir.full(&info.path) }),
        }
        infos.push(info);
    }
    // Nix sends them so; nobody promises it.
    infos.sort_unstable_by(|left, right| left.path.cmp(&right.path));
    Ok(infos)
}

/// Reads the answer to QueryClosure.
///
/// # Errors
/// Those of [`WireReader::paths`].
pub async fn read_closure<R: AsyncRead + Unpin>(
    reader: &mut WireReader<R>,
    store_dir: &StoreDir,
) -> Result<StorePathSet, ProtocolError> {
    reader.begin(PATHS_LIMIT);
    reader.paths("the closure", store_dir).await
}

/// Reads the answer to QueryValidPaths, which can only hold what was `asked`.
///
/// # Errors
/// [`ProtocolError::Unasked`], and those of [`WireReader::count_up_to`] and [`WireReader::path`].
pub async fn read_valid_paths<R: AsyncRead + Unpin>(
    reader: &mut WireReader<R>,
    store_dir: &StoreDir,
    asked: &StorePathSet,
) -> Result<BTreeSet<StorePath>, ProtocolError> {
    let what = "the valid paths";
    reader.begin_answer(asked);
    let count = reader.count_up_to(what, asked.len() as u64).await?;
    let mut valid = BTreeSet::new();
    for _ in 0..count {
        let path = reader.path(what, store_dir).await?;
        if !asked.contains(&path) {
            return Err(ProtocolError::Unasked { path: store_dir.full(&path) });
        }
        valid.insert(path);
    }
    Ok(valid)
}

/// Reads the answer to AddToStoreNar.
///
/// # Errors
/// [`ProtocolError::Unexpected`] for anything but 1.
pub async fn read_added<R: AsyncRead + Unpin>(reader: &mut WireReader<R>) -> Result<(), ProtocolError> {
    match reader.u64("the answer to an added path").await? {
        1 => Ok(()),
        found => Err(ProtocolError::Unexpected { what: "the answer to an added path", expected: "1", found }),
    }
}
