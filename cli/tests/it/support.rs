//! Two stores in a temporary directory, the program, and what it said.

use std::{
    fmt::Write as _,
    fs,
    io::{Read, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, PermissionsExt as _},
        process::ExitStatusExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use ncc_local_store::{Access, LocalStore, LocalStoreConfig};
use ncc_store::StorePath;
use ncc_transport::test_util::leave_out;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_nix-copy-closure");

/// "At once", on a machine that has other things to do. What would be waited for otherwise, hosts that hang, takes minutes.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(20);

/// A source store with four paths, and the place of a destination.
///
/// `top` refers to `program`, which refers to `library`; `other` stands alone.
pub(crate) struct World {
    directory: TempDir,
    pub(crate) library: String,
    pub(crate) program: String,
    pub(crate) top: String,
    pub(crate) other: String,
}

impl World {
    pub(crate) fn new() -> Self {
        let directory = TempDir::with_prefix("ncc-cli-").expect("a temporary directory");
        let mut world = Self {
            directory,
            library: String::new(),
            program: String::new(),
            top: String::new(),
            other: String::new(),
        };
        fs::set_permissions(world.directory(), fs::Permissions::from_mode(0o755)).expect("its mode");
        let library = world.add("library", "lib/library.so", &"library\n".repeat(1000), []);
        let program = world.add("program", "bin/program", "program\n", [library.clone()]);
        let top = world.add("top", "share/top", "top\n", [program.clone()]);
        let other = world.add("other", "share/other", "other\n", []);
        [world.library, world.program, world.top, world.other] =
            [library, program, top, other].map(|path| full(&path));
        world
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn from(&self) -> PathBuf {
        self.directory().join("from")
    }

    pub(crate) fn to(&self) -> PathBuf {
        self.directory().join("to")
    }

    /// Adds a path with one file to the source.
    pub(crate) fn add(
        &self,
        name: &str,
        file: &str,
        content: &str,
        references: impl IntoIterator<Item = StorePath>,
    ) -> StorePath {
        let tree = self.directory().join("tree");
        let file = tree.join(file);
        fs::create_dir_all(file.parent().expect("a directory")).expect("directories");
        fs::write(&file, content).expect("a file");
        let store = open(&self.from(), Access::ReadWrite);
        let info = store.add_tree(name, &tree, references).expect("a path");
        fs::remove_dir_all(&tree).expect("the tree goes");
        info.path
    }

    /// Changes one letter of a file in the source store, behind the database's back.
    pub(crate) fn damage(&self, path: &str, file: &str) {
        let file = real(&self.from(), path).join(file);
        let mut content = fs::read(&file).expect("the file");
        content[0] ^= 1;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("writable");
        fs::write(&file, content).expect("damage");
    }

    /// Changes the database of the source store behind everybody's back.
    pub(crate) fn change_database(&self, sql: &str) {
        let database = self.from().join("nix/var/nix/db/db.sqlite");
        let changed = rusqlite::Connection::open(database).expect("a database").execute_batch(sql);
        changed.expect("it changes");
    }

    /// The program in an environment without Nix, ssh, or anything of the user's.
    pub(crate) fn bare(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .env_clear()
            .env("PATH", "/nowhere")
            .env("HOME", self.directory())
            .env("NIX_CONF_DIR", self.directory())
            .env("LC_ALL", "C.UTF-8")
            .current_dir(self.directory());
        command
    }

    /// `nix-copy-closure --store FROM --remote-store TO`.
    pub(crate) fn copy(&self) -> Command {
        let mut command = self.bare();
        command.arg("--store").arg(self.from()).arg("--remote-store").arg(self.to());
        command
    }

    /// The other way round: what is fetched comes from the source store, into `to`.
    pub(crate) fn fetch(&self) -> Command {
        let mut command = self.bare();
        command.arg("--from").arg("--store").arg(self.to()).arg("--remote-store").arg(self.from());
        command
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, command: &mut Command) -> Ran {
        self.run_with_input(command, b"")
    }

    pub(crate) fn run_with_input(&self, command: &mut Command, input: &[u8]) -> Ran {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        // Whoever does not read it closes it.
        let _ = child.stdin.take().expect("stdin").write_all(input);
        let Output { status, stdout, stderr } = child.wait_with_output().expect("its end");
        let code = code(status);
        let ran = Ran { code, stdout: self.plain(&stdout), stderr: self.plain(&stderr) };
        assert!(!ran.stderr.contains("panicked"), "{}", ran.transcript());
        ran
    }

    /// What does not change from run to run: digests and the temporary directory are left out.
    pub(crate) fn plain(&self, text: &[u8]) -> String {
        let mut text = String::from_utf8(text.to_vec()).expect("UTF-8");
        for path in [&self.library, &self.program, &self.top, &self.other] {
            if let Some((digest, _)) = path.trim_start_matches("/nix/store/").split_once('-') {
                text = text.replace(digest, "...");
            }
        }
        let text = text.replace(&self.directory().display().to_string(), "$DIR").replace(PROGRAM, "$PROGRAM");
        text.split_inclusive('\n').map(without_time).collect()
    }

    /// The paths that are valid at the destination.
    pub(crate) fn copied(&self, paths: &[&str]) -> Vec<bool> {
        valid(&self.to(), paths)
    }

    pub(crate) fn all(&self) -> [&str; 4] {
        [&self.library, &self.program, &self.top, &self.other]
    }

    /// Command lines of processes that have to do with this directory.
    pub(crate) fn processes(&self) -> Vec<String> {
        processes_about(&self.directory().display().to_string())
    }

    /// Waits until no process has to do with this directory any more.
    pub(crate) fn expect_no_process(&self, within: Duration) {
        let start = Instant::now();
        while !self.processes().is_empty() {
            assert!(start.elapsed() < within, "left behind: {:#?}", self.processes());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Writes an executable script.
    pub(crate) fn script(&self, name: &str, body: &str) -> PathBuf {
        let file = self.directory().join(name);
        fs::write(&file, body).expect("a script");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("executable");
        file
    }
}

/// A line without the time that a copy took.
fn without_time(line: &str) -> String {
    match line.split_once(" in ") {
        Some((before, after)) if before.starts_with("copied ") => match after.split_once(" s") {
            Some((_, rest)) => format!("{before} in ... s{rest}"),
            None => line.to_owned(),
        },
        _ => line.to_owned(),
    }
}

/// The exit code, or for a program that died of a signal what a shell makes of it.
pub(crate) fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).expect("one of both")
}

/// A program that runs, and what it has said so far.
pub(crate) struct Running {
    child: Child,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::start_with(command, Stdio::null())
    }

    /// With something to read from.
    pub(crate) fn start_with(command: &mut Command, stdin: Stdio) -> Self {
        let mut child = command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let (stdout, out) = gather(child.stdout.take().expect("stdout"));
        let (stderr, err) = gather(child.stderr.take().expect("stderr"));
        Self { child, stdout, stderr, readers: vec![out, err] }
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().expect("text")).into_owned()
    }

    /// Waits until it has said this.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str, within: Duration) {
        let start = Instant::now();
        while !self.stderr().contains(text) {
            let ended = self.child.try_wait().expect("a state");
            assert!(ended.is_none(), "it ended ({ended:?}) without {text:?}: {}", self.stderr());
            assert!(start.elapsed() < within, "no {text:?} came: {}", self.stderr());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until this signal does not simply end it any more.
    #[cfg(target_os = "linux")]
    #[track_caller]
    pub(crate) fn wait_for_handler(&self, signal: Signal, within: Duration) {
        let start = Instant::now();
        let status = format!("/proc/{}/status", self.child.id());
        let bit = 1_u64 << (signal.as_raw() - 1);
        loop {
            let text = fs::read_to_string(&status).expect("it is there");
            let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("a mask").trim();
            if u64::from_str_radix(caught, 16).expect("hexadecimal") & bit != 0 {
                return;
            }
            assert!(start.elapsed() < within, "no handler for {signal:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, signal).expect("it is there");
    }

    /// Waits for its end, and says how it came.
    #[track_caller]
    pub(crate) fn status(mut self, within: Duration) -> ExitStatus {
        self.wait(within)
    }

    #[track_caller]
    fn wait(&mut self, within: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a state") {
                return status;
            }
            if start.elapsed() > within {
                let _ = self.child.kill();
                panic!("it has not ended within {within:?}: {}", self.stderr());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn end(mut self, world: &World, within: Duration) -> Ran {
        let status = self.wait(within);
        for reader in std::mem::take(&mut self.readers) {
            // Whoever holds the pipe open has outlived the program.
            reader.join().expect("a reader");
        }
        let code = code(status);
        let plain = |bytes: &Arc<Mutex<Vec<u8>>>| world.plain(&bytes.lock().expect("text"));
        Ran { code, stdout: plain(&self.stdout), stderr: plain(&self.stderr) }
    }
}

fn gather(mut from: impl Read + Send + 'static) -> (Arc<Mutex<Vec<u8>>>, JoinHandle<()>) {
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&bytes);
    let reader = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            into.lock().expect("room").extend_from_slice(&buffer[..count]);
        }
    });
    (bytes, reader)
}

