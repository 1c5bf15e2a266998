//! `cargo xtask golden`: captures what real Nix says into `protocol/testdata/`: on the serve protocol (here) and on the
//! daemon's ([`daemon`]).

mod daemon;

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::database::{self, Row};
use crate::exec::{self, Finished};
use crate::fixtures::{self, Mixed};
use crate::instance::{Instance, LabStore};
use crate::namespace;
use crate::roots::{self, Release};
use crate::wire::{self, Wire};

/// Arguments of `cargo xtask golden`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only this release
    #[arg(long)]
    release: Vec<Release>,
    /// Only this protocol
    #[arg(long)]
    protocol: Option<Protocol>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Protocol {
    Serve,
    Worker,
}

impl Options {
    fn wants(&self, protocol: Protocol) -> bool {
        self.protocol.is_none_or(|only| only == protocol)
    }
}

const CLIENT_MAGIC: u64 = 0x390c_9deb;
const QUERY_VALID_PATHS: u64 = 1;
const QUERY_PATH_INFOS: u64 = 2;
const DUMP_STORE_PATH: u64 = 3;
const QUERY_CLOSURE: u64 = 7;
const ADD_TO_STORE_NAR: u64 = 9;

/// A valid-looking path that no store has.
fn absent() -> String {
    wire::store_path("lab-absent")
}

/// Captures every case against every version.
pub(crate) fn run(options: &Options) -> Result<()> {
    let testdata = namespace::workspace().join("protocol/testdata");
    for (release, root) in roots::ensure_all(&options.release)? {
        let store = LabStore::create("golden", release.name())?;
        let instance = Instance::start(release, &root, &store)?;
        let version = instance.run("nix-store", &["--version"])?;
        let version = version.rsplit(' ').next().context("no version")?.to_owned();
        let mixed = fixtures::mixed(&instance, &store)?;
        let rows = database::read(&store)?;
        if options.wants(Protocol::Serve) {
            let folder = new_series(&testdata.join("serve"), release, &version)?;
            let mut session = Session {
                release,
                root: &root,
                instance: &instance,
                mixed: &mixed,
                rows: &rows,
                folder,
                index: String::new(),
            };
            session.capture_all()?;
            let index = session.folder.join("index.tsv");
            exec::write_file(
                &index,
                format!("case\tserver\tstatus\trequest\treply\tstderr\n{}", session.index),
            )?;
            println!("{version}: {} cases of the serve protocol", session.index.lines().count());
        }
        if options.wants(Protocol::Worker) {
            let folder = new_series(&testdata.join("worker"), release, &version)?;
            let cases = daemon::capture(release, &root, &instance, &mixed, &rows, folder)?;
            println!("{version}: {cases} cases of the daemon's protocol");
        }
    }
    if options.wants(Protocol::Serve) {
        exec::write_file(&testdata.join("serve/README.md"), include_str!("golden.md"))?;
    }
    if options.wants(Protocol::Worker) {
        exec::write_file(&testdata.join("worker/README.md"), include_str!("golden/daemon.md"))?;
    }
    Ok(())
}

/// Forky's Nix moves on within its series: a new capture replaces the old one's folder.
fn new_series(testdata: &Path, release: Release, version: &str) -> Result<PathBuf> {
    exec::make_folder(testdata)?;
    for entry in fs::read_dir(testdata)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(release.nix_version()) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    let folder = testdata.join(version);
    exec::make_folder(&folder)?;
    Ok(folder)
}

struct Session<'a> {
    release: Release,
    root: &'a Path,
    instance: &'a Instance,
    mixed: &'a Mixed,
    rows: &'a std::collections::BTreeMap<String, Row>,
    folder: PathBuf,
    index: String,
}

/// The handshake of a client of this minor version.
fn hello(minor: u64) -> Wire {
    Wire::default().number(CLIENT_MAGIC).number(2 << 8 | minor)
}

fn query_valid(wire: Wire, lock: u64, substitute: u64, paths: &[&str]) -> Wire {
    wire.number(QUERY_VALID_PATHS).number(lock).number(substitute).strings(paths)
}

