use std::{
    ffi::{CString, OsStr, OsString},
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::Path,
};

use rustix::{
    fs::{
        AtFlags, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, fchmod, futimens, mkdirat, openat,
        symlinkat, utimensat,
    },
    io::Errno,
};

use crate::{
    attributes,
    case_hack::{CaseHack, NamesOnDisk},
    decode::{DecodeOptions, Executable, read_some},
    directories::{DIRECTORY, Directories},
    error::{Error, Operation},
    parser::{Parser, Step},
    path::NarPath,
};

/// What unpacked objects look like on disk.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Metadata {
    /// As any program creates them: modes as the umask has it (an executable has the execute bits
    /// that the umask allows), times of now.
    #[default]
    Plain,
    /// As the objects of a Nix store: mode 0444, or 0555 for executables and directories; modified
    /// one second after the epoch, symlinks too; no extended attributes inherited from the directory
    /// around. The owner is the one who unpacks.
    Canonical,
}

/// Default of [`UnpackOptions::ignored_acls`], as in Nix.
pub const DEFAULT_IGNORED_ACLS: [&str; 3] = ["security.csm", "security.selinux", "system.nfs4_acl"];

/// How to unpack.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UnpackOptions {
    /// Modes and times. [`Metadata::Plain`] unless set.
    pub metadata: Metadata,
    /// Whether names that differ in case only get a suffix.
    pub case_hack: CaseHack,
    /// Extended attributes that [`Metadata::Canonical`] does not remove, by their full names: some
    /// file systems list attributes that nobody may remove. [`DEFAULT_IGNORED_ACLS`] unless set. Nix
    /// calls the setting `ignored-acls`.
    pub ignored_acls: Vec<String>,
    /// Limits, and the size of the archive, if known: it saves small reads.
    pub decode: DecodeOptions,
}

impl Default for UnpackOptions {
    fn default() -> Self {
        Self {
            metadata: Metadata::default(),
            case_hack: CaseHack::default(),
            ignored_acls: DEFAULT_IGNORED_ACLS.map(String::from).into(),
            decode: DecodeOptions::default(),
        }
    }
}

/// Restores the archive that `reader` yields as `target`, and returns the size of the archive.
///
/// Nothing may exist at `target`; its parent directory must. Everything is created through directory
/// handles and never replaces or follows anything, so that no archive can write outside of
/// `target`. Memory is constant (with the case hack it grows with the names in the directories that
/// are open); at most 16 directories are open at once, however deep the tree.
///
/// Exactly the archive is taken from `reader`, as [`Decoder`](crate::Decoder) describes.
///
/// After an error, what was created so far is left; [`remove`](crate::remove) deletes it. Nothing
/// was created if the error is that `target` exists ([`Error::io_kind`] is `AlreadyExists` and the
/// path is `target`).
///
/// ```
/// # let directory = tempfile::tempdir().unwrap();
/// # let target = directory.path().join("file");
/// # let mut encoder = ncc_nar::Encoder::new(Vec::new());
/// # encoder.file(ncc_nar::Executable::No, b"hi").unwrap();
/// # let nar = encoder.finish().unwrap();
/// use ncc_nar::{Metadata, UnpackOptions, unpack};
///
/// let mut options = UnpackOptions::default();
/// options.metadata = Metadata::Canonical;
/// assert_eq!(unpack(&nar[..], &target, &options)?, 120);
/// assert_eq!(std::fs::read(&target).unwrap(), b"hi");
/// # Ok::<(), ncc_nar::Error>(())
/// ```
pub fn unpack(reader: impl Read, target: &Path, options: &UnpackOptions) -> Result<u64, Error> {
    read_into(Unpacker::new(target, options)?, reader, options)
}

/// [`unpack`] with a target that is the entry `name` of a directory that is open, so that one handle
/// serves for a whole store. Paths in errors start with `name`.
pub fn unpack_at(
    reader: impl Read,
    directory: impl AsFd,
    name: impl AsRef<OsStr>,
    options: &UnpackOptions,
) -> Result<u64, Error> {
    read_into(Unpacker::new_at(directory, name, options)?, reader, options)
}

