//! What a store records about a valid path.

use std::fmt::Write as _;

use crate::{ContentAddress, NarHash, PublicKey, SecretKey, Signature, StoreDir, StorePath, StorePathSet};

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
            content_address: None,
        }
    }

    /// The references other than to itself.
    pub fn other_references(&self) -> impl Iterator<Item = &StorePath> {
        self.references.iter().filter(move |reference| **reference != self.path)
    }

    /// Reads signature texts, leaving out those that no key can have made.
    ///
    /// Stores written by Nix up to 2.33 may hold such texts, and from 2.34 on a server ends the connection over one.
    pub fn set_signatures<'a>(&mut self, texts: impl IntoIterator<Item = &'a str>) {
        self.signatures = texts.into_iter().filter_map(|text| text.parse().ok()).collect();
        self.signatures.sort_unstable();
        self.signatures.dedup();
    }

    /// The text that signatures sign: path, NAR hash and size, references.
    pub fn fingerprint(&self, store_dir: &StoreDir) -> String {
        let mut text = format!("1;{};{};{};", store_dir.full(&self.path), self.nar_hash, self.nar_size);
        for (index, reference) in self.references.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            // Writing to a String cannot fail.
            let _ = write!(text, "{comma}{}", store_dir.full(reference));
        }
        text
    }

    /// Adds a signature by `key`.
    pub fn sign(&mut self, store_dir: &StoreDir, key: &SecretKey) {
        let signature = key.sign(&self.fingerprint(store_dir));
        if let Err(place) = self.signatures.binary_search(&signature) {
            self.signatures.insert(place, signature);
        }
    }

    /// Whether one of `keys` signed this path.
    pub fn is_signed_by(&self, store_dir: &StoreDir, keys: &[PublicKey]) -> bool {
        let fingerprint = self.fingerprint(store_dir);
        self.signatures.iter().any(|signature| keys.iter().any(|key| key.verifies(&fingerprint, signature)))
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
    use super::*;

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
        let key = SecretKey::from_seed("k", &[1; 32]);
        info.sign(&StoreDir::default(), &key);
        assert!(info.is_signed_by(&StoreDir::default(), &[key.public_key()]));
        info.nar_size = 168;
        assert!(!info.is_signed_by(&StoreDir::default(), &[key.public_key()]));
    }

    #[test]
    fn texts_that_are_no_signatures_are_left_out() {
        let path = StorePath::from_base_name("z3pqd9sdvhirl23r5ialzjlvfdhczsyy-a").unwrap();
        let mut info = PathInfo::new(path, NarHash::new([0; 32]), 96);
        let good = SecretKey::from_seed("k", &[1; 32]).sign("x").to_string();
        info.set_signatures(["corrupt", &good, "", &good]);
        assert_eq!(info.signatures.len(), 1);
    }
}
