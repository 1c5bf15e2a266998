//! Store paths: `<digest>-<name>` below a store directory.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use crate::{Escaped, nix32};

/// Characters of the digest part.
const DIGEST_LENGTH: usize = 32;
/// Longest name; leaves room in a 255-byte file name for the digest and suffixes such as `.lock`.
const NAME_LIMIT: usize = 211;

/// Why a text is not a store path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StorePathError {
    /// Not below the store directory in question.
    #[error("path '{}' is not in the store directory '{}'", Escaped::new(path), Escaped::new(store_dir))]
    NotInStore {
        /// The text.
        path: String,
        /// The store directory that was expected.
        store_dir: String,
    },
    /// Below a store path, where exactly a store path is needed.
    #[error("path '{}' is inside a store path, not a store path itself", Escaped::new(path))]
    BelowStorePath {
        /// The text.
        path: String,
    },
    /// The first 32 characters are no digest followed by `-`.
    #[error("'{}' does not begin with a digest of 32 characters and a dash", Escaped::new(name))]
    BadDigest {
        /// The base name.
        name: String,
    },
    /// Nothing stands behind the digest.
    #[error("'{}' has no name behind its digest", Escaped::new(name))]
    EmptyName {
        /// The base name.
        name: String,
    },
    /// The name part is over 211 characters.
    #[error("'{}' has a name of {length} characters, the limit is 211", Escaped::new(name))]
    NameTooLong {
        /// The base name.
        name: String,
        /// Its length in bytes.
        length: usize,
    },
    /// A character that Nix does not allow in names.
    #[error("'{}' has the character {character:?} in its name, which Nix does not allow", Escaped::new(name))]
    BadCharacter {
        /// The base name.
        name: String,
        /// The offending character.
        character: char,
    },
    /// `.` or `..`, alone or before a dash.
    #[error(
        "'{}' has a name that begins with '.' or '..' alone, which Nix does not allow",
        Escaped::new(name)
    )]
    BadDots {
        /// The base name.
        name: String,
    },
    /// A store directory that is not absolute, or not in normal form.
    #[error("store directory '{}' is not an absolute path in normal form", Escaped::new(text))]
    BadStoreDir {
        /// The text.
        text: String,
    },
}

/// A store path without its store directory: `nlhn6cma43vk5l44cgr8sw3ykiir1wmm-hi`.
///
/// Exists only if valid by the rules of current Nix. Ordered as the text is, which is the order of the protocols.
/// Cheap to clone: the text is shared.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorePath(Arc<str>);

impl StorePath {
    /// Checks a base name.
    ///
    /// # Errors
    /// [`StorePathError`], naming the rule that is broken.
    pub fn from_base_name(text: &str) -> Result<Self, StorePathError> {
        let bad_digest = || StorePathError::BadDigest { name: text.to_owned() };
        let (digest, rest) = text.split_at_checked(DIGEST_LENGTH).ok_or_else(bad_digest)?;
        if !digest.bytes().all(nix32::is_digit) {
            return Err(bad_digest());
        }
        let name = if rest.is_empty() { "" } else { rest.strip_prefix('-').ok_or_else(bad_digest)? };
        check_name(text, name)?;
        Ok(Self(text.into()))
    }

    /// Builds a path from a 160-bit digest and a name.
    ///
    /// # Errors
    /// [`StorePathError`] if the name is not allowed.
    pub fn from_parts(digest: &[u8; 20], name: &str) -> Result<Self, StorePathError> {
        let text = format!("{}-{name}", nix32::encode(digest));
        check_name(&text, name)?;
        Ok(Self(text.into()))
    }

    /// `<digest>-<name>`.
    pub fn base_name(&self) -> &str {
        &self.0
    }

    /// The 32 characters of the digest.
    pub fn digest(&self) -> &str {
        self.0.get(..DIGEST_LENGTH).unwrap_or_default()
    }

