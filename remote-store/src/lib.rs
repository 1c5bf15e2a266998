//! A Nix store behind a transport, spoken to with everything pipelined