impl Session<'_> {
    /// Questions to a store that holds the fixture; nothing changes in it.
    fn capture_all(&mut self) -> Result<()> {
        let mixed = self.mixed;
        let absent = absent();
        self.ask("handshake", false, &hello(7))?;
        self.ask("handshake-client-2.99", false, &hello(99))?;
        self.ask("wrong-magic", false, &Wire::default().number(0x1122_3344).number(0x207))?;
        let mut several = [mixed.note.as_str(), &mixed.dep, &absent, &mixed.top];
        several.sort_unstable();
        self.ask("query-valid-paths", false, &query_valid(hello(7), 0, 0, &several))?;
        self.ask("query-valid-paths-none", true, &query_valid(hello(7), 1, 0, &[]))?;
        self.ask("query-valid-paths-lock-substitute", true, &query_valid(hello(7), 1, 1, &several))?;
        let mut all: Vec<&str> = vec![
            &mixed.top,
            &mixed.lib,
            &mixed.dep,
            &mixed.derivation,
            &mixed.odd,
            &mixed.note,
            &mixed.flat,
            &mixed.recursive,
            &absent,
        ];
        all.sort_unstable();
        self.ask("query-path-infos", false, &hello(7).number(QUERY_PATH_INFOS).strings(&all))?;
        self.ask("query-path-infos-none", false, &hello(7).number(QUERY_PATH_INFOS).strings([&absent]))?;
        self.ask(
            "query-path-infos-client-2.3",
            false,
            &hello(3).number(QUERY_PATH_INFOS).strings([&mixed.dep]),
        )?;
        let closure = |outputs, path: &str| hello(7).number(QUERY_CLOSURE).number(outputs).strings([path]);
        self.ask("query-closure", false, &closure(0, &mixed.top))?;
        self.ask("query-closure-derivation", false, &closure(0, &mixed.derivation))?;
        self.ask("query-closure-include-outputs", false, &closure(1, &mixed.derivation))?;
        self.ask("query-closure-invalid-path", false, &closure(0, &absent))?;
        let dump = |wire: Wire, path: &str| wire.number(DUMP_STORE_PATH).string(path);
        self.ask("dump-store-path", false, &dump(hello(7), &mixed.note))?;
        self.ask("dump-store-path-folder", false, &dump(hello(7), &mixed.dep))?;
        self.ask("dump-store-path-odd-names", false, &dump(hello(7), &mixed.odd))?;
        self.ask("dump-store-path-pipelined", false, &dump(dump(hello(7), &mixed.flat), &mixed.note))?;
        self.ask("dump-store-path-good-then-invalid", false, &dump(dump(hello(7), &mixed.note), &absent))?;
        self.ask("dump-store-path-invalid-path", false, &dump(hello(7), &absent))?;
        self.ask("unknown-command", false, &hello(7).number(77))?;
        let mixed_batch =
            query_valid(hello(7), 1, 0, &several).number(QUERY_PATH_INFOS).strings([&mixed.note]);
        let mixed_batch =
            dump(mixed_batch, &mixed.note).number(QUERY_CLOSURE).number(0).strings([&mixed.lib]);
        self.ask("all-pipelined", true, &mixed_batch)?;
        self.capture_adds()?;
        self.capture_upstream()
    }

    /// Additions, each to an empty store.
    fn capture_adds(&mut self) -> Result<()> {
        let mixed = self.mixed;
        let note = self.add(&mixed.note)?;
        let odd = self.add(&mixed.odd)?;
        let dep = self.add(&mixed.dep)?;
        let lib = self.add(&mixed.lib)?;
        let top = self.add(&mixed.top)?;
        let good = |adds: &[&Vec<u8>]| adds.iter().fold(hello(7), Wire::raw);
        self.add_case("add-to-store-nar", true, &good(&[&note]))?;
        // References, a self reference, signatures, derivers, `ca`: the whole closure at once.
        self.add_case("add-to-store-nar-closure", true, &good(&[&note, &odd, &dep, &lib, &top]))?;
        self.add_case("add-to-store-nar-already-valid", true, &good(&[&note, &note]))?;
        self.add_case("add-to-store-nar-read-only-server", false, &good(&[&note]))?;
        self.add_case("add-to-store-nar-missing-reference", true, &good(&[&lib]))?;
        self.add_case("add-to-store-nar-good-bad-good", true, &good(&[&note, &lib, &dep]))?;
        self.add_case("add-to-store-nar-truncated", true, &Wire(good(&[&dep]).0[..600].to_vec()))?;
        let tiny = wire::archive("hi");
        let path = wire::store_path("lab-hash-mismatch");
        let add = |hash: &str, size: u64| {
            let wire =
                hello(7).number(ADD_TO_STORE_NAR).string(&path).string("").string(hash).number(0).number(0);
            wire.number(size).number(0).number(0).string("").raw(&tiny)
        };
        self.add_case("add-to-store-nar-hash-mismatch", true, &add(&"0".repeat(64), tiny.len() as u64))?;
        self.add_case("add-to-store-nar-size-zero", true, &add(&wire::sha256(&tiny), 0))?;
        Ok(())
    }

    /// An AddToStoreNar request for a path of the fixture, archive included.
    fn add(&self, path: &str) -> Result<Vec<u8>> {
        let row = self.rows.get(path).with_context(|| format!("{path} is not in the fixture"))?;
        let archive =
            exec::capture(self.instance.command("nix-store").args(["--dump", path]))?.success()?.stdout;
        let hash = row.hash.strip_prefix("sha256:").context("not sha256")?;
        let signatures: Vec<&str> = row.sigs.as_deref().unwrap_or_default().split_whitespace().collect();
        let wire = Wire::default()
            .number(ADD_TO_STORE_NAR)
            .string(path)
            .string(row.deriver.as_deref().unwrap_or_default())
            .string(hash)
            .strings(&row.references)
            .number(u64::try_from(row.registration_time)?)
            .number(archive.len() as u64)
            .number(0)
            .strings(signatures)
            .string(row.ca.as_deref().unwrap_or_default())
            .raw(archive);
        Ok(wire.0)
    }

    /// What this version's own `nix-copy-closure` asks, and what its server answers.
    ///
    /// A stand-in for ssh runs the server over a second store in the same instance and records both directions.
    fn capture_upstream(&mut self) -> Result<()> {
        for direction in ["--to", "--from"] {
            let (near, far) = match direction {
                "--to" => ("/", "/tmp/other"),
                _ => ("/tmp/other", "/"),
            };
            let other = self.instance.path("tmp/other");
            if other.exists() {
                fs::remove_dir_all(&other)?;
            }
            let stand_in = self.instance.path("usr/local/bin/ssh");
            exec::make_folder(&self.instance.path("usr/local/bin"))?;
            exec::write_file(&stand_in, include_str!("golden-ssh.sh").replace("@far@", far))?;
            fs::set_permissions(&stand_in, fs::Permissions::from_mode(0o755))?;
            let store = format!("local?root={near}");
            let words = [direction, "--store", &store, "recorded-host", &self.mixed.top, &self.mixed.flat];
            let finished = self.instance.try_run("nix-copy-closure", &words)?.success()?;
            let read = |name: &str| {
                let path = self.instance.path(name);
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
            };
            let request = Wire(read("tmp/request")?);
            let finished = Finished { stdout: read("tmp/reply")?, ..finished };
            self.save(&format!("upstream{}", &direction[1..]), direction == "--to", &request, &finished)?;
        }
        Ok(())
    }

    /// Asks the store that holds the fixture.
    fn ask(&mut self, case: &str, write: bool, request: &Wire) -> Result<()> {
        let finished = serve(self.instance, write, request)?;
        self.save(case, write, request, &finished)
    }

    /// Adds to a new, empty store.
    fn add_case(&mut self, case: &str, write: bool, request: &Wire) -> Result<()> {
        let store = LabStore::create("golden-add", self.release.name())?;
        let instance = Instance::start(self.release, self.root, &store)?;
        // An empty store first: a server that creates one says so on stderr in some versions.
        instance.run("nix-store", &["--init"])?;
        let finished = serve(&instance, write, request)?;
        self.save(case, write, request, &finished)
    }

    fn save(&mut self, case: &str, write: bool, request: &Wire, finished: &Finished) -> Result<()> {
        exec::write_file(&self.folder.join(format!("{case}.request")), &request.0)?;
        exec::write_file(&self.folder.join(format!("{case}.reply")), &finished.stdout)?;
        let server = if write { "--serve --write" } else { "--serve" };
        let status = finished.status.code().map_or_else(|| "signal".to_owned(), |code| code.to_string());
        let said = finished.stderr.trim().replace('\t', " ").replace('\n', "\\n");
        let (asked, answered) = (request.0.len(), finished.stdout.len());
        let _ = writeln!(self.index, "{case}\t{server}\t{status}\t{asked}\t{answered}\t{said}");
        Ok(())
    }
}

/// One server process, given all of the request at once and then end of file.
fn serve(instance: &Instance, write: bool, request: &Wire) -> Result<Finished> {
    let mut command = instance.command("nix-store");
    command.arg("--serve");
    if write {
        command.arg("--write");
    }
    exec::capture_with_input(&mut command, request.0.clone())
}
