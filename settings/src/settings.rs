//! The settings in effect: files, variables and command line, one over the other.

use std::{collections::BTreeMap, io, path::PathBuf};

use crate::{
    Class, Environment, FileSystem, Kind, Origin, Setting, SettingsError,
    catalogue::find_setting,
    conf::{Assignment, Reader},
    error::shown,
};

/// What is set, by whom, and with which value.
///
/// Later sources win over earlier ones:
///
/// 1. `nix.conf` in `NIX_CONF_DIR`, or in `/etc/nix`;
/// 2. the files of the user: those in `NIX_USER_CONF_FILES`, or `nix/nix.conf` in `XDG_CONFIG_DIRS` (`/etc/xdg`) and then
///    in `XDG_CONFIG_HOME` (`~/.config`), for which Nix 2.25 and later also know `NIX_CONFIG_HOME`;
/// 3. the variable `NIX_CONFIG`;
/// 4. the command line.
///
/// A list set by `extra-NAME` is added to what the sources before it say.
///
/// ```
/// use ncc_settings::{Disk, Environment, Settings};
///
/// let environment = Environment::empty("/")
///     .with_variable("NIX_CONF_DIR", "/nowhere")
///     .with_variable("NIX_USER_CONF_FILES", "")
///     .with_variable("NIX_CONFIG", "substituters = https://a\nextra-substituters = https://b\ncores = 4");
/// let settings = Settings::load(&environment, &Disk, &[])?;
/// assert_eq!(settings.words("substituters", "").collect::<Vec<_>>(), ["https://a", "https://b"]);
/// assert_eq!(settings.review().without_effect, ["cores"]);
/// # Ok::<(), ncc_settings::SettingsError>(())
/// ```
#[derive(Debug, Default)]
pub struct Settings {
    values: BTreeMap<&'static str, Value>,
    unknown: Vec<Assignment>,
    unreadable: Vec<(PathBuf, io::ErrorKind)>,
}

#[derive(Debug)]
struct Value {
    setting: &'static Setting,
    /// `None`: the default, to which something may be added.
    text: Option<String>,
    added: Vec<String>,
    /// Of the last change.
    origin: Origin,
}

impl Settings {
    /// Reads all sources. `given` is the command line: names and values, the last one of a name wins.
    ///
    /// # Errors
    /// [`SettingsError`]: files that Nix refuses too, or of absurd size.
    pub fn load(
        environment: &Environment,
        files: &dyn FileSystem,
        given: &[(String, String)],
    ) -> Result<Self, SettingsError> {
        let mut reader = Reader::new(environment, files);
        reader.file(&environment.system_conf_file())?;
        for file in environment.user_conf_files().iter().rev() {
            reader.file(file)?;
        }
        reader.variable("NIX_CONFIG")?;
        let (assignments, unreadable) = reader.finish();
        let mut settings = Self { unreadable, ..Self::default() };
        for assignment in assignments {
            settings.set(assignment);
        }
        for (name, value) in given {
            settings.set(Assignment {
                name: name.clone(),
                value: value.clone(),
                origin: Origin::CommandLine,
            });
        }
        Ok(settings)
    }

    fn set(&mut self, assignment: Assignment) {
        let Assignment { name, value, origin } = assignment;
        let exact = find_setting(&name);
        let found = exact.or_else(|| {
            let list = find_setting(name.strip_prefix("extra-")?)?;
            (list.kind == Kind::List).then_some(list)
        });
        let Some(setting) = found else {
            return self.unknown.push(Assignment { name, value, origin });
        };
        let new = || Value { setting, text: None, added: Vec::new(), origin: Origin::Default };
        let entry = self.values.entry(setting.name).or_insert_with(new);
        entry.origin = origin;
        if exact.is_some() {
            entry.text = Some(value);
            entry.added.clear();
        } else {
            entry.added.push(value);
        }
    }

