//! Unpacking never writes outside of its target, and what was unpacked packs to the same bytes.
#![no_main]

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use libfuzzer_sys::fuzz_target;
use ncc_nar::{CaseHack, DecodeOptions, Metadata, PackOptions, UnpackOptions, Zeroes, pack, remove, unpack};

/// In memory if possible: the disk would be the slowest part.
static PARENT: LazyLock<PathBuf> = LazyLock::new(|| {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { shared.into() } else { std::env::temp_dir() }
});

fuzz_target!(|data: &[u8]| {
    // The last byte picks the options; what follows an archive is not looked at otherwise.
    let Some(options) = data.last() else { return };
    let case_hack = if options & 4 == 0 { CaseHack::Off } else { CaseHack::On };
    let unpack_options = UnpackOptions::new()
        .metadata(if options & 1 == 0 { Metadata::Plain } else { Metadata::Canonical })
        .zeroes(if options & 2 == 0 { Zeroes::Write } else { Zeroes::Skip })
        .case_hack(case_hack)
        // Inputs are small; allocating the usual buffer would be most of the work.
        .decode(DecodeOptions::new().buffer_size(0));

    let room = tempfile::tempdir_in(&*PARENT).unwrap();
    // Something to damage: links in an archive can point here.
    fs::create_dir(room.path().join("outside")).unwrap();
    fs::write(room.path().join("outside/file"), "kept").unwrap();
    fs::create_dir(room.path().join("inside")).unwrap();
    let target = room.path().join("inside/target");
    let before = snapshot(room.path());

    let outcome = unpack(&mut &data[..], &target, &unpack_options);
    if let Ok(size) = outcome {
        let mut nar = Vec::new();
        match pack(&target, &mut nar, &PackOptions::new().case_hack(case_hack)) {
            Ok(packed) => {
                assert_eq!(packed, size);
                assert_eq!(&nar[..], &data[..nar.len()]);
            }
            // A name that looks suffixed without being it cannot come back.
            Err(error) => assert_eq!(case_hack, CaseHack::On, "{error}"),
        }
    }
    if target.symlink_metadata().is_ok() {
        remove(&target).unwrap();
    }
    assert_eq!(snapshot(room.path()), before, "something else than the target was touched");
});

/// Everything but the directory that holds the target, with what would change if it were written to.
fn snapshot(path: &Path) -> BTreeMap<OsString, (u32, u64, i64, i64, Vec<u8>)> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        let contents = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        let time = if path.ends_with("inside") { (0, 0) } else { (metadata.mtime(), metadata.mtime_nsec()) };
        if metadata.is_dir() {
            all.extend(snapshot(&path));
        }
        all.insert(path.into_os_string(), (metadata.mode(), metadata.ino(), time.0, time.1, contents));
    }
    all
}
