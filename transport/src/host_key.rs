//! The one host key that a host may have.

use std::{fmt, str::FromStr};

use data_encoding::BASE64;

/// A public host key that was handed to us beforehand, and that is therefore the only one the host may show.
///
/// It is read once, from the parameter `base64-ssh-public-host-key` or from a line of a `.pub` file, and exists only if it is whole:
/// the key names its own type, and that is the type written before it. A transport that is given one accepts no other key, whatever
/// `known_hosts`, `StrictHostKeyChecking` and the user's other options say.
///
/// ```
/// use ncc_transport::PinnedHostKey;
///
/// let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJhQzSOhZ0kqzlUpRCBsuTMGCbbc1mQLQcBgIDkiJPBM root@host";
/// let key: PinnedHostKey = line.parse()?;
/// assert_eq!(key.key_type(), "ssh-ed25519");
/// // The comment is gone.
/// assert_eq!(line.strip_suffix(" root@host"), Some(key.to_string().as_str()));
///
/// // As Nix has it in `nix.buildMachines` and in store URIs: the same line, once more in base 64. Empty is "not set".
/// assert_eq!(PinnedHostKey::from_base64("")?, None);
/// # Ok::<(), ncc_transport::PinnedHostKeyError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PinnedHostKey {
    key_type: String,
    blob: Vec<u8>,
}

impl PinnedHostKey {
    /// Reads the value of `base64-ssh-public-host-key`: the line of a public key (`ssh-ed25519 AAAA...`, perhaps with a
    /// comment) in base 64. `None` for an empty value, which Nix takes for "not set".
    pub fn from_base64(encoded: &str) -> Result<Option<Self>, PinnedHostKeyError> {
        // `base64` without -w0 breaks lines; a shell may have left a newline at the end.
        let encoded: String = encoded.split_ascii_whitespace().collect();
        if encoded.is_empty() {
            return Ok(None);
        }
        let line = BASE64.decode(encoded.as_bytes()).map_err(|_| PinnedHostKeyError::NotBase64)?;
        let line = String::from_utf8(line).map_err(|_| PinnedHostKeyError::NotAKey)?;
        line.parse().map(Some)
    }

    /// The key's type, as it stands in `known_hosts`: `ssh-ed25519`, `ssh-rsa`, `ecdsa-sha2-nistp256`.
    pub fn key_type(&self) -> &str {
        &self.key_type
    }

    /// The key as it goes over the wire (RFC 4253, section 6.6), which is what a transport compares.
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// The algorithms with which a host can prove that it has this key, strongest first, for `HostKeyAlgorithms`. An RSA key can
    /// sign in three ways; `ssh-rsa`, which is SHA-1, is none that is offered by default any more and is left out.
    pub fn algorithms(&self) -> Vec<&str> {
        match self.key_type.as_str() {
            "ssh-rsa" => vec!["rsa-sha2-512", "rsa-sha2-256"],
            other => vec![other],
        }
    }

    /// A line for a `known_hosts` file that knows this key under `name`.
    ///
    /// ```
    /// # let key: ncc_transport::PinnedHostKey =
    /// #     "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJhQzSOhZ0kqzlUpRCBsuTMGCbbc1mQLQcBgIDkiJPBM".parse().unwrap();
    /// assert_eq!(key.known_hosts_line("h"), format!("h {key}\n"));
    /// ```
    pub fn known_hosts_line(&self, name: &str) -> String {
        format!("{name} {self}\n")
    }
}

impl FromStr for PinnedHostKey {
    type Err = PinnedHostKeyError;

    /// Reads `TYPE BASE64 [COMMENT]`, one line.
    fn from_str(line: &str) -> Result<Self, PinnedHostKeyError> {
        let line = line.trim();
        if line.lines().count() > 1 {
            return Err(PinnedHostKeyError::SeveralLines);
        }
        let mut words = line.split_ascii_whitespace();
        let (Some(key_type), Some(encoded)) = (words.next(), words.next()) else {
            return Err(PinnedHostKeyError::NotAKey);
        };
        let blob = BASE64.decode(encoded.as_bytes()).map_err(|_| PinnedHostKeyError::NotAKey)?;
        if key_type.contains("-cert-v0") {
            return Err(PinnedHostKeyError::Certificate { key_type: key_type.to_owned() });
        }
        // The blob begins with the type, as a string with its length in 4 bytes; something must follow.
        let own_type = blob
            .split_first_chunk::<4>()
            .and_then(|(length, rest)| {
                rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
            })
            .and_then(|(own_type, rest)| (!rest.is_empty()).then_some(own_type));
        if own_type != Some(key_type.as_bytes()) {
            return Err(PinnedHostKeyError::NotAKey);
        }
        Ok(Self { key_type: key_type.to_owned(), blob })
    }
}

