//! What is wanted, as data.

use std::{sync::Arc, time::Duration};

use ncc_store::{OnFailure, Outputs, PublicKey, SecretKey, StorePath};

/// Whether a plan is made to be run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// It will be run: the destination protects the closure, and substitutes if that is wanted.
    #[default]
    Copy,
    /// Only to look at it: nothing changes anywhere.
    Look,
}

/// Of which paths the metadata are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Described {
    /// Of those that the copy needs them of, which are those that are missing; and of others where they cost no question.
    #[default]
    Missing,
    /// Of all. So it is always for who only [looks](Purpose::Look).
    Everything,
}

/// Which paths are sent, as far as signatures go. One that is content-addressed never needs any.
#[derive(Clone, Debug, Default)]
pub enum Signatures {
    /// The destination decides. What it is known to refuse is not even sent.
    #[default]
    AsDemanded,
    /// All are sent, whatever is known of the destination, which decides.
    Unchecked,
    /// Only those that one of these keys has signed, whatever the destination would take.
    SignedBy(Arc<[PublicKey]>),
}

/// How a broken connection is made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// How often in a row, without a single path having been registered in between.
    pub limit: u32,
    /// How long to wait before the first of a row, at most: up to half of it is left out at random, so that not all that one
    /// host has lost come back at once.
    pub first_pause: Duration,
    /// Each further pause is four times as long as the one before, but not longer than this.
    pub longest_pause: Duration,
}

/// None at all.
impl Default for Retries {
    fn default() -> Self {
        Self { limit: 0, first_pause: Duration::from_millis(250), longest_pause: Duration::from_secs(30) }
    }
}

/// A copy that is wanted. Fields may be added.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Request {
    /// The paths whose closure is copied.
    pub roots: Vec<StorePath>,
    /// Copy the roots alone. What they refer to has to be valid at the destination already, which sees to that itself.
    pub without_references: bool,
    /// Whether derivations bring their outputs.
    pub outputs: Outputs,
    /// Let the destination substitute what it can before anything is sent.
    pub substitute: bool,
    /// What to do when one path cannot be copied.
    pub on_failure: OnFailure,
    /// Whether the destination has to have room for all that is to be sent, as far as it can tell, before the first byte. What
    /// takes more room than its NAR, or less (equal files, a file system that compresses), is not foreseen.
    pub check_space: bool,
    /// What is done when a connection breaks.
    pub retries: Retries,
    /// Keys that sign what is sent, on its way: nothing changes at the source, nor of what is present at the destination.
    pub sign_with: Arc<[SecretKey]>,
    /// Which paths may go without a signature.
    pub signatures: Signatures,
    /// What the plan tells the metadata of.
    pub described: Described,
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
