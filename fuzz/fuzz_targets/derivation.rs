//! Reading a `.drv` file does not panic; what is accepted has one canonical text, which reads as the same; and neither
//! messages nor the check of the output paths bring anything harmful about.
#![no_main]

use std::error::Error;

use libfuzzer_sys::fuzz_target;
use ncc_store::{Derivation, ModuloCache, StoreDir, StorePath};

fuzz_target!(|data: &[u8]| {
    let store_dir = StoreDir::default();
    let derivation = match Derivation::parse(data, &store_dir) {
        Ok(derivation) => derivation,
        Err(error) => return check_message(&error),
    };
    let text = derivation.to_bytes(&store_dir);
    let again = Derivation::parse(&text, &store_dir).expect("what was written can be read");
    assert_eq!(again, derivation);
    assert_eq!(again.to_bytes(&store_dir), text);

    let path = StorePath::from_base_name("nlhn6cma43vk5l44cgr8sw3ykiir1wmm-hi.drv").unwrap();
    let mut cache = ModuloCache::new(store_dir);
    // Inputs cannot be read.
    let checked = derivation.check_outputs(&path, &mut cache, |_| Err("not here".into()));
    if let Err(error) = checked {
        check_message(&error);
    }
});

fn check_message(error: &(dyn Error + 'static)) {
    let mut next = Some(error);
    while let Some(error) = next {
        next = error.source();
        let text = error.to_string();
        assert!(!text.contains(char::is_control), "{text:?}");
    }
}
