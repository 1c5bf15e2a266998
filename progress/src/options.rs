//! What is to be shown, as data.

use ncc_store::StoreDir;

/// Which way a copy goes, and how the other side is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To this host.
    To(String),
    /// From this host.
    From(String),
}

impl Direction {
    /// The host as the user wrote it.
    pub fn host(&self) -> &str {
        let (Self::To(host) | Self::From(host)) = self;
        host
    }

    /// `to` or `from`.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::To(_) => "to",
            Self::From(_) => "from",
        }
    }

    /// As upstream calls the host's store.
    pub(crate) fn uri(&self) -> String {
        let host = self.host();
        if host.contains("://") { host.to_owned() } else { format!("ssh://{host}") }
    }

    pub(crate) fn source_uri(&self, local: &str) -> String {
        if matches!(self, Self::From(_)) { self.uri() } else { local.to_owned() }
    }

    pub(crate) fn destination_uri(&self, local: &str) -> String {
        if matches!(self, Self::To(_)) { self.uri() } else { local.to_owned() }
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
    /// Which way, and with whom.
    pub direction: Direction,
    /// The store directory that paths are shown in.
    pub store_dir: StoreDir,
    /// Nothing is copied: no line says so, though a bar may show what is waited for.
    pub looking: bool,
    /// ssh may ask for something on the terminal before the host answers. Not so for `localhost`.
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
