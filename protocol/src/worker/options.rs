//! The settings that a client may bring along.

use std::collections::BTreeMap;

use tokio::io::AsyncRead;

use crate::{
    ProtocolError,
    wire::{COUNT_LIMIT, WireReader, WireWrite as _},
};

/// How long the name or the value of a setting can be, in bytes.
const SETTING_LIMIT: u64 = 1 << 20;

/// Settings for the rest of a connection; the default is what upstream's client sends without any options.
///
/// A client that sends none keeps the daemon's own. From a client that is not trusted, a daemon takes only time limits, an empty
/// `builders`, and substituters that it trusts itself; the rest it ignores, with a log line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(clippy::struct_excessive_bools, reason = "the flags of the protocol")]
pub struct ClientOptions {
    /// Keep the folders of failed builds.
    pub keep_failed: bool,
    /// Go on with other builds when one has failed.
    pub keep_going: bool,
    /// Build what cannot be substituted.
    pub try_fallback: bool,
    /// What is logged, from 0 (errors) to 7 (everything).
    pub verbosity: u32,
    /// Builds at once.
    pub max_build_jobs: u32,
    /// How long a builder may say nothing, in seconds; 0 for ever.
    pub max_silent_time: u32,
    /// From which verbosity on what a builder says is logged.
    pub build_verbosity: u32,
    /// Cores for one build; 0 for all.
    pub build_cores: u32,
    /// Whether to substitute at all.
    pub use_substitutes: bool,
    /// Any other settings of nix.conf by name.
    pub overrides: BTreeMap<String, String>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            keep_failed: false,
            keep_going: false,
            try_fallback: false,
            verbosity: 3,
            max_build_jobs: 1,
            max_silent_time: 0,
            build_verbosity: 0,
            build_cores: 0,
            use_substitutes: true,
            overrides: BTreeMap::new(),
        }
    }
}

impl ClientOptions {
    pub(super) fn encode(&self, bytes: &mut Vec<u8>) {
        for flag in [self.keep_failed, self.keep_going, self.try_fallback] {
            bytes.put_u64(flag.into());
        }
        for number in [self.verbosity, self.max_build_jobs, self.max_silent_time] {
            bytes.put_u64(number.into());
        }
        bytes.put_u64(1); // whether to use the build hook, obsolete
        bytes.put_u64(self.build_verbosity.into());
        bytes.put_u64(0); // type of log, obsolete
        bytes.put_u64(0); // whether to print build traces, obsolete
        bytes.put_u64(self.build_cores.into());
        bytes.put_u64(self.use_substitutes.into());
        bytes.put_u64(self.overrides.len() as u64);
        for (name, value) in &self.overrides {
            bytes.put_bytes(name.as_bytes());
            bytes.put_bytes(value.as_bytes());
        }
    }

    pub(super) async fn read<R: AsyncRead + Unpin>(
        reader: &mut WireReader<R>,
    ) -> Result<Self, ProtocolError> {
        let what = "an option of the client";
        let mut options = Self {
            keep_failed: reader.bool32(what).await?,
            keep_going: reader.bool32(what).await?,
            try_fallback: reader.bool32(what).await?,
            verbosity: reader.u32(what).await?,
            max_build_jobs: reader.u32(what).await?,
            max_silent_time: reader.u32(what).await?,
            ..Self::default()
        };
        reader.u64(what).await?;
        options.build_verbosity = reader.u32(what).await?;
        reader.u64(what).await?;
        reader.u64(what).await?;
        options.build_cores = reader.u32(what).await?;
        options.use_substitutes = reader.bool32(what).await?;
        for _ in 0..reader.count_up_to("settings of the client", COUNT_LIMIT).await? {
            let name = reader.string("the name of a setting", SETTING_LIMIT).await?;
            options.overrides.insert(name, reader.string("a setting", SETTING_LIMIT).await?);
        }
        Ok(options)
    }
}
