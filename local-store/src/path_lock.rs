//! The lock on one store path while it is created: a file `<path>.lock` beside it.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::{fs::FlockOperation, io::Errno};

use crate::{LocalStoreError, layout::make_file};

/// Pauses between two attempts grow from here ...
const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// ... to here. Attempts instead of one waiting call, because a thread inside that call could not be told to give up.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Held until it is dropped, which leaves the lock file, or [retired](Self::retire), which removes it.
#[derive(Debug)]
pub(crate) struct PathLock {
    file: File,
    path: PathBuf,
}

impl PathLock {
    /// Takes the lock file of `object` unless somebody has it, in this process or another.
    pub(crate) fn try_acquire(object: &Path) -> Result<Option<Self>, LocalStoreError> {
        let mut path = object.to_owned().into_os_string();
        path.push(".lock");
        let path = PathBuf::from(path);
        loop {
            let file = make_file(&path, 0o600)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(LocalStoreError::errno("lock", path)(error)),
            }
            // A byte in it says that its owner was done and removed it: others lock another file by now.
            if file.metadata().map_err(LocalStoreError::io("examine", &path))?.len() == 0 {
                return Ok(Some(Self { file, path }));
            }
        }
    }

    /// Waits for it until `cancelled` says to stop. Nobody may do this who holds another path lock: two processes
    /// would wait for each other.
    pub(crate) fn acquire(object: &Path, cancelled: &dyn Fn() -> bool) -> Result<Self, LocalStoreError> {
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(lock) = Self::try_acquire(object)? {
                return Ok(lock);
            }
            if cancelled() {
                return Err(LocalStoreError::Cancelled { path: object.to_owned() });
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Removes the lock file and tells those who wait for it.
    pub(crate) fn retire(mut self) {
        // If this fails, a lock file stays: the garbage collector takes it.
        let removed = fs::remove_file(&self.path).and_then(|()| self.file.write_all(b"d"));
        if let Err(error) = removed {
            tracing::debug!(path = %self.path.display(), %error, "lock file not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_excludes_others_until_it_is_retired() {
        let directory = tempfile::tempdir().unwrap();
        let object = directory.path().join("object");
        let lock_file = directory.path().join("object.lock");
        let lock = PathLock::try_acquire(&object).unwrap().unwrap();
        assert!(PathLock::try_acquire(&object).unwrap().is_none());
        let old = File::open(&lock_file).unwrap();
        lock.retire();
        assert!(!lock_file.exists());
        assert_eq!(old.metadata().unwrap().len(), 1);
        assert!(PathLock::try_acquire(&object).unwrap().is_some());
    }

    #[test]
    fn an_abandoned_lock_file_can_be_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let object = directory.path().join("object");
        drop(PathLock::try_acquire(&object).unwrap().unwrap());
        assert!(directory.path().join("object.lock").exists());
        assert!(PathLock::acquire(&object, &|| false).is_ok());
    }

    #[test]
    fn waiting_can_be_cancelled_and_succeeds_once_the_owner_is_done() {
        let directory = tempfile::tempdir().unwrap();
        let object = directory.path().join("object");
        let lock = PathLock::try_acquire(&object).unwrap().unwrap();
        assert!(matches!(PathLock::acquire(&object, &|| true), Err(LocalStoreError::Cancelled { .. })));
        thread::scope(|scope| {
            let waiter = scope.spawn(|| PathLock::acquire(&object, &|| false).map(drop));
            thread::sleep(Duration::from_millis(20));
            assert!(!waiter.is_finished());
            lock.retire();
            waiter.join().unwrap().unwrap();
        });
    }
}
