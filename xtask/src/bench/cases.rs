//! What is measured.

use std::time::Duration;

use crate::relay::Line;
use crate::roots::Release;

/// Tiny paths of the full closure: 2,000 and the one that refers to the last.
pub(super) const TINY: usize = 2_001;

/// Paths of the wide closure: more than any system has, fewer than a store of years.
pub(super) const WIDE: usize = 100_000;

/// What a case copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Content {
    /// The first so many of the tiny paths, each referring to the one before; `None`: as many as `--paths` says.
    Tiny(Option<usize>),
    /// As many tiny paths, all but one of which refer to nothing.
    Flat(Option<usize>),
    Big,
    ManyFiles,
    Realistic,
    /// 100,000 tiny paths with some references each.
    Wide,
    /// Packages of Debian, one to a path, with the references that their dependencies are.
    Packages(Build),
}

/// Which build of the packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Build {
    /// Those of a release.
    Of(Release),
    /// The same once more: other hashes of the paths, which stand in their files, and nothing else.
    Again(Release),
}

/// What of it the destination has before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum There {
    Nothing,
    AllButTheRoot,
    All,
    /// This build of the packages, of which another is copied.
    Earlier(Build),
}

pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) content: Content,
    pub(super) there: There,
    /// `None`: straight to sshd.
    pub(super) line: Option<Line>,
    /// Whether upstream takes its turn.
    pub(super) upstream: bool,
    /// Whether the daemon's protocol has its rows too.
    pub(super) daemon: bool,
    /// Whether those take their turns too who are only asked for otherwise: all that people copy closures with.
    pub(super) everybody: bool,
    pub(super) pairs: usize,
}

/// Half of the round trip each way.
const fn milliseconds(round_trip: u64, rate: Option<u32>) -> Line {
    Line { delay: Duration::from_micros(round_trip * 500), rate }
}

