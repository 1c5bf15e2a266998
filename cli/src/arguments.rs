//! The command line.

use std::{ffi::OsString, process::ExitCode};

use clap::{ArgAction, CommandFactory as _, Parser, error::ErrorKind};

/// What the program is asked to do.
pub(crate) enum Task {
    Copy(Arguments),
    Serve(Arguments),
}

impl Task {
    pub(crate) fn verbosity(&self) -> u8 {
        match self {
            Self::Copy(arguments) | Self::Serve(arguments) => arguments.verbose,
        }
    }
}

/// Copy the closure of store paths (each path and everything it refers to) to or from another machine over SSH.
///
/// Only what the receiving side lacks is sent. The other machine needs nothing but Nix 2.3.7 or later (or this
/// program).
#[derive(Debug, Parser)]
#[command(
    name = "nix-copy-closure",
    version,
    override_usage = "nix-copy-closure [--to|--from] [OPTIONS] HOST PATH...\n       \
                      nix-copy-closure --serve [--write] [--store URI]",
    after_help = "Environment: NIX_SSHOPTS holds further options for ssh, split as a shell splits words.\n\
                  NIX_REMOTE names the local store where --store does not; NIX_STORE_DIR and NIX_STATE_DIR move it."
)]
pub(crate) struct Arguments {
    /// Copy to HOST (the default)
    #[arg(long, overrides_with = "from")]
    pub(crate) to: bool,

    /// Copy from HOST
    #[arg(long, overrides_with = "to")]
    pub(crate) from: bool,

    /// Say more about what happens; repeat for details
    #[arg(short, long, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// The local store: a directory (files in DIR/nix/store), 'local?root=DIR', or 'local'
    #[arg(long, value_name = "URI")]
    pub(crate) store: Option<String>,

    /// The store on HOST, as its 'nix-store --store' takes it: 'local?root=/mnt' or a directory
    #[arg(long, value_name = "URI", conflicts_with = "serve")]
    pub(crate) remote_store: Option<String>,

    /// The program to run on HOST instead of 'nix-store'; '--serve --write' is added
    #[arg(long, value_name = "PROGRAM", conflicts_with = "serve")]
    pub(crate) remote_program: Option<String>,

    /// Serve the store over standard input and output, as 'nix-store --serve' does
    #[arg(long, conflicts_with_all = ["to", "from"])]
    pub(crate) serve: bool,

    /// Let the client of --serve add paths
    #[arg(long, requires = "serve")]
    pub(crate) write: bool,

    /// The other machine: [user@]host[:port]; 'localhost' needs no ssh
    #[arg(value_name = "HOST")]
    pub(crate) host: Option<String>,

    /// Store paths, links to them, or anything below them
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<OsString>,
}

impl Arguments {
    /// Reads the command line. `Err` is for what is finished with that: help, the version, a usage error (1, as
    /// upstream).
    pub(crate) fn read() -> Result<Task, ExitCode> {
        let arguments = Self::try_parse().and_then(|arguments| {
            let usage = |text| Self::command().error(ErrorKind::MissingRequiredArgument, text);
            match (arguments.serve, &arguments.host) {
                (true, None) => Ok(Task::Serve(arguments)),
                (true, Some(_)) => Err(usage("'--serve' takes no host and no paths")),
                (false, Some(_)) => Ok(Task::Copy(arguments)),
                (false, None) => Err(usage("no host name specified")),
            }
        });
        arguments.map_err(|error| {
            // A closed stdout is no reason to complain.
            let _ = error.print();
            ExitCode::from(u8::from(error.use_stderr()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn options_may_stand_anywhere_and_the_last_direction_wins() {
        let arguments =
            Arguments::try_parse_from(["x", "host", "--from", "/nix/store/a", "-vv", "--to", "/nix/store/b"])
                .unwrap();
        assert_eq!(arguments.host.as_deref(), Some("host"));
        assert_eq!(arguments.paths, ["/nix/store/a", "/nix/store/b"]);
        assert_eq!((arguments.to, arguments.from, arguments.verbose), (true, false, 2));
    }
}
