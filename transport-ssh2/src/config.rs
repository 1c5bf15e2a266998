//! `ssh_config`: reading files, and finding what they say of a host.
//!
//! The published parsers do not do for this. `ssh2-config` (0.9, the maintained one) knows no `Match`: it takes what stands below it for
//! part of the `Host` block above, so that options reach hosts that they were not meant for, among them those that weaken the check of
//! host keys. None keeps the file and the line of an option, which an error has to name. The grammar is small.

mod line;
mod settings;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

pub(crate) use line::pattern_list_matches;
pub(crate) use settings::{AddressFamily, Agent, Proxy, Settings, Strictness};

use crate::error::ConnectionError;
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

/// Who we are, and where the files are.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    pub(crate) home: PathBuf,
    pub(crate) local_user: String,
    pub(crate) local_host: String,
    /// `/etc/ssh`.
    pub(crate) system: PathBuf,
}

/// The options for one host, by lower-case keyword. For most the first value wins.
#[derive(Debug)]
pub(crate) struct Raw<'a> {
    surroundings: &'a Surroundings,
    /// The host as it was asked for.
    original_host: String,
    values: HashMap<String, Vec<Value>>,
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
            values: HashMap::new(),
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
    pub(crate) fn begin_final_pass(&mut self) -> bool {
        std::mem::take(&mut self.wants_final) && !std::mem::replace(&mut self.is_final, true)
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
        let cumulative = CUMULATIVE.contains(&keyword);
        let values = self.values.entry(keyword.to_owned()).or_default();
        let known = values.iter().any(|value| value.words == words);
        if values.is_empty() || cumulative && !known {
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

    /// Reads a file that may be missing.
    pub(crate) fn read_if_there(&mut self, path: &Path) -> Result<(), ConnectionError> {
        match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            _ => self.read(path),
        }
    }

    /// Reads a file.
    pub(crate) fn read(&mut self, path: &Path) -> Result<(), ConnectionError> {
        self.read_nested(path, 0, true)
    }

    fn read_nested(
        &mut self,
        path: &Path,
        depth: usize,
        applies_outside: bool,
    ) -> Result<(), ConnectionError> {
        let failed = |source| {
            let what = format!("cannot read {}", path.display());
            ConnectionError::io(ncc_transport::FailureKind::BadConfiguration, what, source)
        };
        let metadata = fs::metadata(path).map_err(failed)?;
        if metadata.is_dir() || metadata.len() > MAX_FILE_SIZE {
            return Err(ConnectionError::configuration(format!(
                "{} is no configuration file",
                path.display()
            )));
        }
        let text = fs::read(path).map_err(failed)?;
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
                "host" => applies = applies_outside && matches_list(&words, &self.original_host),
                "match" => applies = applies_outside && self.matches(&words, &origin)?,
                _ if !applies => {}
                "include" => {
                    if depth >= MAX_INCLUDE_DEPTH {
                        return Err(bad(&origin, "too many files include each other"));
                    }
                    for word in &words {
                        for included in self.included(word, &path, &origin)? {
                            self.read_nested(&included, depth + 1, applies)?;
                        }
                    }
                }
                _ => self.set(&keyword, words, origin),
            }
        }
        Ok(())
    }

    /// The files that an `Include` names, in order. A pattern that matches nothing is no error.
    fn included(&self, word: &str, from: &Path, origin: &Origin) -> Result<Vec<PathBuf>, ConnectionError> {
        let system = from.starts_with(&self.surroundings.system);
        let path = match word.strip_prefix("~/") {
            Some(rest) if !system => self.surroundings.home.join(rest),
            Some(_) => return Err(bad(origin, "'~' is not possible in a file of the system")),
            None if system => self.surroundings.system.join(word),
            None => self.surroundings.home.join(".ssh").join(word),
        };
        let pattern = path.to_str().ok_or_else(|| bad(origin, "a name that is not UTF-8"))?;
        let files = glob::glob(pattern).map_err(|error| bad(origin, error))?;
        Ok(files.flatten().filter(|path| path.is_file()).collect())
    }

    fn matches(&mut self, words: &[String], origin: &Origin) -> Result<bool, ConnectionError> {
        let mut words = words.iter();
        let mut result = true;
        let mut any = false;
        while let Some(word) = words.next() {
            any = true;
            let (word, negated) = word.strip_prefix('!').map_or((word.as_str(), false), |word| (word, true));
            let (criterion, mut value) =
                word.split_once('=').map_or((word, None), |(word, value)| (word, Some(value)));
            let criterion = criterion.to_ascii_lowercase();
            let mut operand = || {
                value
                    .take()
                    .or_else(|| words.next().map(String::as_str))
                    .ok_or_else(|| bad(origin, format_args!("'Match {criterion}' without a value")))
            };
            let matched = match criterion.as_str() {
                "all" => true,
                "canonical" => self.is_final,
                "final" => {
                    self.wants_final = true;
                    self.is_final
                }
                "host" => {
                    let host = self.value("hostname").and_then(|value| value.words.first());
                    let host = host
                        .map_or(self.original_host.clone(), |name| name.replace("%h", &self.original_host));
                    pattern_list_matches(operand()?, &host)
                }
                "originalhost" => pattern_list_matches(operand()?, &self.original_host),
                "user" => {
                    let user = self.value("user").and_then(|value| value.words.first());
                    pattern_list_matches(operand()?, user.unwrap_or(&self.surroundings.local_user))
                }
                "localuser" => pattern_list_matches(operand()?, &self.surroundings.local_user),
                // What cannot be decided could lift a restriction or add one. It does not matter if the line cannot apply anyway.
                other => {
                    let _ = operand();
                    if result {
                        return Err(bad(
                            origin,
                            format_args!("'Match {other}' cannot be decided without OpenSSH's own program"),
                        ));
                    }
                    false
                }
            };
            result &= matched != negated;
        }
        if any { Ok(result) } else { Err(bad(origin, "'Match' without a condition")) }
    }
}

/// A line that is not accepted.
pub(crate) fn bad(origin: &Origin, reason: impl fmt::Display) -> ConnectionError {
    ConnectionError::configuration(format!("{origin}: {reason}"))
}
