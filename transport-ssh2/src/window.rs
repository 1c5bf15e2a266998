//! How far ahead of its reader the server may send on a channel.
//!
//! Small is better where the way is short: OpenSSH's server reads its command's output as far ahead as the window goes, and with 12
//! MiB and more of it in its buffer it moves all of that about with every packet, which takes three times the processor time
//! (`BENCHMARKS.md`). On a long fast line what is under way is not in that buffer, and the window has to hold all of it. So the window
//! begins as small as OpenSSH's own, and grows to twice of what is read within one round trip, as TCP's does.

use std::time::{Duration, Instant};

/// What a channel is opened with. libssh2 tops a window up to this by itself; see [`Window::missing`].
pub(crate) const SMALLEST: u32 = 2 * 1024 * 1024;

/// 160 MB/s at a round trip of 100 ms. It is also the most memory that a channel takes which nobody reads.
const LARGEST: u32 = 16 * 1024 * 1024;

#[derive(Debug)]
pub(crate) struct Window {
    size: u32,
    round_trip: Duration,
    /// How much was read since then.
    read: u64,
    since: Instant,
}

impl Window {
    pub(crate) fn new(round_trip: Duration, now: Instant) -> Self {
        Self { size: SMALLEST, round_trip, read: 0, since: now }
    }

    /// So much was read.
    pub(crate) fn count(&mut self, read: usize, now: Instant) {
        self.read += read as u64;
        let elapsed = now.duration_since(self.since);
        if elapsed < self.round_trip || elapsed.is_zero() {
            return;
        }
        let within_round_trip = u128::from(self.read) * self.round_trip.as_nanos() / elapsed.as_nanos();
        let wanted = u32::try_from(within_round_trip * 2).unwrap_or(LARGEST);
        self.size = self.size.max(wanted.min(LARGEST));
        (self.read, self.since) = (0, now);
    }

    /// What the server has to be granted, if `remaining` is what it may still send, before at most `next` bytes are read.
    ///
    /// Always before libssh2 would do it in that read, which it does at three quarters of the smallest size: of two adjustments of which
    /// the first could not be sent yet, it would count one wrong.
    pub(crate) fn missing(&self, remaining: u32, next: usize) -> Option<u32> {
        let next = u32::try_from(next).unwrap_or(u32::MAX);
        (remaining < (self.size / 4 * 3).saturating_add(next)).then(|| self.size + next - remaining)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// Reads `rate` bytes in each millisecond, as far as the window lets it, on a line with this round trip.
    fn after_a_second(round_trip: Duration, rate: usize) -> u32 {
        let start = Instant::now();
        let mut window = Window::new(round_trip, start);
        for number in 1..1000 {
            let limit = u128::from(window.size) * MILLISECOND.as_nanos() / round_trip.as_nanos();
            let count = rate.min(usize::try_from(limit).unwrap());
            window.count(count, start + MILLISECOND * number);
        }
        window.size
    }

    #[test]
    fn grows_with_the_line() {
        assert_eq!(after_a_second(MILLISECOND / 2, 500_000), SMALLEST);
        assert_eq!(after_a_second(MILLISECOND * 100, 1_000), SMALLEST);
        assert_eq!(after_a_second(MILLISECOND * 100, 125_000), LARGEST);
        let half = after_a_second(MILLISECOND * 50, 80_000);
        assert!((7_900_000..8_400_000).contains(&half), "{half}");
    }

    #[test]
    fn tops_up_before_libssh2_does() {
        let window = Window::new(MILLISECOND, Instant::now());
        let limit = SMALLEST / 4 * 3 + 1000;
        assert_eq!(window.missing(SMALLEST, 1000), None);
        assert_eq!(window.missing(limit, 1000), None);
        assert_eq!(window.missing(limit - 1, 1000), Some(SMALLEST + 1000 - (limit - 1)));
    }
}
