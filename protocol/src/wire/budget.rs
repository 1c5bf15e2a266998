//! What one message may take in memory.

use std::collections::HashSet;

use ncc_store::{StorePath, StorePathSet};

use super::{MESSAGE_LIMIT, PER_PATH_LIMIT};
use crate::ProtocolError;

/// What a path that had not been seen before takes besides its text: the counts of its shared text, its place in a list
/// and in a set, and what an allocator adds.
const PATH_OVERHEAD: u64 = 64;

/// The budget of the message that is being read, and the paths in it.
///
/// Each text is paid for, kept or not, so that no message is endless. A path that comes again shares the text of the first.
#[derive(Debug)]
pub(super) struct Budget {
    limit: u64,
    left: u64,
    known: HashSet<StorePath>,
}

impl Budget {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, left: limit, known: HashSet::new() }
    }

    pub(super) fn for_answer_about(asked: &StorePathSet) -> Self {
        let per_path = PER_PATH_LIMIT.saturating_mul(asked.len() as u64);
        let known = asked.iter().cloned().collect();
        Self { known, ..Self::new(MESSAGE_LIMIT.saturating_add(per_path)) }
    }

    pub(super) fn spend(&mut self, what: &'static str, bytes: u64) -> Result<(), ProtocolError> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(ProtocolError::MessageTooLarge { what, limit: self.limit }),
        }
    }

    /// The path with this base name, if it has come before.
    pub(super) fn known(&self, base_name: &str) -> Option<StorePath> {
        self.known.get(base_name).cloned()
    }

    /// Notes a path that had not come before.
    pub(super) fn learn(&mut self, what: &'static str, path: &StorePath) -> Result<(), ProtocolError> {
        self.spend(what, PATH_OVERHEAD.saturating_add(path.base_name().len() as u64))?;
        self.known.insert(path.clone());
        Ok(())
    }
}

/// A list of paths that only takes room for different ones.
#[derive(Debug, Default)]
pub(super) struct PathList(Vec<StorePath>);

impl PathList {
    pub(super) fn push(&mut self, path: StorePath) {
        if self.0.len() == self.0.capacity() {
            self.0.sort_unstable();
            self.0.dedup();
        }
        self.0.push(path);
    }

    pub(super) fn into_set(self) -> StorePathSet {
        self.0.into_iter().collect()
    }
}
