//! What a reader of settings may look at: variables, the working directory, the user, and files.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Read as _},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Component, Path, PathBuf},
};

use nix::unistd::{self, AccessFlags, Uid, User};

/// The variables that have a bearing on settings and stores.
const VARIABLES: [&str; 16] = [
    "HOME",
    "NIX_CONFIG",
    "NIX_CONFIG_HOME",
    "NIX_CONF_DIR",
    "NIX_DAEMON_SOCKET_PATH",
    "NIX_DATA_HOME",
    "NIX_IGNORE_SYMLINK_STORE",
    "NIX_LOG_DIR",
    "NIX_REMOTE",
    "NIX_STATE_DIR",
    "NIX_STORE",
    "NIX_STORE_DIR",
    "NIX_USER_CONF_FILES",
    "XDG_CONFIG_DIRS",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
];

/// The operating systems between which Nix makes a difference here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Os {
    /// Linux.
    Linux,
    /// macOS.
    MacOs,
    /// Anything else.
    Other,
}

impl Os {
    const THIS: Self = if cfg!(target_os = "linux") {
        Self::Linux
    } else if cfg!(target_os = "macos") {
        Self::MacOs
    } else {
        Self::Other
    };
}

/// All that settings and the choice of a store depend on, apart from files and the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Environment {
    /// Environment variables, by name.
    pub variables: BTreeMap<String, OsString>,
    /// The user's home directory, if there is one.
    pub home: Option<PathBuf>,
    /// Where relative paths start. Absolute.
    pub working_directory: PathBuf,
    /// Whether the user is root.
    pub is_root: bool,
    /// The operating system.
    pub os: Os,
}

impl Environment {
    /// An environment without variables, for a user who is not root and has no home.
    pub fn empty(working_directory: impl Into<PathBuf>) -> Self {
        Self {
            variables: BTreeMap::new(),
            home: None,
            working_directory: working_directory.into(),
            is_root: false,
            os: Os::THIS,
        }
    }

    /// The environment of this process.
    ///
    /// As in Nix, `HOME` counts only if that directory belongs to the user or does not exist; otherwise the user
    /// database says where the home is. So `sudo` does not make root read the files of another user.
    ///
    /// # Errors
    /// If the working directory no longer exists or cannot be read.
    pub fn from_process() -> io::Result<Self> {
        let read = |name: &str| env::var_os(name).map(|value| (name.to_owned(), value));
        Ok(Self {
            variables: VARIABLES.into_iter().filter_map(read).collect(),
            home: home_of_this_user(),
            working_directory: env::current_dir()?,
            is_root: Uid::current().is_root(),
            os: Os::THIS,
        })
    }

    /// With a variable set.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.insert(name.to_owned(), value.into());
        self
    }

    /// A variable, if it is set and not empty.
    pub(crate) fn variable(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(name).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// The path that a variable holds, made absolute, if it is set and not empty.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.variable(name).map(|value| self.absolute(Path::new(value)))
    }

    /// The paths in a list separated by colons. `None` if the variable is not set; empty entries are dropped.
    pub(crate) fn paths(&self, name: &str) -> Option<Vec<PathBuf>> {
        let value = self.variables.get(name)?;
        let entries = value.as_bytes().split(|&byte| byte == b':').filter(|entry| !entry.is_empty());
        Some(entries.map(|entry| self.absolute(Path::new(OsStr::from_bytes(entry)))).collect())
    }

    /// A path as seen from the working directory, without `.`, `..` and double slashes.
    pub(crate) fn absolute(&self, path: &Path) -> PathBuf {
        normal(&self.working_directory.join(path))
    }

    /// The user's directory for configuration of Nix.
    fn config_home(&self) -> Option<PathBuf> {
        self.path("NIX_CONFIG_HOME")
            .or_else(|| Some(self.path("XDG_CONFIG_HOME")?.join("nix")))
            .or_else(|| Some(self.home.as_ref()?.join(".config/nix")))
    }

    /// The user's directory for data of Nix.
    pub(crate) fn data_home(&self) -> Option<PathBuf> {
        self.path("NIX_DATA_HOME")
            .or_else(|| Some(self.path("XDG_DATA_HOME")?.join("nix")))
            .or_else(|| Some(self.home.as_ref()?.join(".local/share/nix")))
    }

    /// The file with the settings of the whole machine.
    pub(crate) fn system_conf_file(&self) -> PathBuf {
        self.path("NIX_CONF_DIR").unwrap_or_else(|| "/etc/nix".into()).join("nix.conf")
    }

    /// The files with the settings of the user, the most important first.
    pub(crate) fn user_conf_files(&self) -> Vec<PathBuf> {
        if let Some(files) = self.paths("NIX_USER_CONF_FILES") {
            return files;
        }
        let shared = self.paths("XDG_CONFIG_DIRS").unwrap_or_else(|| vec!["/etc/xdg".into()]);
        let shared = shared.into_iter().map(|directory| directory.join("nix"));
        self.config_home().into_iter().chain(shared).map(|directory| directory.join("nix.conf")).collect()
    }
}

