//! Every way in which Nix archives are known to be malformed, with the verdict and its place.

use ncc_nar::{
    DecodeOptions, Decoder, Error, Malformation, NIX_MAX_DEPTH, NameError, OrderError, TargetError,
};
use rstest::rstest;

use crate::tree::{Tree, decode, decode_options, string};

/// Encodes strings; `''` is the empty one, `|` marks the place where the error is expected.
fn spell(words: &[&[u8]]) -> (Vec<u8>, u64) {
    let mut nar = Vec::new();
    let mut place = None;
    for word in words {
        match *word {
            b"|" => place = Some(nar.len() as u64),
            b"''" => string(&mut nar, b""),
            word => string(&mut nar, word),
        }
    }
    (nar, place.expect("a case marks its place"))
}

fn first_error(nar: &[u8], options: &DecodeOptions) -> (u64, String, Malformation) {
    let mut decoder = Decoder::with_options(nar, options);
    loop {
        match decoder.next_event() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("accepted"),
            Err(Error::Malformed { offset, path, kind }) => return (offset, path.to_string(), kind),
            Err(other) => panic!("{other:?}"),
        }
    }
}

fn tag(expected: &'static str, found: &str) -> Malformation {
    Malformation::UnexpectedTag { expected, found: found.into() }
}

macro_rules! words {
    ($($word:expr),* $(,)?) => { &[$(&$word[..] as &[u8]),*] };
}

/// An entry that is an empty file.
fn entry(name: &[u8]) -> [&[u8]; 12] {
    [b"entry", b"(", b"name", name, b"node", b"(", b"type", b"regular", b"contents", b"''", b")", b")"]
}

const MAGIC: &[u8] = b"nix-archive-1";

