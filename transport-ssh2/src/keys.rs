//! Private key files: enough of their format to know what to offer before anybody is asked for a passphrase.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use data_encoding::BASE64;

use crate::{files, known_hosts::key_type};

/// A private key as it stands in a file.
pub(crate) struct PrivateKey {
    pub(crate) path: PathBuf,
    /// For libssh2.
    pub(crate) text: String,
    /// The public key in wire form, if it can be known without the passphrase.
    pub(crate) public: Option<Vec<u8>>,
    pub(crate) encrypted: bool,
}

/// Why a key file cannot be used.
#[derive(Debug)]
pub(crate) enum Unusable {
    Missing,
    /// It is a public key, whose private one an agent may have.
    Public,
    Other(String),
}

/// Much more than any key.
const MAX_FILE_SIZE: u64 = 1024 * 1024;

impl PrivateKey {
    /// Reads a file. Like ssh, refuses one that others may read.
    pub(crate) fn read(path: &Path) -> Result<Self, Unusable> {
        let other = |reason: String| Unusable::Other(format!("{}: {reason}", path.display()));
        let (text, metadata) = match files::read(path, MAX_FILE_SIZE) {
            Ok(read) => read,
            Err(error) if files::is_missing(&error) => return Err(Unusable::Missing),
            Err(error) => return Err(other(error.to_string())),
        };
        let text = String::from_utf8(text).map_err(|_| other("it is not a key".to_owned()))?;
        if public_key(&text).is_some() {
            return Err(Unusable::Public);
        }
        let mode = metadata.mode() & 0o777;
        if mode & 0o077 != 0 && metadata.uid() == rustix::process::getuid().as_raw() {
            return Err(other(format!("its permissions {mode:04o} are too open")));
        }
        let body = body(&text).ok_or_else(|| other("is no private key".to_owned()))?;
        let (public, encrypted) = if body.label == "OPENSSH PRIVATE KEY" {
            let key = open_ssh(&body.data).ok_or_else(|| other("is damaged".to_owned()))?;
            (Some(key.0), key.1)
        } else {
            // ssh-keygen puts it there; without it libssh2 computes it, for which it needs the passphrase.
            (read_public(&with_suffix(path, ".pub")), text.contains("ENCRYPTED"))
        };
        if let Some(kind) = public.as_deref().and_then(key_type).filter(|kind| kind.starts_with("sk-")) {
            return Err(other(format!("a key of type {kind} can only be used through an agent")));
        }
        Ok(Self { path: path.to_owned(), text, public, encrypted })
    }

    /// The certificates for this key: the one beside it, and those of `others` that are for it.
    pub(crate) fn certificates(&self, others: &[PathBuf]) -> Vec<Vec<u8>> {
        let beside = with_suffix(&self.path, "-cert.pub");
        let files = std::iter::once(&beside).chain(others);
        files
            .filter_map(|path| read_public(path))
            .filter(|certificate| self.public.as_ref().is_none_or(|public| certifies(certificate, public)))
            .collect()
    }
}

/// The public key for a private key that may be with an agent alone.
pub(crate) fn public_beside(path: &Path) -> Option<Vec<u8>> {
    read_public(&with_suffix(path, ".pub")).or_else(|| {
        // IdentityFile may name the public key itself.
        read_public(path)
    })
}

