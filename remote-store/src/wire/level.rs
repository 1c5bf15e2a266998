//! How hard the bytes are compressed: as hard as the line leaves time for.

use std::time::Duration;

/// One way to compress. Level 0 stores the bytes as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) level: i32,
    /// Looks for what has come before in a window of 128 MiB, across paths.
    pub(super) long: bool,
}

impl Step {
    pub(super) const fn new(level: i32, long: bool) -> Self {
        Self { level, long }
    }
}

/// Each takes about twice the time of the one before. What lies above the last costs much and gains little.
pub(super) const ZSTD: &[Step] = &[
    Step::new(0, false),
    Step::new(1, false),
    Step::new(3, true),
    Step::new(6, true),
    Step::new(9, true),
    Step::new(12, true),
];
pub(super) const GZIP: &[Step] = &[
    Step::new(0, false),
    Step::new(1, false),
    Step::new(3, false),
    Step::new(6, false),
    Step::new(9, false),
];

/// Where the time of a while went. What is left of it went into compressing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spent {
    pub(super) total: Duration,
    /// Waiting for bytes to compress.
    pub(super) waiting_for_input: Duration,
    /// Waiting for the line to take what has been compressed.
    pub(super) waiting_for_line: Duration,
}

/// For how many whiles a step that turned out too slow is not tried again.
const REMEMBERED: u32 = 20;

/// Chooses the step.
#[derive(Debug)]
pub(super) struct Adapting {
    steps: &'static [Step],
    at: usize,
    too_slow: usize,
    remembered: u32,
}

impl Adapting {
    /// Begins with the third step: what follows leaves it soon where it is wrong.
    pub(super) const fn new(steps: &'static [Step]) -> Self {
        Self { steps, at: 2, too_slow: usize::MAX, remembered: 0 }
    }

    pub(super) fn step(&self) -> Step {
        self.steps.get(self.at).copied().unwrap_or(Step::new(0, false))
    }

    /// The step to go on with, if it is another one.
    pub(super) fn observe(&mut self, spent: Spent) -> Option<Step> {
        let share = |part: Duration| part.as_secs_f64() / spent.total.as_secs_f64().max(f64::EPSILON);
        let line = share(spent.waiting_for_line);
        let work = 1.0 - line - share(spent.waiting_for_input);
        self.remembered = self.remembered.saturating_sub(1);
        if line < 0.1 && work > 0.6 && self.at > 0 {
            (self.too_slow, self.remembered) = (self.at, REMEMBERED);
            self.at -= 1;
            return Some(self.step());
        }
        let next = self.at + 1;
        // The next step takes twice the time, and must not become what everybody waits for.
        let has_room = line > 0.5 && work < 0.3 && next < self.steps.len();
        if has_room && (next < self.too_slow || self.remembered == 0) {
            self.at = next;
            return Some(self.step());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(input: u64, line: u64) -> Spent {
        Spent {
            total: Duration::from_millis(100),
            waiting_for_input: Duration::from_millis(input),
            waiting_for_line: Duration::from_millis(line),
        }
    }

    #[test]
    fn a_slow_line_gets_the_hardest_step() {
        let mut adapting = Adapting::new(ZSTD);
        let levels: Vec<i32> =
            std::iter::from_fn(|| adapting.observe(spent(0, 95))).map(|step| step.level).collect();
        assert_eq!((adapting.step().level, levels), (12, vec![6, 9, 12]));
    }

    #[test]
    fn a_fast_line_gets_the_bytes_as_they_are() {
        for steps in [ZSTD, GZIP] {
            let mut adapting = Adapting::new(steps);
            let levels: Vec<i32> =
                std::iter::from_fn(|| adapting.observe(spent(0, 0))).map(|step| step.level).collect();
            assert_eq!(levels, [1, 0]);
        }
    }

    #[test]
    fn a_slow_source_changes_nothing() {
        let mut adapting = Adapting::new(ZSTD);
        assert_eq!(adapting.observe(spent(90, 0)), None);
        assert_eq!(adapting.observe(spent(50, 45)), None);
        assert_eq!(adapting.step(), Step::new(3, true));
    }

    #[test]
    fn what_was_too_slow_is_not_tried_again_at_once() {
        let mut adapting = Adapting::new(ZSTD);
        assert_eq!(adapting.observe(spent(0, 0)), Some(Step::new(1, false)));
        let again = (1..1000).find(|_| adapting.observe(spent(0, 95)).is_some());
        assert_eq!(again, Some(REMEMBERED));
        // And steps below it are free.
        assert_eq!(adapting.observe(spent(0, 0)), Some(Step::new(1, false)));
        assert_eq!(adapting.observe(spent(0, 0)), Some(Step::new(0, false)));
        assert_eq!(adapting.observe(spent(0, 95)), None, "1 was too slow as well");
    }
}
