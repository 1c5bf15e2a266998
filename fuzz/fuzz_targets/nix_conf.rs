//! Whatever stands in configuration files is read or refused, in bounded time, and every setting that is in effect can be
//! asked for. The files may include each other.
#![no_main]

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

use libfuzzer_sys::fuzz_target;
use ncc_settings::{Environment, FileSystem, SETTINGS, Settings};

/// Files in memory.
struct Files<'a>(BTreeMap<PathBuf, &'a [u8]>);

impl FileSystem for Files<'_> {
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let content = self.0.get(path).ok_or(io::ErrorKind::NotFound)?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(content.len());
        Ok(content[..limit].to_vec())
    }

    fn exists(&self, path: &Path) -> bool {
        self.0.contains_key(path)
    }

    fn is_writable(&self, _: &Path) -> bool {
        false
    }
}

// NULs end files: the system's, the user's, NIX_CONFIG, and then those that others may include as `a`, `b`, ...
fuzz_target!(|data: &[u8]| {
    let mut parts = data.split(|&byte| byte == 0);
    let mut next = || parts.next().unwrap_or_default();
    let (system, user, variable) = (next(), next(), next());
    let mut files =
        Files(BTreeMap::from([("/etc/nix.conf".into(), system), ("/home/nix.conf".into(), user)]));
    for (name, part) in ('a'..='z').zip(parts) {
        files.0.insert(format!("/etc/{name}").into(), part);
    }
    let environment = Environment::empty("/etc")
        .with_variable("NIX_CONF_DIR", "/etc")
        .with_variable("NIX_USER_CONF_FILES", "/home/nix.conf")
        .with_variable("NIX_CONFIG", OsString::from_vec(variable.to_vec()));
    let settings = match Settings::load(&environment, &files, &[]) {
        Ok(settings) => settings,
        Err(error) => return assert!(!error.to_string().chars().any(|character| character.is_control())),
    };
    for setting in SETTINGS {
        let _ = (settings.text(setting.name), settings.switch(setting.name), settings.origin(setting.name));
        assert!(settings.words(setting.name, "a b").all(|word| !word.is_empty() && !word.contains(' ')));
    }
    let _ = settings.local_store(&environment);
    for remark in settings.review().unknown {
        assert!(!remark.to_string().chars().any(|character| character.is_control()));
    }
});
