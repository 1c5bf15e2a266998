//! The parameters of a store: what stands behind `?` in a URI.

use std::{fmt, path::Path};

use percent_encoding::percent_decode_str;

use crate::{SettingsError, error::shown, reference::StoreKind, settings::boolean};

/// Decoded parameters, in the order written. Of a repeated one the first counts, as in Nix.
///
/// ```
/// use ncc_settings::Parameters;
///
/// let parameters = Parameters::parse("remote-store=local%3froot=/mnt&compress=&x")?;
/// assert_eq!(parameters.value("remote-store"), Some("local?root=/mnt"));
/// assert_eq!(parameters.value("compress"), None);
/// # Ok::<(), ncc_settings::SettingsError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    pairs: Vec<(String, String)>,
    /// Parts without `=`, which Nix skips.
    dubious: Vec<String>,
}

impl Parameters {
    /// Reads `key=value&key=value`, percent-encoded.
    ///
    /// # Errors
    /// [`SettingsError::Escape`].
    pub fn parse(query: &str) -> Result<Self, SettingsError> {
        let mut parameters = Self::default();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                None => parameters.dubious.push(part.to_owned()),
                Some((name, value)) => {
                    let name = decoded(name)?;
                    if !parameters.pairs.iter().any(|(known, _)| *known == name) {
                        parameters.pairs.push((name, decoded(value)?));
                    }
                }
            }
        }
        Ok(parameters)
    }

    /// The value of a parameter. An empty one counts as not set.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// All that are set.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.pairs.iter().filter(|(_, value)| !value.is_empty());
        pairs.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of a boolean; a value that is none counts as not set, but see [`review`](Self::review).
    pub fn switch(&self, name: &str) -> Option<bool> {
        self.value(name).and_then(boolean)
    }

    /// Whether no parameter is named, not even an empty one.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// What there is to say about the parameters of a store of this kind.
    ///
    /// # Errors
    /// [`SettingsError::Parameter`], for a value that is not of the form that the parameter has in Nix.
    pub fn review(&self, kind: &StoreKind) -> Result<Vec<ParameterRemark>, SettingsError> {
        let dubious = self.dubious.iter();
        let mut remarks: Vec<_> =
            dubious.map(|text| ParameterRemark::WithoutValue { text: text.clone() }).collect();
        for (name, value) in self.iter() {
            match kind.parameters().find(|known| known.name == name) {
                None => remarks.push(ParameterRemark::Unknown { name: name.to_owned() }),
                Some(known) => {
                    if !known.form.fits(value) {
                        return Err(SettingsError::Parameter {
                            name: known.name,
                            value: value.to_owned(),
                            expected: known.form.description(),
                        });
                    }
                    match known.bearing {
                        Bearing::Honoured => {}
                        Bearing::None(reason) => {
                            remarks.push(ParameterRemark::WithoutEffect { name: known.name, reason });
                        }
                    }
                }
            }
        }
        Ok(remarks)
    }
}

/// Something to say about a parameter of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParameterRemark {
    /// No store of this kind is known to have it: worth a warning. Newer versions of Nix may.
    Unknown {
        /// The parameter.
        name: String,
    },
    /// There is no `=`: worth a warning.
    WithoutValue {
        /// What stands there.
        text: String,
    },
    /// It has no bearing on a copy: worth a word for those who ask for more.
    WithoutEffect {
        /// The parameter.
        name: &'static str,
        /// What it is for.
        reason: &'static str,
    },
}

impl ParameterRemark {
    /// Whether it should be said without being asked for.
    pub fn is_warning(&self) -> bool {
        !matches!(self, Self::WithoutEffect { .. })
    }
}

impl fmt::Display for ParameterRemark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name } => {
                write!(f, "the parameter '{}' of the store is not known and ignored", shown(name))
            }
            Self::WithoutValue { text } => {
                write!(f, "'{}' among the parameters of the store has no '=' and is ignored", shown(text))
            }
            Self::WithoutEffect { name, reason } => {
                write!(f, "the parameter '{name}' of the store has no effect here: it {reason}")
            }
        }
    }
}

/// A parameter that a kind of store has.
pub(crate) struct Parameter {
    name: &'static str,
    form: Form,
    bearing: Bearing,
}

#[derive(Clone, Copy)]
enum Form {
    Switch,
    Number,
    Path,
    Port,
    Text,
}

