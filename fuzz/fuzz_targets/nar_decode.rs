//! The decoder accepts exactly what the encoder writes, however the bytes are cut.
#![no_main]

use std::io::{self, Read};

use libfuzzer_sys::fuzz_target;
use ncc_nar::{DecodeOptions, Decoder, Encoder, Error, list_with_options};

fuzz_target!(|data: &[u8]| {
    // Inputs are small; allocating the usual buffers would be most of the work.
    let options = DecodeOptions::new().buffer_size(32 * 1024);
    let whole = reencode(data, &options);
    // Small pieces through the smallest buffer.
    let pieces = reencode(Pieces(data), &DecodeOptions::new().buffer_size(0));
    match (&whole, &pieces) {
        (Ok((nar, position)), Ok(again)) => {
            assert_eq!(&data[..nar.len()], nar, "accepted something else than the canonical form");
            assert_eq!(*position, nar.len() as u64);
            assert_eq!(&(nar.clone(), *position), again);
            let announced = options.clone().nar_size(*position);
            assert_eq!(&reencode(data, &announced).unwrap().0, nar);
        }
        (Err(one), Err(other)) => assert_eq!(format!("{one:?}"), format!("{other:?}")),
        _ => panic!("the verdict depends on how the bytes were cut: {whole:?}, {pieces:?}"),
    }
    let errors = list_with_options(data, &options).filter(|entry| entry.is_err()).count();
    assert_eq!(errors, usize::from(whole.is_err()));
});

fn reencode(reader: impl Read, options: &DecodeOptions) -> Result<(Vec<u8>, u64), Error> {
    let mut decoder = Decoder::with_options(reader, options);
    let mut encoder = Encoder::with_buffer_size(Vec::new(), 0);
    while let Some(event) = decoder.next_event()? {
        encoder.event(&event).expect("what was decoded can be encoded");
        if let Err(error) = encoder.contents_from(&mut decoder.contents()) {
            return Err(error.downcast().expect("readers of slices do not fail"));
        }
    }
    let nar = encoder.finish().expect("the decoder said that this is all");
    Ok((nar, decoder.position()))
}

struct Pieces<'a>(&'a [u8]);

impl Read for Pieces<'_> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let count = (1 + self.0.len() % 13).min(target.len());
        self.0.read(&mut target[..count])
    }
}
