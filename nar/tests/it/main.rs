//! Tests of the public interface, against golden files and, where there is one, real Nix.
#![allow(clippy::print_stderr)]

mod codec;
mod disk;
mod golden;
mod listing;
mod malformed;
mod properties;
mod real;
mod tree;
