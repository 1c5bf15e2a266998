//! What is wanted, as data.

use std::sync::Arc;

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
    /// How often in a row a broken connection is made anew without a single path having been registered in between.
    pub reconnects: u32,
    /// Keys that sign what is sent, on its way: nothing changes at the source, nor of what is present at the destination.
    pub sign_with: Arc<[SecretKey]>,
    /// Which paths may go without a signature.
    pub signatures: Signatures,
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