#[rstest]
#[case::wrong_magic(words![b"|", b"nix-archive-2", b"(", b"type", b"directory", b")"], Malformation::BadMagic, ".")]
#[case::long_magic(words![b"|", b"nix-archive-1nix-archive-1", b"("], Malformation::BadMagic, ".")]
#[case::no_parenthesis(words![MAGIC, b"|", b"type", b"directory", b")"], tag("'('", "type"), ".")]
#[case::no_type(words![MAGIC, b"(", b"|", b")", b")"], tag("'type'", ")"), ".")]
#[case::unknown_type(
    words![MAGIC, b"(", b"type", b"|", b"fifo", b")"],
    tag("'regular', 'symlink' or 'directory'", "fifo"), "."
)]
#[case::long_tag(
    words![MAGIC, b"(", b"type", b"|", b"a keyword that is too long", b")"],
    Malformation::TagTooLong { expected: "'regular', 'symlink' or 'directory'", length: 26 }, "."
)]
#[case::regular_without_contents(
    words![MAGIC, b"(", b"type", b"regular", b"|", b")"],
    tag("'executable' or 'contents'", ")"), "."
)]
#[case::executable_without_contents(
    words![MAGIC, b"(", b"type", b"regular", b"executable", b"''", b"|", b")"],
    tag("'contents'", ")"), "."
)]
#[case::executable_with_value(
    words![MAGIC, b"(", b"type", b"regular", b"executable", b"|", b"yes", b"contents", b"''", b")"],
    Malformation::ExecutableValue, "."
)]
#[case::executable_twice(
    words![MAGIC, b"(", b"type", b"regular", b"executable", b"''", b"|", b"executable", b"''", b"contents", b"''", b")"],
    tag("'contents'", "executable"), "."
)]
#[case::executable_after_contents(
    words![MAGIC, b"(", b"type", b"regular", b"contents", b"abc", b"|", b"executable", b"''", b")"],
    tag("')'", "executable"), "."
)]
#[case::contents_twice(
    words![MAGIC, b"(", b"type", b"regular", b"contents", b"abc", b"|", b"contents", b"def", b")"],
    tag("')'", "contents"), "."
)]
#[case::symlink_without_target(
    words![MAGIC, b"(", b"type", b"symlink", b"|", b")"],
    tag("'target'", ")"), "."
)]
#[case::empty_target(
    words![MAGIC, b"(", b"type", b"symlink", b"target", b"|", b"''", b")"],
    TargetError::Empty.into(), "."
)]
#[case::target_with_nul(
    words![MAGIC, b"(", b"type", b"symlink", b"target", b"|", b"a\0b", b")"],
    TargetError::Nul.into(), "."
)]
#[case::target_too_long(
    words![MAGIC, b"(", b"type", b"symlink", b"target", b"|", [b'x'; 4096], b")"],
    TargetError::TooLong { length: 4096 }.into(), "."
)]
#[case::target_twice(
    words![MAGIC, b"(", b"type", b"symlink", b"target", b"a", b"|", b"target", b"b", b")"],
    tag("')'", "target"), "."
)]
#[case::name_empty(
    words![MAGIC, b"(", b"type", b"directory", b"entry", b"(", b"name", b"|", b"''", b"node"],
    NameError::Empty.into(), "."
)]
#[case::name_dot(
    words![MAGIC, b"(", b"type", b"directory", b"entry", b"(", b"name", b"|", b".", b"node"],
    NameError::Dots.into(), "."
)]
#[case::name_dot_dot(
    words![MAGIC, b"(", b"type", b"directory", b"entry", b"(", b"name", b"|", b"..", b"node"],
    NameError::Dots.into(), "."
)]
#[case::name_with_slash(
    words![MAGIC, b"(", b"type", b"directory", b"entry", b"(", b"name", b"|", b"../x", b"node"],
    NameError::Slash.into(), "."
)]
#[case::name_with_nul(
    words![MAGIC, b"(", b"type", b"directory", b"entry", b"(", b"name", b"|", b"a\0", b"node"],
    NameError::Nul.into(), "."
)]
#[case::name_too_long(
    words![MAGIC, b"(", b"type", b"directory", b"entry", b"(", b"name", b"|", [b'x'; 256], b"node"],
    NameError::TooLong { length: 256 }.into(), "."
)]
#[case::entry_without_name(
    words![MAGIC, b"(", b"type", b"directory", b"entry", b"(", b"|", b"node", b"("],
    tag("'name'", "node"), "."
)]
#[case::entry_without_node(
    words![MAGIC, b"(", b"type", b"directory", b"entry", b"(", b"name", b"a", b"|", b")"],
    tag("'node'", ")"), "."
)]
#[case::node_before_name(
    words![MAGIC, b"(", b"type", b"directory", b"entry", b"(", b"|", b"node", b"(", b"type", b"directory", b")", b"name", b"a"],
    tag("'name'", "node"), "."
)]
#[case::field_after_entries(
    words![MAGIC, b"(", b"type", b"directory", b"|", b"contents", b"''", b")"],
    tag("'entry' or ')'", "contents"), "."
)]
#[case::entry_not_closed(
    words![MAGIC, b"(", b"type", b"directory", b"entry", b"(", b"name", b"a", b"node",
           b"(", b"type", b"directory", b")", b"|", b"entry"],
    tag("')'", "entry"), "."
)]
#[case::nested_path(
    words![MAGIC, b"(", b"type", b"directory", b"entry", b"(", b"name", b"a", b"node",
           b"(", b"type", b"directory", b"entry", b"(", b"name", b"b", b"node", b"(", b"type", b"|", b"x"],
    tag("'regular', 'symlink' or 'directory'", "x"), "a/b"
)]
fn rejected(#[case] words: &[&[u8]], #[case] expected: Malformation, #[case] expected_path: &str) {
    let (mut nar, place) = spell(words);
    // Something always follows, so that none of these is rejected for being short.
    nar.resize(nar.len() + 512, 0);
    let expected = (place, expected_path.to_owned(), expected);
    assert_eq!(first_error(&nar, &DecodeOptions::default()), expected);
    // The announced size changes how bytes are read, not what is wrong with them.
    let announced = decode_options(|options| options.nar_size = Some(nar.len() as u64));
    assert_eq!(first_error(&nar, &announced), expected);
}