pub(super) const CASES: &[Case] = &[
    Case {
        name: "chain-50ms",
        about: "--paths tiny paths over a line with 50 ms round trip",
        content: Content::Tiny(None),
        there: There::Nothing,
        line: Some(milliseconds(50, None)),
        upstream: true,
        daemon: true,
        everybody: false,
        pairs: 1,
    },
    Case {
        name: "chain-50ms-full",
        about: "2,001 tiny paths over the same line, ours alone",
        content: Content::Tiny(Some(TINY)),
        there: There::Nothing,
        line: Some(milliseconds(50, None)),
        upstream: false,
        // One wait for each level of the graph, which chain-50ms shows as well.
        daemon: false,
        everybody: false,
        pairs: 3,
    },
    Case {
        name: "flat-50ms",
        about: "--paths tiny paths, one of which refers to all others, over the same line",
        content: Content::Flat(None),
        there: There::Nothing,
        line: Some(milliseconds(50, None)),
        upstream: true,
        daemon: true,
        everybody: false,
        pairs: 1,
    },
    Case {
        name: "flat-50ms-full",
        about: "2,001 of these, ours alone",
        content: Content::Flat(Some(TINY)),
        there: There::Nothing,
        line: Some(milliseconds(50, None)),
        upstream: false,
        daemon: true,
        everybody: false,
        pairs: 3,
    },
    Case {
        name: "line-100ms-100mbit",
        about: "300 paths, 100 MiB, over 100 ms round trip and 100 Mbit/s",
        content: Content::Realistic,
        there: There::Nothing,
        line: Some(milliseconds(100, Some(12_500_000))),
        upstream: true,
        daemon: true,
        everybody: false,
        pairs: 1,
    },
    Case {
        name: "line-100ms-big",
        about: "one file of --big MiB over 100 ms round trip, as fast as windows let it; ours alone",
        content: Content::Big,
        there: There::Nothing,
        line: Some(milliseconds(100, None)),
        upstream: false,
        daemon: true,
        everybody: false,
        pairs: 1,
    },
    Case {
        name: "loopback-tiny",
        about: "2,001 tiny paths, no line",
        content: Content::Tiny(Some(TINY)),
        there: There::Nothing,
        line: None,
        upstream: true,
        daemon: true,
        everybody: false,
        pairs: 5,
    },
    Case {
        name: "loopback-big",
        about: "one file of --big MiB, no line",
        content: Content::Big,
        there: There::Nothing,
        line: None,
        upstream: true,
        daemon: true,
        everybody: false,
        pairs: 3,
    },
    Case {
        name: "many-files",
        about: "one path of 10,000 small files, no line",
        content: Content::ManyFiles,
        there: There::Nothing,
        line: None,
        upstream: true,
        daemon: true,
        everybody: false,
        pairs: 5,
    },
    Case {
        name: "realistic",
        about: "300 paths, 100 MiB, no line",
        content: Content::Realistic,
        there: There::Nothing,
        line: None,
        upstream: true,
        daemon: true,
        everybody: false,
        pairs: 3,
    },
    Case {
        name: "nothing-to-do-50ms",
        about: "100,000 paths that are all there, over 50 ms round trip",
        content: Content::Wide,
        there: There::All,
        line: Some(milliseconds(50, None)),
        upstream: true,
        daemon: true,
        everybody: false,
        pairs: 3,
    },
    Case {
        name: "one-new-50ms",
        about: "100,000 paths of which only the root is missing, over 50 ms round trip",
        content: Content::Wide,
        there: There::AllButTheRoot,
        line: Some(milliseconds(50, None)),
        upstream: true,
        daemon: true,
        everybody: false,
        pairs: 3,
    },
    Case {
        name: "line-100ms-1gbit",
        about: "one file of --big MiB over 100 ms round trip and 1 Gbit/s",
        content: Content::Big,
        there: There::Nothing,
        line: Some(milliseconds(100, Some(125_000_000))),
        upstream: true,
        daemon: true,
        everybody: false,
        pairs: 1,
    },
    Case {
        name: "packages",
        about: "packages of Debian 13, no line",
        content: Content::Packages(Build::Of(Release::Trixie)),
        there: There::Nothing,
        line: None,
        upstream: true,
        daemon: true,
        everybody: true,
        pairs: 3,
    },
    Case {
        name: "packages-50ms-100mbit",
        about: "the same over 50 ms round trip and 100 Mbit/s",
        content: Content::Packages(Build::Of(Release::Trixie)),
        there: There::Nothing,
        line: Some(milliseconds(50, Some(12_500_000))),
        upstream: true,
        daemon: true,
        everybody: true,
        pairs: 1,
    },
    Case {
        name: "rebuilt-50ms-100mbit",
        about: "the same rebuilt, the build before on both sides, same line",
        content: Content::Packages(Build::Again(Release::Trixie)),
        there: There::Earlier(Build::Of(Release::Trixie)),
        line: Some(milliseconds(50, Some(12_500_000))),
        upstream: true,
        daemon: true,
        everybody: true,
        pairs: 1,
    },
    Case {
        name: "update-50ms-100mbit",
        about: "the same packages of Debian 14, those of Debian 13 on both sides, same line",
        content: Content::Packages(Build::Of(Release::Forky)),
        there: There::Earlier(Build::Of(Release::Trixie)),
        line: Some(milliseconds(50, Some(12_500_000))),
        upstream: true,
        daemon: true,
        everybody: true,
        pairs: 1,
    },
    Case {
        name: "packages-20ms-10mbit",
        about: "packages of Debian 13 over 20 ms round trip and 10 Mbit/s",
        content: Content::Packages(Build::Of(Release::Trixie)),
        there: There::Nothing,
        line: Some(milliseconds(20, Some(1_250_000))),
        upstream: true,
        daemon: true,
        everybody: true,
        pairs: 1,
    },
    Case {
        name: "chain-600ms-1mbit",
        about: "2,001 tiny paths, as a satellite has it: 600 ms round trip and 1 Mbit/s; ours alone",
        content: Content::Tiny(Some(TINY)),
        there: There::Nothing,
        line: Some(milliseconds(600, Some(125_000))),
        upstream: false,
        daemon: true,
        everybody: false,
        pairs: 1,
    },
];
