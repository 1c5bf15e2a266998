//! The handshake, in four steps that each end takes at its own pace.
//!
//! | | from | | since |
//! |---|---|---|---|
//! | [`client_greeting`] | client | magic, version offered | |
//! | [`read_server_greeting`] | daemon | magic, its version | |
//! | [`put_client_settings`] | client | names of features | 1.38 |
//! | | | CPU affinity, reserved space: both obsolete, always 0 | |
//! | [`read_daemon`] | daemon | names of features | 1.38 |
//! | | | release | 1.33 |
//! | | | trust | 1.35 |
//! | | | messages, then the end of messages | |
//!
//! Requests may be written right behind the settings. What the settings are depends on the version, so a client that
//! guesses the version to save the round trip loses the connection if it guessed wrongly.

use std::collections::BTreeSet;

use tokio::io::AsyncRead;

use super::{
    AnswerError, Daemon, Feature, LogMessage, Trust, Version,
    log::{Pulling, read_messages},
};
use crate::{
    ProtocolError,
    wire::{NOISE_LIMIT, TEXT_LIMIT, WireReader, WireWrite as _},
};

/// What a client begins with.
pub const CLIENT_MAGIC: u64 = 0x6e69_7863;
/// What a daemon begins with.
pub const SERVER_MAGIC: u64 = 0x6478_696f;

/// How many names of features a daemon may send. Nix knows about six.
const FEATURE_LIMIT: u64 = 1 << 10;

/// The client's first bytes.
///
/// Offer [`Version::NEWEST`], unless the layout of an older version is wanted.
pub fn client_greeting(offered: Version) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16);
    bytes.put_u64(CLIENT_MAGIC);
    bytes.put_u64(offered.word());
    bytes
}

/// Reads the daemon's first bytes, passing over what a login shell printed before them. Gives the version in common.
///
/// # Errors
/// [`ProtocolError::NoGreeting`] with what came instead, [`ProtocolError::UnsupportedVersion`].
pub async fn read_server_greeting<R: AsyncRead + Unpin>(
    reader: &mut WireReader<R>,
    offered: Version,
) -> Result<Version, ProtocolError> {
    reader.skip_to_magic("daemon", SERVER_MAGIC, NOISE_LIMIT).await?;
    let word = reader.u64("the daemon's version").await?;
    let (major, minor) = (word >> 8, word & 0xff);
    if major != 1 || minor < u64::from(Version::OLDEST.minor()) {
        let (protocol, needed) = ("daemon", "1.20 or a later 1.x");
        return Err(ProtocolError::UnsupportedVersion { protocol, needed, major, minor });
    }
    let newest = Version::NEWEST.minor();
    let theirs = Version::from_minor(u8::try_from(minor).unwrap_or(newest).min(newest));
    Ok(theirs.unwrap_or(Version::NEWEST).min(offered))
}

/// Appends what a client says behind the greetings, once the version in common is known.
pub fn put_client_settings(version: Version, bytes: &mut Vec<u8>) {
    if version >= Version::FEATURES {
        bytes.put_u64(Feature::ALL.len() as u64);
        for feature in Feature::ALL {
            bytes.put_bytes(feature.name().as_bytes());
        }
    }
    bytes.put_u64(0); // the CPU to run on: none
    bytes.put_u64(0); // whether to reserve space
}

/// Reads the rest of the handshake.
///
/// # Errors
/// [`AnswerError::Refused`] where the daemon does not want this user, and those of the stream.
pub async fn read_daemon<R: AsyncRead + Unpin>(
    reader: &mut WireReader<R>,
    version: Version,
    sink: impl FnMut(LogMessage),
) -> Result<Daemon, AnswerError> {
    let mut daemon = Daemon::of_version(version);
    if version >= Version::FEATURES {
        daemon.features = read_features(reader).await?;
    }
    if version >= Version::RELEASE {
        daemon.release = Some(reader.text("the daemon's release").await?);
    }
    if version >= Version::TRUST {
        daemon.trust = match reader.u64("the daemon's trust").await? {
            0 => None,
            1 => Some(Trust::Trusted),
            2 => Some(Trust::NotTrusted),
            found => {
                let (what, expected) = ("the daemon's trust", "0, 1 or 2");
                return Err(ProtocolError::Unexpected { what, expected, found }.into());
            }
        };
    }
    read_messages(reader, version, Pulling::No, sink).await?;
    Ok(daemon)
}

/// Those of the daemon's features that are ours too.
async fn read_features<R: AsyncRead + Unpin>(
    reader: &mut WireReader<R>,
) -> Result<BTreeSet<Feature>, ProtocolError> {
    let mut common = BTreeSet::new();
    for _ in 0..reader.count_up_to("the daemon's features", FEATURE_LIMIT).await? {
        let name = reader.bytes("a feature of the daemon", TEXT_LIMIT).await?;
        common.extend(Feature::ALL.into_iter().filter(|feature| feature.name().as_bytes() == &name[..]));
    }
    Ok(common)
}
