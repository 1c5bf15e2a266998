//! Who we are, and where the files are.

use std::path::{Path, PathBuf};

use super::{Origin, bad};
use crate::error::ConnectionError;

/// What a configuration may refer to. Nothing of it has to be there: a container may run under a number that no file knows.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    pub(crate) home: Option<PathBuf>,
    pub(crate) local_user: Option<String>,
    pub(crate) local_host: String,
    /// `/etc/ssh`.
    pub(crate) system: PathBuf,
    pub(crate) environment: fn(&str) -> Option<String>,
}

impl Surroundings {
    /// Those of this process. HOME wins over what the user database says, unlike in OpenSSH, which knows no HOME.
    pub(crate) fn of_this_process() -> Self {
        let environment = |name: &str| std::env::var(name).ok();
        let name = |key| environment(key).filter(|name| !name.is_empty());
        Self {
            home: std::env::home_dir().filter(|home| !home.as_os_str().is_empty()),
            local_user: user_of_passwd().or_else(|| name("USER")).or_else(|| name("LOGNAME")),
            local_host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            system: "/etc/ssh".into(),
            environment,
        }
    }

    /// The home directory, which the option from there needs.
    pub(crate) fn home(&self, origin: &Origin) -> Result<&Path, ConnectionError> {
        self.home.as_deref().ok_or_else(|| {
            bad(origin, "this user's home directory is not known").hint("set HOME, or write whole paths")
        })
    }

    /// The user's shell, for commands in the configuration.
    pub(crate) fn shell(&self) -> String {
        (self.environment)("SHELL").filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/sh".to_owned())
    }

    /// A file in `~/.ssh`, if there is a home directory.
    pub(crate) fn in_ssh_directory(&self, name: &str) -> Option<PathBuf> {
        Some(self.home.as_ref()?.join(".ssh").join(name))
    }
}

/// The name that goes with the user's number; only from the local file.
fn user_of_passwd() -> Option<String> {
    let number = rustix::process::getuid().as_raw().to_string();
    entry_of_passwd(|fields| fields.get(2) == Some(&number.as_str()))?.into_iter().next()
}

/// The home directory of somebody, from the local file.
pub(crate) fn home_of(user: &str) -> Option<PathBuf> {
    let fields = entry_of_passwd(|fields| fields.first() == Some(&user))?;
    fields.into_iter().nth(5).map(PathBuf::from)
}

fn entry_of_passwd(matches: impl Fn(&[&str]) -> bool) -> Option<Vec<String>> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        matches(&fields).then(|| fields.into_iter().map(str::to_owned).collect())
    })
}
