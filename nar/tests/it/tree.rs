//! Trees in memory, and a second, naive encoder to compare with.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    io::{self, Read},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::Path,
};

use ncc_nar::{DecodeOptions, Decoder, Encoder, Error, Event, Executable, PackOptions, UnpackOptions};
use proptest::prelude::*;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tree {
    File { executable: bool, contents: Vec<u8> },
    Symlink(Vec<u8>),
    Directory(BTreeMap<Vec<u8>, Tree>),
}

impl Tree {
    pub(crate) fn file(contents: impl Into<Vec<u8>>) -> Self {
        Self::File { executable: false, contents: contents.into() }
    }

    pub(crate) fn directory<N: Into<Vec<u8>>>(entries: impl IntoIterator<Item = (N, Tree)>) -> Self {
        Self::Directory(entries.into_iter().map(|(name, tree)| (name.into(), tree)).collect())
    }

    /// As the grammar has it, without any code of the crate.
    pub(crate) fn naive_nar(&self) -> Vec<u8> {
        let mut nar = Vec::new();
        string(&mut nar, b"nix-archive-1");
        self.naive_node(&mut nar);
        nar
    }

    fn naive_node(&self, nar: &mut Vec<u8>) {
        string(nar, b"(");
        string(nar, b"type");
        match self {
            Self::File { executable, contents } => {
                string(nar, b"regular");
                if *executable {
                    string(nar, b"executable");
                    string(nar, b"");
                }
                string(nar, b"contents");
                string(nar, contents);
            }
            Self::Symlink(target) => {
                for text in [&b"symlink"[..], b"target", target] {
                    string(nar, text);
                }
            }
            Self::Directory(entries) => {
                string(nar, b"directory");
                for (name, node) in entries {
                    for text in [&b"entry"[..], b"(", b"name", name, b"node"] {
                        string(nar, text);
                    }
                    node.naive_node(nar);
                    string(nar, b")");
                }
            }
        }
        string(nar, b")");
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new());
        self.encode_node(&mut encoder).unwrap();
        encoder.finish().unwrap()
    }

    fn encode_node(&self, encoder: &mut Encoder<Vec<u8>>) -> Result<(), Error> {
        match self {
            Self::File { executable, contents } => {
                encoder.regular(Executable::from(*executable), contents.len() as u64)?;
                // In pieces of odd sizes.
                contents.chunks(1013).try_for_each(|chunk| encoder.contents(chunk))
            }
            Self::Symlink(target) => encoder.symlink(target),
            Self::Directory(entries) => {
                encoder.directory()?;
                for (name, node) in entries {
                    encoder.entry(name)?;
                    node.encode_node(encoder)?;
                }
                encoder.directory_end()
            }
        }
    }

    pub(crate) fn write_to(&self, path: &Path) -> io::Result<()> {
        match self {
            Self::File { executable, contents } => {
                fs::write(path, contents)?;
                let mode = if *executable { 0o755 } else { 0o644 };
                fs::set_permissions(path, fs::Permissions::from_mode(mode))
            }
            Self::Symlink(target) => std::os::unix::fs::symlink(OsStr::from_bytes(target), path),
            Self::Directory(entries) => {
                fs::create_dir(path)?;
                entries.iter().try_for_each(|(name, tree)| tree.write_to(&path.join(OsStr::from_bytes(name))))
            }
        }
    }
}

pub(crate) fn decode_options(change: impl FnOnce(&mut DecodeOptions)) -> DecodeOptions {
    let mut options = DecodeOptions::default();
    change(&mut options);
    options
}

pub(crate) fn unpack_options(change: impl FnOnce(&mut UnpackOptions)) -> UnpackOptions {
    let mut options = UnpackOptions::default();
    change(&mut options);
    options
}

pub(crate) fn pack_options(change: impl FnOnce(&mut PackOptions)) -> PackOptions {
    let mut options = PackOptions::default();
    change(&mut options);
    options
}

pub(crate) fn string(nar: &mut Vec<u8>, bytes: &[u8]) {
    nar.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    nar.extend_from_slice(bytes);
    nar.resize(nar.len().next_multiple_of(8), 0);
}

/// Everything a decoder says about an archive, as one value.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Decoded {
    pub(crate) events: Vec<String>,
    pub(crate) contents: Vec<Vec<u8>>,
    pub(crate) position: u64,
    pub(crate) error: Option<String>,
}

pub(crate) fn decode(reader: impl Read, options: &DecodeOptions) -> Decoded {
    let mut archive = Decoder::with_options(reader, options);
    let mut decoded = Decoded::default();
    let outcome = (|| -> Result<(), Error> {
        while let Some(event) = archive.next_event()? {
            decoded.events.push(format!("{event:?}"));
            if matches!(event, Event::Regular { .. }) {
                let mut contents = Vec::new();
                let outcome = archive.contents().read_to_end(&mut contents);
                decoded.contents.push(contents);
                if let Err(error) = outcome {
                    return Err(error.downcast::<Error>().unwrap());
                }
            }
        }
        Ok(())
    })();
    decoded.error = outcome.err().map(|error| format!("{error:?}"));
    decoded.position = archive.position();
    decoded
}

/// Gives `bytes` away in pieces whose sizes come from `sizes`, round and round.
pub(crate) struct InPieces<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) sizes: Vec<usize>,
    pub(crate) turn: usize,
}

impl Read for InPieces<'_> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let size = self.sizes[self.turn % self.sizes.len()].max(1);
        self.turn += 1;
        if self.turn.is_multiple_of(7) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let count = size.min(target.len()).min(self.bytes.len());
        target[..count].copy_from_slice(&self.bytes[..count]);
        self.bytes = &self.bytes[count..];
        Ok(count)
    }
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        // Few letters, so that names share prefixes and the order matters.
        proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'B'), Just(b'-'), Just(b'.')], 1..5),
        proptest::collection::vec(any::<u8>(), 1..32),
        proptest::collection::vec(any::<u8>(), 240..=255),
    ]
    .prop_map(|mut name| {
        for byte in &mut name {
            if matches!(byte, 0 | b'/') {
                *byte = b'\n';
            }
        }
        if matches!(&name[..], b"." | b"..") { b"...".to_vec() } else { name }
    })
}

pub(crate) fn trees() -> impl Strategy<Value = Tree> {
    let contents = prop_oneof![
        8 => proptest::collection::vec(any::<u8>(), 0..40),
        1 => proptest::collection::vec(any::<u8>(), 4000..20_000),
    ];
    let target = proptest::collection::vec(1_u8.., 1..64);
    let leaf = prop_oneof![
        (any::<bool>(), contents).prop_map(|(executable, contents)| Tree::File { executable, contents }),
        target.prop_map(Tree::Symlink),
        Just(Tree::Directory(BTreeMap::new())),
    ];
    leaf.prop_recursive(6, 48, 8, |inner| {
        proptest::collection::btree_map(name(), inner, 0..8).prop_map(Tree::Directory)
    })
}