#[rstest]
#[case::out_of_order(b"b", b"a", OrderError::OutOfOrder { previous: b"b".into(), name: b"a".into() }.into())]
#[case::not_in_byte_order(b"a", b"B", OrderError::OutOfOrder { previous: b"a".into(), name: b"B".into() }.into())]
#[case::prefix_last(b"ab", b"a", OrderError::OutOfOrder { previous: b"ab".into(), name: b"a".into() }.into())]
#[case::signed_bytes(b"\x80", b"\x7f", OrderError::OutOfOrder { previous: b"\x80".into(), name: b"\x7f".into() }.into())]
#[case::duplicate(b"a", b"a", OrderError::Duplicate { name: b"a".into() }.into())]
fn two_entries(#[case] first: &[u8], #[case] second: &[u8], #[case] expected: Malformation) {
    let mut words: Vec<&[u8]> = vec![MAGIC, b"(", b"type", b"directory"];
    words.extend(entry(first));
    words.extend([&b"entry"[..], b"(", b"name", b"|", second, b"node"]);
    let (mut nar, place) = spell(&words);
    nar.resize(nar.len() + 512, 0);
    assert_eq!(first_error(&nar, &DecodeOptions::default()), (place, ".".into(), expected));
}

#[rstest]
#[case::of_a_keyword(33)]
#[case::of_contents(109)]
#[case::last_of_contents(111)]
#[case::of_the_last_parenthesis(127)]
fn padding_that_is_not_zero(#[case] offset: usize) {
    // '(' at 32, 13 bytes of contents at 96, ')' at 120.
    let mut nar = Tree::file("hello, sailor").naive_nar();
    assert_eq!((nar.len(), nar[offset]), (128, 0));
    nar[offset] = 1;
    let expected = (offset as u64, ".".into(), Malformation::NonZeroPadding);
    assert_eq!(first_error(&nar, &DecodeOptions::default()), expected);
}

#[rstest]
#[case::of_the_magic(Tree::file(""), b"nix-archive-1", Malformation::BadMagic)]
#[case::of_a_name(Tree::directory([("a name", Tree::file(""))]), b"a name", Malformation::NonZeroPadding)]
#[case::of_a_target(Tree::Symlink(b"where".into()), b"where", Malformation::NonZeroPadding)]
#[case::of_the_executable_mark(
    Tree::File { executable: true, contents: Vec::new() }, b"executable", Malformation::NonZeroPadding
)]
fn padding_of_strings(#[case] tree: Tree, #[case] text: &[u8], #[case] expected: Malformation) {
    let mut nar = tree.naive_nar();
    let start = nar.windows(text.len()).position(|window| window == text).unwrap();
    let padding = start + text.len();
    nar[padding] = b'!';
    let (offset, _, kind) = first_error(&nar, &DecodeOptions::default());
    // Without its magic, an archive is no archive from the start.
    let place = if expected == Malformation::BadMagic { 0 } else { padding as u64 };
    assert_eq!((offset, kind), (place, expected));
}

/// A file inside so many directories.
fn nested(directories: usize) -> Vec<u8> {
    let tree = (0..directories).fold(Tree::file("bottom"), |tree, _| Tree::directory([("d", tree)]));
    tree.naive_nar()
}

#[test]
fn nesting_is_limited_as_configured() {
    let nix = decode_options(|options| options.max_depth = NIX_MAX_DEPTH);
    assert_eq!(decode(&nested(63)[..], &nix).error, None);
    // Magic, and what is before the node of each level: '(' 'type' 'directory' 'entry' '(' 'name' 'd' 'node'.
    let place = 24 + 64 * (16 + 16 + 24 + 16 + 16 + 16 + 16 + 16);
    let (offset, path, kind) = first_error(&nested(64), &nix);
    assert_eq!((offset, kind), (place, Malformation::TooDeep { limit: 63 }));
    assert_eq!(path.len(), 64 * 2 - 1);
    assert_eq!(decode(&nested(100)[..], &DecodeOptions::default()).error, None);
    assert_eq!(decode(&nested(1000)[..], &DecodeOptions::default()).error, None);
    let (_, _, kind) = first_error(&nested(1001), &decode_options(|options| options.max_depth = 1000));
    assert_eq!(kind, Malformation::TooDeep { limit: 1000 });
}

