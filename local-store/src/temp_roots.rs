//! Temporary roots: what this process needs, told to Nix's garbage collectors of all ages.
//!
//! The file `temproots/<number>` lists full paths, each with a NUL behind it, and counts for as long as its owner holds
//! a lock on it. That lock is shared, never exclusive: a collector of Nix 2.3 waits for a shared lock of its own.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::{
        fs::{MetadataExt as _, OpenOptionsExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    thread,
    time::Duration,
};

use ncc_store::{StoreDir, StorePath};
use rustix::{fs::FlockOperation, io::Errno};

use crate::{LocalStoreError, database::Cancelled, directory::Directory};

/// Pause while a collector runs that has no socket (yet).
const COLLECTOR_PAUSE: Duration = Duration::from_millis(100);
/// How long an answer of the collector is waited for before looking whether the caller is still there.
const ANSWER_PAUSE: Duration = Duration::from_secs(1);
/// Paths told to a collector before its answers are read: their one-byte answers fit any socket buffer.
const SOCKET_BATCH: usize = 64;
/// Paths written to the file at once.
const FILE_BATCH: usize = 1000;
/// Longest socket path that every Unix takes.
const SOCKET_PATH_LIMIT: usize = 100;
/// No process id is above this, so that no Nix ever calls its file like a sum with it. Two containers that share a
/// store may well have processes of one id, and Nix removes what it finds under its own without looking at the lock.
const PROCESS_ID_LIMIT: u64 = 1 << 22;
/// Ids that a collector can read as a number of 31 bits.
const NAME_ATTEMPTS: u64 = 500;
/// Attempts per name: a collector also locks such a file for a moment.
const LOCK_ATTEMPTS: u32 = 5;

/// The temporary roots of this process in one state directory.
#[derive(Debug)]
pub(crate) struct TempRoots {
    state_dir: PathBuf,
    store_dir: StoreDir,
    gc_lock: File,
    /// To the collector that runs, or ran last. It is kept, as Nix does: connections that come and go all the time can
    /// end a collector of Nix 2.8 ("terminate called without an active exception").
    collector: Mutex<Option<UnixStream>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    list: Option<List>,
    rooted: HashSet<StorePath>,
}

#[derive(Debug)]
struct List {
    file: File,
    path: PathBuf,
    length: u64,
}

/// One file per process, state directory and store directory, however many stores are open there.
type Registry = Mutex<HashMap<(u64, u64, String), Weak<TempRoots>>>;

impl TempRoots {
    /// Those of this process in `state_dir`.
    pub(crate) fn open(state_dir: &Path, store_dir: &StoreDir) -> Result<Arc<Self>, LocalStoreError> {
        static REGISTRY: OnceLock<Registry> = OnceLock::new();
        let directory = state_dir.join("temproots");
        let metadata = fs::metadata(&directory).map_err(LocalStoreError::io("examine", &directory))?;
        let key = (metadata.dev(), metadata.ino(), store_dir.as_str().to_owned());
        let mut registry =
            REGISTRY.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        registry.retain(|_, roots| roots.strong_count() > 0);
        if let Some(roots) = registry.get(&key).and_then(Weak::upgrade) {
            return Ok(roots);
        }
        let roots = Arc::new(Self {
            state_dir: state_dir.to_owned(),
            store_dir: store_dir.clone(),
            gc_lock: Directory::open(state_dir)?.make_file("gc.lock", 0o600)?,
            collector: Mutex::default(),
            state: Mutex::default(),
        });
        registry.insert(key, Arc::downgrade(&roots));
        Ok(roots)
    }

