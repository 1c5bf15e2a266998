//! A directory that stays open: what is in it is reached by name, and no link is followed.
//!
//! Paths are walked anew by every call, and whoever may rename one of the directories on the way can lead each call
//! elsewhere. A handle stays where it is. It also carries the rights of the mount it was opened through, see
//! [`mount`](crate::mount).

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, RawMode, Stat, fchmod, mkdirat, open, openat, renameat, statat, unlinkat},
    io::Errno,
};

use crate::LocalStoreError;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const FILE: OFlags = OFlags::RDWR.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);

/// An open directory, and what it is called in messages.
#[derive(Debug)]
pub(crate) struct Directory {
    handle: OwnedFd,
    path: PathBuf,
}

impl Directory {
    /// Opens an existing one. Links on the way are followed.
    pub(crate) fn open(path: &Path) -> Result<Self, LocalStoreError> {
        let handle = open(path, DIRECTORY, Mode::empty()).map_err(LocalStoreError::io("open", path))?;
        Ok(Self { handle, path: path.to_owned() })
    }

    /// Opens one, after making it and those above it where they are missing.
    pub(crate) fn make(path: &Path) -> Result<Self, LocalStoreError> {
        match open(path, DIRECTORY, Mode::empty()) {
            Ok(handle) => return Ok(Self { handle, path: path.to_owned() }),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(LocalStoreError::io("open", path)(error)),
        }
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => Self::make(parent)?.make_below(name),
            _ => Err(LocalStoreError::io("open", path)(Errno::NOENT)),
        }
    }

    /// Opens the directory `name` in this one, after making it if it is missing.
    pub(crate) fn make_below(&self, name: impl AsRef<Path>) -> Result<Self, LocalStoreError> {
        let (name, path) = (name.as_ref(), self.path_of(&name));
        let made = match mkdirat(&self.handle, name, DIRECTORY_MODE) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(LocalStoreError::io("create directory", path)(error)),
        };
        let handle = openat(&self.handle, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
            .map_err(LocalStoreError::io("open", &path))?;
        if made {
            // The mode above passed through the umask.
            fchmod(&handle, DIRECTORY_MODE).map_err(LocalStoreError::io("set the mode of", &path))?;
        }
        Ok(Self { handle, path })
    }

    /// One that was opened already.
    #[cfg(target_os = "linux")]
    pub(crate) fn from_handle(handle: OwnedFd, path: &Path) -> Self {
        Self { handle, path: path.to_owned() }
    }

    /// What it is called.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What the entry `name` is called.
    pub(crate) fn path_of(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Opens the file `name`, creating it with exactly this mode if it is missing.
    pub(crate) fn make_file(&self, name: &str, mode: RawMode) -> Result<File, LocalStoreError> {
        loop {
            if let Some(file) = self.create_file(name, mode)? {
                return Ok(file);
            }
            match openat(&self.handle, name, FILE, Mode::empty()) {
                // Removed between the two calls, as lock files are. (A link that leads nowhere is another error.)
                Err(Errno::NOENT) => {}
                opened => {
                    return opened.map(File::from).map_err(LocalStoreError::io("open", self.path_of(name)));
                }
            }
        }
    }

    /// Creates the file `name` with exactly this mode, unless there is something of that name.
    pub(crate) fn create_file(&self, name: &str, mode: RawMode) -> Result<Option<File>, LocalStoreError> {
        let failed = |error: Errno| LocalStoreError::io("create", self.path_of(name))(error);
        let mode = Mode::from_raw_mode(mode);
        match openat(&self.handle, name, FILE | OFlags::CREATE | OFlags::EXCL, mode) {
            Ok(file) => {
                // The mode above passed through the umask, which leaves the owner alone.
                if mode.intersects(Mode::RWXG | Mode::RWXO) {
                    fchmod(&file, mode).map_err(failed)?;
                }
                Ok(Some(file.into()))
            }
            Err(Errno::EXIST) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// What is called `name` here, if anything is. A link is not followed.
    pub(crate) fn status(&self, name: &str) -> Result<Option<Stat>, LocalStoreError> {
        match statat(&self.handle, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) => Ok(Some(status)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(LocalStoreError::io("examine", self.path_of(name))(error)),
        }
    }

    /// Removes the file `name`.
    pub(crate) fn remove_file(&self, name: &str) -> Result<(), LocalStoreError> {
        unlinkat(&self.handle, name, AtFlags::empty())
            .map_err(LocalStoreError::io("remove", self.path_of(name)))
    }

    /// Gives the file `from` the name `to`, in the place of whatever had it.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.handle, from, &self.handle, to)?)
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}
