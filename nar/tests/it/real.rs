//! The same objects through this crate and through `nix-store --dump` and `--restore`.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, Stdio},
};

use ncc_nar::{PackOptions, UnpackOptions, pack, unpack};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use crate::tree::{Tree, trees};

/// Whether there is a `nix-store`; if not, the test is left out loudly or fails.
pub(crate) fn nix(test: &str) -> bool {
    let found = Command::new("nix-store").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        let required = std::env::var_os("NCC_REQUIRE_REAL").is_some_and(|value| value == "1");
        assert!(!required, "NCC_REQUIRE_REAL=1, but there is no nix-store for {test}");
        eprintln!("LEFT OUT: {test}: there is no nix-store on PATH");
    }
    found
}

fn nix_dump(path: &Path) -> Result<Vec<u8>, String> {
    let output = Command::new("nix-store").arg("--dump").arg(path).output().unwrap();
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn nix_restore(nar: &[u8], target: &Path) -> bool {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), nar).unwrap();
    let status = Command::new("nix-store")
        .arg("--restore")
        .arg(target)
        .stdin(File::open(file.path()).unwrap())
        .stderr(Stdio::null())
        .status();
    status.unwrap().success()
}

fn our_pack(path: &Path) -> Vec<u8> {
    let mut nar = Vec::new();
    pack(path, &mut nar, &PackOptions::default()).unwrap();
    nar
}

/// Modes and targets of everything below, to compare two trees beyond what an archive says.
fn modes(path: &Path) -> Vec<(String, u32)> {
    let metadata = path.symlink_metadata().unwrap();
    let mut all =
        vec![(path.file_name().unwrap().to_string_lossy().into_owned(), metadata.permissions().mode())];
    if metadata.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        all.extend(entries.iter().flat_map(|entry| modes(entry)));
    }
    all
}

fn compare(tree: &Tree) {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("source");
    tree.write_to(&source).unwrap();
    let nar = nix_dump(&source).unwrap();
    assert!(our_pack(&source) == nar, "{tree:?}");

    fs::create_dir(directory.path().join("ours")).unwrap();
    fs::create_dir(directory.path().join("theirs")).unwrap();
    let (ours, theirs) = (directory.path().join("ours/object"), directory.path().join("theirs/object"));
    unpack(&nar[..], &ours, &UnpackOptions::default()).unwrap();
    assert!(nix_restore(&nar, &theirs));
    assert_eq!(modes(&ours), modes(&theirs));
    assert!(nix_dump(&ours).unwrap() == nar);
    assert!(our_pack(&theirs) == nar);
}

#[test]
fn random_trees_are_packed_and_unpacked_as_nix_does() {
    if !nix("random trees") {
        return;
    }
    let seed = std::env::var("NCC_SEED").map_or_else(
        // Random, because each of these has keys of its own.
        |_| std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0),
        |seed| seed.parse().unwrap(),
    );
    // Shown if the test fails.
    println!("again with NCC_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&u64::to_le_bytes(seed));
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    for _ in 0..16 {
        compare(&trees().new_tree(&mut runner).unwrap().current());
    }
}

#[test]
fn special_modes_and_hard_links_are_packed_as_nix_does() {
    if !nix("special modes and hard links") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for mode in [0o654, 0o100, 0o4711, 0o644, 0o1755, 0o611, 0o2755, 0o677] {
        let path = directory.path().join(format!("{mode:o}"));
        fs::write(&path, "x").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode | 0o400)).unwrap();
        fs::hard_link(&path, directory.path().join(format!("link-{mode:o}"))).unwrap();
    }
    symlink("/nowhere/at/all", directory.path().join("dangling")).unwrap();
    assert!(our_pack(directory.path()) == nix_dump(directory.path()).unwrap());
}

#[test]
fn what_nix_refuses_is_refused() {
    if !nix("refusals") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut good = our_pack_of_a_tree(directory.path());
    for (offset, byte) in [(0, 12), (8, b'N'), (33, 1), (96, b'x')] {
        let kept = std::mem::replace(&mut good[offset], byte);
        let target = directory.path().join("target");
        assert!(unpack(&good[..], &target, &UnpackOptions::default()).is_err());
        if target.symlink_metadata().is_ok() {
            ncc_nar::remove(&target).unwrap();
        }
        assert!(!nix_restore(&good, &target), "byte {offset}");
        if target.symlink_metadata().is_ok() {
            ncc_nar::remove(&target).unwrap();
        }
        good[offset] = kept;
    }
    assert!(Command::new("mkfifo").arg(directory.path().join("tree/fifo")).status().unwrap().success());
    assert!(nix_dump(&directory.path().join("tree")).unwrap_err().contains("unsupported type"));
    let error = pack(&directory.path().join("tree"), &mut Vec::new(), &PackOptions::default()).unwrap_err();
    assert!(matches!(error, ncc_nar::Error::Unsupported { .. }));
}

fn our_pack_of_a_tree(directory: &Path) -> Vec<u8> {
    let tree = Tree::directory([("entry", Tree::file("contents"))]);
    tree.write_to(&directory.join("tree")).unwrap();
    our_pack(&directory.join("tree"))
}
