use std::{
    ffi::CStr,
    io::{self, Write},
    path::Path,
    vec,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat},
    io::Errno,
};

use crate::{
    case_hack::{CaseHack, without_suffix},
    decode::DEFAULT_MAX_DEPTH,
    directories::{DIRECTORY, Directories, OnDisk},
    encode::{Encoder, FillError, Filled},
    error::{Error, NotCanonical, Operation},
};

/// Size of reads and writes; see `BENCHMARKS.md`.
const BUFFER_SIZE: usize = 256 * 1024;

/// How to pack.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PackOptions {
    /// Whether to undo what [`CaseHack::On`] did to names when the tree was unpacked.
    pub case_hack: CaseHack,
    /// The deepest object that is packed; the root is at depth 0.
    /// [`DEFAULT_MAX_DEPTH`](crate::DEFAULT_MAX_DEPTH) unless set.
    pub max_depth: usize,
}

impl Default for PackOptions {
    fn default() -> Self {
        Self { case_hack: CaseHack::default(), max_depth: DEFAULT_MAX_DEPTH }
    }
}

impl PackOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`case_hack`](Self::case_hack).
    #[must_use]
    pub fn case_hack(mut self, case_hack: CaseHack) -> Self {
        self.case_hack = case_hack;
        self
    }

    /// Sets [`max_depth`](Self::max_depth).
    #[must_use]
    pub fn max_depth(mut self, depth: usize) -> Self {
        self.max_depth = depth;
        self
    }
}

/// Writes the file, directory or symlink at `path` as an archive and returns its size in bytes.
///
/// A symlink is archived, not followed; links in the directories that lead to `path` are followed.
/// Works in memory that grows only with the number of names in one directory, and with at most 16
/// open directories however deep the tree. Writes come in blocks of 256 KiB and the writer is
/// flushed at the end.
///
/// What an archive cannot say is dropped: owners, times, hard links, extended attributes, and all of
/// the mode but the owner's execute bit. Fifos, sockets and devices are an error, and so is a file
/// that changes its size meanwhile; what has been written by then is not an archive.
///
/// ```
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("file");
/// # std::fs::write(&path, "hi").unwrap();
/// use ncc_nar::{PackOptions, pack};
///
/// let mut nar = Vec::new();
/// assert_eq!(pack(&path, &mut nar, &PackOptions::default())?, 120);
/// # Ok::<(), ncc_nar::Error>(())
/// ```
pub fn pack(path: &Path, writer: &mut (impl Write + ?Sized), options: &PackOptions) -> Result<u64, Error> {
    walk(path, writer, options, Contents::Read)
}

/// The size in bytes of the archive that [`pack`] would write. Reads metadata only.
pub fn size_of(path: &Path, options: &PackOptions) -> Result<u64, Error> {
    walk(path, &mut io::sink(), options, Contents::Count)
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Contents {
    Read,
    Count,
}

fn walk(
    path: &Path,
    writer: &mut (impl Write + ?Sized),
    options: &PackOptions,
    contents: Contents,
) -> Result<u64, Error> {
    let (directories, name) = Directories::of(path)?;
    let mut packer = Packer {
        encoder: Encoder::with_buffer_size(writer, BUFFER_SIZE),
        directories,
        levels: Vec::new(),
        scratch: Vec::new(),
        options,
        contents,
    };
    match name {
        Some(name) => {
            let file_type = packer.directories.type_of(&name)?;
            packer.node(&name, file_type)?;
        }
        None => packer.directory_contents()?,
    }
    while let Some(level) = packer.levels.last_mut() {
        if let Some(entry) = level.next() {
            packer.entry(&entry)?;
        } else {
            packer.encoder.directory_end()?;
            packer.levels.pop();
            packer.directories.pop()?;
        }
    }
    let size = packer.encoder.position();
    packer.encoder.finish()?;
    Ok(size)
}

struct Packer<'o, W> {
    encoder: Encoder<W>,
    directories: Directories,
    /// What is still to do in each open directory.
    levels: Vec<vec::IntoIter<OnDisk>>,
    scratch: Vec<u8>,
    options: &'o PackOptions,
    contents: Contents,
}

