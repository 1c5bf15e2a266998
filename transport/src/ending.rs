//! How the other end ended, from everything that is known.

use crate::{Client, Connector, Exit, Failure, FailureKind, Target, Transport};

/// All that is known when a command on a host has ended.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct End<'a> {
    /// How the process at this end of the connection ended.
    pub exit: &'a Exit,
    /// Whether the program at the other end had greeted: it ran, and it is not the login that failed. Of a program that never
    /// greets, a caller says here whether it is known to have run.
    pub greeted: bool,
    /// All that came on stderr.
    pub stderr: &'a str,
    /// Of that, what came since something of ours ran at the other end, if it is known that it did: a
    /// [`RemoteScript`](crate::RemoteScript) says so by itself. See
    /// [`StderrTail::since_start`](crate::StderrTail::since_start).
    pub since_start: Option<&'a str>,
    /// Whether something came on stdout that was no greeting: a login shell that complains there, a forced command.
    pub said_on_stdout: bool,
    /// Whether what was run is known to say when it starts, as a [`RemoteScript`](crate::RemoteScript) does. If it does not, an end
    /// without a word may be its own.
    pub marks_start: bool,
}

impl<'a> End<'a> {
    /// An end of which is known how the process ended, whether the program had greeted, and what came on stderr.
    pub fn new(exit: &'a Exit, greeted: bool, stderr: &'a str) -> Self {
        Self { exit, greeted, stderr, since_start: None, said_on_stdout: false, marks_start: true }
    }

    /// With whether something came on stdout that was no greeting.
    #[must_use]
    pub fn said_on_stdout(mut self, said: bool) -> Self {
        self.said_on_stdout = said;
        self
    }

    /// With what came since something of ours ran at the other end.
    #[must_use]
    pub fn since_start(mut self, text: Option<&'a str>) -> Self {
        self.since_start = text;
        self
    }

    /// The same of a command that does not say when it starts: a program by its name.
    #[must_use]
    pub fn without_mark(mut self) -> Self {
        self.marks_start = false;
        self
    }

    /// Whether something of ours ran at the other end: the login is over then.
    pub fn has_started(&self) -> bool {
        self.greeted || self.since_start.is_some()
    }

    /// The part of stderr that can hold the reason.
    pub fn relevant(&self) -> &'a str {
        self.since_start.unwrap_or(self.stderr)
    }
}

/// Why a program at the other end ended before it had done its work. Made by [`Ending::of`], in this order of trust: the exit
/// status, whether the program had greeted, what the transport itself says, what was said at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// The host was not reached, refused us, or was lost.
    Transport(Failure),
    /// There is no such program on the host.
    NotFound {
        /// What was said about it there; may be empty.
        said: String,
    },
    /// The program is there and cannot be run: a library is missing, it is for another processor, it may not be executed.
    CannotRun {
        /// What was said about it there; may be empty.
        said: String,
    },
    /// It ended, and something was said that can be the reason.
    Said(String),
    /// It ended, and nobody said why; the exit says how.
    Unexplained,
}

impl Ending {
    /// Finds out why `program`, which was started over `transport`, ended.
    ///
    /// ```
    /// use ncc_transport::{End, Ending, Exit, LocalProcess};
    ///
    /// let loader = "nix-store: error while loading shared libraries: libx.so.1: cannot open shared object file\n";
    /// let ending = Ending::of(&LocalProcess::new(), &End::new(&Exit::Code(127), false, loader), "nix-store");
    /// assert!(matches!(ending, Ending::CannotRun { .. }));
    /// ```
    pub fn of(transport: &dyn Transport, end: &End<'_>, program: &str) -> Self {
        match transport.explain(end) {
            Some(failure) => Self::Transport(failure),
            None => Self::said(&transport.words_of_the_host(end.relevant()), end, program),
        }
    }

    /// The same of a service that was reached through a [`Connector`].
    pub fn of_service(connector: &dyn Connector, end: &End<'_>, program: &str) -> Self {
        match connector.explain(end) {
            Some(failure) => Self::Transport(failure),
            None => Self::said(&connector.words_of_the_host(end.relevant()), end, program),
        }
    }

    /// By what was said at the other end.
    fn said(said: &str, end: &End<'_>, program: &str) -> Self {
        let said = said.trim();
        match end.exit {
            Exit::Code(127) if !end.greeted && says_not_found(said, program) => {
                Self::NotFound { said: said.to_owned() }
            }
            Exit::Code(126 | 127) if !end.greeted && (said.is_empty() || says_cannot_run(said)) => {
                Self::CannotRun { said: said.to_owned() }
            }
            _ if said.is_empty() => Self::Unexplained,
            _ => Self::Said(said.to_owned()),
        }
    }
}

