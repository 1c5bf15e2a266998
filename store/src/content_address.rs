//! Content addresses: the claim that a path's digest follows from its content.

use std::{
    fmt::{self, Write as _},
    str::FromStr,
};

use sha2::{Digest as _, Sha256};

use crate::{
    Escaped, Hash, HashAlgorithm, HashError, StoreDir, StorePath, StorePathError, StorePathSet, hash::NarHash,
};

/// What is hashed to address an object by its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ContentMethod {
    /// The bytes of a regular file that may refer to other paths, but not to itself (derivations, `toFile`).
    Text,
    /// The bytes of a regular file.
    Flat,
    /// The NAR.
    Recursive,
    /// The git tree or blob (experimental in Nix).
    Git,
}

/// A content address, such as `fixed:r:sha256:04zwf782...`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentAddress {
    method: ContentMethod,
    hash: Hash,
}

/// Why a text is not a content address, or cannot address the path it came with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContentAddressError {
    /// Neither `text:` nor `fixed:`.
    #[error("'{}' is not a content address", Escaped::new(text))]
    Malformed {
        /// The text.
        text: String,
    },
    /// The hash in it cannot be read.
    #[error("content address '{}' has a bad hash", Escaped::new(text))]
    Hash {
        /// The whole text.
        text: String,
        /// Why.
        #[source]
        source: HashError,
    },
    /// This kind of content address cannot have these references.
    #[error("content address '{}' allows no such references", Escaped::new(text))]
    References {
        /// The content address.
        text: String,
    },
    /// The name cannot be part of a store path.
    #[error(transparent)]
    Path(#[from] StorePathError),
}

impl ContentAddress {
    /// Puts a method and a hash together; `None` for text with another hash than sha256.
    pub fn new(method: ContentMethod, hash: Hash) -> Option<Self> {
        let allowed = method != ContentMethod::Text || hash.algorithm() == HashAlgorithm::Sha256;
        allowed.then_some(Self { method, hash })
    }

    /// That of a file which may refer to other paths. `hash` is that of its bytes, not of its NAR.
    pub fn text(hash: NarHash) -> Self {
        Self { method: ContentMethod::Text, hash: hash.into() }
    }

    /// That of an object by the sha256 of its NAR: what `nix-store --add` gives.
    pub fn recursive(hash: NarHash) -> Self {
        Self { method: ContentMethod::Recursive, hash: hash.into() }
    }

    /// What is hashed.
    pub const fn method(&self) -> ContentMethod {
        self.method
    }

    /// The hash of the content.
    pub const fn hash(&self) -> &Hash {
        &self.hash
    }

    /// The store path that this address gives to an object called `name`.
    ///
    /// `references` may contain `own`, the path whose claim is checked: it counts as the reference to itself.
    ///
    /// # Errors
    /// [`ContentAddressError::References`] for references that this kind does not allow.
    pub fn store_path(
        &self,
        store_dir: &StoreDir,
        name: &str,
        references: &StorePathSet,
        own: Option<&StorePath>,
    ) -> Result<StorePath, ContentAddressError> {
        let is_own = |path: &StorePath| own == Some(path);
        let self_reference = references.iter().any(is_own);
        let refuse = || ContentAddressError::References { text: self.to_string() };
        let with_references = |kind: &str| {
            let mut kind = kind.to_owned();
            for reference in references.iter().filter(|path| !is_own(path)) {
                // Writing to a String cannot fail.
                let _ = write!(kind, ":{}", store_dir.display(reference));
            }
            kind
        };
        let nar_hash = NarHash::try_from(self.hash);
        let (kind, inner) = match (self.method, nar_hash) {
            (ContentMethod::Text, Ok(inner)) => {
                if self_reference {
                    return Err(refuse());
                }
                (with_references("text"), *inner.as_bytes())
            }
            (ContentMethod::Recursive, Ok(inner)) => {
                let mut kind = with_references("source");
                if self_reference {
                    kind.push_str(":self");
                }
                (kind, *inner.as_bytes())
            }
            _ => {
                if !references.is_empty() {
                    return Err(refuse());
                }
                let text = format!(
                    "fixed:out:{}{}:{}:",
                    self.method.fixed_prefix(),
                    self.hash.algorithm(),
                    self.hash.to_base16()
                );
                ("output:out".to_owned(), Sha256::digest(text.as_bytes()).into())
            }
        };
        Ok(make_store_path(&kind, &inner, store_dir, name)?)
    }
}

impl ContentMethod {
    /// What stands between `fixed:` and the hash.
    pub const fn fixed_prefix(self) -> &'static str {
        match self {
            Self::Text | Self::Flat => "",
            Self::Recursive => "r:",
            Self::Git => "git:",
        }
    }
}

