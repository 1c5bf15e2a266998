//! What is where in an archive, and single files out of it.

use std::io::{self, Cursor, Read, Seek, SeekFrom};

use ncc_nar::{
    DecodeOptions, Decoder, Error, Event, Executable, Listing, ListingNode, Malformation, NarPath, NodeKind,
};

use crate::tree::Tree;

fn listing(nar: &[u8]) -> Listing {
    Listing::read(nar, &DecodeOptions::default()).unwrap()
}

fn path(text: &str) -> NarPath {
    NarPath::new(text).unwrap()
}

fn sample() -> Tree {
    Tree::directory([
        ("a", Tree::File { executable: true, contents: b"first".into() }),
        ("b", Tree::directory([("c", Tree::file("second")), ("e", Tree::directory::<&str>([]))])),
        ("b-", Tree::file("")),
        ("d", Tree::Symlink(b"a".into())),
    ])
}

#[test]
fn a_listing_has_offsets_of_contents() {
    let nar = sample().naive_nar();
    let listing = listing(&nar);
    let paths: Vec<_> = listing.nodes().map(|node| node.path().to_string()).collect();
    assert_eq!(paths, [".", "a", "b", "b/c", "b/e", "b-", "d"]);
    assert_eq!(listing.nodes().map(ListingNode::depth).collect::<Vec<_>>(), [0, 1, 1, 2, 2, 1, 1]);
    let contents: Vec<_> = listing
        .nodes()
        .filter_map(|node| match node.kind() {
            NodeKind::Regular { offset, size, executable } => {
                let start = usize::try_from(*offset).unwrap();
                Some((*executable, &nar[start..start + usize::try_from(*size).unwrap()]))
            }
            _ => None,
        })
        .collect();
    assert_eq!(
        contents,
        [(Executable::Yes, &b"first"[..]), (Executable::No, b"second"), (Executable::No, b"")]
    );
}

#[test]
fn nodes_are_found_by_path() {
    let listing = listing(&sample().naive_nar());
    let names = |node: ListingNode<'_>| {
        node.entries().map(|entry| entry.name().unwrap().to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(listing.root()), "a b b- d");
    assert_eq!(names(listing.get(&path("b")).unwrap()), "c e");
    assert_eq!(names(listing.get(&path("b/e")).unwrap()), "");
    assert_eq!(names(listing.get(&path("a")).unwrap()), "");
    assert_eq!(listing.get(&path("d")).unwrap().kind(), &NodeKind::Symlink { target: b"a".into() });
    assert!(listing.get(&NarPath::default()).unwrap().name().is_none());
    for missing in ["c", "a/b", "b/c/d", "b/d", "z"] {
        assert!(listing.get(&path(missing)).is_none(), "{missing}");
    }
    for node in listing.nodes() {
        assert_eq!(format!("{:?}", listing.get(&node.path()).unwrap()), format!("{node:?}"));
    }
}

#[test]
fn the_deepest_tree_is_listed_without_overflowing_the_stack() {
    let name = "x".repeat(255);
    let mut nar = Vec::new();
    let mut put = |words: &[&[u8]]| words.iter().for_each(|word| crate::tree::string(&mut nar, word));
    put(&[b"nix-archive-1"]);
    for _ in 0..4096 {
        put(&[b"(", b"type", b"directory", b"entry", b"(", b"name", name.as_bytes(), b"node"]);
    }
    put(&[b"(", b"type", b"directory", b")"]);
    for _ in 0..4096 {
        put(&[b")", b")"]);
    }
    let listing = listing(&nar);
    let deepest = listing.nodes().last().unwrap();
    assert_eq!((deepest.depth(), deepest.path().as_bytes().len()), (4096, 4096 * 256 - 1));
    assert!(listing.get(&deepest.path()).is_some());
}

/// Counts what is read from it.
struct Counting<'a> {
    archive: Cursor<&'a [u8]>,
    bytes: &'a mut usize,
}

