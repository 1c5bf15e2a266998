//! The whole command as a black box: arguments in; exit code, stdout and stderr out, word for word.
//!
//! Most of it needs no Nix, no ssh and no network: `localhost`, with this very program as the server. What needs a real
//! sshd says so loudly where there is none, and fails with `NCC_REQUIRE_REAL=1`. Real Nix is in `cargo xtask interop`.

#![allow(clippy::tests_outside_test_module, reason = "this whole program is tests")]

mod arguments;
mod between;
#[cfg(feature = "ssh")]
mod callers;
mod choosing;
#[cfg(feature = "ssh")]
mod classes;
mod collectors;
mod compress;
mod conformance;
mod connections;
mod copies;
mod daemons;
mod documents;
mod dry_run;
mod durability;
mod endings;
mod face;
mod foresight;
mod kept;
#[cfg(feature = "ssh")]
mod master;
mod pictures;
mod relay;
mod retrying;
mod roots;
mod rows;
mod scarce;
mod settings;
mod signals;
mod silence;
mod space;
mod ssh;
mod streams;
mod substitutes;
mod support;
mod terminal;
mod transports;
mod trust;
mod tty;
mod unreached;
