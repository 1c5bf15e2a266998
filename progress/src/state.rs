//! What is known of a copy, gathered from its events. Nothing here prints, and time comes from outside.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use ncc_copy::{Event, Plan};
use ncc_store::{StoreDir, StorePath};

use super::{Direction, human};

/// A number of paths with their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Total {
    pub(crate) paths: usize,
    pub(crate) bytes: u64,
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing has been heard.
    Starting,
    /// The source computes the closure.
    Closure,
    /// The destination is asked which of this many paths it has.
    Asking(usize),
    /// The destination substitutes what it can of this many paths.
    Substituting(usize),
    /// The destination is asked what it would substitute of this many paths.
    Foreseeing(usize),
    /// It is known what is to be sent, and being sent.
    Copying,
    /// The destination is asked about the roots.
    Checking,
    /// The connection was lost, and is made anew in a moment.
    Pausing,
}

/// A path of which some bytes were handed on.
#[derive(Debug)]
struct InFlight {
    path: StorePath,
    size: u64,
    sent: u64,
}

/// What is known of a copy. Times are those of one clock, counted from its start.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) direction: Direction,
    pub(crate) store_dir: StoreDir,
    pub(crate) phase: Phase,
    pub(crate) phase_since: Duration,
    /// All hosts have proven that they are there: ssh asks nothing any more.
    pub(crate) answered: bool,
    /// Connections are made anew, by whichever end has lost its own.
    again: bool,
    /// Everything that is to be sent: fixed before the first byte.
    pub(crate) total: Total,
    /// Whole paths that were handed to the destination; and all bytes, those of half paths too.
    pub(crate) sent: Total,
    /// What the destination has confirmed.
    pub(crate) registered: Total,
    pub(crate) failed: usize,
    last_activity: Duration,
    in_flight: Vec<InFlight>,
    /// Handed over and not confirmed, oldest first.
    waiting: VecDeque<StorePath>,
    /// Sizes of all paths that are not confirmed.
    open: HashMap<StorePath, u64>,
    rate: Rate,
}

impl State {
    pub(crate) fn new(direction: Direction, store_dir: StoreDir) -> Self {
        Self {
            direction,
            store_dir,
            phase: Phase::Starting,
            phase_since: Duration::ZERO,
            answered: false,
            again: false,
            total: Total::default(),
            sent: Total::default(),
            registered: Total::default(),
            failed: 0,
            last_activity: Duration::ZERO,
            in_flight: Vec::new(),
            waiting: VecDeque::new(),
            open: HashMap::new(),
            rate: Rate::default(),
        }
    }

    /// Takes in what happened at `now`.
    pub(crate) fn apply(&mut self, event: &Event<'_>, now: Duration) {
        self.touch(now);
        match event {
            Event::ComputingClosure => self.enter(Phase::Closure, now),
            Event::AskingForRoots { paths } => self.enter(Phase::Asking(*paths), now),
            Event::Asking { paths } => {
                // The closure came from the only host.
                self.answered |= self.direction.destination_host().is_none();
                self.enter(Phase::Asking(*paths), now);
            }
            Event::Substituting { paths } => {
                self.answered = true;
                self.enter(Phase::Substituting(*paths), now);
            }
            Event::Foreseeing { paths } => {
                self.answered = true;
                self.enter(Phase::Foreseeing(*paths), now);
            }
            Event::Planned(plan) => {
                self.answered = true;
                self.enter(Phase::Copying, now);
                self.planned(plan);
                self.rate.add(now, 0);
            }
            Event::Started(info) => {
                self.answered = true;
                self.in_flight.push(InFlight { path: info.path.clone(), size: info.nar_size, sent: 0 });
            }
            Event::Sent { path, bytes } => {
                if let Some(flying) = self.in_flight.iter_mut().rev().find(|flying| flying.path == **path) {
                    flying.sent = flying.sent.saturating_add(*bytes);
                }
                self.sent.bytes = self.sent.bytes.saturating_add(*bytes);
                self.rate.add(now, self.sent.bytes);
            }
            Event::Finished(info) => {
                self.in_flight.retain(|flying| flying.path != info.path);
                self.waiting.push_back(info.path.clone());
                self.sent.paths += 1;
            }
            Event::Registered(path) => self.registered(path),
            Event::Failed(path, _) => {
                self.in_flight.retain(|flying| flying.path != **path);
                self.waiting.retain(|waiting| waiting != *path);
                self.failed += 1;
            }
            Event::Reconnecting { .. } => {
                // Nothing may stand where ssh asks.
                self.answered = false;
                self.enter(Phase::Pausing, now);
            }
            Event::StartingAgain => {
                if self.phase == Phase::Pausing {
                    self.enter(if self.open.is_empty() { Phase::Starting } else { Phase::Copying }, now);
                }
                // Another connection, for which ssh may ask another time.
                self.answered = false;
                self.again = true;
                for flying in self.in_flight.drain(..) {
                    self.sent.bytes = self.sent.bytes.saturating_sub(flying.sent);
                }
                for path in self.waiting.drain(..) {
                    let size = self.open.get(&path).copied().unwrap_or_default();
                    self.sent.bytes = self.sent.bytes.saturating_sub(size);
                    self.sent.paths = self.sent.paths.saturating_sub(1);
                }
            }
            Event::Checking => self.enter(Phase::Checking, now),
            _ => {}
        }
    }

