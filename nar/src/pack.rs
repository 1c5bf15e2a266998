use std::{
    ffi::{CStr, CString, OsStr},
    io,
    os::fd::AsFd,
    path::Path,
    time::Instant,
    vec,
};

use rustix::{
    buffer::spare_capacity,
    fs::{AtFlags, FileType, Mode, Stat, fstat, openat, readlinkat_raw, statat},
    io::Errno,
};

use crate::{
    case_hack::{CaseHack, without_suffix},
    decode::DEFAULT_MAX_DEPTH,
    directories::{DIRECTORY, Directories, FILE, OnDisk},
    encode::{BlockSink, Encoder, FillError, Filled},
    error::{Error, NotCanonical, Operation, OrderError},
    name::MAX_TARGET,
    read_ahead,
};

/// Size of reads and writes; see `BENCHMARKS.md`.
const BLOCK_SIZE: usize = 256 * 1024;

/// How to pack.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PackOptions {
    /// Whether to undo what [`CaseHack::On`] did to names when the tree was unpacked.
    pub case_hack: CaseHack,
    /// The deepest object that is packed; the root is at depth 0.
    /// [`DEFAULT_MAX_DEPTH`](crate::DEFAULT_MAX_DEPTH) unless set.
    /// [`NIX_MAX_DEPTH`](crate::NIX_MAX_DEPTH) refuses what no current version of Nix would accept.
    pub max_depth: usize,
    /// Size in bytes of the blocks that are written, and of the only buffer: 256 KiB unless set. With
    /// the size of the archive or more, all of it is one block.
    pub block_size: usize,
}

impl Default for PackOptions {
    fn default() -> Self {
        Self { case_hack: CaseHack::default(), max_depth: DEFAULT_MAX_DEPTH, block_size: BLOCK_SIZE }
    }
}

/// Writes the file, directory or symlink at `path` as an archive and returns its size in bytes.
///
/// A symlink is archived, not followed; links in the directories that lead to `path` are followed.
/// Works in memory that grows only with the number of names in one directory, and with at most 16
/// open directories however deep the tree. The archive goes to `sink`, which can be any
/// [`Write`](io::Write), in blocks of 256 KiB, and `sink` is flushed at the end.
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
pub fn pack(path: &Path, sink: impl BlockSink, options: &PackOptions) -> Result<u64, Error> {
    Packer::new(options).pack(path, sink)
}

/// The size in bytes of the archive that [`pack`] would write. Reads metadata only.
pub fn size_of(path: &Path, options: &PackOptions) -> Result<u64, Error> {
    Packer::new(options).walk_path(path, io::sink(), Contents::Count)
}

/// [`pack`] for many objects, one after the other, with the same buffers.
#[derive(Debug)]
pub struct Packer {
    options: PackOptions,
    /// The encoder's block while no object is being packed.
    block: Vec<u8>,
    scratch: Vec<u8>,
}

impl Packer {
    /// Packs with `options`.
    pub fn new(options: &PackOptions) -> Self {
        Self { options: options.clone(), block: Vec::new(), scratch: Vec::new() }
    }

    /// [`PackOptions::block_size`] from now on.
    pub fn set_block_size(&mut self, block_size: usize) {
        self.options.block_size = block_size;
    }

    /// As [`pack`].
    pub fn pack(&mut self, path: &Path, sink: impl BlockSink) -> Result<u64, Error> {
        self.walk_path(path, sink, Contents::Read)
    }

    /// As [`pack`], of the entry `name` of a directory that is open. Paths in errors start with `name`.
    pub fn pack_at(
        &mut self,
        directory: impl AsFd,
        name: impl AsRef<OsStr>,
        sink: impl BlockSink,
    ) -> Result<u64, Error> {
        let (directories, name) = Directories::at(directory, name.as_ref())?;
        self.walk(directories, Some(name), sink, Contents::Read)
    }

    fn walk_path(&mut self, path: &Path, sink: impl BlockSink, contents: Contents) -> Result<u64, Error> {
        let (directories, name) = Directories::of(path)?;
        self.walk(directories, name, sink, contents)
    }

