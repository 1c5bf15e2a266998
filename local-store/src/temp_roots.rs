//! Temporary roots: what this process needs, told to Nix's garbage collectors of all ages.
//!
//! The file `temproots/<pid>` lists full paths, each with a NUL behind it, and counts for as long as its owner holds
//! a lock on it. That lock is shared, never exclusive: a collector of Nix 2.3 waits for a shared lock of its own.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::{
            fs::{MetadataExt as _, OpenOptionsExt as _},
            net::UnixStream,
        },
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    thread,
    time::Duration,
};

use rustix::{fs::FlockOperation, io::Errno};

use crate::{LocalStoreError, layout::make_file};

/// Pause while a collector runs that has no socket (yet).
const COLLECTOR_PAUSE: Duration = Duration::from_millis(100);
/// How long an answer of the collector is waited for before looking whether the caller is still there.
const ANSWER_PAUSE: Duration = Duration::from_secs(1);
/// Paths told to a collector before its answers are read: their one-byte answers fit any socket buffer.
const SOCKET_BATCH: usize = 64;
/// Longest socket path that every Unix takes.
const SOCKET_PATH_LIMIT: usize = 100;
/// No process id is above this, so that sums with it are free where the own id is taken: two containers that share
/// a store may well have processes of one id.
const PROCESS_ID_LIMIT: u64 = 1 << 22;
/// Ids that a collector can read as a number of 31 bits.
const NAME_ATTEMPTS: u64 = 500;
/// Attempts per name: a collector also locks such a file for a moment.
const LOCK_ATTEMPTS: u32 = 5;

/// The temporary roots of this process in one state directory.
#[derive(Debug)]
pub(crate) struct TempRoots {
    state_dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    gc_lock: File,
    list: Option<List>,
    rooted: HashSet<Box<str>>,
}

#[derive(Debug)]
struct List {
    file: File,
    path: PathBuf,
}

/// One file per process and state directory, however many stores are open there.
type Registry = Mutex<HashMap<(u64, u64), Weak<TempRoots>>>;

impl TempRoots {
    /// Those of this process in `state_dir`.
    pub(crate) fn open(state_dir: &Path) -> Result<Arc<Self>, LocalStoreError> {
        static REGISTRY: OnceLock<Registry> = OnceLock::new();
        let directory = state_dir.join("temproots");
        let metadata = fs::metadata(&directory).map_err(LocalStoreError::io("examine", &directory))?;
        let key = (metadata.dev(), metadata.ino());
        let mut registry =
            REGISTRY.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        registry.retain(|_, roots| roots.strong_count() > 0);
        if let Some(roots) = registry.get(&key).and_then(Weak::upgrade) {
            return Ok(roots);
        }
        let roots = Arc::new(Self {
            state_dir: state_dir.to_owned(),
            state: Mutex::new(State {
                gc_lock: make_file(&state_dir.join("gc.lock"), 0o600)?,
                list: None,
                rooted: HashSet::new(),
            }),
        });
        registry.insert(key, Arc::downgrade(&roots));
        Ok(roots)
    }

