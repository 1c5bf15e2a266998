//! What to run on the other side, and how to talk about it.

use std::{sync::Arc, time::Duration};

use ncc_store::StoreDir;
use ncc_transport::{Account, Input, LineSink, Program, RemoteCommand, RemoteScript};

use crate::Compress;

/// Where a host may have its Nix, beside the `PATH` of a shell that is not a login shell: the profiles of the user, of the
/// system, and of NixOS.
const DIRECTORIES: [&str; 6] = [
    "~/.nix-profile/bin",
    "~/.local/state/nix/profile/bin",
    "/etc/profiles/per-user/%u/bin",
    "/nix/var/nix/profiles/default/bin",
    "/run/current-system/sw/bin",
    "/usr/local/bin",
];

/// Where a host may have this program of Nix, or another one that a profile may hold.
pub(crate) fn places(name: &str) -> Vec<String> {
    let fixed = DIRECTORIES.iter().map(|directory| format!("{directory}/{name}"));
    std::iter::once(name.to_owned()).chain(fixed).collect()
}

/// This program.
const OURS: &str = "nix-copy-closure";

/// Which program serves the store on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServeProgram {
    /// `nix-store`, from the host's `PATH` or the usual places, found within the start of the connection.
    ///
    /// Where the host lets only the exact command `nix-store --serve --write` pass (a forced command that looks at it),
    /// that is tried in a second connection.
    #[default]
    Search,
    /// This one, by name or path.
    Named(String),
    /// A program with arguments in front of those of the server, such as `env NAME=value nix-store`.
    Words(Vec<String>),
}

impl ServeProgram {
    /// How messages call it.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Search => "nix-store",
            Self::Named(name) => name,
            Self::Words(words) => words.first().map_or("", String::as_str),
        }
    }

    /// Starts it; the name and the places are for [`Search`](Self::Search).
    pub(crate) fn command(
        &self,
        name: &str,
        places: Vec<String>,
        arguments: Vec<&str>,
        elevation: Elevation,
        input: Input,
    ) -> RemoteCommand {
        let words = match self {
            Self::Search => {
                return self.script(name, places, arguments, elevation).input(input).command();
            }
            Self::Named(program) => vec![program.as_str()],
            Self::Words(words) => words.iter().map(String::as_str).collect(),
        };
        let sudo: &[&str] = if elevation == Elevation::Sudo { &["sudo", "-n"] } else { &[] };
        let xargs: &[&str] = if input == Input::Arguments { &["xargs"] } else { &[] };
        let words = [xargs, sudo, &words, &arguments].concat();
        let (program, arguments) = words.split_first().map_or(("", &[][..]), |(first, rest)| (*first, rest));
        RemoteCommand::new(program).args(arguments)
    }

    /// What is tried where an account may not have let the first command pass: the plain one for a script, which is what a forced
    /// command may look for; and a script for one that was named, which says when it runs.
    pub(crate) fn second_command(
        &self,
        name: &str,
        arguments: Vec<&str>,
        elevation: Elevation,
    ) -> RemoteCommand {
        match self {
            Self::Search => {
                Self::Named(name.to_owned()).command(name, Vec::new(), arguments, elevation, Input::Stdin)
            }
            named => named.script(name, Vec::new(), arguments, elevation).command(),
        }
    }

    /// A script that becomes it, to be made more of; the name and the places are for [`Search`](Self::Search).
    pub(crate) fn script(
        &self,
        name: &str,
        places: Vec<String>,
        arguments: Vec<&str>,
        elevation: Elevation,
    ) -> RemoteScript {
        let words = match self {
            Self::Search => {
                let program = Program::new(name).places(places).must_run();
                return RemoteScript::new().find(program).run(name, arguments).account(elevation.account());
            }
            Self::Named(program) => std::slice::from_ref(program),
            Self::Words(words) => words,
        };
        let (program, more) = words.split_first().map_or(("", &[][..]), |(first, rest)| (first, rest));
        let arguments = more.iter().map(String::as_str).chain(arguments);
        RemoteScript::new().run(program, arguments).account(elevation.account())
    }
}

/// Where a host may have a server.
fn server_places() -> Vec<String> {
    let mut places = places("nix-store");
    // This very program serves too, where there is no Nix at all.
    places.push(OURS.to_owned());
    places
}

/// As whom the server runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Elevation {
    /// As the user who logs in.
    #[default]
    None,
    /// As root through `sudo -n`, which never asks for a password: there is no terminal to ask on.
    Sudo,
}

impl Elevation {
    const fn account(self) -> Account {
        match self {
            Self::None => Account::LoginUser,
            Self::Sudo => Account::Sudo,
        }
    }
}

/// Whether the server may change its store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RemoteAccess {
    /// `--serve --write`. A source needs it too, to protect its paths from the garbage collector.
    #[default]
    ReadWrite,
    /// `--serve`: nothing at all can change there.
    ReadOnly,
}

