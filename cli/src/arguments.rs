//! What was typed: one definition, from which help, manual page and completions are made too. What it means is in `intent`.

#![allow(clippy::struct_excessive_bools, reason = "they are switches of a command line")]

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    str::FromStr,
};

use clap::{
    ArgAction, Args, Command, CommandFactory as _, FromArgMatches as _, Parser,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
    error::{ContextKind, ContextValue, ErrorKind},
};
use clap_complete::Shell;
use ncc_progress::{ConsoleOptions, LogFormat, Patient, printable};
use ncc_remote_store::{Compress, Connections, STALL_TIMEOUT};
use ncc_settings::Flag;
use ncc_transport::{Rate, RateError};

use crate::{exit, route::Route, settings};

/// `--transport`. Both names are known to every build, so that one manual fits all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Ssh {
    /// The ssh program, with all of its configuration
    Openssh,
    /// The libssh2 library, for machines without an ssh program
    Libssh2,
}

impl Default for Ssh {
    fn default() -> Self {
        if cfg!(feature = "ssh") { Self::Openssh } else { Self::Libssh2 }
    }
}

/// What is made from the definition of the command line.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Document {
    Manual,
    Completions(Shell),
    Version { verbose: bool },
}

/// Copy the closures of store paths to or from another machine over SSH
///
/// Copies the closure of each given store path (the path and everything it refers to, directly or indirectly) between this
/// machine and HOST, and sends only what the receiving side lacks. The other machine needs Nix 2.3.7 or later, or this
/// program.
///
/// With '--from A --to B' it goes from one host to the other, through this machine, whose store has no part in it. Options that
/// are about HOST are for both then, unless the host says something else in a parameter of its own.
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
                      nix-copy-closure --from HOST --to HOST [OPTIONS] PATH...\n       \
                      nix-copy-closure copy [--from URL] [--to URL] ... (as 'nix copy')\n       \
                      nix-copy-closure --serve [--write] [--store URI]",
    after_long_help = exit::TABLE
)]
pub(crate) struct Arguments {
    // No doc comment: rustdoc would take the brackets for links.
    #[arg(
        value_name = "HOST",
        help = "The other machine: [user@]host[:port] or ssh://...; 'localhost' is reached without ssh"
    )]
    host: Option<String>,

    /// From where to where.
    #[arg(skip)]
    pub(crate) route: Route,

    /// Store paths, symlinks to them, or files inside them; @FILE reads paths from FILE, one per line
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<OsString>,

    /// Settings of Nix, with their values.
    #[arg(skip)]
    pub(crate) settings: Vec<(String, String)>,

    /// Options of Nix that are no settings.
    #[arg(skip)]
    pub(crate) flags: Vec<&'static Flag>,

    /// What only `nix copy` asks for.
    #[arg(skip)]
    pub(crate) nix_copy: NixCopy,

    #[command(flatten)]
    pub(crate) what: What,

    #[command(flatten)]
    pub(crate) how: How,

    #[command(flatten)]
    pub(crate) keep: Keep,

    #[command(flatten)]
    pub(crate) stores: Stores,

    #[command(flatten)]
    pub(crate) trust: Trust,

    #[command(flatten)]
    pub(crate) show: Output,

    #[command(flatten)]
    pub(crate) serving: Serving,

    #[command(flatten)]
    about: About,
}

/// What `nix copy` asks for and `nix-copy-closure` cannot. By default this is none.
#[derive(Debug, Default)]
pub(crate) struct NixCopy {
    /// This is a `nix copy`: the receiving store looks at signatures whoever asks, unless told otherwise, and paths on standard
    /// input may stand on one line.
    pub(crate) is_meant: bool,
    /// The paths alone.
    pub(crate) without_references: bool,
    /// Where no host is named: the URI of the store on this machine that they come from. `None` is the default store.
    pub(crate) source: Option<String>,
}

/// Which paths.
#[derive(Debug, Args)]
#[command(next_help_heading = "What to copy")]
pub(crate) struct What {
    /// Copy to HOST (the default)
    #[arg(long)]
    to: bool,

    /// Copy from HOST; with '--to' and another host, from one to the other
    #[arg(long)]
    from: bool,

    /// Also copy the valid outputs of every derivation in the closure
    #[arg(long)]
    pub(crate) include_outputs: bool,

    /// Also read paths from standard input, one per line
    #[arg(long)]
    pub(crate) stdin: bool,

    /// If some paths cannot be copied, copy all others, and exit with status 4
    #[arg(short, long, overrides_with = "no_keep_going")]
    keep_going: bool,

    /// Undo --keep-going
    #[arg(long, hide = true)]
    no_keep_going: bool,

    /// Print what would be copied, and change nothing on either machine
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}