    /// The host that is called last has greeted.
    pub(crate) fn greeted(&mut self, now: Duration) {
        self.touch(now);
        let is_between =
            self.direction.source_host().is_some() && self.direction.destination_host().is_some();
        // Of two hosts, either may be the only one that is called again.
        self.answered |= !(is_between && self.again);
    }

    /// Something happened that is no event: a line of the host, for instance.
    pub(crate) fn touch(&mut self, now: Duration) {
        self.last_activity = now;
    }

    fn enter(&mut self, phase: Phase, now: Duration) {
        self.phase = phase;
        self.phase_since = now;
    }

    fn planned(&mut self, plan: &Plan) {
        self.total = Total { paths: plan.to_send.len(), bytes: plan.bytes_to_send() };
        self.open = plan.to_send.iter().map(|info| (info.path.clone(), info.nar_size)).collect();
    }

    fn registered(&mut self, path: &StorePath) {
        let Some(size) = self.open.remove(path) else { return };
        self.registered.paths += 1;
        self.registered.bytes = self.registered.bytes.saturating_add(size);
        if let Some(place) = self.waiting.iter().position(|waiting| waiting == path) {
            self.waiting.remove(place);
            return;
        }
        // Somebody else has brought it, before all of it was sent from here: nothing more of it will be.
        let flying = self.in_flight.iter().position(|flying| flying.path == *path);
        let sent = flying.map_or(0, |place| self.in_flight.remove(place).sent);
        self.sent.paths += 1;
        self.sent.bytes = self.sent.bytes.saturating_add(size.saturating_sub(sent));
    }

    /// The path to show: what is being sent, else what is waited for.
    pub(crate) fn current(&self) -> Option<&StorePath> {
        self.in_flight.last().map(|flying| &flying.path).or_else(|| self.waiting.front())
    }

    /// Bytes and size of a path that is on its way.
    pub(crate) fn part_sent(&self, path: &StorePath) -> Option<(u64, u64)> {
        let flying = self.in_flight.iter().rev().find(|flying| flying.path == *path)?;
        Some((flying.sent, flying.size))
    }

    /// How many paths are on their way or wait for confirmation.
    pub(crate) fn running(&self) -> usize {
        self.in_flight.len() + self.waiting.len()
    }

    /// Everything was handed over, and confirmation is all that is waited for.
    pub(crate) fn only_waits(&self) -> bool {
        self.phase == Phase::Copying && self.in_flight.is_empty() && self.sent.paths >= self.total.paths
    }

    /// Bytes per second of late, once that means something.
    pub(crate) fn rate(&self, now: Duration) -> Option<u64> {
        self.rate.per_second(now, self.sent.bytes)
    }

    /// How long the rest takes at the present rate.
    pub(crate) fn time_left(&self, now: Duration) -> Option<Duration> {
        let rate = self.rate(now).filter(|rate| *rate > 0)?;
        Some(Duration::from_secs(self.total.bytes.saturating_sub(self.sent.bytes).div_ceil(rate)))
    }

    /// How long nothing at all has happened.
    pub(crate) fn silence(&self, now: Duration) -> Duration {
        now.saturating_sub(self.last_activity)
    }

