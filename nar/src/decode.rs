use std::io::{self, BufRead, Read};

use crate::{
    error::{Error, Malformation},
    name::EntryNameRef,
    parser::{LONGEST_STEP, Parser, RawStep},
    path::NarPath,
};

/// Default of [`DecodeOptions::max_depth`]. Trees in real stores stay below 64, stores written before
/// Nix had a limit may hold deeper ones, and an attacker pays 88 bytes per level.
pub const DEFAULT_MAX_DEPTH: usize = 4096;

/// The deepest node that current versions of Nix read and write (2.28.7, 2.34.7 and everything from
/// 2.35 on); the root is at depth 0. Deeper trees cannot be copied to such a host.
pub const NIX_MAX_DEPTH: usize = 63;

/// Default of [`DecodeOptions::buffer_size`]. Larger blocks gained nothing (`BENCHMARKS.md`).
pub const DEFAULT_BUFFER_SIZE: usize = 128 * 1024;

/// How to decode.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DecodeOptions {
    /// The deepest node that is accepted; the root is at depth 0. [`DEFAULT_MAX_DEPTH`] unless set;
    /// see also [`NIX_MAX_DEPTH`].
    pub max_depth: usize,
    /// Size of the archive in bytes, if it is known beforehand. Allows the decoder to read whole
    /// blocks up to that size instead of as far as the grammar lets it be certain; an archive of
    /// another size is an error.
    pub nar_size: Option<u64>,
    /// Size of the decoder's only buffer in bytes. At least 8 KiB are used.
    pub buffer_size: usize,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self { max_depth: DEFAULT_MAX_DEPTH, nar_size: None, buffer_size: DEFAULT_BUFFER_SIZE }
    }
}

impl DecodeOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`max_depth`](Self::max_depth).
    #[must_use]
    pub fn max_depth(mut self, depth: usize) -> Self {
        self.max_depth = depth;
        self
    }

    /// Sets [`nar_size`](Self::nar_size).
    #[must_use]
    pub fn nar_size(mut self, bytes: u64) -> Self {
        self.nar_size = Some(bytes);
        self
    }

    /// Sets [`buffer_size`](Self::buffer_size).
    #[must_use]
    pub fn buffer_size(mut self, bytes: usize) -> Self {
        self.buffer_size = bytes;
        self
    }
}

/// A piece of the structure of an archive, in the order of the archive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event<'a> {
    /// A directory starts. [`Entry`](Self::Entry)s follow, each with the events of its node, then
    /// [`DirectoryEnd`](Self::DirectoryEnd).
    Directory,
    /// An entry of the innermost directory; its node follows. Names ascend by bytes.
    Entry(EntryNameRef<'a>),
    /// A regular file; its contents follow.
    Regular {
        /// Whether its owner may execute it.
        executable: bool,
        /// Size of its contents in bytes.
        size: u64,
    },
    /// A symlink.
    Symlink {
        /// Where it points: 1 to 4095 bytes without NUL, otherwise anything.
        target: &'a [u8],
    },
    /// The innermost directory ends.
    DirectoryEnd,
}

/// A strict streaming decoder.
///
/// * Accepts the canonical form and nothing else, in constant memory (one buffer, and the path to
///   the current node).
/// * Never reads past the end of the archive, so that the reader can go on with what follows. The
///   grammar says at each point how many bytes must still come at least; reads go that far. A file's
///   contents come in large blocks, a small file takes about three reads. If the reader is
///   expensive to ask, either wrap it in a [`BufReader`](io::BufReader) that lives on after the
///   decoder, or announce the size ([`DecodeOptions::nar_size`]), which makes all reads large.
/// * Once [`next_event`](Self::next_event) has returned `None`, exactly
///   [`position`](Self::position) bytes were taken from the reader.
///
/// ```
/// use std::io::Read;
/// use ncc_nar::{Decoder, Encoder, Event};
///
/// let mut encoder = Encoder::new(Vec::new());
/// encoder.directory()?;
/// encoder.entry("hello")?;
/// encoder.file(false, b"hi")?;
/// encoder.directory_end()?;
/// let nar = encoder.finish()?;
///
/// let mut decoder = Decoder::new(&nar[..]);
/// assert_eq!(decoder.next_event()?, Some(Event::Directory));
/// assert!(matches!(decoder.next_event()?, Some(Event::Entry(name)) if name.as_bytes() == b"hello"));
/// assert_eq!(decoder.next_event()?, Some(Event::Regular { executable: false, size: 2 }));
/// let mut text = String::new();
/// decoder.contents().read_to_string(&mut text)?;
/// assert_eq!(text, "hi");
/// assert_eq!(decoder.next_event()?, Some(Event::DirectoryEnd));
/// assert_eq!(decoder.next_event()?, None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Decoder<R> {
    reader: R,
    parser: Parser,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    nar_size: Option<u64>,
}

