//! The texts that name a store: `/dir`, `local?root=/dir`, `auto`.

use std::path::{Path, PathBuf};

use ncc_store::StoreDir;

use crate::{Defaults, LocalStoreConfig, StoreUriError};

/// Kinds of stores that Nix has and that are no directories on this disk.
const OTHER_KINDS: [&str; 12] = [
    "daemon",
    "unix",
    "ssh",
    "ssh-ng",
    "file",
    "http",
    "https",
    "s3",
    "dummy",
    "legacy-ssh",
    "local-overlay",
    "mounted-ssh-ng",
];

/// Parameters of Nix's local store that have no bearing on what this crate does.
const WITHOUT_EFFECT: [&str; 6] =
    ["log", "path-info-cache-size", "priority", "system-features", "trusted", "want-mass-query"];

impl LocalStoreConfig {
    /// Reads a store URI with the built-in directories as defaults: an absolute path (a chroot store), `local`,
    /// `auto`, the empty text, or `local?root=..&store=..&state=..&real=..`, percent-encoded.
    ///
    /// # Errors
    /// [`StoreUriError`]: what names another kind of store, or nothing at all.
    pub fn from_uri(uri: &str) -> Result<Self, StoreUriError> {
        Self::from_uri_with(uri, &Defaults::default())
    }

    /// The same with the caller's defaults.
    ///
    /// # Errors
    /// As [`from_uri`](Self::from_uri).
    pub fn from_uri_with(uri: &str, defaults: &Defaults) -> Result<Self, StoreUriError> {
        let (base, query) = uri.split_once('?').unwrap_or((uri, ""));
        let root = if base.starts_with('/') {
            Some(absolute(base)?)
        } else if let Some(path) = base.strip_prefix("local://") {
            if path.is_empty() { None } else { Some(absolute(&decode(path)?)?) }
        } else if matches!(base, "" | "auto" | "local") {
            None
        } else {
            let kind = base.split_once("://").map_or(base, |(scheme, _)| scheme);
            return Err(if OTHER_KINDS.contains(&kind) {
                StoreUriError::UnsupportedKind { kind: kind.to_owned() }
            } else if base.contains('/') && !base.contains("://") {
                StoreUriError::Relative { path: base.to_owned() }
            } else {
                StoreUriError::Unknown { uri: uri.to_owned() }
            });
        };
        let mut parameters = Parameters::parse(query)?;
        parameters.root = root.or(parameters.root);
        Ok(parameters.apply(defaults))
    }
}

#[derive(Default)]
struct Parameters {
    root: Option<PathBuf>,
    store: Option<StoreDir>,
    state: Option<PathBuf>,
    real: Option<PathBuf>,
}

impl Parameters {
    fn parse(query: &str) -> Result<Self, StoreUriError> {
        let mut parameters = Self::default();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) =
                part.split_once('=').ok_or_else(|| StoreUriError::BadParameter { text: part.to_owned() })?;
            let value = decode(value)?;
            match name {
                // Nix takes an empty value for "not set".
                "root" | "store" | "state" | "real" if value.is_empty() => {}
                "root" => parameters.root = Some(absolute(&value)?),
                "store" => {
                    parameters.store = Some(StoreDir::new(&value).map_err(StoreUriError::StoreDir)?);
                }
                "state" => parameters.state = Some(absolute(&value)?),
                "real" => parameters.real = Some(absolute(&value)?),
                name if WITHOUT_EFFECT.contains(&name) => {}
                name => return Err(StoreUriError::Parameter { name: name.to_owned() }),
            }
        }
        Ok(parameters)
    }

    fn apply(self, defaults: &Defaults) -> LocalStoreConfig {
        let mut defaults = defaults.clone();
        if let Some(store) = self.store {
            defaults.store_dir = Some(store);
        }
        let mut config = match self.root {
            Some(root) => LocalStoreConfig::chroot_with(root, &defaults),
            None => LocalStoreConfig::system(&defaults),
        };
        if let Some(state) = self.state {
            config.state_dir = state;
        }
        if let Some(real) = self.real {
            config.name = format!("the store in {}", real.display());
            config.real_store_dir = real;
        }
        config
    }
}

fn absolute(text: &str) -> Result<PathBuf, StoreUriError> {
    let path = Path::new(text);
    // Components drop `//`, `.` and a trailing slash, which would show in messages.
    path.is_absolute()
        .then(|| path.components().collect())
        .ok_or_else(|| StoreUriError::Relative { path: text.to_owned() })
}

