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

    /// The paths as a slice, in ascending order.
    pub fn as_slice(&self) -> &[StorePath] {
        &self.0
    }

    /// The paths in ascending order, without a copy.
    pub fn into_vec(self) -> Vec<StorePath> {
        self.0.into_vec()
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

/// Sorts once for all that is added.
impl Extend<StorePath> for StorePathSet {
    fn extend<I: IntoIterator<Item = StorePath>>(&mut self, paths: I) {
        *self = std::mem::take(self).into_iter().chain(paths).collect();
    }
}

impl IntoIterator for StorePathSet {
    type Item = StorePath;
    type IntoIter = std::vec::IntoIter<StorePath>;

    fn into_iter(self) -> Self::IntoIter {
        self.into_vec().into_iter()
    }
}

impl<'a> IntoIterator for &'a StorePathSet {
    type Item = &'a StorePath;
    type IntoIter = std::slice::Iter<'a, StorePath>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_grows_in_order_and_gives_its_paths_back() {
        let path =
            |name| StorePath::from_base_name(&format!("nlhn6cma43vk5l44cgr8sw3ykiir1wmm-{name}")).unwrap();
        let mut set: StorePathSet = [path("c"), path("a"), path("c")].into_iter().collect();
        set.extend([path("b"), path("a")]);
        assert_eq!(set.clone().into_iter().collect::<Vec<_>>(), [path("a"), path("b"), path("c")]);
        assert_eq!(set.into_vec(), [path("a"), path("b"), path("c")]);
    }
}
