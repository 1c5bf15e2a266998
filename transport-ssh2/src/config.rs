//! `ssh_config`: reading files, and finding what they say of a host.
//!
//! The published parsers do not do for this. `ssh2-config` (0.9, the maintained one) knows no `Match`: it takes what stands below it for
//! part of the `Host` block above, so that options reach hosts that they were not meant for, among them those that weaken the check of
//! host keys. None keeps the file and the line of an option, which an error has to name. The grammar is small.

mod conditions;
mod expansion;
mod keywords;
mod line;
mod settings;
mod surroundings;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    fs::Metadata,
    io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use ncc_transport::FailureKind;

pub(crate) use line::{Case, pattern_list_matches};
pub(crate) use settings::{AddressFamily, Agent, Proxy, Settings, Strictness};
pub(crate) use surroundings::Surroundings;

use crate::{
    error::{ConnectionError, OPENSSH_CAN},
    files,
};
use line::{Line, matches_list};

/// As in OpenSSH.
const MAX_INCLUDE_DEPTH: usize = 16;

/// Much more than anybody's; a guard against `Include /dev/zero`.
const MAX_FILE_SIZE: u64 = 4 * 1024 * 1024;

/// Where an option was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    File {
        path: Arc<Path>,
        line: usize,
    },
    /// NIX_SSHOPTS.
    Words,
    /// The caller's options, as data.
    Options,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Words => f.write_str("NIX_SSHOPTS"),
            Self::Options => f.write_str("the options"),
        }
    }
}

/// An option's words.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    pub(crate) words: Vec<String>,
    pub(crate) origin: Origin,
}

/// How a file came to be read, as OpenSSH distinguishes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source {
    /// The user's own file, or one that it includes: relative names are below `~/.ssh`, and `~` is possible.
    pub(crate) of_user: bool,
    /// Nobody but the user and root may be able to write to it: what it says is executed (ProxyCommand).
    pub(crate) guarded: bool,
}

impl Source {
    /// `~/.ssh/config`.
    pub(crate) const USER: Self = Self { of_user: true, guarded: true };
    /// `/etc/ssh/ssh_config`.
    pub(crate) const SYSTEM: Self = Self { of_user: false, guarded: false };
    /// A file that was named by hand (`-F`).
    pub(crate) const NAMED: Self = Self { of_user: true, guarded: false };

    fn included(self) -> Self {
        Self { guarded: true, ..self }
    }
}

/// The options for one host, by lower-case keyword. For most the first value wins.
#[derive(Debug)]
pub(crate) struct Raw<'a> {
    surroundings: &'a Surroundings,
    /// The host as it was asked for.
    original_host: String,
    /// What `Host` lines are compared with: the host as it was asked for, and in the final pass its HostName.
    host: String,
    values: BTreeMap<String, Vec<Value>>,
    /// `Match final` and `Match canonical` apply.
    is_final: bool,
    /// There is a `Match final`, for which all has to be read again.
    wants_final: bool,
}

/// Options of which every value counts.
const CUMULATIVE: &[&str] = &["identityfile", "certificatefile"];

impl<'a> Raw<'a> {
    pub(crate) fn new(surroundings: &'a Surroundings, original_host: &str) -> Self {
        Self {
            surroundings,
            original_host: original_host.to_owned(),
            host: original_host.to_owned(),
            values: BTreeMap::new(),
            is_final: false,
            wants_final: false,
        }
    }

    pub(crate) fn surroundings(&self) -> &Surroundings {
        self.surroundings
    }

    pub(crate) fn original_host(&self) -> &str {
        &self.original_host
    }

    /// Whether a `Match final` asks for another pass, which this begins.
    pub(crate) fn begin_final_pass(&mut self) -> Result<bool, ConnectionError> {
        if !std::mem::take(&mut self.wants_final) || std::mem::replace(&mut self.is_final, true) {
            return Ok(false);
        }
        self.host = self.host_name()?.to_ascii_lowercase();
        // From now on the name is settled, also if nothing has set it.
        self.set("hostname", vec![self.host.replace('%', "%%")], Origin::Options);
        Ok(true)
    }

    /// The host's name as far as it is known: HostName, or what was asked for.
    fn host_name(&self) -> Result<String, ConnectionError> {
        match self.value("hostname") {
            Some(value) => {
                let own = [('h', Some(self.original_host.clone()))];
                expansion::tokens(value.one()?, &own, &value.origin)
            }
            None => Ok(self.original_host.clone()),
        }
    }

    /// The remote user as far as it is known.
    fn user(&self) -> Option<&str> {
        let given = self.value("user").and_then(|value| value.words.first());
        given.or(self.surroundings.local_user.as_ref()).map(String::as_str)
    }

    pub(crate) fn value(&self, keyword: &str) -> Option<&Value> {
        self.values.get(keyword)?.first()
    }

