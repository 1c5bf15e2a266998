//! The encoder refuses what is not canonical; readers and writers that fail.

use std::{error::Error as _, io};

use ncc_nar::{
    Decoder, Encoder, EntryName, Error, Event, Executable, NameError, NotCanonical, OrderError, TargetError,
};
use rstest::rstest;

use crate::tree::Tree;

type Archive = Encoder<Vec<u8>>;
type Calls = fn(&mut Archive) -> Result<(), Error>;

#[rstest]
#[case::empty_name(|e: &mut Archive| { e.directory()?; e.entry("") }, NameError::Empty.into())]
#[case::dot(|e: &mut Archive| { e.directory()?; e.entry(".") }, NameError::Dots.into())]
#[case::slash(|e: &mut Archive| { e.directory()?; e.entry("a/b") }, NameError::Slash.into())]
#[case::nul(|e: &mut Archive| { e.directory()?; e.entry("a\0") }, NameError::Nul.into())]
#[case::long(|e: &mut Archive| { e.directory()?; e.entry([b'x'; 256]) }, NameError::TooLong { length: 256 }.into())]
#[case::unsorted(
    |e: &mut Archive| { e.directory()?; e.entry("a")?; e.file(Executable::No, "")?; e.entry("B") },
    OrderError::OutOfOrder { previous: b"a".into(), name: b"B".into() }.into()
)]
#[case::unsorted_after_a_directory(
    |e: &mut Archive| { e.directory()?; e.entry("b")?; e.directory()?; e.entry("z")?; e.file(Executable::Yes, "x")?;
          e.directory_end()?; e.entry("a") },
    OrderError::OutOfOrder { previous: b"b".into(), name: b"a".into() }.into()
)]
#[case::duplicate(
    |e: &mut Archive| { e.directory()?; e.entry("a")?; e.symlink("t")?; e.entry("a") },
    OrderError::Duplicate { name: b"a".into() }.into()
)]
#[case::empty_target(|e: &mut Archive| e.symlink(""), TargetError::Empty.into())]
#[case::target_with_nul(|e: &mut Archive| e.symlink("a\0"), TargetError::Nul.into())]
#[case::long_target(|e: &mut Archive| e.symlink([b'x'; 4096]), TargetError::TooLong { length: 4096 }.into())]
#[case::too_much(
    |e: &mut Archive| { e.regular(Executable::No, 3)?; e.contents(b"ab")?; e.contents(b"cd") },
    NotCanonical::TooMuchContents { announced: 3 }
)]
#[case::entry_in_file(
    |e: &mut Archive| { e.regular(Executable::No, 3)?; e.entry("a") },
    NotCanonical::OutOfPlace { call: "an entry", expected: "contents" }
)]
#[case::node_without_entry(
    |e: &mut Archive| { e.directory()?; e.symlink("t") },
    NotCanonical::OutOfPlace { call: "a symlink", expected: "an entry or the end of the directory" }
)]
#[case::entry_without_node(
    |e: &mut Archive| { e.directory()?; e.entry("a")?; e.directory_end() },
    NotCanonical::OutOfPlace { call: "the end of a directory", expected: "the node of an entry" }
)]
#[case::two_roots(
    |e: &mut Archive| { e.file(Executable::No, "")?; e.file(Executable::No, "") },
    NotCanonical::OutOfPlace { call: "a file", expected: "nothing more" }
)]
fn the_encoder_refuses(#[case] calls: Calls, #[case] expected: NotCanonical) {
    let mut encoder = Encoder::new(Vec::new());
    match calls(&mut encoder) {
        Err(Error::NotCanonical { kind, .. }) => assert_eq!(kind, expected),
        other => panic!("{other:?}"),
    }
}

#[rstest]
#[case::nothing(|_: &mut Archive| Ok(()), NotCanonical::OutOfPlace { call: "the end of the archive", expected: "the root node" })]
#[case::open_directory(
    |e: &mut Archive| e.directory(),
    NotCanonical::OutOfPlace { call: "the end of the archive", expected: "an entry or the end of the directory" }
)]
#[case::missing_contents(
    |e: &mut Archive| { e.regular(Executable::Yes, 10)?; e.contents(b"abc") },
    NotCanonical::MissingContents { announced: 10, missing: 7 }
)]
fn an_incomplete_archive_cannot_be_finished(#[case] calls: Calls, #[case] expected: NotCanonical) {
    let mut encoder = Encoder::new(Vec::new());
    calls(&mut encoder).unwrap();
    match encoder.finish() {
        Err(Error::NotCanonical { kind, .. }) => assert_eq!(kind, expected),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_refusal_leaves_the_encoder_usable() {
    let mut encoder = Encoder::new(Vec::new());
    encoder.directory().unwrap();
    encoder.entry("b").unwrap();
    encoder.file(Executable::No, "x").unwrap();
    assert!(encoder.entry("a").is_err());
    encoder.entry("c").unwrap();
    assert!(encoder.symlink("").is_err());
    encoder.symlink("t").unwrap();
    encoder.directory_end().unwrap();
    let tree = Tree::directory([("b", Tree::file("x")), ("c", Tree::Symlink(b"t".into()))]);
    assert_eq!(encoder.finish().unwrap(), tree.naive_nar());
}

#[test]
fn contents_from_a_reader_that_ends_early_is_an_error() {
    let mut encoder = Encoder::new(Vec::new());
    encoder.regular(Executable::No, 10).unwrap();
    let error = encoder.contents_from(&mut &b"abc"[..]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert!(encoder.finish().is_err());
}

#[test]
fn contents_from_a_reader_takes_no_more_than_announced() {
    let mut reader = &b"abcdef"[..];
    let mut encoder = Encoder::new(Vec::new());
    encoder.regular(Executable::No, 4).unwrap();
    encoder.contents_from(&mut reader).unwrap();
    assert_eq!(reader, b"ef");
    assert_eq!(encoder.finish().unwrap(), Tree::file("abcd").naive_nar());
}

/// Takes so many bytes, then fails.
struct Full(usize);

impl io::Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.0);
        self.0 -= count;
        if count == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(count) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_writer_is_recognisable() {
    let mut encoder = Encoder::new(Full(100_000));
    let error = encoder.file(Executable::No, vec![0; 1_000_000]).unwrap_err();
    assert!(matches!(error, Error::WriteArchive { .. }));
    assert_eq!(error.io_kind(), Some(io::ErrorKind::StorageFull));
    assert!(error.source().is_some());
}

struct Broken;

impl io::Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

#[test]
fn a_broken_reader_is_told_from_a_malformed_archive() {
    let nar = Tree::directory([("some", Tree::file("contents"))]).naive_nar();
    let mut decoder = Decoder::new(io::Read::chain(&nar[..200], Broken));
    let error = loop {
        match decoder.next_event() {
            Ok(event) => assert!(event.is_some()),
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, Error::ReadArchive { offset: 200, .. }), "{error:?}");
    assert_eq!(error.io_kind(), Some(io::ErrorKind::ConnectionReset));
    assert_eq!(error.to_string(), "cannot read the archive at byte 200, in 'some'");
}

#[test]
fn names_of_events_can_be_kept() {
    let nar = Tree::directory([(b"\xff\n".to_vec(), Tree::file(""))]).naive_nar();
    let mut decoder = Decoder::new(&nar[..]);
    decoder.next_event().unwrap();
    let Some(Event::Entry(name)) = decoder.next_event().unwrap() else { panic!() };
    let kept: EntryName = name.to_owned();
    assert_eq!(kept.as_bytes(), b"\xff\n");
    assert_eq!(kept.to_string(), "\\xff\\n");
}