enum Bearing {
    Honoured,
    None(&'static str),
}

impl Form {
    fn fits(self, value: &str) -> bool {
        match self {
            Self::Switch => boolean(value).is_some(),
            Self::Number => value.parse::<i64>().is_ok(),
            Self::Path => Path::new(value).is_absolute(),
            Self::Port => value.parse::<u16>().is_ok_and(|port| port > 0),
            Self::Text => true,
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::Switch => "a boolean (true or false)",
            Self::Number => "a number",
            Self::Path => "an absolute path",
            Self::Port => "a port number from 1 to 65535",
            Self::Text => "a text",
        }
    }
}

const fn honoured(name: &'static str, form: Form) -> Parameter {
    Parameter { name, form, bearing: Bearing::Honoured }
}

const fn without(name: &'static str, form: Form, reason: &'static str) -> Parameter {
    Parameter { name, form, bearing: Bearing::None(reason) }
}

/// Of every store.
const EVERY: &[Parameter] = &[
    honoured("store", Form::Path),
    without("path-info-cache-size", Form::Number, "sizes a cache of Nix"),
    without("priority", Form::Number, "ranks substituters"),
    without("system-features", Form::Text, "concerns building"),
    without("trusted", Form::Switch, "concerns substituters"),
    without("want-mass-query", Form::Switch, "concerns substituters"),
];

/// Of every store whose files are on this machine.
const FILES: &[Parameter] = &[
    honoured("root", Form::Path),
    honoured("state", Form::Path),
    honoured("real", Form::Path),
    without("log", Form::Path, "says where build logs are"),
];

/// Of `local`.
const LOCAL: &[Parameter] = &[
    honoured("read-only", Form::Switch),
    without("require-sigs", Form::Switch, "does not concern copies between stores of this user's choice"),
    without("build-dir", Form::Path, "concerns building"),
    without("use-roots-daemon", Form::Switch, "concerns garbage collection"),
    without("ignore-gc-delete-failure", Form::Switch, "concerns garbage collection"),
];

/// Of every store that is reached through the daemon's protocol.
const WORKER: &[Parameter] = &[
    without("max-connections", Form::Number, "limits connections, of which few are made"),
    without("max-connection-age", Form::Number, "ends connections that are kept for later"),
];

/// Of `unix://`.
const DAEMON: &[Parameter] = &[without("protocol", Form::Text, "chooses among protocols of Lix")];

/// Of every store that is reached with ssh.
const SSH: &[Parameter] = &[
    // Nix before 2.34 takes a relative one too.
    honoured("ssh-key", Form::Text),
    honoured("base64-ssh-public-host-key", Form::Text),
    honoured("compress", Form::Switch),
    honoured("port", Form::Port),
    honoured("remote-program", Form::Text),
    honoured("remote-store", Form::Text),
    without("max-connections", Form::Number, "limits connections, of which few are made"),
];

/// Of `ssh://`.
const LEGACY_SSH: &[Parameter] = &[without("log-fd", Form::Number, "is for internal use by Nix")];

impl StoreKind {
    /// The parameters that a store of this kind has.
    fn parameters(&self) -> impl Iterator<Item = &'static Parameter> {
        let more: &[&'static [Parameter]] = match self {
            // Which of the two it is, is found out later: Nix takes the parameters of either.
            Self::Auto => &[FILES, LOCAL, WORKER, DAEMON],
            Self::Local { .. } => &[FILES, LOCAL],
            Self::Daemon { .. } => &[FILES, WORKER, DAEMON],
            Self::Ssh => &[SSH, LEGACY_SSH],
            Self::SshNg => &[SSH, WORKER],
            Self::Foreign { .. } => &[],
        };
        EVERY.iter().chain(more.iter().copied().flatten())
    }
}

/// Takes percent-encoding away.
pub(crate) fn decoded(text: &str) -> Result<String, SettingsError> {
    let bad = || SettingsError::Escape { text: text.to_owned() };
    // The library leaves alone what is no escape; Nix refuses it.
    let escapes_are_whole = text.split('%').skip(1).all(|after| {
        let mut digits = after.bytes();
        let mut is_digit = || digits.next().is_some_and(|byte| byte.is_ascii_hexdigit());
        is_digit() && is_digit()
    });
    if !escapes_are_whole {
        return Err(bad());
    }
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| bad())?;
    if decoded.contains('\0') { Err(bad()) } else { Ok(decoded.into_owned()) }
}
