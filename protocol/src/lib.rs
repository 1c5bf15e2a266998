//! Codecs and connections of the Nix serve protocol, over any duplex byte stream
