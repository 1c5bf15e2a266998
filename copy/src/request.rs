//! What is wanted, as data.

use ncc_store::{OnFailure, Outputs, StorePath};

/// Whether a plan is made to be run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// It will be run: the destination protects the closure, and substitutes if that is wanted.
    #[default]
    Copy,
    /// Only to look at it: nothing changes anywhere.
    Look,
}

/// A copy that is wanted. Fields may be added.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Request {
    /// The paths whose closure is copied.
    pub roots: Vec<StorePath>,
    /// Whether derivations bring their outputs.
    pub outputs: Outputs,
    /// Let the destination substitute what it can before anything is sent.
    pub substitute: bool,
    /// What to do when one path cannot be copied.
    pub on_failure: OnFailure,
    /// How often in a row a broken connection is made anew without a single path having been registered in between.
    pub reconnects: u32,
    /// Whether this is to be done, or only to be looked at.
    pub purpose: Purpose,
}

impl Request {
    /// A copy of the closure of `roots`, with nothing else asked for.
    pub fn new(roots: impl IntoIterator<Item = StorePath>) -> Self {
        let mut roots: Vec<_> = roots.into_iter().collect();
        roots.sort_unstable();
        roots.dedup();
        Self { roots, ..Self::default() }
    }
}
