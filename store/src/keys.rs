//! The Ed25519 keys that make and check signatures, in the text form of Nix's key files.

use std::{fmt, str::FromStr};

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};

use crate::{
    PathInfo, Signature, SignatureError, StoreDir, base64,
    signature::{check_key_name, split},
};

/// A key that checks signatures, `name:base64` of 32 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    name: Box<str>,
    key: VerifyingKey,
}

impl PublicKey {
    /// The name that signatures refer to.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether `signature` was made over `fingerprint` by the secret half of this key.
    pub fn verifies(&self, fingerprint: &str, signature: &Signature) -> bool {
        let bytes = ed25519_dalek::Signature::from_bytes(signature.as_bytes());
        *self.name == *signature.key_name() && self.key.verify_strict(fingerprint.as_bytes(), &bytes).is_ok()
    }
}

/// Reads a key as it stands in `trusted-public-keys` or in a file. White space at the end is passed over.
impl FromStr for PublicKey {
    type Err = SignatureError;

    fn from_str(text: &str) -> Result<Self, SignatureError> {
        let what = "public key";
        let (name, bytes) = split::<32>(what, text.trim_end())?;
        match VerifyingKey::from_bytes(&bytes) {
            Ok(key) => Ok(Self { name: name.into(), key }),
            Err(_) => Err(SignatureError::BadKey { what, name: name.to_owned() }),
        }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.name, base64::encode(self.key.as_bytes()))
    }
}

/// A key that makes signatures, `name:base64` of 64 bytes: a seed and the public key.
///
/// Its memory is cleared when it is dropped.
pub struct SecretKey {
    name: Box<str>,
    key: SigningKey,
}

impl SecretKey {
    /// Makes a key from a seed of 32 random bytes.
    ///
    /// # Errors
    /// [`SignatureError::MissingName`], [`SignatureError::BadName`].
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, SignatureError> {
        check_key_name("secret key", name)?;
        Ok(Self { name: name.into(), key: SigningKey::from_bytes(seed) })
    }

    /// The name that its signatures will carry.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The half that may be shown.
    pub fn public_key(&self) -> PublicKey {
        PublicKey { name: self.name.clone(), key: self.key.verifying_key() }
    }

    /// Signs a fingerprint.
    pub fn sign(&self, fingerprint: &str) -> Signature {
        Signature::unchecked(self.name.clone(), self.key.sign(fingerprint.as_bytes()).to_bytes())
    }
}

/// Reads a key as `nix-store --generate-binary-cache-key` writes it. White space at the end is passed over.
impl FromStr for SecretKey {
    type Err = SignatureError;

    fn from_str(text: &str) -> Result<Self, SignatureError> {
        let what = "secret key";
        let (name, bytes) = split::<64>(what, text.trim_end())?;
        match SigningKey::from_keypair_bytes(&bytes) {
            Ok(key) => Ok(Self { name: name.into(), key }),
            Err(_) => Err(SignatureError::BadKey { what, name: name.to_owned() }),
        }
    }
}

/// Shows the name only.
impl fmt::Debug for SecretKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SecretKey").field("name", &self.name).finish_non_exhaustive()
    }
}

impl PathInfo {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NarHash, StorePath};

    fn key(name: &str) -> SecretKey {
        SecretKey::from_seed(name, &[7; 32]).unwrap()
    }

    #[test]
    fn a_signature_is_checked_against_key_name_and_text() {
        let secret = key("cache-1");
        let public: PublicKey = secret.public_key().to_string().parse().unwrap();
        let signature: Signature = secret.sign("1;/nix/store/x").to_string().parse().unwrap();
        assert!(public.verifies("1;/nix/store/x", &signature));
        assert!(!public.verifies("1;/nix/store/y", &signature));
        assert!(!key("cache-2").public_key().verifies("1;/nix/store/x", &signature));
    }

    #[test]
    fn a_path_is_signed_as_it_is() {
        let path = StorePath::from_base_name("z3pqd9sdvhirl23r5ialzjlvfdhczsyy-a").unwrap();
        let mut info = PathInfo::new(path, NarHash::new([0; 32]), 160);
        info.sign(&StoreDir::default(), &key("k"));
        assert!(info.is_signed_by(&StoreDir::default(), &[key("k").public_key()]));
        info.nar_size = 168;
        assert!(!info.is_signed_by(&StoreDir::default(), &[key("k").public_key()]));
    }

    #[test]
    fn names_that_no_signature_can_carry_make_no_key() {
        for name in ["", "a b", "a:b", "a\n"] {
            assert!(SecretKey::from_seed(name, &[1; 32]).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_secret_key_whose_halves_do_not_match_is_refused() {
        let other = SigningKey::from_bytes(&[8; 32]).to_keypair_bytes();
        let mut bytes = SigningKey::from_bytes(&[7; 32]).to_keypair_bytes();
        let good = format!("k:{}\n", base64::encode(&bytes));
        assert_eq!(good.parse::<SecretKey>().unwrap().public_key(), key("k").public_key());
        bytes[32..].copy_from_slice(&other[32..]);
        let error = format!("k:{}", base64::encode(&bytes)).parse::<SecretKey>().unwrap_err();
        assert_eq!(error.to_string(), "secret key 'k' is not an Ed25519 key");
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        assert_eq!(format!("{:?}", key("k")), "SecretKey { name: \"k\", .. }");
    }
}