    pub(crate) fn values(&self, keyword: &str) -> &[Value] {
        self.values.get(keyword).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn keywords(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().filter_map(|(keyword, values)| Some((keyword.as_str(), values.first()?)))
    }

    /// Sets an option, unless it is set.
    pub(crate) fn set(&mut self, keyword: &str, words: Vec<String>, origin: Origin) {
        let keyword = keywords::canonical(keyword);
        let says_none = |value: &Value| value.words.iter().all(|word| word.eq_ignore_ascii_case("none"));
        // The first of the two wins, and `ProxyCommand none` is one; but a command may follow on `ProxyJump none`.
        let overruled = match keyword {
            "proxyjump" => self.value("proxycommand").is_some(),
            "proxycommand" => self.value("proxyjump").is_some_and(|value| !says_none(value)),
            _ => false,
        };
        if overruled {
            return;
        }
        let values = self.values.entry(keyword.to_owned()).or_default();
        let known = values.iter().any(|value| value.words == words);
        if values.is_empty() || CUMULATIVE.contains(&keyword) && !known {
            values.push(Value { words, origin });
        }
    }

    /// One `Keyword=value` or `Keyword value`.
    pub(crate) fn set_line(&mut self, text: &str, origin: Origin) -> Result<(), ConnectionError> {
        match Line::parse(text).map_err(|reason| bad(&origin, reason))? {
            Some(Line { keyword, .. }) if ["host", "match", "include"].contains(&keyword.as_str()) => {
                Err(bad(&origin, format_args!("'{keyword}' is not possible there")))
            }
            Some(Line { keyword, words }) => {
                self.set(&keyword, words, origin);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Reads a file that may be missing: whether it was there.
    pub(crate) fn read_if_there(&mut self, path: &Path, source: Source) -> Result<bool, ConnectionError> {
        if std::fs::metadata(path).is_err_and(|error| files::is_missing(&error)) {
            return Ok(false);
        }
        self.read(path, source).map(|()| true)
    }

    /// Reads a file.
    pub(crate) fn read(&mut self, path: &Path, source: Source) -> Result<(), ConnectionError> {
        self.read_nested(path, source, 0, true)
    }

    fn read_nested(
        &mut self,
        path: &Path,
        source: Source,
        depth: usize,
        applies_outside: bool,
    ) -> Result<(), ConnectionError> {
        let failed = |source: io::Error| {
            ConnectionError::io(
                FailureKind::BadConfiguration,
                format!("cannot read {}", path.display()),
                source,
            )
        };
        let (text, metadata) = files::read(path, MAX_FILE_SIZE).map_err(failed)?;
        if source.guarded {
            check_permissions(path, &metadata)?;
        }
        let text = String::from_utf8_lossy(&text);
        let path: Arc<Path> = path.into();
        let mut applies = applies_outside;
        for (index, text) in text.lines().enumerate() {
            let origin = Origin::File { path: Arc::clone(&path), line: index + 1 };
            let Some(Line { keyword, words }) = Line::parse(text).map_err(|reason| bad(&origin, reason))?
            else {
                continue;
            };
            match keyword.as_str() {
                "host" => applies = applies_outside && matches_list(&words, &self.host, Case::Matters),
                "match" => applies = applies_outside && self.matches(&words, &origin)?,
                _ if !applies => {}
                "include" => {
                    if depth >= MAX_INCLUDE_DEPTH {
                        return Err(bad(&origin, "too many files include each other"));
                    }
                    for word in &words {
                        for included in self.included(word, source, &origin)? {
                            self.read_nested(&included, source.included(), depth + 1, applies)?;
                        }
                    }
                }
                _ => self.set(&keyword, words, origin),
            }
        }
        Ok(())
    }

    /// The files that an `Include` names, in order. A pattern that matches nothing is no error.
    fn included(&self, word: &str, source: Source, origin: &Origin) -> Result<Vec<PathBuf>, ConnectionError> {
        let path = if word.starts_with('~') {
            if !source.of_user {
                return Err(bad(origin, "'~' is not possible in a file of the system"));
            }
            expansion::home(word, self.surroundings, origin)?
        } else if source.of_user && !word.starts_with('/') {
            self.surroundings.home(origin)?.join(".ssh").join(word)
        } else {
            self.surroundings.system.join(word)
        };
        let pattern = path.to_str().ok_or_else(|| bad(origin, "a name that is not UTF-8"))?;
        let files = glob::glob(pattern).map_err(|error| bad(origin, error))?;
        // As the C library does it for OpenSSH: no hidden file, unless the pattern begins with a dot.
        let is_hidden = |path: &Path| path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"."));
        let hidden_too = is_hidden(&path);
        Ok(files.flatten().filter(|path| !path.is_dir() && (hidden_too || !is_hidden(path))).collect())
    }
}

impl Value {
    /// The only word.
    fn one(&self) -> Result<&str, ConnectionError> {
        match self.words.as_slice() {
            [word] => Ok(word),
            words => {
                Err(bad(&self.origin, format_args!("one value was expected, not '{}'", words.join(" "))))
            }
        }
    }
}

/// What others can write to, they could have commands executed with (ProxyCommand, Match exec).
fn check_permissions(path: &Path, metadata: &Metadata) -> Result<(), ConnectionError> {
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    let user = rustix::process::getuid().as_raw();
    if (owner == 0 || owner == user) && mode & 0o022 == 0 {
        return Ok(());
    }
    let reason = if mode & 0o022 == 0 {
        format!("it belongs to the user with the number {owner}")
    } else {
        format!("its permissions are {mode:04o}")
    };
    Err(ConnectionError::configuration(format!("{} may be changed by others: {reason}", path.display()))
        .hint(format!("after a look at what it says: chmod go-w {}", path.display())))
}

/// A line that is not accepted.
pub(crate) fn bad(origin: &Origin, reason: impl fmt::Display) -> ConnectionError {
    ConnectionError::configuration(format!("{origin}: {reason}"))
}

/// What libssh2, or this crate, cannot do and OpenSSH can.
pub(crate) fn unsupported(origin: &Origin, what: impl fmt::Display) -> ConnectionError {
    bad(origin, format_args!("{what} is not supported by the libssh2 transport")).hint(OPENSSH_CAN)
}
