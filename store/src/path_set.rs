//! Sets of store paths, small and many.

use crate::StorePath;

/// A sorted set of store paths without duplicates, in one allocation: a closure holds one of these per path.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorePathSet(Box<[StorePath]>);

impl StorePathSet {
    /// In ascending order.
    pub fn iter(&self) -> std::slice::Iter<'_, StorePath> {
        self.0.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `path` is one of them.
    pub fn contains(&self, path: &StorePath) -> bool {
        self.0.binary_search(path).is_ok()
    }

    /// The paths as a slice.
    pub fn as_slice(&self) -> &[StorePath] {
        &self.0
    }
}

impl FromIterator<StorePath> for StorePathSet {
    fn from_iter<I: IntoIterator<Item = StorePath>>(paths: I) -> Self {
        let mut paths: Vec<_> = paths.into_iter().collect();
        paths.sort_unstable();
        paths.dedup();
        Self(paths.into())
    }
}

impl<'a> IntoIterator for &'a StorePathSet {
    type Item = &'a StorePath;
    type IntoIter = std::slice::Iter<'a, StorePath>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
