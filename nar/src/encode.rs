use std::io::{self, Read, Write};

use crate::{
    decode::{Event, Executable},
    error::{Error, NotCanonical},
    name::{check_name, check_target},
    parser::{MAGIC, padding},
    path::{NarPath, PathStack},
};

/// Default size of the encoder's blocks.
const DEFAULT_BLOCK_SIZE: usize = 128 * 1024;

/// A piece of contents smaller than this is not worth a read of its own: the block goes out first.
const SMALL_READ: usize = 4096;

/// Where an [`Encoder`] puts its blocks. Every [`Write`] is one; [`OwnedBlocks`] gives them away.
pub trait BlockSink {
    /// Takes a block and returns an empty vector for the next one, if possible with capacity.
    fn put(&mut self, block: Vec<u8>) -> io::Result<Vec<u8>>;

    /// Called once, after the last block.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> BlockSink for W {
    fn put(&mut self, mut block: Vec<u8>) -> io::Result<Vec<u8>> {
        self.write_all(&block)?;
        block.clear();
        Ok(block)
    }

    fn flush(&mut self) -> io::Result<()> {
        Write::flush(self)
    }
}

/// A [`BlockSink`] that hands each block to a closure without copying it, for example to send it to
/// another thread. The closure returns the vector to fill next: an old one, or `Vec::new()`.
///
/// ```
/// use ncc_nar::{Encoder, Executable, OwnedBlocks};
///
/// let mut blocks = Vec::new();
/// let mut encoder = Encoder::with_block_size(
///     OwnedBlocks(|block| {
///         blocks.push(block);
///         Ok(Vec::new())
///     }),
///     64,
/// );
/// encoder.file(Executable::No, [b'x'; 100])?;
/// encoder.finish()?;
/// assert_eq!(blocks.concat().len(), 216);
/// # Ok::<(), ncc_nar::Error>(())
/// ```
#[derive(Debug)]
pub struct OwnedBlocks<F>(pub F);

impl<F: FnMut(Vec<u8>) -> io::Result<Vec<u8>>> BlockSink for OwnedBlocks<F> {
    fn put(&mut self, block: Vec<u8>) -> io::Result<Vec<u8>> {
        (self.0)(block)
    }
}

/// A streaming encoder that writes the canonical form and refuses everything else.
///
/// Call the methods in the order of the archive: a node is one of [`file`](Self::file),
/// [`regular`](Self::regular) with its contents, [`symlink`](Self::symlink), or
/// [`directory`](Self::directory), then [`entry`](Self::entry) and a node for each entry in
/// ascending order, then [`directory_end`](Self::directory_end). Close with
/// [`finish`](Self::finish).
///
/// The archive goes out in blocks (see [`BlockSink`]); the last one goes with
/// [`finish`](Self::finish).
///
/// ```
/// use ncc_nar::Encoder;
///
/// let mut encoder = Encoder::new(Vec::new());
/// encoder.directory()?;
/// encoder.entry("bin")?;
/// encoder.symlink("/run/current-system/sw/bin")?;
/// encoder.directory_end()?;
/// let nar = encoder.finish()?;
/// assert_eq!(nar.len() % 8, 0);
///
/// let mut encoder = Encoder::new(Vec::new());
/// encoder.directory()?;
/// let error = encoder.entry("..").unwrap_err();
/// assert_eq!(error.to_string(), "cannot encode '.': an entry is called `.` or `..`");
/// # Ok::<(), ncc_nar::Error>(())
/// ```
#[derive(Debug)]
pub struct Encoder<S> {
    sink: S,
    block: Vec<u8>,
    block_size: usize,
    /// Bytes in earlier blocks, and bytes that were left out when only measuring.
    written: u64,
    expect: Expect,
    path: PathStack,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Expect {
    Root,
    Node,
    Contents {
        announced: u64,
        remaining: u64,
    },
    /// An entry or the end of the directory.
    Entry,
    /// The end of the archive.
    End,
}

/// How many bytes a reader gave, if not as many as were wanted.
#[cfg_attr(not(unix), allow(dead_code, reason = "packing looks at the counts"))]
pub(crate) enum Filled {
    Exactly,
    TooFew { found: u64 },
    TooMany { found: u64 },
}

/// What went wrong while contents were moved from a reader to the writer.
pub(crate) enum FillError {
    Read(io::Error),
    Encode(Error),
}

impl<S: BlockSink> Encoder<S> {
    /// Writes an archive to `sink` in blocks of 128 KiB.
    pub fn new(sink: S) -> Self {
        Self::with_block_size(sink, DEFAULT_BLOCK_SIZE)
    }

