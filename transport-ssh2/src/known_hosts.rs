//! Files of known host keys, in the format of `sshd(8)`, "SSH_KNOWN_HOSTS FILE FORMAT".
//!
//! libssh2 has a reader of its own, which knows no `@revoked` and cannot say on which line a key stands.

use std::{
    fmt, fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use data_encoding::{BASE64, BASE64_NOPAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use crate::{
    config::{Case, pattern_list_matches},
    files,
};

/// A line for each of 100,000 hosts, and a guard against a file without an end.
const MAX_FILE_SIZE: u64 = 64 * 1024 * 1024;

/// All that is known of hosts, in the order of files and lines.
#[derive(Debug, Default)]
pub(crate) struct KnownHosts {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    place: Place,
    marker: Marker,
    hosts: String,
    key: Vec<u8>,
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    pub(crate) line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    None,
    Revoked,
    Authority,
}

/// What the files say of a key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Known,
    /// Marked as revoked, there.
    Revoked(Place),
    /// The host has another key of this type, there.
    Changed(Place),
    /// The host is known only by keys of other types; the first one is there.
    OtherType(Place),
    /// Only a certificate would tell, by an authority named there.
    Authority(Place),
    Unknown,
}

impl KnownHosts {
    /// Reads the files that are there. Lines that are not understood are skipped, as in OpenSSH.
    pub(crate) fn read<'a>(
        paths: impl IntoIterator<Item = &'a PathBuf>,
    ) -> Result<Self, (PathBuf, io::Error)> {
        let mut entries = Vec::new();
        for path in paths {
            let text = match files::read(path, MAX_FILE_SIZE) {
                Ok((text, _)) => text,
                Err(error) if files::is_missing(&error) => continue,
                // A revoked key might stand there.
                Err(error) => return Err((path.clone(), error)),
            };
            let text = String::from_utf8_lossy(&text);
            entries.extend(text.lines().enumerate().filter_map(|(index, line)| {
                let (marker, hosts, key) = parse(line)?;
                Some(Entry { place: Place { path: path.clone(), line: index + 1 }, marker, hosts, key })
            }));
        }
        Ok(Self { entries })
    }

    /// The types of the keys that the host is known by.
    pub(crate) fn types<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a str> {
        self.of(host).filter(|entry| entry.marker == Marker::None).filter_map(|entry| key_type(&entry.key))
    }

    /// What is known of this key of a host.
    pub(crate) fn verdict(&self, host: &str, key: &[u8]) -> Verdict {
        if let Some(entry) = self.of(host).find(|entry| entry.marker == Marker::Revoked && entry.key == key) {
            return Verdict::Revoked(entry.place.clone());
        }
        let of_hosts = || self.of(host).filter(|entry| entry.marker == Marker::None);
        if of_hosts().any(|entry| entry.key == key) {
            return Verdict::Known;
        }
        if let Some(entry) = of_hosts().find(|entry| key_type(&entry.key) == key_type(key)) {
            return Verdict::Changed(entry.place.clone());
        }
        if let Some(entry) = of_hosts().next() {
            return Verdict::OtherType(entry.place.clone());
        }
        match self.of(host).find(|entry| entry.marker == Marker::Authority) {
            Some(entry) => Verdict::Authority(entry.place.clone()),
            None => Verdict::Unknown,
        }
    }

    fn of<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(move |entry| matches(&entry.hosts, host))
    }
}

fn parse(line: &str) -> Option<(Marker, String, Vec<u8>)> {
    let mut words = line.split_whitespace();
    let mut word = words.next().filter(|word| !word.starts_with('#'))?;
    let marker = match word {
        "@revoked" => Marker::Revoked,
        "@cert-authority" => Marker::Authority,
        _ if word.starts_with('@') => return None,
        _ => Marker::None,
    };
    if marker != Marker::None {
        word = words.next()?;
    }
    let named = words.next()?;
    let key = BASE64.decode(words.next()?.as_bytes()).ok()?;
    (key_type(&key)? == named).then(|| (marker, word.to_owned(), key))
}

fn matches(hosts: &str, host: &str) -> bool {
    let Some(hashed) = hosts.strip_prefix("|1|") else {
        return pattern_list_matches(hosts, host, Case::Ignored);
    };
    let Some((salt, hash)) = hashed.split_once('|') else { return false };
    match (BASE64.decode(salt.as_bytes()), BASE64.decode(hash.as_bytes())) {
        (Ok(salt), Ok(hash)) => hmac_sha1(&salt, host.as_bytes()).is_some_and(|ours| ours == *hash),
        _ => false,
    }
}

/// The type that stands at the beginning of a key's wire form.
pub(crate) fn key_type(key: &[u8]) -> Option<&str> {
    let (length, rest) = key.split_first_chunk::<4>()?;
    std::str::from_utf8(rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)?).ok()
}

/// As `ssh-keygen -l` shows it.
pub(crate) fn fingerprint(key: &[u8]) -> String {
    format!("SHA256:{}", BASE64_NOPAD.encode(&Sha256::digest(key)))
}

fn hmac_sha1(key: &[u8], message: &[u8]) -> Option<[u8; 20]> {
    let mac = Hmac::<Sha1>::new_from_slice(key).ok()?.chain_update(message);
    Some(mac.finalize().into_bytes().into())
}

