use std::ops::Range;

use crate::{
    decode::{DecodeOptions, Executable},
    error::{Error, Malformation},
    name::{MAX_NAME, MAX_TARGET, NameError, TargetError, check_name, check_target},
    path::{NarPath, PathStack},
};

/// Longest keyword that is looked at. The longest one of the grammar, `nix-archive-1`, has 13 bytes.
const MAX_TAG: u64 = 16;

/// The first string of every archive.
pub(crate) const MAGIC: &[u8] = b"nix-archive-1";

/// Encoded size of the shortest node, an empty directory: `(`, `type`, `directory`, `)`.
const SHORTEST_NODE: u64 = 16 + 16 + 24 + 16;

/// Encoded size of a parenthesis, and of every other string of one to eight bytes.
const SHORT_TAG: u64 = 16;

/// Most bytes a [`Parser`] ever wants to see at once: a symlink with the longest target, rounded up.
pub(crate) const LONGEST_STEP: usize = 4096 + 512;

/// What a [`Parser`] has found. Names and targets are given as positions in the input of that call.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Call again when at least `needed` unconsumed bytes are there (which may be so already).
    More {
        /// How many bytes are needed for the next step.
        needed: usize,
        /// How many unconsumed bytes belong to the archive in any case, if it is well-formed. At
        /// least `needed`. A reader that must not read past the archive may read this far.
        certain: u64,
    },
    /// A directory starts.
    Directory,
    /// An entry of the innermost directory; its node follows. Names ascend by bytes.
    Entry {
        /// Where its name lies in the input: a valid [`EntryName`](crate::EntryName).
        name: Range<usize>,
    },
    /// A regular file; its contents follow.
    Regular {
        /// Whether its owner may execute it.
        executable: Executable,
        /// Size of its contents in bytes.
        size: u64,
    },
    /// A symlink.
    Symlink {
        /// Where its target lies in the input: 1 to 4095 bytes without NUL.
        target: Range<usize>,
    },
    /// The innermost directory ends.
    DirectoryEnd,
    /// All bytes that were consumed by this call, at least one, are contents of the current file.
    Contents,
    /// The archive has ended. What follows is not part of it.
    End,
}

/// The grammar as a state machine over byte slices: no I/O, no buffer, no recursion.
///
/// For code that cannot block in a [`Read`](std::io::Read), such as a relay in an async program
/// that must find the end of an archive of unknown size in a stream. Where blocking is fine,
/// [`Decoder`](crate::Decoder) is more convenient: it is a parser with a reader and a buffer. To
/// unpack bytes as they arrive, see `Unpacker`.
///
/// ```
/// use ncc_nar::{Executable, Parser, Step};
///
/// let mut encoder = ncc_nar::Encoder::new(Vec::new());
/// encoder.file(Executable::No, b"hi")?;
/// let mut nar = encoder.finish()?;
/// nar.extend_from_slice(b"somebody else's");
///
/// let mut parser = Parser::new();
/// let mut input = &nar[..];
/// let mut contents = Vec::new();
/// loop {
///     let (consumed, step) = parser.step(input)?;
///     let (used, rest) = input.split_at(consumed);
///     input = rest;
///     match step {
///         Step::Contents => contents.extend_from_slice(used),
///         Step::More { needed, .. } => assert!(input.len() >= needed, "read more here"),
///         Step::End => break,
///         other => assert_eq!(other, Step::Regular { executable: Executable::No, size: 2 }),
///     }
/// }
/// assert_eq!(contents, b"hi");
/// assert_eq!(input, b"somebody else's");
/// # Ok::<(), ncc_nar::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Parser {
    state: State,
    position: u64,
    path: PathStack,
    max_depth: usize,
    nar_size: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Magic,
    /// At the opening parenthesis of a node.
    Node,
    Contents {
        remaining: u64,
        padding: u8,
    },
    /// After the body of a file or symlink.
    LeafEnd {
        padding: u8,
    },
    /// After a whole node.
    NodeEnd,
    /// In a directory, before an entry or the closing parenthesis.
    Body,
    End,
}

