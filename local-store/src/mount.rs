//! A store that is mounted read-only, as on NixOS, and a handle through which this process writes to it all the same.
//!
//! Nix remounts such a store in a mount namespace of its own. Here only a thread that ends at once enters one. It
//! remounts the store there and opens it, and whoever has that handle can write: the rights belong to the mount that
//! a file was opened through, not to the namespace of who uses it. So no child, ssh and what it leaves in the
//! background, ever sees a writable store, and threads that are there already do not matter.

use std::{io, path::Path};

use rustix::fs::{StatVfsMountFlags, fstatvfs};

use crate::{LocalStoreError, directory::Directory};

/// The store directory, opened so that it can be written to.
pub(crate) fn open_writable(store: &Path) -> Result<Directory, LocalStoreError> {
    let directory = Directory::make(store)?;
    let flags = mount_flags(&directory)?;
    if !flags.contains(StatVfsMountFlags::RDONLY) {
        return Ok(directory);
    }
    let refused = |source| LocalStoreError::ReadOnlyMount { path: store.to_owned(), source };
    let directory = remounted(store, flags).map_err(|error| refused(Some(error)))?;
    if mount_flags(&directory)?.contains(StatVfsMountFlags::RDONLY) {
        // Not this mount, but all of the file system is read-only.
        return Err(refused(None));
    }
    Ok(directory)
}

fn mount_flags(directory: &Directory) -> Result<StatVfsMountFlags, LocalStoreError> {
    let status = fstatvfs(directory).map_err(LocalStoreError::io("examine", directory.path()))?;
    Ok(status.f_flag)
}

#[cfg(target_os = "linux")]
fn remounted(store: &Path, flags: StatVfsMountFlags) -> io::Result<Directory> {
    use std::os::fd::OwnedFd;

    use nix::{
        mount::{MsFlags, mount},
        sched::{CloneFlags, unshare},
    };
    use rustix::fs::{Mode, OFlags, open};

    // What is not repeated would be cleared. That is not wanted, and not allowed in a user namespace whose owner did
    // not set them.
    let keep = [
        (StatVfsMountFlags::NOSUID, MsFlags::MS_NOSUID),
        (StatVfsMountFlags::NODEV, MsFlags::MS_NODEV),
        (StatVfsMountFlags::NOEXEC, MsFlags::MS_NOEXEC),
        (StatVfsMountFlags::NOATIME, MsFlags::MS_NOATIME),
        (StatVfsMountFlags::NODIRATIME, MsFlags::MS_NODIRATIME),
        (StatVfsMountFlags::RELATIME, MsFlags::MS_RELATIME),
    ]
    .into_iter()
    .filter(|(flag, _)| flags.contains(*flag))
    .fold(MsFlags::MS_REMOUNT | MsFlags::MS_BIND, |keep, (_, flag)| keep | flag);
    let path = store.to_owned();
    let thread =
        std::thread::Builder::new().name("remount".to_owned()).spawn(move || -> io::Result<OwnedFd> {
            unshare(CloneFlags::CLONE_NEWNS)?;
            // Flags of a mount are not passed on to its peers, so that the outside sees nothing of this.
            mount(None::<&str>, &path, None::<&str>, keep, None::<&str>)?;
            Ok(open(&path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
        })?;
    let handle = thread.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))?;
    Ok(Directory::from_handle(handle, store))
}

#[cfg(not(target_os = "linux"))]
fn remounted(_: &Path, _: StatVfsMountFlags) -> io::Result<Directory> {
    Err(io::ErrorKind::Unsupported.into())
}
