//! Why a host did not do its part, from all that is known: the stream, the exit, and what stands on stderr.

use std::{sync::Arc, time::Duration};

use ncc_protocol::{
    ProtocolError,
    worker::{DaemonError, Refusal},
};
use ncc_store::Retry;
use ncc_transport::{Ending, Exit, Failure, FailureKind, TransportError};

/// What went wrong with a host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// The program that reaches hosts could not be started, or the connection not be made.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The host was not reached, or was lost.
    #[error("{failure}: {evidence}", evidence = failure.evidence)]
    Unreached {
        /// What happened and what can be done.
        failure: Failure,
        /// All that came on stderr.
        stderr: String,
    },
    /// There is no such program on the host.
    #[error("'{program}' was not found there{}", quoted(stderr))]
    ProgramNotFound {
        /// The program.
        program: String,
        /// All that came on stderr.
        stderr: String,
    },
    /// Nothing there speaks either protocol.
    #[error("there is no server there: {why}")]
    NoServer {
        /// What there is instead, or what became of it.
        why: String,
    },
    /// The server ended, with a reason on stderr.
    #[error("{}", reason(stderr))]
    Ended {
        /// How it ended.
        exit: Exit,
        /// All that came on stderr.
        stderr: String,
    },
    /// The stream ended and nobody said why.
    #[error("the connection ended without a reason ({exit})")]
    Lost {
        /// How the process at this end of the connection ended.
        exit: Exit,
        /// What was being read.
        #[source]
        source: ProtocolError,
    },
    /// Nothing of ours ran there, neither by a script nor by the plain command: the account runs certain commands only, or
    /// none.
    #[error("it runs neither of the commands that start a server")]
    NotAllowed {
        /// How the first one ended.
        source: Arc<RemoteError>,
    },
    /// It hangs: the line is alive, and nothing came over it, nor went, for too long.
    #[error("nothing was heard from it for {} s, so the connection was ended{}", limit.as_secs(), quoted(stderr))]
    Silent {
        /// For how long it was waited.
        limit: Duration,
        /// Whether it had greeted before: else it is a login shell, or whatever runs in its place, that hangs.
        greeted: bool,
        /// All that came on stderr.
        stderr: String,
        /// What was waited for.
        #[source]
        source: ProtocolError,
    },
    /// A session failed, one direction of which was compressed, or spread over several channels.
    #[error("the connection that was {what} failed")]
    Filtered {
        /// Which of these it was: `compressed with zstd`.
        what: String,
        /// How.
        source: Arc<RemoteError>,
    },
    /// A daemon refused what it was asked.
    #[error(transparent)]
    Refused(DaemonError),
    /// It does not speak the protocol as it should.
    #[error("it does not speak the protocol of a Nix store as it should{}", quoted(stderr))]
    Protocol {
        /// All that came on stderr.
        stderr: String,
        /// What was wrong.
        #[source]
        source: ProtocolError,
    },
    /// The metadata of a path has no size of its NAR, so that nobody knows where it ends.
    #[error("nothing says how large it is")]
    NoSize,
    /// The store was closed.
    #[error("the connection to it has been closed")]
    Closed,
}

