//! Tests of the public interface, against golden files and, where there is one, real Nix.
#![cfg(unix)]
#![allow(clippy::print_stderr, clippy::print_stdout)]

mod codec;
mod disk;
mod golden;
mod listing;
mod malformed;
mod properties;
mod real;
mod tree;
