//! How a daemon is reached, and how to talk about it.

use std::{sync::Arc, time::Duration};

use ncc_store::StoreDir;
use ncc_transport::{Input, LineSink, RemoteCommand};

use crate::{Elevation, STALL_TIMEOUT, ServeProgram, options::places};

/// The program as it is looked for.
const NAME: &str = "nix-daemon";

/// What speaks the daemon's protocol on a host: `nix-daemon --stdio`, and how it is started.
///
/// ```
/// use ncc_remote_store::{DaemonProgram, ServeProgram};
///
/// let mut program = DaemonProgram::default();
/// program.program = ServeProgram::Named("/opt/nix/bin/nix-daemon".into());
/// program.store = Some("/mnt".into());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DaemonProgram {
    /// The program; a search looks for `nix-daemon`.
    pub program: ServeProgram,
    /// As whom it runs.
    pub elevation: Elevation,
    /// `--store URI` for the other side; `None` is its default store.
    pub store: Option<String>,
    /// Whether the login is known to be root's. A program of Nix up to 2.19 that runs for somebody else stops for good over too many
    /// requests at once, and is asked less at a time.
    pub login_is_root: bool,
}

impl DaemonProgram {
    /// How messages call it.
    pub(super) fn name(&self) -> &str {
        match &self.program {
            ServeProgram::Search => NAME,
            named => named.name(),
        }
    }

    /// The command that is tried first.
    pub(super) fn command(&self) -> RemoteCommand {
        self.program.command(NAME, places(NAME), self.arguments(), self.elevation, Input::Stdin)
    }

    /// What is tried where the host did not let the first one pass.
    pub(super) fn second_command(&self) -> RemoteCommand {
        self.program.second_command(NAME, self.arguments(), self.elevation)
    }

    pub(super) fn runs_as_root(&self) -> bool {
        self.login_is_root || self.elevation == Elevation::Sudo
    }

    fn arguments(&self) -> Vec<&str> {
        let mut arguments = vec!["--stdio"];
        if let Some(uri) = &self.store {
            arguments.extend(["--store", uri]);
        }
        arguments
    }
}

/// What does not depend on how a daemon is reached. Fields may be added.
#[derive(Clone)]
#[non_exhaustive]
pub struct DaemonOptions {
    /// The logical store directory, which both sides must share.
    pub store_dir: StoreDir,
    /// Is handed each line that the daemon, or what leads to it, says for people.
    pub stderr: Option<LineSink>,
    /// Is called when the handshake is done: nothing is asked any more.
    pub greeted: Option<Arc<dyn Fn() + Send + Sync>>,
    /// The daemon takes only paths that are content-addressed or signed by a key that it trusts, also from a user whom it
    /// trusts. (From others it never takes anything else.)
    pub check_signatures: bool,
    /// As [`ServeOptions::stall_timeout`](crate::ServeOptions::stall_timeout).
    pub stall_timeout: Option<Duration>,
}

impl Default for DaemonOptions {
    fn default() -> Self {
        Self {
            store_dir: StoreDir::default(),
            stderr: None,
            greeted: None,
            check_signatures: false,
            stall_timeout: Some(STALL_TIMEOUT),
        }
    }
}

impl std::fmt::Debug for DaemonOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("DaemonOptions")
            .field("store_dir", &self.store_dir)
            .field("stall_timeout", &self.stall_timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_program_is_started_as_upstream_does() {
        let program = ServeProgram::Named("nix-daemon".into());
        let mut program = DaemonProgram { program, ..DaemonProgram::default() };
        assert_eq!(program.command().to_shell(), "nix-daemon --stdio");
        assert!(!program.runs_as_root());
        program.store = Some("local?root=/mnt".into());
        program.elevation = Elevation::Sudo;
        assert_eq!(program.command().to_shell(), "sudo -n nix-daemon --stdio --store 'local?root=/mnt'");
        assert!(program.runs_as_root());
    }

    #[test]
    fn a_search_has_the_plain_command_to_fall_back_to() {
        let program = DaemonProgram::default();
        let script = program.command().to_shell().to_string_lossy().into_owned();
        assert!(script.starts_with("exec sh -c ") && script.contains("nix-daemon"), "{script}");
        assert!(!script.contains("nix-store"), "{script}");
        assert_eq!(program.second_command().to_shell(), "nix-daemon --stdio");
    }
}
