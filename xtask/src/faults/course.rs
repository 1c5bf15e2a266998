//! What a run is going to be: drawn from its seed, and from nothing else.

use std::time::Duration;

use clap::ValueEnum;

use crate::interop::lab::{Direction, Protocol};
use crate::noise::Noise;
use crate::relay::Way;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Kind {
    /// The line is cut
    Cut,
    /// The line is cut again and again
    Cuts,
    /// Nothing arrives any more, and nobody is told
    Stall,
    /// The line becomes slow
    Slow,
    /// A bit arrives as another
    Corrupt,
    /// The program is killed
    KillClient,
    /// The program's ssh is killed
    KillSsh,
    /// nix-store --serve, or nix-daemon --stdio, is killed
    KillServer,
    /// sshd's processes of the session are killed
    KillLogin,
    /// The daemon here, which adds the paths that are fetched, loses its worker
    KillDaemon,
    /// The destination's disk is full
    Full,
    /// The destination's disk becomes read-only
    ReadOnly,
    /// One side may have only a few files open
    Files,
    /// A byte of the protocol arrives as another, behind the encryption
    Garble,
    /// Several copies at once, ours and upstream's
    Race,
}

impl Kind {
    pub(super) const ALL: [Self; 15] = [
        Self::Cut,
        Self::KillServer,
        Self::KillClient,
        Self::Corrupt,
        Self::Race,
        Self::KillDaemon,
        Self::Full,
        Self::KillLogin,
        Self::Cuts,
        Self::Stall,
        Self::Files,
        Self::Garble,
        Self::KillSsh,
        Self::ReadOnly,
        Self::Slow,
    ];
}

impl std::fmt::Display for Kind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

/// Who writes what is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Near {
    /// The program itself.
    Store,
    /// The daemon of this side, asked by the program.
    Daemon,
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Far {
    Nix,
    /// The program, with `--serve`.
    Ours,
}

/// Which side has little of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

/// One run.
#[derive(Clone, Debug)]
pub(super) struct Course {
    pub(super) kind: Kind,
    pub(super) direction: Direction,
    pub(super) protocol: Protocol,
    pub(super) transport: &'static str,
    pub(super) near: Near,
    pub(super) far: Far,
    pub(super) side: Side,
    /// Whether a connection that is lost is made anew, as it is by default.
    pub(super) retries: bool,
    /// Where on the line it is counted when.
    pub(super) way: Way,
    /// How much of what this way carries has passed then.
    pub(super) point: Share,
    /// How long after that.
    pub(super) later: Duration,
    /// For what else there is to draw.
    pub(super) noise: Noise,
}

/// Millionths of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share(u64);

impl Share {
    pub(super) fn of(self, whole: u64) -> u64 {
        whole.saturating_mul(self.0) / 1_000_000
    }
}

impl Course {
    /// The run of this number.
    pub(super) fn draw(seed: u64, number: u64, kinds: &[Kind]) -> Self {
        // Numbers that follow each other must not give runs that do.
        let mixed = (seed ^ number.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut noise = Noise::new(mixed | 1);
        for _ in 0..8 {
            noise.next();
        }
        let turn = usize::try_from(number).unwrap_or_default() % kinds.len().max(1);
        let kind = kinds.get(turn).copied().unwrap_or(Kind::Cut);
        let mut one_of = |of: u64| noise.below(of) == 0;
        let direction = if kind == Kind::KillDaemon || one_of(2) { Direction::From } else { Direction::To };
        let protocol = if one_of(2) { Protocol::Serve } else { Protocol::Daemon };
        let transport = if kind == Kind::KillSsh || one_of(2) { "openssh" } else { "libssh2" };
        let by_daemon = kind == Kind::KillDaemon || (direction == Direction::From && one_of(3));
        let side = if one_of(2) { Side::Client } else { Side::Server };
        let data = if direction == Direction::To { Way::Up } else { Way::Down };
        let answers = if direction == Direction::To { Way::Down } else { Way::Up };
        let way = if kind != Kind::Cuts && one_of(4) { answers } else { data };
        let at_once = one_of(2);
        // The login and the first questions are a small part of the bytes, and a large one of all that can go wrong.
        let early = one_of(5);
        let point = Share(noise.below(if early { 1_500 } else { 1_000_000 }));
        let later = Duration::from_micros(if at_once { 0 } else { noise.below(30_000) });
        let near = if by_daemon { Near::Daemon } else { Near::Store };
        let is_ours = protocol == Protocol::Serve && noise.below(3) == 0;
        let far = if is_ours { Far::Ours } else { Far::Nix };
        let retries = kind == Kind::Cuts || noise.below(2) == 0;
        Self { kind, direction, protocol, transport, near, far, side, retries, way, point, later, noise }
    }
}

impl std::fmt::Display for Course {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let near = if self.near == Near::Daemon { " into the daemon" } else { "" };
        let far = if self.far == Far::Ours { " with ours" } else { "" };
        let retries = if self.retries { "" } else { " without retries" };
        write!(
            formatter,
            "{:11} {:6} {:6} {}{far}{near}{retries}",
            self.kind,
            self.direction.flag(),
            self.protocol.scheme(),
            self.transport
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_can_be_repeated_and_two_are_not_alike() {
        let draw = |seed, number| format!("{:?}", Course::draw(seed, number, &Kind::ALL));
        assert_eq!(draw(7, 20), draw(7, 20));
        assert_ne!(draw(7, 20), draw(8, 20));
        assert_ne!(draw(7, 20), draw(7, 33));
    }

    #[test]
    fn every_kind_is_drawn_in_turn_and_every_way() {
        let courses: Vec<_> = (0..200).map(|number| Course::draw(1, number, &Kind::ALL)).collect();
        for kind in Kind::value_variants() {
            let of_kind: Vec<_> = courses.iter().filter(|course| course.kind == *kind).collect();
            assert!(of_kind.len() >= 200 / Kind::ALL.len(), "{kind}");
            assert!(of_kind.iter().any(|course| course.way == Way::Up), "{kind}");
            assert!(of_kind.iter().any(|course| course.way == Way::Down), "{kind}");
            assert!(of_kind.iter().any(|course| course.protocol == Protocol::Serve), "{kind}");
            assert!(of_kind.iter().any(|course| course.protocol == Protocol::Daemon), "{kind}");
        }
    }
}