impl<R: Read> Decoder<R> {
    /// Decodes what `reader` yields, with default options.
    pub fn new(reader: R) -> Self {
        Self::with_options(reader, &DecodeOptions::default())
    }

    /// Decodes what `reader` yields.
    pub fn with_options(reader: R, options: &DecodeOptions) -> Self {
        // Two steps, so that there is always room behind an incomplete one.
        let mut size = options.buffer_size.max(2 * LONGEST_STEP);
        if let Some(nar_size) = options.nar_size {
            let enough = usize::try_from(nar_size).unwrap_or(usize::MAX);
            size = size.min(enough.max(2 * LONGEST_STEP));
        }
        Self {
            reader,
            parser: Parser::with_options(options),
            buffer: vec![0; size].into_boxed_slice(),
            start: 0,
            end: 0,
            nar_size: options.nar_size,
        }
    }

    /// The next piece of structure, or `None` after the last one. Contents that were not read are
    /// skipped, and checked to be there.
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, Error> {
        let (before, step) = loop {
            let input = self.buffer.get(self.start..self.end).unwrap_or_default();
            let before = self.start;
            let (consumed, step) = self.parser.advance(input)?;
            self.consume_buffer(consumed);
            match step {
                RawStep::More { needed, certain } => self.fill(needed, certain)?,
                RawStep::Contents { .. } => {}
                step => break (before, step),
            }
        };
        Ok(Some(match step {
            RawStep::Directory => Event::Directory,
            RawStep::Entry => Event::Entry(self.parser.entry_name()),
            RawStep::Regular { executable, size } => Event::Regular { executable, size },
            RawStep::Symlink { start, end } => {
                let target = before.saturating_add(start)..before.saturating_add(end);
                Event::Symlink { target: self.buffer.get(target).unwrap_or_default() }
            }
            RawStep::DirectoryEnd => Event::DirectoryEnd,
            RawStep::End | RawStep::More { .. } | RawStep::Contents { .. } => {
                self.check_announced_size()?;
                return Ok(None);
            }
        }))
    }

