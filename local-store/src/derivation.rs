//! Derivations that come in: they must be what their name says, and promise the outputs that follow from them.

use std::{
    io::Read as _,
    path::Path,
    sync::{Mutex, PoisonError},
};

use ncc_store::{Cause, Derivation, ModuloCache, PathInfo, StoreDir, StorePath};

use crate::{LocalStore, LocalStoreError, content::open_regular, error::DerivationTrouble};

/// Longest derivation that is read; the longest of nixpkgs are some megabytes. It is held in memory as a whole.
const LIMIT: u64 = 256 << 20;

/// What is known of the derivations of a store.
#[derive(Debug)]
pub(crate) struct Derivations(Mutex<ModuloCache>);

impl Derivations {
    pub(crate) fn new(store_dir: &StoreDir) -> Self {
        Self(Mutex::new(ModuloCache::new(store_dir.clone())))
    }

    /// Forgets all, as one of them did not become valid: another content may come under its path.
    pub(crate) fn forget(&self, store_dir: &StoreDir) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = ModuloCache::new(store_dir.clone());
    }
}

/// The outputs of the derivation at `real` whose paths are known now, after checking that they are right. Nothing for
/// paths that are no derivations.
pub(crate) fn outputs(
    store: &LocalStore,
    info: &PathInfo,
    real: &Path,
) -> Result<Vec<(String, StorePath)>, LocalStoreError> {
    let path = &info.path;
    if !path.is_derivation() {
        return Ok(Vec::new());
    }
    let wrong = |source| LocalStoreError::Derivation { path: path.clone(), source };
    let derivation = read(real, store.store_dir()).map_err(wrong)?;
    let mut known = store.derivations()?.0.lock().unwrap_or_else(PoisonError::into_inner);
    let read_input = |input: &StorePath| read(&store.real_path(input), store.store_dir());
    derivation
        .check_outputs(path, &mut known, read_input)
        // Those that have it as an input need not read it again.
        .and_then(|()| known.insert(path, &derivation, read_input))
        .map_err(|error| wrong(error.into()))?;
    drop(known);
    Ok(derivation
        .outputs
        .iter()
        .filter_map(|(name, output)| Some((name.clone(), output.path()?.clone())))
        .collect())
}

/// Reads the derivation at `real`.
pub(crate) fn read(real: &Path, store_dir: &StoreDir) -> Result<Derivation, Cause> {
    let file = open_regular(real)?.ok_or(DerivationTrouble::NotAFile)?;
    let mut text = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut text).map_err(LocalStoreError::io("read", real))?;
    if text.len() as u64 > LIMIT {
        return Err(DerivationTrouble::TooLong { limit: LIMIT }.into());
    }
    Ok(Derivation::parse(&text, store_dir)?)
}