    /// The value of a setting that is no list, if something sets it.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name)?.text.as_deref()
    }

    /// Where a setting was last changed.
    pub fn origin(&self, name: &str) -> Origin {
        self.values.get(name).map_or(Origin::Default, |value| value.origin.clone())
    }

    /// The words of a list; `default` counts if nothing sets it, though something may add to it.
    pub fn words<'a>(&'a self, name: &str, default: &'a str) -> impl Iterator<Item = &'a str> {
        let value = self.values.get(name);
        let text = value.and_then(|value| value.text.as_deref()).unwrap_or(default);
        let added = value.into_iter().flat_map(|value| value.added.iter().map(String::as_str));
        [text]
            .into_iter()
            .chain(added)
            .flat_map(|text| text.split([' ', '\t', '\n', '\r']))
            .filter(|word| !word.is_empty())
    }

    /// The value of a switch, if something sets it.
    ///
    /// # Errors
    /// [`SettingsError::Value`], if it is no boolean.
    pub fn switch(&self, name: &str) -> Result<Option<bool>, SettingsError> {
        let Some(value) = self.values.get(name) else { return Ok(None) };
        let Some(text) = &value.text else { return Ok(None) };
        boolean(text).map(Some).ok_or_else(|| SettingsError::Value {
            name: value.setting.name,
            value: text.clone(),
            origin: value.origin.clone(),
            expected: BOOLEAN,
        })
    }

    /// Everything that concerns a store on this disk.
    ///
    /// # Errors
    /// [`SettingsError::Value`], for what should be a boolean and is none.
    pub fn local_store(&self, environment: &Environment) -> Result<LocalStoreSettings, SettingsError> {
        let ignored = if environment.os == crate::Os::Linux { IGNORED_ACLS } else { "" };
        let links = environment.variable("NIX_IGNORE_SYMLINK_STORE").is_some_and(|value| value == "1");
        let switch = |name, default| self.switch(name).map(|value| value.unwrap_or(default));
        Ok(LocalStoreSettings {
            allow_symlinked_store: switch("allow-symlinked-store", links)?,
            auto_optimise_store: switch("auto-optimise-store", false)?,
            fsync_metadata: switch("fsync-metadata", true)?,
            fsync_store_paths: self.switch("fsync-store-paths")?,
            ignored_acls: self.words("ignored-acls", ignored).map(str::to_owned).collect(),
            preallocate_contents: switch("preallocate-contents", false)?,
            require_sigs: switch("require-sigs", true)?,
            sync_before_registering: switch("sync-before-registering", false)?,
            use_case_hack: switch("use-case-hack", environment.os == crate::Os::MacOs)?,
            use_sqlite_wal: self.switch("use-sqlite-wal")?,
        })
    }

    /// The files that exist and could not be read. Nix skips them too.
    pub fn unreadable(&self) -> impl Iterator<Item = (&std::path::Path, io::ErrorKind)> {
        self.unreadable.iter().map(|(path, kind)| (path.as_path(), *kind))
    }

    /// Sorts what is set by what has to be said about it.
    pub fn review(&self) -> Review {
        let mut review = Review::default();
        for value in self.values.values() {
            match value.setting.class {
                Class::Honoured => {}
                Class::Substituting => review.substituting.push(value.setting.name),
                Class::NoEffect => review.without_effect.push(value.setting.name),
                Class::NotGiven { harmless, reason } => {
                    if !value.is(harmless) {
                        let remark = Remark {
                            name: value.setting.name.to_owned(),
                            origin: value.origin.clone(),
                            reason,
                        };
                        match value.origin {
                            Origin::CommandLine => review.refused.push(remark),
                            _ => review.missed.push(remark),
                        }
                    }
                }
            }
        }
        let unknown = self.unknown.iter();
        let unknown = unknown.map(|unknown| Remark {
            name: unknown.name.clone(),
            origin: unknown.origin.clone(),
            reason: "no version of Nix is known to have it",
        });
        review.unknown = unknown.collect();
        review
    }
}

impl Value {
    /// Whether the value means the same as `text`.
    fn is(&self, text: &str) -> bool {
        let own = self.text.as_deref().unwrap_or(text);
        let same = match self.setting.kind {
            Kind::Switch => boolean(own) == boolean(text),
            _ => own == text,
        };
        same && self.added.iter().all(|added| added.trim().is_empty())
    }
}

const BOOLEAN: &str = "a boolean (true or false)";

/// The attributes that Nix does not remove on Linux.
const IGNORED_ACLS: &str = "security.csm security.selinux system.nfs4_acl";

/// A boolean as Nix writes it.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "yes" | "1" => Some(true),
        "false" | "no" | "0" => Some(false),
        _ => None,
    }
}

/// The settings that concern a store on this disk, with Nix's defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of Nix")]
pub struct LocalStoreSettings {
    /// The store directory and those above it may be symlinks. Also by `NIX_IGNORE_SYMLINK_STORE=1`.
    pub allow_symlinked_store: bool,
    /// Equal files are hard-linked to each other through `.links`.
    pub auto_optimise_store: bool,
    /// The database is written so that a power cut cannot damage it.
    pub fsync_metadata: bool,
    /// New files reach the disk before their path is registered. `None`: nothing is said, which for Nix means no.
    pub fsync_store_paths: Option<bool>,
    /// Extended attributes that stay on new files.
    pub ignored_acls: Vec<String>,
    /// Disk space is reserved before a file is written.
    pub preallocate_contents: bool,
    /// Paths need a signature of a trusted key.
    pub require_sigs: bool,
    /// All of the disk's caches are written before paths are registered.
    pub sync_before_registering: bool,
    /// Names that differ only in case get a suffix on disk, and lose it when they are read.
    pub use_case_hack: bool,
    /// The database is in WAL mode. `None`: nothing is said, and the default depends on the kernel.
    pub use_sqlite_wal: Option<bool>,
}

/// What has to be said about settings, if somebody wants to hear it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Review {
    /// Options of the command line that would have an effect which is not given: errors.
    pub refused: Vec<Remark>,
    /// The same from files and variables: whoever runs this program may not be who wrote them, so these are warnings.
    pub missed: Vec<Remark>,
    /// The names of settings that only count while Nix substitutes.
    pub substituting: Vec<&'static str>,
    /// The names of settings that cannot change what a copy does.
    pub without_effect: Vec<&'static str>,
    /// Settings that are not in the list: warnings, as in Nix.
    pub unknown: Vec<Remark>,
}

