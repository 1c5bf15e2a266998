use std::{
    ffi::{CStr, CString},
    fs::File,
    io::Read,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::Path,
};

use rustix::fs::{
    AtFlags, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, fchmod, ftruncate, futimens, mkdirat, openat,
    symlinkat, utimensat,
};

use crate::{
    attributes,
    case_hack::{CaseHack, NamesOnDisk},
    decode::{DecodeOptions, Decoder, Event},
    directories::{DIRECTORY, Directories},
    error::{Error, Operation},
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
    /// around. The owner is left as it is: who unpacks.
    Canonical,
}

/// What becomes of long runs of zeroes in files.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Zeroes {
    /// They are written.
    #[default]
    Write,
    /// Whole blocks of 4 KiB become holes, which take no space on disk.
    Skip,
}

/// How to unpack.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct UnpackOptions {
    /// Modes and times. [`Metadata::Plain`] unless set.
    pub metadata: Metadata,
    /// Whether names that differ in case only get a suffix.
    pub case_hack: CaseHack,
    /// Holes. [`Zeroes::Write`] unless set.
    pub zeroes: Zeroes,
    /// Limits, and the size of the archive, if known: it saves small reads.
    pub decode: DecodeOptions,
}

impl UnpackOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`metadata`](Self::metadata).
    #[must_use]
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// Sets [`case_hack`](Self::case_hack).
    #[must_use]
    pub fn case_hack(mut self, case_hack: CaseHack) -> Self {
        self.case_hack = case_hack;
        self
    }

    /// Sets [`zeroes`](Self::zeroes).
    #[must_use]
    pub fn zeroes(mut self, zeroes: Zeroes) -> Self {
        self.zeroes = zeroes;
        self
    }

    /// Sets [`decode`](Self::decode).
    #[must_use]
    pub fn decode(mut self, decode: DecodeOptions) -> Self {
        self.decode = decode;
        self
    }
}

/// Restores the archive that `reader` yields as `target`, and returns the size of the archive.
///
/// Nothing may exist at `target`; its parent directory must. Everything is created through directory
/// handles and never replaces or follows anything, so that no archive can write outside of
/// `target`. Memory is constant (with the case hack it grows with the names in the directories that
/// are open); at most 16 directories are open at once, however deep the tree.
///
/// Exactly the archive is taken from `reader`, as [`Decoder`] describes.
///
/// After an error, what was created so far is left; [`remove`](crate::remove) deletes it. Nothing
/// was created if the error is that `target` exists ([`Error::io_kind`] is `AlreadyExists` and the
/// path is `target`).
///
/// ```
/// # let directory = tempfile::tempdir().unwrap();
/// # let target = directory.path().join("file");
/// # let mut encoder = ncc_nar::Encoder::new(Vec::new());
/// # encoder.file(false, b"hi").unwrap();
/// # let nar = encoder.finish().unwrap();
/// use ncc_nar::{Metadata, UnpackOptions, unpack};
///
/// let options = UnpackOptions::new().metadata(Metadata::Canonical);
/// assert_eq!(unpack(&mut &nar[..], &target, &options)?, 120);
/// assert_eq!(std::fs::read(&target).unwrap(), b"hi");
/// # Ok::<(), ncc_nar::Error>(())
/// ```
pub fn unpack(
    reader: &mut (impl Read + ?Sized),
    target: &Path,
    options: &UnpackOptions,
) -> Result<u64, Error> {
    let (directories, name) = Directories::of(target)?;
    let Some(name) = name else {
        return Err(Error::NoFileName { path: target.into() });
    };
    let mut decoder = Decoder::with_options(reader, &options.decode);
    let mut unpacker = Unpacker { directories, names: Vec::new(), options };
    let mut name = name;
    while let Some(event) = decoder.next_event()? {
        match event {
            Event::Directory => unpacker.directory(&name)?,
            Event::Entry(entry) => name = unpacker.name_on_disk(entry.as_bytes())?,
            Event::Regular { executable, size } => {
                let file = unpacker.create_file(&name, executable)?;
                unpacker.contents(&mut decoder, &name, &file, size)?;
                unpacker.finish_file(&name, &file, executable)?;
            }
            Event::Symlink { target } => unpacker.symlink(&name, target)?,
            Event::DirectoryEnd => unpacker.directory_end()?,
        }
    }
    Ok(decoder.position())
}

/// The one modification time in a Nix store. Access times are nobody's business.
const CANONICAL_TIMES: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    last_modification: Timespec { tv_sec: 1, tv_nsec: 0 },
};

const READ_ONLY: Mode = Mode::from_raw_mode(0o444);
const READ_AND_EXECUTE: Mode = Mode::from_raw_mode(0o555);

/// Zeroes of this size, at multiples of it, can become holes: the block of common file systems.
const HOLE: usize = 4096;
const WITHIN_HOLE: u64 = HOLE as u64 - 1;

struct Unpacker<'o> {
    directories: Directories,
    /// The names in each open directory, for the case hack.
    names: Vec<NamesOnDisk>,
    options: &'o UnpackOptions,
}