    /// Writes an archive to `sink` in blocks of `block_size` bytes. Blocks may be a little shorter, and
    /// longer only if they cannot hold a single entry. If it is the size of the archive, there is one
    /// block.
    pub fn with_block_size(sink: S, block_size: usize) -> Self {
        Self::with_block(sink, block_size, Vec::new())
    }

    /// The same with a vector to start with.
    pub(crate) fn with_block(sink: S, block_size: usize, block: Vec<u8>) -> Self {
        let block_size = block_size.max(1);
        let mut encoder =
            Self { sink, block, block_size, written: 0, expect: Expect::Root, path: PathStack::default() };
        encoder.prepare_block();
        encoder
    }

    fn prepare_block(&mut self) {
        self.block.clear();
        self.block.reserve_exact(self.block_size);
    }

    /// Starts a directory.
    pub fn directory(&mut self) -> Result<(), Error> {
        self.start_node("a directory", &[b"directory"])?;
        self.path.enter_directory();
        self.expect = Expect::Entry;
        Ok(())
    }

    /// Names the next entry of the innermost directory; its node must follow.
    pub fn entry(&mut self, name: impl AsRef<[u8]>) -> Result<(), Error> {
        let name = name.as_ref();
        if self.expect != Expect::Entry {
            return Err(self.out_of_place("an entry"));
        }
        check_name(name)
            .map_err(NotCanonical::from)
            .and_then(|()| Ok(self.path.check_order(name)?))
            .map_err(|kind| self.refuse_in_directory(kind))?;
        self.strings(&[b"entry", b"(", b"name", name, b"node"])?;
        self.path.set_entry(name);
        self.expect = Expect::Node;
        Ok(())
    }

    /// Ends the innermost directory.
    pub fn directory_end(&mut self) -> Result<(), Error> {
        if self.expect != Expect::Entry {
            return Err(self.out_of_place("the end of a directory"));
        }
        self.path.leave_directory();
        self.end_node()
    }

    /// Writes a symlink.
    pub fn symlink(&mut self, target: impl AsRef<[u8]>) -> Result<(), Error> {
        let target = target.as_ref();
        check_target(target).map_err(|error| self.refuse(error.into()))?;
        self.start_node("a symlink", &[b"symlink", b"target", target])?;
        self.end_node()
    }

    /// Writes a regular file whose contents are in memory.
    pub fn file(&mut self, executable: Executable, contents: impl AsRef<[u8]>) -> Result<(), Error> {
        let contents = contents.as_ref();
        self.regular(executable, contents.len() as u64)?;
        self.contents(contents)
    }

    /// Starts a regular file of `size` bytes. Exactly as many must follow through
    /// [`contents`](Self::contents) or [`contents_from`](Self::contents_from).
    pub fn regular(&mut self, executable: Executable, size: u64) -> Result<(), Error> {
        self.start_node(
            "a file",
            match executable {
                Executable::No => &[b"regular", b"contents"],
                Executable::Yes => &[b"regular", b"executable", b"", b"contents"],
            },
        )?;
        self.put(&size.to_le_bytes());
        self.expect = Expect::Contents { announced: size, remaining: size };
        if size == 0 { self.end_contents(0) } else { Ok(()) }
    }

    /// Writes some of the contents of the current file.
    pub fn contents(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        if bytes.is_empty() {
            return Ok(());
        }
        let Expect::Contents { announced, remaining } = self.expect else {
            return Err(self.out_of_place("contents"));
        };
        let Some(remaining) = remaining.checked_sub(bytes.len() as u64) else {
            return Err(self.refuse(NotCanonical::TooMuchContents { announced }));
        };
        while !bytes.is_empty() {
            if self.room() == 0 {
                self.put_block()?;
            }
            let (now, later) = bytes.split_at_checked(self.room()).unwrap_or((bytes, &[]));
            self.put(now);
            bytes = later;
        }
        self.expect = Expect::Contents { announced, remaining };
        if remaining == 0 { self.end_contents(announced) } else { Ok(()) }
    }

