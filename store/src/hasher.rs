//! Computing hashes of any algorithm.

use std::{fmt, io};

use digest::{Digest as _, DynDigest};

use crate::{Hash, HashAlgorithm};

/// Hashes a stream of bytes; also an [`io::Write`], so that an encoder can write into it.
pub struct Hasher {
    algorithm: HashAlgorithm,
    state: Box<dyn State>,
}

/// [`DynDigest`] for any thread, and its clones too.
trait State: DynDigest + Send + Sync {
    fn cloned(&self) -> Box<dyn State>;
}

impl<D: DynDigest + Clone + Send + Sync + 'static> State for D {
    fn cloned(&self) -> Box<dyn State> {
        Box::new(self.clone())
    }
}

impl Hasher {
    /// A hasher, or `None` for an algorithm that can only be carried (blake3).
    pub fn new(algorithm: HashAlgorithm) -> Option<Self> {
        let state: Box<dyn State> = match algorithm {
            HashAlgorithm::Md5 => Box::new(md5::Md5::new()),
            HashAlgorithm::Sha1 => Box::new(sha1::Sha1::new()),
            HashAlgorithm::Sha256 => Box::new(sha2::Sha256::new()),
            HashAlgorithm::Sha512 => Box::new(sha2::Sha512::new()),
            HashAlgorithm::Blake3 => return None,
        };
        Some(Self { algorithm, state })
    }

    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
    }

    /// The hash of all bytes taken.
    pub fn finish(self) -> Hash {
        Hash::of_digest(self.algorithm, &self.state.finalize())
    }
}

impl Clone for Hasher {
    fn clone(&self) -> Self {
        Self { algorithm: self.algorithm, state: (*self.state).cloned() }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Hasher({})", self.algorithm)
    }
}

impl io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashers_agree_with_known_digests() {
        for (algorithm, expected) in [
            (HashAlgorithm::Md5, "d41d8cd98f00b204e9800998ecf8427e"),
            (HashAlgorithm::Sha1, "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
            (HashAlgorithm::Sha256, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ] {
            assert_eq!(Hasher::new(algorithm).unwrap().finish().to_base16(), expected);
        }
        assert_eq!(Hasher::new(HashAlgorithm::Sha512).unwrap().finish().to_base16().len(), 128);
    }
}