impl RemoteError {
    /// What the host could not do in the place of what it was to be asked, if it came to no question.
    pub(crate) fn failed_before_any_question(&self) -> Option<&'static str> {
        match self {
            Self::Transport(_) => Some("be reached"),
            Self::Unreached { failure, .. } if failure.kind != FailureKind::ConnectionLost => {
                Some("be reached")
            }
            Self::ProgramNotFound { .. }
            | Self::NoServer { .. }
            | Self::NotAllowed { .. }
            | Self::Silent { greeted: false, .. } => Some("start a server"),
            _ => None,
        }
    }

    /// Whether it is about the one path that was under way: the server ended by itself and said why, while it had that path in
    /// hand.
    pub(crate) fn is_about_the_path(&self) -> bool {
        match self {
            Self::Ended { stderr, .. } => {
                !says_that_the_line_broke(stderr) && !says_that_there_is_no_room(stderr)
            }
            Self::Refused(_) => !self.is_about_the_store(),
            Self::NoSize => true,
            _ => false,
        }
    }

    /// Whether the one path that was under way lacks a signature, and nothing else is wrong with it.
    pub(crate) fn is_unsigned(&self) -> bool {
        match self {
            Self::Ended { stderr, .. } => {
                let reason = reason(stderr);
                reason.contains("lacks a") && reason.contains("signature")
            }
            Self::Refused(error) => error.refusal() == Refusal::LacksSignature,
            _ => false,
        }
    }

    /// Whether no other path will fare better.
    pub(crate) fn is_about_the_store(&self) -> bool {
        match self {
            Self::Ended { stderr, .. } => says_that_there_is_no_room(stderr),
            Self::Refused(error) => {
                error.refusal() == Refusal::NotPrivileged || says_that_there_is_no_room(&error.message)
            }
            _ => false,
        }
    }

    /// Whether a new connection may fare better: a line was lost, or ended without a reason.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unreached { failure, .. } | Self::Transport(TransportError::Connect { failure, .. }) => {
                match failure.kind {
                    FailureKind::ConnectionLost | FailureKind::ClosedByServer => Retry::Worthwhile,
                    // Also a name that is not known: that of a VPN that is down.
                    _ if failure.is_of_the_network() => Retry::OnceReached,
                    _ => Retry::Useless,
                }
            }
            Self::Ended { stderr, .. } if says_that_the_line_broke(stderr) => Retry::Worthwhile,
            // Perhaps only because of the filter, and the next one has none.
            Self::Lost { .. } | Self::Filtered { .. } => Retry::Worthwhile,
            // A daemon that is being restarted.
            Self::Transport(TransportError::Socket { .. }) => Retry::OnceReached,
            _ => Retry::Useless,
        }
    }

    /// Whether the server ended by itself and said why: no filter is to blame.
    pub(crate) fn is_the_servers_own(&self) -> bool {
        match self {
            Self::Ended { exit, stderr } => {
                !exit.is_success() && has_error(stderr) && !says_that_the_line_broke(stderr)
            }
            Self::Protocol { .. } | Self::Lost { .. } => false,
            _ => true,
        }
    }

    /// All that came on stderr, where it was kept.
    pub fn stderr(&self) -> &str {
        match self {
            Self::Unreached { stderr, .. }
            | Self::ProgramNotFound { stderr, .. }
            | Self::Ended { stderr, .. }
            | Self::Silent { stderr, .. }
            | Self::Protocol { stderr, .. } => stderr,
            Self::NotAllowed { source } | Self::Filtered { source, .. } => source.stderr(),
            _ => "",
        }
    }
}

/// Whether the reason that a server gives is that *its* connection to us broke: Nix's words from 2.3 to 2.34, and ours.
fn says_that_the_line_broke(stderr: &str) -> bool {
    const WORDS: [&str; 5] = [
        "Broken pipe",
        "unexpected EOF",
        "unexpected end-of-file",
        "could not write to the client",
        "the stream ended while",
    ];
    let reason = reason(stderr);
    WORDS.iter().any(|words| reason.contains(words))
}

/// Whether the reason that a server gives is that there is no room for anything, on the disk or among open files: the system's
/// words, and SQLite's.
pub(crate) fn says_that_there_is_no_room(stderr: &str) -> bool {
    let reason = reason(stderr);
    ["No space left on device", "disk is full", "Disk quota exceeded", "Too many open files"]
        .iter()
        .any(|words| reason.contains(words))
}

fn quoted(stderr: &str) -> String {
    match stderr.trim() {
        "" => String::new(),
        text => format!("; it said: {}", shortened(last_lines(text))),
    }
}

/// Whether there is a line with an error as Nix writes it.
fn has_error(stderr: &str) -> bool {
    stderr.lines().any(|line| line.starts_with("error:"))
}

/// The part of a server's stderr that says why it ended: from the last line that begins with "error" on, or the last
/// lines. Nix prints its errors last, over several lines where it has a trace.
pub(crate) fn reason(stderr: &str) -> String {
    let text = stderr.trim();
    let start = text
        .match_indices("error:")
        .map(|(at, _)| at)
        .filter(|&at| at == 0 || text.as_bytes().get(at - 1) == Some(&b'\n'))
        .last();
    let error = start.and_then(|start| text.get(start..)).map(|error| {
        let lines = error.strip_prefix("error:").unwrap_or(error).lines();
        lines.map(str::trim).filter(|line| !matches!(*line, "" | "…")).collect::<Vec<_>>().join(" ")
    });
    shortened(error.filter(|error| !error.is_empty()).unwrap_or_else(|| last_lines(text)))
}