    /// What is waited for, to be read behind "waiting 20 s for".
    pub(crate) fn waited_for(&self) -> String {
        let to_host = self.direction.destination_host().is_some();
        let (source, destination) = (self.direction.source(), self.direction.destination());
        match self.phase {
            Phase::Starting => format!("{} to answer", self.direction.first_host()),
            Phase::Asking(_) if to_host && !self.answered => format!("{destination} to answer"),
            Phase::Closure => format!("{source} to compute the closure"),
            Phase::Substituting(paths) => {
                format!("{destination} to substitute what it can of {}", human::paths(paths))
            }
            Phase::Foreseeing(paths) => {
                format!("{destination} to say what it would substitute of {}", human::paths(paths))
            }
            Phase::Asking(paths) => {
                format!("{destination} to answer which of {} are valid there", human::paths(paths))
            }
            Phase::Pausing => format!("the next try to reach {}", self.direction.either_host()),
            Phase::Copying => self.waited_for_in_copying(source, destination, to_host),
            Phase::Checking => format!("{destination} to answer whether everything is valid there"),
        }
    }

    fn waited_for_in_copying(&self, source: &str, destination: &str, to_host: bool) -> String {
        let full = |path| self.store_dir.full(path);
        let between = to_host && self.direction.source_host().is_some();
        match (self.in_flight.last(), self.waiting.front()) {
            // From here to a host, the pipe is full: it is busy with what it has.
            (Some(_), Some(path)) if to_host && !between => {
                format!("{destination} to register {}", full(path))
            }
            (Some(flying), _) if between => {
                format!("{source} to send or {destination} to take more of {}", full(&flying.path))
            }
            (Some(flying), _) if to_host => format!("{destination} to take more of {}", full(&flying.path)),
            (Some(flying), _) => format!("{source} to send more of {}", full(&flying.path)),
            (None, Some(path)) if to_host || self.only_waits() => {
                format!("{destination} to register {}", full(path))
            }
            _ => format!("{source} to send the next path"),
        }
    }
}

/// How far back the rate looks: long enough to be calm, short enough to notice that a link became slow.
const RATE_WINDOW: Duration = Duration::from_secs(8);

/// The least time between two samples.
const RATE_STEP: Duration = Duration::from_millis(250);

/// The rate of the last seconds.
#[derive(Debug, Default)]
struct Rate {
    /// When, and how many bytes there were then.
    samples: VecDeque<(Duration, u64)>,
}

impl Rate {
    fn add(&mut self, now: Duration, bytes: u64) {
        if self.samples.back().is_some_and(|(last, _)| now.saturating_sub(*last) < RATE_STEP) {
            return;
        }
        while self.samples.len() > 1
            && self.samples.front().is_some_and(|(first, _)| now.saturating_sub(*first) > RATE_WINDOW)
        {
            self.samples.pop_front();
        }
        self.samples.push_back((now, bytes));
    }