impl Default for Parser {
    fn default() -> Self {
        Self::new()
    }
}

impl Parser {
    /// Expects the start of an archive.
    pub fn new() -> Self {
        Self::with_options(&DecodeOptions::default())
    }

    /// The same with other limits. The size of buffers is of no use here.
    pub fn with_options(options: &DecodeOptions) -> Self {
        Self {
            state: State::Magic,
            position: 0,
            path: PathStack::default(),
            max_depth: options.max_depth,
            nar_size: options.nar_size,
        }
    }

    /// Looks at the unconsumed bytes that there are and says how many of them are now consumed, and
    /// what they mean. An error does not change the parser: the next call finds it again.
    pub fn step(&mut self, input: &[u8]) -> Result<(usize, Step), Error> {
        let left = self.nar_size.map_or(u64::MAX, |announced| announced.saturating_sub(self.position));
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let (consumed, step) = self.advance(input.get(..left).unwrap_or(input))?;
        let checked = match step {
            Step::More { needed, certain } => {
                self.certain(needed, certain).map(|certain| Step::More { needed, certain })
            }
            Step::End => self.check_not_shorter().map(|()| Step::End),
            step => Ok(step),
        };
        match checked {
            // First tell the caller what has been consumed; the error comes with the next call.
            Err(_) if consumed > 0 => Ok((consumed, Step::More { needed: 0, certain: 0 })),
            checked => checked.map(|step| (consumed, step)),
        }
    }

    /// How far to read when `needed` bytes are missing and the grammar is certain of `certain`:
    /// further, if the size of the archive was announced.
    pub(crate) fn certain(&self, needed: usize, certain: u64) -> Result<u64, Error> {
        let Some(announced) = self.nar_size else {
            return Ok(certain);
        };
        match announced.checked_sub(self.position) {
            Some(left) if left >= needed as u64 => Ok(left),
            left => {
                let kind = Malformation::LongerThanAnnounced { announced };
                Err(self.malformed(left.unwrap_or(0), false, kind))
            }
        }
    }

    fn check_not_shorter(&self) -> Result<(), Error> {
        match self.nar_size {
            Some(announced) if announced > self.position => {
                Err(self.malformed(0, false, Malformation::ShorterThanAnnounced { announced }))
            }
            _ => Ok(()),
        }
    }

    /// How many bytes of the archive have been consumed.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The current node.
    pub fn path(&self) -> NarPath {
        NarPath::known_valid(self.path.node())
    }

    /// Whether the current node lies at `path`.
    pub(crate) fn is_at(&self, path: &NarPath) -> bool {
        self.path.node() == path.as_bytes()
    }

    /// How many directories are open.
    pub fn depth(&self) -> usize {
        self.path.depth()
    }

    /// How many bytes of the current file are still to come; zero outside files.
    pub fn remaining_contents(&self) -> u64 {
        match self.state {
            State::Contents { remaining, .. } => remaining,
            _ => 0,
        }
    }

    /// The error for an input that ends `available` bytes after [`position`](Self::position).
    pub fn unexpected_end(&self, available: usize) -> Error {
        self.malformed(available as u64, false, Malformation::UnexpectedEof)
    }

    fn malformed(&self, at: u64, in_directory: bool, kind: Malformation) -> Error {
        let path = if in_directory { self.path.directory() } else { self.path.node() };
        Error::Malformed { offset: self.position.saturating_add(at), path: NarPath::known_valid(path), kind }
    }

    /// Counts contents that the decoder hands out or skips without showing them here first. Returns
    /// how many of `count` bytes are contents.
    pub(crate) fn consume_contents(&mut self, count: usize) -> usize {
        let State::Contents { remaining, padding } = self.state else {
            return 0;
        };
        let count = count.min(usize::try_from(remaining).unwrap_or(usize::MAX));
        self.position = self.position.saturating_add(count as u64);
        self.state = match remaining.saturating_sub(count as u64) {
            0 => State::LeafEnd { padding },
            remaining => State::Contents { remaining, padding },
        };
        count
    }

