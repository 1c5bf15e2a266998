//! Hashes as Nix writes them: md5, sha1, sha256, sha512 (and the name of blake3), in base 16, Nix's base 32,
//! base 64, and the SRI form.

use std::{fmt, io, str::FromStr};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use sha2::Digest as _;

use crate::{Escaped, base64, nix32};

/// Which function made a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum HashAlgorithm {
    /// 16 bytes; only for old fixed outputs.
    Md5,
    /// 20 bytes; only for old fixed outputs and git hashing.
    Sha1,
    /// 32 bytes; the hash of NARs and of store path digests.
    Sha256,
    /// 64 bytes.
    Sha512,
    /// 32 bytes; experimental in Nix. Can be carried, not computed, by this crate.
    Blake3,
}

impl HashAlgorithm {
    const ALL: [Self; 5] = [Self::Md5, Self::Sha1, Self::Sha256, Self::Sha512, Self::Blake3];

    /// The name as written before the colon.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
            Self::Blake3 => "blake3",
        }
    }

    /// How many bytes a hash has.
    pub const fn size(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 | Self::Blake3 => 32,
            Self::Sha512 => 64,
        }
    }
}

impl FromStr for HashAlgorithm {
    type Err = HashError;

    fn from_str(name: &str) -> Result<Self, HashError> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
            .ok_or_else(|| HashError::UnknownAlgorithm { text: name.to_owned() })
    }
}

impl fmt::Display for HashAlgorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Why a text is not a hash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HashError {
    /// The part before `:` or `-` names no algorithm.
    #[error("'{}' is not a hash algorithm", Escaped::new(text))]
    UnknownAlgorithm {
        /// What stood there.
        text: String,
    },
    /// No `algorithm:` prefix where one is needed.
    #[error("hash '{}' does not name its algorithm", Escaped::new(text))]
    MissingAlgorithm {
        /// The whole text.
        text: String,
    },
    /// The digits fit none of the bases, by count or by character.
    #[error("'{}' is not a {algorithm} hash in base 16, 32 or 64", Escaped::new(text))]
    BadDigits {
        /// The algorithm whose length was expected.
        algorithm: HashAlgorithm,
        /// The digits.
        text: String,
    },
    /// A hash of another algorithm where only one is allowed.
    #[error("expected a {expected} hash, found {found}")]
    WrongAlgorithm {
        /// What is allowed.
        expected: HashAlgorithm,
        /// What was given.
        found: HashAlgorithm,
    },
}

/// A hash together with its algorithm.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash {
    algorithm: HashAlgorithm,
    bytes: [u8; 64],
}

impl Hash {
    /// Takes raw bytes; `None` if their number is not the algorithm's.
    pub fn from_bytes(algorithm: HashAlgorithm, raw: &[u8]) -> Option<Self> {
        (raw.len() == algorithm.size()).then(|| Self::of_digest(algorithm, raw))
    }

    /// Takes as many bytes as the algorithm has.
    pub(crate) fn of_digest(algorithm: HashAlgorithm, digest: &[u8]) -> Self {
        let mut bytes = [0; 64];
        bytes.iter_mut().zip(digest).for_each(|(place, byte)| *place = *byte);
        Self { algorithm, bytes }
    }

    /// The algorithm.
    pub const fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    /// The raw bytes, as many as the algorithm has.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.algorithm.size()).unwrap_or_default()
    }

    /// Digits only, base 16, lower case.
    pub fn to_base16(&self) -> String {
        HEXLOWER.encode(self.as_bytes())
    }

    /// Digits only, Nix's base 32.
    pub fn to_nix32(&self) -> String {
        nix32::encode(self.as_bytes())
    }

    /// The SRI form, `sha256-<base64>`.
    pub fn to_sri(&self) -> String {
        format!("{}-{}", self.algorithm, base64::encode(self.as_bytes()))
    }

    /// Reads digits whose algorithm is known; the base is told by their number, as Nix does.
    ///
    /// # Errors
    /// [`HashError::BadDigits`].
    pub fn parse_digits(algorithm: HashAlgorithm, text: &str) -> Result<Self, HashError> {
        let size = algorithm.size();
        let bytes = if text.len() == size * 2 {
            HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()
        } else if text.len() == nix32::encoded_len(size) {
            nix32::decode(text)
        } else {
            base64::decode(text)
        };
        bytes
            .and_then(|bytes| Self::from_bytes(algorithm, &bytes))
            .ok_or_else(|| HashError::BadDigits { algorithm, text: text.to_owned() })
    }
}

/// `algorithm:digits` in any base, or SRI.
impl FromStr for Hash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        if let Some((algorithm, digits)) = text.split_once(':') {
            return Self::parse_digits(algorithm.parse()?, digits);
        }
        let Some((algorithm, digits)) = text.split_once('-') else {
            return Err(HashError::MissingAlgorithm { text: text.to_owned() });
        };
        let algorithm: HashAlgorithm = algorithm.parse()?;
        base64::decode(digits)
            .and_then(|bytes| Self::from_bytes(algorithm, &bytes))
            .ok_or_else(|| HashError::BadDigits { algorithm, text: digits.to_owned() })
    }
}