/// How long a host may be silent unless it is said otherwise. Nix waits half as long for a binary cache; a host may have to
/// write a large path to a slow disk, or wait for another process that works on the same path.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// How to start the server on the host. Fields may be added.
#[derive(Clone)]
#[non_exhaustive]
pub struct ServeOptions {
    /// The program.
    pub program: ServeProgram,
    /// As whom it runs.
    pub elevation: Elevation,
    /// What it may do.
    pub access: RemoteAccess,
    /// `--store URI` for the other side; `None` is its default store.
    pub store: Option<String>,
    /// The logical store directory, which both sides must share.
    pub store_dir: StoreDir,
    /// Is handed each line that the host writes to stderr while the connection lasts.
    pub stderr: Option<LineSink>,
    /// Is called when a server has greeted: whoever logs in has been let in, and nothing is asked any more.
    pub greeted: Option<Arc<dyn Fn() + Send + Sync>>,
    /// How many sessions are opened for data beside the one for questions, over the same authenticated connection. With
    /// none, which is the default, there is one session for all.
    pub data_sessions: usize,
    /// Whether NARs are compressed on their way.
    pub compress: Compress,
    /// The line is known to be slow, however short it seems.
    pub line_is_slow: bool,
    /// A connection over which nothing moves for this long, while something is waited for, fails; [`STALL_TIMEOUT`] by
    /// default, `None` waits for ever. A host that was asked to substitute is always waited for: it is silent while it
    /// downloads.
    pub stall_timeout: Option<Duration>,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            program: ServeProgram::default(),
            elevation: Elevation::default(),
            access: RemoteAccess::default(),
            store: None,
            store_dir: StoreDir::default(),
            stderr: None,
            greeted: None,
            data_sessions: 0,
            compress: Compress::None,
            line_is_slow: false,
            stall_timeout: Some(STALL_TIMEOUT),
        }
    }
}

impl std::fmt::Debug for ServeOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ServeOptions")
            .field("program", &self.program)
            .field("elevation", &self.elevation)
            .field("access", &self.access)
            .field("store", &self.store)
            .field("store_dir", &self.store_dir)
            .field("data_sessions", &self.data_sessions)
            .field("compress", &self.compress)
            .field("stall_timeout", &self.stall_timeout)
            .finish_non_exhaustive()
    }
}

impl ServeOptions {
    /// The command that is tried first.
    pub(crate) fn command(&self) -> RemoteCommand {
        self.program.command("nix-store", server_places(), self.arguments(), self.elevation, Input::Stdin)
    }

    /// Says what the host would substitute of the paths that it is given on stdin, one per line. `None` for this very
    /// program, which serves and substitutes nothing.
    pub(crate) fn foresight_command(&self) -> Option<RemoteCommand> {
        let arguments = [vec!["--realise", "--dry-run"], self.store_arguments()].concat();
        if self.program.name().rsplit('/').next() == Some(OURS) {
            return None;
        }
        // Thousands of paths do not fit into one command line.
        Some(self.program.command(
            "nix-store",
            places("nix-store"),
            arguments,
            self.elevation,
            Input::Arguments,
        ))
    }

    /// What is tried where the host did not let the first one pass.
    pub(crate) fn second_command(&self) -> RemoteCommand {
        self.program.second_command("nix-store", self.arguments(), self.elevation)
    }

    /// What starts the server, to be made more of.
    pub(crate) fn script(&self) -> RemoteScript {
        self.program.script("nix-store", server_places(), self.arguments(), self.elevation)
    }

    fn arguments(&self) -> Vec<&str> {
        let mut arguments = vec!["--serve"];
        if self.access == RemoteAccess::ReadWrite {
            arguments.push("--write");
        }
        arguments.extend(self.store_arguments());
        arguments
    }

    fn store_arguments(&self) -> Vec<&str> {
        self.store.as_ref().map_or_else(Vec::new, |uri| vec!["--store", uri])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_program_is_started_as_upstream_does() {
        let program = ServeProgram::Named("nix-store".into());
        let mut options = ServeOptions { program, ..ServeOptions::default() };
        assert_eq!(options.command().to_shell(), "nix-store --serve --write");
        options.store = Some("local?root=/mnt".into());
        options.access = RemoteAccess::ReadOnly;
        options.elevation = Elevation::Sudo;
        assert_eq!(options.command().to_shell(), "sudo -n nix-store --serve --store 'local?root=/mnt'");
        let second = options.second_command().to_shell().to_string_lossy().into_owned();
        assert!(second.starts_with("exec sh -c ") && second.contains("exec sudo -n "), "{second}");
        assert_eq!(
            options.foresight_command().unwrap().to_shell(),
            "xargs sudo -n nix-store --realise --dry-run --store 'local?root=/mnt'"
        );
        options.program = ServeProgram::Named("/opt/bin/nix-copy-closure".into());
        assert_eq!(options.foresight_command(), None);
        options.program = ServeProgram::Words(["env", "A=b c", "nix-store"].map(Into::into).into());
        options.elevation = Elevation::None;
        assert!(options.command().to_shell().to_string_lossy().starts_with("env 'A=b c' nix-store --serve"));
    }

    #[test]
    fn a_search_has_the_plain_command_to_fall_back_to() {
        let options = ServeOptions::default();
        assert!(options.command().to_shell().to_string_lossy().starts_with("exec sh -c "));
        assert_eq!(options.second_command().to_shell(), "nix-store --serve --write");
    }
}
