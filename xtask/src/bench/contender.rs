//! Who is measured.

use std::fmt;

use clap::ValueEnum;

/// Who copies. They take turns in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Contender {
    /// The program measured, spawning ssh
    Openssh,
    /// The program measured, without ssh
    Libssh2,
    /// Nix's own program
    Upstream,
}

impl Contender {
    pub(super) const ALL: [Self; 3] = [Self::Openssh, Self::Libssh2, Self::Upstream];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Openssh => "openssh",
            Self::Libssh2 => "libssh2",
            Self::Upstream => "upstream",
        }
    }

    /// What `--transport` is given. Upstream's program has no such option.
    pub(super) fn transport(self) -> Option<&'static str> {
        (self != Self::Upstream).then(|| self.name())
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