    fn walk(
        &mut self,
        directories: Directories<impl AsFd>,
        name: Option<CString>,
        sink: impl BlockSink,
        contents: Contents,
    ) -> Result<u64, Error> {
        let block = std::mem::take(&mut self.block);
        let mut walk = Walk {
            encoder: Encoder::with_block(sink, self.options.block_size, block),
            directories,
            levels: Vec::new(),
            scratch: &mut self.scratch,
            options: &self.options,
            contents,
        };
        match name {
            Some(name) => {
                let file_type = walk.directories.type_of(&name)?;
                walk.node(&name, file_type)?;
            }
            None => walk.directory_contents()?,
        }
        while let Some(level) = walk.levels.last_mut() {
            if let Some(entry) = level.entries.next() {
                level.advised = level.advised.saturating_sub(1);
                walk.entry(&entry)?;
            } else {
                walk.encoder.directory_end()?;
                walk.levels.pop();
                walk.directories.pop()?;
            }
        }
        let size = walk.encoder.position();
        (_, self.block) = walk.encoder.finish_reusably()?;
        Ok(size)
    }
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Contents {
    Read,
    Count,
}

/// One object on its way into an archive.
struct Walk<'a, S, D> {
    encoder: Encoder<S>,
    directories: Directories<D>,
    /// What is still to do in each open directory.
    levels: Vec<Level>,
    scratch: &'a mut Vec<u8>,
    options: &'a PackOptions,
    contents: Contents,
}

struct Level {
    entries: vec::IntoIter<OnDisk>,
    /// How many of them, the next ones, are being read ahead.
    advised: usize,
}

impl<S: BlockSink, D: AsFd> Walk<'_, S, D> {
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
            Err(Error::NotCanonical { kind: NotCanonical::Order(OrderError::Duplicate { .. }), .. }) => {
                Err(self.collision(&entry.name))
            }
            Err(error) => Err(error),
            Ok(()) => self.node(&entry.name, entry.file_type),
        }
    }

    fn collision(&self, name: &CStr) -> Error {
        let path = self.directories.path_of(name);
        let in_archive = self.name_in_archive(name);
        let other =
            self.directories.find(|other| *other != *name && self.name_in_archive(other) == in_archive);
        Error::CaseHackCollision { path, other: other.unwrap_or_default() }
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
                // The longest target, and one byte more to see that it is too long.
                let mut buffer = [0; MAX_TARGET + 1];
                let length = readlinkat_raw(self.directories.current(), name, &mut buffer[..])
                    .map_err(|errno| self.directories.failed(Operation::ReadLink, name, errno))?;
                self.encoder.symlink(buffer.get(..length).unwrap_or_default())
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
        let mut entries = self.directories.list(self.scratch)?;
        match self.options.case_hack {
            CaseHack::Off => entries.sort_unstable_by(|a, b| a.name.cmp(&b.name)),
            CaseHack::On => entries.sort_unstable_by(|a, b| {
                without_suffix(a.name.to_bytes()).cmp(without_suffix(b.name.to_bytes()))
            }),
        }
        self.encoder.directory()?;
        self.levels.push(Level { entries: entries.into_iter(), advised: 0 });
        Ok(())
    }

    fn file(&mut self, name: &CStr) -> Result<(), Error> {
        let directory = self.directories.current();
        if self.contents == Contents::Count {
            let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|errno| self.directories.failed(Operation::Examine, name, errno))?;
            self.start_file(name, &stat)?;
            return self.encoder.pretend_contents();
        }
        let file = openat(directory, name, FILE, Mode::empty())
            .map_err(|errno| self.directories.failed(Operation::Open, name, errno))?;
        let stat = fstat(&file).map_err(|errno| self.directories.failed(Operation::Examine, name, errno))?;
        let size = self.start_file(name, &stat)?;
        read_ahead::sequential(file.as_fd(), size);
        let mut from_disk = false;
        let read = |block: &mut Vec<u8>, _| {
            let before = Instant::now();
            rustix::io::read(&file, spare_capacity(block))?;
            from_disk = before.elapsed() > read_ahead::FROM_DISK;
            Ok(())
        };
        match self.encoder.fill_contents(read, true) {
            Ok(Filled::Exactly) => {
                if from_disk && size <= read_ahead::SMALL_FILE {
                    self.read_ahead();
                }
                Ok(())
            }
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

    /// Has the system fetch the next files of this directory at once, since they would have to be waited
    /// for one by one.
    fn read_ahead(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            let next = level.entries.as_slice();
            let next = next.get(..read_ahead::FILES_AHEAD).unwrap_or(next);
            read_ahead::soon(self.directories.current(), next.get(level.advised..).unwrap_or_default());
            level.advised = next.len();
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
        self.encoder.regular(executable.into(), size)?;
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
