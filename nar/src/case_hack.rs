//! How a case-insensitive file system can hold names that differ in case only.

use std::collections::HashMap;

/// Whether names that differ only in the case of ASCII letters get a suffix on disk.
///
/// With it, the second and every further name of such a group is stored as
/// `<name>~nix~case~hack~<n>`, and packing cuts the suffix off again. The archive and its hash are
/// the same with and without it. Nix calls the setting `use-case-hack`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CaseHack {
    /// Names on disk are the names in the archive.
    Off,
    /// Names that collide get a suffix.
    On,
}

impl Default for CaseHack {
    /// `On` on macOS, whose file systems usually ignore case; `Off` elsewhere. As in Nix.
    fn default() -> Self {
        if cfg!(target_os = "macos") { Self::On } else { Self::Off }
    }
}

const SUFFIX: &[u8] = b"~nix~case~hack~";

/// The name in the archive of what is called `name` on disk.
pub(crate) fn without_suffix(name: &[u8]) -> &[u8] {
    let start = name.windows(SUFFIX.len()).position(|window| window == SUFFIX);
    name.get(..start.unwrap_or(name.len())).unwrap_or_default()
}

/// The names of one directory on disk so far. By their lower case: each name, and how many more in
/// the archive differ from it in case only.
#[derive(Debug, Default)]
pub(crate) struct NamesOnDisk(HashMap<Vec<u8>, (Vec<u8>, u64)>);

impl NamesOnDisk {
    /// The name on disk for `name`. If that is taken, because one of the two looks like a suffixed
    /// name, the name that takes it.
    pub(crate) fn add(&mut self, name: &[u8]) -> Result<Vec<u8>, Vec<u8>> {
        let Some((taken, count)) = self.0.get_mut(&name.to_ascii_lowercase()) else {
            self.0.insert(name.to_ascii_lowercase(), (name.into(), 0));
            return Ok(name.into());
        };
        // Taken by a name that was suffixed here, or packing could not tell the two apart.
        if without_suffix(name) != name {
            return Err(taken.clone());
        }
        *count = count.saturating_add(1);
        let mut suffixed = name.to_vec();
        suffixed.extend_from_slice(SUFFIX);
        suffixed.extend_from_slice(count.to_string().as_bytes());
        match self.0.insert(suffixed.to_ascii_lowercase(), (suffixed.clone(), 0)) {
            None => Ok(suffixed),
            Some((taken, _)) => Err(taken),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_differ_in_case_are_numbered_per_group() {
        let mut names = NamesOnDisk::default();
        let mut disk = |name: &str| names.add(name.as_bytes()).map(|name| String::from_utf8(name).unwrap());
        assert_eq!(disk("A").unwrap(), "A");
        assert_eq!(disk("a").unwrap(), "a~nix~case~hack~1");
        assert_eq!(disk("Ab").unwrap(), "Ab");
        assert_eq!(disk("aB").unwrap(), "aB~nix~case~hack~1");
        assert_eq!(disk("ab").unwrap(), "ab~nix~case~hack~2");
        // Only ASCII letters have a case.
        assert_eq!(disk("Ä").unwrap(), "Ä");
        assert_eq!(disk("ä").unwrap(), "ä");
    }

    #[test]
    fn a_name_that_looks_suffixed_cannot_be_taken_twice() {
        let mut names = NamesOnDisk::default();
        assert!(names.add(b"A").is_ok());
        assert!(names.add(b"A~nix~case~hack~1").is_ok());
        assert_eq!(names.add(b"a"), Err(b"A~nix~case~hack~1".into()));

        let mut names = NamesOnDisk::default();
        assert!(names.add(b"A").is_ok());
        assert!(names.add(b"a").is_ok());
        assert_eq!(names.add(b"a~nix~case~hack~1"), Err(b"a~nix~case~hack~1".into()));
    }

    #[test]
    fn the_suffix_is_cut_at_its_first_occurrence() {
        assert_eq!(without_suffix(b"a"), b"a");
        assert_eq!(without_suffix(b"a~nix~case~hack~1"), b"a");
        assert_eq!(without_suffix(b"a~nix~case~hack~b~nix~case~hack~1"), b"a");
        assert_eq!(without_suffix(b"~nix~case~hack~1"), b"");
        assert_eq!(without_suffix(b"~nix~case~hack"), b"~nix~case~hack");
    }
}