    /// The rest of the contents of the file that the last event announced; nothing after any other.
    pub fn contents(&mut self) -> Contents<'_, R> {
        Contents { decoder: self }
    }

    /// A block of the current file's contents, empty at their end. At least `wanted` bytes, unless
    /// the contents end or the buffer is full before.
    pub(crate) fn contents_block(&mut self, wanted: usize) -> Result<&[u8], Error> {
        let remaining = usize::try_from(self.parser.remaining_contents()).unwrap_or(usize::MAX);
        let wanted = wanted.min(remaining).min(self.buffer.len());
        while self.available() < wanted {
            // At the end of the buffer: shifting a piece of a small file to the front costs less
            // than writing the file in two pieces.
            if self.available() > 0 && self.end >= self.buffer.len() && wanted > SMALL_FILE {
                break;
            }
            // As far as the grammar is certain: rest of the file and everything that closes it.
            let certain = self.parser.least_remaining_in_contents();
            let needed = self.available().saturating_add(1);
            self.fill(needed, certain)?;
        }
        let block = self.start..self.end.min(self.start.saturating_add(remaining));
        Ok(self.buffer.get(block).unwrap_or_default())
    }

    /// Marks the first `count` bytes of the last block as used.
    pub(crate) fn consume_contents(&mut self, count: usize) {
        let available = self.available().min(count);
        let end = self.start.saturating_add(available);
        let count = self.parser.consume_contents(available as u64);
        self.start = end.min(self.start.saturating_add(count));
    }

    /// Reads contents into `target`, past the buffer where that saves a copy.
    fn read_contents(&mut self, target: &mut [u8]) -> Result<usize, Error> {
        let remaining = usize::try_from(self.parser.remaining_contents()).unwrap_or(usize::MAX);
        let wanted = target.len().min(remaining);
        if wanted == 0 {
            return Ok(0);
        }
        // A nearly full request is served directly; a small rest goes through the buffer, where
        // the read takes along what follows it.
        if self.available() == 0 && wanted >= self.buffer.len().min(DIRECT_READ) {
            let certain = self.parser.least_remaining_in_contents();
            let certain = self.check_announced(1, certain)?;
            let wanted = wanted.min(usize::try_from(certain).unwrap_or(usize::MAX));
            let target = target.get_mut(..wanted).unwrap_or_default();
            let count = read_some(&mut self.reader, target).map_err(|source| self.read_error(source))?;
            if count == 0 {
                return Err(self.parser.unexpected_end(0));
            }
            self.parser.consume_contents(count as u64);
            return Ok(count);
        }
        let block = self.contents_block(1)?;
        let count = block.len().min(wanted);
        if let (Some(target), Some(block)) = (target.get_mut(..count), block.get(..count)) {
            target.copy_from_slice(block);
        }
        self.consume_contents(count);
        Ok(count)
    }

    /// Reads until `needed` unconsumed bytes are in the buffer; takes up to `certain` if it can get
    /// them without waiting for more.
    fn fill(&mut self, needed: usize, certain: u64) -> Result<(), Error> {
        if self.available() >= needed {
            return Ok(());
        }
        let certain = self.check_announced(needed, certain)?;
        if self.available() == 0 {
            (self.start, self.end) = (0, 0);
        } else if self.buffer.len().saturating_sub(self.start) < needed {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.available());
        }
        let certain = usize::try_from(certain).unwrap_or(usize::MAX);
        let limit = self.start.saturating_add(certain).min(self.buffer.len());
        while self.available() < needed {
            let room = self.buffer.get_mut(self.end..limit).unwrap_or_default();
            match read_some(&mut self.reader, room) {
                Ok(0) => return Err(self.parser.unexpected_end(self.available())),
                Ok(count) => self.end = self.end.saturating_add(count).min(limit),
                Err(source) => return Err(self.read_error(source)),
            }
        }
        Ok(())
    }

    /// How far to read at most, given what the grammar is certain of and what was announced.
    fn check_announced(&self, needed: usize, certain: u64) -> Result<u64, Error> {
        let Some(announced) = self.nar_size else {
            return Ok(certain);
        };
        match announced.checked_sub(self.parser.position()) {
            Some(left) if left >= needed as u64 => Ok(left),
            left => {
                let kind = Malformation::LongerThanAnnounced { announced };
                Err(self.parser.malformed(left.unwrap_or(0), false, kind))
            }
        }
    }

    fn check_announced_size(&self) -> Result<(), Error> {
        match self.nar_size {
            Some(announced) if announced > self.parser.position() => {
                let kind = Malformation::ShorterThanAnnounced { announced };
                Err(self.parser.malformed(0, false, kind))
            }
            _ => Ok(()),
        }
    }

    fn read_error(&self, source: io::Error) -> Error {
        Error::ReadArchive {
            offset: self.parser.position().saturating_add(self.available() as u64),
            path: self.parser.path(),
            source,
        }
    }
}

/// Requests of this size go past the decoder's buffer, whatever its size.
const DIRECT_READ: usize = 32 * 1024;

/// Files up to this size are given out in one block even if the buffer must be shifted for that.
const SMALL_FILE: usize = 16 * 1024;

impl<R> Decoder<R> {
    /// How many bytes of the archive have been decoded.
    pub fn position(&self) -> u64 {
        self.parser.position()
    }

    /// The current node.
    pub fn path(&self) -> NarPath {
        self.parser.path()
    }

    /// How many directories are open.
    pub fn depth(&self) -> usize {
        self.parser.depth()
    }

    /// How many bytes of the current file's contents were not yet read.
    pub fn remaining_contents(&self) -> u64 {
        self.parser.remaining_contents()
    }

    /// The reader. In the middle of an archive some of its bytes are in the decoder's buffer.
    pub fn get_ref(&self) -> &R {
        &self.reader
    }

    /// Gives the reader back. At the end of the archive, exactly the archive was taken from it.
    pub fn into_inner(self) -> R {
        self.reader
    }

    fn available(&self) -> usize {
        self.end.saturating_sub(self.start)
    }

    fn consume_buffer(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.end);
    }
}

fn read_some(reader: &mut impl Read, target: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(target) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A reader that claims to have written past the end must not be believed.
            other => return other.map(|count| count.min(target.len())),
        }
    }
}

/// The contents of one file, from [`Decoder::contents`]. Errors carry an [`Error`] inside.
#[derive(Debug)]
pub struct Contents<'a, R> {
    decoder: &'a mut Decoder<R>,
}

impl<R> Contents<'_, R> {
    /// How many bytes are still to come.
    pub fn remaining(&self) -> u64 {
        self.decoder.remaining_contents()
    }
}

impl<R: Read> Read for Contents<'_, R> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        Ok(self.decoder.read_contents(target)?)
    }
}

impl<R: Read> BufRead for Contents<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(self.decoder.contents_block(1)?)
    }

    fn consume(&mut self, count: usize) {
        self.decoder.consume_contents(count);
    }
}
