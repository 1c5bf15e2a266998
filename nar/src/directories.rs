//! Directory handles: the way from the parent of an object down to where work is going on.

use std::{
    ffi::{CStr, CString, OsStr, OsString},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, SeekFrom, Stat, fstat, openat, statat},
    io::Errno,
};

use crate::{
    error::{Error, Operation},
    name::check_name,
};

/// At most so many directories are open at once in one pack, unpack or remove; of a deeper tree the
/// outer ones are closed and found again through `..`. Small enough that a dozen of threads stay
/// below the 256 (macOS) and 1024 (Linux) descriptors that a process may open by default; store
/// paths are rarely more than ten levels deep.
const MAX_OPEN: usize = 16;

pub(crate) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A file to read. Does not block, should a fifo have taken its place.
pub(crate) const FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// To enter names into a directory one need not be allowed to list it.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
const PARENT: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
const PARENT: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A stack of open directories. No path is ever given to the system after the first one has been
/// opened, so neither a link swapped in nor `PATH_MAX` can matter.
#[derive(Debug)]
pub(crate) struct Directories<D = OwnedFd> {
    /// For messages; empty if only a handle is known.
    base_path: PathBuf,
    base: D,
    below: Vec<Below>,
    /// The names of `below`, one after the other.
    names: Vec<u8>,
}

#[derive(Debug)]
struct Below {
    /// Where its name starts in `names`.
    name_start: usize,
    handle: Handle,
}

#[derive(Debug)]
enum Handle {
    Open(OwnedFd),
    /// Closed for now; how to recognise it when it is opened again.
    Closed(Identity),
}

type Identity = (u64, u64);

fn identity(stat: &Stat) -> Identity {
    // The types of these fields differ between systems; none is wider than 64 bits.
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast, clippy::useless_conversion)]
    (stat.st_dev as u64, stat.st_ino as u64)
}

impl Directories {
    /// Opens the parent of `path`. The name in it is `None` if `path` does not end in one; then the
    /// directory is the one at `path`.
    pub(crate) fn of(path: &Path) -> Result<(Self, Option<CString>), Error> {
        let (directory, name) = match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => (parent, Some(name)),
            _ => (path, None),
        };
        let opened = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        let flags = if name.is_some() { PARENT } else { DIRECTORY };
        let base = openat(CWD, opened, flags, Mode::empty())
            .map_err(|errno| failed(Operation::Open, opened.into(), errno))?;
        let name = name
            .map(|name| CString::new(name.as_bytes()))
            .transpose()
            .map_err(|_| failed(Operation::Open, path.into(), Errno::INVAL))?;
        Ok((Self::new(directory.into(), base), name))
    }

    /// Opens the parent of `path` and returns the name in it.
    pub(crate) fn around(path: &Path) -> Result<(Self, CString), Error> {
        match Self::of(path)? {
            (directories, Some(name)) => Ok((directories, name)),
            _ => Err(Error::NoFileName { path: path.into() }),
        }
    }
}

impl<D: AsFd> Directories<D> {
    fn new(base_path: PathBuf, base: D) -> Self {
        Self { base_path, base, below: Vec::new(), names: Vec::new() }
    }

    /// Starts in `directory`; `name` must be a single name.
    pub(crate) fn at(directory: D, name: &OsStr) -> Result<(Self, CString), Error> {
        match (check_name(name.as_bytes()), CString::new(name.as_bytes())) {
            (Ok(()), Ok(c_name)) => Ok((Self::new(PathBuf::new(), directory), c_name)),
            _ => Err(Error::NoFileName { path: name.into() }),
        }
    }

