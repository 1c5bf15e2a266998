//! Ed25519 signatures over the fingerprint of a path, and the keys that make and check them.

use std::{fmt, str::FromStr};

use data_encoding::BASE64;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};

/// Why a text is no key or signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// No `name:` before the base 64.
    #[error("{what} has no key name before a colon")]
    MissingName {
        /// "signature", "public key" or "secret key".
        what: &'static str,
    },
    /// Not base 64, or not as many bytes as it must have.
    #[error("{what} '{name}' is not {expected} bytes in base 64")]
    BadBytes {
        /// "signature", "public key" or "secret key".
        what: &'static str,
        /// The key's name (never the key itself).
        name: String,
        /// Bytes it must have.
        expected: usize,
    },
    /// The bytes are no point of the curve, or the two halves of a secret key do not belong together.
    #[error("{what} '{name}' is not a key of Ed25519")]
    BadKey {
        /// "public key" or "secret key".
        what: &'static str,
        /// The key's name.
        name: String,
    },
}

fn split<const N: usize>(what: &'static str, text: &str) -> Result<(String, [u8; N]), SignatureError> {
    let (name, encoded) = text
        .split_once(':')
        .filter(|(name, _)| !name.is_empty())
        .ok_or(SignatureError::MissingName { what })?;
    BASE64
        .decode(encoded.as_bytes())
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .map(|bytes| (name.to_owned(), bytes))
        .ok_or_else(|| SignatureError::BadBytes { what, name: name.to_owned(), expected: N })
}

/// A detached signature, `name:base64`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature {
    key_name: Box<str>,
    bytes: [u8; 64],
}

impl Signature {
    /// The name of the key that made it.
    pub fn key_name(&self) -> &str {
        &self.key_name
    }
}

impl FromStr for Signature {
    type Err = SignatureError;

    fn from_str(text: &str) -> Result<Self, SignatureError> {
        let (name, bytes) = split("signature", text)?;
        Ok(Self { key_name: name.into(), bytes })
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.key_name, BASE64.encode(&self.bytes))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Signature({self})")
    }
}

/// A key that checks signatures, `name:base64` of 32 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    name: String,
    key: VerifyingKey,
}

impl PublicKey {
    /// The name signatures refer to.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether `signature` was made over `fingerprint` by the secret half of this key.
    pub fn verifies(&self, fingerprint: &str, signature: &Signature) -> bool {
        let bytes = ed25519_dalek::Signature::from_bytes(&signature.bytes);
        *self.name == *signature.key_name && self.key.verify_strict(fingerprint.as_bytes(), &bytes).is_ok()
    }
}

impl FromStr for PublicKey {
    type Err = SignatureError;

    fn from_str(text: &str) -> Result<Self, SignatureError> {
        let (name, bytes) = split::<32>("public key", text)?;
        match VerifyingKey::from_bytes(&bytes) {
            Ok(key) => Ok(Self { name, key }),
            Err(_) => Err(SignatureError::BadKey { what: "public key", name }),
        }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.name, BASE64.encode(self.key.as_bytes()))
    }
}

/// A key that makes signatures: seed and public key, 64 bytes.
pub struct SecretKey {
    name: String,
    key: SigningKey,
}

impl SecretKey {
    /// Makes a key from a seed of 32 random bytes.
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Self {
        Self { name: name.to_owned(), key: SigningKey::from_bytes(seed) }
    }

    /// The half that may be shown.
    pub fn public_key(&self) -> PublicKey {
        PublicKey { name: self.name.clone(), key: self.key.verifying_key() }
    }

    /// Signs a fingerprint.
    pub fn sign(&self, fingerprint: &str) -> Signature {
        Signature {
            key_name: self.name.as_str().into(),
            bytes: self.key.sign(fingerprint.as_bytes()).to_bytes(),
        }
    }
}

impl FromStr for SecretKey {
    type Err = SignatureError;

    fn from_str(text: &str) -> Result<Self, SignatureError> {
        let (name, bytes) = split::<64>("secret key", text.trim_end())?;
        match SigningKey::from_keypair_bytes(&bytes) {
            Ok(key) => Ok(Self { name, key }),
            Err(_) => Err(SignatureError::BadKey { what: "secret key", name }),
        }
    }
}

/// Shows the name only.
impl fmt::Debug for SecretKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SecretKey").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_checked_against_key_name_and_text() {
        let secret = SecretKey::from_seed("cache-1", &[7; 32]);
        let public: PublicKey = secret.public_key().to_string().parse().unwrap();
        let signature: Signature = secret.sign("1;/nix/store/x").to_string().parse().unwrap();
        assert!(public.verifies("1;/nix/store/x", &signature));
        assert!(!public.verifies("1;/nix/store/y", &signature));
        let other = SecretKey::from_seed("cache-2", &[7; 32]).public_key();
        assert!(!other.verifies("1;/nix/store/x", &signature));
    }

    #[test]
    fn signatures_without_a_colon_or_with_other_lengths_are_refused() {
        for text in ["", "nocolon", ":AAAA", "name:AAAA", "name:!"] {
            assert!(text.parse::<Signature>().is_err(), "{text}");
        }
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        let shown = format!("{:?}", SecretKey::from_seed("k", &[9; 32]));
        assert_eq!(shown, "SecretKey { name: \"k\", .. }");
    }
}