/// As it stands in a file of public keys.
pub(crate) fn public_line(key: &[u8]) -> Option<String> {
    Some(format!("{} {}", key_type(key)?, BASE64.encode(key)))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn read_public(path: &Path) -> Option<Vec<u8>> {
    let (text, _) = files::read(path, MAX_FILE_SIZE).ok()?;
    public_key(std::str::from_utf8(&text).ok()?)
}

/// The key in a file of a public key.
fn public_key(text: &str) -> Option<Vec<u8>> {
    let mut words = text.split_whitespace();
    let kind = words.next()?;
    let key = BASE64.decode(words.next()?.as_bytes()).ok()?;
    (key_type(&key)? == kind).then_some(key)
}

/// The number of bits of an RSA key in wire form, or of an RSA certificate; `None` for keys of other types.
pub(crate) fn rsa_bits(key: &[u8]) -> Option<u32> {
    let mut rest = key;
    match string(&mut rest)? {
        b"ssh-rsa" => {}
        // A nonce is before the key's own fields.
        kind if kind.starts_with(b"ssh-rsa-cert-") => drop(string(&mut rest)?),
        _ => return None,
    }
    let (_exponent, modulus) = (string(&mut rest)?, string(&mut rest)?);
    let zeros = modulus.iter().take_while(|&&byte| byte == 0).count();
    let significant = modulus.get(zeros..)?;
    let first = significant.first().map_or(0, |byte| byte.leading_zeros());
    u32::try_from(significant.len() * 8).ok()?.checked_sub(first)
}

/// What is between the lines of dashes.
struct Body {
    label: String,
    data: Vec<u8>,
}

fn body(text: &str) -> Option<Body> {
    let mut lines = text.lines().map(str::trim);
    let label = lines.find_map(|line| line.strip_prefix("-----BEGIN ")?.strip_suffix("-----"))?;
    let base64: String = lines.take_while(|line| !line.starts_with("-----END ")).collect();
    // The older formats have lines of another kind in front; only the new one is looked into.
    Some(Body { label: label.to_owned(), data: BASE64.decode(base64.as_bytes()).unwrap_or_default() })
}

/// PROTOCOL.key of OpenSSH: the public key, and whether the private one is encrypted.
fn open_ssh(data: &[u8]) -> Option<(Vec<u8>, bool)> {
    let mut rest = data.strip_prefix(b"openssh-key-v1\0")?;
    let cipher = string(&mut rest)?;
    let (_function, _options) = (string(&mut rest)?, string(&mut rest)?);
    let (_count, after) = rest.split_first_chunk::<4>()?;
    rest = after;
    Some((string(&mut rest)?.to_vec(), cipher != b"none"))
}

/// Whether the certificate is for this public key: behind type and nonce it holds the key's own fields.
fn certifies(certificate: &[u8], public: &[u8]) -> bool {
    let (mut certificate, mut public) = (certificate, public);
    let (Some(certified), Some(kind)) = (string(&mut certificate), string(&mut public)) else { return false };
    let same_kind = certified.strip_prefix(kind).is_some_and(|suffix| suffix.starts_with(b"-cert-"));
    same_kind && string(&mut certificate).is_some() && certificate.starts_with(public)
}

fn string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let (string, after) = after.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    *rest = after;
    Some(string)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

    use rstest::rstest;

    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        (directory, path)
    }

    #[rstest]
    #[case::nothing("", "is no private key")]
    #[case::public("ssh-ed25519 AAAA", "is no private key")]
    #[case::damaged(
        "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
        "is damaged"
    )]
    fn no_keys(#[case] text: &str, #[case] reason: &str) {
        let (_directory, path) = file(text);
        match PrivateKey::read(&path) {
            Err(Unusable::Other(message)) => assert!(message.ends_with(reason), "{message}"),
            _ => panic!("it is a key"),
        }
    }

    #[test]
    fn what_is_missing_is_missing() {
        assert!(matches!(PrivateKey::read(Path::new("/nope")), Err(Unusable::Missing)));
    }

    #[rstest]
    #[case::plain("", "ed25519", &[], false)]
    #[case::encrypted("secret", "ed25519", &[], true)]
    #[case::older_format("", "rsa", &["-m", "PEM"], false)]
    #[case::older_format_encrypted("secret", "rsa", &["-m", "PEM"], true)]
    fn keys_of_ssh_keygen(
        #[case] passphrase: &str,
        #[case] kind: &str,
        #[case] more: &[&str],
        #[case] encrypted: bool,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-N", passphrase, "-t", kind, "-f"]).arg(&path).args(more);
        match command.status() {
            Ok(status) => assert!(status.success()),
            Err(_) => return ncc_transport::test_util::leave_out("no ssh-keygen is installed"),
        }
        let Ok(key) = PrivateKey::read(&path) else { panic!("it is a key") };
        assert_eq!(key.encrypted, encrypted);
        assert_eq!(key.public, public_beside(&path));
        assert!(key.public.is_some());
        assert!(key.certificates(&[]).is_empty());
        let bits = key.public.as_deref().and_then(rsa_bits);
        assert_eq!(bits, (kind == "rsa").then_some(if more.is_empty() { 0 } else { 3072 }));
    }
}
