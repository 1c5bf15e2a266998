//! The Nix archive format: encode, decode, list, pack and unpack
