//! Unpacking never writes outside of its target, what was unpacked packs to the same bytes, and pulling and
//! pushing do the same.
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
use ncc_nar::{
    CaseHack, Error, Metadata, PackOptions, UnpackOptions, Unpacker, pack, remove, unpack, unpack_at,
};

/// In memory if possible: the disk would be the slowest part.
static PARENT: LazyLock<PathBuf> = LazyLock::new(|| {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { shared.into() } else { std::env::temp_dir() }
});

fuzz_target!(|data: &[u8]| {
    // The last byte picks the options; what follows an archive is not looked at otherwise.
    let Some(options) = data.last() else { return };
    let case_hack = if options & 4 == 0 { CaseHack::Off } else { CaseHack::On };
    let mut unpack_options = UnpackOptions::default();
    unpack_options.metadata = if options & 1 == 0 { Metadata::Plain } else { Metadata::Canonical };
    unpack_options.case_hack = case_hack;
    // Inputs are small; allocating the usual buffer would be most of the work.
    unpack_options.decode.buffer_size = 0;
    let mut pack_options = PackOptions::default();
    pack_options.case_hack = case_hack;

    let room = tempfile::tempdir_in(&*PARENT).unwrap();
    // Something to damage: links in an archive can point here.
    fs::create_dir(room.path().join("outside")).unwrap();
    fs::write(room.path().join("outside/file"), "kept").unwrap();
    fs::create_dir(room.path().join("inside")).unwrap();
    let target = room.path().join("inside/target");
    let before = snapshot(room.path());

    let outcome = if options & 2 == 0 {
        unpack(data, &target, &unpack_options)
    } else {
        unpack_at(data, fs::File::open(room.path().join("inside")).unwrap(), "target", &unpack_options)
    };
    let pulled = result(&target, &outcome, data, &pack_options);
    let outcome = push(data, &target, &unpack_options);
    let pushed = result(&target, &outcome, data, &pack_options);
    assert_eq!(pulled, pushed, "pulling and pushing differ");
    assert_eq!(snapshot(room.path()), before, "something else than the target was touched");
});

fn push(data: &[u8], target: &Path, options: &UnpackOptions) -> Result<u64, Error> {
    let mut unpacker = Unpacker::new(target, options)?;
    for block in data.chunks(1 + data.len() % 19) {
        let taken = unpacker.push(block)?;
        assert!(taken == block.len() || unpacker.is_complete());
        if unpacker.is_complete() {
            break;
        }
    }
    unpacker.finish()
}

/// What became of the archive: its size or what is wrong with it, and what lies at `target`, which is
/// removed.
fn result(
    target: &Path,
    outcome: &Result<u64, Error>,
    data: &[u8],
    options: &PackOptions,
) -> (String, Result<Vec<u8>, String>) {
    let mut nar = Vec::new();
    let packed = pack(target, &mut nar, options);
    match (outcome, &packed) {
        (Ok(size), Ok(packed)) => {
            assert_eq!(packed, size);
            assert_eq!(&nar[..], &data[..nar.len()]);
        }
        // A name that looks suffixed without being it cannot come back.
        (Ok(_), Err(error)) => assert_eq!(options.case_hack, CaseHack::On, "{error}"),
        (Err(_), _) => {}
    }
    if target.symlink_metadata().is_ok() {
        remove(target).unwrap();
    }
    // `unpack_at` knows the paths below its directory only.
    let parent = format!("{}/", target.parent().unwrap().display());
    let text = |error: &Error| format!("{error:?}").replace(&parent, "");
    (outcome.as_ref().map_or_else(text, |size| format!("{size} bytes")), packed.map(|_| nar).map_err(|e| text(&e)))
}

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