    /// What stands behind the digest and the dash.
    pub fn name(&self) -> &str {
        self.0.get(DIGEST_LENGTH.saturating_add(1)..).unwrap_or_default()
    }

    /// Whether this is a derivation file, which its name alone decides.
    pub fn is_derivation(&self) -> bool {
        self.0.ends_with(".drv")
    }
}

fn check_name(text: &str, name: &str) -> Result<(), StorePathError> {
    if name.is_empty() {
        return Err(StorePathError::EmptyName { name: text.to_owned() });
    }
    if name.len() > NAME_LIMIT {
        return Err(StorePathError::NameTooLong { name: text.to_owned(), length: name.len() });
    }
    let allowed = |c: &char| c.is_ascii_alphanumeric() || "+-._?=".contains(*c);
    if let Some(character) = name.chars().find(|c| !allowed(c)) {
        return Err(StorePathError::BadCharacter { name: text.to_owned(), character });
    }
    if matches!(name.split('-').next(), Some("." | "..")) {
        return Err(StorePathError::BadDots { name: text.to_owned() });
    }
    Ok(())
}

/// Reads a base name: [`StorePath::from_base_name`].
impl FromStr for StorePath {
    type Err = StorePathError;

    fn from_str(text: &str) -> Result<Self, StorePathError> {
        Self::from_base_name(text)
    }
}

impl TryFrom<&str> for StorePath {
    type Error = StorePathError;

    fn try_from(text: &str) -> Result<Self, StorePathError> {
        Self::from_base_name(text)
    }
}

/// The base name.
impl AsRef<str> for StorePath {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for StorePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Borrow<str> for StorePath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The logical store directory: the prefix of every full path, and part of every digest.
///
/// Where the objects lie on disk may be somewhere else (a chroot store); that is the local store's business.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreDir(Arc<str>);

impl StoreDir {
    /// Takes an absolute path in normal form: no `//`, `.`, `..`, no trailing slash.
    ///
    /// # Errors
    /// [`StorePathError::BadStoreDir`].
    pub fn new(text: &str) -> Result<Self, StorePathError> {
        let normal = text
            .strip_prefix('/')
            .is_some_and(|rest| rest.split('/').all(|part| !matches!(part, "" | "." | "..")))
            && !text.contains(['\0', '\n']);
        if normal {
            Ok(Self(text.into()))
        } else {
            Err(StorePathError::BadStoreDir { text: text.to_owned() })
        }
    }

    /// The directory.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The full text of a path: the form of the wire and of the database.
    pub fn full(&self, path: &StorePath) -> String {
        [self.as_str(), path.base_name()].join("/")
    }

    /// Shows the full text of a path, without making it.
    ///
    /// ```
    /// use ncc_store::{StoreDir, StorePath};
    ///
    /// let path: StorePath = "nlhn6cma43vk5l44cgr8sw3ykiir1wmm-hi".parse()?;
    /// assert!(StoreDir::default().display(&path).to_string().starts_with("/nix/store/nlhn6cma"));
    /// # Ok::<(), ncc_store::StorePathError>(())
    /// ```
    pub const fn display<'a>(&'a self, path: &'a StorePath) -> FullPath<'a> {
        FullPath { store_dir: self, path }
    }

    /// Reads a full path that must be exactly a store path.
    ///
    /// # Errors
    /// [`StorePathError`].
    pub fn parse(&self, text: &str) -> Result<StorePath, StorePathError> {
        let base = self.strip(text)?;
        if base.contains('/') {
            return Err(StorePathError::BelowStorePath { path: text.to_owned() });
        }
        StorePath::from_base_name(base)
    }

    /// Reads a path at or below a store path and cuts it to the store path.
    ///
    /// # Errors
    /// [`StorePathError`].
    pub fn containing(&self, text: &str) -> Result<StorePath, StorePathError> {
        let below = self.strip(text)?;
        StorePath::from_base_name(below.split('/').next().unwrap_or(below))
    }

