//! Whatever text names a store is read or refused. What is read is the same when it is read again, and every directory
//! that a choice of store leads to is absolute.
#![no_main]

use std::{io, path::Path};

use libfuzzer_sys::fuzz_target;
use ncc_settings::{Environment, FileSystem, LocalLayout, Origin, StoreChoice, StorePlace, StoreReference};

/// A machine with nothing on it.
struct Empty;

impl FileSystem for Empty {
    fn read(&self, _: &Path, _: u64) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn exists(&self, _: &Path) -> bool {
        false
    }

    fn is_writable(&self, _: &Path) -> bool {
        false
    }
}

fuzz_target!(|text: &str| {
    let environment = Environment::empty("/work");
    let Ok(reference) = StoreReference::parse(text, &environment.working_directory) else { return };
    assert_eq!(
        StoreReference::parse(&reference.text, &environment.working_directory).as_ref(),
        Ok(&reference)
    );
    let Ok(choice) = StoreChoice::of(reference, Origin::CommandLine, &environment, &Empty) else { return };
    let _ = choice.to_string();
    match &choice.place {
        StorePlace::Local(layout) => check(layout),
        StorePlace::Daemon { socket, layout } => {
            assert!(socket.is_absolute(), "{choice:?}");
            check(layout);
        }
        _ => {}
    }
});

fn check(layout: &LocalLayout) {
    for directory in [&layout.real_store_dir, &layout.state_dir, &layout.log_dir] {
        assert!(directory.is_absolute(), "{layout:?}");
        assert!(directory.components().all(|part| part.as_os_str() != ".."), "{layout:?}");
    }
}
