use std::io::{self, BufRead, Read, Seek};

use crate::{
    error::Error,
    name::EntryNameRef,
    parser::{LONGEST_STEP, Parser, Step},
    path::NarPath,
};

/// Default of [`DecodeOptions::max_depth`]. Trees in real stores stay below 64, stores written before
/// Nix had a limit may hold deeper ones, and an attacker pays 88 bytes per level.
pub const DEFAULT_MAX_DEPTH: usize = 4096;

/// The deepest node that current versions of Nix read and write (2.28.7, 2.34.7 and everything from
/// 2.35 on); the root is at depth 0. Deeper trees cannot be copied to such a host: set `max_depth` to
/// this to refuse them.
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
    /// Size of the archive in bytes, if it is known beforehand. It lets the decoder read whole blocks
    /// up to that size instead of as far as the grammar lets it be certain; an archive of another
    /// size is an error.
    pub nar_size: Option<u64>,
    /// Size in bytes of the only buffer between a reader and the decoder. At least 9 KiB are used, and
    /// never more than the announced size needs.
    pub buffer_size: usize,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self { max_depth: DEFAULT_MAX_DEPTH, nar_size: None, buffer_size: DEFAULT_BUFFER_SIZE }
    }
}

impl DecodeOptions {
    pub(crate) fn buffer(&self) -> Box<[u8]> {
        let enough = self.nar_size.map_or(usize::MAX, |size| usize::try_from(size).unwrap_or(usize::MAX));
        // Two steps, so that there is always room behind an incomplete one.
        vec![0; self.buffer_size.min(enough).max(2 * LONGEST_STEP)].into_boxed_slice()
    }
}

/// Whether the owner of a file may execute it: all that an archive knows of permissions.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Executable {
    /// An ordinary file.
    No,
    /// A program or script.
    Yes,
}

impl From<bool> for Executable {
    fn from(executable: bool) -> Self {
        if executable { Self::Yes } else { Self::No }
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
        executable: Executable,
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
/// use ncc_nar::{Decoder, Encoder, Event, Executable};
///
/// let mut encoder = Encoder::new(Vec::new());
/// encoder.directory()?;
/// encoder.entry("hello")?;
/// encoder.file(Executable::No, b"hi")?;
/// encoder.directory_end()?;
/// let nar = encoder.finish()?;
///
/// let mut decoder = Decoder::new(&nar[..]);
/// assert_eq!(decoder.next_event()?, Some(Event::Directory));
/// assert!(matches!(decoder.next_event()?, Some(Event::Entry(name)) if name.as_bytes() == b"hello"));
/// assert_eq!(decoder.next_event()?, Some(Event::Regular { executable: Executable::No, size: 2 }));
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
}

impl<R: Read> Decoder<R> {
    /// Decodes what `reader` yields, with default options.
    pub fn new(reader: R) -> Self {
        Self::with_options(reader, &DecodeOptions::default())
    }

    /// Decodes what `reader` yields.
    pub fn with_options(reader: R, options: &DecodeOptions) -> Self {
        Self { reader, parser: Parser::with_options(options), buffer: options.buffer(), start: 0, end: 0 }
    }

    /// The next piece of structure, or `None` after the last one. Contents that were not read are
    /// skipped, and checked to be there.
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, Error> {
        let (before, step) = self.next_step()?;
        Ok(self.event(before, step))
    }

    /// The next step that is an event, and where its input starts in the buffer.
    fn next_step(&mut self) -> Result<(usize, Step), Error> {
        loop {
            let before = self.start;
            let input = self.buffer.get(before..self.end).unwrap_or_default();
            let (consumed, step) = self.parser.step(input)?;
            self.start = before.saturating_add(consumed).min(self.end);
            match step {
                Step::More { needed, certain } => self.fill(needed, certain)?,
                Step::Contents => {}
                step => return Ok((before, step)),
            }
        }
    }

    fn event(&self, before: usize, step: Step) -> Option<Event<'_>> {
        let input = self.buffer.get(before..).unwrap_or_default();
        match step {
            Step::Directory => Some(Event::Directory),
            Step::Entry { name } => {
                Some(Event::Entry(EntryNameRef::known_valid(input.get(name).unwrap_or_default())))
            }
            Step::Regular { executable, size } => Some(Event::Regular { executable, size }),
            Step::Symlink { target } => {
                Some(Event::Symlink { target: input.get(target).unwrap_or_default() })
            }
            Step::DirectoryEnd => Some(Event::DirectoryEnd),
            Step::End | Step::More { .. } | Step::Contents => None,
        }
    }