/// One setting, and what there is to say about it. It is an error where a caller takes it for one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("setting '{}' ({origin}) has no effect: {reason}", shown(.name))]
#[non_exhaustive]
pub struct Remark {
    /// The setting, as it is written.
    pub name: String,
    /// Where it is set.
    pub origin: Origin,
    /// What there is to say, as a clause.
    pub reason: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Disk;

    fn load(conf: &str, given: &[(&str, &str)]) -> Settings {
        let environment = Environment::empty("/")
            .with_variable("NIX_CONF_DIR", "/nowhere")
            .with_variable("NIX_USER_CONF_FILES", "")
            .with_variable("NIX_CONFIG", conf);
        let given: Vec<_> = given.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        Settings::load(&environment, &Disk, &given).unwrap()
    }

    fn words(settings: &Settings, name: &str) -> Vec<String> {
        settings.words(name, "default").map(str::to_owned).collect()
    }

    #[test]
    fn lists_are_added_to() {
        let settings =
            load("extra-substituters = a\nextra-binary-caches = b", &[("extra-substituters", "c d")]);
        assert_eq!(words(&settings, "substituters"), ["default", "a", "b", "c", "d"]);
        let settings = load("extra-substituters = a\nsubstituters = b", &[("extra-substituters", "c")]);
        assert_eq!(words(&settings, "substituters"), ["b", "c"]);
        let settings = load("substituters = b", &[("binary-caches", "")]);
        assert!(words(&settings, "substituters").is_empty());
    }

    #[test]
    fn what_cannot_be_added_to_is_unknown() {
        let settings =
            load("extra-cores = 3\nextra-platforms = x\nextra-extra-platforms = y\nno-such = z", &[]);
        assert_eq!(words(&settings, "extra-platforms"), ["x", "y"]);
        let unknown: Vec<_> = settings.review().unknown.into_iter().map(|remark| remark.name).collect();
        assert_eq!(unknown, ["extra-cores", "no-such"]);
    }

    #[test]
    fn aliases_are_the_setting() {
        let settings = load("build-timeout = 4", &[]);
        assert_eq!(
            (settings.text("timeout"), settings.origin("timeout")),
            (Some("4"), Origin::Variable("NIX_CONFIG"))
        );
        assert_eq!(settings.review().without_effect, ["timeout"]);
    }

    #[test]
    fn booleans_are_those_of_nix() {
        for (text, value) in
            [("true", true), ("yes", true), ("1", true), ("false", false), ("no", false), ("0", false)]
        {
            assert_eq!(
                load(&format!("require-sigs = {text}"), &[]).switch("require-sigs").unwrap(),
                Some(value)
            );
        }
        for text in ["", "True", "on", "2"] {
            let error = load(&format!("require-sigs = {text}"), &[]).switch("require-sigs").unwrap_err();
            let expected = format!(
                "setting 'require-sigs' is '{text}' (NIX_CONFIG), which is not a boolean (true or false)"
            );
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn a_review_tells_who_asked_and_whether_it_matters() {
        let conf = "json-log-path = /x\nmin-free = 0\ncores = 3\nstore = auto\nhttp2 = no";
        let review = load(conf, &[]).review();
        assert_eq!((review.refused.len(), review.missed.len()), (0, 1));
        assert_eq!(
            review.missed[0].to_string(),
            "setting 'json-log-path' (NIX_CONFIG) has no effect: no such log is written; \
             '--log-format internal-json' prints it"
        );
        assert_eq!(review.without_effect, ["cores"]);
        assert_eq!(review.substituting, ["http2"]);
        let review = load(conf, &[("json-log-path", "/y")]).review();
        assert_eq!((review.refused.len(), review.missed.len()), (1, 0));
        assert!(load(conf, &[("json-log-path", "")]).review().refused.is_empty());
    }

    #[test]
    fn local_stores_have_the_defaults_of_nix() {
        let environment = Environment::empty("/");
        let defaults = Settings::default().local_store(&environment).unwrap();
        assert!(defaults.fsync_metadata && defaults.require_sigs);
        assert!(
            defaults.fsync_store_paths.is_none()
                && !defaults.auto_optimise_store
                && !defaults.allow_symlinked_store
        );
        let linked = environment.clone().with_variable("NIX_IGNORE_SYMLINK_STORE", "1");
        assert!(Settings::default().local_store(&linked).unwrap().allow_symlinked_store);
        let settings = load("extra-ignored-acls = user.x\nfsync-store-paths = yes", &[]);
        let mut linux = environment;
        linux.os = crate::Os::Linux;
        let local = settings.local_store(&linux).unwrap();
        assert_eq!(local.ignored_acls, ["security.csm", "security.selinux", "system.nfs4_acl", "user.x"]);
        assert_eq!(local.fsync_store_paths, Some(true));
    }
}