fn read_into(
    mut unpacker: Unpacker<impl AsFd>,
    mut reader: impl Read,
    options: &UnpackOptions,
) -> Result<u64, Error> {
    let mut buffer = options.decode.buffer();
    while !unpacker.is_complete() {
        let wanted = usize::try_from(unpacker.certain_bytes()).unwrap_or(usize::MAX).min(buffer.len());
        let room = buffer.get_mut(..wanted).unwrap_or_default();
        match read_some(&mut reader, room) {
            Ok(0) => break,
            Ok(count) => unpacker.push(room.get(..count).unwrap_or_default())?,
            Err(source) => {
                let (offset, path) = (unpacker.position(), unpacker.path());
                return Err(Error::ReadArchive { offset, path, source });
            }
        };
    }
    unpacker.finish()
}

/// Restores an archive from bytes that are pushed into it as they arrive: [`unpack`] for programs that
/// cannot wait in a [`Read`], such as asynchronous ones.
///
/// Contents of files are written straight from the pushed bytes, so pushing large blocks is worth
/// it. Only an incomplete piece of structure at the end of a block is kept, at most 4.5 KiB.
///
/// After an error, or if it is dropped before the end, what was created so far is left at the target
/// (files and directories that are not complete are private to the owner under
/// [`Metadata::Canonical`]); [`remove`](crate::remove) deletes it.
///
/// As a [`Write`], it fails with an [`io::Error`] that has the [`Error`] inside, and takes nothing
/// more after the end of the archive. [`push`](Self::push) says the same in types.
///
/// ```
/// # let directory = tempfile::tempdir().unwrap();
/// # let target = directory.path().join("file");
/// # let mut encoder = ncc_nar::Encoder::new(Vec::new());
/// # encoder.file(ncc_nar::Executable::No, b"hi").unwrap();
/// # let nar = encoder.finish().unwrap();
/// use ncc_nar::{UnpackOptions, Unpacker};
///
/// let mut unpacker = Unpacker::new(&target, &UnpackOptions::default())?;
/// for block in nar.chunks(50) {
///     unpacker.push(block)?;
/// }
/// assert_eq!(unpacker.finish()?, 120);
/// assert_eq!(std::fs::read(&target).unwrap(), b"hi");
/// # Ok::<(), ncc_nar::Error>(())
/// ```
#[derive(Debug)]
pub struct Unpacker<D = OwnedFd> {
    parser: Parser,
    tree: Tree<D>,
    /// Bytes that were taken and are not yet enough for the parser.
    pending: Vec<u8>,
    /// How many would be.
    needed: usize,
    /// How many belong to the archive in any case.
    certain: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Incomplete,
    Complete,
    Failed,
}

impl Unpacker {
    /// Unpacks to `target`, where nothing may exist; its parent directory must.
    pub fn new(target: &Path, options: &UnpackOptions) -> Result<Self, Error> {
        let (directories, name) = Directories::around(target)?;
        Self::in_directories(directories, name, options)
    }
}

impl<D: AsFd> Unpacker<D> {
    /// Unpacks to the entry `name` of `directory`, where no such entry may exist. Paths in errors start
    /// with `name`. The handle may be borrowed, owned or shared (`BorrowedFd`, `OwnedFd`,
    /// `Arc<OwnedFd>`).
    pub fn new_at(directory: D, name: impl AsRef<OsStr>, options: &UnpackOptions) -> Result<Self, Error> {
        let (directories, name) = Directories::at(directory, name.as_ref())?;
        Self::in_directories(directories, name, options)
    }

    fn in_directories(
        directories: Directories<D>,
        name: CString,
        options: &UnpackOptions,
    ) -> Result<Self, Error> {
        let mut unpacker = Self {
            parser: Parser::with_options(&options.decode),
            tree: Tree { directories, names: Vec::new(), name, file: None, options: options.clone() },
            pending: Vec::new(),
            needed: 0,
            certain: 0,
            state: State::Incomplete,
        };
        // Finds out how many bytes come first.
        unpacker.parse(&[])?;
        Ok(unpacker)
    }

    /// Unpacks what `bytes` hold and returns how many of them belong to the archive: all, unless it
    /// ends among them.
    ///
    /// After an error the unpacker is of no more use.
    pub fn push(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        if self.state == State::Failed {
            return Err(Error::FailedBefore);
        }
        let pushed = self.push_some(bytes);
        if pushed.is_err() {
            self.state = State::Failed;
        }
        pushed
    }

    /// How many bytes of the archive have been taken.
    pub fn position(&self) -> u64 {
        self.parser.position().saturating_add(self.pending.len() as u64)
    }

    /// How many bytes the archive still has at least, if it is well-formed; exactly how many, if its
    /// size was announced. Zero once it is complete.
    pub fn certain_bytes(&self) -> u64 {
        self.certain.saturating_sub(self.pending.len() as u64)
    }