impl fmt::Display for PinnedHostKey {
    /// `TYPE BASE64`, as in a `.pub` file, without a comment.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key_type, BASE64.encode_display(&self.blob))
    }
}

impl fmt::Debug for PinnedHostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PinnedHostKey({self})")
    }
}

/// A pinned host key cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PinnedHostKeyError {
    /// The parameter's value is not base 64.
    #[error(
        "the pinned host key is not in base 64; make it with: base64 -w0 /etc/ssh/ssh_host_ed25519_key.pub"
    )]
    NotBase64,
    /// Not the line of a public key: a type, and the key in base 64.
    #[error("the pinned host key is not the line of a public key ('ssh-ed25519 AAAA...')")]
    NotAKey,
    /// More than one line: which of the keys is meant?
    #[error("the pinned host key has several lines; one key can be pinned")]
    SeveralLines,
    /// A certificate names no key: another one is issued as soon as it runs out.
    #[error("a certificate ('{}') cannot be pinned, only a key", .key_type.escape_debug())]
    Certificate {
        /// The type.
        key_type: String,
    },
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJhQzSOhZ0kqzlUpRCBsuTMGCbbc1mQLQcBgIDkiJPBM";

    #[test]
    fn a_key_goes_in_and_out() {
        let key: PinnedHostKey = format!("  {ED25519} a comment\n").parse().unwrap();
        assert_eq!(key.to_string(), ED25519);
        assert_eq!(key.blob().len(), 51);
        assert_eq!(key.algorithms(), ["ssh-ed25519"]);
        let encoded = BASE64.encode(format!("{ED25519} root@h\n").as_bytes());
        let (front, back) = encoded.split_at(76);
        for written in [encoded.clone(), format!("{front}\n{back}\n")] {
            assert_eq!(PinnedHostKey::from_base64(&written).unwrap().as_ref(), Some(&key));
        }
    }

    #[test]
    fn rsa_keys_sign_with_sha2() {
        let blob = [b"\0\0\0\x07ssh-rsa".as_slice(), b"\0\0\0\x01\x03"].concat();
        let key: PinnedHostKey = format!("ssh-rsa {}", BASE64.encode(&blob)).parse().unwrap();
        assert_eq!(key.algorithms(), ["rsa-sha2-512", "rsa-sha2-256"]);
    }

    #[rstest]
    #[case::empty("", PinnedHostKeyError::NotAKey)]
    #[case::type_alone("ssh-ed25519", PinnedHostKeyError::NotAKey)]
    #[case::other_type(
        "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIJhQzSOhZ0kqzlUpRCBsuTMGCbbc1mQLQcBgIDkiJPBM",
        PinnedHostKeyError::NotAKey
    )]
    #[case::cut("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5", PinnedHostKeyError::NotAKey)]
    #[case::nothing("ssh-ed25519 AAAA", PinnedHostKeyError::NotAKey)]
    #[case::length_beyond_the_end("ssh-ed25519 /////3NzaC1lZDI1NTE5", PinnedHostKeyError::NotAKey)]
    #[case::with_a_name(
        "h ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJhQzSOhZ0kqzlUpRCBsuTMGCbbc1mQLQcBgIDkiJPBM",
        PinnedHostKeyError::NotAKey
    )]
    #[case::two("ssh-ed25519 AAAA\nssh-rsa AAAA", PinnedHostKeyError::SeveralLines)]
    #[case::certificate("ssh-ed25519-cert-v01@openssh.com AAAA", PinnedHostKeyError::Certificate { key_type: "ssh-ed25519-cert-v01@openssh.com".into() })]
    fn refused(#[case] line: &str, #[case] expected: PinnedHostKeyError) {
        assert_eq!(line.parse::<PinnedHostKey>(), Err(expected));
    }

    #[test]
    fn what_is_not_base_64_is_said() {
        assert_eq!(PinnedHostKey::from_base64(ED25519), Err(PinnedHostKeyError::NotBase64));
        assert_eq!(PinnedHostKey::from_base64(" \n"), Ok(None));
    }
}
