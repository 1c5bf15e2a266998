//! Says when nothing happens for long, and for what is waited.

use std::time::Duration;

use super::{human, state::State};

/// The first word. A disk that syncs or a registration of many paths takes seconds; nobody waits longer than this
/// without asking whether it hangs.
pub(crate) const FIRST: Duration = Duration::from_secs(20);

/// The second; from then on each is after twice the time.
const SECOND: Duration = Duration::from_secs(60);

/// The longest time between two.
const LONGEST: Duration = Duration::from_secs(10 * 60);

/// From here on, a reason is offered.
const REASON_AFTER: Duration = SECOND;

/// Looks at the silence of a copy. It has no clock of its own.
#[derive(Debug)]
pub(crate) struct Watchdog {
    /// The silence at which it speaks next.
    next: Duration,
}

impl Watchdog {
    pub(crate) const fn new() -> Self {
        Self { next: FIRST }
    }

    /// A line, if it is time for one.
    pub(crate) fn check(&mut self, state: &State, now: Duration) -> Option<String> {
        let silence = state.silence(now);
        if silence < FIRST {
            self.next = FIRST;
            return None;
        }
        if silence < self.next {
            return None;
        }
        while self.next <= silence {
            self.next = if self.next < SECOND { SECOND } else { self.next + self.next.min(LONGEST) };
        }
        Some(describe(state, now))
    }
}

/// `waiting 20 s for HOST to register /nix/store/...`.
pub(crate) fn describe(state: &State, now: Duration) -> String {
    let silence = state.silence(now);
    let waited_for = state.waited_for();
    let reason = if silence >= REASON_AFTER && waited_for.contains(" to register ") {
        " (a slow disk, or another process there that works on the same path)"
    } else {
        ""
    };
    format!("waiting {} for {waited_for}{reason}", human::whole_seconds(silence))
}

#[cfg(test)]
mod tests {
    use ncc_copy::Event;

    use super::*;
    use crate::{
        Direction,
        testing::{Story, seconds},
    };

    #[test]
    fn it_speaks_after_growing_intervals_of_silence() {
        let story = Story::new();
        let mut state = story.state(Direction::to("web1"));
        state.apply(&Event::Asking { paths: 45 }, seconds(100));
        let mut watchdog = Watchdog::new();
        let said: Vec<_> = (100..2100)
            .filter_map(|second| watchdog.check(&state, seconds(second)).map(|line| (second - 100, line)))
            .collect();
        assert_eq!(said[0].1, "waiting 20 s for web1 to answer");
        assert_eq!(said[1].1, "waiting 1 min 00 s for web1 to answer");
        let times: Vec<_> = said.iter().map(|(second, _)| *second).collect();
        assert_eq!(times, [20, 60, 120, 240, 480, 960, 1560]);
    }

    #[test]
    fn anything_that_happens_starts_it_anew() {
        let story = Story::new();
        let mut state = story.state(Direction::to("web1"));
        let mut watchdog = Watchdog::new();
        assert!(watchdog.check(&state, seconds(20)).is_some());
        state.touch(seconds(30));
        for second in 30..50 {
            assert_eq!(watchdog.check(&state, seconds(second)), None);
        }
        assert!(watchdog.check(&state, seconds(50)).is_some());
        // A clock that jumped says one line, not all that were missed.
        assert!(watchdog.check(&state, seconds(500)).is_some());
        assert_eq!(watchdog.check(&state, seconds(501)), None);
    }

    #[test]
    fn a_registration_that_takes_a_minute_gets_a_reason() {
        let story = Story::new();
        let mut state = story.state(Direction::to("web1"));
        state.apply(&Event::Planned(&story.plan), seconds(0));
        let info = &story.plan.to_send[0];
        state.apply(&Event::Started(info), seconds(0));
        state.apply(&Event::Finished(info), seconds(0));
        let path = story.full("library-1.0");
        // Only where it is certain that nothing else is to be sent is it the other side that is waited for.
        assert_eq!(describe(&state, seconds(20)), format!("waiting 20 s for web1 to register {path}"));
        assert_eq!(
            describe(&state, seconds(60)),
            format!(
                "waiting 1 min 00 s for web1 to register {path} (a slow disk, or another process there that works on \
                 the same path)"
            )
        );
    }
}