    fn per_second(&self, now: Duration, bytes: u64) -> Option<u64> {
        let (then, before) = self.samples.front()?;
        let span = now.saturating_sub(*then);
        if span < Duration::from_secs(1) {
            return None;
        }
        let gained = u128::from(bytes.saturating_sub(*before));
        u64::try_from(gained * 1000 / span.as_millis()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Story, seconds};

    #[test]
    fn totals_are_fixed_by_the_plan_and_reached_in_the_end() {
        let story = Story::new();
        let mut state = story.state(Direction::to("web1"));
        let mut totals = Vec::new();
        story.tell(|event, now| {
            state.apply(&event, now);
            totals.push(state.total);
        });
        totals.dedup();
        assert_eq!(totals, [Total::default(), story.total()]);
        assert_eq!((state.sent, state.registered), (story.total(), story.total()));
        assert_eq!(state.phase, Phase::Checking);
        assert_eq!((state.running(), state.failed), (0, 0));
    }

    #[test]
    fn a_path_that_somebody_else_brought_counts_as_done() {
        let story = Story::new();
        let mut state = story.state(Direction::to("web1"));
        let now = seconds(1);
        state.apply(&Event::Planned(&story.plan), now);
        let info = &story.plan.to_send[0];
        state.apply(&Event::Started(info), now);
        state.apply(&Event::Sent { path: &info.path, bytes: 10 }, now);
        state.apply(&Event::Registered(&info.path), now);
        assert_eq!(state.sent, Total { paths: 1, bytes: info.nar_size });
        assert_eq!(state.registered, state.sent);
    }

    #[test]
    fn what_was_on_its_way_counts_once_though_it_is_sent_again() {
        let story = Story::new();
        let mut state = story.state(Direction::to("web1"));
        let now = seconds(1);
        state.apply(&Event::Planned(&story.plan), now);
        let (whole, half) = (&story.plan.to_send[0], &story.plan.to_send[1]);
        for event in [
            Event::Started(whole),
            Event::Sent { path: &whole.path, bytes: whole.nar_size },
            Event::Finished(whole),
            Event::Started(half),
            Event::Sent { path: &half.path, bytes: 10 },
            Event::StartingAgain,
        ] {
            state.apply(&event, now);
        }
        assert_eq!((state.sent, state.running()), (Total::default(), 0));
        // It had come after all, and nobody had heard of it.
        state.apply(&Event::Registered(&whole.path), now);
        assert_eq!(state.sent, Total { paths: 1, bytes: whole.nar_size });
    }

    #[test]
    fn the_rate_follows_the_last_seconds() {
        let mut rate = Rate::default();
        rate.add(seconds(0), 0);
        assert_eq!(rate.per_second(Duration::from_millis(500), 100), None);
        for second in 1..=20 {
            rate.add(seconds(second), 1000 * second);
        }
        assert_eq!(rate.per_second(seconds(20), 20_000), Some(1000));
        // Nothing comes any more: it sinks.
        assert!(rate.per_second(seconds(36), 20_000).unwrap() < 500);
    }

    #[test]
    fn what_is_waited_for_is_named_in_every_phase() {
        let story = Story::new();
        let mut to = story.state(Direction::to("web1"));
        let mut from = story.state(Direction::from_host("web1"));
        let mut said = Vec::new();
        let first = to.waited_for();
        story.tell(|event, now| {
            to.apply(&event, now);
            from.apply(&event, now);
            said.push((to.waited_for(), from.waited_for()));
        });
        let has = |to: &str, from: &str| {
            assert!(said.contains(&(to.to_owned(), from.to_owned())), "{to}\n{from}\n{said:#?}");
        };
        assert_eq!(first, "web1 to answer");
        has("this machine to compute the closure", "web1 to compute the closure");
        has("web1 to answer", "this machine to answer which of 5 paths are valid there");
        let library = story.full("library-1.0");
        has(&format!("web1 to take more of {library}"), &format!("web1 to send more of {library}"));
        has(
            &format!("web1 to register {library}"),
            &format!("web1 to send more of {}", story.full("program-2.1")),
        );
        let data = story.full("data");
        has(&format!("web1 to register {data}"), &format!("this machine to register {data}"));
        has(
            "web1 to answer whether everything is valid there",
            "this machine to answer whether everything is valid there",
        );
    }

    #[test]
    fn between_two_hosts_nothing_is_waited_for_from_this_machine() {
        let story = Story::new();
        let mut state = story.state(Direction::new(Some("a".to_owned()), Some("b".to_owned())));
        let mut said = vec![state.waited_for()];
        story.tell(|event, now| {
            state.apply(&event, now);
            said.push(state.waited_for());
        });
        for text in [
            "a to answer",
            "a to compute the closure",
            "b to answer",
            &format!("a to send or b to take more of {}", story.full("library-1.0")),
            &format!("b to register {}", story.full("data")),
            "b to answer whether everything is valid there",
        ] {
            assert!(said.iter().any(|said| said == text), "{text}: {said:#?}");
        }
        assert!(said.iter().all(|text| !text.contains("this machine")), "{said:#?}");
    }

    #[test]
    fn of_two_hosts_that_are_called_again_one_greeting_proves_nothing() {
        let story = Story::new();
        let mut state = story.state(Direction::new(Some("a".to_owned()), Some("b".to_owned())));
        state.apply(&Event::Asking { paths: 5 }, seconds(1));
        assert!(!state.answered);
        state.greeted(seconds(2));
        assert!(state.answered);
        state.apply(&Event::StartingAgain, seconds(3));
        state.greeted(seconds(4));
        assert!(!state.answered);
        state.apply(&Event::Started(&story.plan.to_send[0]), seconds(5));
        assert!(state.answered);
    }
}
