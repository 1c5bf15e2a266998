//! Root in directories of others: refused where somebody else could exchange what root is about to open.
//!
//! Whoever may rename entries of a directory on the way to the database can put links there and have root write
//! elsewhere, or swap the directory of the database for that of another store. SQLite opens its files by path, so
//! that handles are no remedy.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

use crate::{ForeignReason, LocalStoreError};

/// As in the kernel.
const MAX_LINKS: usize = 40;
const STICKY: u32 = 0o1000;
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;

/// What others may do in the last directory of a path.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Last {
    /// Nothing: what is in there is opened by path.
    Closed,
    /// Add names of their own, if the sticky bit keeps them from touching ours: everything is opened by handle.
    Shared,
}

/// For root: checks every directory that leads to `path`, as far as it exists, and `path` itself. Does nothing for
/// other users, who can do no more harm than their own rights allow.
pub(crate) fn check(path: &Path, last: Last) -> Result<(), LocalStoreError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Trusted::new().check(path, last)
}

/// Who may do to the store what root may.
struct Trusted {
    /// The user id that stands for all users who do not exist in this user namespace: those outside of it, who made it.
    outside: Option<u32>,
}

impl Trusted {
    fn new() -> Self {
        // In the first user namespace every id stands for itself.
        let is_first = fs::read_to_string("/proc/self/uid_map")
            .map_or(true, |map| map.split_whitespace().eq(["0", "0", "4294967295"]));
        let overflow = || fs::read_to_string("/proc/sys/kernel/overflowuid").ok()?.trim().parse().ok();
        Self { outside: if is_first { None } else { overflow() } }
    }

    fn is_trusted(&self, user: u32) -> bool {
        user == 0 || Some(user) == self.outside
    }

    /// Why somebody else can exchange entries of a directory, if so. With the sticky bit, where that `guards`, only
    /// the owner of an entry can.
    fn why_foreign(&self, directory: &Metadata, guards: bool) -> Option<ForeignReason> {
        if !self.is_trusted(directory.uid()) {
            return Some(ForeignReason::Owner(directory.uid()));
        }
        let mode = directory.mode();
        let others_write = mode & OTHERS_WRITE != 0 || (mode & GROUP_WRITES != 0 && directory.gid() != 0);
        (others_write && !(guards && mode & STICKY != 0)).then_some(ForeignReason::Mode(mode & 0o7777))
    }

    fn check(&self, path: &Path, last: Last) -> Result<(), LocalStoreError> {
        let foreign =
            |path: &Path, reason| LocalStoreError::ForeignDirectory { path: path.to_owned(), reason };
        let examine = |path: &Path| fs::symlink_metadata(path).map_err(LocalStoreError::io("examine", path));
        let mut at = PathBuf::from("/");
        let mut directory = examine(&at)?;
        let mut rest: VecDeque<OsString> = names(path).collect();
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                at.pop();
                directory = examine(&at)?;
                continue;
            }
            let next = at.join(&name);
            let entry = match fs::symlink_metadata(&next) {
                Ok(entry) => Some(entry),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(LocalStoreError::io("examine", next)(error)),
            };
            // What does not exist yet will be ours, and is looked at again when it does.
            let guards = entry.as_ref().is_none_or(|entry| self.is_trusted(entry.uid()));
            if let Some(reason) = self.why_foreign(&directory, guards) {
                return Err(foreign(&at, reason));
            }
            let Some(entry) = entry else { return Ok(()) };
            if entry.is_symlink() {
                links += 1;
                if links > MAX_LINKS {
                    return Err(LocalStoreError::io("follow", path)(rustix::io::Errno::LOOP));
                }
                let target = fs::read_link(&next).map_err(LocalStoreError::io("read link", &next))?;
                if target.is_absolute() {
                    at = PathBuf::from("/");
                    directory = examine(&at)?;
                }
                for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
                    rest.push_front(name);
                }
            } else {
                (at, directory) = (next, entry);
            }
        }
        let reason = self.why_foreign(&directory, last == Last::Shared);
        reason.map_or(Ok(()), |reason| Err(foreign(&at, reason)))
    }
}

/// The names in a path, and `..`.
fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    })
}
