//! The transport that spawns OpenSSH
