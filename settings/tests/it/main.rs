//! Against the real Nix of this machine, and the configurations that come with systems.

mod real;
mod stock;
