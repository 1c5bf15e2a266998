//! The list of cases. Each runs against every version.

mod copies;
mod failures;
mod flake;
mod grid;
mod interruptions;
mod options;
mod rights;
mod rounds;
mod serving;

use std::time::Duration;

use anyhow::Result;

use super::lab::{Direction, Lab, Protocol};
use crate::user::User;

/// What a case found.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Empty: passed.
    pub(crate) wrong: Vec<String>,
    /// Worth a column of the table: times, memory.
    pub(crate) note: String,
    /// Why it did not run.
    pub(crate) skipped: Option<String>,
}

impl Outcome {
    pub(crate) fn of(wrong: Vec<String>) -> Self {
        Self { wrong, ..Self::default() }
    }

    pub(crate) fn skip(why: &str) -> Self {
        Self { skipped: Some(why.to_owned()), ..Self::default() }
    }
}

/// When a case runs, beside by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Always,
    /// With `--slow`.
    Slow,
    /// Never: not every candidate can pass it.
    Named,
}

impl When {
    /// For the list of cases.
    pub(crate) const fn note(self) -> &'static str {
        match self {
            Self::Always => "",
            Self::Slow => " [--slow]",
            Self::Named => " [only by name]",
        }
    }
}

/// A named check of the candidate against one version.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) when: When,
    pub(crate) run: fn(&Lab<'_>) -> Result<Outcome>,
}

