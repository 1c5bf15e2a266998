//! Graphs against definitions that are plain and slow.

mod examples;
mod properties;

use ncc_store::{NarHash, PathInfo, StorePath};

/// A path whose place in the order of paths is `rank`.
fn path(rank: u32, name: &str) -> StorePath {
    // The text of a digest begins with its last bytes.
    let mut digest = [0; 20];
    digest[16..].copy_from_slice(&rank.to_le_bytes());
    StorePath::from_parts(&digest, name).unwrap()
}

fn info(path: &StorePath, references: impl IntoIterator<Item = StorePath>) -> PathInfo {
    let mut info = PathInfo::new(path.clone(), NarHash::new([0; 32]), 100);
    info.references = references.into_iter().collect();
    info
}