impl What {
    /// Whether to go on after a failure, if the command line says so or denies it.
    pub(crate) fn keep_going(&self) -> Option<bool> {
        (self.keep_going || self.no_keep_going).then_some(self.keep_going)
    }
}

/// What is done with them there.
#[derive(Debug, Args)]
#[command(next_help_heading = "Keeping what was copied")]
pub(crate) struct Keep {
    /// Then make LINK, on the receiving side, a symlink to the path that keeps it from the garbage collector
    ///
    /// Nix makes it, as with 'nix-store --add-root'. For several paths there are LINK, LINK-2, LINK-3, in the order of the
    /// paths. On HOST, LINK is relative to the home directory.
    #[arg(long, value_name = "LINK", conflicts_with_all = ["serve", "profile"])]
    pub(crate) add_root: Option<String>,

    /// Then make the path, on the receiving side, the current generation of PROFILE
    ///
    /// Nix does it, as with 'nix-env --set'.
    #[arg(long, value_name = "PROFILE", conflicts_with = "serve")]
    pub(crate) profile: Option<String>,
}

impl Keep {
    pub(crate) fn is_given(&self) -> bool {
        self.add_root.is_some() || self.profile.is_some()
    }
}

/// By which means.
#[derive(Debug, Args)]
#[command(next_help_heading = "How to copy")]
pub(crate) struct How {
    /// Let the receiving side fetch what it can from its substituters first, and send the rest
    #[arg(short = 's', long, visible_alias = "substitute-on-destination")]
    pub(crate) use_substitutes: bool,

    /// Compress paths on their way: 'auto', 'none', 'gzip', 'zstd', or 'zstd:LEVEL' (1 to 19)
    ///
    /// The host needs nothing but its 'zstd' or 'gzip'. 'auto' compresses where the line is what the copy waits for, as hard as it
    /// leaves time for, and says with -v what it does and why; the others do it always. Up to 128 MiB of what came before are
    /// looked through for repetitions, which both sides keep in memory.
    #[arg(long, value_name = "METHOD", default_value = "auto", conflicts_with = "serve")]
    pub(crate) compress: Compress,

    /// Spread what is copied over up to N channels of the one login: 'auto', or 1 to 7; 1 is none beside the usual ones
    ///
    /// A channel has a window, about 2 MB with OpenSSH, and on a long line waits for it while the line is idle. 'auto' takes several
    /// where the host answers after 60 ms or more and 32 MiB or more are to be copied, as many as 1 Gbit/s needs, and says with -v
    /// what it does and why. The host needs nothing but its 'mkfifo' and 'dd'; where it has no room for so many channels, fewer do.
    #[arg(long, value_name = "N", default_value = "auto", conflicts_with = "serve")]
    pub(crate) connections: Connections,

    /// Use no more than RATE of the line, in each direction: KiB per second, or with a unit such as 'm' or 'MB', as with rsync;
    /// 0 is no limit
    #[arg(
        long,
        value_name = "RATE",
        conflicts_with = "serve",
        default_value = "0",
        hide_default_value = true
    )]
    pub(crate) bwlimit: Limit,

    /// Compress the SSH connection, as upstream's option does; --compress is better at it
    #[arg(long)]
    pub(crate) gzip: bool,

    #[arg(long, value_name = "NAME", value_enum, help = transport_help())]
    pub(crate) transport: Option<Ssh>,

    /// Give up when nothing has been transferred for this long; 0 waits forever
    ///
    /// Ends the copy with an error that says what it was waiting for, such as a lock that another process holds. There is no
    /// limit while the receiving side substitutes (--use-substitutes).
    #[arg(long, value_name = "SECONDS", default_value_t = STALL_TIMEOUT.as_secs())]
    pub(crate) stall_timeout: u64,

    /// When the connection is lost, connect again and send the rest; give up after N tries in a row that brought nothing
    ///
    /// It is waited before each try, longer each time, at most half a minute. A host that refuses is not tried again, nor one
    /// that could not be reached in the first place.
    #[arg(long, value_name = "N", default_value_t = 5, conflicts_with = "serve")]
    pub(crate) retries: u32,

    /// Begin although the disk of this machine seems to have no room for all that is fetched
    ///
    /// The sizes are those of the files. A file system that compresses them, or has some already, may have room all the same.
    #[arg(long, overrides_with = "check_space", conflicts_with = "serve")]
    pub(crate) no_check_space: bool,

    /// Undo --no-check-space
    #[arg(long, hide = true, conflicts_with = "serve")]
    check_space: bool,

    /// The same as --gzip, with a warning
    #[arg(long, hide = true)]
    pub(crate) bzip2: bool,

    /// The same as --gzip, with a warning
    #[arg(long, hide = true)]
    pub(crate) xz: bool,
}

/// How much of the line may be used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit(pub(crate) Option<Rate>);