/// `algorithm:nix32`, the form of content addresses.
impl fmt::Display for Hash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.algorithm, self.to_nix32())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Hash({self})")
    }
}

/// The sha256 of all bytes of a NAR.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NarHash([u8; 32]);

impl NarHash {
    /// Wraps 32 raw bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Hashes a whole NAR in memory.
    pub fn of(nar: &[u8]) -> Self {
        Self(sha2::Sha256::digest(nar).into())
    }

    /// The raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Digits only, base 16: the form of serve requests and, prefixed, of the database.
    pub fn to_base16(&self) -> String {
        HEXLOWER.encode(&self.0)
    }

    /// Digits only, Nix's base 32.
    pub fn to_nix32(&self) -> String {
        nix32::encode(&self.0)
    }

    /// Reads any form Nix reads in this place: prefixed or bare, base 16, 32, 64 or SRI.
    ///
    /// # Errors
    /// [`HashError`] if it is no sha256 hash.
    pub fn parse(text: &str) -> Result<Self, HashError> {
        let hash = match text.parse::<Hash>() {
            Err(HashError::MissingAlgorithm { .. }) => Hash::parse_digits(HashAlgorithm::Sha256, text)?,
            other => other?,
        };
        hash.try_into()
    }
}

impl TryFrom<Hash> for NarHash {
    type Error = HashError;

    fn try_from(hash: Hash) -> Result<Self, HashError> {
        let wrong = || HashError::WrongAlgorithm { expected: HashAlgorithm::Sha256, found: hash.algorithm };
        if hash.algorithm != HashAlgorithm::Sha256 {
            return Err(wrong());
        }
        hash.as_bytes().try_into().map(Self).map_err(|_| wrong())
    }
}

impl From<NarHash> for Hash {
    fn from(hash: NarHash) -> Self {
        Self::of_digest(HashAlgorithm::Sha256, &hash.0)
    }
}

impl FromStr for NarHash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        Self::parse(text)
    }
}

/// `sha256:nix32`.
impl fmt::Display for NarHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sha256:{}", self.to_nix32())
    }
}

impl fmt::Debug for NarHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "NarHash({})", self.to_nix32())
    }
}

/// Counts and hashes the bytes of one NAR as they pass.
#[derive(Clone, Debug)]
pub struct NarHasher {
    state: sha2::Sha256,
    size: u64,
}

impl NarHasher {
    /// Starts at zero bytes.
    pub fn new() -> Self {
        Self { state: sha2::Sha256::new(), size: 0 }
    }

    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.size = self.size.saturating_add(bytes.len() as u64);
    }

    /// Bytes taken so far.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The hash and the number of bytes.
    pub fn finish(self) -> (NarHash, u64) {
        (NarHash(self.state.finalize().into()), self.size)
    }
}

impl Default for NarHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl io::Write for NarHasher {
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
    use rstest::rstest;

    use super::*;

    const HI: &str = "2252d4b78c94e8c7ace4e3317b78bdfe64bc8e3970a64eb6d2f7c2a443c0c3fc";

    #[rstest]
    #[case::base16(HI)]
    #[case::base16_prefixed("sha256:2252d4b78c94e8c7ace4e3317b78bdfe64bc8e3970a64eb6d2f7c2a443c0c3fc")]
    #[case::base16_upper("2252D4B78C94E8C7ACE4E3317B78BDFE64BC8E3970A64EB6D2F7C2A443C0C3FC")]
    #[case::nix32("1z63q11s9hppsav4x9kh767bqr7ypmw7ncg3wjncgs4lijvx8li2")]
    #[case::nix32_prefixed("sha256:1z63q11s9hppsav4x9kh767bqr7ypmw7ncg3wjncgs4lijvx8li2")]
    #[case::base64("IlLUt4yU6Mes5OMxe3i9/mS8jjlwpk620vfCpEPAw/w=")]
    #[case::base64_prefixed("sha256:IlLUt4yU6Mes5OMxe3i9/mS8jjlwpk620vfCpEPAw/w=")]
    #[case::sri("sha256-IlLUt4yU6Mes5OMxe3i9/mS8jjlwpk620vfCpEPAw/w=")]
    #[case::sri_unpadded("sha256-IlLUt4yU6Mes5OMxe3i9/mS8jjlwpk620vfCpEPAw/w")]
    fn nar_hashes_are_read_in_every_form_that_nix_reads(#[case] text: &str) {
        assert_eq!(NarHash::parse(text).unwrap().to_base16(), HI);
    }

    #[rstest]
    #[case::empty("")]
    #[case::short("2252d4")]
    #[case::nix32_upper("1Z63Q11S9HPPSAV4X9KH767BQR7YPMW7NCG3WJNCGS4LIJVX8LI2")]
    #[case::nix32_overflow("2z63q11s9hppsav4x9kh767bqr7ypmw7ncg3wjncgs4lijvx8li2")]
    #[case::other_algorithm("sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709")]
    #[case::other_prefix("md5:2252d4b78c94e8c7ace4e3317b78bdfe64bc8e3970a64eb6d2f7c2a443c0c3fc")]
    #[case::not_ascii("sha256:ä")]
    fn anything_else_is_no_nar_hash(#[case] text: &str) {
        assert!(NarHash::parse(text).is_err());
    }
}