impl Read for Counting<'_> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let count = self.archive.read(target)?;
        *self.bytes += count;
        Ok(count)
    }
}

impl Seek for Counting<'_> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.archive.seek(position)
    }
}

fn large() -> Vec<u8> {
    Tree::directory([
        ("a", Tree::file(vec![1; 1 << 20])),
        ("b", Tree::directory([("c", Tree::file(vec![2; 1 << 20]))])),
        ("d", Tree::file("short")),
        ("e", Tree::file(vec![3; 1 << 20])),
    ])
    .naive_nar()
}

#[test]
fn contents_are_skipped_where_the_reader_can_seek() {
    let nar = large();
    let expected = listing(&nar);
    // With and without blocks that reach into contents.
    for nar_size in [None, Some(nar.len() as u64)] {
        let mut options = DecodeOptions::default();
        (options.nar_size, options.buffer_size) = (nar_size, 0);
        let mut bytes = 0;
        let reader = Counting { archive: Cursor::new(&nar), bytes: &mut bytes };
        assert_eq!(Listing::read_seekable(reader, &options).unwrap(), expected);
        assert!(bytes < 60_000, "{bytes}");
        bytes = 0;
        let mut decoder =
            Decoder::with_options(Counting { archive: Cursor::new(&nar), bytes: &mut bytes }, &options);
        assert_eq!(
            decoder.seek_to(&path("d")).unwrap(),
            Some(Event::Regular { executable: Executable::No, size: 5 })
        );
        let mut contents = String::new();
        decoder.contents().read_to_string(&mut contents).unwrap();
        assert_eq!(contents, "short");
        // From there on, forwards only.
        assert_eq!(decoder.seek_to(&path("a")).unwrap(), None);
        assert!(bytes < 60_000, "{bytes}");
    }
}

#[test]
fn an_archive_that_ends_in_skipped_contents_is_an_error() {
    let nar = large();
    for end in [500, 1 << 20, nar.len() - 200, nar.len() - 8] {
        match Listing::read_seekable(Cursor::new(&nar[..end]), &DecodeOptions::default()) {
            Err(Error::Malformed { kind: Malformation::UnexpectedEof, .. }) => {}
            other => panic!("{end}: {other:?}"),
        }
    }
}