    /// Whether the archive has ended.
    pub fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    /// The current node.
    pub fn path(&self) -> NarPath {
        self.parser.path()
    }

    /// Returns the size of the archive; an error if it is not complete.
    pub fn finish(self) -> Result<u64, Error> {
        match self.state {
            State::Complete => Ok(self.parser.position()),
            State::Incomplete => Err(self.parser.unexpected_end(self.pending.len())),
            State::Failed => Err(Error::FailedBefore),
        }
    }

    fn push_some(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let mut rest = bytes;
        // First what is pending, with as much as it lacks and no more.
        while !self.pending.is_empty() {
            let missing = self.needed.saturating_sub(self.pending.len()).min(rest.len());
            let (now, later) = rest.split_at_checked(missing).unwrap_or((rest, &[]));
            self.pending.extend_from_slice(now);
            rest = later;
            if self.pending.len() < self.needed {
                return Ok(bytes.len());
            }
            let mut pending = std::mem::take(&mut self.pending);
            let consumed = self.parse(&pending)?;
            pending.drain(..consumed.min(pending.len()));
            self.pending = pending;
        }
        if self.state == State::Incomplete {
            let consumed = self.parse(rest)?;
            rest = rest.get(consumed..).unwrap_or_default();
            if self.state == State::Incomplete {
                self.pending.extend_from_slice(rest);
                rest = &[];
            }
        }
        Ok(bytes.len().saturating_sub(rest.len()))
    }

    /// Unpacks from `input` until the parser needs more than that, or the archive ends. Returns how
    /// many bytes were consumed.
    fn parse(&mut self, input: &[u8]) -> Result<usize, Error> {
        let mut consumed = 0_usize;
        loop {
            let rest = input.get(consumed..).unwrap_or_default();
            let (used, step) = self.parser.step(rest)?;
            consumed = consumed.saturating_add(used);
            match step {
                Step::More { needed, certain } if rest.len().saturating_sub(used) < needed => {
                    (self.needed, self.certain) = (needed, certain);
                    return Ok(consumed);
                }
                Step::More { .. } => {}
                Step::Directory => self.tree.directory()?,
                Step::Entry { name } => self.tree.entry(rest.get(name).unwrap_or_default())?,
                Step::Regular { executable, size } => self.tree.create_file(executable, size == 0)?,
                Step::Contents => {
                    let contents = rest.get(..used).unwrap_or_default();
                    self.tree.contents(contents, self.parser.remaining_contents() == 0)?;
                }
                Step::Symlink { target } => self.tree.symlink(rest.get(target).unwrap_or_default())?,
                Step::DirectoryEnd => self.tree.directory_end()?,
                Step::End => {
                    self.state = State::Complete;
                    (self.needed, self.certain) = (0, 0);
                    return Ok(consumed);
                }
            }
        }
    }
}