/// All processes whose command line has this text.
pub(crate) fn processes_about(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        if let Ok(words) = fs::read(entry.path().join("cmdline")) {
            let line = String::from_utf8_lossy(&words).replace('\0', " ");
            if line.contains(text) {
                found.push(format!("{pid}: {line}"));
            }
        }
    }
    found
}

/// The processes that a process has started.
pub(crate) fn children(parent: u32) -> Vec<Pid> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // pid (name) state parent ...; the name may hold anything.
        let of =
            stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        let pid = entry.file_name().to_string_lossy().parse().ok().and_then(Pid::from_raw);
        if of == Some(parent) {
            found.extend(pid);
        }
    }
    found
}

pub(crate) fn open(root: &Path, access: Access) -> LocalStore {
    LocalStore::open(LocalStoreConfig::chroot(root), access).expect("a store")
}

pub(crate) fn full(path: &StorePath) -> String {
    format!("/nix/store/{path}")
}

/// Where a path of a store lies.
pub(crate) fn real(store: &Path, path: &str) -> PathBuf {
    store.join(path.trim_start_matches('/'))
}

/// Which of these paths are valid in the store, if there is one.
pub(crate) fn valid(store: &Path, paths: &[&str]) -> Vec<bool> {
    if !store.join("nix/var/nix/db").exists() {
        return vec![false; paths.len()];
    }
    let store = open(store, Access::ReadOnly);
    paths
        .iter()
        .map(|path| {
            let path = store.store_dir().containing(path).expect("a store path");
            let info = store.query_path_info(&path).expect("an answer");
            // Registered without being there would be worse than not at all.
            assert!(info.is_none() || store.real_path(&path).exists(), "{path} is not there");
            info.is_some()
        })
        .collect()
}