#[test]
fn an_archive_that_ends_anywhere_is_an_error_there() {
    let tree = Tree::directory([
        ("a", Tree::File { executable: true, contents: b"first".into() }),
        ("b", Tree::directory([("c", Tree::Symlink(b"somewhere".into()))])),
    ]);
    let nar = tree.naive_nar();
    for end in 0..nar.len() {
        let (offset, _, kind) = first_error(&nar[..end], &DecodeOptions::default());
        assert_eq!((offset, kind), (end as u64, Malformation::UnexpectedEof));
        let announced = decode_options(|options| options.nar_size = Some(nar.len() as u64));
        let (offset, _, kind) = first_error(&nar[..end], &announced);
        assert_eq!((offset, kind), (end as u64, Malformation::UnexpectedEof));
    }
    assert_eq!(decode(&nar[..], &DecodeOptions::default()).error, None);
}

#[rstest]
#[case::all_ones(u64::MAX)]
#[case::sign_bit(1 << 63)]
#[case::wraps_when_padded(u64::MAX - 6)]
#[case::four_gigabytes(1 << 32)]
fn absurd_lengths_allocate_nothing(#[case] length: u64) {
    let words: [&[&[u8]]; 5] = [
        words![b"|"],
        words![MAGIC, b"|"],
        words![MAGIC, b"(", b"type", b"directory", b"entry", b"(", b"name", b"|"],
        words![MAGIC, b"(", b"type", b"symlink", b"target", b"|"],
        words![MAGIC, b"(", b"type", b"regular", b"executable", b"|"],
    ];
    for words in words {
        let (mut nar, place) = spell(words);
        nar.extend_from_slice(&length.to_le_bytes());
        let (offset, _, kind) = first_error(&nar, &DecodeOptions::default());
        assert_eq!(offset, place);
        assert_ne!(kind, Malformation::UnexpectedEof);
    }
    // A file may be that long, if only its contents would come.
    let (mut nar, _) = spell(words![MAGIC, b"(", b"type", b"regular", b"contents", b"|"]);
    nar.extend_from_slice(&length.to_le_bytes());
    nar.extend_from_slice(b"contents");
    let decoded = decode(&nar[..], &DecodeOptions::default());
    assert_eq!(decoded.contents, [b"contents"]);
    assert!(decoded.error.unwrap().contains("UnexpectedEof"));
}

/// An allocation that an archive claims would fail where all of memory is as small as this. (Merely to
/// reserve memory costs nothing and would pass unnoticed.)
#[test]
#[cfg(target_os = "linux")]
fn absurd_lengths_allocate_nothing_where_there_is_little() {
    let outcome = std::process::Command::new("sh")
        .args([
            "-c",
            "ulimit -v 65536 && exec \"$0\" --test-threads=1 malformed::absurd_lengths_allocate_nothing::",
        ])
        .arg(std::env::current_exe().unwrap())
        .env("MALLOC_ARENA_MAX", "1")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&outcome.stdout);
    let errors = String::from_utf8_lossy(&outcome.stderr);
    assert!(outcome.status.success() && output.contains("4 passed"), "{output}{errors}");
}

#[test]
fn an_error_is_found_again() {
    let (mut nar, place) = spell(words![MAGIC, b"(", b"type", b"directory", b"|", b"x"]);
    nar.resize(nar.len() + 64, 0);
    let mut decoder = Decoder::new(&nar[..]);
    assert!(decoder.next_event().unwrap().is_some());
    for _ in 0..3 {
        let error = decoder.next_event().unwrap_err();
        assert!(matches!(error, Error::Malformed { offset, .. } if offset == place));
    }
}

#[test]
fn names_need_not_be_text() {
    let mut words: Vec<&[u8]> = vec![MAGIC, b"(", b"type", b"directory"];
    let names: [&[u8]; 5] = [b"\n", b"...", b"a b", b"a\\", b"\xff\xfe"];
    for name in names {
        words.extend(entry(name));
    }
    words.extend([&b")"[..], b"|"]);
    let (nar, end) = spell(&words);
    let decoded = decode(&nar[..], &DecodeOptions::default());
    assert_eq!((decoded.error, decoded.position), (None, end));
}