/// Adds a key to a file, as OpenSSH would.
pub(crate) fn append(path: &Path, host: &str, key: &[u8], hashed: bool) -> io::Result<()> {
    let hosts = if hashed {
        let mut salt = [0; 20];
        fs::File::open("/dev/urandom")?.read_exact(&mut salt)?;
        let hash = hmac_sha1(&salt, host.as_bytes()).ok_or(io::ErrorKind::InvalidData)?;
        format!("|1|{}|{}", BASE64.encode(&salt), BASE64.encode(&hash))
    } else {
        host.to_owned()
    };
    let kind = key_type(key).ok_or(io::ErrorKind::InvalidData)?;
    let line = format!("{hosts} {kind} {}\n", BASE64.encode(key));
    if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
        fs::DirBuilder::new().mode(0o700).create(directory)?;
    }
    let mut file = fs::OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    // One write, so that two programs that do this at once do not mix their lines.
    let separator = if text.last().is_some_and(|&byte| byte != b'\n') { "\n" } else { "" };
    file.write_all(format!("{separator}{line}").as_bytes())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// Made by ssh-keygen of OpenSSH 9.2.
    const FIRST: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDqIpuzj9vjXDPSrLRpY1J5UiCkmvN6KYBgZgLzVHAGo";
    const SECOND: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDqIpuzj9vjXDPSrLRpY1J5UiCkmvN6KYBgZgLzVHAGp";
    const OTHER: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQ==";

    fn key(text: &str) -> Vec<u8> {
        BASE64.decode(text.split(' ').nth(1).unwrap().as_bytes()).unwrap()
    }

    fn known(text: &str) -> (tempfile::TempDir, PathBuf, KnownHosts) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("known_hosts");
        fs::write(&path, text).unwrap();
        let known = KnownHosts::read([&path]).unwrap();
        (directory, path, known)
    }

    #[rstest]
    #[case::plain(format!("h {FIRST}"), "h", "known")]
    #[case::comment(format!("# h {FIRST}\n\n  h {FIRST} alice@somewhere"), "h", "known")]
    #[case::several(format!("a,h,10.0.0.1 {FIRST}"), "h", "known")]
    #[case::pattern(format!("*.example.org,!bad.example.org {FIRST}"), "good.example.org", "known")]
    #[case::negated(format!("*.example.org,!bad.example.org {FIRST}"), "bad.example.org", "unknown")]
    #[case::port(format!("[h]:2200 {FIRST}"), "[h]:2200", "known")]
    #[case::other_port(format!("[h]:2200 {FIRST}"), "h", "unknown")]
    #[case::second_line(format!("h {OTHER}\nh {FIRST}"), "h", "known")]
    #[case::two_keys_of_a_type(format!("h {SECOND}\nh {FIRST}"), "h", "known")]
    #[case::changed(format!("x {FIRST}\nh {SECOND}"), "h", "changed:2")]
    #[case::other_type(format!("h {OTHER}"), "h", "other type:1")]
    #[case::revoked(format!("h {FIRST}\n@revoked * {FIRST}"), "h", "revoked:2")]
    #[case::another_is_revoked(format!("h {FIRST}\n@revoked * {SECOND}"), "h", "known")]
    #[case::authority(format!("@cert-authority *.org {FIRST}"), "h.org", "authority:1")]
    #[case::unknown_marker(format!("@new h {FIRST}"), "h", "unknown")]
    #[case::not_base64("h ssh-ed25519 ????", "h", "unknown")]
    #[case::wrong_type(format!("h ssh-rsa {}", FIRST.split(' ').nth(1).unwrap()), "h", "unknown")]
    #[case::cut_off("h ssh-ed25519", "h", "unknown")]
    #[case::hashed_elsewhere(format!("|1|x|y {FIRST}"), "h", "unknown")]
    fn verdicts(#[case] text: impl AsRef<str>, #[case] host: &str, #[case] expected: &str) {
        let (_directory, path, known) = known(text.as_ref());
        let line = |name: &str, place: &Place| {
            assert_eq!(place.path, path);
            format!("{name}:{}", place.line)
        };
        let verdict = match &known.verdict(host, &key(FIRST)) {
            Verdict::Known => "known".to_owned(),
            Verdict::Unknown => "unknown".to_owned(),
            Verdict::Changed(place) => line("changed", place),
            Verdict::OtherType(place) => line("other type", place),
            Verdict::Revoked(place) => line("revoked", place),
            Verdict::Authority(place) => line("authority", place),
        };
        assert_eq!(verdict, expected);
    }

    #[rstest]
    #[case::plain(false)]
    #[case::hashed(true)]
    fn what_is_appended_is_found(#[case] hashed: bool) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".ssh/known_hosts");
        append(&path, "[h]:2200", &key(FIRST), hashed).unwrap();
        // Somebody's editor left the last newline out.
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.trim_end()).unwrap();
        append(&path, "i", &key(SECOND), hashed).unwrap();
        let known = KnownHosts::read([&path]).unwrap();
        assert_eq!(known.verdict("[h]:2200", &key(FIRST)), Verdict::Known);
        assert_eq!(known.verdict("i", &key(SECOND)), Verdict::Known);
        assert_eq!(known.verdict("j", &key(SECOND)), Verdict::Unknown);
        assert_eq!(fs::read_to_string(&path).unwrap().contains("2200"), !hashed);
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
}