    /// Inside contents: how many bytes the archive still has at least.
    pub(crate) fn least_remaining_in_contents(&self) -> u64 {
        match self.state {
            State::Contents { remaining, padding } => remaining
                .saturating_add(padding.into())
                .saturating_add(SHORT_TAG)
                .saturating_add(self.enclosing()),
            _ => 0,
        }
    }

    /// The archive's least size beyond the current file or node.
    fn enclosing(&self) -> u64 {
        // Each open directory closes an entry and itself.
        (self.path.depth() as u64).saturating_mul(2 * SHORT_TAG)
    }

    fn advance(&mut self, input: &[u8]) -> Result<(usize, Step), Error> {
        let mut consumed = 0_usize;
        loop {
            let mut cursor = Cursor::new(input.get(consumed..).unwrap_or_default());
            let outcome = match self.state {
                State::Magic => self.magic(&mut cursor),
                State::Node => self.node(&mut cursor),
                State::Contents { remaining, padding } => self.contents(&mut cursor, remaining, padding),
                State::LeafEnd { padding } => self.leaf_end(&mut cursor, padding),
                State::NodeEnd => self.node_end(&mut cursor),
                State::Body => self.body(&mut cursor),
                State::End => Ok(Some(Step::End)),
            };
            match outcome {
                Ok(step) => {
                    consumed = consumed.saturating_add(cursor.at);
                    self.position = self.position.saturating_add(cursor.at as u64);
                    if let Some(mut step) = step {
                        if let Step::Entry { name: range } | Step::Symlink { target: range } = &mut step {
                            // From positions behind the cursor's start to positions in `input`.
                            let offset = consumed.saturating_sub(cursor.at);
                            range.start = range.start.saturating_add(offset);
                            range.end = range.end.saturating_add(offset);
                        }
                        return Ok((consumed, step));
                    }
                }
                Err(Stop::More { needed }) => {
                    let certain = cursor.certain.max(needed as u64);
                    return Ok((consumed, Step::More { needed, certain }));
                }
                // First tell the caller what has been consumed; the error comes with the next call.
                Err(Stop::Malformed { .. }) if consumed > 0 => {
                    return Ok((consumed, Step::More { needed: 0, certain: 0 }));
                }
                Err(Stop::Malformed { at, kind }) => {
                    let in_directory = matches!(self.state, State::Body | State::NodeEnd);
                    return Err(self.malformed(at as u64, in_directory, kind));
                }
            }
        }
    }

    fn magic(&mut self, cursor: &mut Cursor<'_>) -> Parsed {
        cursor.expect_at_least(24_u64.saturating_add(SHORTEST_NODE));
        match cursor.tag("a Nix archive") {
            Ok(tag) if tag == MAGIC => {}
            Ok(_) | Err(Stop::Malformed { .. }) => {
                return Err(Stop::Malformed { at: 0, kind: Malformation::BadMagic });
            }
            Err(more) => return Err(more),
        }
        self.state = State::Node;
        Ok(None)
    }