/// The path that a typed inner hash gives: the one function behind every store path.
///
/// # Errors
/// [`StorePathError`] if `name` is not allowed.
pub fn make_store_path(
    kind: &str,
    inner: &[u8; 32],
    store_dir: &StoreDir,
    name: &str,
) -> Result<StorePath, StorePathError> {
    let fingerprint = format!("{kind}:sha256:{}:{store_dir}:{name}", NarHash::new(*inner).to_base16());
    let hash = Sha256::digest(fingerprint.as_bytes());
    let mut digest = [0u8; 20];
    for (into, byte) in (0..20).cycle().zip(hash.iter()) {
        if let Some(place) = digest.get_mut(into) {
            *place ^= byte;
        }
    }
    StorePath::from_parts(&digest, name)
}

impl FromStr for ContentAddress {
    type Err = ContentAddressError;

    fn from_str(text: &str) -> Result<Self, ContentAddressError> {
        let malformed = || ContentAddressError::Malformed { text: text.to_owned() };
        let (method, hash) = if let Some(hash) = text.strip_prefix("text:") {
            (ContentMethod::Text, hash)
        } else {
            let rest = text.strip_prefix("fixed:").ok_or_else(malformed)?;
            if let Some(hash) = rest.strip_prefix("r:") {
                (ContentMethod::Recursive, hash)
            } else if let Some(hash) = rest.strip_prefix("git:") {
                (ContentMethod::Git, hash)
            } else {
                (ContentMethod::Flat, rest)
            }
        };
        let hash =
            hash.parse().map_err(|source| ContentAddressError::Hash { text: text.to_owned(), source })?;
        Self::new(method, hash).ok_or_else(malformed)
    }
}

impl fmt::Display for ContentAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.method == ContentMethod::Text { "text:" } else { "fixed:" };
        write!(formatter, "{kind}{}{}", self.method.fixed_prefix(), self.hash)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    // Paths that four versions of Nix gave to a file with the content `hello\n`.
    #[rstest]
    #[case::recursive_sha256(
        "fixed:r:sha256:04zwf782yjwnh3q6hz5izfd6jyip8kgw6g6yj43fiqhbyhdd0dqw",
        "0xhahvdjiaq1nm0nr46qyn4j6l9n9cns-foo.txt"
    )]
    #[case::flat_sha256(
        "fixed:sha256:00xyyr3fi8l6hb839bv3f7yb86yjv7xi1cgh1xnhipym4asvb4aq",
        "arsarpzhcvv7rqza3ii5ah1zx3sr09ii-foo.txt"
    )]
    #[case::flat_sha1(
        "fixed:sha1:iwjz551fyw0cxcjgf4l6c879zabd6wpm",
        "42w573cyl9fvhy6pz79an1r1r03anzvk-foo.txt"
    )]
    #[case::recursive_sha1(
        "fixed:r:sha1:wz60bbf44cw7nswp1wv8vcsyfg155sqd",
        "d2yx16v89lvpyd7a6sfxsj5gi0r0s7k1-foo.txt"
    )]
    #[case::flat_md5("fixed:md5:4425hx5d1mc9y39llj4k4nm55i", "16anmvf7wjr3p72j08nm7hrr5s4daqiz-foo.txt")]
    #[case::recursive_md5(
        "fixed:r:md5:4ycxcbh0ac0abr4zxw23l6isnk",
        "pq8n4c639br4jixa3a5q0rrga1rj8k9p-foo.txt"
    )]
    fn addresses_give_the_paths_that_nix_gives(#[case] address: &str, #[case] path: &str) {
        let parsed: ContentAddress = address.parse().unwrap();
        assert_eq!(parsed.to_string(), address);
        let computed =
            parsed.store_path(&StoreDir::default(), "foo.txt", &StorePathSet::default(), None).unwrap();
        assert_eq!(computed.base_name(), path);
    }

    #[test]
    fn text_with_a_reference() {
        let store_dir = StoreDir::default();
        let a = StorePath::from_base_name("mwq47shl5x56hf8wz24fkh24l9ckb0bp-a").unwrap();
        let content = format!("see {}", store_dir.full(&a));
        let address = ContentAddress::text(NarHash::of(content.as_bytes()));
        let path = address.store_path(&store_dir, "b", &StorePathSet::from_iter([a]), None).unwrap();
        assert_eq!(path.base_name(), "yby6ddzz7f3708s7k5kxji0aq0i82mfj-b");
    }

    #[rstest]
    #[case::empty("")]
    #[case::no_kind("sha256:04zwf782yjwnh3q6hz5izfd6jyip8kgw6g6yj43fiqhbyhdd0dqw")]
    #[case::text_sha1("text:sha1:iwjz551fyw0cxcjgf4l6c879zabd6wpm")]
    #[case::bad_hash("fixed:r:sha256:x")]
    fn other_texts_are_refused(#[case] text: &str) {
        assert!(text.parse::<ContentAddress>().is_err());
    }
}
