//! A Nix store on this disk: database, locks, temporary roots, canonical files, registration
