//! The lock on one store path while it is created: a file `<path>.lock` beside it.

use std::{
    fs::{File, Metadata},
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    sync::Arc,
    thread,
    time::Duration,
};

use rustix::{
    fs::{FileType, FlockOperation, Mode, Stat},
    io::Errno,
};

use crate::{LocalStoreError, directory::Directory};

/// Pauses between two attempts grow from here ...
const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// ... to here. Attempts instead of one waiting call, because a thread inside that call could not be told to give up.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Held until it is dropped, which leaves the lock file, or [retired](Self::retire), which removes it.
#[derive(Debug)]
pub(crate) struct PathLock {
    file: File,
    objects: Arc<Directory>,
    name: String,
}

impl PathLock {
    /// Takes the lock file of `object` in `objects` unless somebody has it, in this process or another.
    pub(crate) fn try_acquire(
        objects: &Arc<Directory>,
        object: &str,
    ) -> Result<Option<Self>, LocalStoreError> {
        let name = format!("{object}.lock");
        let path = || objects.path_of(&name);
        loop {
            let file = match objects.make_file(&name, 0o600) {
                Ok(file) => file,
                Err(error) => match objects.status(&name)? {
                    Some(status)
                        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile
                            || !Mode::from_raw_mode(status.st_mode).contains(Mode::WUSR) =>
                    {
                        return Err(LocalStoreError::NoLockFile { path: path() });
                    }
                    _ => return Err(error),
                },
            };
            let status = file.metadata().map_err(|error| LocalStoreError::io("examine", path())(error))?;
            if !is_lock_file(&status) {
                return Err(LocalStoreError::NoLockFile { path: path() });
            }
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(LocalStoreError::io("lock", path())(error)),
            }
            let status = file.metadata().map_err(|error| LocalStoreError::io("examine", path())(error))?;
            // Its owner was done and removed it, or a collector did: others lock another file by now. Nix looks for
            // the byte that the owner has written to it, for which there may have been no space.
            if status.nlink() == 0 {
                continue;
            }
            if status.len() == 0 {
                return Ok(Some(Self { file, objects: objects.clone(), name }));
            }
            // Marked as done and still there: its owner was stopped in between. Nobody will ever use it, so all of
            // Nix would wait for ever; and nobody but its owner, who we are now, may remove it.
            objects.remove_file(&name)?;
        }
    }

    /// Removes the lock file that somebody has left who was stopped behind the registration of `object`, which has to be valid.
    /// Whether there was one that nobody holds any more.
    pub(crate) fn clear_leftover(objects: &Arc<Directory>, object: &str) -> Result<bool, LocalStoreError> {
        let is_lock_file = |status: Stat| {
            FileType::from_raw_mode(status.st_mode) == FileType::RegularFile
                && Mode::from_raw_mode(status.st_mode).contains(Mode::WUSR)
        };
        if !objects.status(&format!("{object}.lock"))?.is_some_and(is_lock_file) {
            return Ok(false);
        }
        // Whoever waits for it sees the mark, tries again, and finds the object valid.
        let lock = Self::try_acquire(objects, object)?;
        Ok(lock.map(Self::retire).is_some())
    }

    /// Waits for it until `cancelled` says to stop. Nobody may do this who holds another path lock: two processes
    /// would wait for each other.
    pub(crate) fn acquire(
        objects: &Arc<Directory>,
        object: &str,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Self, LocalStoreError> {
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(lock) = Self::try_acquire(objects, object)? {
                return Ok(lock);
            }
            if cancelled() {
                return Err(LocalStoreError::Cancelled { path: objects.path_of(object) });
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Removes the lock file and tells those who wait for it.
    pub(crate) fn retire(mut self) {
        // If this fails, a lock file stays: the garbage collector takes it.
        let mark = |file: &mut File| file.write_all(b"d").map_err(LocalStoreError::io("mark", &self.name));
        if let Err(error) = self.objects.remove_file(&self.name).and_then(|()| mark(&mut self.file)) {
            tracing::debug!(%error, "lock file not removed");
        }
    }
}

/// `x.lock` is also the name of a store path, which is read-only; a lock file never is.
fn is_lock_file(status: &Metadata) -> bool {
    status.is_file() && (status.mode() & 0o200 != 0 || status.nlink() == 0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn scratch() -> (tempfile::TempDir, Arc<Directory>) {
        let directory = tempfile::tempdir().unwrap();
        let objects = Arc::new(Directory::open(directory.path()).unwrap());
        (directory, objects)
    }

    #[test]
    fn a_lock_excludes_others_until_it_is_retired() {
        let (directory, objects) = scratch();
        let lock_file = directory.path().join("object.lock");
        let lock = PathLock::try_acquire(&objects, "object").unwrap().unwrap();
        assert!(PathLock::try_acquire(&objects, "object").unwrap().is_none());
        let old = File::open(&lock_file).unwrap();
        lock.retire();
        assert!(!lock_file.exists());
        assert_eq!(old.metadata().unwrap().len(), 1);
        assert!(PathLock::try_acquire(&objects, "object").unwrap().is_some());
    }

    #[test]
    fn an_abandoned_lock_file_can_be_taken_over() {
        let (directory, objects) = scratch();
        drop(PathLock::try_acquire(&objects, "object").unwrap().unwrap());
        assert!(directory.path().join("object.lock").exists());
        assert!(PathLock::acquire(&objects, "object", &|| false).is_ok());
    }

    #[test]
    fn a_lock_file_that_was_removed_without_a_mark_is_no_lock() {
        let (directory, objects) = scratch();
        let lock_file = directory.path().join("object.lock");
        // Opened, as if by somebody who waits, and then removed; for the mark the disk was too full.
        let lock = PathLock::try_acquire(&objects, "object").unwrap().unwrap();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| PathLock::acquire(&objects, "object", &|| false));
            thread::sleep(Duration::from_millis(20));
            fs::remove_file(&lock_file).unwrap();
            drop(lock);
            let acquired = waiter.join().unwrap().unwrap();
            assert_eq!(
                acquired.file.metadata().unwrap().ino(),
                fs::metadata(&lock_file).unwrap().ino(),
                "the one that everybody else sees"
            );
        });
    }

    #[test]
    fn a_lock_file_marked_as_done_is_not_waited_for_for_ever() {
        let (directory, objects) = scratch();
        fs::write(directory.path().join("object.lock"), "d").unwrap();
        let lock = PathLock::try_acquire(&objects, "object").unwrap().unwrap();
        assert_eq!(fs::metadata(directory.path().join("object.lock")).unwrap().len(), 0);
        lock.retire();
    }

    #[test]
    fn what_is_no_lock_file_is_left_alone() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let (directory, objects) = scratch();
        let victim = directory.path().join("victim");
        fs::write(&victim, "").unwrap();
        // Whoever may write to a store directory could put a link there.
        symlink(&victim, directory.path().join("a.lock")).unwrap();
        symlink("nowhere", directory.path().join("b.lock")).unwrap();
        // Store paths.
        fs::write(directory.path().join("c.lock"), "").unwrap();
        fs::set_permissions(directory.path().join("c.lock"), fs::Permissions::from_mode(0o444)).unwrap();
        fs::create_dir(directory.path().join("d.lock")).unwrap();
        for name in ["a", "b", "c", "d"] {
            let error = PathLock::try_acquire(&objects, name).unwrap_err();
            assert!(matches!(error, LocalStoreError::NoLockFile { .. }), "{name}: {error:?}");
            assert!(directory.path().join(format!("{name}.lock")).symlink_metadata().is_ok(), "{name}");
        }
        assert_eq!(fs::read(victim).unwrap(), b"");
    }

    #[test]
    fn a_lock_file_may_vanish_at_any_moment() {
        let (_directory, objects) = scratch();
        let stop = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            let others = scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    if let Some(lock) = PathLock::try_acquire(&objects, "object").unwrap() {
                        lock.retire();
                    }
                }
            });
            for _ in 0..20_000 {
                match PathLock::try_acquire(&objects, "object") {
                    Ok(Some(lock)) => lock.retire(),
                    Ok(None) => {}
                    Err(error) => {
                        stop.store(true, std::sync::atomic::Ordering::Relaxed);
                        panic!("{error:?}");
                    }
                }
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            others.join().unwrap();
        });
    }

    #[test]
    fn what_a_dead_owner_left_goes_and_nothing_else() {
        let (directory, objects) = scratch();
        let exists = |name: &str| directory.path().join(name).exists();
        assert!(!PathLock::clear_leftover(&objects, "object").unwrap());
        assert!(!exists("object.lock"), "none is made");
        let held = PathLock::try_acquire(&objects, "object").unwrap().unwrap();
        assert!(!PathLock::clear_leftover(&objects, "object").unwrap());
        assert!(exists("object.lock"), "its owner lives");
        drop(held);
        let waiting = File::open(directory.path().join("object.lock")).unwrap();
        assert!(PathLock::clear_leftover(&objects, "object").unwrap());
        assert!(!exists("object.lock"));
        assert_eq!(waiting.metadata().unwrap().len(), 1, "whoever waits is told");
        // A store path.
        fs::create_dir(directory.path().join("other.lock")).unwrap();
        assert!(!PathLock::clear_leftover(&objects, "other").unwrap());
        assert!(exists("other.lock"));
    }

    #[test]
    fn waiting_can_be_cancelled_and_succeeds_once_the_owner_is_done() {
        let (_directory, objects) = scratch();
        let lock = PathLock::try_acquire(&objects, "object").unwrap().unwrap();
        assert!(matches!(
            PathLock::acquire(&objects, "object", &|| true),
            Err(LocalStoreError::Cancelled { .. })
        ));
        thread::scope(|scope| {
            let waiter = scope.spawn(|| PathLock::acquire(&objects, "object", &|| false).map(drop));
            thread::sleep(Duration::from_millis(20));
            assert!(!waiter.is_finished());
            lock.retire();
            waiter.join().unwrap().unwrap();
        });
    }
}