impl FromStr for Limit {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        Ok(Self(if text == "0" { None } else { Some(text.parse()?) }))
    }
}

/// The default is known to the binary alone.
fn transport_help() -> String {
    let default = if Ssh::default() == Ssh::Openssh { "openssh" } else { "libssh2" };
    format!("SSH implementation to use [default: {default}]")
}

/// Between which stores.
#[derive(Debug, Args)]
#[command(next_help_heading = "Stores")]
pub(crate) struct Stores {
    /// The local store: a directory DIR (with its files in DIR/nix/store), 'local?root=DIR', 'local', or 'daemon'; with 'ssh://...',
    /// another host in its place
    #[arg(long, value_name = "URI")]
    pub(crate) store: Option<String>,

    /// The store on HOST, as 'nix-store --store' takes it there
    #[arg(long, value_name = "URI", conflicts_with = "serve")]
    pub(crate) remote_store: Option<String>,

    /// The program to run on HOST instead of 'nix-store', which otherwise is found automatically
    #[arg(long, value_name = "PROGRAM", conflicts_with = "serve")]
    pub(crate) remote_program: Option<String>,

    /// Run the program on HOST as root with 'sudo -n', which must not need a password
    #[arg(long, conflicts_with = "serve")]
    pub(crate) remote_sudo: bool,
}

/// Who vouches for what is copied.
#[derive(Debug, Args)]
#[command(next_help_heading = "Signatures")]
pub(crate) struct Trust {
    /// Sign each path on its way with the secret key in FILE; may be repeated
    ///
    /// The source keeps its paths as they are, and so do paths that the receiving side has already.
    #[arg(long, value_name = "FILE", conflicts_with = "serve")]
    pub(crate) sign_key: Vec<PathBuf>,

    /// Sign each path on its way with the keys in the setting 'secret-key-files'
    #[arg(long, conflicts_with = "serve")]
    pub(crate) sign: bool,

    /// Copy only paths that a key in this machine's 'trusted-public-keys' has signed, or that are content-addressed
    #[arg(long, overrides_with = "no_check_sigs", conflicts_with = "serve")]
    pub(crate) check_sigs: bool,

    /// Let the receiving side decide (the default), and try even what it is known to refuse
    #[arg(long, overrides_with = "check_sigs", conflicts_with = "serve")]
    pub(crate) no_check_sigs: bool,
}

/// What is said about it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct Output {
    /// Say more about what happens; repeat for details (from -vvvv on, ssh is verbose too)
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,

    /// Print errors and nothing else
    #[arg(long)]
    quiet: bool,

    /// Print everything (the same as -vvvvv)
    #[arg(long)]
    debug: bool,

    /// How to show progress: by default a bar on a terminal, one line per path elsewhere
    #[arg(long, value_name = "FORMAT", value_parser = log_formats())]
    log_format: Option<LogFormat>,

    /// Show a progress bar, which is the default on a terminal
    #[arg(long)]
    show_progress: bool,

    /// Print a report as one JSON object; with --dry-run, a report of what would be copied
    #[arg(long)]
    pub(crate) json: bool,

    /// Print what is copied as a tree, largest closures first (with --json, on standard error)
    #[arg(long)]
    pub(crate) tree: bool,

    /// Write what is copied as a graph to FILE, which ends in .svg or .dot
    #[arg(long, value_name = "FILE")]
    pub(crate) graph: Option<PathBuf>,
}

/// Nix's names for ways to show progress, with what each looks like.
fn log_formats() -> impl TypedValueParser<Value = LogFormat> {
    let values = LogFormat::ALL.map(|format| PossibleValue::new(format.name()).help(format.description()));
    PossibleValuesParser::new(values).try_map(|name| LogFormat::named(&name).ok_or("no such format"))
}

/// The other half of a copy.
#[derive(Debug, Args)]
#[command(next_help_heading = "Serving")]
pub(crate) struct Serving {
    /// Serve the store over standard input and output, as 'nix-store --serve' does
    ///
    /// With --write, a client that asks to substitute gets what the 'nix-store' on PATH can substitute; where there is
    /// none, a warning says so.
    #[arg(long, conflicts_with_all = ["to", "from"])]
    serve: bool,

    /// Allow the client of --serve to add paths
    #[arg(long, requires = "serve")]
    pub(crate) write: bool,
}

/// What is printed instead of doing anything.
#[derive(Debug, Args)]
#[command(next_help_heading = "About")]
struct About {
    /// Print help (with --help, more of it)
    #[arg(short, long, action = ArgAction::Help)]
    help: Option<bool>,

    /// Print the version (with -v, also the SSH implementations that are built in)
    #[arg(short = 'V', long)]
    version: bool,

    /// Print the completions for a shell
    #[arg(long, value_name = "SHELL", value_enum)]
    completions: Option<Shell>,

