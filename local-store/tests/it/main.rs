//! The store from outside: against itself, against other processes, and against real Nix.

#![allow(clippy::print_stderr, reason = "what was left out is said aloud")]
#![allow(clippy::cloned_ref_to_slice_refs, reason = "a list of one path reads better as a list")]

mod adding;
mod conformance;
mod databases;
mod derivations;
mod foreign;
mod locking;
mod mounts;
mod optimising;
mod processes;
mod real_nix;
mod support;