#[test]
fn any_kind_of_node_is_found_by_seeking() {
    let nar = sample().naive_nar();
    for node in listing(&nar).nodes() {
        let mut decoder = Decoder::new(Cursor::new(&nar));
        let event = decoder.seek_to(&node.path()).unwrap().unwrap();
        match (event, node.kind()) {
            (Event::Directory, NodeKind::Directory) => {}
            (Event::Symlink { target }, NodeKind::Symlink { target: listed }) => assert_eq!(target, listed),
            (Event::Regular { executable, size }, NodeKind::Regular { executable: e, size: s, .. }) => {
                assert_eq!((executable, size), (*e, *s));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(Decoder::new(Cursor::new(&nar)).seek_to(&path("b/z")).unwrap(), None);
}

#[cfg(feature = "serde")]
mod json {
    use std::process::Command;

    use ncc_nar::{DecodeOptions, Decoder, Listing, NodeKind};
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::{listing, sample};
    use crate::{golden::golden, real::nix, tree::Tree};

    #[test]
    fn a_listing_survives_json() {
        let listing = listing(&sample().naive_nar());
        let json = serde_json::to_string(&listing).unwrap();
        assert!(json.starts_with(
            r#"{"version":1,"root":{"type":"directory","entries":{"a":{"type":"regular","size":5,"executable":true,"narOffset":264},"#
        ), "{json}");
        assert_eq!(serde_json::from_str::<Listing>(&json).unwrap(), listing);
        // A writer may spell out the false; and the order of keys means nothing.
        let other = json!({"root": {"type": "directory", "entries": {
            "b": {"narOffset": 8, "executable": false, "size": 3, "type": "regular"},
            "a": {"target": "b", "type": "symlink"},
        }}, "version": 1});
        let read: Listing = serde_json::from_value(other).unwrap();
        let paths: Vec<_> = read.nodes().map(|node| node.path().to_string()).collect();
        assert_eq!(paths, [".", "a", "b"]);
    }

    #[rstest]
    #[case::version(json!({"version": 2, "root": {"type": "symlink", "target": "x"}}), "version 2")]
    #[case::no_root(json!({"version": 1}), "missing field `root`")]
    #[case::unknown(json!({"version": 1, "root": {"type": "fifo"}}), "unknown variant `fifo`")]
    #[case::no_size(json!({"version": 1, "root": {"type": "regular", "narOffset": 1}}), "missing field `size`")]
    #[case::no_offset(json!({"version": 1, "root": {"type": "regular", "size": 1}}), "missing field `narOffset`")]
    #[case::empty_target(json!({"version": 1, "root": {"type": "symlink", "target": ""}}), "target is empty")]
    #[case::bad_name(
        json!({"version": 1, "root": {"type": "directory", "entries": {"..": {"type": "symlink", "target": "x"}}}}),
        "called `.` or `..`"
    )]
    fn what_is_no_listing_is_refused(#[case] json: Value, #[case] expected: &str) {
        let error = serde_json::from_value::<Listing>(json).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn what_json_cannot_hold_is_refused() {
        let names = listing(&Tree::directory([(b"\xff\n".to_vec(), Tree::file(""))]).naive_nar());
        let error = serde_json::to_string(&names).unwrap_err().to_string();
        assert_eq!(error, "'\\xff\\n' is not UTF-8, which JSON cannot hold");
        let deep = (0..300).fold(Tree::file(""), |tree, _| Tree::directory([("d", tree)]));
        let error = serde_json::to_string(&listing(&deep.naive_nar())).unwrap_err().to_string();
        assert_eq!(error, "directories nested deeper than 256");
    }

    fn nix_nar(arguments: &[&str]) -> Option<Vec<u8>> {
        let output = Command::new("nix")
            .args(["--extra-experimental-features", "nix-command", "nar"])
            .args(arguments)
            .output()
            .ok()?;
        output.status.success().then_some(output.stdout)
    }

    #[rstest]
    fn listings_are_those_of_nix(
        #[values("hi", "executable", "empty-directory", "symlink", "tree", "links", "sizes", "deep")]
        name: &str,
    ) {
        if !nix("nix nar ls") {
            return;
        }
        if nix_nar(&["ls", "--help"]).is_none() {
            eprintln!("LEFT OUT: nix nar ls: this Nix has no such command");
            return;
        }
        let file = format!("{}/testdata/{name}.nar", env!("CARGO_MANIFEST_DIR"));
        let theirs = nix_nar(&["ls", "--json", "--recursive", &file, "/"]).unwrap();
        let theirs: Value = serde_json::from_slice(&theirs).unwrap();
        let nar = golden(&format!("{name}.nar"));
        let listing = listing(&nar);
        assert_eq!(serde_json::to_value(listing.root()).unwrap(), theirs);
        let read: Listing = serde_json::from_value(json!({"version": 1, "root": theirs})).unwrap();
        assert_eq!(read, listing);

        for node in listing.nodes().filter(|node| matches!(node.kind(), NodeKind::Regular { .. })).take(5) {
            let path = format!("/{}", str::from_utf8(node.path().as_bytes()).unwrap());
            // Nix cannot be asked for a file that is the root.
            let Some(theirs) = nix_nar(&["cat", &file, &path]).filter(|_| path != "/") else { continue };
            let mut decoder =
                Decoder::with_options(std::fs::File::open(&file).unwrap(), &DecodeOptions::default());
            decoder.seek_to(&node.path()).unwrap().unwrap();
            let mut ours = Vec::new();
            std::io::Read::read_to_end(&mut decoder.contents(), &mut ours).unwrap();
            assert_eq!(ours, theirs, "{path}");
        }
    }
}
