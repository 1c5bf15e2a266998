//! Archives made by real Nix, see `testdata/README.md`.

use std::{collections::BTreeMap, fs, path::PathBuf};

use ncc_nar::{
    DecodeOptions, Decoder, Encoder, Executable, Listing, Metadata, NIX_MAX_DEPTH, NodeKind, PackOptions,
    pack, size_of, unpack,
};
use rstest::rstest;
use sha2::{Digest, Sha256};

use crate::tree::{Tree, decode, decode_options, unpack_options};

pub(crate) fn golden(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

#[test]
fn the_files_are_the_ones_that_nix_made() {
    let sums = String::from_utf8(golden("SHA256SUMS")).unwrap();
    assert_eq!(sums.lines().count(), 11);
    for line in sums.lines() {
        let (sum, name) = line.split_once("  ").unwrap();
        assert_eq!(sha256(&golden(name)), sum, "{name}");
    }
    assert!(sums.contains("27184c3f175a6f8f2cc5c8db3e9a151b8bea606cd13476817787ca4021df3cde  tree.nar"));
}

#[rstest]
fn accepted_and_reproduced(
    #[values(
        "hi",
        "empty-file",
        "executable",
        "group-executable",
        "empty-directory",
        "symlink",
        "tree",
        "names",
        "links",
        "sizes",
        "deep"
    )]
    name: &str,
    #[values(Metadata::Plain, Metadata::Canonical)] metadata: Metadata,
) {
    let nar = golden(&format!("{name}.nar"));
    let mut decoder =
        Decoder::with_options(&nar[..], &decode_options(|options| options.max_depth = NIX_MAX_DEPTH));
    let mut encoder = Encoder::new(Vec::new());
    while let Some(event) = decoder.next_event().unwrap() {
        encoder.event(&event).unwrap();
        encoder.contents_from(&mut decoder.contents()).unwrap();
    }
    assert_eq!(encoder.finish().unwrap(), nar);

    if cfg!(target_os = "macos") && name == "names" {
        eprintln!("LEFT OUT: {name} on disk, the file systems of macOS refuse its names");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("target");
    unpack(&nar[..], &target, &unpack_options(|options| options.metadata = metadata)).unwrap();
    let mut packed = Vec::new();
    pack(&target, &mut packed, &PackOptions::default()).unwrap();
    assert_eq!(packed, nar);
    assert_eq!(size_of(&target, &PackOptions::default()).unwrap(), nar.len() as u64);
    ncc_nar::remove(&target).unwrap();
}

#[rstest]
#[case::not("group-executable", &[false])]
#[case::one("executable", &[true])]
#[case::links("links", &[true, true])]
#[case::in_tree("tree", &[false, true])]
fn the_execute_bit(#[case] name: &str, #[case] expected: &[bool]) {
    let nar = golden(&format!("{name}.nar"));
    let listing = Listing::read(&nar[..], &DecodeOptions::default()).unwrap();
    let executable: Vec<_> = listing
        .nodes()
        .filter_map(|node| match node.kind() {
            NodeKind::Regular { executable, .. } => Some(*executable == Executable::Yes),
            _ => None,
        })
        .collect();
    assert_eq!(executable, expected);
}

#[test]
fn every_file_of_names_contains_its_name() {
    let nar = golden("names.nar");
    let listing = Listing::read(&nar[..], &DecodeOptions::default()).unwrap();
    let names: Vec<_> = listing.nodes().skip(1).map(|node| node.path().as_bytes().to_vec()).collect();
    let contents = decode(&nar[..], &DecodeOptions::default()).contents;
    assert_eq!(names.len(), 10);
    assert_eq!(names, contents);
    assert!(names.contains(&b"not-utf8-\xff\xfe".to_vec()));
    assert!(names.contains(&b"new\nline".to_vec()));
}

#[test]
fn the_tree_of_the_specification() {
    let tree = Tree::Directory(BTreeMap::from([
        (b"d".to_vec(), Tree::Directory(BTreeMap::new())),
        (b"e".to_vec(), Tree::file("")),
        (b"l".to_vec(), Tree::Symlink(b"x".into())),
        (b"x".to_vec(), Tree::File { executable: true, contents: b"#!\n".into() }),
    ]));
    assert_eq!(tree.encode(), golden("tree.nar"));
    assert_eq!(tree.encode().len(), 864);
}
