//! Exit codes: what scripts can tell apart.

/// What the manual says about them.
pub(crate) const TABLE: &str = "\
Exit status:
  0    every path given is valid at the destination (no claim after --dry-run)
  1    an error, also of the command line; what was registered until then stays
  3    the host was not reached, or did not let us in
  4    with --keep-going: some paths could not be copied, all others were
  129, 130, 143
       ended by SIGHUP, SIGINT (Ctrl-C), SIGTERM

Environment:
  NIX_SSHOPTS    more options for ssh, split as a shell splits words; they win
  NIX_REMOTE     the local store, where --store does not say it
  NIX_CONFIG, NIX_CONF_DIR, NIX_USER_CONF_FILES
                 settings of Nix, as for Nix itself
  NIX_STORE_DIR  the logical store directory of the local store
  NIX_STATE_DIR  the state directory of the local store
  NO_COLOR       no colours";

/// All went well.
pub(crate) const SUCCESS: u8 = 0;
/// Any error that has no code of its own; also of the command line, as for Nix's own program.
pub(crate) const ERROR: u8 = 1;
/// The host was not reached.
pub(crate) const UNREACHED: u8 = 3;
/// Some paths were not copied, and the others were.
pub(crate) const PARTIAL: u8 = 4;
