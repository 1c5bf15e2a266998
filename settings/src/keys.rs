//! The keys that Nix on this machine signs with, and those that it trusts.

use std::path::Path;

use ncc_store::{PublicKey, SecretKey};

use crate::{FileSystem, Settings, SettingsError};

/// The default of `trusted-public-keys` in every Nix.
const DEFAULT_KEYS: &str = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";

/// No key file is larger: a name and 88 letters.
const LARGEST_KEY_FILE: u64 = 64 << 10;

/// Reads a key file, as `nix-store --generate-binary-cache-key` and `nix key generate-secret` write it.
///
/// # Errors
/// [`SettingsError::UnreadableKey`], [`SettingsError::KeyFile`].
pub fn read_secret_key(path: &Path, files: &dyn FileSystem) -> Result<SecretKey, SettingsError> {
    let content = files
        .read(path, LARGEST_KEY_FILE)
        .map_err(|error| SettingsError::UnreadableKey { path: path.to_owned(), kind: error.kind() })?;
    // What is no text is no key either, and is not quoted.
    String::from_utf8_lossy(&content)
        .parse()
        .map_err(|source| SettingsError::KeyFile { path: path.to_owned(), source })
}

impl Settings {
    /// The keys in `secret-key-files`.
    ///
    /// # Errors
    /// As [`read_secret_key`].
    pub fn secret_keys(&self, files: &dyn FileSystem) -> Result<Vec<SecretKey>, SettingsError> {
        self.words("secret-key-files", "").map(|file| read_secret_key(Path::new(file), files)).collect()
    }

    /// The keys whose signatures are believed: `trusted-public-keys`, and, as in Nix, those that belong to the `secret-key-files`
    /// that this user can read. `None` if `require-sigs` says that no path needs any.
    ///
    /// # Errors
    /// [`SettingsError::TrustedKey`]; [`SettingsError::KeyFile`] for secret keys that are none;
    /// [`SettingsError::Value`] for a `require-sigs` that is no boolean.
    pub fn trusted_keys(&self, files: &dyn FileSystem) -> Result<Option<Vec<PublicKey>>, SettingsError> {
        if self.switch("require-sigs")? == Some(false) {
            return Ok(None);
        }
        let name = "trusted-public-keys";
        let public = |word: &str| {
            word.parse().map_err(|source| SettingsError::TrustedKey { origin: self.origin(name), source })
        };
        let mut keys = self.words(name, DEFAULT_KEYS).map(public).collect::<Result<Vec<PublicKey>, _>>()?;
        for file in self.words("secret-key-files", "") {
            match read_secret_key(Path::new(file), files) {
                Ok(key) => keys.push(key.public_key()),
                Err(SettingsError::UnreadableKey { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Some(keys))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Disk, Environment};

    fn settings(conf: &str) -> Settings {
        let environment = Environment::empty("/")
            .with_variable("NIX_CONF_DIR", "/nowhere")
            .with_variable("NIX_USER_CONF_FILES", "")
            .with_variable("NIX_CONFIG", conf);
        Settings::load(&environment, &Disk, &[]).unwrap()
    }

    fn names(settings: &Settings) -> Vec<String> {
        let keys = settings.trusted_keys(&Disk).unwrap().unwrap();
        keys.iter().map(|key| key.name().to_owned()).collect()
    }

    #[test]
    fn keys_are_trusted_as_nix_trusts_them() {
        assert_eq!(names(&settings("")), ["cache.nixos.org-1"]);
        let own = SecretKey::from_seed("own", &[1; 32]).unwrap();
        let public = own.public_key();
        assert_eq!(
            names(&settings(&format!("extra-trusted-public-keys = {public}"))),
            ["cache.nixos.org-1", "own"]
        );
        assert_eq!(names(&settings(&format!("trusted-public-keys = {public}"))), ["own"]);
        assert!(settings("require-sigs = false").trusted_keys(&Disk).unwrap().is_none());
        let error = settings("trusted-public-keys = own:AAAA").trusted_keys(&Disk).unwrap_err();
        assert_eq!(
            error.to_string(),
            "setting 'trusted-public-keys' (NIX_CONFIG) has a word that is no public key"
        );
    }

    // A key whose secret half is here, as `nix-store --generate-binary-cache-key` made it.
    const SECRET: &str =
        "test-1:czhSEG8d2wUaCTlx52NHvaD5DNoh/BVDqkDLlWFyuQTKm10bmdv79oeUa1e6ceyWPLXwHPfUuGjtjHgJpzwGDA==";

    #[test]
    fn secret_keys_come_from_files_and_are_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        std::fs::write(&file, format!("{SECRET}\n")).unwrap();
        assert_eq!(read_secret_key(&file, &Disk).unwrap().name(), "test-1");
        std::fs::write(&file, SECRET.replace("GDA==", "G!A==")).unwrap();
        let error = read_secret_key(&file, &Disk).unwrap_err();
        let shown = format!("{error:?} {error} {}", std::error::Error::source(&error).unwrap());
        assert!(!shown.contains("czhSEG8d"), "{shown}");
        let settings = settings(&format!("secret-key-files = {0} {0}-gone", file.display()));
        assert!(matches!(settings.secret_keys(&Disk), Err(SettingsError::KeyFile { .. })));
        assert!(settings.trusted_keys(&Disk).is_err());
        let gone = read_secret_key(&directory.path().join("gone"), &Disk).unwrap_err();
        assert!(gone.to_string().ends_with("cannot be read: entity not found"), "{gone}");
    }
}
