//! The decoder accepts exactly what the encoder writes, however the bytes are cut; parser and listings agree.
#![no_main]

use std::io::{self, Cursor, Read};

use libfuzzer_sys::fuzz_target;
use ncc_nar::{
    DecodeOptions, Decoder, Encoder, EntryNameRef, Error, Event, Listing, NodeKind, Parser, Step,
};

fuzz_target!(|data: &[u8]| {
    // Inputs are small; allocating the usual buffers would be most of the work.
    let options = decode_options(32 * 1024, None);
    let whole = reencode(data, &options);
    // Small pieces through the smallest buffer.
    let pieces = reencode(Pieces(data), &decode_options(0, None));
    let parsed = parse(data);
    match (&whole, &pieces, &parsed) {
        (Ok((nar, position)), Ok(again), Ok(parsed)) => {
            assert_eq!(&data[..nar.len()], nar, "accepted something else than the canonical form");
            assert_eq!(*position, nar.len() as u64);
            assert_eq!(&(nar.clone(), *position), again);
            assert_eq!(parsed, nar);
            let announced = decode_options(32 * 1024, Some(*position));
            assert_eq!(&reencode(data, &announced).unwrap().0, nar);
        }
        (Err(one), Err(two), Err(three)) => {
            assert_eq!(format!("{one:?}"), format!("{two:?}"));
            assert_eq!(format!("{one:?}"), format!("{three:?}"));
        }
        _ => panic!("the verdict depends on how the bytes were cut: {whole:?}, {pieces:?}, {parsed:?}"),
    }
    let listing = Listing::read(data, &options);
    let sought = Listing::read_seekable(Cursor::new(data), &decode_options(0, None));
    assert_eq!(listing.is_ok(), whole.is_ok());
    assert_eq!(sought.is_ok(), whole.is_ok(), "{sought:?}");
    let (Ok(listing), Ok(sought)) = (listing, sought) else { return };
    assert_eq!(listing, sought);
    // One file, found by its path.
    let files = listing.nodes().filter(|node| matches!(node.kind(), NodeKind::Regular { .. }));
    let Some(file) = files.last() else { return };
    let NodeKind::Regular { size, offset, .. } = *file.kind() else { return };
    let (start, end) = (offset as usize, (offset + size) as usize);
    let mut decoder = Decoder::with_options(Cursor::new(data), &decode_options(0, None));
    assert!(matches!(decoder.seek_to(&file.path()), Ok(Some(Event::Regular { size: found, .. })) if found == size));
    let mut contents = Vec::new();
    decoder.contents().read_to_end(&mut contents).unwrap();
    assert_eq!(contents, &data[start..end]);
});

fn decode_options(buffer_size: usize, nar_size: Option<u64>) -> DecodeOptions {
    let mut options = DecodeOptions::default();
    (options.buffer_size, options.nar_size) = (buffer_size, nar_size);
    options
}

fn reencode(reader: impl Read, options: &DecodeOptions) -> Result<(Vec<u8>, u64), Error> {
    let mut decoder = Decoder::with_options(reader, options);
    let mut encoder = Encoder::with_block_size(Vec::new(), 1);
    while let Some(event) = decoder.next_event()? {
        encoder.event(&event).expect("what was decoded can be encoded");
        if let Err(error) = encoder.contents_from(&mut decoder.contents()) {
            return Err(error.downcast().expect("readers of slices do not fail"));
        }
    }
    let nar = encoder.finish().expect("the decoder said that this is all");
    Ok((nar, decoder.position()))
}

/// The archive through a [`Parser`] that gets to see a few bytes more each time, and encoded again.
fn parse(data: &[u8]) -> Result<Vec<u8>, Error> {
    let mut parser = Parser::new();
    let mut encoder = Encoder::new(Vec::new());
    let (mut start, mut end) = (0, 0);
    loop {
        let input = &data[start..end];
        let (consumed, step) = parser.step(input)?;
        let used = &input[..consumed];
        start += consumed;
        let encoded = match step {
            Step::More { needed, certain } if end - start < needed => {
                assert!(certain >= needed as u64);
                if end == data.len() {
                    return Err(parser.unexpected_end(end - start));
                }
                end = (end + 1 + end % 7).min(data.len());
                continue;
            }
            Step::More { .. } => continue,
            Step::Directory => encoder.directory(),
            Step::Entry { name } => encoder.entry(EntryNameRef::new(&input[name]).unwrap()),
            Step::Regular { executable, size } => encoder.regular(executable, size),
            Step::Symlink { target } => encoder.symlink(&input[target]),
            Step::Contents => encoder.contents(used),
            Step::DirectoryEnd => encoder.directory_end(),
            Step::End => return Ok(encoder.finish().expect("the parser said that this is all")),
        };
        encoded.expect("what was parsed can be encoded");
    }
}

struct Pieces<'a>(&'a [u8]);

impl Read for Pieces<'_> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let count = (1 + self.0.len() % 13).min(target.len());
        self.0.read(&mut target[..count])
    }
}
