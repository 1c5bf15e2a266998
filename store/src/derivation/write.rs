//! From a [`Derivation`] to bytes: the file itself, and the two texts that are hashed.

use std::collections::{BTreeMap, BTreeSet};

use super::{Derivation, DerivationOutput, WantedOutputs, method_prefix, parse::DYNAMIC_VERSION};
use crate::StoreDir;

/// Whether the output paths stand in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnOutputs {
    /// As in the file.
    Shown,
    /// Empty, in the list of outputs and in the environment: they are what is to be computed.
    Blank,
}

/// Wanted outputs by the hash, in base 16, that stands in for the path of the input derivation.
pub(super) type HashedInputs<'a> = BTreeMap<String, BTreeSet<&'a str>>;

/// The file.
pub(super) fn derivation(derivation: &Derivation, store_dir: &StoreDir) -> Vec<u8> {
    let mut writer = Writer { text: Vec::new(), store_dir };
    writer.front(derivation, OwnOutputs::Shown);
    writer.list(&derivation.input_derivations, |writer, (path, wanted)| {
        writer.raw(b"(");
        writer.string(writer.store_dir.full(path).as_bytes());
        writer.raw(b",");
        writer.wanted(wanted);
        writer.raw(b")");
    });
    writer.back(derivation, OwnOutputs::Shown);
    writer.text
}

/// The text whose hash identifies the derivation: its inputs are named by their own such hash.
pub(super) fn modulo(
    derivation: &Derivation,
    store_dir: &StoreDir,
    own: OwnOutputs,
    inputs: &HashedInputs<'_>,
) -> Vec<u8> {
    let mut writer = Writer { text: Vec::new(), store_dir };
    writer.front(derivation, own);
    writer.list(inputs, |writer, (hash, wanted)| {
        writer.raw(b"(");
        writer.string(hash.as_bytes());
        writer.raw(b",");
        writer.list(wanted, |writer, name| writer.string(name.as_bytes()));
        writer.raw(b")");
    });
    writer.back(derivation, own);
    writer.text
}

struct Writer<'a> {
    text: Vec<u8>,
    store_dir: &'a StoreDir,
}

impl Writer<'_> {
    /// Up to the comma before the input derivations.
    fn front(&mut self, derivation: &Derivation, own: OwnOutputs) {
        if derivation.is_dynamic() {
            self.raw(b"DrvWithVersion(");
            self.string(DYNAMIC_VERSION.as_bytes());
            self.raw(b",");
        } else {
            self.raw(b"Derive(");
        }
        self.list(&derivation.outputs, |writer, (name, output)| writer.output(name, output, own));
        self.raw(b",");
    }

    /// From the comma behind the input derivations.
    fn back(&mut self, derivation: &Derivation, own: OwnOutputs) {
        self.raw(b",");
        self.list(&derivation.input_sources, |writer, path| {
            writer.string(writer.store_dir.full(path).as_bytes());
        });
        self.raw(b",");
        self.string(&derivation.platform);
        self.raw(b",");
        self.string(&derivation.builder);
        self.raw(b",");
        self.list(&derivation.arguments, |writer, argument| writer.string(argument));
        self.raw(b",");
        self.list(&derivation.environment, |writer, (name, value)| {
            let is_output =
                || std::str::from_utf8(name).is_ok_and(|name| derivation.outputs.contains_key(name));
            let blank = own == OwnOutputs::Blank && is_output();
            writer.raw(b"(");
            writer.string(name);
            writer.raw(b",");
            writer.string(if blank { b"" } else { value });
            writer.raw(b")");
        });
        self.raw(b")");
    }

    fn output(&mut self, name: &str, output: &DerivationOutput, own: OwnOutputs) {
        let (path, algorithm, hash) = match output {
            DerivationOutput::InputAddressed(path) => {
                let path = (own == OwnOutputs::Shown).then(|| self.store_dir.full(path));
                (path.unwrap_or_default(), String::new(), String::new())
            }
            DerivationOutput::Fixed { path, address } => {
                let algorithm = format!("{}{}", method_prefix(address.method()), address.hash().algorithm());
                (self.store_dir.full(path), algorithm, address.hash().to_base16())
            }
            DerivationOutput::Floating { method, algorithm } => {
                (String::new(), format!("{}{algorithm}", method_prefix(*method)), String::new())
            }
            DerivationOutput::Deferred => (String::new(), String::new(), String::new()),
            DerivationOutput::Impure { method, algorithm } => {
                (String::new(), format!("{}{algorithm}", method_prefix(*method)), "impure".to_owned())
            }
        };
        self.raw(b"(");
        self.string(name.as_bytes());
        for text in [path, algorithm, hash] {
            self.raw(b",");
            self.string(text.as_bytes());
        }
        self.raw(b")");
    }

    fn wanted(&mut self, wanted: &WantedOutputs) {
        if wanted.dynamic.is_empty() {
            self.list(&wanted.names, |writer, name| writer.string(name.as_bytes()));
            return;
        }
        self.raw(b"(");
        self.list(&wanted.names, |writer, name| writer.string(name.as_bytes()));
        self.raw(b",");
        self.list(&wanted.dynamic, |writer, (name, inner)| {
            writer.raw(b"(");
            writer.string(name.as_bytes());
            writer.raw(b",");
            writer.wanted(inner);
            writer.raw(b")");
        });
        self.raw(b")");
    }

    fn list<T>(&mut self, items: impl IntoIterator<Item = T>, mut write: impl FnMut(&mut Self, T)) {
        self.raw(b"[");
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.raw(b",");
            }
            write(self, item);
        }
        self.raw(b"]");
    }

    fn string(&mut self, bytes: &[u8]) {
        self.text.reserve(bytes.len().saturating_add(2));
        self.text.push(b'"');
        for &byte in bytes {
            match byte {
                b'"' | b'\\' => self.text.extend_from_slice(&[b'\\', byte]),
                b'\n' => self.text.extend_from_slice(b"\\n"),
                b'\r' => self.text.extend_from_slice(b"\\r"),
                b'\t' => self.text.extend_from_slice(b"\\t"),
                _ => self.text.push(byte),
            }
        }
        self.text.push(b'"');
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
    }
}