    /// Protects paths. Waits while a collector runs that cannot be told.
    pub(crate) fn add<'a>(
        &self,
        paths: impl IntoIterator<Item = &'a StorePath>,
        cancelled: Cancelled<'_>,
    ) -> Result<(), LocalStoreError> {
        let mut new: Vec<&StorePath> = paths.into_iter().collect();
        {
            let mut state = self.state();
            new.retain(|path| !state.rooted.contains(*path));
            new.sort_unstable();
            new.dedup();
            if new.is_empty() {
                return Ok(());
            }
            if state.list.is_none() {
                state.list = Some(List::create(&self.state_dir.join("temproots"))?);
            }
            let Some(list) = &mut state.list else { return Ok(()) };
            // First of all: who collects from now on will read it. A collector that has read it already still holds
            // the lock below. (Nix tells the running collector first, and so tells nobody if the next one is quick.)
            list.append(&self.store_dir, &new)?;
        }
        // Without the mutex: this can take hours, and others have something to register meanwhile.
        self.wait_for_collector(&new, cancelled)?;
        self.state().rooted.extend(new.into_iter().cloned());
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when no collector runs that does not know of `paths`.
    fn wait_for_collector(
        &self,
        paths: &[&StorePath],
        cancelled: Cancelled<'_>,
    ) -> Result<(), LocalStoreError> {
        let path = || self.state_dir.join("gc.lock");
        loop {
            match rustix::fs::flock(&self.gc_lock, FlockOperation::NonBlockingLockShared) {
                Ok(()) => {
                    return rustix::fs::flock(&self.gc_lock, FlockOperation::Unlock)
                        .map_err(|error| LocalStoreError::io("unlock", path())(error));
                }
                Err(Errno::WOULDBLOCK) => {}
                Err(error) => return Err(LocalStoreError::io("lock", path())(error)),
            }
            if self.tell_collector(paths, cancelled) {
                return Ok(());
            }
            if cancelled() {
                return Err(LocalStoreError::Cancelled { path: path() });
            }
            thread::sleep(COLLECTOR_PAUSE);
        }
    }

    /// Makes sure that what was added is still protected.
    pub(crate) fn check(&self) -> Result<(), LocalStoreError> {
        let state = self.state();
        let Some(list) = &state.list else { return Ok(()) };
        let metadata = list.file.metadata().map_err(LocalStoreError::io("examine", &list.path))?;
        // A byte more is what a collector writes that takes the owner for dead.
        if metadata.nlink() == 0 || metadata.len() != list.length {
            return Err(LocalStoreError::TempRootsLost { path: list.path.clone() });
        }
        Ok(())
    }

    /// Tells a collector of Nix 2.5 or later; false if there is none that listens, or it ended meanwhile.
    fn tell_collector(&self, paths: &[&StorePath], cancelled: Cancelled<'_>) -> bool {
        let mut kept = self.collector.lock().unwrap_or_else(PoisonError::into_inner).take();
        loop {
            let is_kept = kept.is_some();
            let told = kept.take().map_or_else(|| self.connect(), Ok).and_then(|mut socket| {
                self.tell(&mut socket, paths, cancelled)?;
                Ok(socket)
            });
            match told {
                Ok(socket) => {
                    *self.collector.lock().unwrap_or_else(PoisonError::into_inner) = Some(socket);
                    return true;
                }
                // That of a collector which has ended; there may be another one.
                Err(_) if is_kept => {}
                Err(error) => {
                    tracing::debug!(%error, "no collector to tell");
                    return false;
                }
            }
        }
    }

    fn tell(
        &self,
        socket: &mut UnixStream,
        paths: &[&StorePath],
        cancelled: Cancelled<'_>,
    ) -> io::Result<()> {
        for batch in paths.chunks(SOCKET_BATCH) {
            let records = records(&self.store_dir, batch, b'\n');
            let mut rest = records.as_slice();
            while !rest.is_empty() {
                let count = patiently(cancelled, || socket.write(rest))?;
                rest = rest.get(count..).unwrap_or_default();
            }
            let mut missing = batch.len();
            while missing > 0 {
                let mut answers = [0; SOCKET_BATCH];
                let room = answers.get_mut(..missing).unwrap_or_default();
                match patiently(cancelled, || socket.read(room))? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count => missing = missing.saturating_sub(count),
                }
            }
        }
        Ok(())
    }

    fn connect(&self) -> io::Result<UnixStream> {
        let directory = self.state_dir.join("gc-socket");
        let path = directory.join("socket");
        let socket = if path.as_os_str().len() <= SOCKET_PATH_LIMIT {
            UnixStream::connect(path)
        } else {
            connect_in(&directory)
        }?;
        socket.set_read_timeout(Some(ANSWER_PAUSE))?;
        socket.set_write_timeout(Some(ANSWER_PAUSE))?;
        Ok(socket)
    }
}

