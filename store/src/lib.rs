//! The vocabulary of Nix stores: paths, hashes, path metadata, signatures, derivations, and what a store can do
