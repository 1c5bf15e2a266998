//! What two ends agreed on: a version, and features by name.

use std::{collections::BTreeSet, fmt};

/// A version of the daemon's protocol; the major version is 1.
///
/// | Nix | | Nix | |
/// |---|---|---|---|
/// | 2.0 | 1.20 | 2.8 to 2.14 | 1.34 |
/// | 2.1 to 2.3 | 1.21 | 2.15 to 2.19, Lix | 1.35 |
/// | 2.4 to 2.6 | 1.32 | 2.20 to 2.23 | 1.37 |
/// | 2.7 | 1.33 | 2.24 and later | 1.38 and features |
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    minor: u8,
}

impl Version {
    /// The oldest that is spoken here, that of Nix 2.0. A daemon of Nix 2.33 or later takes 1.18, one of Lix 2.94 or later
    /// nothing under 1.35.
    pub const OLDEST: Self = Self { minor: 20 };
    /// The newest. Nix from 2.24 on announces this and names what else it can do as features.
    pub const NEWEST: Self = Self { minor: 38 };

    /// Additions carry their NAR in frames; before, the daemon asks for the NAR piece by piece.
    pub(super) const FRAMES: Self = Self { minor: 23 };
    /// The daemon asks for the NAR of an addition; before, it follows as it is.
    pub(super) const PULLED_NAR: Self = Self { minor: 21 };
    /// Errors have a level and traces.
    pub(super) const STRUCTURED_ERRORS: Self = Self { minor: 26 };
    /// QueryValidPaths may substitute.
    pub(super) const SUBSTITUTE_FLAG: Self = Self { minor: 27 };
    /// The handshake names the daemon's release.
    pub(super) const RELEASE: Self = Self { minor: 33 };
    /// The handshake says whether the daemon trusts the client.
    pub(super) const TRUST: Self = Self { minor: 35 };
    /// The handshake exchanges names of features.
    pub(super) const FEATURES: Self = Self { minor: 38 };

    /// 1.`minor`, if it is spoken here.
    pub fn from_minor(minor: u8) -> Option<Self> {
        (Self::OLDEST.minor..=Self::NEWEST.minor).contains(&minor).then_some(Self { minor })
    }

    /// The number behind the point.
    pub const fn minor(self) -> u8 {
        self.minor
    }

    pub(super) const fn word(self) -> u64 {
        0x100 | self.minor as u64
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "1.{}", self.minor)
    }
}

/// What an end may say it can do besides its version. In force is what both name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Feature {
    /// [`Request::AddTempRoots`](super::Request::AddTempRoots) (development versions of Nix 2.36).
    AddTempRoots,
    /// Realisations are about an output of a derivation's path, not of its hash, and are no JSON (Nix 2.35).
    RealisationWithPath,
}

impl Feature {
    /// All that are offered to a daemon.
    pub const ALL: [Self; 2] = [Self::AddTempRoots, Self::RealisationWithPath];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AddTempRoots => "addTempRoots",
            Self::RealisationWithPath => "realisation-with-path-not-hash",
        }
    }
}

/// Whether a daemon takes this client's word: paths without a signature, settings, repairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It does: the user is root or in `trusted-users`.
    Trusted,
    /// It does not: paths need a signature by one of the daemon's keys, or a content address.
    NotTrusted,
}

/// A daemon as its handshake describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Daemon {
    /// The version in common.
    pub version: Version,
    /// The features in common.
    pub features: BTreeSet<Feature>,
    /// Its release of Nix, such as `2.34.8`; from 1.33 on.
    ///
    /// What answers on the connection, which need not be what writes to the store: see the [module](super).
    pub release: Option<String>,
    /// Whether it trusts this client; `None` if it does not say, as all before 1.35.
    pub trust: Option<Trust>,
}

impl Daemon {
    /// A daemon of this version without features, of which nothing else is known.
    pub fn of_version(version: Version) -> Self {
        Self { version, features: BTreeSet::new(), release: None, trust: None }
    }

    /// Whether a feature is in force.
    pub fn has(&self, feature: Feature) -> bool {
        self.features.contains(&feature)
    }
}