impl<W: Write> Packer<'_, W> {
    fn name_in_archive<'n>(&self, name: &'n CStr) -> &'n [u8] {
        match self.options.case_hack {
            CaseHack::Off => name.to_bytes(),
            CaseHack::On => without_suffix(name.to_bytes()),
        }
    }

    fn entry(&mut self, entry: &OnDisk) -> Result<(), Error> {
        let name = self.name_in_archive(&entry.name);
        match self.encoder.entry(name) {
            // Only the case hack can give two files of a directory one name.
            Err(Error::NotCanonical { kind: NotCanonical::Duplicate { .. }, .. }) => {
                let path = self.directories.path_of(&entry.name);
                return Err(Error::CaseHackCollision { path });
            }
            other => other?,
        }
        self.node(&entry.name, entry.file_type)
    }

    fn node(&mut self, name: &CStr, file_type: FileType) -> Result<(), Error> {
        if self.levels.len() > self.options.max_depth {
            let path = self.directories.path_of(name);
            let limit = self.options.max_depth;
            return Err(Error::TooDeep { path, limit });
        }
        match file_type {
            FileType::RegularFile => self.file(name),
            FileType::Directory => {
                let fd = openat(self.directories.current(), name, DIRECTORY, Mode::empty())
                    .map_err(|errno| self.directories.failed(Operation::Open, name, errno))?;
                self.directories.push(fd, name);
                self.directory_contents()
            }
            FileType::Symlink => {
                let buffer = std::mem::take(&mut self.scratch);
                let target = readlinkat(self.directories.current(), name, buffer)
                    .map_err(|errno| self.directories.failed(Operation::ReadLink, name, errno))?;
                self.encoder.symlink(target.to_bytes())?;
                self.scratch = target.into_bytes();
                Ok(())
            }
            FileType::Unknown => match self.directories.type_of(name)? {
                FileType::Unknown => Err(self.unsupported(name, FileType::Unknown)),
                known => self.node(name, known),
            },
            other => Err(self.unsupported(name, other)),
        }
    }

    /// Starts the innermost open directory.
    fn directory_contents(&mut self) -> Result<(), Error> {
        let mut entries = self.directories.list(&mut self.scratch)?;
        match self.options.case_hack {
            CaseHack::Off => entries.sort_unstable_by(|a, b| a.name.cmp(&b.name)),
            CaseHack::On => entries.sort_unstable_by(|a, b| {
                without_suffix(a.name.to_bytes()).cmp(without_suffix(b.name.to_bytes()))
            }),
        }
        self.encoder.directory()?;
        self.levels.push(entries.into_iter());
        Ok(())
    }

    fn file(&mut self, name: &CStr) -> Result<(), Error> {
        let directory = self.directories.current();
        if self.contents == Contents::Count {
            let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|errno| self.directories.failed(Operation::Examine, name, errno))?;
            self.start_file(name, &stat)?;
            self.encoder.pretend_contents();
            return Ok(());
        }
        // Not to block, should a fifo have taken the place of the file.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = openat(directory, name, flags, Mode::empty())
            .map_err(|errno| self.directories.failed(Operation::Open, name, errno))?;
        let stat = fstat(&file).map_err(|errno| self.directories.failed(Operation::Examine, name, errno))?;
        let size = self.start_file(name, &stat)?;
        let read = |buffer: &mut [u8]| rustix::io::read(&file, buffer).map_err(io::Error::from);
        match self.encoder.fill_contents(read, true) {
            Ok(Filled::Exactly) => Ok(()),
            Ok(Filled::TooFew { found } | Filled::TooMany { found }) => {
                let path = self.directories.path_of(name);
                Err(Error::SizeChanged { path, expected: size, found })
            }
            Err(FillError::Read(source)) => Err(Error::FileSystem {
                operation: Operation::Read,
                path: self.directories.path_of(name),
                source,
            }),
            Err(FillError::Encode(error)) => Err(error),
        }
    }

    fn start_file(&mut self, name: &CStr, stat: &Stat) -> Result<u64, Error> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            other => return Err(self.unsupported(name, other)),
        }
        // Nix asks for the owner's bit and no other.
        let executable = Mode::from_raw_mode(stat.st_mode).contains(Mode::XUSR);
        let size = u64::try_from(stat.st_size)
            .map_err(|_| self.directories.failed(Operation::Examine, name, Errno::OVERFLOW))?;
        self.encoder.regular(executable, size)?;
        Ok(size)
    }

    fn unsupported(&self, name: &CStr, file_type: FileType) -> Error {
        let path = self.directories.path_of(name);
        let file_type = match file_type {
            FileType::Fifo => "a fifo",
            FileType::Socket => "a socket",
            FileType::CharacterDevice => "a character device",
            FileType::BlockDevice => "a block device",
            // Something took the place of a regular file after it had been listed.
            FileType::Directory => "a directory where a file was",
            FileType::Symlink => "a symlink where a file was",
            _ => "an object of unknown type",
        };
        Error::Unsupported { path, file_type }
    }
}