    /// Copies the rest of the contents of the current file from `reader`, which may have more, straight
    /// into the encoder's blocks. An error of `reader`, the end of its bytes included, leaves the
    /// archive incomplete.
    pub fn contents_from(&mut self, reader: &mut (impl Read + ?Sized)) -> io::Result<()> {
        // A read is preceded by zeroing as many bytes, so this should be about as much as it gives.
        const LARGEST_READ: usize = 32 * 1024;
        let read = |block: &mut Vec<u8>, wanted: usize| {
            let start = block.len();
            let end = start.saturating_add(wanted.min(LARGEST_READ));
            block.resize(end, 0);
            let count = reader.read(block.get_mut(start..).unwrap_or_default());
            block.truncate(start.saturating_add(*count.as_ref().unwrap_or(&0)).min(end));
            count.map(drop)
        };
        match self.fill_contents(read, false) {
            Ok(Filled::Exactly | Filled::TooMany { .. }) => Ok(()),
            Ok(Filled::TooFew { .. }) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(FillError::Read(error)) => Err(error),
            Err(FillError::Encode(error)) => Err(error.into()),
        }
    }

    /// Writes what a decoder has read. Contents are not part of events and must follow
    /// [`Event::Regular`] separately.
    ///
    /// ```
    /// use ncc_nar::{Decoder, Encoder};
    ///
    /// fn copy(from: impl std::io::Read, to: impl std::io::Write) -> std::io::Result<()> {
    ///     let (mut decoder, mut encoder) = (Decoder::new(from), Encoder::new(to));
    ///     while let Some(event) = decoder.next_event()? {
    ///         encoder.event(&event)?;
    ///         encoder.contents_from(&mut decoder.contents())?;
    ///     }
    ///     encoder.finish()?;
    ///     Ok(())
    /// }
    /// # let mut encoder = Encoder::new(Vec::new());
    /// # encoder.file(ncc_nar::Executable::Yes, b"hi").unwrap();
    /// # let nar = encoder.finish().unwrap();
    /// # let mut copied = Vec::new();
    /// # copy(&nar[..], &mut copied).unwrap();
    /// # assert_eq!(copied, nar);
    /// ```
    pub fn event(&mut self, event: &Event<'_>) -> Result<(), Error> {
        match event {
            Event::Directory => self.directory(),
            Event::Entry(name) => self.entry(name),
            Event::Regular { executable, size } => self.regular(*executable, *size),
            Event::Symlink { target } => self.symlink(target),
            Event::DirectoryEnd => self.directory_end(),
        }
    }

    /// Puts the last block, flushes and returns the sink. An error if the archive is not complete.
    pub fn finish(self) -> Result<S, Error> {
        self.finish_reusably().map(|(sink, _)| sink)
    }

    /// The same; returns the last vector too.
    pub(crate) fn finish_reusably(mut self) -> Result<(S, Vec<u8>), Error> {
        match self.expect {
            Expect::End => {}
            Expect::Contents { announced, remaining } => {
                let missing = remaining;
                return Err(self.refuse(NotCanonical::MissingContents { announced, missing }));
            }
            _ => return Err(self.out_of_place("the end of the archive")),
        }
        self.put_block()?;
        match self.sink.flush() {
            Ok(()) => Ok((self.sink, self.block)),
            Err(source) => Err(Error::WriteArchive { offset: self.written, source }),
        }
    }

    /// How many bytes the archive has so far, what is in the current block included.
    pub fn position(&self) -> u64 {
        self.written.saturating_add(self.block.len() as u64)
    }

