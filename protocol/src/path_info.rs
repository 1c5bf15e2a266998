//! Path infos as both protocols write them.
//!
//! Whole, with its path in front, a path info opens the serve protocol's AddToStoreNar, the daemon's AddToStoreNar and each
//! path of AddMultipleToStore; without the path it answers the daemon's QueryPathInfo. The serve protocol's QueryPathInfos
//! has an order of its own, of the same fields.

use ncc_store::{ContentAddress, NarHash, PathInfo, Signature, StoreDir, StorePath};
use tokio::io::AsyncRead;

use crate::{
    ProtocolError,
    wire::{SIGNATURE_LIMIT, WireReader, WireWrite as _},
};

/// Appends a path and its metadata, for a store that is to register it.
///
/// `ultimate` is written as false whatever it is: having been built on one machine says nothing on another.
pub(crate) fn put_registration(info: &PathInfo, store_dir: &StoreDir, bytes: &mut Vec<u8>) {
    bytes.put_path(store_dir, &info.path);
    bytes.put_optional_path(store_dir, info.deriver.as_ref());
    bytes.put_bytes(info.nar_hash.to_base16().as_bytes());
    bytes.put_paths(store_dir, &info.references);
    bytes.put_u64(u64::try_from(info.registration_time).unwrap_or(0));
    bytes.put_u64(info.nar_size);
    bytes.put_u64(0);
    put_signatures(&info.signatures, bytes);
    put_content_address(info, bytes);
}

/// Reads the metadata of `path`.
pub(crate) async fn read_metadata<R: AsyncRead + Unpin>(
    reader: &mut WireReader<R>,
    store_dir: &StoreDir,
    path: StorePath,
) -> Result<PathInfo, ProtocolError> {
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
    let mut info = PathInfo::new(path, nar_hash, nar_size);
    info.deriver = deriver;
    info.references = references;
    info.registration_time = registration_time;
    info.ultimate = reader.u64("the ultimate flag").await? != 0;
    (info.signatures, info.malformed_signatures) = read_signatures(reader).await?;
    info.content_address = read_content_address(reader).await?;
    Ok(info)
}

pub(crate) fn put_signatures(signatures: &[Signature], bytes: &mut Vec<u8>) {
    bytes.put_u64(signatures.len() as u64);
    for signature in signatures {
        bytes.put_bytes(signature.to_string().as_bytes());
    }
}

pub(crate) async fn read_nar_hash<R: AsyncRead + Unpin>(
    reader: &mut WireReader<R>,
) -> Result<NarHash, ProtocolError> {
    let what = "the NAR hash";
    let text = reader.text(what).await?;
    NarHash::parse(&text).map_err(|source| ProtocolError::Hash { what, source })
}

/// Reads signatures, sorted, and how many texts among them were none: see [`PathInfo::malformed_signatures`].
pub(crate) async fn read_signatures<R: AsyncRead + Unpin>(
    reader: &mut WireReader<R>,
) -> Result<(Vec<Signature>, u32), ProtocolError> {
    let what = "the signatures";
    let mut signatures = Vec::new();
    let mut malformed = 0_u32;
    for _ in 0..reader.count(what).await? {
        let bytes = reader.bytes(what, SIGNATURE_LIMIT).await?;
        match str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok()) {
            Some(signature) => {
                reader.spend(what, size_of::<Signature>() as u64)?;
                signatures.push(signature);
            }
            None => malformed = malformed.saturating_add(1),
        }
    }
    signatures.sort_unstable();
    signatures.dedup();
    Ok((signatures, malformed))
}

pub(crate) fn put_content_address(info: &PathInfo, bytes: &mut Vec<u8>) {
    match info.content_address {
        Some(address) => bytes.put_bytes(address.to_string().as_bytes()),
        None => bytes.put_u64(0),
    }
}

pub(crate) async fn read_content_address<R: AsyncRead + Unpin>(
    reader: &mut WireReader<R>,
) -> Result<Option<ContentAddress>, ProtocolError> {
    let what = "the content address";
    let text = reader.text(what).await?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|source| ProtocolError::ContentAddress { what, source })
}