/// How much of a host's words one message repeats. All of them are in [`RemoteError::stderr`].
const QUOTED: usize = 2000;

fn shortened(mut text: String) -> String {
    if text.len() > QUOTED {
        // floor_char_boundary is newer than rust-version.
        let end = (0..=QUOTED).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or_default());
        text.push('…');
    }
    text
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let from = lines.len().saturating_sub(3);
    lines.get(from..).unwrap_or_default().join(" / ")
}

/// What a script says of a program that does not know what it is needed for.
const DOES_NOT_KNOW: &str = " does not know --";

/// Everything known of a session that failed, made into the error that helps most.
pub(crate) struct Ended {
    pub(crate) exit: Exit,
    pub(crate) stderr: String,
    pub(crate) ending: Ending,
    pub(crate) greeted: bool,
    pub(crate) program: String,
    pub(crate) silence: Option<Duration>,
}

impl Ended {
    pub(crate) fn into_error(self, source: ProtocolError) -> RemoteError {
        let Self { exit, stderr, ending, greeted, program, silence } = self;
        let broken = matches!(source, ProtocolError::Io { .. } | ProtocolError::Write(_));
        let ended = broken
            || matches!(source, ProtocolError::UnexpectedEnd { .. })
            || matches!(&source, ProtocolError::NoGreeting { noise, .. } if noise.is_empty());
        if let Some(limit) = silence {
            // However its process ended was our doing.
            return RemoteError::Silent { limit, greeted, stderr, source };
        }
        match ending {
            Ending::Transport(failure) => RemoteError::Unreached { failure, stderr },
            Ending::NotFound { said } => RemoteError::ProgramNotFound { program, stderr: said },
            _ if !ended => RemoteError::Protocol { stderr, source },
            Ending::CannotRun { said } if said.contains(DOES_NOT_KNOW) => RemoteError::NoServer { why: said },
            // 255 is ssh's own.
            Ending::Unexplained if !greeted && matches!(exit, Exit::Code(code) if code != 255) => {
                RemoteError::NoServer { why: format!("'{program}' ended without a word ({exit})") }
            }
            Ending::CannotRun { said } | Ending::Said(said) if !said.is_empty() => {
                RemoteError::Ended { exit, stderr: said }
            }
            _ => RemoteError::Lost { exit, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_says_at_length_is_shortened() {
        for stderr in [format!("error: {}", "é".repeat(30_000)), "x".repeat(60_000)] {
            let text = reason(&stderr);
            assert!(text.len() < 2100 && text.ends_with('…'), "{} bytes", text.len());
            assert!(quoted(&stderr).len() < 2100);
        }
    }

    #[test]
    fn without_room_no_other_path_fares_better() {
        let ended = |stderr: &str| RemoteError::Ended { exit: Exit::Code(1), stderr: stderr.to_owned() };
        for words in [
            "error: opening file '/nix/store/x/y': Too many open files",
            "error: writing to file: No space left on device",
            "error: executing SQLite statement: database or disk is full",
            "error: creating directory '/nix/store/x': Disk quota exceeded",
        ] {
            let error = ended(words);
            assert!(error.is_about_the_store() && !error.is_about_the_path(), "{words}");
        }
        let error = ended("error: opening file '/nix/store/x/y': Input/output error");
        assert!(error.is_about_the_path() && !error.is_about_the_store());
    }

    #[test]
    fn the_reason_is_the_last_error_with_its_lines() {
        let stderr = "warning: you did something\nerror: hash mismatch importing path 'x';\n  specified: a\n  got:       b\n";
        assert_eq!(reason(stderr), "hash mismatch importing path 'x'; specified: a got:       b");
        assert_eq!(reason("error: first\nerror: second"), "second");
        assert_eq!(reason("warning: first\nerror:\n"), "warning: first / error:");
        assert_eq!(reason("no error prefix\nKilled\n"), "no error prefix / Killed");
        assert_eq!(
            reason("error:\n       … while adding\n\n       error: disk full"),
            "… while adding error: disk full"
        );
    }
}
