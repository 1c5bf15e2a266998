//! The command line: one definition, from which help, manual page and completions are made too.

#![allow(clippy::struct_excessive_bools, reason = "they are switches of a command line")]

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{
    ArgAction, Args, Command, CommandFactory as _, FromArgMatches as _, Parser,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
    error::ErrorKind,
};
use clap_complete::Shell;
use ncc_progress::{ConsoleOptions, LogFormat, Patient, printable};
use ncc_remote_store::STALL_TIMEOUT;
use ncc_settings::Flag;

use crate::{exit, settings};

/// `--transport`: whose SSH is spoken. Both names are known to every build, so that one manual fits all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Ssh {
    /// The program ssh, with all of its configuration
    Openssh,
    /// The library libssh2, where there is no such program
    Libssh2,
}

impl Default for Ssh {
    fn default() -> Self {
        if cfg!(feature = "ssh") { Self::Openssh } else { Self::Libssh2 }
    }
}

/// What the program is asked to do.
pub(crate) enum Task {
    Copy(Box<Arguments>),
    Serve(Box<Arguments>),
    Document(Document),
}

/// What is made from the definition of the command line.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Document {
    Manual,
    Completions(Shell),
}

impl Task {
    /// How the program speaks on standard error.
    pub(crate) fn console_options(&self) -> ConsoleOptions {
        let mut options = ConsoleOptions::default();
        if let Self::Copy(arguments) | Self::Serve(arguments) = self {
            let show = &arguments.show;
            options.format = show.log_format.or(show.show_progress.then_some(LogFormat::Bar));
            options.verbosity = arguments.verbosity();
            options.quiet = show.quiet;
        }
        options
    }
}

/// Copy the closure of store paths to or from another machine over SSH
///
/// Copies the closure of the given store paths (each path and everything it refers to, directly or not) between this
/// machine and HOST, sending only what the receiving side lacks. The other machine needs nothing but Nix 2.3.7 or
/// later, or this program.
#[derive(Debug, Parser)]
#[command(
    name = "nix-copy-closure",
    version,
    args_override_self = true,
    disable_help_flag = true,
    disable_version_flag = true,
    // The narrowest terminal that people use; no wider, since that reads worse.
    term_width = 80,
    override_usage = "nix-copy-closure [--to|--from] [OPTIONS] HOST PATH...\n       \
                      nix-copy-closure --serve [--write] [--store URI]",
    after_long_help = exit::TABLE
)]
pub(crate) struct Arguments {
    // No doc comment: rustdoc would take the brackets for links.
    #[arg(
        value_name = "HOST",
        help = "The other machine: [user@]host[:port], also as ssh://...; 'localhost' needs no ssh"
    )]
    pub(crate) host: Option<String>,

    /// Store paths, links to them, or anything below them; @FILE takes them from a file, one per line
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<OsString>,

    /// Settings of Nix, with their values.
    #[arg(skip)]
    pub(crate) settings: Vec<(String, String)>,

    /// Options of Nix that are no settings.
    #[arg(skip)]
    pub(crate) flags: Vec<&'static Flag>,

    #[command(flatten)]
    pub(crate) what: What,

    #[command(flatten)]
    pub(crate) how: How,

    #[command(flatten)]
    pub(crate) stores: Where,

    #[command(flatten)]
    pub(crate) show: Output,

    #[command(flatten)]
    pub(crate) serving: Serving,
}

/// Which paths.
#[derive(Debug, Args)]
#[command(next_help_heading = "What is copied")]
pub(crate) struct What {
    /// Copy to HOST (the default)
    #[arg(long, overrides_with = "from")]
    pub(crate) to: bool,

    /// Copy from HOST
    #[arg(long, overrides_with = "to")]
    pub(crate) from: bool,

    /// Also copy the outputs of derivations in the closure, as far as they are valid at the source
    #[arg(long)]
    pub(crate) include_outputs: bool,

    /// Take paths from standard input too, one per line
    #[arg(long)]
    pub(crate) stdin: bool,

    /// Copy all that can be copied, say what could not be, and exit with 4
    #[arg(short, long, overrides_with = "no_keep_going")]
    keep_going: bool,

    /// Undoes --keep-going
    #[arg(long, hide = true)]
    no_keep_going: bool,

    /// Say what would be copied, and change nothing anywhere
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}

/// By which means.
#[derive(Debug, Args)]
#[command(next_help_heading = "How it is copied")]
pub(crate) struct How {
    /// Let the receiving side get what it can from its binary caches first; the rest is sent
    #[arg(short = 's', long, visible_alias = "substitute-on-destination")]
    pub(crate) use_substitutes: bool,