/// How a run ended and what it said.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// All of it, as one text to compare.
    pub(crate) fn transcript(&self) -> String {
        let mut text = String::new();
        for (prefix, stream) in [("1| ", &self.stdout), ("2| ", &self.stderr)] {
            for line in stream.lines() {
                let _ = writeln!(text, "{}", format_args!("{prefix}{line}").to_string().trim_end());
            }
        }
        let _ = write!(text, "exit {}", self.code);
        text
    }

    /// Compares with lines that are written with an indent and blank lines around them.
    #[track_caller]
    pub(crate) fn is(&self, expected: &str) {
        let lines: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let transcript = self.transcript();
        // The tree and tables have an indent of their own, behind the prefix.
        let said: Vec<&str> = transcript.lines().collect();
        assert!(said == lines, "expected:\n{}\n\nbut:\n{transcript}\n", lines.join("\n"));
    }

    #[track_caller]
    pub(crate) fn says(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{}", self.transcript());
        for word in words {
            assert!(self.stderr.contains(word), "it does not say {word:?}:\n{}", self.transcript());
        }
    }
}

/// Whether there is real Nix here. That there is not is said loudly.
pub(crate) fn has_nix() -> bool {
    let has = Command::new("nix-store").arg("--version").output().is_ok_and(|output| output.status.success());
    if !has {
        leave_out("there is no Nix here");
    }
    has
}

/// Everything below a directory that can be told apart: names, kinds, modes, times, contents. Two files are left out that
/// SQLite keeps beside a database while somebody reads it, and the time of the folder that they are in.
pub(crate) fn snapshot(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(path) = pending.pop() {
        let Ok(data) = fs::symlink_metadata(&path) else {
            found.push(format!("{}: nothing", path.display()));
            continue;
        };
        let name = path.file_name().unwrap_or_default();
        if name == "db.sqlite-shm" || name == "db.sqlite-wal" && data.len() == 0 {
            continue;
        }
        let mtime = if name == "db" { (0, 0) } else { (data.mtime(), data.mtime_nsec()) };
        let content = if data.is_dir() {
            pending.extend(
                fs::read_dir(&path).expect("a directory").map(|entry| entry.expect("an entry").path()),
            );
            String::new()
        } else if data.is_symlink() {
            fs::read_link(&path).expect("a link").display().to_string()
        } else {
            String::from_utf8_lossy(&fs::read(&path).expect("a file")).into_owned()
        };
        found.push(format!(
            "{} {:o} {} {mtime:?} {} {content}",
            path.as_os_str().as_bytes().escape_ascii(),
            data.mode(),
            data.nlink(),
            data.ino(),
        ));
    }
    found.sort();
    found
}

/// Fails with the differences only.
#[track_caller]
pub(crate) fn assert_unchanged(before: &[String], after: &[String]) {
    let short = |line: &&String| line.chars().take(200).collect::<String>();
    let gone: Vec<_> = before.iter().filter(|line| !after.contains(line)).map(|line| short(&line)).collect();
    let new: Vec<_> = after.iter().filter(|line| !before.contains(line)).map(|line| short(&line)).collect();
    assert!(gone.is_empty() && new.is_empty(), "gone: {gone:#?}\nnew: {new:#?}");
}
