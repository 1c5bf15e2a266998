use std::io::Read;

use ncc_nar::{
    DecodeOptions, Decoder, Encoder, Event, Metadata, PackOptions, Parser, Step, UnpackOptions, Zeroes, list,
    pack, remove, size_of, unpack,
};
use proptest::prelude::*;

use crate::tree::{InPieces, decode, trees};

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
        let mut encoder = Encoder::with_buffer_size(Vec::new(), 0);
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
            let options = DecodeOptions::new().buffer_size(buffer_size);
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
        let expected = decode(&stream[..], &DecodeOptions::new());
        let reader = InPieces { bytes: &stream, sizes, turn: 0 };
        prop_assert_eq!(&decode(reader, &DecodeOptions::new().nar_size(size)), &expected);

        let shorter = decode(&stream[..], &DecodeOptions::new().nar_size(size - 8));
        prop_assert!(shorter.error.unwrap().contains("LongerThanAnnounced"));
        let longer = decode(&stream[..], &DecodeOptions::new().nar_size(size + 8));
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
        let whole = decode(&nar[..], &DecodeOptions::new());
        let pieces = decode(InPieces { bytes: &nar, sizes, turn: 0 }, &DecodeOptions::new().buffer_size(0));
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
            let decoded = decode(&nar[..], &DecodeOptions::new());
            prop_assert!(decoded.position <= nar.len() as u64);
            let listed = list(&nar[..]).filter(Result::is_err).count();
            prop_assert_eq!(listed, usize::from(decoded.error.is_some()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    #[cfg_attr(target_os = "macos", ignore = "its file systems refuse names that are not UTF-8")]
    fn trees_survive_the_disk(tree in trees(), canonical: bool, skip_zeroes: bool) {
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
        let unpack_options = UnpackOptions::new()
            .metadata(if canonical { Metadata::Canonical } else { Metadata::Plain })
            .zeroes(if skip_zeroes { Zeroes::Skip } else { Zeroes::Write });
        prop_assert_eq!(unpack(&mut &nar[..], &target, &unpack_options).unwrap(), nar.len() as u64);
        packed.clear();
        pack(&target, &mut packed, &options).unwrap();
        prop_assert!(packed == nar);

        remove(&target).unwrap();
        prop_assert!(target.symlink_metadata().is_err());
    }
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
                start += consumed;
                match step {
                    Step::Event(event) => events.push(format!("{event:?}")),
                    Step::Contents { length } => assert!((1..=consumed).contains(&length)),
                    Step::End => break None,
                    Step::More { needed, certain } if end - start < needed => {
                        assert!(certain >= needed as u64);
                        if end == nar.len() {
                            break Some(parser.unexpected_end(end - start));
                        }
                        end += 1;
                    }
                    Step::More { .. } => {}
                }
            }
        }
    };
    (events, parser.position(), error.map(|error| format!("{error:?}")))
}

#[test]
fn contents_can_be_left_unread() {
    let mut encoder = Encoder::new(Vec::new());
    encoder.file(false, vec![1; 1_000_000]).unwrap();
    let nar = encoder.finish().unwrap();
    let mut decoder = Decoder::new(&nar[..]);
    assert_eq!(decoder.next_event().unwrap(), Some(Event::Regular { executable: false, size: 1_000_000 }));
    let mut some = [0; 1000];
    decoder.contents().read_exact(&mut some).unwrap();
    assert_eq!((some, decoder.contents().remaining()), ([1; 1000], 999_000));
    assert_eq!(decoder.next_event().unwrap(), None);
    assert_eq!(decoder.position(), nar.len() as u64);
}
