//! What to run on the other side, and how to talk about it.

use std::{sync::Arc, time::Duration};

use ncc_store::StoreDir;
use ncc_transport::{Account, Conversation, Input, LineSink, Program, RemoteCommand, RemoteScript};

use crate::{Compress, Connections};

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

/// The program that speaks the serve protocol.
pub(crate) const NIX_STORE: &str = "nix-store";

/// The program that speaks a daemon's.
pub(crate) const DAEMON: &str = "nix-daemon";

/// This program.
const OURS: &str = "nix-copy-closure";

/// What `nix-store --version` says where there is a serve protocol, which is not to be asked then: every Nix so far, and this
/// program. It may go (<https://github.com/NixOS/nix/pull/16185>).
const HAVE_SERVE: [&str; 5] =
    ["* 2.[0-9]", "* 2.[0-9].*", "* 2.[12][0-9]*", "* 2.3[0-6]*", "nix-copy-closure *"];

/// What `nix-store --serve` says where there is none.
pub(crate) const HAVE_NO_SERVE: [&str; 2] = ["--serve", "nix-daemon --stdio"];

/// What is spoken with a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Spoken {
    /// The serve protocol where there is one; else, or where an account lets only that pass, the daemon's.
    #[default]
    AsFound,
    /// The daemon's, with `nix-daemon --stdio`: what `ssh-ng://` means.
    Daemon,
}

/// Which program serves the store on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServeProgram {
    /// `nix-store`, or where that does not serve `nix-daemon`, from the host's `PATH` or the usual places, found within the start
    /// of the connection; and this program where there is no Nix.
    ///
    /// Where the host lets only the exact command `nix-store --serve --write` or `nix-daemon --stdio` pass (a forced command that
    /// looks at it), those are tried in a second connection.
    #[default]
    Search,
    /// This one, by name or path.
    Named(String),
    /// A program with arguments in front of those of the server, such as `env NAME=value nix-store`.
    Words(Vec<String>),
}

impl ServeProgram {
    /// How messages call it; one that is looked for has this name.
    pub(crate) fn name<'a>(&'a self, searched: &'a str) -> &'a str {
        match self {
            Self::Search => searched,
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

    /// A script that becomes it, to be made more of; the name and the places are for [`Search`](Self::Search). It says when it
    /// runs: an account that does not let it pass is told from a program that fails.
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

    /// The program `name` of the same Nix. One whose own name says nothing, perhaps a script around `nix-store`, is taken for that.
    pub(crate) fn beside(&self, name: &str) -> Self {
        let beside = |word: &String| match word.rsplit_once('/') {
            _ if name == NIX_STORE && !word.ends_with(DAEMON) => word.clone(),
            Some((directory, _)) => format!("{directory}/{name}"),
            None => name.to_owned(),
        };
        match self {
            Self::Search => Self::Search,
            Self::Named(word) => Self::Named(beside(word)),
            Self::Words(words) => {
                let mut words = words.clone();
                if let Some(last) = words.last_mut() {
                    *last = beside(last);
                }
                Self::Words(words)
            }
        }
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
    /// What is spoken.
    pub spoken: Spoken,
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
    /// A daemon takes only paths that are content-addressed or signed by a key that it trusts, also from a user whom it trusts.
    /// (From others it never takes anything else.)
    pub check_signatures: bool,
    /// Whether the login is known to be root's. A `nix-daemon --stdio` of Nix up to 2.19 that runs for somebody else stops for good
    /// over too many requests at once, and is asked less at a time.
    pub login_is_root: bool,
    /// Is handed each line that the host writes to stderr while the connection lasts.
    pub stderr: Option<LineSink>,
    /// Is called when a server has greeted: whoever logs in has been let in, and nothing is asked any more.
    pub greeted: Option<Arc<dyn Fn() + Send + Sync>>,
    /// How many sessions are opened for data beside the one for questions, over the same authenticated connection. With
    /// none, which is the default, there is one session for all.
    pub data_sessions: usize,
    /// Whether NARs are compressed on their way.
    pub compress: Compress,
    /// Over how many channels of the login the bulk of a transfer goes.
    pub connections: Connections,
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
            spoken: Spoken::default(),
            program: ServeProgram::default(),
            elevation: Elevation::default(),
            access: RemoteAccess::default(),
            store: None,
            store_dir: StoreDir::default(),
            check_signatures: false,
            login_is_root: false,
            stderr: None,
            greeted: None,
            data_sessions: 0,
            compress: Compress::None,
            connections: Connections::default(),
            line_is_slow: false,
            stall_timeout: Some(STALL_TIMEOUT),
        }
    }
}

impl std::fmt::Debug for ServeOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ServeOptions")
            .field("spoken", &self.spoken)
            .field("program", &self.program)
            .field("elevation", &self.elevation)
            .field("access", &self.access)
            .field("store", &self.store)
            .field("store_dir", &self.store_dir)
            .field("data_sessions", &self.data_sessions)
            .field("compress", &self.compress)
            .field("connections", &self.connections)
            .field("stall_timeout", &self.stall_timeout)
            .finish_non_exhaustive()
    }
}

