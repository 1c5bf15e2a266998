//! What a copy has done.

use std::{sync::Arc, time::Duration};

use ncc_store::{PathInfo, StoreError, StorePath};

/// Paths with what is recorded about them.
#[derive(Clone, Debug, Default)]
pub struct Paths(Vec<Arc<PathInfo>>);

impl Paths {
    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of their NARs together.
    pub fn bytes(&self) -> u64 {
        self.0.iter().fold(0, |sum, info| sum.saturating_add(info.nar_size))
    }

    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Arc<PathInfo>> {
        self.0.iter()
    }

    /// Adds one.
    pub fn push(&mut self, info: Arc<PathInfo>) {
        self.0.push(info);
    }
}

impl FromIterator<Arc<PathInfo>> for Paths {
    fn from_iter<I: IntoIterator<Item = Arc<PathInfo>>>(infos: I) -> Self {
        Self(infos.into_iter().collect())
    }
}

impl From<Vec<Arc<PathInfo>>> for Paths {
    fn from(infos: Vec<Arc<PathInfo>>) -> Self {
        Self(infos)
    }
}

impl<'a> IntoIterator for &'a Paths {
    type Item = &'a Arc<PathInfo>;
    type IntoIter = std::slice::Iter<'a, Arc<PathInfo>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// A path that could not be copied.
#[derive(Debug)]
pub struct Failed {
    /// The path.
    pub path: StorePath,
    /// Why; `None` where it refers to another one that failed, directly or not.
    pub error: Option<StoreError>,
}

/// What a copy has done.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// All roots were valid at the destination before anything was done, so that nobody asked for more: no list below
    /// holds anything.
    pub roots_were_valid: bool,
    /// What the destination had already, or got from somebody else meanwhile.
    pub present: Paths,
    /// What it had already, and the source was asked no more than the names of.
    pub present_by_name: Vec<StorePath>,
    /// What it substituted.
    pub substituted: Paths,
    /// What was sent and is registered, in the order in which it was.
    pub sent: Paths,
    /// What was to be sent and is not registered.
    pub unsent: Paths,
    /// The paths that failed by themselves, then those that failed because of one that did, references before their
    /// referrers. With [`OnFailure::Stop`](ncc_store::OnFailure) others may be unsent that were never tried.
    pub failed: Vec<Failed>,
    /// How often a broken connection was made anew.
    pub reconnects: u32,
    /// How long sending took.
    pub elapsed: Duration,
}

impl Report {
    /// How many paths the destination had already, whatever is known of them.
    pub fn present_count(&self) -> usize {
        self.present.count() + self.present_by_name.len()
    }
}