fn decode(text: &str) -> Result<String, StoreUriError> {
    let bad = || StoreUriError::Escape { text: text.to_owned() };
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err(bad()) };
        match u8::try_from(high * 16 + low) {
            Ok(0) | Err(_) => return Err(bad()),
            Ok(byte) => decoded.push(byte),
        }
    }
    String::from_utf8(decoded).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn parts(config: &LocalStoreConfig) -> (&str, &str, &str) {
        (
            config.store_dir.as_str(),
            config.real_store_dir.to_str().unwrap(),
            config.state_dir.to_str().unwrap(),
        )
    }

    #[rstest]
    #[case::empty("", ("/nix/store", "/nix/store", "/nix/var/nix"))]
    #[case::auto("auto", ("/nix/store", "/nix/store", "/nix/var/nix"))]
    #[case::local("local", ("/nix/store", "/nix/store", "/nix/var/nix"))]
    #[case::local_authority("local://", ("/nix/store", "/nix/store", "/nix/var/nix"))]
    #[case::path("/mnt/x", ("/nix/store", "/mnt/x/nix/store", "/mnt/x/nix/var/nix"))]
    #[case::path_is_taken_as_it_is("/mnt/%20", ("/nix/store", "/mnt/%20/nix/store", "/mnt/%20/nix/var/nix"))]
    #[case::path_in_uri("local:///a%20b", ("/nix/store", "/a b/nix/store", "/a b/nix/var/nix"))]
    #[case::root("local?root=/mnt", ("/nix/store", "/mnt/nix/store", "/mnt/nix/var/nix"))]
    #[case::root_with_slash("local?root=/mnt/", ("/nix/store", "/mnt/nix/store", "/mnt/nix/var/nix"))]
    #[case::escaped("local?root=/a%2fb%26c", ("/nix/store", "/a/b&c/nix/store", "/a/b&c/nix/var/nix"))]
    #[case::store("local?store=/gnu/store", ("/gnu/store", "/gnu/store", "/nix/var/nix"))]
    #[case::store_in_root(
        "local?root=/r&store=/gnu/store", ("/gnu/store", "/r/nix/store", "/r/nix/var/nix")
    )]
    #[case::all(
        "local?root=/r&store=/s&state=/t&real=/u&priority=3", ("/s", "/u", "/t")
    )]
    #[case::path_with_parameters("/r?state=/t", ("/nix/store", "/r/nix/store", "/t"))]
    #[case::empty_value("local?root=", ("/nix/store", "/nix/store", "/nix/var/nix"))]
    fn uris_name_stores(#[case] uri: &str, #[case] expected: (&str, &str, &str)) {
        assert_eq!(parts(&LocalStoreConfig::from_uri(uri).unwrap()), expected);
    }

    #[rstest]
    #[case::daemon("daemon", StoreUriError::UnsupportedKind { kind: "daemon".into() })]
    #[case::socket("unix:///run/s", StoreUriError::UnsupportedKind { kind: "unix".into() })]
    #[case::ssh("ssh://host?x=y", StoreUriError::UnsupportedKind { kind: "ssh".into() })]
    #[case::relative("./x", StoreUriError::Relative { path: "./x".into() })]
    #[case::relative_root("local?root=x", StoreUriError::Relative { path: "x".into() })]
    #[case::word("lokal", StoreUriError::Unknown { uri: "lokal".into() })]
    #[case::scheme("gopher://x", StoreUriError::Unknown { uri: "gopher://x".into() })]
    #[case::parameter("local?require-sigs=true", StoreUriError::Parameter { name: "require-sigs".into() })]
    #[case::no_value("local?root", StoreUriError::BadParameter { text: "root".into() })]
    #[case::escape("local?root=/%2", StoreUriError::Escape { text: "/%2".into() })]
    #[case::nul("local?root=/%00", StoreUriError::Escape { text: "/%00".into() })]
    #[case::sign("local?root=/%+1", StoreUriError::Escape { text: "/%+1".into() })]
    fn anything_else_is_refused(#[case] uri: &str, #[case] expected: StoreUriError) {
        assert_eq!(LocalStoreConfig::from_uri(uri).unwrap_err(), expected);
    }

    #[test]
    fn the_callers_defaults_count_as_in_nix() {
        let defaults = Defaults::default().with_store_dir(StoreDir::new("/s").unwrap()).with_state_dir("/t");
        let config = |uri| LocalStoreConfig::from_uri_with(uri, &defaults).unwrap();
        assert_eq!(parts(&config("")), ("/s", "/s", "/t"));
        assert_eq!(parts(&config("/r")), ("/s", "/r/nix/store", "/r/nix/var/nix"));
    }
}
