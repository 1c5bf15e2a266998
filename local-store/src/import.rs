//! Trees from the file system into the store, under paths that follow from their content.

use std::{io, path::Path, thread};

use ncc_nar::{PackOptions, pack};
use ncc_store::{ContentAddress, ContentMethod, PathInfo, StorePath};

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
        let bad_name = |source| LocalStoreError::Name { name: name.to_owned(), source };
        let references = references.into_iter().collect();
        let (nar_hash, nar_size) = content::nar_hash(tree, &PackOptions::default())?;
        // `new` refuses hashes that do not go with texts only.
        let address = ContentAddress::new(ContentMethod::Recursive, nar_hash.into());
        let path = address
            .map(|address| address.store_path(self.store_dir(), name, &references, None))
            .transpose()
            .map_err(bad_name)?;
        let Some(path) = path else { return Err(LocalStoreError::Panicked) };
        let mut info = PathInfo::new(path, nar_hash, nar_size);
        info.references = references;
        info.content_address = address;
        info.ultimate = true;
        let (mut reader, mut writer) = io::pipe().map_err(LocalStoreError::io("open a pipe for", tree))?;
        thread::scope(|scope| {
            let packer = scope.spawn(move || pack(tree, &mut writer, &PackOptions::default()));
            let added = self.add_nar(&info, &mut reader);
            // A packer that is not read to the end must not wait for ever.
            drop(reader);
            match (added, packer.join()) {
                // The tree changed, or went away, between hashing and packing: that is the reason for the rest.
                (Err(_), Ok(Err(source))) if !matches!(source, ncc_nar::Error::WriteArchive { .. }) => {
                    Err(LocalStoreError::Read { path: tree.to_owned(), source })
                }
                (Err(error), _) => Err(error),
                (Ok(_), _) => Ok(()),
            }
        })?;
        let registered = self.query_path_info(&info.path)?;
        Ok(registered.unwrap_or(info))
    }
}
