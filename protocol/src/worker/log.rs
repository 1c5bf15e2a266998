//! What a daemon says before each answer: log lines, activities, results, and at last whether the request succeeded.

use std::fmt;

use tokio::io::AsyncRead;

use super::Version;
use crate::{
    ProtocolError,
    wire::{self, WireReader},
};

const NEXT: u64 = 0x6f6c_6d67;
const READ: u64 = 0x6461_7461;
const LAST: u64 = 0x616c_7473;
pub(super) const ERROR: u64 = 0x6378_7470;
const START_ACTIVITY: u64 = 0x5354_5254;
const STOP_ACTIVITY: u64 = 0x5354_4f50;
const RESULT: u64 = 0x5253_4c54;

/// How much of one text is kept, in bytes. Lines are for people; a builder's line can be as long as it likes.
pub const KEPT_TEXT: usize = 64 << 10;

/// How long a text can be at all, in bytes. Nix has no limit; what is over [`KEPT_TEXT`] is read and dropped.
pub const MESSAGE_LIMIT: u64 = 1 << 30;

/// What a text takes besides its bytes, in bytes.
const TEXT_OVERHEAD: u64 = 32;

/// How many fields an activity or a result can have. Nix has at most four.
pub const FIELD_LIMIT: u64 = 256;

/// How many traces of an error are kept. A daemon evaluates nothing, so it has few.
pub const KEPT_TRACES: usize = 64;

/// How many traces an error can have.
pub const TRACE_LIMIT: u64 = 1 << 16;

/// One message of a daemon. Texts are in a form that does nothing to a terminal, and cut off at [`KEPT_TEXT`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogMessage {
    /// A line for people.
    Line(String),
    /// Something has begun.
    Started(Activity),
    /// Something has ended.
    Stopped {
        /// [`Activity::id`].
        id: u64,
    },
    /// Something has progressed, or has said something.
    Result {
        /// [`Activity::id`].
        id: u64,
        /// What the fields mean.
        kind: ResultKind,
        /// What there is to say.
        fields: Vec<Field>,
    },
    /// The daemon wants more of the NAR that is being added (1.21 and 1.22 only; see
    /// [`NarForm::Pushed`](super::NarForm::Pushed)).
    Wanted {
        /// How much it takes at once, in bytes.
        bytes: u64,
    },
}

/// Something that a daemon does and that takes time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Activity {
    /// Unique among the activities of this connection.
    pub id: u64,
    /// From 0 (error) to 7 (vomit); 3 is what a person sees without asking for more.
    pub level: u32,
    /// What it is.
    pub kind: ActivityKind,
    /// The same in words. Often empty.
    pub text: String,
    /// What it is about, depending on the kind: paths, addresses, sizes.
    pub fields: Vec<Field>,
    /// The activity that this is a part of; 0 for none.
    pub parent: u64,
}

/// One detail of an activity or a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// A size, a count, a code.
    Number(u64),
    /// A path, an address, a line.
    Text(String),
}

/// An enum of numbers that a daemon sends, open to numbers that are not known here.
macro_rules! kinds {
    ($(#[$about:meta])* $name:ident { $($(#[$each:meta])* $kind:ident = $number:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$each])* $kind,)*
            /// A kind that has no name here.
            Other(u32),
        }

        impl From<u32> for $name {
            fn from(number: u32) -> Self {
                match number {
                    $($number => Self::$kind,)*
                    other => Self::Other(other),
                }
            }
        }
    };
}

kinds! {
    /// What a daemon does.
    ActivityKind {
        /// Copies one path. Fields: path, from, to.
        CopyPath = 100,
        /// Fetches a file. Fields: its address.
        FileTransfer = 101,
        /// Makes paths valid.
        Realise = 102,
        /// Copies several paths.
        CopyPaths = 103,
        /// Builds several derivations.
        Builds = 104,
        /// Builds one derivation. Fields: derivation, machine, round, rounds.
        Build = 105,
        /// Replaces equal files by hard links.
        OptimiseStore = 106,
        /// Verifies paths.
        VerifyPaths = 107,
        /// Substitutes one path. Fields: path, substituter.
        Substitute = 108,
        /// Asks a substituter. Fields: path, substituter.
        QueryPathInfo = 109,
        /// Runs the hook behind a build. Fields: derivation.
        PostBuildHook = 110,
        /// Waits for its turn.
        BuildWaiting = 111,
        /// Fetches a source tree.
        FetchTree = 112,
    }
}

kinds! {
    /// What a result says.
    ResultKind {
        /// A file was replaced by a link. Fields: bytes saved.
        FileLinked = 100,
        /// A builder's line. Fields: the line.
        BuildLogLine = 101,
        /// A path lacks a signature. Fields: path.
        UntrustedPath = 102,
        /// A path is damaged. Fields: path.
        CorruptedPath = 103,
        /// A builder's phase. Fields: its name.
        SetPhase = 104,
        /// Fields: done, expected, running, failed.
        Progress = 105,
        /// What is expected of one kind of activity. Fields: kind, amount.
        SetExpected = 106,
        /// A line of the hook behind a build. Fields: the line.
        PostBuildLogLine = 107,
        /// How fetching goes. Fields: words.
        FetchStatus = 108,
    }
}