    /// The innermost directory.
    pub(crate) fn current(&self) -> BorrowedFd<'_> {
        match self.below.last() {
            // The innermost handle is always open.
            Some(Below { handle: Handle::Open(fd), .. }) => fd.as_fd(),
            _ => self.base.as_fd(),
        }
    }

    /// Goes down into `fd`, which was opened as `name` of the current directory.
    pub(crate) fn push(&mut self, fd: OwnedFd, name: &CStr) {
        if let Some(outer) = self.below.len().checked_sub(MAX_OPEN.saturating_sub(1)) {
            let closed = match self.below.get(outer) {
                Some(Below { handle: Handle::Open(fd), .. }) => {
                    fstat(fd).as_ref().map(identity).map_err(|errno| *errno)
                }
                _ => Err(Errno::BADF),
            };
            // One that cannot be examined stays open.
            if let (Some(below), Ok(identity)) = (self.below.get_mut(outer), closed) {
                below.handle = Handle::Closed(identity);
            }
        }
        let name_start = self.names.len();
        self.names.extend_from_slice(name.to_bytes());
        self.below.push(Below { name_start, handle: Handle::Open(fd) });
    }

    /// Goes back up and returns the name of the directory that was left.
    pub(crate) fn pop(&mut self) -> Result<CString, Error> {
        let Some(left) = self.below.pop() else {
            return Ok(CString::default());
        };
        let name = self.names.split_off(left.name_start.min(self.names.len()));
        if let (Some(Below { handle: Handle::Closed(expected), .. }), Handle::Open(fd)) =
            (self.below.last(), &left.handle)
        {
            let expected = *expected;
            let parent = openat(fd, c"..", DIRECTORY, Mode::empty())
                .and_then(|parent| Ok((identity(&fstat(&parent)?), parent)))
                .map_err(|errno| failed(Operation::Open, self.path(), errno))?;
            if parent.0 != expected {
                let path = self.path();
                return Err(Error::Moved { path });
            }
            if let Some(below) = self.below.last_mut() {
                below.handle = Handle::Open(parent.1);
            }
        }
        // The name came from a C string.
        Ok(CString::new(name).unwrap_or_default())
    }

    pub(crate) fn depth(&self) -> usize {
        self.below.len()
    }

    /// For messages.
    pub(crate) fn path(&self) -> PathBuf {
        let mut path = self.base_path.clone();
        let mut below = self.below.iter().peekable();
        while let Some(level) = below.next() {
            let end = below.peek().map_or(self.names.len(), |next| next.name_start);
            path.push(OsStr::from_bytes(self.names.get(level.name_start..end).unwrap_or_default()));
        }
        path
    }

    /// For messages.
    pub(crate) fn path_of(&self, name: &CStr) -> PathBuf {
        self.path().join(OsStr::from_bytes(name.to_bytes()))
    }

    pub(crate) fn failed(&self, operation: Operation, name: &CStr, errno: Errno) -> Error {
        failed(operation, self.path_of(name), errno)
    }

    pub(crate) fn failed_here(&self, operation: Operation, errno: Errno) -> Error {
        failed(operation, self.path(), errno)
    }

    /// The type of `name` in the current directory, not following it.
    pub(crate) fn type_of(&self, name: &CStr) -> Result<FileType, Error> {
        let stat = statat(self.current(), name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| self.failed(Operation::Examine, name, errno))?;
        Ok(FileType::from_raw_mode(stat.st_mode))
    }

    /// Another name of the object `name` of the current directory.
    pub(crate) fn other_name_of(&self, name: &CStr) -> Option<OsString> {
        let identity_of =
            |name: &CStr| statat(self.current(), name, AtFlags::SYMLINK_NOFOLLOW).as_ref().map(identity).ok();
        let wanted = identity_of(name)?;
        self.find(|other| *other != *name && identity_of(other) == Some(wanted))
    }

    /// For messages: an entry of the current directory, which may have been listed before.
    pub(crate) fn find(&self, wanted: impl Fn(&CStr) -> bool) -> Option<OsString> {
        rustix::fs::seek(self.current(), SeekFrom::Start(0)).ok()?;
        let mut entries = self.list(&mut Vec::new()).ok()?.into_iter();
        let found = entries.find(|entry| wanted(&entry.name))?;
        Some(OsString::from_vec(found.name.into_bytes()))
    }

    /// Everything in the current directory but `.` and `..`, in no order.
    pub(crate) fn list(&self, scratch: &mut Vec<u8>) -> Result<Vec<OnDisk>, Error> {
        list(self.current(), scratch).map_err(|errno| self.failed_here(Operation::ReadDirectory, errno))
    }
}