fn home_of_this_user() -> Option<PathBuf> {
    let user = Uid::effective();
    let from_variable = env::var_os("HOME").map(PathBuf::from).filter(|home| match fs::metadata(home) {
        Ok(metadata) => metadata.uid() == user.as_raw(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    });
    from_variable.or_else(|| Some(User::from_uid(user).ok()??.dir)).filter(|home| home.is_absolute())
}

/// A path without `.`, `..` and double slashes. `..` is taken away by text, as Nix does: links are not followed.
pub(crate) fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

/// What is asked of files. [`Disk`] asks the real ones.
pub trait FileSystem {
    /// The content of a file. Reading may stop after `limit` bytes.
    ///
    /// # Errors
    /// Those of the system.
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>>;

    /// Whether there is something at `path`, even if it is a link that leads nowhere.
    fn exists(&self, path: &Path) -> bool;

    /// Whether the user may read and write what is at `path`.
    fn is_writable(&self, path: &Path) -> bool;
}

/// The files of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl FileSystem for Disk {
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        File::open(path)?.take(limit).read_to_end(&mut content)?;
        Ok(content)
    }

    fn exists(&self, path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok()
    }

    fn is_writable(&self, path: &Path) -> bool {
        unistd::access(path, AccessFlags::R_OK | AccessFlags::W_OK).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::nothing_known(&[], None, &["/etc/xdg/nix/nix.conf"])]
    #[case::home(&[], Some("/home/a"), &["/home/a/.config/nix/nix.conf", "/etc/xdg/nix/nix.conf"])]
    #[case::xdg(
        &[("XDG_CONFIG_HOME", "/x"), ("XDG_CONFIG_DIRS", "/1:/2")], Some("/home/a"),
        &["/x/nix/nix.conf", "/1/nix/nix.conf", "/2/nix/nix.conf"]
    )]
    #[case::own_directory_of_nix(
        &[("XDG_CONFIG_HOME", "/x"), ("NIX_CONFIG_HOME", "/n"), ("XDG_CONFIG_DIRS", "")], None,
        &["/n/nix.conf"]
    )]
    #[case::files_named(&[("NIX_USER_CONF_FILES", "/a:b::/c")], Some("/home/a"), &["/a", "/w/b", "/c"])]
    #[case::no_files_at_all(&[("NIX_USER_CONF_FILES", "")], Some("/home/a"), &[])]
    fn user_files_have_an_order(
        #[case] variables: &[(&str, &str)],
        #[case] home: Option<&str>,
        #[case] expected: &[&str],
    ) {
        let mut environment = Environment::empty("/w");
        environment.home = home.map(PathBuf::from);
        for (name, value) in variables {
            environment = environment.with_variable(name, *value);
        }
        assert_eq!(environment.user_conf_files(), expected.iter().map(PathBuf::from).collect::<Vec<_>>());
    }

    #[test]
    fn paths_are_made_absolute_by_text() {
        let environment = Environment::empty("/w/d");
        for (given, expected) in [(".", "/w/d"), ("../x", "/w/x"), ("/a//b/./c/", "/a/b/c"), ("/../..", "/")]
        {
            assert_eq!(environment.absolute(Path::new(given)), Path::new(expected), "{given}");
        }
    }
}