/// Addresses of sockets hold about 100 bytes; a chroot store may lie deeper.
#[cfg(target_os = "linux")]
fn connect_in(directory: &Path) -> io::Result<UnixStream> {
    use std::os::fd::AsRawFd as _;

    let directory = File::open(directory)?;
    UnixStream::connect(format!("/proc/self/fd/{}/socket", directory.as_raw_fd()))
}

/// The same where there is no /proc: through a link with a short path, for a moment.
#[cfg(any(test, not(target_os = "linux")))]
fn connect_through_link(directory: &Path) -> io::Result<UnixStream> {
    use std::sync::atomic::{AtomicU64, Ordering};

    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let link = std::env::temp_dir().join(format!("ncc-{}-{number}", std::process::id()));
    // Never one that is there: it may be somebody else's.
    std::os::unix::fs::symlink(directory, &link)?;
    let socket = UnixStream::connect(link.join("socket"));
    fs::remove_file(&link)?;
    socket
}

#[cfg(not(target_os = "linux"))]
use connect_through_link as connect_in;

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
        for number in 1..=NAME_ATTEMPTS {
            for attempt in 0..LOCK_ATTEMPTS {
                if let Some(list) = Self::try_create(&path_of(number))? {
                    return Ok(list);
                }
                thread::sleep(Duration::from_millis(u64::from(attempt)));
            }
        }
        Err(LocalStoreError::TempRootsTaken { path: path_of(1) })
    }

    fn try_create(path: &Path) -> Result<Option<Self>, LocalStoreError> {
        match File::open(path) {
            Ok(stale) => {
                match rustix::fs::flock(&stale, FlockOperation::NonBlockingLockExclusive) {
                    Ok(()) => {}
                    Err(Errno::WOULDBLOCK) => return Ok(None),
                    Err(error) => return Err(LocalStoreError::io("lock", path)(error)),
                }
                // Or else this would remove what somebody has put in its place, and who is not dead.
                if stale.metadata().map_err(LocalStoreError::io("examine", path))?.nlink() == 0 {
                    return Ok(None);
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
        rustix::fs::flock(&file, FlockOperation::LockShared).map_err(LocalStoreError::io("lock", path))?;
        // Between creation and lock a collector, or a process of the same number, may have taken it for abandoned: it
        // then removed it, and the collector wrote a byte to it.
        let metadata = file.metadata().map_err(LocalStoreError::io("examine", path))?;
        let ours = metadata.len() == 0 && metadata.nlink() > 0;
        Ok(ours.then(|| Self { file, path: path.to_owned(), length: 0 }))
    }

    /// All of `paths` or none: half a record would spoil the next one.
    fn append(&mut self, store_dir: &StoreDir, paths: &[&StorePath]) -> Result<(), LocalStoreError> {
        let mut length = self.length;
        for batch in paths.chunks(FILE_BATCH) {
            let records = records(store_dir, batch, 0);
            if let Err(error) = self.file.write_all(&records) {
                self.file.set_len(self.length).map_err(LocalStoreError::io("truncate", &self.path))?;
                return Err(LocalStoreError::io("write", &self.path)(error));
            }
            length += records.len() as u64;
        }
        self.length = length;
        Ok(())
    }
}

/// Repeats what ran into a timeout for as long as somebody waits for it.
fn patiently(cancelled: Cancelled<'_>, mut attempt: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match attempt() {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                ) && !cancelled() => {}
            result => return result,
        }
    }
}

