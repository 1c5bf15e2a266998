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
    /// What has been compressed in it.
    pub(super) kibibytes: u32,
}

/// For how many whiles a step that made the copy slower is not tried again.
const REMEMBERED: u32 = 20;

/// Chooses the step: tries the next one where the measures speak for it, and goes back where that made the copy slower.
#[derive(Debug)]
pub(super) struct Adapting {
    steps: &'static [Step],
    at: usize,
    /// The step before this one was tried, and how many bytes per second it got through.
    before: Option<(usize, f64)>,
    /// For how many whiles each step is not tried.
    barred: Vec<u32>,
}

impl Adapting {
    /// Begins with the third step: what follows leaves it soon where it is wrong.
    pub(super) fn new(steps: &'static [Step]) -> Self {
        Self { steps, at: 2, before: None, barred: vec![0; steps.len()] }
    }

    pub(super) fn step(&self) -> Step {
        self.steps.get(self.at).copied().unwrap_or(Step::new(0, false))
    }

    /// The step to go on with, if it is another one.
    pub(super) fn observe(&mut self, spent: Spent) -> Option<Step> {
        let seconds = spent.total.as_secs_f64().max(f64::EPSILON);
        let share = |part: Duration| part.as_secs_f64() / seconds;
        let (line, input) = (share(spent.waiting_for_line), share(spent.waiting_for_input));
        let work = 1.0 - line - input;
        let rate = f64::from(spent.kibibytes) / seconds;
        for whiles in &mut self.barred {
            *whiles = whiles.saturating_sub(1);
        }
        if let Some((step, its_rate)) = self.before.take()
            && input < 0.5
            && rate < its_rate * 0.95
        {
            if let Some(whiles) = self.barred.get_mut(self.at) {
                *whiles = REMEMBERED;
            }
            self.at = step;
            return Some(self.step());
        }
        let next = if line < 0.1 && work > 0.6 {
            // Compressing is what everybody waits for. Whether the line is not slower still, trying will tell.
            self.at.checked_sub(1)?
        } else if line > 0.5 && work < 0.3 {
            // The next step takes twice the time, which is there.
            self.at + 1
        } else {
            return None;
        };
        if self.barred.get(next) != Some(&0) {
            return None;
        }
        self.before = Some((self.at, rate));
        self.at = next;
        Some(self.step())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(input: u64, line: u64, kibibytes: u32) -> Spent {
        Spent {
            total: Duration::from_millis(100),
            waiting_for_input: Duration::from_millis(input),
            waiting_for_line: Duration::from_millis(line),
            kibibytes,
        }
    }

    #[test]
    fn a_slow_line_gets_the_hardest_step() {
        let mut adapting = Adapting::new(ZSTD);
        let levels: Vec<i32> =
            std::iter::from_fn(|| adapting.observe(spent(0, 95, 100))).map(|step| step.level).collect();
        assert_eq!((adapting.step().level, levels), (12, vec![6, 9, 12]));
    }

    #[test]
    fn a_fast_line_gets_the_bytes_as_they_are() {
        for steps in [ZSTD, GZIP] {
            let mut adapting = Adapting::new(steps);
            let mut rate = 0;
            let levels: Vec<i32> = std::iter::from_fn(|| {
                rate += 100;
                adapting.observe(spent(0, 0, rate))
            })
            .map(|step| step.level)
            .collect();
            assert_eq!(levels, [1, 0]);
        }
    }

    #[test]
    fn a_slow_source_changes_nothing() {
        let mut adapting = Adapting::new(ZSTD);
        assert_eq!(adapting.observe(spent(90, 0, 100)), None);
        assert_eq!(adapting.observe(spent(50, 45, 100)), None);
        assert_eq!(adapting.step(), Step::new(3, true));
    }

    #[test]
    fn a_step_that_makes_it_slower_is_left_at_once_and_not_tried_for_a_while() {
        let mut adapting = Adapting::new(ZSTD);
        // A slow processor, and a line that is slower still without compression.
        assert_eq!(adapting.observe(spent(0, 0, 1000)), Some(Step::new(1, false)));
        assert_eq!(adapting.observe(spent(0, 90, 500)), Some(Step::new(3, true)));
        let again = (1..1000).find(|_| adapting.observe(spent(0, 0, 1000)).is_some());
        assert_eq!(again, Some(REMEMBERED));
        assert_eq!(adapting.step(), Step::new(1, false));
    }

    #[test]
    fn steps_up_are_left_as_well() {
        let mut adapting = Adapting::new(ZSTD);
        assert_eq!(adapting.observe(spent(0, 80, 1000)), Some(Step::new(6, true)));
        assert_eq!(adapting.observe(spent(0, 0, 700)), Some(Step::new(3, true)));
        assert_eq!(adapting.observe(spent(0, 80, 1000)), None);
    }

    #[test]
    fn a_source_that_has_become_slow_says_nothing_of_a_step() {
        let mut adapting = Adapting::new(ZSTD);
        assert_eq!(adapting.observe(spent(0, 80, 1000)), Some(Step::new(6, true)));
        assert_eq!(adapting.observe(spent(80, 0, 100)), None);
        assert_eq!(adapting.step(), Step::new(6, true));
    }
}
