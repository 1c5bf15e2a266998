//! A host may say as much as it likes: so much of it is shown.

use std::time::Duration;

/// Lines that are shown however fast they come: what a long greeting or a verbose ssh says.
const BURST: u32 = 500;

/// Lines that are shown each second after that, about as many as anybody can follow.
const PER_SECOND: u32 = 50;

const MILLION: u64 = 1_000_000;

/// The longest line that is shown whole, in characters.
pub(crate) const LONGEST: usize = 2000;

/// Decides which lines are shown.
#[derive(Debug)]
pub(crate) struct Throttle {
    /// Lines that may be shown now, in millionths.
    allowance: u64,
    last: Duration,
    left_out: usize,
}

impl Throttle {
    pub(crate) fn new() -> Self {
        Self { allowance: u64::from(BURST) * MILLION, last: Duration::ZERO, left_out: 0 }
    }

    /// Whether a line may be shown at `now`. `Some` is how many before it were not.
    pub(crate) fn admit(&mut self, now: Duration) -> Option<usize> {
        let passed = u64::try_from(now.saturating_sub(self.last).as_micros()).unwrap_or(u64::MAX);
        self.last = now;
        let gained = passed.saturating_mul(PER_SECOND.into());
        self.allowance = self.allowance.saturating_add(gained).min(u64::from(BURST) * MILLION);
        if self.allowance < MILLION {
            self.left_out += 1;
            return None;
        }
        self.allowance -= MILLION;
        Some(self.left_out())
    }

    /// How many were not shown since the last time that this was told.
    pub(crate) fn left_out(&mut self) -> usize {
        std::mem::take(&mut self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_thinned_and_counted() {
        let mut throttle = Throttle::new();
        let shown = (0..10_000_u64)
            .filter(|number| throttle.admit(Duration::from_micros(number * 100)).is_some())
            .count();
        // The burst, and a second's worth.
        assert!((540..=550).contains(&shown), "{shown}");
        let rested = throttle.admit(Duration::from_secs(10)).unwrap();
        assert!(rested > 0);
        assert_eq!(throttle.admit(Duration::from_secs(10)), Some(0));
    }
}