    /// The rest of the contents of the file that the last event announced; nothing after any other.
    pub fn contents(&mut self) -> Contents<'_, R> {
        Contents { decoder: self }
    }

    /// A block of the current file's contents, empty at their end.
    fn contents_block(&mut self) -> Result<&[u8], Error> {
        let remaining = usize::try_from(self.parser.remaining_contents()).unwrap_or(usize::MAX);
        if remaining > 0 && self.available() == 0 {
            // As far as the grammar is certain: rest of the file and everything that closes it.
            let certain = self.parser.certain(1, self.parser.least_remaining_in_contents())?;
            self.fill(1, certain)?;
        }
        let block = self.start..self.end.min(self.start.saturating_add(remaining));
        Ok(self.buffer.get(block).unwrap_or_default())
    }

    fn consume_contents(&mut self, count: usize) {
        let count = self.parser.consume_contents(self.available().min(count));
        self.start = self.start.saturating_add(count).min(self.end);
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
            let certain = self.parser.certain(1, self.parser.least_remaining_in_contents())?;
            let wanted = wanted.min(usize::try_from(certain).unwrap_or(usize::MAX));
            let target = target.get_mut(..wanted).unwrap_or_default();
            let count = read_some(&mut self.reader, target).map_err(|source| self.read_error(source))?;
            if count == 0 {
                return Err(self.parser.unexpected_end(0));
            }
            self.parser.consume_contents(count);
            return Ok(count);
        }
        let block = self.contents_block()?;
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

impl<R: Read + Seek> Decoder<R> {
    /// Skips the rest of the current file's contents without reading them.
    ///
    /// Should the reader end before the contents do, the next event is an error.
    pub fn skip_contents(&mut self) -> Result<(), Error> {
        self.consume_contents(usize::MAX);
        while self.parser.remaining_contents() > 0 {
            let distance = i64::try_from(self.parser.remaining_contents()).unwrap_or(i64::MAX);
            self.reader.seek_relative(distance).map_err(|source| self.read_error(source))?;
            self.parser.consume_contents(usize::try_from(distance).unwrap_or(usize::MAX));
        }
        Ok(())
    }

    /// Goes on to the node at `path` without reading the contents of files on the way, and returns its
    /// event; `None` if there is no such node. If it is a file, [`contents`](Self::contents) are next.
    ///
    /// ```
    /// use std::io::{Cursor, Read};
    /// use ncc_nar::{Decoder, Event, NarPath};
    ///
    /// fn read_file(nar: &[u8], path: &NarPath) -> std::io::Result<Option<Vec<u8>>> {
    ///     let mut decoder = Decoder::new(Cursor::new(nar));
    ///     let Some(Event::Regular { .. }) = decoder.seek_to(path)? else { return Ok(None) };
    ///     let mut contents = Vec::new();
    ///     decoder.contents().read_to_end(&mut contents)?;
    ///     Ok(Some(contents))
    /// }
    /// # use ncc_nar::{Encoder, Executable};
    /// # let mut encoder = Encoder::new(Vec::new());
    /// # encoder.directory().unwrap();
    /// # encoder.entry("a").unwrap();
    /// # encoder.file(Executable::No, b"first").unwrap();
    /// # encoder.entry("b").unwrap();
    /// # encoder.file(Executable::No, b"second").unwrap();
    /// # encoder.directory_end().unwrap();
    /// # let nar = encoder.finish().unwrap();
    /// # assert_eq!(read_file(&nar, &NarPath::new("b").unwrap()).unwrap().unwrap(), b"second");
    /// # assert_eq!(read_file(&nar, &NarPath::new("c").unwrap()).unwrap(), None);
    /// ```
    pub fn seek_to(&mut self, path: &NarPath) -> Result<Option<Event<'_>>, Error> {
        loop {
            self.skip_contents()?;
            let (before, step) = self.next_step()?;
            match step {
                Step::Directory | Step::Regular { .. } | Step::Symlink { .. } if self.parser.is_at(path) => {
                    return Ok(self.event(before, step));
                }
                Step::End => return Ok(None),
                _ => {}
            }
        }
    }
}

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
}

pub(crate) fn read_some(reader: &mut impl Read, target: &mut [u8]) -> io::Result<usize> {
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
        Ok(self.decoder.contents_block()?)
    }

    fn consume(&mut self, count: usize) {
        self.decoder.consume_contents(count);
    }
}
