//! When a connection is made anew.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use ncc_store::StoreError;

use crate::{Event, Observer, Retries};

/// How much longer each pause is than the one before.
const GROWTH: u32 = 4;

/// How long nothing is said of a lost connection: what ended it may be about to end this process too, as Ctrl-C on a terminal,
/// which goes to all that were started there.
const QUIET: Duration = Duration::from_millis(100);

/// The tries that are left.
pub(crate) struct Tries<'a> {
    retries: Retries,
    observer: &'a Arc<dyn Observer>,
    /// How many there were since anything came of one.
    in_vain: u32,
    /// Whether both stores have answered something.
    reached: bool,
}

impl<'a> Tries<'a> {
    /// Before anybody has answered anything.
    pub(crate) fn new(retries: Retries, observer: &'a Arc<dyn Observer>) -> Self {
        Self { retries, observer, in_vain: 0, reached: false }
    }

    /// After both stores have answered.
    pub(crate) const fn reached(mut self) -> Self {
        self.reached = true;
        self
    }

    /// Something has come of the last one.
    pub(crate) const fn progress(&mut self) {
        self.in_vain = 0;
    }

    /// Waits until it is time for the next one; gives the error back if there is none.
    pub(crate) async fn wait_after(&mut self, error: StoreError) -> Result<(), StoreError> {
        // What was lost has been there.
        self.reached |= error.is_temporary() && !error.is_unreached();
        if !error.is_temporary() || !self.reached || self.in_vain >= self.retries.limit {
            return Err(error);
        }
        let pause = self.pause();
        self.in_vain += 1;
        let (number, limit) = (self.in_vain, self.retries.limit);
        let quiet = pause.min(QUIET);
        tokio::time::sleep(quiet).await;
        let pause = pause.saturating_sub(quiet);
        self.observer.event(Event::Reconnecting { error: &error, pause, number, limit });
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn pause(&self) -> Duration {
        let Retries { first_pause, longest_pause, .. } = self.retries;
        let whole = first_pause.saturating_mul(GROWTH.saturating_pow(self.in_vain)).min(longest_pause);
        // The standard library's hashers are seeded at random.
        let thousandths = RandomState::new().hash_one(()) % 1000;
        whole.saturating_sub(whole / 2000 * u32::try_from(thousandths).unwrap_or_default())
    }
}
