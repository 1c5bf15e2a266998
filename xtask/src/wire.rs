//! Just enough of Nix's wire format to write requests, archives and export streams.
//!
//! Deliberately not the project's own crates: what is tested must not be its own witness.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// Bytes under construction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wire(pub(crate) Vec<u8>);

impl Wire {
    /// 8 bytes, little-endian.
    pub(crate) fn number(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Length, bytes, zeros up to a multiple of 8.
    pub(crate) fn string(mut self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        self = self.number(bytes.len() as u64);
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        self
    }

    /// Count, strings.
    pub(crate) fn strings<S: AsRef<[u8]>>(
        mut self,
        list: impl IntoIterator<Item = S, IntoIter: ExactSizeIterator>,
    ) -> Self {
        let list = list.into_iter();
        self = self.number(list.len() as u64);
        for string in list {
            self = self.string(string);
        }
        self
    }

    /// Bytes as they are.
    pub(crate) fn raw(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.extend(bytes.as_ref());
        self
    }
}

/// The NAR of a plain file.
pub(crate) fn archive(content: impl AsRef<[u8]>) -> Vec<u8> {
    let words = ["nix-archive-1", "(", "type", "regular", "contents"];
    let wire = words.into_iter().fold(Wire::default(), Wire::string);
    wire.string(content).string(")").0
}

/// sha256 in base 16.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// Base 16.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A store path with an arbitrary but reproducible digest: what input-addressed paths look like to a copier.
pub(crate) fn store_path(name: &str) -> String {
    store_path_of(name, name)
}

/// The same for one of several paths that have the same name.
pub(crate) fn store_path_of(label: &str, name: &str) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";
    let hash = Sha256::digest(label.as_bytes());
    let digest: String = hash.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect();
    format!("/nix/store/{digest}-{name}")
}

/// One record of an export stream holding a plain file, without the marker in front.
pub(crate) fn export_record(path: &str, references: &[String], content: &str) -> Wire {
    Wire::default()
        .raw(archive(content))
        .number(0x4558_494e)
        .string(path)
        .strings(references)
        .string("")
        .number(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `nix-store --dump` of a file holding `hi`, in all four versions.
    #[test]
    fn archive_as_nix_writes_it() {
        let archive = archive("hi");
        assert_eq!(archive.len(), 120);
        assert!(sha256(&archive).starts_with("2252d4b7"));
    }
}
