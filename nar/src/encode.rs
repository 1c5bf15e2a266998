use std::{
    cmp::Ordering,
    io::{self, Read, Write},
};

use crate::{
    decode::Event,
    error::{Error, NotCanonical},
    name::{check_name, check_target},
    parser::{MAGIC, padding},
    path::PathStack,
};

/// Default size of the encoder's buffer, which is also the size of its writes.
const DEFAULT_BUFFER_SIZE: usize = 128 * 1024;

/// Structure that always fits at once: no event has more than this, a longest target included.
const MAX_EVENT: usize = 4096 + 512;

/// A streaming encoder that writes the canonical form and refuses everything else.
///
/// Call the methods in the order of the archive: a node is one of [`file`](Self::file),
/// [`regular`](Self::regular) with its contents, [`symlink`](Self::symlink), or
/// [`directory`](Self::directory), then [`entry`](Self::entry) and a node for each entry in
/// ascending order, then [`directory_end`](Self::directory_end). Close with
/// [`finish`](Self::finish).
///
/// Writes are collected in one buffer; nothing is certain to have been written before
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
pub struct Encoder<W> {
    writer: W,
    buffer: Box<[u8]>,
    filled: usize,
    /// Bytes that the writer took, or that were left out when only measuring.
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

impl<W: Write> Encoder<W> {
    /// Writes an archive to `writer`, in blocks.
    pub fn new(writer: W) -> Self {
        Self::with_buffer_size(writer, DEFAULT_BUFFER_SIZE)
    }

    /// The same with blocks of `size` bytes; at least 8 KiB are used.
    pub fn with_buffer_size(writer: W, size: usize) -> Self {
        Self {
            writer,
            buffer: vec![0; size.max(2 * MAX_EVENT)].into_boxed_slice(),
            filled: 0,
            written: 0,
            expect: Expect::Root,
            path: PathStack::default(),
        }
    }

    /// Starts a directory.
    pub fn directory(&mut self) -> Result<(), Error> {
        self.start_node("a directory")?;
        self.strings(&[b"directory"]);
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
        let checked = check_name(name).map_err(NotCanonical::from);
        let ordered = checked.and_then(|()| match self.path.compare_to_previous(name) {
            None | Some((Ordering::Greater, _)) => Ok(()),
            Some((Ordering::Equal, _)) => Err(NotCanonical::Duplicate { name: name.into() }),
            Some((Ordering::Less, previous)) => {
                let (previous, name) = (previous.into(), name.into());
                Err(NotCanonical::OutOfOrder { previous, name })
            }
        });
        ordered.map_err(|kind| self.refuse_in_directory(kind))?;
        self.reserve()?;
        self.strings(&[b"entry", b"(", b"name", name, b"node"]);
        self.path.set_entry(name);
        self.expect = Expect::Node;
        Ok(())
    }

    /// Ends the innermost directory.
    pub fn directory_end(&mut self) -> Result<(), Error> {
        if self.expect != Expect::Entry {
            return Err(self.out_of_place("the end of a directory"));
        }
        self.reserve()?;
        self.path.leave_directory();
        self.end_node();
        Ok(())
    }

    /// Writes a symlink.
    pub fn symlink(&mut self, target: impl AsRef<[u8]>) -> Result<(), Error> {
        let target = target.as_ref();
        check_target(target).map_err(|error| self.refuse(error.into()))?;
        self.start_node("a symlink")?;
        self.strings(&[b"symlink", b"target", target]);
        self.end_node();
        Ok(())
    }

    /// Writes a regular file whose contents are in memory.
    pub fn file(&mut self, executable: bool, contents: impl AsRef<[u8]>) -> Result<(), Error> {
        let contents = contents.as_ref();
        self.regular(executable, contents.len() as u64)?;
        self.contents(contents)
    }

    /// Starts a regular file of `size` bytes. Exactly as many must follow through
    /// [`contents`](Self::contents) or [`contents_from`](Self::contents_from).
    pub fn regular(&mut self, executable: bool, size: u64) -> Result<(), Error> {
        self.start_node("a file")?;
        if executable {
            self.strings(&[b"regular", b"executable", b"", b"contents"]);
        } else {
            self.strings(&[b"regular", b"contents"]);
        }
        self.put(&size.to_le_bytes());
        self.expect = Expect::Contents { announced: size, remaining: size };
        if size == 0 {
            self.end_contents(0);
        }
        Ok(())
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
            if self.filled == self.buffer.len() {
                self.flush_buffer()?;
            }
            if self.filled == 0 && bytes.len() >= self.buffer.len() {
                self.write(bytes)?;
                break;
            }
            let room = self.buffer.len().saturating_sub(self.filled);
            let (now, later) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            self.put(now);
            bytes = later;
        }
        self.expect = Expect::Contents { announced, remaining };
        if remaining == 0 {
            self.reserve()?;
            self.end_contents(announced);
        }
        Ok(())
    }

