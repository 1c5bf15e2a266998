//! What is to be shown, as data.

use ncc_store::StoreDir;

/// Which way a copy goes: from where to where, each a host as the user wrote it, or this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Direction {
    from: Option<String>,
    to: Option<String>,
}

const THIS_MACHINE: &str = "this machine";

impl Direction {
    /// From one end to the other; `None` is this machine.
    pub const fn new(from: Option<String>, to: Option<String>) -> Self {
        Self { from, to }
    }

    /// From this machine to a host.
    pub fn to(host: impl Into<String>) -> Self {
        Self::new(None, Some(host.into()))
    }

    /// From a host to this machine.
    pub fn from_host(host: impl Into<String>) -> Self {
        Self::new(Some(host.into()), None)
    }

    /// The host that paths come from.
    pub(crate) fn source_host(&self) -> Option<&str> {
        self.from.as_deref()
    }

    /// The host that paths go to.
    pub(crate) fn destination_host(&self) -> Option<&str> {
        self.to.as_deref()
    }

    /// How messages call where paths come from.
    pub(crate) fn source(&self) -> &str {
        self.source_host().unwrap_or(THIS_MACHINE)
    }

    /// How messages call where they go.
    pub(crate) fn destination(&self) -> &str {
        self.destination_host().unwrap_or(THIS_MACHINE)
    }

    /// The host that is called first.
    pub(crate) fn first_host(&self) -> &str {
        self.source_host().unwrap_or_else(|| self.destination())
    }

    /// The one host, or both where it may be either.
    pub(crate) fn either_host(&self) -> String {
        match (&self.from, &self.to) {
            (Some(from), Some(to)) => format!("{from} or {to}"),
            _ => self.first_host().to_owned(),
        }
    }

    /// `to web1`, `from web1`, `from web1 to web2`.
    pub fn words(&self) -> String {
        match (&self.from, &self.to) {
            (None, Some(to)) => format!("to {to}"),
            (Some(from), None) => format!("from {from}"),
            _ => format!("from {} to {}", self.source(), self.destination()),
        }
    }

    /// As upstream calls the source; `local` is this machine's store.
    pub(crate) fn source_uri(&self, local: &str) -> String {
        uri(self.source_host(), local)
    }

    /// As upstream calls the destination.
    pub(crate) fn destination_uri(&self, local: &str) -> String {
        uri(self.destination_host(), local)
    }
}

/// As upstream calls the store of a host; `local` is this machine's.
pub(crate) fn uri(host: Option<&str>, local: &str) -> String {
    match host {
        None => local.to_owned(),
        Some(host) if host.contains("://") => host.to_owned(),
        Some(host) => format!("ssh://{host}"),
    }
}

/// How progress is shown, under Nix's names for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One line per path.
    Raw,
    /// The same as [`Raw`](Self::Raw).
    RawWithLogs,
    /// A bar on a terminal; one line per path elsewhere.
    Bar,
    /// A bar, with one line per path above it.
    BarWithLogs,
    /// The same as [`Bar`](Self::Bar).
    Multiline,
    /// The same as [`BarWithLogs`](Self::BarWithLogs).
    MultilineWithLogs,
    /// For programs: lines of `@nix` and a JSON object.
    InternalJson,
}

impl LogFormat {
    /// All of them, in the order in which a manual lists them.
    pub const ALL: [Self; 7] = [
        Self::Raw,
        Self::RawWithLogs,
        Self::Bar,
        Self::BarWithLogs,
        Self::Multiline,
        Self::MultilineWithLogs,
        Self::InternalJson,
    ];

    /// Nix's name for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::RawWithLogs => "raw-with-logs",
            Self::Bar => "bar",
            Self::BarWithLogs => "bar-with-logs",
            Self::Multiline => "multiline",
            Self::MultilineWithLogs => "multiline-with-logs",
            Self::InternalJson => "internal-json",
        }
    }

    /// What it looks like, for a manual.
    pub const fn description(self) -> &'static str {
        match self {
            Self::Raw => "One line per path",
            Self::RawWithLogs => "Same as raw",
            Self::Bar => "A bar on a terminal, same as raw elsewhere",
            Self::BarWithLogs => "A bar, with one line per path above it",
            Self::Multiline => "Same as bar",
            Self::MultilineWithLogs => "Same as bar-with-logs",
            Self::InternalJson => "For programs: lines of '@nix' and JSON",
        }
    }

    /// The format of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }
}

/// How a program speaks on standard error.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct ConsoleOptions {
    /// `None`: a bar on a terminal, lines elsewhere.
    pub format: Option<LogFormat>,
    /// How often `-v` was given.
    pub verbosity: u8,
    /// Errors, and nothing else.
    pub quiet: bool,
}

/// What is to be shown of one copy.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProgressOptions {
    /// Which way.
    pub direction: Direction,
    /// The store directory that paths are shown in.
    pub store_dir: StoreDir,
    /// Nothing is copied: no line says so, though a bar may show what is waited for.
    pub looking: bool,
    /// ssh may ask for something on the terminal before a host answers. Not so for `localhost`.
    pub may_ask: bool,
}

impl ProgressOptions {
    /// A copy over ssh.
    pub const fn new(direction: Direction, store_dir: StoreDir) -> Self {
        Self { direction, store_dir, looking: false, may_ask: true }
    }
}

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Importance {
    /// It went wrong.
    Error,
    /// It may go wrong.
    Warning,
    /// To be known without asking.
    Notice,
    /// For `-v`.
    Info,
    /// For `-vv` and more.
    Debug,
}
