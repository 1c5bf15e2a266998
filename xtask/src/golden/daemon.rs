//! Captures what real `nix-daemon`s say into `protocol/testdata/worker/`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use crate::daemon::Daemon;
use crate::database::Row;
use crate::exec;
use crate::fixtures::Mixed;
use crate::instance::{Instance, LabStore};
use crate::roots::Release;
use crate::wire::{self, Wire};

const CLIENT_MAGIC: u64 = 0x6e69_7863;
const IS_VALID_PATH: u64 = 1;
const ENSURE_PATH: u64 = 10;
const ADD_TEMP_ROOT: u64 = 11;
const ADD_INDIRECT_ROOT: u64 = 12;
const SET_OPTIONS: u64 = 19;
const QUERY_PATH_INFO: u64 = 26;
const QUERY_VALID_PATHS: u64 = 31;
const QUERY_SUBSTITUTABLE_PATHS: u64 = 32;
const ADD_SIGNATURES: u64 = 37;
const NAR_FROM_PATH: u64 = 38;
const ADD_TO_STORE_NAR: u64 = 39;
const QUERY_MISSING: u64 = 40;
const QUERY_DERIVATION_OUTPUT_MAP: u64 = 41;
const ADD_MULTIPLE_TO_STORE: u64 = 44;
const ADD_PERM_ROOT: u64 = 47;

/// No operation of any Nix. The daemon says so and ends the connection by itself: closing it from here would make the daemon
/// drop answers that are not out yet.
const LAST_WORD: u64 = 999;

/// The newest version, which all offer that do not say otherwise.
const NEWEST: u64 = 38;
/// What `ncc_protocol::worker` offers.
const FEATURES: [&str; 2] = ["addTempRoots", "realisation-with-path-not-hash"];

/// A daemon may take this long for one conversation.
const LIMIT: Duration = Duration::from_secs(60);

/// The version that the daemon of a release speaks.
fn newest_of(release: Release) -> u64 {
    match release {
        Release::Bullseye => 21,
        Release::Bookworm => 34,
        Release::Trixie | Release::Forky | Release::Here => 38,
    }
}

pub(super) struct Session<'a> {
    release: Release,
    root: &'a Path,
    instance: &'a Instance,
    mixed: &'a Mixed,
    rows: &'a BTreeMap<String, Row>,
    folder: PathBuf,
    index: String,
}

/// Who speaks with the daemon.
#[derive(Clone, Copy, PartialEq, Eq)]
enum User {
    /// root, whose `--stdio` opens the store itself.
    Root,
    /// Somebody whose `--stdio` hands on to a daemon that runs as root.
    Plain,
}

/// Every case against one release.
pub(super) fn capture(
    release: Release,
    root: &Path,
    instance: &Instance,
    mixed: &Mixed,
    rows: &BTreeMap<String, Row>,
    folder: PathBuf,
) -> Result<usize> {
    exec::make_folder(&folder)?;
    let mut session = Session { release, root, instance, mixed, rows, folder, index: String::new() };
    session.capture_questions()?;
    session.capture_roots()?;
    session.capture_adds()?;
    let index = session.folder.join("index.tsv");
    exec::write_file(&index, format!("case\toffered\tuser\trequest\treply\tstderr\n{}", session.index))?;
    Ok(session.index.lines().count())
}