    /// Print the manual page
    #[arg(long)]
    manual: bool,
}

/// What the program is asked to do.
pub(crate) enum Task {
    Copy(Box<Arguments>),
    Serve(Box<Arguments>),
    Print(Document),
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

impl Arguments {
    /// Reads the command line. `Err` is for what is finished with that: help, or a usage error.
    pub(crate) fn read(words: impl IntoIterator<Item = OsString>) -> Result<Task, ExitCode> {
        Self::parse_from_words(words).map_err(|error| {
            // A closed stdout or stderr is no reason to complain.
            if error.use_stderr() {
                let _ = Patient::new(io::stderr()).write_all(usage_error(error).as_bytes());
                return exit::ERROR.into();
            }
            let _ = error.print();
            ExitCode::SUCCESS
        })
    }

    fn parse_from_words(words: impl IntoIterator<Item = OsString>) -> Result<Task, clap::Error> {
        let matches = definition().try_get_matches_from(words)?;
        let mut arguments = Self::from_arg_matches(&matches)?;
        let about = &arguments.about;
        if about.version {
            return Ok(Task::Print(Document::Version { verbose: arguments.verbosity() > 0 }));
        }
        if let Some(shell) = about.completions {
            return Ok(Task::Print(Document::Completions(shell)));
        }
        if about.manual {
            return Ok(Task::Print(Document::Manual));
        }
        arguments.flags = settings::flags(&matches);
        arguments.settings = settings::given(&matches);
        arguments.route = Route::read(&matches, arguments.host.as_ref(), &mut arguments.paths);
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

/// A usage error as text. It quotes words of the command line, which may hold anything.
fn usage_error(mut error: clap::Error) -> String {
    let text = |error: &clap::Error, kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    };
    if error.kind() == ErrorKind::UnknownArgument {
        let (given, guess) = (text(&error, ContextKind::InvalidArg), text(&error, ContextKind::SuggestedArg));
        if !is_near(&given, &guess) {
            error.remove(ContextKind::SuggestedArg);
        }
        // That it could be passed as a path.
        error.remove(ContextKind::Suggested);
    }
    let text = error.render().to_string();
    let lines: Vec<_> = text.lines().map(printable).collect();
    lines.join("\n") + "\n"
}

/// Whether somebody may have mistyped one for the other: a letter or two of many.
fn is_near(given: &str, guess: &str) -> bool {
    let (given, guess) = (given.trim_start_matches('-'), guess.trim_start_matches('-'));
    given.chars().count() > 2 && strsim::damerau_levenshtein(given, guess) <= 1 + given.chars().count() / 8
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
        assert_eq!(arguments.route, Route { from: None, to: Some("host".to_owned()) });
        assert_eq!(arguments.paths, ["/nix/store/a", "/nix/store/b"]);
        assert_eq!(arguments.verbosity(), 2);
        for words in [
            &["--to", "host", "--from", "./b"][..],
            &["--to", "--from", "host", "b"],
            &["--from", "a", "host", "--to", "--from"],
            &["host", "--to", "--from", "@list"],
        ] {
            let arguments = copy(words);
            assert_eq!((arguments.route.from.is_some(), arguments.route.to), (true, None), "{words:?}");
        }
    }

    #[test]
    fn two_hosts_stand_behind_their_options() {
        let (a, b) = ("ssh://a?remote-store=/x/y", "u@b:22");
        for words in [
            &["--from", a, "--to", b, "/nix/store/p", "q"][..],
            &["--to", b, "/nix/store/p", "--from", a, "q"],
            &["/nix/store/p", "--from", a, "q", "--to", b, "-v"],
            &["--from", "--to", b, "--from", a, "/nix/store/p", "q"],
        ] {
            let arguments = copy(words);
            assert_eq!(
                arguments.route,
                Route { from: Some(a.to_owned()), to: Some(b.to_owned()) },
                "{words:?}"
            );
            assert_eq!(arguments.paths, ["/nix/store/p", "q"], "{words:?}");
        }
    }

    #[test]
    fn guesses_are_near_or_not_made() {
        for (given, guess) in [("--dry-rum", "--dry-run"), ("--use-substitute", "--use-substitutes")] {
            assert!(is_near(given, guess), "{given} {guess}");
        }
        for (given, guess) in
            [("--no-such-check", "--no-use-cgroups"), ("-x", "-s"), ("--bogus", "--debug"), ("--q", "")]
        {
            assert!(!is_near(given, guess), "{given} {guess}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused_and_never_a_host() {
        for words in [&["--bogus", "host", "/p"][..], &["-oProxyCommand=x", "host"], &["", "/p"], &[]] {
            let words = ["x"].iter().chain(words).map(OsString::from);
            assert!(Arguments::parse_from_words(words).is_err());
        }
    }
}