    /// Compress the SSH connection
    #[arg(long)]
    pub(crate) gzip: bool,

    /// Whose SSH is spoken [default: openssh, if this program was built with it]
    #[arg(long, value_name = "NAME", value_enum)]
    pub(crate) transport: Option<Ssh>,

    /// End the connection when nothing has moved for so long; 0 waits for ever
    ///
    /// A host that hangs, or waits for a lock that nobody lets go of, ends the copy after this time with an error that says
    /// what was waited for. While the receiving side substitutes (--use-substitutes) there is no limit.
    #[arg(long, value_name = "SECONDS", default_value_t = STALL_TIMEOUT.as_secs())]
    pub(crate) stall_timeout: u64,

    /// The same as --gzip, with a warning
    #[arg(long, hide = true)]
    pub(crate) bzip2: bool,

    /// The same as --gzip, with a warning
    #[arg(long, hide = true)]
    pub(crate) xz: bool,
}

/// Between which stores.
#[derive(Debug, Args)]
#[command(next_help_heading = "Stores")]
pub(crate) struct Where {
    /// The local store: a directory (its files are in DIR/nix/store), 'local?root=DIR', or 'local'
    #[arg(long, value_name = "URI")]
    pub(crate) store: Option<String>,

    /// The store on HOST, as 'nix-store --store' takes it there: a directory, 'local?root=/mnt'
    #[arg(long, value_name = "URI", conflicts_with = "serve")]
    pub(crate) remote_store: Option<String>,

    /// The program to run on HOST in the place of 'nix-store', which is else found in the usual places
    #[arg(long, value_name = "PROGRAM", conflicts_with = "serve")]
    pub(crate) remote_program: Option<String>,

    /// Run the program on HOST as root, through 'sudo -n' (which must need no password)
    #[arg(long, conflicts_with = "serve")]
    pub(crate) remote_sudo: bool,
}

/// What is said about it.
#[derive(Debug, Args)]
#[command(next_help_heading = "What is shown")]
pub(crate) struct Output {
    /// Say more about what happens; repeat for details, from four times on those of ssh
    #[arg(short, long, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Say nothing but errors
    #[arg(long)]
    pub(crate) quiet: bool,

    /// Say everything (the same as -vvvvv)
    #[arg(long)]
    pub(crate) debug: bool,

    /// How progress is shown: a bar on a terminal, else a line per path
    #[arg(long, value_name = "FORMAT", value_parser = log_formats())]
    pub(crate) log_format: Option<LogFormat>,

    /// Show a progress bar, which is the default on a terminal
    #[arg(long)]
    pub(crate) show_progress: bool,

    /// Report on standard output, as one JSON object, what was done (with --dry-run: would be)
    #[arg(long)]
    pub(crate) json: bool,

    /// Draw what is copied as a tree, largest closures first
    #[arg(long)]
    pub(crate) tree: bool,

    /// Draw what is copied as a graph into FILE, which ends in .svg or .dot
    #[arg(long, value_name = "FILE")]
    pub(crate) graph: Option<PathBuf>,

    /// Print help (with --help: more of it)
    #[arg(short, long, action = ArgAction::Help, help_heading = "About")]
    help: Option<bool>,

    /// Print the version
    #[arg(short = 'V', long, action = ArgAction::Version, help_heading = "About")]
    version: Option<bool>,
}

/// Nix's names for ways to show progress, with what each looks like.
fn log_formats() -> impl TypedValueParser<Value = LogFormat> {
    let values = LogFormat::ALL.map(|format| PossibleValue::new(format.name()).help(format.description()));
    PossibleValuesParser::new(values).try_map(|name| LogFormat::named(&name).ok_or("no such format"))
}

/// Being the other side.
#[derive(Debug, Args)]
#[command(next_help_heading = "Being the other side")]
pub(crate) struct Serving {
    /// Serve a store over standard input and output, as 'nix-store --serve' does
    #[arg(long, conflicts_with_all = ["to", "from"])]
    pub(crate) serve: bool,

    /// Let the client of --serve add paths
    #[arg(long, requires = "serve")]
    pub(crate) write: bool,

    /// Print the completions for a shell, and do nothing else
    #[arg(long, value_name = "SHELL", value_enum, help_heading = "About")]
    pub(crate) completions: Option<Shell>,

    /// Print the manual page, and do nothing else
    #[arg(long, help_heading = "About")]
    pub(crate) manual: bool,
}

impl What {
    /// Whether to go on after a failure, if the command line says so or denies it.
    pub(crate) fn keep_going(&self) -> Option<bool> {
        (self.keep_going || self.no_keep_going).then_some(self.keep_going)
    }
}

