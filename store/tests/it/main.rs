//! `ncc-store` against files and verdicts of real Nix.

mod against_nix;
mod golden;
mod verdicts;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use ncc_store::{Cause, Derivation, StoreDir, StorePath};

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/derivations")
}

/// Every `.drv` file of a directory, by its store path.
fn files(directory: &Path) -> BTreeMap<StorePath, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "drv"))
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            (StorePath::from_base_name(name).unwrap(), fs::read(&path).unwrap())
        })
        .collect()
}

/// Input derivations out of `files`.
fn reader(
    files: &BTreeMap<StorePath, Vec<u8>>,
    store_dir: StoreDir,
) -> impl FnMut(&StorePath) -> Result<Derivation, Cause> {
    move |path| {
        let file = files.get(path).ok_or_else(|| Cause::from(format!("no file '{path}'")))?;
        Ok(Derivation::parse(file, &store_dir)?)
    }
}

/// Everything that must hold of a derivation that Nix wrote.
fn check_written_by_nix(files: &BTreeMap<StorePath, Vec<u8>>) {
    let store_dir = StoreDir::default();
    // One cache for all, and none at all: the answers must not depend on what was asked before.
    let mut shared = ncc_store::ModuloCache::new(store_dir.clone());
    for (path, file) in files {
        let derivation =
            Derivation::parse(file, &store_dir).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(
            derivation.to_bytes(&store_dir).escape_ascii().to_string(),
            file.escape_ascii().to_string(),
            "{path}"
        );
        let name = path.name().strip_suffix(".drv").unwrap();
        assert_eq!(derivation.store_path(&store_dir, name).unwrap(), *path);

        let known: BTreeMap<_, _> = derivation
            .outputs
            .iter()
            .filter_map(|(name, output)| Some((name.clone(), output.path()?.clone())))
            .collect();
        let mut alone = ncc_store::ModuloCache::new(store_dir.clone());
        for cache in [&mut alone, &mut shared] {
            let read = reader(files, store_dir.clone());
            assert_eq!(derivation.output_paths(path, cache, read).unwrap(), known, "{path}");
            let read = reader(files, store_dir.clone());
            derivation.check_outputs(path, cache, read).unwrap_or_else(|error| panic!("{path}: {error}"));
        }
    }
}
