//! Exit codes: what scripts can tell apart.

use ncc_transport::FailureClass;

/// What the manual says about them.
pub(crate) const TABLE: &str = "\
Exit status:
  0    every given path is valid at the destination (nothing is claimed after
       --dry-run)
  1    any other error, also a usage error; what has been registered stays
  3    the host was not reached: its name, the network, or ssh itself
  4    with --keep-going: some paths could not be copied, all others were
  5    it was refused: the host key, the login, the command, or paths without a
       signature that the receiving side trusts
  6    the connection was lost on the way, and not to be had again (--retries); the
       same command continues from there, and this is the only status for which a
       script should simply try again
  129, 130, 143
       as a shell reports it: killed by SIGHUP, SIGINT (Ctrl-C), SIGTERM

Environment:
  NIX_SSHOPTS    additional options for ssh, split as a shell splits words;
                 they take precedence. If set, even 'localhost' is reached over
                 ssh
  NIX_REMOTE     the local store, unless --store or nix.conf names it
  NIX_CONFIG, NIX_CONF_DIR, NIX_USER_CONF_FILES
                 settings of Nix, as in nix.conf
  NIX_STORE_DIR  the logical store directory of the local store
  NIX_STATE_DIR  the state directory of the local store
  NCC_NIX        Nix's own 'nix', which gets what 'nix copy' leaves to it; by
                 default the next one in PATH
  NCC_DISABLE    if set, and not to 0, all is left to Nix's own programs
  NO_COLOR       no colours";

/// All went well.
pub(crate) const SUCCESS: u8 = 0;
/// Any error that has no code of its own; also of the command line, as for Nix's own program.
pub(crate) const ERROR: u8 = 1;
/// The host was not reached.
pub(crate) const UNREACHED: u8 = 3;
/// Some paths were not copied, and the others were.
pub(crate) const PARTIAL: u8 = 4;
/// The host, or what this machine knows of it, refused.
pub(crate) const REFUSED: u8 = 5;
/// The connection was lost.
pub(crate) const LOST: u8 = 6;

/// The code of a failure to reach a host.
pub(crate) const fn of(class: FailureClass) -> u8 {
    match class {
        FailureClass::NotReached => UNREACHED,
        FailureClass::Refused => REFUSED,
        FailureClass::Lost => LOST,
    }
}