    /// Copies the rest of the contents of the current file from `reader`, which may have more, by way
    /// of the encoder's own buffer. An error of `reader`, the end of its bytes included, leaves the
    /// archive incomplete.
    pub fn contents_from(&mut self, reader: &mut (impl Read + ?Sized)) -> io::Result<()> {
        match self.fill_contents(|buffer| reader.read(buffer), false) {
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
    /// # encoder.file(true, b"hi").unwrap();
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

    /// Writes what is still in the buffer, flushes and returns the writer. An error if the archive is
    /// not complete.
    pub fn finish(mut self) -> Result<W, Error> {
        match self.expect {
            Expect::End => {}
            Expect::Contents { announced, remaining } => {
                let missing = remaining;
                return Err(self.refuse(NotCanonical::MissingContents { announced, missing }));
            }
            _ => return Err(self.out_of_place("the end of the archive")),
        }
        self.flush_buffer()?;
        match self.writer.flush() {
            Ok(()) => Ok(self.writer),
            Err(source) => Err(Error::WriteArchive { offset: self.written, source }),
        }
    }

    /// How many bytes the archive has so far, what is in the buffer included.
    pub fn position(&self) -> u64 {
        self.written.saturating_add(self.filled as u64)
    }

    /// Lets `read` fill the buffer until the contents of the current file are complete. With `probe`
    /// it is asked for one byte more than that, to find out for free whether there is one.
    pub(crate) fn fill_contents(
        &mut self,
        mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
        probe: bool,
    ) -> Result<Filled, FillError> {
        let probe = usize::from(probe);
        let (announced, mut remaining) = match self.expect {
            Expect::Contents { announced, remaining } => (announced, remaining),
            _ => (0, 0),
        };
        loop {
            if remaining == 0 && probe == 0 {
                break;
            }
            if self.buffer.len().saturating_sub(self.filled) < MAX_EVENT {
                self.flush_buffer().map_err(FillError::Encode)?;
            }
            let room = self.buffer.len().saturating_sub(self.filled);
            let wanted = usize::try_from(remaining).unwrap_or(usize::MAX).saturating_add(probe).min(room);
            let end = self.filled.saturating_add(wanted);
            let count = match read(self.buffer.get_mut(self.filled..end).unwrap_or_default()) {
                Ok(count) => count.min(wanted),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(FillError::Read(error)),
            };
            let Some(left) = remaining.checked_sub(count as u64) else {
                return Ok(Filled::TooMany { found: announced.saturating_add(1) });
            };
            self.filled = self.filled.saturating_add(count);
            remaining = left;
            if let Expect::Contents { remaining: counted, .. } = &mut self.expect {
                *counted = left;
            }
            if count == 0 {
                if remaining == 0 {
                    break;
                }
                let found = announced.saturating_sub(remaining);
                return Ok(Filled::TooFew { found });
            }
            // A short read of a file that ends where it should: it was asked for more.
            if remaining == 0 && count < wanted {
                break;
            }
        }
        if matches!(self.expect, Expect::Contents { .. }) {
            self.reserve().map_err(FillError::Encode)?;
            self.end_contents(announced);
        }
        Ok(Filled::Exactly)
    }

    /// Counts the contents of the current file as written without writing them.
    #[cfg(unix)]
    pub(crate) fn pretend_contents(&mut self) {
        if let Expect::Contents { announced, remaining } = self.expect {
            self.written = self.written.saturating_add(remaining);
            self.end_contents(announced);
        }
    }

    fn start_node(&mut self, call: &'static str) -> Result<(), Error> {
        match self.expect {
            Expect::Root => {
                self.reserve()?;
                self.strings(&[MAGIC, b"(", b"type"]);
            }
            Expect::Node => {
                self.reserve()?;
                self.strings(&[b"(", b"type"]);
            }
            _ => return Err(self.out_of_place(call)),
        }
        Ok(())
    }

    fn end_contents(&mut self, size: u64) {
        let zeroes = [0; 8];
        self.put(zeroes.get(..usize::from(padding(size))).unwrap_or_default());
        self.end_node();
    }

    fn end_node(&mut self) {
        self.strings(&[b")"]);
        if self.path.depth() == 0 {
            self.expect = Expect::End;
        } else {
            self.strings(&[b")"]);
            self.expect = Expect::Entry;
        }
    }

    /// Makes room for any event, so that the parts of it can be put without asking again.
    fn reserve(&mut self) -> Result<(), Error> {
        if self.buffer.len().saturating_sub(self.filled) < MAX_EVENT {
            self.flush_buffer()?;
        }
        Ok(())
    }

    fn strings(&mut self, strings: &[&[u8]]) {
        let zeroes = [0; 8];
        for string in strings {
            let length = string.len() as u64;
            self.put(&length.to_le_bytes());
            self.put(string);
            self.put(zeroes.get(..usize::from(padding(length))).unwrap_or_default());
        }
    }

    /// Appends to the buffer, where there is room: `reserve` came before.
    fn put(&mut self, bytes: &[u8]) {
        let end = self.filled.saturating_add(bytes.len());
        if let Some(target) = self.buffer.get_mut(self.filled..end) {
            target.copy_from_slice(bytes);
            self.filled = end;
        } else {
            debug_assert!(false, "no room was reserved");
        }
    }

    fn flush_buffer(&mut self) -> Result<(), Error> {
        let bytes = self.buffer.get(..self.filled).unwrap_or_default();
        match self.writer.write_all(bytes) {
            Ok(()) => {
                self.written = self.written.saturating_add(self.filled as u64);
                self.filled = 0;
                Ok(())
            }
            Err(source) => Err(Error::WriteArchive { offset: self.written, source }),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match self.writer.write_all(bytes) {
            Ok(()) => {
                self.written = self.written.saturating_add(bytes.len() as u64);
                Ok(())
            }
            Err(source) => Err(Error::WriteArchive { offset: self.written, source }),
        }
    }

    fn refuse(&self, kind: NotCanonical) -> Error {
        Error::NotCanonical { path: self.path.node().into(), kind }
    }

    fn refuse_in_directory(&self, kind: NotCanonical) -> Error {
        Error::NotCanonical { path: self.path.directory().into(), kind }
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