    /// Protects full paths. Waits while a collector runs that cannot be told.
    pub(crate) fn add(
        &self,
        paths: impl IntoIterator<Item = String>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), LocalStoreError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new: Vec<String> =
            paths.into_iter().filter(|path| !state.rooted.contains(path.as_str())).collect();
        new.sort_unstable();
        new.dedup();
        if new.is_empty() {
            return Ok(());
        }
        if state.list.is_none() {
            state.list = Some(List::create(&self.state_dir.join("temproots"))?);
        }
        let State { gc_lock, list: Some(list), rooted } = &mut *state else { return Ok(()) };
        let gc_lock_path = self.state_dir.join("gc.lock");
        loop {
            match rustix::fs::flock(&*gc_lock, FlockOperation::NonBlockingLockShared) {
                Ok(()) => {
                    // No collector can begin until this is written.
                    let appended = list.append(&new);
                    rustix::fs::flock(&*gc_lock, FlockOperation::Unlock)
                        .map_err(LocalStoreError::errno("unlock", &gc_lock_path))?;
                    appended?;
                    break;
                }
                Err(Errno::WOULDBLOCK) => {}
                Err(error) => return Err(LocalStoreError::errno("lock", &gc_lock_path)(error)),
            }
            if self.tell_collector(&new, cancelled) {
                list.append(&new)?;
                break;
            }
            if cancelled() {
                return Err(LocalStoreError::Cancelled { path: gc_lock_path });
            }
            thread::sleep(COLLECTOR_PAUSE);
        }
        rooted.extend(new.into_iter().map(String::into_boxed_str));
        Ok(())
    }

    /// Tells a collector of Nix 2.5 or later; false if there is none that listens, or it ended meanwhile.
    fn tell_collector(&self, paths: &[String], cancelled: &dyn Fn() -> bool) -> bool {
        let tell = || -> io::Result<()> {
            let mut socket = self.connect()?;
            socket.set_read_timeout(Some(ANSWER_PAUSE))?;
            for batch in paths.chunks(SOCKET_BATCH) {
                let mut lines = batch.join("\n");
                lines.push('\n');
                socket.write_all(lines.as_bytes())?;
                let mut missing = batch.len();
                while missing > 0 {
                    let mut answers = [0; SOCKET_BATCH];
                    let room = answers.get_mut(..missing).unwrap_or_default();
                    match socket.read(room) {
                        Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                        Ok(count) => missing = missing.saturating_sub(count),
                        Err(error)
                            if matches!(
                                error.kind(),
                                io::ErrorKind::WouldBlock
                                    | io::ErrorKind::TimedOut
                                    | io::ErrorKind::Interrupted
                            ) && !cancelled() => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            Ok(())
        };
        tell().inspect_err(|error| tracing::debug!(%error, "no collector to tell")).is_ok()
    }

    fn connect(&self) -> io::Result<UnixStream> {
        let directory = self.state_dir.join("gc-socket");
        let path = directory.join("socket");
        if path.as_os_str().len() <= SOCKET_PATH_LIMIT {
            return UnixStream::connect(path);
        }
        // Addresses of sockets hold about 100 bytes; a chroot store may lie deeper.
        let directory = File::open(directory)?;
        UnixStream::connect(format!("/proc/self/fd/{}/socket", directory.as_raw_fd()))
    }
}

/// What it protected is fair game from here on.
impl Drop for TempRoots {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(list) = &state.list
            && let Err(error) = fs::remove_file(&list.path)
        {
            tracing::debug!(path = %list.path.display(), %error, "temporary roots not removed");
        }
    }
}

impl List {
    fn create(directory: &Path) -> Result<Self, LocalStoreError> {
        let own = u64::from(std::process::id());
        let path_of = |number: u64| directory.join((own + number * PROCESS_ID_LIMIT).to_string());
        for number in 0..NAME_ATTEMPTS {
            for attempt in 0..LOCK_ATTEMPTS {
                if let Some(list) = Self::try_create(&path_of(number))? {
                    return Ok(list);
                }
                thread::sleep(Duration::from_millis(u64::from(attempt)));
            }
        }
        Err(LocalStoreError::TempRootsTaken { path: path_of(0) })
    }

    fn try_create(path: &Path) -> Result<Option<Self>, LocalStoreError> {
        match File::open(path) {
            Ok(stale) => {
                match rustix::fs::flock(&stale, FlockOperation::NonBlockingLockExclusive) {
                    Ok(()) => {}
                    Err(Errno::WOULDBLOCK) => return Ok(None),
                    Err(error) => return Err(LocalStoreError::errno("lock", path)(error)),
                }
                match fs::remove_file(path) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(LocalStoreError::io("remove", path)(error)),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(LocalStoreError::io("open", path)(error)),
        }
        let file = match OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            Err(error) => return Err(LocalStoreError::io("create", path)(error)),
        };
        rustix::fs::flock(&file, FlockOperation::LockShared).map_err(LocalStoreError::errno("lock", path))?;
        // Between creation and lock a collector may have taken it for abandoned: it then wrote a byte to it.
        let length = file.metadata().map_err(LocalStoreError::io("examine", path))?.len();
        Ok((length == 0).then(|| Self { file, path: path.to_owned() }))
    }

    fn append(&mut self, paths: &[String]) -> Result<(), LocalStoreError> {
        let mut records = Vec::with_capacity(paths.iter().map(|path| path.len() + 1).sum());
        for path in paths {
            records.extend_from_slice(path.as_bytes());
            records.push(0);
        }
        self.file.write_all(&records).map_err(LocalStoreError::io("write", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        os::unix::net::UnixListener,
    };

    use super::*;

    fn state_dir() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("temproots")).unwrap();
        directory
    }

    fn listed(state_dir: &Path) -> String {
        let path = state_dir.join("temproots").join(std::process::id().to_string());
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn roots_are_listed_once_under_a_shared_lock_and_go_with_their_owner() {
        let state = state_dir();
        let roots = TempRoots::open(state.path()).unwrap();
        roots.add(["/s/b".into(), "/s/a".into(), "/s/b".into()], &|| false).unwrap();
        // Another store of this process shares the file.
        let again = TempRoots::open(state.path()).unwrap();
        again.add(["/s/a".into(), "/s/c".into()], &|| false).unwrap();
        assert_eq!(listed(state.path()), "/s/a\0/s/b\0/s/c\0");

        let path = state.path().join("temproots").join(std::process::id().to_string());
        let other = File::open(&path).unwrap();
        rustix::fs::flock(&other, FlockOperation::NonBlockingLockShared).unwrap();
        rustix::fs::flock(&other, FlockOperation::Unlock).unwrap();
        let exclusive = rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive);
        assert_eq!(exclusive, Err(Errno::WOULDBLOCK));
        drop((roots, again));
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_file_is_replaced_and_one_of_a_living_process_is_not() {
        let state = state_dir();
        let own = state.path().join("temproots").join(std::process::id().to_string());
        fs::write(&own, "/s/old\0").unwrap();
        let roots = TempRoots::open(state.path()).unwrap();
        roots.add(["/s/new".into()], &|| false).unwrap();
        assert_eq!(listed(state.path()), "/s/new\0");
        drop(roots);

        fs::write(&own, "/s/theirs\0").unwrap();
        let theirs = File::open(&own).unwrap();
        rustix::fs::flock(&theirs, FlockOperation::LockShared).unwrap();
        let roots = TempRoots::open(state.path()).unwrap();
        roots.add(["/s/ours".into()], &|| false).unwrap();
        assert_eq!(listed(state.path()), "/s/theirs\0");
        let other = own.with_file_name((u64::from(std::process::id()) + PROCESS_ID_LIMIT).to_string());
        assert_eq!(fs::read_to_string(other).unwrap(), "/s/ours\0");
    }

    #[test]
    fn a_running_collector_is_told_and_must_answer() {
        let state = state_dir();
        let roots = TempRoots::open(state.path()).unwrap();
        let collector = make_file(&state.path().join("gc.lock"), 0o600).unwrap();
        rustix::fs::flock(&collector, FlockOperation::LockExclusive).unwrap();
        let one = || ["/s/x".to_owned()];
        assert!(matches!(roots.add(one(), &|| true), Err(LocalStoreError::Cancelled { .. })));

        fs::create_dir(state.path().join("gc-socket")).unwrap();
        let listener = UnixListener::bind(state.path().join("gc-socket/socket")).unwrap();
        let paths: Vec<_> = (100..300).map(|number| format!("/s/{number}")).collect();
        let told = thread::scope(|scope| {
            let server = scope.spawn(|| {
                // The first connection is lost without an answer, as if that collector had just ended.
                drop(listener.accept().unwrap());
                let (socket, _) = listener.accept().unwrap();
                let mut answers = socket.try_clone().unwrap();
                let lines = BufReader::new(socket).lines().map(|line| {
                    answers.write_all(b"1").unwrap();
                    line.unwrap()
                });
                lines.collect::<Vec<_>>()
            });
            roots.add(paths.clone(), &|| false).unwrap();
            server.join().unwrap()
        });
        assert_eq!(told, paths);
        assert_eq!(listed(state.path()), paths.join("\0") + "\0");
    }
}