const fn case(name: &'static str, about: &'static str, run: fn(&Lab<'_>) -> Result<Outcome>) -> Case {
    Case { name, about, when: When::Always, run }
}

const fn slow(name: &'static str, about: &'static str, run: fn(&Lab<'_>) -> Result<Outcome>) -> Case {
    Case { name, about, when: When::Slow, run }
}

const fn named(name: &'static str, about: &'static str, run: fn(&Lab<'_>) -> Result<Outcome>) -> Case {
    Case { name, about, when: When::Named, run }
}

/// Every case, in the order they run.
pub(crate) const CASES: &[Case] = &[
    case(
        "to-mixed",
        "all kinds of objects, names, metadata; then the same again, which sends nothing",
        copies::to_mixed,
    ),
    case("from-mixed", "same, fetched into a new store, which Nix then goes on using", copies::from_mixed),
    case("to-derivation", "closure of a .drv", copies::to_derivation),
    case("from-derivation", "closure of a .drv, fetched", copies::from_derivation),
    case("to-partial", "the destination already has a part", copies::to_partial),
    case("from-partial", "this side already has a part", copies::from_partial),
    case("to-link", "roots given as a link and as a file below a store path", copies::to_link),
    case("to-host-port", "user@host:port, without -p", copies::to_host_port),
    case("to-noise", "the remote's login shell prints before the protocol starts", copies::to_noise),
    case("to-localhost", "localhost without ssh, --remote-store", copies::to_localhost),
    case("to-many-files", "one path of 10,000 files", copies::to_many_files),
    case("from-many-files", "one path of 10,000 files, fetched", copies::from_many_files),
    case("to-chain", "2,000 tiny paths, each referring to the one before", copies::to_chain),
    case("from-chain", "same, fetched", copies::from_chain),
    slow("to-huge", "a sparse file of more than 4 GiB", copies::to_huge),
    slow("from-huge", "same, fetched", copies::from_huge),
    named("inside-to", "the candidate, linked statically, runs on that Debian itself", copies::inside_to),
    named("inside-from", "same, fetching", copies::inside_from),
    case("include-outputs-to", "a .drv with the outputs that are valid", options::include_outputs_to),
    case("include-outputs-from", "same, fetched", options::include_outputs_from),
    case("between", "same, from one host to another, over either protocol", options::between),
    case(
        "substitute-to",
        "-s: the remote takes a part from a file:// cache, the rest is sent",
        options::substitute_to,
    ),
    case("dry-run-to", "--dry-run leaves the remote's database and store as they are", options::dry_run_to),
    case("dry-run-from", "same for this side", options::dry_run_from),
    case("gzip-to", "--gzip", options::gzip_to),
    case("compress-zstd-to", "--compress zstd", |lab| options::compressed(lab, Direction::To, "zstd")),
    case("compress-zstd-from", "--compress zstd, fetched", |lab| {
        options::compressed(lab, Direction::From, "zstd")
    }),
    case("compress-gzip-to", "--compress gzip", |lab| options::compressed(lab, Direction::To, "gzip")),
    case("compress-gzip-from", "--compress gzip, fetched", |lab| {
        options::compressed(lab, Direction::From, "gzip")
    }),
    case("connections-to", "--connections 7", |lab| options::spread(lab, Direction::To)),
    case("connections-from", "--connections 7, fetched", |lab| options::spread(lab, Direction::From)),
    case("url-parameters-to", "ssh://root@host:port?compress=true&ssh-key=...", options::url_parameters_to),
    case("keep-going-to", "--keep-going with a damaged path", options::keep_going_to),
    case("keep-going-from", "same, fetching", options::keep_going_from),
    case("every-option-to", "upstream's whole command line", options::every_option_to),
    case("sudo-to", "--remote-sudo", rights::sudo_to),
    case("to-serve-root", "as root, through `nix-store --serve`", |lab| {
        grid::field(lab, Direction::To, Protocol::Serve, User::Root)
    }),
    case(
        "to-serve-trusted",
        "as an ordinary user whom the daemon at either end trusts, through `nix-store --serve`",
        |lab| grid::field(lab, Direction::To, Protocol::Serve, User::Trusted),
    ),
    case(
        "to-serve-untrusted",
        "as one whom it does not trust: only what is signed, through `nix-store --serve`",
        |lab| grid::field(lab, Direction::To, Protocol::Serve, User::Untrusted),
    ),
    case("from-serve-root", "as root, through `nix-store --serve`, fetched", |lab| {
        grid::field(lab, Direction::From, Protocol::Serve, User::Root)
    }),
    case(
        "from-serve-trusted",
        "as an ordinary user whom the daemon at either end trusts, through `nix-store --serve`, fetched",
        |lab| grid::field(lab, Direction::From, Protocol::Serve, User::Trusted),
    ),
    case(
        "from-serve-untrusted",
        "as one whom it does not trust: only what is signed, through `nix-store --serve`, fetched",
        |lab| grid::field(lab, Direction::From, Protocol::Serve, User::Untrusted),
    ),
    case("to-daemon-root", "as root, through `nix-daemon --stdio`", |lab| {
        grid::field(lab, Direction::To, Protocol::Daemon, User::Root)
    }),
    case(
        "to-daemon-trusted",
        "as an ordinary user whom the daemon at either end trusts, through `nix-daemon --stdio`",
        |lab| grid::field(lab, Direction::To, Protocol::Daemon, User::Trusted),
    ),
    case(
        "to-daemon-untrusted",
        "as one whom it does not trust: only what is signed, through `nix-daemon --stdio`",
        |lab| grid::field(lab, Direction::To, Protocol::Daemon, User::Untrusted),
    ),
    case("from-daemon-root", "as root, through `nix-daemon --stdio`, fetched", |lab| {
        grid::field(lab, Direction::From, Protocol::Daemon, User::Root)
    }),
    case(
        "from-daemon-trusted",
        "as an ordinary user whom the daemon at either end trusts, through `nix-daemon --stdio`, fetched",
        |lab| grid::field(lab, Direction::From, Protocol::Daemon, User::Trusted),
    ),
    case(
        "from-daemon-untrusted",
        "as one whom it does not trust: only what is signed, through `nix-daemon --stdio`, fetched",
        |lab| grid::field(lab, Direction::From, Protocol::Daemon, User::Untrusted),
    ),
    case("to-daemon-wide", "1,001 paths to an ordinary user, through `nix-daemon --stdio`", |lab| {
        grid::wide(lab, Direction::To)
    }),
    case("from-daemon-wide", "same, fetched", |lab| grid::wide(lab, Direction::From)),
    case(
        "unsigned-to",
        "1,001 paths without signatures to a user who is not trusted; then --sign-key",
        grid::unsigned,
    ),
    case("daemon-alone", "a remote without `nix-store --serve`, and not a word about it", grid::daemon_alone),
    case(
        "include-outputs-daemon",
        "a .drv with its outputs, fetched through `nix-daemon --stdio`",
        grid::outputs,
    ),
    case(
        "read-only-mount-from",
        "a store that is mounted read-only, as on NixOS",
        rights::read_only_mount_from,
    ),
    case("serve-to", "upstream's client copies to our server", serving::to),
    case("serve-from", "upstream's client copies from our server", serving::from),
    case("serve-chain", "upstream's client copies 2,000 paths to our server", serving::chain),
    case("serve-read-only", "our server without --write takes nothing", serving::read_only),
    case(
        "round-server",
        "there twice at once and back: upstream's `nix copy` names our server and a store in a folder",
        rounds::server,
    ),
    case(
        "round-client",
        "same with our client and upstream's server: ssh://host?remote-program=...&remote-store=...",
        rounds::client,
    ),
    case(
        "flake",
        "our flake, overlay and modules in the flake of a system, evaluated and built",
        flake::flake,
    ),
    case("bad-argument", "an argument outside the store", failures::bad_argument),
    case("invalid-path-to", "a store path that is not valid here", failures::invalid_path_to),
    case("invalid-path-from", "a store path that is not valid there", failures::invalid_path_from),
    case("connection-refused", "nobody listens", failures::connection_refused),
    case("no-nix-store", "a remote without nix-store", failures::no_nix_store),
    case("wrong-version", "a remote that speaks version 3.0", failures::wrong_version),
    case("truncated-to", "the remote's input is cut", failures::truncated_to),
    case("truncated-from", "the remote's output is cut", failures::truncated_from),
    case("disk-full-to", "the remote's store is full", failures::disk_full_to),
    case("disk-full-from", "this store is full", failures::disk_full_from),
    case("unwritable-to", "the remote's store cannot be written", failures::unwritable_to),
    case("unwritable-from", "this store cannot be written", failures::unwritable_from),
    case("corrupt-to", "a local file changed, same length", failures::corrupt_to),
    case("corrupt-to-longer", "a local file grew", failures::corrupt_to_longer),
    case("corrupt-to-shorter", "a local file shrank", failures::corrupt_to_shorter),
    case("corrupt-to-missing", "a registered local path is gone", failures::corrupt_to_missing),
    case("corrupt-from", "a remote file changed, same length", failures::corrupt_from),
    case("corrupt-from-longer", "a remote file grew", failures::corrupt_from_longer),
    case("corrupt-from-missing", "a registered remote path is gone", failures::corrupt_from_missing),
    case("kill-client-to", "kill -9 of the client in the middle, then again", interruptions::kill_client_to),
    case("kill-client-from", "same, fetching", interruptions::kill_client_from),
    case("interrupt-to", "Ctrl-C in the middle, then again", interruptions::interrupt_to),
    case("interrupt-from", "same, fetching", interruptions::interrupt_from),
    case(
        "kill-server-to",
        "kill -9 of the remote's nix-store in the middle, then again",
        interruptions::kill_server_to,
    ),
    case("kill-server-from", "same, fetching", interruptions::kill_server_from),
    case("gc-from", "Nix collects garbage in our store all the while", interruptions::gc_from),
];

/// "1.23 s, 45 MB".
pub(crate) fn measure(took: Duration, peak: u64) -> String {
    format!("{:.2} s, {} MB", took.as_secs_f64(), peak >> 20)
}