impl ServeOptions {
    /// Starts a server of the serve protocol; or, where a search finds none, what else serves there.
    pub(crate) fn serve_command(&self, program: &ServeProgram) -> RemoteCommand {
        let arguments = self.serve_arguments();
        if *program != ServeProgram::Search {
            return program.command(NIX_STORE, Vec::new(), arguments, self.elevation, Input::Stdin);
        }
        let complaints = HAVE_NO_SERVE.map(|words| format!("*{words}*"));
        let nix_store = Program::new(NIX_STORE).places(places(NIX_STORE));
        let nix_daemon = Program::new(DAEMON).places(places(DAEMON)).must_run();
        RemoteScript::new()
            .find(nix_store.must_know("--serve", HAVE_SERVE, complaints))
            .run(NIX_STORE, arguments.clone())
            .or_run(nix_daemon, self.daemon_arguments(), Conversation::BeginsAnew)
            // This very program serves too, where there is no Nix at all.
            .or_run(Program::new(OURS).must_run(), arguments, Conversation::Continues)
            .account(self.elevation.account())
            .command()
    }

    /// Starts what speaks a daemon's protocol.
    pub(crate) fn daemon_command(&self, program: &ServeProgram) -> RemoteCommand {
        program.command(DAEMON, places(DAEMON), self.daemon_arguments(), self.elevation, Input::Stdin)
    }

    /// Whether what is started there is known to run as root.
    pub(crate) fn runs_as_root(&self) -> bool {
        self.login_is_root || self.elevation == Elevation::Sudo
    }

    /// Says what the host would substitute of the paths that it is given on stdin, one per line. `None` for this very
    /// program, which serves and substitutes nothing.
    pub(crate) fn foresight_command(&self) -> Option<RemoteCommand> {
        let arguments = [vec!["--realise", "--dry-run"], self.store_arguments()].concat();
        if self.program.name(NIX_STORE).rsplit('/').next() == Some(OURS) {
            return None;
        }
        // Thousands of paths do not fit into one command line.
        Some(self.program.command(NIX_STORE, places(NIX_STORE), arguments, self.elevation, Input::Arguments))
    }

    /// Lists the closure of the paths that it is given on stdin, one per line.
    pub(crate) fn requisites_command(&self) -> RemoteCommand {
        let arguments = [vec!["--query", "--requisites"], self.store_arguments()].concat();
        let program = self.program.beside(NIX_STORE);
        program.command(NIX_STORE, places(NIX_STORE), arguments, self.elevation, Input::Arguments)
    }

    /// What starts the server, to be made more of.
    pub(crate) fn script(&self) -> RemoteScript {
        self.program.script(NIX_STORE, server_places(), self.serve_arguments(), self.elevation)
    }

    pub(crate) fn serve_arguments(&self) -> Vec<&str> {
        let mut arguments = vec!["--serve"];
        if self.access == RemoteAccess::ReadWrite {
            arguments.push("--write");
        }
        arguments.extend(self.store_arguments());
        arguments
    }

    pub(crate) fn daemon_arguments(&self) -> Vec<&str> {
        [vec!["--stdio"], self.store_arguments()].concat()
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
        let serve = |options: &ServeOptions| {
            options.serve_command(&options.program).to_shell().into_string().unwrap()
        };
        let daemon = |options: &ServeOptions| {
            options.daemon_command(&options.program.beside(DAEMON)).to_shell().into_string().unwrap()
        };
        let mut options = ServeOptions { program, ..ServeOptions::default() };
        assert_eq!(serve(&options), "nix-store --serve --write");
        assert_eq!(daemon(&options), "nix-daemon --stdio");
        assert!(!options.runs_as_root());
        options.store = Some("local?root=/mnt".into());
        options.access = RemoteAccess::ReadOnly;
        options.elevation = Elevation::Sudo;
        assert_eq!(serve(&options), "sudo -n nix-store --serve --store 'local?root=/mnt'");
        assert_eq!(daemon(&options), "sudo -n nix-daemon --stdio --store 'local?root=/mnt'");
        assert!(options.runs_as_root());
        let script = options.script().command().to_shell().into_string().unwrap();
        assert!(script.starts_with("exec sh -c ") && script.contains("exec sudo -n "), "{script}");
        assert_eq!(
            options.foresight_command().unwrap().to_shell(),
            "xargs sudo -n nix-store --realise --dry-run --store 'local?root=/mnt'"
        );
        options.program = ServeProgram::Named("/opt/bin/nix-daemon".into());
        assert_eq!(
            options.requisites_command().to_shell(),
            "xargs sudo -n /opt/bin/nix-store --query --requisites --store 'local?root=/mnt'"
        );
        options.program = ServeProgram::Named("/opt/bin/nix-copy-closure".into());
        assert_eq!(options.foresight_command(), None);
        options.program = ServeProgram::Words(["env", "A=b c", "nix-store"].map(Into::into).into());
        options.elevation = Elevation::None;
        assert!(serve(&options).starts_with("env 'A=b c' nix-store --serve"));
    }
}