pub(crate) fn failed(operation: Operation, path: PathBuf, errno: Errno) -> Error {
    Error::FileSystem { operation, path, source: errno.into() }
}

/// A directory entry as the system lists it.
#[derive(Debug)]
pub(crate) struct OnDisk {
    pub(crate) name: CString,
    /// `Unknown` on file systems that do not store types in directories.
    pub(crate) file_type: FileType,
}

fn on_disk(name: &CStr, file_type: FileType) -> Option<OnDisk> {
    let special = matches!(name.to_bytes(), b"." | b"..");
    (!special).then(|| OnDisk { name: name.into(), file_type })
}

/// One system call per 64 KiB of names; `scratch` is kept between calls.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn list(directory: BorrowedFd<'_>, scratch: &mut Vec<u8>) -> Result<Vec<OnDisk>, Errno> {
    scratch.clear();
    scratch.reserve(64 * 1024);
    let mut entries = Vec::new();
    let mut raw = rustix::fs::RawDir::new(directory, scratch.spare_capacity_mut());
    while let Some(entry) = raw.next() {
        let entry = entry?;
        entries.extend(on_disk(entry.file_name(), entry.file_type()));
    }
    Ok(entries)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn list(directory: BorrowedFd<'_>, _scratch: &mut Vec<u8>) -> Result<Vec<OnDisk>, Errno> {
    let mut entries = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        entries.extend(on_disk(entry.file_name(), entry.file_type()));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn go_down(base: &Path, levels: usize) -> Directories {
        let (mut directories, mut name) = Directories::around(&base.join("0")).unwrap();
        for level in 1..=levels {
            let fd = openat(directories.current(), &name, DIRECTORY, Mode::empty()).unwrap();
            directories.push(fd, &name);
            name = CString::new(level.to_string()).unwrap();
        }
        directories
    }

    fn path(levels: usize) -> PathBuf {
        (0..levels).map(|level| level.to_string()).collect()
    }

    #[test]
    fn few_are_open_and_the_way_back_is_found() {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir_all(base.path().join(path(50))).unwrap();
        let mut directories = go_down(base.path(), 50);
        let open = directories.below.iter().filter(|below| matches!(below.handle, Handle::Open(_))).count();
        assert_eq!(open, MAX_OPEN - 1, "and the base");
        for level in (1..=50).rev() {
            assert_eq!(directories.path(), base.path().join(path(level)));
            let expected = identity(&fstat(fs::File::open(directories.path()).unwrap()).unwrap());
            assert_eq!(identity(&fstat(directories.current()).unwrap()), expected);
            assert_eq!(directories.pop().unwrap().to_str().unwrap(), (level - 1).to_string());
        }
        assert_eq!((directories.depth(), directories.path()), (0, base.path().into()));
    }

    #[test]
    fn a_directory_that_was_moved_meanwhile_leads_nowhere_else() {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir_all(base.path().join(path(20))).unwrap();
        fs::create_dir(base.path().join("elsewhere")).unwrap();
        let mut directories = go_down(base.path(), 20);
        fs::rename(base.path().join("0/1/2/3"), base.path().join("elsewhere/3")).unwrap();
        let error = loop {
            if let Err(error) = directories.pop() {
                break error;
            }
        };
        match error {
            Error::Moved { path } => assert_eq!(path, base.path().join("0/1/2")),
            other => panic!("{other:?}"),
        }
    }
}