    fn node(&mut self, cursor: &mut Cursor<'_>) -> Parsed {
        let enclosing = self.enclosing();
        if self.path.depth() > self.max_depth {
            let kind = Malformation::TooDeep { limit: self.max_depth };
            return Err(Stop::Malformed { at: 0, kind });
        }
        cursor.expect_at_least(SHORTEST_NODE.saturating_add(enclosing));
        cursor.keyword(b"(", "'('")?;
        cursor.keyword(b"type", "'type'")?;
        let at = cursor.at;
        let expected = "'regular', 'symlink' or 'directory'";
        match cursor.tag(expected)? {
            b"regular" => self.regular(cursor, enclosing).map(Some),
            b"symlink" => {
                cursor.expect_at_least((3 * SHORT_TAG).saturating_add(enclosing));
                cursor.keyword(b"target", "'target'")?;
                let at = cursor.at;
                let after = SHORT_TAG.saturating_add(enclosing);
                let target = cursor
                    .string(MAX_TARGET as u64, after, |length| TargetError::TooLong { length }.into())?;
                if let Err(error) = check_target(target) {
                    return Err(Stop::Malformed { at, kind: error.into() });
                }
                self.state = State::LeafEnd { padding: 0 };
                Ok(Some(Step::Symlink { target: bytes_of(at, target) }))
            }
            b"directory" => {
                self.path.enter_directory();
                self.state = State::Body;
                Ok(Some(Step::Directory))
            }
            found => Err(unexpected(at, expected, found)),
        }
    }

    fn regular(&mut self, cursor: &mut Cursor<'_>, enclosing: u64) -> Result<Step, Stop> {
        let fixed = (2 * SHORT_TAG).saturating_add(8).saturating_add(enclosing);
        cursor.expect_at_least(fixed);
        let mut executable = Executable::No;
        let at = cursor.at;
        match cursor.tag("'executable' or 'contents'")? {
            b"contents" => {}
            b"executable" => {
                cursor.expect_at_least(fixed.saturating_add(8));
                let after = fixed;
                cursor.string(0, after, |_| Malformation::ExecutableValue)?;
                cursor.keyword(b"contents", "'contents'")?;
                executable = Executable::Yes;
            }
            found => return Err(unexpected(at, "'executable' or 'contents'", found)),
        }
        let size = cursor.u64()?;
        let padding = padding(size);
        self.state =
            if size == 0 { State::LeafEnd { padding } } else { State::Contents { remaining: size, padding } };
        Ok(Step::Regular { executable, size })
    }

    fn contents(&mut self, cursor: &mut Cursor<'_>, remaining: u64, padding: u8) -> Parsed {
        let length = usize::try_from(remaining).unwrap_or(usize::MAX).min(cursor.input.len());
        if length == 0 {
            cursor.expect_at_least(self.least_remaining_in_contents());
            return Err(Stop::More { needed: 1 });
        }
        cursor.at = length;
        self.state = match remaining.saturating_sub(length as u64) {
            0 => State::LeafEnd { padding },
            remaining => State::Contents { remaining, padding },
        };
        Ok(Some(Step::Contents))
    }

    fn leaf_end(&mut self, cursor: &mut Cursor<'_>, padding: u8) -> Parsed {
        let fixed = u64::from(padding).saturating_add(SHORT_TAG);
        cursor.expect_at_least(fixed.saturating_add(self.enclosing()));
        cursor.zeroes(padding)?;
        cursor.keyword(b")", "')'")?;
        self.state = State::NodeEnd;
        Ok(None)
    }

    fn node_end(&mut self, cursor: &mut Cursor<'_>) -> Parsed {
        if self.path.depth() == 0 {
            self.state = State::End;
        } else {
            cursor.expect_at_least(self.enclosing());
            cursor.keyword(b")", "')'")?;
            self.state = State::Body;
        }
        Ok(None)
    }

    fn body(&mut self, cursor: &mut Cursor<'_>) -> Parsed {
        let enclosing = self.enclosing();
        // The root directory is not an entry: one parenthesis less.
        cursor.expect_at_least(enclosing.saturating_sub(SHORT_TAG));
        match cursor.tag("'entry' or ')'")? {
            b")" => {
                self.path.leave_directory();
                self.state = State::NodeEnd;
                return Ok(Some(Step::DirectoryEnd));
            }
            b"entry" => {}
            found => return Err(unexpected(0, "'entry' or ')'", found)),
        }
        let node = SHORTEST_NODE.saturating_add(enclosing);
        cursor.expect_at_least((4 * SHORT_TAG).saturating_add(node));
        cursor.keyword(b"(", "'('")?;
        cursor.keyword(b"name", "'name'")?;
        let at = cursor.at;
        let name = cursor.string(MAX_NAME as u64, SHORT_TAG.saturating_add(node), |length| {
            NameError::TooLong { length }.into()
        })?;
        if let Err(error) = check_name(name) {
            return Err(Stop::Malformed { at, kind: error.into() });
        }
        if let Err(error) = self.path.check_order(name) {
            return Err(Stop::Malformed { at, kind: error.into() });
        }
        cursor.keyword(b"node", "'node'")?;
        self.path.set_entry(name);
        self.state = State::Node;
        Ok(Some(Step::Entry { name: bytes_of(at, name) }))
    }
}