/// Full paths with `end` behind each.
fn records(store_dir: &StoreDir, paths: &[&StorePath], end: u8) -> Vec<u8> {
    let mut records = Vec::with_capacity(paths.len() * 100);
    for path in paths {
        records.extend_from_slice(store_dir.full(path).as_bytes());
        records.push(end);
    }
    records
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

    fn open(state: &tempfile::TempDir) -> Arc<TempRoots> {
        TempRoots::open(state.path(), &StoreDir::default()).unwrap()
    }

    fn path(name: &str) -> StorePath {
        StorePath::from_parts(&[0; 20], name).unwrap()
    }

    fn full(names: &[&str]) -> String {
        names.iter().map(|name| StoreDir::default().full(&path(name)) + "\0").collect()
    }

    fn own_file(state: &tempfile::TempDir, number: u64) -> PathBuf {
        let name = u64::from(std::process::id()) + number * PROCESS_ID_LIMIT;
        state.path().join("temproots").join(name.to_string())
    }

    fn listed(state: &tempfile::TempDir) -> String {
        fs::read_to_string(own_file(state, 1)).unwrap()
    }

    fn add(roots: &TempRoots, names: &[&str]) -> Result<(), LocalStoreError> {
        let paths: Vec<StorePath> = names.iter().map(|name| path(name)).collect();
        roots.add(&paths, &|| false)
    }

    #[test]
    fn roots_are_listed_once_under_a_shared_lock_and_go_with_their_owner() {
        let state = state_dir();
        let roots = open(&state);
        add(&roots, &["b", "a", "b"]).unwrap();
        // Another store of this process shares the file.
        let again = open(&state);
        add(&again, &["a", "c"]).unwrap();
        assert_eq!(listed(&state), full(&["a", "b", "c"]));

        let file = own_file(&state, 1);
        let other = File::open(&file).unwrap();
        rustix::fs::flock(&other, FlockOperation::NonBlockingLockShared).unwrap();
        rustix::fs::flock(&other, FlockOperation::Unlock).unwrap();
        let exclusive = rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive);
        assert_eq!(exclusive, Err(Errno::WOULDBLOCK));
        drop((roots, again));
        assert!(!file.exists());
    }

    #[test]
    fn a_stale_file_is_replaced_and_one_of_a_living_process_is_not() {
        let state = state_dir();
        let own = own_file(&state, 1);
        fs::write(&own, "/s/old\0").unwrap();
        let roots = open(&state);
        add(&roots, &["new"]).unwrap();
        assert_eq!(listed(&state), full(&["new"]));
        drop(roots);

        fs::write(&own, "/s/theirs\0").unwrap();
        let theirs = File::open(&own).unwrap();
        rustix::fs::flock(&theirs, FlockOperation::LockShared).unwrap();
        let roots = open(&state);
        add(&roots, &["ours"]).unwrap();
        assert_eq!(listed(&state), "/s/theirs\0");
        assert_eq!(fs::read_to_string(own_file(&state, 2)).unwrap(), full(&["ours"]));
    }

    /// What Nix of the same process id in another container does when it starts.
    #[test]
    fn nix_with_our_process_id_elsewhere_does_not_remove_our_roots() {
        let state = state_dir();
        let roots = open(&state);
        add(&roots, &["a"]).unwrap();
        let theirs = own_file(&state, 0);
        assert!(!theirs.exists(), "what Nix would remove");
        roots.check().unwrap();
    }

    #[test]
    fn many_processes_of_one_number_take_no_file_from_each_other() {
        let state = state_dir();
        let directory = state.path().join("temproots");
        let done = std::sync::Barrier::new(4);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let list = List::create(&directory).unwrap();
                        done.wait();
                        assert!(list.file.metadata().unwrap().nlink() > 0, "removed by another one");
                        done.wait();
                        // Killed: the file stays.
                        drop(list);
                    }
                });
            }
        });
    }

    #[test]
    fn roots_that_were_removed_are_noticed() {
        let state = state_dir();
        let roots = open(&state);
        roots.check().unwrap();
        add(&roots, &["a"]).unwrap();
        roots.check().unwrap();
        fs::remove_file(own_file(&state, 1)).unwrap();
        assert!(matches!(roots.check(), Err(LocalStoreError::TempRootsLost { .. })));
    }

    #[test]
    fn half_a_record_is_taken_back() {
        // A process that ignores the signal gets an error where a file would grow over the limit.
        let child = std::process::Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "temp_roots::tests::child_writes_over_its_limit", "--ignored", "--nocapture"])
            .output()
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
    }

    /// With a limit on the size of files, which is the whole process's.
    #[test]
    #[ignore = "only as a child of the test above"]
    fn child_writes_over_its_limit() {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let state = state_dir();
        let roots = open(&state);
        add(&roots, &["a"]).unwrap();
        let before = getrlimit(Resource::Fsize);
        let limit = full(&["a"]).len() as u64 + 10;
        setrlimit(Resource::Fsize, Rlimit { current: Some(limit), maximum: before.maximum }).unwrap();
        let failed = add(&roots, &["b"]);
        setrlimit(Resource::Fsize, before).unwrap();
        assert!(failed.is_err());
        assert_eq!(listed(&state), full(&["a"]));
        add(&roots, &["c"]).unwrap();
        assert_eq!(listed(&state), full(&["a", "c"]));
    }

    #[test]
    fn a_running_collector_is_told_and_must_answer() {
        let state = state_dir();
        let roots = open(&state);
        let collector = Directory::open(state.path()).unwrap().make_file("gc.lock", 0o600).unwrap();
        rustix::fs::flock(&collector, FlockOperation::LockExclusive).unwrap();
        let cancelled = roots.add(&[path("x")], &|| true);
        assert!(matches!(cancelled, Err(LocalStoreError::Cancelled { .. })));
        assert_eq!(listed(&state), full(&["x"]), "for the next collector, should this one end just now");

        fs::create_dir(state.path().join("gc-socket")).unwrap();
        let listener = UnixListener::bind(state.path().join("gc-socket/socket")).unwrap();
        let paths: Vec<_> = (100..300).map(|number| path(&number.to_string())).collect();
        let told = thread::scope(|scope| {
            let server = scope.spawn(|| {
                // The first connection is lost without an answer, as if that collector had just ended.
                drop(listener.accept().unwrap());
                let (socket, _) = listener.accept().unwrap();
                let mut answers = socket.try_clone().unwrap();
                // The connection is kept: its end is not waited for.
                let lines = BufReader::new(socket).lines().take(200).map(|line| {
                    answers.write_all(b"1").unwrap();
                    line.unwrap()
                });
                lines.collect::<Vec<_>>()
            });
            roots.add(&paths, &|| false).unwrap();
            server.join().unwrap()
        });
        let expected: Vec<String> = paths.iter().map(|path| StoreDir::default().full(path)).collect();
        assert_eq!(told, expected);
        assert_eq!(listed(&state), full(&["x"]) + &expected.join("\0") + "\0");
    }

    #[test]
    fn a_socket_too_deep_for_an_address_is_reached_without_proc() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(SOCKET_PATH_LIMIT));
        fs::create_dir(&deep).unwrap();
        // What can be bound is as short as what can be connected to.
        let listener = UnixListener::bind(directory.path().join("s")).unwrap();
        fs::rename(directory.path().join("s"), deep.join("socket")).unwrap();
        UnixStream::connect(deep.join("socket")).unwrap_err();
        for connect in [connect_in, connect_through_link] {
            let mut socket = connect(&deep).unwrap();
            listener.accept().unwrap().0.write_all(b"x").unwrap();
            socket.read_exact(&mut [0]).unwrap();
        }
    }
}
