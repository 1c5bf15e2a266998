use std::{
    ffi::{CStr, CString, OsStr},
    path::Path,
    vec,
};

use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{AtFlags, FileType, Mode, fchmod, fstat, openat, unlinkat},
    io::Errno,
};

use crate::{
    directories::{DIRECTORY, Directories, OnDisk},
    error::{Error, Operation},
};

/// Deletes whatever lies at `path`, with everything below it.
///
/// Unlike [`std::fs::remove_dir_all`] it deletes read-only directories, as they are in a Nix store,
/// for an ordinary user who owns them, and trees of any depth with at most 16 open directories.
/// Links are deleted, never followed, and deletion happens through directory handles, so that
/// nothing outside of `path` can be hit even if somebody moves things meanwhile.
///
/// That nothing lies at `path` is an error with the [kind](Error::io_kind) `NotFound`.
pub fn remove(path: &Path) -> Result<(), Error> {
    let (directories, name) = Directories::around(path)?;
    remove_in(directories, name)
}

/// The same for the entry `name` of a directory that is open.
pub fn remove_at(directory: impl AsFd, name: impl AsRef<OsStr>) -> Result<(), Error> {
    let (directories, name) = Directories::at(directory, name.as_ref())?;
    remove_in(directories, name)
}

fn remove_in(directories: Directories<impl AsFd>, name: CString) -> Result<(), Error> {
    let file_type = directories.type_of(&name)?;
    let mut remover = Remover { directories, levels: Vec::new(), scratch: Vec::new() };
    remover.remove(&OnDisk { name, file_type })?;
    while let Some(level) = remover.levels.last_mut() {
        if let Some(entry) = level.next() {
            remover.remove(&entry)?;
        } else {
            remover.levels.pop();
            let name = remover.directories.pop()?;
            remover.unlink(&name, AtFlags::REMOVEDIR)?;
        }
    }
    Ok(())
}

struct Remover<D> {
    directories: Directories<D>,
    levels: Vec<vec::IntoIter<OnDisk>>,
    scratch: Vec<u8>,
}

impl<D: AsFd> Remover<D> {
    fn remove(&mut self, entry: &OnDisk) -> Result<(), Error> {
        let file_type = match entry.file_type {
            FileType::Unknown => self.directories.type_of(&entry.name)?,
            known => known,
        };
        if file_type == FileType::Directory {
            self.enter(&entry.name)
        } else {
            self.unlink(&entry.name, AtFlags::empty())
        }
    }

    fn unlink(&self, name: &CStr, flags: AtFlags) -> Result<(), Error> {
        unlinkat(self.directories.current(), name, flags)
            .map_err(|errno| self.directories.failed(Operation::Remove, name, errno))
    }

    fn enter(&mut self, name: &CStr) -> Result<(), Error> {
        let parent = self.directories.current();
        let opened = match openat(parent, name, DIRECTORY, Mode::empty()) {
            Err(Errno::ACCESS) => {
                make_accessible(parent, name)
                    .map_err(|errno| self.directories.failed(Operation::SetMode, name, errno))?;
                openat(parent, name, DIRECTORY, Mode::empty())
            }
            other => other,
        };
        let fd = opened.map_err(|errno| self.directories.failed(Operation::Open, name, errno))?;
        self.make_writable(&fd, name)?;
        self.directories.push(fd, name);
        self.levels.push(self.directories.list(&mut self.scratch)?.into_iter());
        Ok(())
    }

    fn make_writable(&self, fd: &OwnedFd, name: &CStr) -> Result<(), Error> {
        let stat = fstat(fd).map_err(|errno| self.directories.failed(Operation::Examine, name, errno))?;
        let mode = Mode::from_raw_mode(stat.st_mode);
        if !mode.contains(Mode::RWXU) {
            fchmod(fd, mode | Mode::RWXU)
                .map_err(|errno| self.directories.failed(Operation::SetMode, name, errno))?;
        }
        Ok(())
    }
}

/// Gives its owner all rights on a directory that he may not open, without following a link that
/// took its place: `fchmodat` cannot promise that before Linux 6.6, and a handle from `O_PATH` can be
/// used for nothing but its name in `/proc`.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn make_accessible(parent: impl AsFd, name: &CStr) -> Result<(), Errno> {
    use std::os::fd::AsRawFd as _;

    use rustix::fs::{CWD, OFlags, chmodat};

    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(parent, name, flags, Mode::empty())?;
    chmodat(CWD, format!("/proc/self/fd/{}", fd.as_raw_fd()), Mode::RWXU, AtFlags::empty())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn make_accessible(parent: impl AsFd, name: &CStr) -> Result<(), Errno> {
    rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::SYMLINK_NOFOLLOW)
}