impl Unpacker<'_> {
    fn canonical(&self) -> bool {
        self.options.metadata == Metadata::Canonical
    }

    fn name_on_disk(&mut self, name: &[u8]) -> Result<CString, Error> {
        let on_disk = match (self.options.case_hack, self.names.last_mut()) {
            (CaseHack::On, Some(names)) => names.add(name),
            _ => Some(name.to_vec()),
        };
        // The decoder has let no NUL pass.
        match on_disk.map(CString::new) {
            Some(Ok(name)) => Ok(name),
            _ => Err(Error::CaseHackCollision {
                path: self.directories.path_of(&CString::new(name).unwrap_or_default()),
            }),
        }
    }

    fn directory(&mut self, name: &CStr) -> Result<(), Error> {
        let parent = self.directories.current();
        // Private until it is complete.
        let mode = if self.canonical() { 0o700 } else { 0o777 };
        mkdirat(parent, name, Mode::from_raw_mode(mode))
            .map_err(|errno| self.directories.failed(Operation::CreateDirectory, name, errno))?;
        let fd = openat(parent, name, DIRECTORY, Mode::empty())
            .map_err(|errno| self.directories.failed(Operation::Open, name, errno))?;
        self.disinherit(&fd, name)?;
        self.directories.push(fd, name);
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

    fn symlink(&mut self, name: &CStr, target: &[u8]) -> Result<(), Error> {
        let parent = self.directories.current();
        symlinkat(target, parent, name)
            .map_err(|errno| self.directories.failed(Operation::CreateSymlink, name, errno))?;
        if self.canonical() {
            utimensat(parent, name, &CANONICAL_TIMES, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|errno| self.directories.failed(Operation::SetTime, name, errno))?;
        }
        Ok(())
    }

    fn create_file(&self, name: &CStr, executable: bool) -> Result<File, Error> {
        let mode = match (self.options.metadata, executable) {
            (Metadata::Plain, false) => 0o666,
            (Metadata::Plain, true) => 0o777,
            (Metadata::Canonical, _) => 0o600,
        };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(self.directories.current(), name, flags, Mode::from_raw_mode(mode))
            .map_err(|errno| self.directories.failed(Operation::CreateFile, name, errno))
            .and_then(|fd| self.disinherit(&fd, name).map(|()| File::from(fd)))
    }

    /// Extended attributes (a default ACL) come from the directory around. Those of the root are
    /// removed before anything is created in it, and everything below has nothing to inherit.
    fn disinherit(&self, object: &OwnedFd, name: &CStr) -> Result<(), Error> {
        if !self.canonical() || self.directories.depth() > 0 {
            return Ok(());
        }
        attributes::remove(object.as_fd())
            .map_err(|errno| self.directories.failed(Operation::RemoveAttribute, name, errno))
    }

    fn contents<R: Read>(
        &self,
        decoder: &mut Decoder<R>,
        name: &CStr,
        file: &File,
        size: u64,
    ) -> Result<(), Error> {
        let failed = |source| Error::FileSystem {
            operation: Operation::Write,
            path: self.directories.path_of(name),
            source,
        };
        let mut position = 0_u64;
        let mut hole_at_end = false;
        loop {
            let block = decoder.contents_block(usize::MAX)?;
            if block.is_empty() {
                break;
            }
            let (run, zeroes) = match self.options.zeroes {
                Zeroes::Write => (block.len(), false),
                Zeroes::Skip => run(block, position),
            };
            if !zeroes {
                let bytes = block.get(..run).unwrap_or_default();
                // Positioned, because holes leave no trace in the file's own position.
                file.write_all_at(bytes, position).map_err(failed)?;
            }
            hole_at_end = zeroes;
            position = position.saturating_add(run as u64);
            decoder.consume_contents(run);
        }
        if hole_at_end {
            ftruncate(file, size).map_err(|errno| failed(errno.into()))?;
        }
        Ok(())
    }

    fn finish_file(&self, name: &CStr, file: &File, executable: bool) -> Result<(), Error> {
        if !self.canonical() {
            return Ok(());
        }
        let failed = |operation, errno| self.directories.failed(operation, name, errno);
        let mode = if executable { READ_AND_EXECUTE } else { READ_ONLY };
        fchmod(file, mode).map_err(|errno| failed(Operation::SetMode, errno))?;
        futimens(file, &CANONICAL_TIMES).map_err(|errno| failed(Operation::SetTime, errno))
    }
}

/// How many bytes at the start of `block`, which lies at `position` in its file, are zeroes that can
/// become a hole (`true`) or something that cannot (`false`).
fn run(block: &[u8], position: u64) -> (usize, bool) {
    let mut length = 0_usize;
    let mut kind = None;
    let mut rest = block;
    while !rest.is_empty() {
        let at = position.saturating_add(length as u64);
        // Distance to the next multiple of the block size, at most that size.
        let aligned = HOLE.saturating_sub(usize::try_from(at & WITHIN_HOLE).unwrap_or(0));
        let (piece, later) = rest.split_at_checked(aligned).unwrap_or((rest, &[]));
        let zeroes = piece.len() == HOLE && is_zero(piece);
        if *kind.get_or_insert(zeroes) != zeroes {
            break;
        }
        length = length.saturating_add(piece.len());
        rest = later;
    }
    (length, kind.unwrap_or(false))
}

fn is_zero(bytes: &[u8]) -> bool {
    // Word-wise; compares 16 bytes at a time once compiled.
    bytes.chunks(16).all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_cut_at_block_borders() {
        let mut bytes = vec![0; 3 * HOLE];
        assert_eq!(run(&bytes, 0), (3 * HOLE, true));
        // Not aligned: the piece up to the border is data, then come two holes.
        assert_eq!(run(&bytes, 1), (HOLE - 1, false));
        assert_eq!(run(&bytes[HOLE - 1..], HOLE as u64), (2 * HOLE, true));
        bytes[HOLE] = 1;
        assert_eq!(run(&bytes, 0), (HOLE, true));
        assert_eq!(run(&bytes[HOLE..], HOLE as u64), (HOLE, false));
        assert_eq!(run(&bytes[HOLE + 1..], 2 * HOLE as u64), (HOLE, true));
        assert_eq!(run(&[0; 10], 0), (10, false));
    }
}
