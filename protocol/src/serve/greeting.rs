//! How both sides greet: a magic number and a version each.

use std::fmt;

use tokio::io::AsyncRead;

use crate::{
    ProtocolError,
    wire::{Beginning, NOISE_LIMIT, WireReader, WireWrite as _},
};

/// What a client begins with.
pub const CLIENT_MAGIC: u64 = 0x390c_9deb;
/// What a server begins with.
pub const SERVER_MAGIC: u64 = 0x5452_eecb;

/// The oldest minor version with AddToStoreNar (Nix 2.1).
const OLDEST_MINOR: u64 = 5;

/// A version of the serve protocol; the major version is 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    minor: u8,
}

impl Version {
    /// What this program speaks. For copying, 2.5 to 2.8 are the same.
    pub const OURS: Self = Self { minor: 7 };

    /// The number behind the point.
    pub const fn minor(self) -> u8 {
        self.minor
    }

    const fn word(self) -> u64 {
        0x200 | self.minor as u64
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "2.{}", self.minor)
    }
}

/// The client's greeting. Requests may be written right behind it, before the server has answered.
pub fn client_greeting() -> Vec<u8> {
    greeting(CLIENT_MAGIC, Version::OURS)
}

fn greeting(magic: u64, version: Version) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16);
    bytes.put_u64(magic);
    bytes.put_u64(version.word());
    bytes
}

/// Reads the server's greeting, passing over what a login shell printed before it. Gives the version in common.
///
/// # Errors
/// [`ProtocolError::NoGreeting`] with what came instead, [`ProtocolError::UnsupportedVersion`].
pub async fn read_server_greeting<R: AsyncRead + Unpin>(
    reader: &mut WireReader<R>,
) -> Result<Version, ProtocolError> {
    reader.skip_to_magic("serve", SERVER_MAGIC, NOISE_LIMIT).await?;
    read_server_version(reader).await
}

/// The same, with what was passed over; unless `instead` recognises something else in what came without a greeting, and says
/// where that ends.
///
/// # Errors
/// As [`read_server_greeting`].
pub async fn read_server_greeting_or<R: AsyncRead + Unpin, T>(
    reader: &mut WireReader<R>,
    instead: impl Fn(&[u8]) -> Option<(usize, T)>,
) -> Result<Beginning<(Version, Vec<u8>), T>, ProtocolError> {
    Ok(match reader.skip_to_magic_or("serve", SERVER_MAGIC, NOISE_LIMIT, instead).await? {
        Beginning::Greeting(noise) => Beginning::Greeting((read_server_version(reader).await?, noise)),
        Beginning::Instead(other) => Beginning::Instead(other),
    })
}

async fn read_server_version<R: AsyncRead + Unpin>(
    reader: &mut WireReader<R>,
) -> Result<Version, ProtocolError> {
    let word = reader.u64("the server's version").await?;
    let (major, minor) = (word >> 8, word & 0xff);
    if major != 2 || minor < OLDEST_MINOR {
        let (protocol, needed) = ("serve", "2.5 or a later 2.x");
        return Err(ProtocolError::UnsupportedVersion { protocol, needed, major, minor });
    }
    let minor = u8::try_from(minor).unwrap_or(u8::MAX);
    Ok(Version { minor }.min(Version::OURS))
}

/// Answers a client's greeting; gives its bytes to write and what to read next.
///
/// The server's greeting goes out after the magic and before the client's version is read, as Nix does, since some
/// clients wait for it.
///
/// # Errors
/// [`ProtocolError::Unexpected`] for another magic.
pub(super) async fn read_client_magic<R: AsyncRead + Unpin>(
    reader: &mut WireReader<R>,
) -> Result<Vec<u8>, ProtocolError> {
    let found = reader.u64("the client's greeting").await?;
    if found != CLIENT_MAGIC {
        return Err(ProtocolError::Unexpected {
            what: "the client's greeting",
            expected: "the magic number of the serve protocol",
            found,
        });
    }
    Ok(greeting(SERVER_MAGIC, Version::OURS))
}

/// The version in common, from the client's word. Any client version is served.
pub(super) async fn read_client_version<R: AsyncRead + Unpin>(
    reader: &mut WireReader<R>,
) -> Result<Version, ProtocolError> {
    let word = reader.u64("the client's version").await?;
    let minor = u8::try_from(word & 0xff).unwrap_or(u8::MAX);
    Ok(Version { minor }.min(Version::OURS))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::nix_2_3(0x205, Some(5))]
    #[case::nix_2_34(0x207, Some(7))]
    #[case::nix_2_36(0x208, Some(7))]
    #[case::too_old(0x204, None)]
    #[case::other_major(0x300, None)]
    #[case::garbage(u64::MAX, None)]
    #[tokio::test]
    async fn versions_in_common(#[case] word: u64, #[case] minor: Option<u8>) {
        let mut wire = Vec::new();
        wire.put_u64(SERVER_MAGIC);
        wire.put_u64(word);
        let version = read_server_greeting(&mut WireReader::new(&wire[..])).await;
        assert_eq!(version.ok().map(Version::minor), minor);
    }

    #[tokio::test]
    async fn a_shell_that_says_something_and_leaves_is_quoted() {
        let mut reader = WireReader::new(&b"This account is not available.\n"[..]);
        let error = read_server_greeting(&mut reader).await.unwrap_err();
        assert!(error.to_string().contains("This account is not available."), "{error}");
    }
}