impl<D: AsFd> Write for Unpacker<D> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(self.push(bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The one modification time in a Nix store. Access times are left alone.
const CANONICAL_TIMES: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    last_modification: Timespec { tv_sec: 1, tv_nsec: 0 },
};

const READ_ONLY: Mode = Mode::from_raw_mode(0o444);
const READ_AND_EXECUTE: Mode = Mode::from_raw_mode(0o555);

/// What has been made on disk so far, and what is being made.
#[derive(Debug)]
struct Tree<D> {
    directories: Directories<D>,
    /// The names in each open directory, for the case hack.
    names: Vec<NamesOnDisk>,
    /// The name on disk of the current node.
    name: CString,
    /// The file whose contents are expected.
    file: Option<(File, Executable)>,
    options: UnpackOptions,
}

impl<D: AsFd> Tree<D> {
    fn canonical(&self) -> bool {
        self.options.metadata == Metadata::Canonical
    }

    fn entry(&mut self, name: &[u8]) -> Result<(), Error> {
        let on_disk = match (self.options.case_hack, self.names.last_mut()) {
            (CaseHack::On, Some(names)) => names.add(name),
            _ => Ok(name.to_vec()),
        };
        // The parser has let no NUL pass.
        let c_string = |bytes| CString::new(bytes).unwrap_or_default();
        match on_disk {
            Ok(on_disk) => {
                self.name = c_string(on_disk);
                Ok(())
            }
            Err(other) => Err(Error::CaseHackCollision {
                path: self.directories.path_of(&c_string(name.to_vec())),
                other: OsString::from_vec(other),
            }),
        }
    }

    fn directory(&mut self) -> Result<(), Error> {
        let parent = self.directories.current();
        // Private until it is complete.
        let mode = if self.canonical() { 0o700 } else { 0o777 };
        mkdirat(parent, &self.name, Mode::from_raw_mode(mode))
            .map_err(|errno| self.not_created(Operation::CreateDirectory, errno))?;
        let fd = openat(parent, &self.name, DIRECTORY, Mode::empty())
            .map_err(|errno| self.failed(Operation::Open, errno))?;
        self.disinherit(&fd)?;
        self.directories.push(fd, &self.name);
        if self.options.case_hack == CaseHack::On {
            self.names.push(NamesOnDisk::default());
        }
        Ok(())
    }

    fn directory_end(&mut self) -> Result<(), Error> {
        if self.canonical() {
            let fd = self.directories.current();
            let failed = |operation, errno| self.directories.failed_here(operation, errno);
            fchmod(fd, READ_AND_EXECUTE).map_err(|errno| failed(Operation::SetMode, errno))?;
            // After everything that changes the directory.
            futimens(fd, &CANONICAL_TIMES).map_err(|errno| failed(Operation::SetTime, errno))?;
        }
        self.names.pop();
        self.directories.pop()?;
        Ok(())
    }

    fn symlink(&self, target: &[u8]) -> Result<(), Error> {
        let parent = self.directories.current();
        symlinkat(target, parent, &self.name)
            .map_err(|errno| self.not_created(Operation::CreateSymlink, errno))?;
        if self.canonical() {
            utimensat(parent, &self.name, &CANONICAL_TIMES, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|errno| self.failed(Operation::SetTime, errno))?;
        }
        Ok(())
    }

    fn create_file(&mut self, executable: Executable, is_empty: bool) -> Result<(), Error> {
        let mode = match (self.options.metadata, executable) {
            (Metadata::Plain, Executable::No) => 0o666,
            (Metadata::Plain, Executable::Yes) => 0o777,
            (Metadata::Canonical, _) => 0o600,
        };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(self.directories.current(), &self.name, flags, Mode::from_raw_mode(mode))
            .map_err(|errno| self.not_created(Operation::CreateFile, errno))?;
        self.disinherit(&fd)?;
        self.file = Some((File::from(fd), executable));
        self.contents(&[], is_empty)
    }

    fn contents(&mut self, bytes: &[u8], is_end: bool) -> Result<(), Error> {
        let Some((file, executable)) = &mut self.file else { return Ok(()) };
        file.write_all(bytes).map_err(|source| Error::FileSystem {
            operation: Operation::Write,
            path: self.directories.path_of(&self.name),
            source,
        })?;
        if is_end {
            let executable = *executable;
            if let Some((file, _)) = self.file.take() {
                self.finish_file(&file, executable)?;
            }
        }
        Ok(())
    }

    fn finish_file(&self, file: &File, executable: Executable) -> Result<(), Error> {
        if !self.canonical() {
            return Ok(());
        }
        let mode = match executable {
            Executable::No => READ_ONLY,
            Executable::Yes => READ_AND_EXECUTE,
        };
        fchmod(file, mode).map_err(|errno| self.failed(Operation::SetMode, errno))?;
        futimens(file, &CANONICAL_TIMES).map_err(|errno| self.failed(Operation::SetTime, errno))
    }

    /// Extended attributes (a default ACL) come from the directory around. Those of the root are
    /// removed before anything is created in it, and everything below has nothing to inherit.
    fn disinherit(&self, object: &OwnedFd) -> Result<(), Error> {
        if !self.canonical() || self.directories.depth() > 0 {
            return Ok(());
        }
        attributes::remove(object.as_fd(), &self.options.ignored_acls).map_err(|(attribute, errno)| {
            let path = self.directories.path_of(&self.name);
            match attribute {
                Some(attribute) => Error::Attribute { attribute, path, source: errno.into() },
                None => self.failed(Operation::ListAttributes, errno),
            }
        })
    }

    fn failed(&self, operation: Operation, errno: Errno) -> Error {
        self.directories.failed(operation, &self.name, errno)
    }

    /// Why the current node could not be created. Names in an archive differ and the directory is new:
    /// if one is taken all the same, then by what is the same name to the file system.
    fn not_created(&self, operation: Operation, errno: Errno) -> Error {
        if errno == Errno::EXIST
            && self.directories.depth() > 0
            && let Some(other) = self.directories.other_name_of(&self.name)
        {
            return Error::SameName { path: self.directories.path_of(&self.name), other };
        }
        self.failed(operation, errno)
    }
}
