use std::io::Read;

use ncc_nar::{
    CaseHack, DecodeOptions, Decoder, Encoder, EntryNameRef, Error, Event, Executable, Listing, Metadata,
    PackOptions, Parser, Step, UnpackOptions, Unpacker, pack, remove, size_of, unpack,
};
use proptest::prelude::*;

use crate::tree::{InPieces, decode, decode_options, trees, unpack_options};

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn encoding_is_what_the_grammar_says(tree in trees()) {
        prop_assert_eq!(tree.encode(), tree.naive_nar());
    }

    #[test]
    fn decoding_then_encoding_gives_the_same_bytes(tree in trees()) {
        let nar = tree.naive_nar();
        let mut decoder = Decoder::new(&nar[..]);
        let mut encoder = Encoder::with_block_size(Vec::new(), 1);
        while let Some(event) = decoder.next_event().unwrap() {
            encoder.event(&event).unwrap();
            encoder.contents_from(&mut decoder.contents()).unwrap();
        }
        prop_assert_eq!(encoder.position(), nar.len() as u64);
        prop_assert_eq!(encoder.finish().unwrap(), nar);
    }

    #[test]
    fn decoding_takes_exactly_the_archive(tree in trees(), sizes in prop::collection::vec(1_usize..5000, 1..5)) {
        let mut stream = tree.naive_nar();
        let size = stream.len();
        stream.extend_from_slice(b"what follows is not ours");
        for buffer_size in [0, 100_000] {
            let reader = InPieces { bytes: &stream, sizes: sizes.clone(), turn: 0 };
            let options = decode_options(|options| options.buffer_size = buffer_size);
            let mut decoder = Decoder::with_options(reader, &options);
            while decoder.next_event().unwrap().is_some() {}
            prop_assert_eq!(decoder.position(), size as u64);
            let mut rest = Vec::new();
            decoder.into_inner().read_to_end(&mut rest).unwrap();
            prop_assert_eq!(&rest[..], b"what follows is not ours");
        }
    }

    #[test]
    fn the_announced_size_is_a_limit_too(tree in trees(), sizes in prop::collection::vec(1_usize..9000, 1..5)) {
        let mut stream = tree.naive_nar();
        let size = stream.len() as u64;
        stream.extend_from_slice(&[0; 64]);
        let expected = decode(&stream[..], &DecodeOptions::default());
        let reader = InPieces { bytes: &stream, sizes, turn: 0 };
        prop_assert_eq!(&decode(reader, &decode_options(|options| options.nar_size = Some(size))), &expected);

        let shorter = decode(&stream[..], &decode_options(|options| options.nar_size = Some(size - 8)));
        prop_assert!(shorter.error.unwrap().contains("LongerThanAnnounced"));
        let longer = decode(&stream[..], &decode_options(|options| options.nar_size = Some(size + 8)));
        prop_assert!(longer.error.unwrap().contains("ShorterThanAnnounced"));
    }

    #[test]
    fn decoding_does_not_depend_on_how_the_bytes_were_cut(
        tree in trees(),
        sizes in prop::collection::vec(1_usize..40, 1..5),
        mutation in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut nar = tree.naive_nar();
        if let Some((index, byte)) = mutation {
            let index = index.index(nar.len());
            nar[index] = byte;
        }
        if let Some(cut) = cut {
            nar.truncate(cut.index(nar.len()));
        }
        let whole = decode(&nar[..], &DecodeOptions::default());
        let pieces = decode(InPieces { bytes: &nar, sizes, turn: 0 }, &decode_options(|options| options.buffer_size = 0));
        prop_assert_eq!(&pieces, &whole);
        prop_assert_eq!(&parse_byte_by_byte(&nar), &(whole.events, whole.position, whole.error));
    }

    #[test]
    fn nothing_that_bytes_do_makes_it_panic(
        tree in trees(),
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4), 1..12),
    ) {
        let mut nar = tree.naive_nar();
        for (index, byte, how) in mutations {
            let index = index.index(nar.len());
            match how {
                0 => nar[index] = byte,
                1 => nar.insert(index, byte),
                2 => drop(nar.remove(index)),
                _ => nar.rotate_left(index / 8 * 8),
            }
            if nar.is_empty() {
                break;
            }
            let decoded = decode(&nar[..], &DecodeOptions::default());
            prop_assert!(decoded.position <= nar.len() as u64);
            let listed = Listing::read(&nar[..], &DecodeOptions::default());
            prop_assert_eq!(listed.err().map(|error| format!("{error:?}")), decoded.error);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    #[cfg_attr(target_os = "macos", ignore = "its file systems refuse names that are not UTF-8")]
    fn trees_survive_the_disk(tree in trees(), canonical: bool) {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("source");
        tree.write_to(&source).unwrap();
        let nar = tree.naive_nar();
        let options = PackOptions::default();

        let mut packed = Vec::new();
        prop_assert_eq!(pack(&source, &mut packed, &options).unwrap(), nar.len() as u64);
        prop_assert!(packed == nar);
        prop_assert_eq!(size_of(&source, &options).unwrap(), nar.len() as u64);

        let target = directory.path().join("target");
        let unpack_options = unpack_options(|options| {
            options.metadata = if canonical { Metadata::Canonical } else { Metadata::Plain };
        });
        prop_assert_eq!(unpack(&nar[..], &target, &unpack_options).unwrap(), nar.len() as u64);
        packed.clear();
        pack(&target, &mut packed, &options).unwrap();
        prop_assert!(packed == nar);

        remove(&target).unwrap();
        prop_assert!(target.symlink_metadata().is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    #[cfg_attr(target_os = "macos", ignore = "its file systems refuse names that are not UTF-8")]
    fn pulling_and_pushing_give_the_same_tree_or_the_same_error(
        tree in trees(),
        sizes in prop::collection::vec(1_usize..700, 1..5),
        mutation in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        cut in prop::option::of(any::<prop::sample::Index>()),
        announced: bool,
    ) {
        let mut nar = tree.naive_nar();
        let size = nar.len() as u64;
        if let Some((index, byte)) = mutation {
            let index = index.index(nar.len());
            nar[index] = byte;
        }
        nar.extend_from_slice(b"what follows");
        if let Some(cut) = cut {
            nar.truncate(cut.index(nar.len()));
        }
        let options = unpack_options(|options| {
            options.case_hack = CaseHack::Off;
            options.decode.nar_size = announced.then_some(size);
        });
        let directory = tempfile::tempdir().unwrap();
        // In the directory of their own name, so that errors name the same paths.
        let targets = ["pulled", "pushed"].map(|name| directory.path().join(name).join("target"));
        for target in &targets {
            std::fs::create_dir(target.parent().unwrap()).unwrap();
        }
        let pulled = unpack(&nar[..], &targets[0], &options);
        let pushed = push(&nar, &sizes, &targets[1], &options);
        let message = |outcome: Result<u64, Error>| {
            outcome.map_err(|error| format!("{error:?}").replace("/pulled/", "/pushed/"))
        };
        prop_assert_eq!(message(pulled), message(pushed));
        let packed = targets.map(|target| {
            let mut packed = Vec::new();
            pack(&target, &mut packed, &PackOptions::default()).map_err(|error| error.io_kind()).map(|_| packed)
        });
        prop_assert!(packed[0] == packed[1]);
    }
}

/// The archive through an [`Unpacker`], in pieces whose sizes come from `sizes`.
fn push(
    mut bytes: &[u8],
    sizes: &[usize],
    target: &std::path::Path,
    options: &UnpackOptions,
) -> Result<u64, Error> {
    let mut unpacker = Unpacker::new(target, options)?;
    let mut position = 0;
    for size in sizes.iter().cycle() {
        if bytes.is_empty() || unpacker.is_complete() {
            break;
        }
        let (now, later) = bytes.split_at((*size).min(bytes.len()));
        let taken = unpacker.push(now)?;
        assert!(taken == now.len() || unpacker.is_complete());
        position += taken as u64;
        assert_eq!(unpacker.position(), position);
        bytes = later;
    }
    unpacker.finish()
}

/// The archive through a [`Parser`] that gets to see one byte more each time.
fn parse_byte_by_byte(nar: &[u8]) -> (Vec<String>, u64, Option<String>) {
    let mut parser = Parser::new();
    let mut events = Vec::new();
    let (mut start, mut end) = (0, 0);
    let error = loop {
        match parser.step(&nar[start..end]) {
            Err(error) => break Some(error),
            Ok((consumed, step)) => {
                let input = &nar[start..end];
                start += consumed;
                let event = match step {
                    Step::Directory => Event::Directory,
                    Step::Entry { name } => Event::Entry(EntryNameRef::new(&input[name]).unwrap()),
                    Step::Regular { executable, size } => Event::Regular { executable, size },
                    Step::Symlink { target } => Event::Symlink { target: &input[target] },
                    Step::DirectoryEnd => Event::DirectoryEnd,
                    Step::Contents => {
                        assert_eq!(consumed, 1);
                        continue;
                    }
                    Step::End => break None,
                    Step::More { needed, certain } if end - start < needed => {
                        assert!(certain >= needed as u64);
                        if end == nar.len() {
                            break Some(parser.unexpected_end(end - start));
                        }
                        end += 1;
                        continue;
                    }
                    Step::More { .. } => continue,
                };
                events.push(format!("{event:?}"));
            }
        }
    };
    (events, parser.position(), error.map(|error| format!("{error:?}")))
}

#[test]
fn contents_can_be_left_unread() {
    let mut encoder = Encoder::new(Vec::new());
    encoder.file(Executable::No, vec![1; 1_000_000]).unwrap();
    let nar = encoder.finish().unwrap();
    let mut decoder = Decoder::new(&nar[..]);
    assert_eq!(
        decoder.next_event().unwrap(),
        Some(Event::Regular { executable: Executable::No, size: 1_000_000 })
    );
    let mut some = [0; 1000];
    decoder.contents().read_exact(&mut some).unwrap();
    assert_eq!((some, decoder.contents().remaining()), ([1; 1000], 999_000));
    assert_eq!(decoder.next_event().unwrap(), None);
    assert_eq!(decoder.position(), nar.len() as u64);
}
