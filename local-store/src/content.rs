//! Content addresses, checked against the objects on the disk.

use std::{
    fs::File,
    io::{self, Read as _, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use memchr::memmem::Finder;
use ncc_nar::{PackOptions, pack};
use ncc_store::{
    ContentAddress, ContentMethod, Hash, HashAlgorithm, Hasher, NarHash, PathInfo, StoreDir, StorePath,
};
use rustix::fs::OFlags;

use crate::LocalStoreError;

/// Block size for reading files.
const BLOCK: usize = 128 << 10;

/// Checks what can be checked before there is any content: that the claim gives this path.
pub(crate) fn check_claim(store_dir: &StoreDir, info: &PathInfo) -> Result<(), LocalStoreError> {
    let Some(claim) = &info.content_address else { return Ok(()) };
    let computed = claim.store_path(store_dir, info.path.name(), &info.references, Some(&info.path));
    let source = match computed {
        Ok(path) if path == info.path => return hasher(&info.path, claim).map(drop),
        Ok(_) => None,
        Err(error) => Some(error),
    };
    Err(LocalStoreError::FalseClaim { path: info.path.clone(), claim: claim.to_string(), source })
}

/// Checks that the object at `real`, whose NAR hash is known to be `info.nar_hash`, has the hash of its claim.
pub(crate) fn check_content(
    real: &Path,
    info: &PathInfo,
    options: &PackOptions,
) -> Result<(), LocalStoreError> {
    let Some(claim) = &info.content_address else { return Ok(()) };
    let path = &info.path;
    let hasher = hasher(path, claim)?;
    let actual = match claim.method() {
        ContentMethod::Recursive if info.references.contains(path) => {
            let (plain, with_offsets) = hashes_modulo_self(real, path, hasher, options)?;
            // Two ages of Nix, two hashes. Both bind the content.
            if with_offsets == *claim.hash() { with_offsets } else { plain }
        }
        ContentMethod::Recursive if claim.hash().algorithm() == HashAlgorithm::Sha256 => info.nar_hash.into(),
        ContentMethod::Recursive => {
            let mut hasher = hasher;
            pack_object(real, &mut hasher, options)?;
            hasher.finish()
        }
        _ => hash_file(real, path, claim, hasher)?,
    };
    if actual == *claim.hash() {
        Ok(())
    } else {
        Err(LocalStoreError::ContentMismatch {
            path: path.clone(),
            claim: claim.to_string(),
            actual: actual.to_string(),
        })
    }
}

/// The hash of a NAR, without any claim: sources and trees to add.
pub(crate) fn nar_hash(real: &Path, options: &PackOptions) -> Result<(NarHash, u64), LocalStoreError> {
    let mut hasher = ncc_store::NarHasher::new();
    pack_object(real, &mut hasher, options)?;
    Ok(hasher.finish())
}

fn hasher(path: &StorePath, claim: &ContentAddress) -> Result<Hasher, LocalStoreError> {
    let unverifiable =
        |what| LocalStoreError::Unverifiable { path: path.clone(), claim: claim.to_string(), what };
    match claim.method() {
        ContentMethod::Text | ContentMethod::Flat | ContentMethod::Recursive => {
            let algorithm = claim.hash().algorithm();
            Hasher::new(algorithm).ok_or_else(|| unverifiable(algorithm.name()))
        }
        _ => Err(unverifiable("git hashing")),
    }
}

fn hash_file(
    real: &Path,
    path: &StorePath,
    claim: &ContentAddress,
    mut hasher: Hasher,
) -> Result<Hash, LocalStoreError> {
    let Some(mut file) = open_regular(real)? else {
        return Err(LocalStoreError::NotAFile { path: path.clone(), claim: claim.to_string() });
    };
    let mut block = vec![0; BLOCK];
    loop {
        match file.read(&mut block) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => hasher.update(block.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(LocalStoreError::io("read", real)(error)),
        }
    }
}

/// Opens an object that is a regular file; `None` if it is something else.
pub(crate) fn open_regular(real: &Path) -> Result<Option<File>, LocalStoreError> {
    let metadata = std::fs::symlink_metadata(real).map_err(LocalStoreError::io("examine", real))?;
    if !metadata.is_file() {
        return Ok(None);
    }
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    let file = File::options().read(true).custom_flags(flags).open(real);
    file.map(Some).map_err(LocalStoreError::io("open", real))
}

fn pack_object(real: &Path, writer: &mut impl Write, options: &PackOptions) -> Result<u64, LocalStoreError> {
    pack(real, writer, options).map_err(|source| LocalStoreError::Read { path: real.to_owned(), source })
}

/// The hash of the NAR with the object's own digest blanked, without and with the places where that was.
fn hashes_modulo_self(
    real: &Path,
    path: &StorePath,
    mut hasher: Hasher,
    options: &PackOptions,
) -> Result<(Hash, Hash), LocalStoreError> {
    let needle = Finder::new(path.digest());
    let mut blanker = Blanker::new(&needle, |bytes| hasher.update(bytes), |_| {});
    pack_object(real, &mut blanker, options)?;
    blanker.finish();
    let plain = hasher.clone().finish();
    // The places come behind all of the content. A second pass costs less than to remember them all.
    let mut blanker = Blanker::new(&needle, |_| {}, |offset| hasher.update(format!("|{offset}").as_bytes()));
    pack_object(real, &mut blanker, options)?;
    blanker.finish();
    Ok((plain, hasher.finish()))
}

/// Replaces every occurrence of a text by zero bytes, and says where it was.
struct Blanker<'a, B, O> {
    needle: &'a Finder<'a>,
    /// What may still turn out to be a beginning of the needle, at its end.
    pending: Vec<u8>,
    /// Offset of `pending` in the stream.
    position: u64,
    on_bytes: B,
    on_offset: O,
}

impl<'a, B: FnMut(&[u8]), O: FnMut(u64)> Blanker<'a, B, O> {
    fn new(needle: &'a Finder<'a>, on_bytes: B, on_offset: O) -> Self {
        Self { needle, pending: Vec::new(), position: 0, on_bytes, on_offset }
    }

    fn finish(mut self) {
        (self.on_bytes)(&self.pending);
    }
}

impl<B: FnMut(&[u8]), O: FnMut(u64)> Write for Blanker<'_, B, O> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        let length = self.needle.needle().len();
        let mut from = 0;
        while let Some(found) = self.pending.get(from..).and_then(|rest| self.needle.find(rest)) {
            let start = from + found;
            from = start + length;
            if let Some(occurrence) = self.pending.get_mut(start..from) {
                occurrence.fill(0);
            }
            (self.on_offset)(self.position + start as u64);
        }
        let done = self.pending.len().saturating_sub(length.saturating_sub(1));
        (self.on_bytes)(self.pending.get(..done).unwrap_or_default());
        self.pending.drain(..done);
        self.position += done as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blank(input: &[u8], cut: usize) -> (Vec<u8>, Vec<u64>) {
        let (mut output, mut offsets) = (Vec::new(), Vec::new());
        let needle = Finder::new("needle");
        let mut blanker = Blanker::new(
            &needle,
            |bytes: &[u8]| output.extend_from_slice(bytes),
            |offset| offsets.push(offset),
        );
        for piece in input.chunks(cut) {
            blanker.write_all(piece).unwrap();
        }
        blanker.finish();
        (output, offsets)
    }

    #[test]
    fn blanking_does_not_depend_on_how_the_bytes_were_cut() {
        let input = b"needle-needneedleneedle-need";
        let expected = (b"\0\0\0\0\0\0-need\0\0\0\0\0\0\0\0\0\0\0\0-need".to_vec(), vec![0, 11, 17]);
        for cut in 1..=input.len() {
            assert_eq!(blank(input, cut), expected, "pieces of {cut}");
        }
        assert_eq!(blank(b"", 1), (vec![], vec![]));
    }
}
