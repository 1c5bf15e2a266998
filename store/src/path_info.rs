//! What a store records about a valid path.

use std::fmt::Write as _;

use crate::{ContentAddress, NarHash, Signature, StoreDir, StorePath, StorePathSet};

/// The metadata of one valid path.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathInfo {
    /// The path itself.
    pub path: StorePath,
    /// sha256 of its NAR.
    pub nar_hash: NarHash,
    /// Bytes of its NAR; never 0 for an object that can be copied (the smallest NAR has 96).
    pub nar_size: u64,
    /// The paths it refers to, possibly itself.
    pub references: StorePathSet,
    /// The derivation that built it, which need not exist.
    pub deriver: Option<StorePath>,
    /// Seconds since the epoch; 0 is unknown, and a destination then takes the present.
    pub registration_time: i64,
    /// Built on that machine, so trusted there without a signature. Never copied.
    pub ultimate: bool,
    /// Signatures over [`PathInfo::fingerprint`], sorted.
    pub signatures: Vec<Signature>,
    /// How many texts stood where signatures belong without being any. They were left out when this was read, which
    /// is worth a word if the path then lacks a signature.
    pub malformed_signatures: u32,
    /// The claim that the path follows from its content.
    pub content_address: Option<ContentAddress>,
}

impl PathInfo {
    /// A path with its content, and nothing else known.
    pub fn new(path: StorePath, nar_hash: NarHash, nar_size: u64) -> Self {
        Self {
            path,
            nar_hash,
            nar_size,
            references: StorePathSet::default(),
            deriver: None,
            registration_time: 0,
            ultimate: false,
            signatures: Vec::new(),
            malformed_signatures: 0,
            content_address: None,
        }
    }

    /// The references other than to itself.
    pub fn other_references(&self) -> impl Iterator<Item = &StorePath> {
        self.references.iter().filter(move |reference| **reference != self.path)
    }

    /// Takes signatures as text, leaving out those that no key can have made, and counts these in
    /// [`PathInfo::malformed_signatures`].
    ///
    /// Stores written by Nix up to 2.33 may hold such texts, and from 2.34 on Nix fails over each of them.
    pub fn set_signatures<T: AsRef<[u8]>>(&mut self, texts: impl IntoIterator<Item = T>) {
        self.signatures.clear();
        self.malformed_signatures = 0;
        for text in texts {
            match str::from_utf8(text.as_ref()).ok().and_then(|text| text.parse().ok()) {
                Some(signature) => self.signatures.push(signature),
                None => self.malformed_signatures = self.malformed_signatures.saturating_add(1),
            }
        }
        self.signatures.sort_unstable();
        self.signatures.dedup();
    }

    /// The text that signatures sign: path, NAR hash and size, references.
    pub fn fingerprint(&self, store_dir: &StoreDir) -> String {
        let mut text = format!("1;{};{};{};", store_dir.display(&self.path), self.nar_hash, self.nar_size);
        for (index, reference) in self.references.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            // Writing to a String cannot fail.
            let _ = write!(text, "{comma}{}", store_dir.display(reference));
        }
        text
    }

    /// Whether the content address, if there is one, gives this very path. (Not whether the content does.)
    pub fn content_address_gives_path(&self, store_dir: &StoreDir) -> bool {
        self.content_address.is_none_or(|address| {
            address
                .store_path(store_dir, self.path.name(), &self.references, Some(&self.path))
                .is_ok_and(|computed| computed == self.path)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The form of the database: texts with blanks between them, which Nix takes apart at every blank.
        #[test]
        fn signatures_survive_the_database(texts in proptest::collection::vec("\\PC{0,9}|[ -~\n\t]{0,9}", 0..9)) {
            let path = StorePath::from_base_name("z3pqd9sdvhirl23r5ialzjlvfdhczsyy-a").unwrap();
            let mut sent = PathInfo::new(path, NarHash::new([0; 32]), 96);
            sent.set_signatures(texts.iter().map(|name| format!("{name}:{}", "A".repeat(86))));
            prop_assert_eq!(sent.signatures.is_empty(), sent.malformed_signatures as usize == texts.len());
            let words: Vec<_> = sent.signatures.iter().map(ToString::to_string).collect();
            let column = words.join(" ");
            let mut read = sent.clone();
            read.set_signatures(column.split_ascii_whitespace());
            prop_assert_eq!(&read.signatures, &sent.signatures);
            prop_assert_eq!(read.malformed_signatures, 0);
        }
    }

    #[test]
    fn the_fingerprint_is_the_one_that_nix_signs() {
        let path = |base| StorePath::from_base_name(base).unwrap();
        let a = path("z3pqd9sdvhirl23r5ialzjlvfdhczsyy-a");
        let hash = NarHash::parse("sha256:0vd294lg9dlsich4qhkd56jy8xylmyh5maj9hqcpv2cl7yn8qn4c").unwrap();
        let mut info = PathInfo::new(a.clone(), hash, 160);
        info.references = [a, path("01xbv2rln7hn9y2g2pkf9dsardfc9xxn-b")].into_iter().collect();
        assert_eq!(
            info.fingerprint(&StoreDir::default()),
            "1;/nix/store/z3pqd9sdvhirl23r5ialzjlvfdhczsyy-a;\
             sha256:0vd294lg9dlsich4qhkd56jy8xylmyh5maj9hqcpv2cl7yn8qn4c;160;\
             /nix/store/01xbv2rln7hn9y2g2pkf9dsardfc9xxn-b,/nix/store/z3pqd9sdvhirl23r5ialzjlvfdhczsyy-a"
        );
    }

    #[test]
    fn texts_that_are_no_signatures_are_left_out() {
        let path = StorePath::from_base_name("z3pqd9sdvhirl23r5ialzjlvfdhczsyy-a").unwrap();
        let mut info = PathInfo::new(path, NarHash::new([0; 32]), 96);
        let good = Signature::new("k", [1; 64]).unwrap().to_string();
        info.set_signatures(["corrupt", &good, "", &good]);
        assert_eq!((info.signatures.len(), info.malformed_signatures), (1, 2));
        info.set_signatures([&good]);
        assert_eq!((info.signatures.len(), info.malformed_signatures), (1, 0));
    }
}
