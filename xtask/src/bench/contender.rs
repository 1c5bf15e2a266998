//! Who is measured.

use std::fmt;

use clap::ValueEnum;

use crate::interop::lab::Protocol;

/// Who copies. They take turns in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Contender {
    /// The program measured, spawning ssh
    Openssh,
    /// The program measured, without ssh
    Libssh2,
    /// The program measured, spawning ssh, without anything that saves bytes
    Plain,
    /// Nix's own program
    Upstream,
    /// The same, told to compress
    UpstreamCompressed,
    /// `tar | zstd -3 --long | ssh 'zstd -d | tar'` of the store paths, which registers nothing
    TarZstd,
    /// `rsync -z` of the store paths, which registers nothing
    Rsync,
}

impl Contender {
    pub(super) const ALL: [Self; 7] = [
        Self::Openssh,
        Self::Libssh2,
        Self::Plain,
        Self::Upstream,
        Self::UpstreamCompressed,
        Self::TarZstd,
        Self::Rsync,
    ];

    /// Those who take part where nobody is asked for.
    pub(super) const USUAL: [Self; 3] = [Self::Openssh, Self::Libssh2, Self::Upstream];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Openssh => "openssh",
            Self::Libssh2 => "libssh2",
            Self::Plain => "plain",
            Self::Upstream => "upstream",
            Self::UpstreamCompressed => "upstream -C",
            Self::TarZstd => "tar+zstd",
            Self::Rsync => "rsync -z",
        }
    }

    pub(super) fn is_ours(self) -> bool {
        matches!(self, Self::Openssh | Self::Libssh2 | Self::Plain)
    }

    pub(super) fn is_upstream(self) -> bool {
        matches!(self, Self::Upstream | Self::UpstreamCompressed)
    }

    /// Whether what it copies is registered.
    pub(super) fn registers(self) -> bool {
        self.is_ours() || self.is_upstream()
    }

    /// Whether there is a row for it: who speaks neither protocol has one beside the first.
    pub(super) fn speaks(self, protocol: Protocol) -> bool {
        self.registers() || protocol == Protocol::Serve
    }

    /// What ours are given.
    pub(super) fn options(self) -> &'static [&'static str] {
        match self {
            Self::Openssh => &["--transport", "openssh"],
            Self::Libssh2 => &["--transport", "libssh2"],
            Self::Plain => &["--transport", "openssh", "--compress", "none", "--connections", "1"],
            _ => &[],
        }
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
