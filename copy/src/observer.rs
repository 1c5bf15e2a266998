//! What others can see of a copy while it happens.

use std::{sync::Arc, time::Duration};

use ncc_store::{PathInfo, StoreError, StorePath};

use crate::Plan;

/// A moment of a copy.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The source is asked for the closure.
    ComputingClosure,
    /// The destination is asked whether the roots are valid already.
    AskingForRoots {
        /// How many.
        paths: usize,
    },
    /// The destination is asked which of this many paths it has.
    Asking {
        /// Paths of the closure.
        paths: usize,
    },
    /// The destination is asked to substitute what it lacks.
    Substituting {
        /// How many paths it lacks.
        paths: usize,
    },
    /// The destination is asked what it would substitute of what it lacks, for a plan that is only looked at.
    Foreseeing {
        /// How many paths it lacks.
        paths: usize,
    },
    /// It is known what will be sent.
    Planned(&'a Plan),
    /// The first byte of a path is about to be read.
    Started(&'a PathInfo),
    /// Bytes of a path were handed to the destination.
    Sent {
        /// The path.
        path: &'a StorePath,
        /// How many bytes, since the last such event.
        bytes: u64,
    },
    /// All bytes of a path were handed to the destination.
    Finished(&'a PathInfo),
    /// The destination says that the path is valid there now.
    Registered(&'a StorePath),
    /// A path could not be copied.
    Failed(&'a StorePath, &'a StoreError),
    /// A connection broke, and is made anew.
    Reconnecting {
        /// How it broke, or why it could not be made anew.
        error: &'a StoreError,
        /// When.
        pause: Duration,
        /// Which try in a row this is, counted from 1.
        number: u32,
        /// How many there may be.
        limit: u32,
    },
    /// A connection has ended, and what is missing is asked for and sent anew: what was on its way is not any more.
    StartingAgain,
    /// The destination is asked whether all roots are valid.
    Checking,
}

/// Sees the events of a copy. Called from the task that copies: it must not block.
pub trait Observer: Send + Sync {
    /// Something happened.
    fn event(&self, event: Event<'_>);
}

/// Looks away.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoObserver;

impl NoObserver {
    /// As the shared trait object that the engine takes.
    pub fn shared(self) -> Arc<dyn Observer> {
        Arc::new(self)
    }
}

impl Observer for NoObserver {
    fn event(&self, _: Event<'_>) {}
}