/// Why a daemon did not do what it was asked.
///
/// The connection is usually good for the next request; the [module](super) says when it is not.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DaemonError {
    /// Its words, without colours. May have several lines.
    pub message: String,
    /// What it was doing, innermost first; at most [`KEPT_TRACES`].
    pub traces: Vec<String>,
}

impl fmt::Display for DaemonError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)?;
        self.traces.iter().try_for_each(|trace| write!(formatter, "\n{trace}"))
    }
}

impl std::error::Error for DaemonError {}

/// What a refusal means for a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// The path has no signature that the daemon trusts, and neither is the client trusted.
    LacksSignature,
    /// A path (for an addition: one of its references) is not valid there, and cannot be substituted.
    NotValid,
    /// The NAR is not what its metadata says.
    WrongContent,
    /// Only trusted users may do this.
    NotPrivileged,
    /// Anything else.
    Other,
}

impl DaemonError {
    /// What this means, as far as it can be told: the protocol has no codes, so this goes by the words of Nix 2.3.7 to 2.34.
    pub fn refusal(&self) -> Refusal {
        let says = |words: &[&str]| words.iter().any(|words| self.message.contains(words));
        // What is found out in reading a NAR: the store path's own words, or the system's about its file.
        let starts = |words: &str| self.message.starts_with(words);
        let is_gone = starts("path '") && says(&["' does not exist"])
            || starts("getting ") && says(&["No such file or directory"]);
        if says(&["lacks a valid signature", "lacks a signature by a trusted key", "signature is not valid"])
        {
            Refusal::LacksSignature
        } else if says(&["hash mismatch", "size mismatch", "claims to be content-addressed"]) {
            Refusal::WrongContent
        } else if is_gone
            || says(&[
                "is not valid",
                "is not a valid store path",
                "there is no substituter that can build it",
            ])
        {
            Refusal::NotValid
        } else if says(&["not privileged", "not allowed"]) {
            Refusal::NotPrivileged
        } else {
            Refusal::Other
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The daemon said no.
    #[error(transparent)]
    Refused(#[from] DaemonError),
    /// The conversation cannot go on.
    #[error(transparent)]
    Broken(#[from] ProtocolError),
}

/// Whether the daemon may ask for data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulling {
    Yes,
    No,
}

/// Reads messages up to the one that ends them.
pub(super) async fn read_messages<R: AsyncRead + Unpin>(
    reader: &mut WireReader<R>,
    version: Version,
    pulling: Pulling,
    mut sink: impl FnMut(LogMessage),
) -> Result<(), AnswerError> {
    loop {
        reader.begin(wire::MESSAGE_LIMIT);
        sink(match reader.u64("a message of the daemon").await? {
            LAST => {
                // What follows is the answer.
                reader.begin(wire::PATHS_LIMIT);
                return Ok(());
            }
            ERROR => return Err(read_error(reader, version).await?.into()),
            NEXT => LogMessage::Line(text(reader, "a log line").await?),
            START_ACTIVITY => LogMessage::Started(Activity {
                id: reader.u64("an activity").await?,
                level: reader.u32("the level of an activity").await?,
                kind: reader.u32("the kind of an activity").await?.into(),
                text: text(reader, "the text of an activity").await?,
                fields: read_fields(reader).await?,
                parent: reader.u64("the parent of an activity").await?,
            }),
            STOP_ACTIVITY => LogMessage::Stopped { id: reader.u64("an activity").await? },
            RESULT => LogMessage::Result {
                id: reader.u64("an activity").await?,
                kind: reader.u32("the kind of a result").await?.into(),
                fields: read_fields(reader).await?,
            },
            READ if pulling == Pulling::Yes => {
                LogMessage::Wanted { bytes: reader.u64("how much the daemon wants").await? }
            }
            found => {
                let (what, expected) = ("a message of the daemon", "one of the known kinds");
                return Err(ProtocolError::Unexpected { what, expected, found }.into());
            }
        });
    }
}

/// Reads an error behind its tag.
pub(super) async fn read_error<R: AsyncRead + Unpin>(
    reader: &mut WireReader<R>,
    version: Version,
) -> Result<DaemonError, ProtocolError> {
    if version < Version::STRUCTURED_ERRORS {
        let message = text(reader, "the daemon's error").await?;
        reader.u32("the status of an error").await?;
        // Daemons that know the other form put this in front when they use the old one.
        let message = message.strip_prefix("error: ").map(str::to_owned).unwrap_or(message);
        return Ok(DaemonError { message, traces: Vec::new() });
    }
    text(reader, "the type of an error").await?;
    reader.u32("the level of an error").await?;
    text(reader, "the name of an error").await?;
    let message = text(reader, "the daemon's error").await?;
    no_position(reader).await?;
    let mut traces = Vec::new();
    for _ in 0..reader.count_up_to("the traces of an error", TRACE_LIMIT).await? {
        no_position(reader).await?;
        let trace = text(reader, "a trace of an error").await?;
        if traces.len() < KEPT_TRACES {
            traces.push(trace);
        }
    }
    Ok(DaemonError { message, traces })
}

/// Errors could have a place in a Nix expression; no Nix has ever sent one, and none says what it would look like.
async fn no_position<R: AsyncRead + Unpin>(reader: &mut WireReader<R>) -> Result<(), ProtocolError> {
    match reader.u64("the position of an error").await? {
        0 => Ok(()),
        found => {
            Err(ProtocolError::Unexpected { what: "the position of an error", expected: "none (0)", found })
        }
    }
}

async fn read_fields<R: AsyncRead + Unpin>(reader: &mut WireReader<R>) -> Result<Vec<Field>, ProtocolError> {
    let mut fields = Vec::new();
    for _ in 0..reader.count_up_to("the fields of an activity", FIELD_LIMIT).await? {
        fields.push(match reader.u64("the type of a field").await? {
            0 => Field::Number(reader.u64("a field").await?),
            1 => Field::Text(text(reader, "a field").await?),
            found => {
                let (what, expected) = ("the type of a field", "a number (0) or a text (1)");
                return Err(ProtocolError::Unexpected { what, expected, found });
            }
        });
    }
    Ok(fields)
}

async fn text<R: AsyncRead + Unpin>(
    reader: &mut WireReader<R>,
    what: &'static str,
) -> Result<String, ProtocolError> {
    let (kept, dropped) = reader.beginning(what, KEPT_TEXT, MESSAGE_LIMIT).await?;
    // Three for each byte: so much is a replacement character.
    reader.spend(what, (kept.len() as u64).saturating_mul(3).saturating_add(TEXT_OVERHEAD))?;
    let mut text = readable(&kept);
    if dropped > 0 {
        text.push_str("...");
    }
    Ok(text)
}

/// Text of a daemon as a terminal may show it.
///
/// Nix colours quoted values from 2.4 on: colours are dropped. Lines stay lines; every other control character, and what
/// reorders text, becomes a space.
fn readable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut clean = String::with_capacity(text.len());
    let mut rest = text.as_ref();
    while let Some(next) = rest.chars().next() {
        let behind = colour(rest).unwrap_or_else(|| {
            clean.push(if is_harmful(next) { ' ' } else { next });
            next.len_utf8()
        });
        rest = rest.get(behind..).unwrap_or_default();
    }
    clean.truncate(clean.trim_end().len());
    clean
}

/// The length of the colour change that `text` begins with.
fn colour(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\x1b[")?;
    let end = parameters.find(|sign: char| !sign.is_ascii_digit() && sign != ';')?;
    parameters.get(end..)?.starts_with('m').then(|| end.saturating_add("\x1b[m".len()))
}

fn is_harmful(sign: char) -> bool {
    (sign.is_control() && sign != '\n')
        || matches!(sign, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::plain("path 'x' is not valid\n", "path 'x' is not valid")]
    #[case::colours("path '\x1b[35;1m/nix/store/x\x1b[0m' is not valid", "path '/nix/store/x' is not valid")]
    #[case::lines("hash mismatch:\n  a\n  b", "hash mismatch:\n  a\n  b")]
    #[case::cursor("\x1b[2Jgone", " [2Jgone")]
    #[case::title("\x1b]0;owned\x07", " ]0;owned")]
    #[case::unfinished("\x1b[31", " [31")]
    #[case::one_character("\u{9b}31mx", " 31mx")]
    #[case::direction("a\u{202e}b", "a b")]
    #[case::carriage_return("done\r", "done")]
    fn texts_do_nothing_to_a_terminal(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(readable(text.as_bytes()), expected);
    }

    #[rstest]
    #[case::nix_2_3("path '/nix/store/x' is not valid", Refusal::NotValid)]
    #[case::nix_2_3(
        "cannot add path '/nix/store/x' because it lacks a valid signature",
        Refusal::LacksSignature
    )]
    #[case::nix_2_26(
        "cannot add path '/nix/store/x' because it lacks a signature by a trusted key",
        Refusal::LacksSignature
    )]
    #[case::nix_2_34("hash mismatch importing path '/nix/store/x';\n  specified: ...", Refusal::WrongContent)]
    #[case::nix_2_3("you are not privileged to add signatures", Refusal::NotPrivileged)]
    #[case::nix_2_34("path '/nix/store/x' is not a valid store path", Refusal::NotValid)]
    #[case::nix_2_26("path '/nix/store/x' does not exist and cannot be created", Refusal::NotValid)]
    #[case::nix_2_26("path '//nix/store/x' does not exist", Refusal::NotValid)]
    #[case::nix_2_8("getting status of '/nix/store/x': No such file or directory", Refusal::NotValid)]
    #[case::other("out of memory", Refusal::Other)]
    fn refusals(#[case] message: &str, #[case] refusal: Refusal) {
        let error = DaemonError { message: message.to_owned(), traces: Vec::new() };
        assert_eq!(error.refusal(), refusal);
    }
}