/// Whether the words that came with status 127 are a shell's about a program that does not exist. Shells speak many languages, but
/// they name the program.
fn says_not_found(said: &str, program: &str) -> bool {
    let lower = said.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if said.is_empty() || has(&["command not found", "unknown command", ": not found"]) {
        return !says_cannot_run(said);
    }
    let name = program.rsplit('/').next().unwrap_or(program);
    let is_about_it = said.contains(name) && said.lines().count() == 1;
    is_about_it
        && !says_cannot_run(said)
        && !has(&["error:", "refused", "denied", "allowed", "permitted", "forbidden"])
}

/// Whether they are the loader's, or a shell's about a file that the system cannot run.
fn says_cannot_run(said: &str) -> bool {
    [
        ": cannot be run: ",
        "shared librar",
        "shared object",
        "symbol lookup error",
        "relocation error",
        "Library not loaded",
        "GLIBC",
        "cannot execute",
        "bad interpreter",
        "Exec format error",
        "ermission denied",
    ]
    .iter()
    .any(|words| said.contains(words))
}

/// For transports that log in: a login shell that ended without running anything of ours and without a word, which its start-up
/// files do, or an account without a shell. `words` is what was said there, notices of the transport left out.
pub fn login_shell_ended(target: &Target, end: &End<'_>, words: &str, client: Client) -> Option<Failure> {
    let ended = matches!(end.exit, Exit::Code(code) if !matches!(code, 126 | 127));
    if !end.marks_start || end.has_started() || !ended || end.said_on_stdout || !words.trim().is_empty() {
        return None;
    }
    let kind = FailureKind::LoginShellEnded;
    Some(Failure::new(kind, format!("{} without a word", end.exit), kind.hint(target, client)))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::LocalProcess;

    const LOADER: &str = "nix-store: error while loading shared libraries: libx.so.1: cannot open shared object file: \
                          No such file or directory";

    #[derive(Debug, PartialEq)]
    enum Expected {
        NotFound,
        CannotRun,
        Said,
        Unexplained,
    }

    #[rstest]
    #[case::no_word(127, "", Expected::NotFound)]
    #[case::bash(127, "bash: line 1: nix-store: command not found", Expected::NotFound)]
    #[case::dash(127, "sh: 1: nix-store: not found", Expected::NotFound)]
    #[case::fish(127, "fish: Unknown command: nix-store", Expected::NotFound)]
    #[case::tcsh(127, "nix-store: Command not found.", Expected::NotFound)]
    #[case::german(127, "bash: Zeile 1: nix-store: Kommando nicht gefunden.", Expected::NotFound)]
    #[case::ours(127, "nix-store: command not found; looked for: nix-store", Expected::NotFound)]
    // https://github.com/NixOS/nix/issues/8608
    #[case::nix_8608_loader(127, LOADER, Expected::CannotRun)]
    #[case::none_of_them_runs(
        126,
        "nix-store: cannot be run: /a/nix-store ends with status 127: x",
        Expected::CannotRun
    )]
    #[case::no_interpreter(
        127,
        "bash: /a/nix-store: cannot execute: required file not found",
        Expected::CannotRun
    )]
    #[case::other_processor(
        126,
        "sh: /a/nix-store: cannot execute binary file: Exec format error",
        Expected::CannotRun
    )]
    #[case::not_executable(126, "/a/nix-store: permission denied\nPermission denied", Expected::CannotRun)]
    // https://github.com/NixOS/nixpkgs/pull/413627
    #[case::nixpkgs_413627_forced_command(127, "refused", Expected::Said)]
    #[case::forced_command_names_it(127, "nix-store --serve is not allowed", Expected::Said)]
    #[case::forced_command_126(126, "refused", Expected::Said)]
    #[case::no_daemon(1, "error: cannot connect to daemon", Expected::Said)]
    #[case::no_reason(1, "\n", Expected::Unexplained)]
    fn before_the_greeting(#[case] code: i32, #[case] said: &str, #[case] expected: Expected) {
        let exit = Exit::Code(code);
        let ending = Ending::of(&LocalProcess::new(), &End::new(&exit, false, said), "/a/nix-store");
        let (kind, words) = match &ending {
            Ending::NotFound { said } => (Expected::NotFound, said.as_str()),
            Ending::CannotRun { said } => (Expected::CannotRun, said.as_str()),
            Ending::Said(said) => (Expected::Said, said.as_str()),
            Ending::Unexplained => (Expected::Unexplained, ""),
            Ending::Transport(failure) => panic!("{failure:?}"),
        };
        assert_eq!((kind, words), (expected, said.trim()));
    }

    #[test]
    fn what_was_said_before_the_program_ran_is_not_its_reason() {
        let exit = Exit::Signal("KILL".to_owned());
        let end = End::new(&exit, true, "*** authorised use only\n").since_start(Some(""));
        assert_eq!(Ending::of(&LocalProcess::new(), &end, "nix-store"), Ending::Unexplained);
        // A program that has greeted was found, whatever its status is.
        let exit = Exit::Code(127);
        let end = End::new(&exit, true, "sh: 1: gzip: not found\n");
        assert_eq!(
            Ending::of(&LocalProcess::new(), &end, "nix-store"),
            Ending::Said("sh: 1: gzip: not found".to_owned())
        );
    }
}