impl How {
    /// `None`: for ever.
    pub(crate) fn stall_timeout(&self) -> Option<Duration> {
        (self.stall_timeout > 0).then(|| Duration::from_secs(self.stall_timeout))
    }
}

impl Arguments {
    /// Reads the command line. `Err` is for what is finished with that: help, the version, a usage error.
    pub(crate) fn read() -> Result<Task, ExitCode> {
        Self::parse_from_words(std::env::args_os()).map_err(|error| {
            // A closed stdout or stderr is no reason to complain.
            if error.use_stderr() {
                // It quotes words of the command line, which may hold anything.
                let text = error.render().to_string();
                let lines: Vec<_> = text.lines().map(printable).collect();
                let _ = Patient::new(io::stderr()).write_all((lines.join("\n") + "\n").as_bytes());
                return exit::ERROR.into();
            }
            let _ = error.print();
            ExitCode::SUCCESS
        })
    }

    fn parse_from_words(words: impl IntoIterator<Item = OsString>) -> Result<Task, clap::Error> {
        let matches = definition().try_get_matches_from(words)?;
        let mut arguments = Self::from_arg_matches(&matches)?;
        arguments.settings = settings::given(&matches);
        arguments.flags = settings::flags(&matches);
        if let Some(shell) = arguments.serving.completions {
            return Ok(Task::Document(Document::Completions(shell)));
        }
        if arguments.serving.manual {
            return Ok(Task::Document(Document::Manual));
        }
        let usage = |text| definition().error(ErrorKind::MissingRequiredArgument, text);
        match (arguments.serving.serve, &arguments.host) {
            (true, None) => Ok(Task::Serve(Box::new(arguments))),
            (true, Some(_)) => Err(usage("'--serve' takes no host and no paths")),
            // An empty word is no host for upstream, which then takes a path for one.
            (false, Some(host)) if host.is_empty() => Err(usage("the host name is empty")),
            (false, Some(_)) => Ok(Task::Copy(Box::new(arguments))),
            (false, None) => Err(usage("no host name specified")),
        }
    }

    /// How much is said: 0 is normal.
    pub(crate) fn verbosity(&self) -> u8 {
        if self.show.debug { 5 } else { self.show.verbose }
    }
}

/// What people are told of: for help, manual and completions.
pub(crate) fn shown() -> Command {
    settings::add_option(Arguments::command())
}

/// All that is understood.
fn definition() -> Command {
    settings::add_others(shown())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(words: &[&str]) -> Arguments {
        match Arguments::parse_from_words(["x"].iter().chain(words).map(OsString::from)) {
            Ok(Task::Copy(arguments)) => *arguments,
            Ok(_) => panic!("this is no copy"),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        definition().debug_assert();
    }

    #[test]
    fn options_may_stand_anywhere_and_the_last_direction_wins() {
        let arguments = copy(&["host", "--from", "/nix/store/a", "-vv", "--to", "/nix/store/b"]);
        assert_eq!(arguments.host.as_deref(), Some("host"));
        assert_eq!(arguments.paths, ["/nix/store/a", "/nix/store/b"]);
        assert_eq!((arguments.what.to, arguments.what.from, arguments.verbosity()), (true, false, 2));
    }

    #[test]
    fn every_option_of_upstreams_manual_is_taken() {
        let arguments = copy(&[
            "--to",
            "--gzip",
            "--include-outputs",
            "--use-substitutes",
            "-s",
            "-v",
            "--bzip2",
            "--xz",
            "--show-progress",
            "--dry-run",
            "--option",
            "sandbox",
            "false",
            "--option",
            "cores",
            "4",
            "-j",
            "3",
            "--max-jobs",
            "auto",
            "-k",
            "-K",
            "-Q",
            "--fallback",
            "--quiet",
            "--log-format",
            "internal-json",
            "--store",
            "local",
            "alice@host",
            "/p",
        ]);
        assert_eq!(arguments.host.as_deref(), Some("alice@host"));
        assert_eq!(arguments.paths, ["/p"]);
        assert!(arguments.how.gzip && arguments.what.include_outputs && arguments.how.use_substitutes);
        assert!(arguments.what.dry_run && arguments.what.keep_going);
    }

    #[test]
    fn what_is_not_known_is_refused_and_never_a_host() {
        for words in [&["--bogus", "host", "/p"][..], &["-oProxyCommand=x", "host"], &["", "/p"], &[]] {
            let words = ["x"].iter().chain(words).map(OsString::from);
            assert!(Arguments::parse_from_words(words).is_err());
        }
    }
}