    /// Lets `read` append to the block until the contents of the current file are complete; it is told
    /// how many bytes are wanted and may give more if the vector has room. With `probe` one byte more
    /// than the rest of the file is wanted, to find out for free whether there is one.
    pub(crate) fn fill_contents(
        &mut self,
        mut read: impl FnMut(&mut Vec<u8>, usize) -> io::Result<()>,
        probe: bool,
    ) -> Result<Filled, FillError> {
        let (announced, mut remaining) = match self.expect {
            Expect::Contents { announced, remaining } => (announced, remaining),
            _ => (0, 0),
        };
        while remaining > 0 || probe {
            let wanted = usize::try_from(remaining).unwrap_or(usize::MAX).saturating_add(usize::from(probe));
            if self.room() < wanted.min(SMALL_READ) {
                self.put_block().map_err(FillError::Encode)?;
            }
            let wanted = wanted.min(self.room().max(1));
            let start = self.block.len();
            match read(&mut self.block, wanted) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(FillError::Read(error)),
            }
            let count = self.block.len().saturating_sub(start);
            let Some(left) = remaining.checked_sub(count as u64) else {
                self.block.truncate(start);
                return Ok(Filled::TooMany { found: announced.saturating_add(1) });
            };
            remaining = left;
            if let Expect::Contents { remaining: counted, .. } = &mut self.expect {
                *counted = left;
            }
            // A short read of a file that ends where it should: it was asked for more.
            if remaining == 0 && count < wanted {
                break;
            }
            if count == 0 {
                return Ok(Filled::TooFew { found: announced.saturating_sub(remaining) });
            }
        }
        if matches!(self.expect, Expect::Contents { .. }) {
            self.end_contents(announced).map_err(FillError::Encode)?;
        }
        Ok(Filled::Exactly)
    }

    /// Counts the contents of the current file as written without writing them.
    #[cfg(unix)]
    pub(crate) fn pretend_contents(&mut self) -> Result<(), Error> {
        match self.expect {
            Expect::Contents { announced, remaining } => {
                self.written = self.written.saturating_add(remaining);
                self.end_contents(announced)
            }
            _ => Ok(()),
        }
    }

    fn start_node(&mut self, call: &'static str, strings: &[&[u8]]) -> Result<(), Error> {
        match self.expect {
            Expect::Root => self.strings(&[MAGIC, b"(", b"type"])?,
            Expect::Node => self.strings(&[b"(", b"type"])?,
            _ => return Err(self.out_of_place(call)),
        }
        self.strings(strings)
    }

    fn end_contents(&mut self, size: u64) -> Result<(), Error> {
        self.put_padding(size);
        self.end_node()
    }

    fn end_node(&mut self) -> Result<(), Error> {
        if self.path.depth() == 0 {
            self.expect = Expect::End;
            self.strings(&[b")"])
        } else {
            self.expect = Expect::Entry;
            self.strings(&[b")", b")"])
        }
    }

    fn strings(&mut self, strings: &[&[u8]]) -> Result<(), Error> {
        let size = strings.iter().fold(0_usize, |size, string| size.saturating_add(encoded_size(string)));
        if self.room() < size {
            self.put_block()?;
        }
        for string in strings {
            let length = string.len() as u64;
            self.put(&length.to_le_bytes());
            self.put(string);
            self.put_padding(length);
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) {
        self.block.extend_from_slice(bytes);
    }

    fn put_padding(&mut self, length: u64) {
        let zeroes = [0; 8];
        self.put(zeroes.get(..usize::from(padding(length))).unwrap_or_default());
    }

    /// How many bytes the block may still grow by.
    fn room(&self) -> usize {
        self.block_size.saturating_sub(self.block.len())
    }

    fn put_block(&mut self) -> Result<(), Error> {
        if self.block.is_empty() {
            return Ok(());
        }
        let size = self.block.len() as u64;
        match self.sink.put(std::mem::take(&mut self.block)) {
            Ok(next) => {
                self.block = next;
                self.prepare_block();
                self.written = self.written.saturating_add(size);
                Ok(())
            }
            Err(source) => Err(Error::WriteArchive { offset: self.written, source }),
        }
    }

    fn refuse(&self, kind: NotCanonical) -> Error {
        Error::NotCanonical { path: NarPath::known_valid(self.path.node()), kind }
    }

    fn refuse_in_directory(&self, kind: NotCanonical) -> Error {
        Error::NotCanonical { path: NarPath::known_valid(self.path.directory()), kind }
    }

    fn out_of_place(&self, call: &'static str) -> Error {
        let expected = match self.expect {
            Expect::Root => "the root node",
            Expect::Node => "the node of an entry",
            Expect::Contents { .. } => "contents",
            Expect::Entry => "an entry or the end of the directory",
            Expect::End => "nothing more",
        };
        self.refuse(NotCanonical::OutOfPlace { call, expected })
    }
}

/// Length, bytes and padding.
fn encoded_size(string: &[u8]) -> usize {
    let padding = padding(string.len() as u64);
    string.len().saturating_add(usize::from(padding)).saturating_add(8)
}