    /// What stands behind the store directory and a slash, whatever it is.
    ///
    /// # Errors
    /// [`StorePathError::NotInStore`], also if nothing stands there.
    pub fn strip<'a>(&self, text: &'a str) -> Result<&'a str, StorePathError> {
        text.strip_prefix(&*self.0)
            .and_then(|rest| rest.strip_prefix('/'))
            .filter(|rest| !rest.is_empty())
            .ok_or_else(|| StorePathError::NotInStore {
                path: text.to_owned(),
                store_dir: self.0.as_ref().to_owned(),
            })
    }
}

/// A full path as text: see [`StoreDir::display`].
#[derive(Clone, Copy, Debug)]
pub struct FullPath<'a> {
    store_dir: &'a StoreDir,
    path: &'a StorePath,
}

impl fmt::Display for FullPath<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.store_dir, self.path)
    }
}

/// `/nix/store`.
impl Default for StoreDir {
    fn default() -> Self {
        Self("/nix/store".into())
    }
}

impl fmt::Display for StoreDir {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const DIGEST: &str = "nlhn6cma43vk5l44cgr8sw3ykiir1wmm";

    #[rstest]
    #[case::plain("hi")]
    #[case::all_kinds("A-z0+._?=")]
    #[case::leading_dot(".foo")]
    #[case::two_dots_and_more("..x")]
    #[case::longest(&"n".repeat(211))]
    fn names_nix_allows(#[case] name: &str) {
        let path = StorePath::from_base_name(&format!("{DIGEST}-{name}")).unwrap();
        assert_eq!((path.digest(), path.name()), (DIGEST, name));
    }

    #[rstest]
    #[case::dot(".")]
    #[case::dots("..")]
    #[case::dot_dash(".-x")]
    #[case::dots_dash("..-x")]
    #[case::space("a b")]
    #[case::colon("a:b")]
    #[case::umlaut("ä")]
    #[case::empty("")]
    #[case::too_long(&"n".repeat(212))]
    fn names_nix_refuses(#[case] name: &str) {
        assert!(StorePath::from_base_name(&format!("{DIGEST}-{name}")).is_err());
    }

    #[rstest]
    #[case::letter_e("elhn6cma43vk5l44cgr8sw3ykiir1wmm-hi")]
    #[case::plus_separator("nlhn6cma43vk5l44cgr8sw3ykiir1wmm+hi")]
    #[case::short("nlhn-hi")]
    #[case::nothing_behind("nlhn6cma43vk5l44cgr8sw3ykiir1wmm")]
    #[case::multibyte_at_the_cut("nlhn6cma43vk5l44cgr8sw3ykiir1wmä-hi")]
    fn digests_nix_refuses(#[case] text: &str) {
        assert!(StorePath::from_base_name(text).is_err());
    }

    #[test]
    fn full_paths_belong_to_their_store_directory() {
        let nix = StoreDir::default();
        let full = format!("/nix/store/{DIGEST}-hi");
        let path = nix.parse(&full).unwrap();
        assert_eq!(nix.full(&path), full);
        assert!(StoreDir::new("/gnu/store").unwrap().parse(&full).is_err());
        assert!(nix.parse(&format!("{full}/bin")).is_err());
        assert!(nix.parse("/nix/store").is_err());
        assert!(nix.parse("/nix/store/").is_err());
        assert!(nix.parse(&format!("/nix/store//{DIGEST}-hi")).is_err());
        assert_eq!(nix.containing(&format!("{full}/bin/hi")).unwrap(), path);
    }

    #[rstest]
    #[case("nix/store")]
    #[case("/nix//store")]
    #[case("/nix/store/")]
    #[case("/nix/../store")]
    #[case("/")]
    #[case("")]
    fn store_directories_are_absolute_and_normal(#[case] text: &str) {
        assert!(StoreDir::new(text).is_err());
    }
}
