//! Trees from the file system into the store, under paths that follow from their content.

use std::{io, path::Path};

use ncc_nar::{OwnedBlocks, PackOptions, pack};
use ncc_store::{ContentAddress, PathInfo, StorePath};

use crate::{LocalStore, LocalStoreError, content};

impl LocalStore {
    /// Copies the file, symlink or directory at `tree` into the store as `name`, addressed by its NAR hash and
    /// `references` (what Nix calls a source). The references must be valid and cannot include the new path.
    ///
    /// # Errors
    /// [`LocalStoreError::Name`], [`LocalStoreError::Read`], [`LocalStoreError::InvalidReference`], and whatever
    /// [`add_nar`](Self::add_nar) says.
    pub fn add_tree(
        &self,
        name: &str,
        tree: &Path,
        references: impl IntoIterator<Item = StorePath>,
    ) -> Result<PathInfo, LocalStoreError> {
        let options = PackOptions::default();
        let references = references.into_iter().collect();
        let (nar_hash, nar_size) = content::nar_hash(tree, &options)?;
        let address = ContentAddress::recursive(nar_hash);
        let path = address
            .store_path(self.store_dir(), name, &references, None)
            .map_err(|source| LocalStoreError::Name { name: name.to_owned(), source })?;
        let mut info = PathInfo::new(path, nar_hash, nar_size);
        info.references = references;
        info.content_address = Some(address);
        info.ultimate = true;
        self.add_with(&info, |incoming| {
            let mut failure = None;
            let sink = OwnedBlocks(|mut block: Vec<u8>| match incoming.push(&block) {
                Ok(()) => {
                    block.clear();
                    Ok(block)
                }
                Err(error) => {
                    failure = Some(error);
                    Err(io::ErrorKind::Other.into())
                }
            });
            let packed = pack(tree, sink, &options);
            match (failure, packed) {
                // The tree changed, or went away, between hashing and packing: that is the reason for the rest.
                (None, Err(source)) => Err(LocalStoreError::Read { path: tree.to_owned(), source }),
                (Some(error), _) => Err(error),
                (None, Ok(_)) => Ok(()),
            }
        })?;
        let registered = self.query_path_info(&info.path)?;
        Ok(registered.unwrap_or(info))
    }
}