impl Session<'_> {
    /// Version in common if the client offers `offered`.
    fn common(&self, offered: u64) -> u64 {
        newest_of(self.release).min(offered)
    }

    /// The client's half of a handshake.
    fn hello(&self, offered: u64) -> Wire {
        let wire = Wire::default().number(CLIENT_MAGIC).number(1 << 8 | offered);
        let wire = if self.common(offered) >= 38 { wire.strings(FEATURES) } else { wire };
        wire.number(0).number(0)
    }

    fn query_valid(&self, wire: Wire, paths: &[&str], substitute: bool) -> Wire {
        let wire = wire.number(QUERY_VALID_PATHS).strings(paths);
        if self.common(NEWEST) >= 27 { wire.number(u64::from(substitute)) } else { wire }
    }

    /// Questions to a store that holds the fixture.
    fn capture_questions(&mut self) -> Result<()> {
        let mixed = self.mixed;
        let absent = wire::store_path("lab-absent");
        let hello = self.hello(NEWEST);
        self.ask("handshake", NEWEST, &hello)?;
        self.ask("handshake-client-1.20", 20, &self.hello(20))?;
        let options = [0, 0, 0, 3, 1, 0, 1, 0, 0, 0, 0, 1];
        let options = options.into_iter().fold(hello.clone().number(SET_OPTIONS), Wire::number);
        let options = options.number(1).string("connect-timeout").string("5");
        self.ask("set-options", NEWEST, &options)?;
        let mut several = [mixed.note.as_str(), &mixed.dep, &absent, &mixed.top];
        several.sort_unstable();
        let valid = self.query_valid(hello.clone(), &several, false);
        self.ask("query-valid-paths", NEWEST, &valid)?;
        self.ask("query-valid-paths-substitute", NEWEST, &self.query_valid(hello.clone(), &several, true))?;
        self.ask("query-valid-paths-none", NEWEST, &self.query_valid(hello.clone(), &[], false))?;
        let all = [
            &mixed.top,
            &mixed.lib,
            &mixed.dep,
            &absent,
            &mixed.derivation,
            &mixed.odd,
            &mixed.note,
            &mixed.flat,
            &mixed.recursive,
        ];
        let each = |wire: &Wire, operation: u64, paths: &[&String]| {
            paths.iter().fold(wire.clone(), |wire, path| wire.number(operation).string(path.as_str()))
        };
        self.ask("query-path-info", NEWEST, &each(&hello, QUERY_PATH_INFO, &all))?;
        self.ask("query-path-info-no-path", NEWEST, &hello.clone().number(QUERY_PATH_INFO).string("/x"))?;
        self.ask("is-valid-path", NEWEST, &each(&hello, IS_VALID_PATH, &[&mixed.note, &absent]))?;
        self.ask("ensure-path", NEWEST, &each(&hello, ENSURE_PATH, &[&mixed.note, &absent, &mixed.dep]))?;
        self.ask("ensure-path-client-1.20", 20, &each(&self.hello(20), ENSURE_PATH, &[&absent, &mixed.dep]))?;
        let nars = [&mixed.note, &mixed.dep, &mixed.odd, &mixed.top];
        self.ask("nar-from-path", NEWEST, &each(&hello, NAR_FROM_PATH, &nars))?;
        self.ask(
            "nar-from-path-invalid",
            NEWEST,
            &each(&hello, NAR_FROM_PATH, &[&mixed.note, &absent, &mixed.dep]),
        )?;
        let outputs = format!("{}!lib,out", mixed.derivation);
        let wanted = [absent.as_str(), &format!("{}!*", mixed.derivation), &outputs, &mixed.note];
        self.ask("query-missing", NEWEST, &hello.clone().number(QUERY_MISSING).strings(wanted))?;
        let substitutable = hello.clone().number(QUERY_SUBSTITUTABLE_PATHS).strings(several);
        self.ask("query-substitutable-paths", NEWEST, &substitutable)?;
        if self.common(NEWEST) >= 22 {
            let maps = each(&hello, QUERY_DERIVATION_OUTPUT_MAP, &[&mixed.derivation, &absent]);
            self.ask("query-derivation-output-map", NEWEST, &maps)?;
        }
        let pipelined = each(&valid, QUERY_PATH_INFO, &all);
        let pipelined = each(&pipelined, ADD_TEMP_ROOT, &all);
        self.ask("all-pipelined", NEWEST, &each(&pipelined, NAR_FROM_PATH, &nars))
    }

    /// What changes the store, but nothing that other cases ask for.
    fn capture_roots(&mut self) -> Result<()> {
        let (mixed, hello) = (self.mixed, self.hello(NEWEST));
        let absent = wire::store_path("lab-absent");
        let temp = hello.clone().number(ADD_TEMP_ROOT).string(&mixed.note);
        self.ask("add-temp-root", NEWEST, &temp.number(ADD_TEMP_ROOT).string(&absent))?;
        let indirect = hello.clone().number(ADD_INDIRECT_ROOT).string("/tmp/mixed/drv");
        self.ask("add-indirect-root", NEWEST, &indirect)?;
        if self.common(NEWEST) >= 36 {
            let perm = hello.clone().number(ADD_PERM_ROOT).string(&mixed.note).string("/tmp/link");
            self.ask("add-perm-root", NEWEST, &perm)?;
        }
        // A signature that is there already.
        let row = self.rows.get(&mixed.dep).context("no lab-dep")?;
        let signature = row.sigs.as_deref().unwrap_or_default().split_whitespace().next();
        let sign = |list: &[&str]| hello.clone().number(ADD_SIGNATURES).string(&mixed.dep).strings(list);
        self.ask("add-signatures", NEWEST, &sign(&[signature.context("lab-dep has no signature")?]))?;
        self.ask_as("add-signatures-none-plain-user", NEWEST, User::Plain, &sign(&[]))
    }

    /// Additions, each to an empty store.
    fn capture_adds(&mut self) -> Result<()> {
        let mixed = self.mixed;
        let closure = [&mixed.note, &mixed.odd, &mixed.dep, &mixed.lib, &mixed.top];
        for (suffix, offered) in [("", NEWEST), ("-client-1.20", 20)] {
            let adds = |paths: &[&String]| {
                paths.iter().try_fold(self.hello(offered), |wire, path| self.add(wire, offered, path))
            };
            let good = adds(&closure)?;
            let refused = adds(&[&mixed.note, &mixed.lib, &mixed.dep])?;
            let tiny = wire::archive("hi");
            let hash = "0".repeat(64);
            let wrong = self
                .hello(offered)
                .number(ADD_TO_STORE_NAR)
                .string(wire::store_path("lab-hash-mismatch"))
                .string("")
                .string(hash)
                .number(0)
                .number(0)
                .number(tiny.len() as u64)
                .number(0)
                .number(0)
                .string("")
                .number(0)
                .number(1);
            let wrong = self.nar(wrong, offered, &tiny);
            let wrong = self.add(wrong, offered, &mixed.note)?;
            self.add_case(&format!("add-to-store-nar{suffix}"), offered, User::Root, &good)?;
            self.add_case(&format!("add-to-store-nar-good-bad-good{suffix}"), offered, User::Root, &refused)?;
            self.add_case(&format!("add-to-store-nar-hash-mismatch{suffix}"), offered, User::Root, &wrong)?;
        }
        // The first is content-addressed, the second signed by a key that this daemon does not know.
        let plain = self.add(self.hello(NEWEST), NEWEST, &mixed.note)?;
        let plain = self.add(plain, NEWEST, &mixed.dep)?;
        self.add_case("add-to-store-nar-plain-user", NEWEST, User::Plain, &plain)?;
        if self.common(NEWEST) >= 32 {
            let many = self.many(&[&mixed.note, &mixed.dep], false)?;
            self.add_case("add-multiple-to-store", NEWEST, User::Root, &many)?;
            let refused = self.many(&[&mixed.note, &mixed.lib, &mixed.dep], false)?;
            self.add_case("add-multiple-to-store-refused", NEWEST, User::Root, &refused)?;
        }
        Ok(())
    }

    /// A path's metadata, with the path in front.
    fn info(&self, wire: Wire, path: &str, archive: &[u8]) -> Result<Wire> {
        let row = self.rows.get(path).with_context(|| format!("{path} is not in the fixture"))?;
        let hash = row.hash.strip_prefix("sha256:").context("not sha256")?;
        let signatures: Vec<&str> = row.sigs.as_deref().unwrap_or_default().split_whitespace().collect();
        Ok(wire
            .string(path)
            .string(row.deriver.as_deref().unwrap_or_default())
            .string(hash)
            .strings(&row.references)
            .number(u64::try_from(row.registration_time)?)
            .number(archive.len() as u64)
            .number(0)
            .strings(signatures)
            .string(row.ca.as_deref().unwrap_or_default()))
    }

    fn archive(&self, path: &str) -> Result<Vec<u8>> {
        Ok(exec::capture(self.instance.command("nix-store").args(["--dump", path]))?.success()?.stdout)
    }

    /// One AddToStoreNar, without a check of signatures.
    fn add(&self, wire: Wire, offered: u64, path: &str) -> Result<Wire> {
        let archive = self.archive(path)?;
        let wire = self.info(wire.number(ADD_TO_STORE_NAR), path, &archive)?.number(0).number(1);
        Ok(self.nar(wire, offered, &archive))
    }

    /// A NAR as the version in common wants it.
    fn nar(&self, wire: Wire, offered: u64, archive: &[u8]) -> Wire {
        match self.common(offered) {
            23.. => frames(wire, archive),
            21.. => archive.chunks(32 << 10).fold(wire, Wire::string),
            _ => wire.raw(archive),
        }
    }

    /// One AddMultipleToStore.
    fn many(&self, paths: &[&String], repair: bool) -> Result<Wire> {
        let mut content = Wire::default().number(paths.len() as u64);
        for path in paths {
            let archive = self.archive(path)?;
            content = self.info(content, path, &archive)?.raw(&archive);
        }
        let wire = self.hello(NEWEST).number(ADD_MULTIPLE_TO_STORE).number(u64::from(repair)).number(1);
        Ok(frames(wire, &content.0))
    }

    /// Asks the store that holds the fixture.
    fn ask(&mut self, case: &str, offered: u64, request: &Wire) -> Result<()> {
        self.ask_as(case, offered, User::Root, request)
    }

    fn ask_as(&mut self, case: &str, offered: u64, user: User, request: &Wire) -> Result<()> {
        self.converse(self.instance, case, offered, user, request)
    }

    /// Adds to a new, empty store.
    fn add_case(&mut self, case: &str, offered: u64, user: User, request: &Wire) -> Result<()> {
        let store = LabStore::create("golden-daemon", self.release.name())?;
        let instance = Instance::start(self.release, self.root, &store)?;
        // An empty store first: a daemon that creates one says so on stderr in some versions.
        instance.run("nix-store", &["--init"])?;
        self.converse(&instance, case, offered, user, request)
    }

    /// One conversation: everything is sent at once, and answered until the daemon has heard the last word.
    fn converse(
        &mut self,
        instance: &Instance,
        case: &str,
        offered: u64,
        user: User,
        request: &Wire,
    ) -> Result<()> {
        let request = request.clone().number(LAST_WORD).0;
        let daemon = (user == User::Plain).then(|| Daemon::start(instance)).transpose()?;
        let mut command = match user {
            User::Root => instance.command("nix-daemon"),
            User::Plain => {
                let mut command = instance.command("sudo");
                command.args(["-u", "plain", "nix-daemon"]);
                command
            }
        };
        let (reply, said) = talk(command.arg("--stdio"), request.clone())
            .with_context(|| format!("in {case} with {}", self.release))?;
        drop(daemon);
        exec::write_file(&self.folder.join(format!("{case}.request")), &request)?;
        exec::write_file(&self.folder.join(format!("{case}.reply")), &reply)?;
        // sudo finds fault with the names of this machine.
        let lines: Vec<&str> = said.lines().filter(|line| !line.starts_with("sudo: ")).collect();
        let said = lines.join("\\n").replace('\t', " ");
        let user = if user == User::Root { "root" } else { "plain" };
        let (asked, answered) = (request.len(), reply.len());
        let _ = writeln!(self.index, "{case}\t1.{offered}\t{user}\t{asked}\t{answered}\t{said}");
        Ok(())
    }
}

/// In frames of an odd size, so that some end in the middle of something.
fn frames(wire: Wire, bytes: &[u8]) -> Wire {
    let wire = bytes.chunks(1001).fold(wire, |wire, frame| wire.number(frame.len() as u64).raw(frame));
    wire.number(0)
}

/// Sends everything and reads to the end of the answers, keeping the sending side open until then.
fn talk(command: &mut Command, request: Vec<u8>) -> Result<(Vec<u8>, String)> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start a daemon")?;
    let mut stdin = child.stdin.take().context("child without stdin")?;
    let mut stdout = child.stdout.take().context("child without stdout")?;
    let mut stderr = child.stderr.take().context("child without stderr")?;
    let write = std::thread::spawn(move || {
        // A daemon that has enough ends before it has read everything.
        let _ = stdin.write_all(&request);
        stdin
    });
    let replies = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stdout.read_to_end(&mut bytes);
        bytes
    });
    let said = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text);
        text
    });
    let (_, timed_out, _) = exec::wait(&mut child, LIMIT)?;
    ensure!(!timed_out, "the daemon did not end");
    drop(write.join());
    let reply = replies.join().map_err(|_| anyhow!("a reader panicked"))?;
    Ok((reply, said.join().unwrap_or_default()))
}
