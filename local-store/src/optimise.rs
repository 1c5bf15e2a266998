//! Equal files as hard links of one, as Nix does it with `auto-optimise-store`.
//!
//! `.links` has an entry for each file, named by the hash of the NAR of that file alone, so that executables and other
//! files differ. What is in the store already is compared in full before anything is replaced by it.

use std::{
    ffi::{CStr, CString, OsStr},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    sync::atomic::{AtomicU32, Ordering},
};

use ncc_nar::{PackOptions, Packer};
use ncc_store::{NarHash, NarHasher, StorePath};
use rustix::{
    fs::{
        AtFlags, Dir, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, fchmod, futimens, linkat,
        openat, renameat, statat, unlinkat,
    },
    io::Errno,
};

use crate::{LocalStoreError, directory::Directory};

/// What lies deeper than this in an object is left as it is: each level takes a descriptor.
const DEEPEST: u32 = 16;
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Links files of the complete object at `path` to equal ones in the store. The content is the same afterwards, and
/// after an error too.
pub(crate) fn link_files(objects: &Directory, path: &StorePath) -> Result<(), LocalStoreError> {
    let failed = |error| LocalStoreError::io("link equal files of", objects.path_of(path.base_name()))(error);
    let links = objects.make_below(".links")?;
    let name = CString::new(path.base_name()).unwrap_or_default();
    Optimiser { objects, links: &links, packer: Packer::new(&PackOptions::default()) }
        .entry(objects.as_fd(), &name, 0)
        .map(drop)
        .map_err(failed)
}

struct Optimiser<'a> {
    objects: &'a Directory,
    links: &'a Directory,
    packer: Packer,
}

impl Optimiser<'_> {
    /// Whether the entry was replaced by a link.
    fn entry(&mut self, parent: impl AsFd, name: &CStr, depth: u32) -> Result<bool, Errno> {
        let status = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(status.st_mode) {
            FileType::Directory if depth < DEEPEST && !is_bundle(name) => {
                self.directory(&openat(&parent, name, DIRECTORY, Mode::empty())?, depth)?;
                Ok(false)
            }
            // Symlinks can have hard links on Linux only.
            FileType::Symlink if cfg!(not(target_os = "linux")) => Ok(false),
            FileType::RegularFile | FileType::Symlink => self.file(parent, name),
            _ => Ok(false),
        }
    }

    fn directory(&mut self, directory: &OwnedFd, depth: u32) -> Result<(), Errno> {
        let names = Dir::read_from(directory)?
            .map(|entry| entry.map(|entry| entry.file_name().to_owned()))
            .filter(|name| !matches!(name.as_deref().map(CStr::to_bytes), Ok(b"." | b"..")))
            .collect::<Result<Vec<CString>, Errno>>()?;
        let mut writable = false;
        let mut result = Ok(());
        for name in names {
            let replaced = match self.entry(directory, &name, depth + 1) {
                Err(Errno::ACCESS | Errno::PERM) if !writable => {
                    // Who is not root may not change what is read-only, not even its owner.
                    fchmod(directory, Mode::from_raw_mode(0o755))?;
                    writable = true;
                    self.entry(directory, &name, depth + 1)
                }
                result => result,
            };
            if let Err(error) = replaced {
                result = Err(error);
                break;
            }
        }
        if writable {
            fchmod(directory, Mode::from_raw_mode(0o555))?;
        }
        // Replacing entries has changed it.
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: 1, tv_nsec: 0 },
        };
        futimens(directory, &times)?;
        result
    }

    fn file(&mut self, parent: impl AsFd, name: &CStr) -> Result<bool, Errno> {
        let Some(hash) = self.hash(&parent, OsStr::from_bytes(name.to_bytes())) else { return Ok(false) };
        let entry = hash.to_nix32();
        for _ in 0..2 {
            match linkat(&parent, name, self.links, entry.as_str(), AtFlags::empty()) {
                Err(Errno::EXIST) => {}
                // The first of its kind; or there is no room for a name, or too many of them.
                Ok(()) | Err(Errno::NOSPC | Errno::DQUOT | Errno::MLINK) => return Ok(false),
                Err(error) => return Err(error),
            }
            let (ours, theirs) = (
                statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?,
                statat(self.links, entry.as_str(), AtFlags::SYMLINK_NOFOLLOW)?,
            );
            if (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino) {
                return Ok(false);
            }
            if ours.st_mode == theirs.st_mode && self.hash(self.links, entry.as_str()) == Some(hash) {
                return self.replace(&parent, name, &entry);
            }
            // Damaged, so that others shall not be linked to it. Whoever was linked to it already keeps it.
            tracing::warn!(entry, "an entry of .links is not what its name says, and is replaced");
            unlinkat(self.links, entry.as_str(), AtFlags::empty())?;
        }
        Ok(false)
    }

    /// By way of a rename, so that the entry is there all the time.
    fn replace(&self, parent: impl AsFd, name: &CStr, entry: &str) -> Result<bool, Errno> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let temporary = loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let temporary = format!(".tmp-link-{}-{number}", std::process::id());
            match linkat(self.links, entry, self.objects, temporary.as_str(), AtFlags::empty()) {
                Ok(()) => break temporary,
                Err(Errno::EXIST) => {}
                Err(Errno::MLINK) => return Ok(false),
                Err(error) => return Err(error),
            }
        };
        let renamed = renameat(self.objects, temporary.as_str(), &parent, name);
        if renamed.is_err() {
            unlinkat(self.objects, temporary.as_str(), AtFlags::empty())?;
        }
        renamed.map(|()| true)
    }

    /// Nothing if it cannot be read.
    fn hash(&mut self, parent: impl AsFd, name: impl AsRef<OsStr>) -> Option<NarHash> {
        let mut hasher = NarHasher::new();
        self.packer.pack_at(parent, name, &mut hasher).ok()?;
        Some(hasher.finish().0)
    }
}

/// What macOS checks the signatures of, which links would break.
fn is_bundle(name: &CStr) -> bool {
    cfg!(target_vendor = "apple") && name.to_bytes().ends_with(b".app")
}