/// A step, or `None` after something that is no event.
type Parsed = Result<Option<Step>, Stop>;

enum Stop {
    More { needed: usize },
    Malformed { at: usize, kind: Malformation },
}

fn unexpected(at: usize, expected: &'static str, found: &[u8]) -> Stop {
    let found = found.into();
    Stop::Malformed { at, kind: Malformation::UnexpectedTag { expected, found } }
}

/// Where the bytes of a string lie whose length stands at `at`.
fn bytes_of(at: usize, bytes: &[u8]) -> Range<usize> {
    let start = at.saturating_add(8);
    start..start.saturating_add(bytes.len())
}

/// Zero bytes after a string of `length` bytes.
pub(crate) fn padding(length: u64) -> u8 {
    // Below eight, so the cast keeps everything.
    (length.wrapping_neg() & 7) as u8
}

/// Reads primitives off the front of the unconsumed input.
struct Cursor<'a> {
    input: &'a [u8],
    at: usize,
    certain: u64,
}

impl<'a> Cursor<'a> {
    fn new(input: &'a [u8]) -> Self {
        Self { input, at: 0, certain: 0 }
    }

    /// Notes that at least `length` bytes follow from here in every well-formed archive.
    fn expect_at_least(&mut self, length: u64) {
        self.certain = self.certain.max(length.saturating_add(self.at as u64));
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Stop> {
        let needed = self.at.saturating_add(length);
        let bytes = self.input.get(self.at..needed).ok_or(Stop::More { needed })?;
        self.at = needed;
        Ok(bytes)
    }

    fn u64(&mut self) -> Result<u64, Stop> {
        let bytes = self.take(8)?;
        Ok(bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)))
    }

    fn zeroes(&mut self, count: u8) -> Result<(), Stop> {
        let at = self.at;
        let bytes = self.take(usize::from(count))?;
        match bytes.iter().position(|byte| *byte != 0) {
            None => Ok(()),
            Some(index) => {
                Err(Stop::Malformed { at: at.saturating_add(index), kind: Malformation::NonZeroPadding })
            }
        }
    }

    /// A string of at most `limit` bytes, after which at least `after` bytes follow.
    fn string(
        &mut self,
        limit: u64,
        after: u64,
        too_long: impl FnOnce(u64) -> Malformation,
    ) -> Result<&'a [u8], Stop> {
        let at = self.at;
        let length = self.u64()?;
        match usize::try_from(length) {
            Ok(bytes) if length <= limit => {
                let padding = padding(length);
                self.expect_at_least(length.saturating_add(padding.into()).saturating_add(after));
                let bytes = self.take(bytes)?;
                self.zeroes(padding)?;
                Ok(bytes)
            }
            _ => Err(Stop::Malformed { at, kind: too_long(length) }),
        }
    }

    fn tag(&mut self, expected: &'static str) -> Result<&'a [u8], Stop> {
        self.string(MAX_TAG, 0, |length| Malformation::TagTooLong { expected, length })
    }

    fn keyword(&mut self, keyword: &[u8], expected: &'static str) -> Result<(), Stop> {
        let at = self.at;
        match self.tag(expected)? {
            found if found == keyword => Ok(()),
            found => Err(unexpected(at, expected, found)),
        }
    }
}
