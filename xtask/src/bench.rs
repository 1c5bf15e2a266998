//! `cargo xtask bench`: a nix-copy-closure, with each of its transports, and upstream's own, in the same run, against the same
//! unmodified Nix.
//!
//! Over the serve protocol upstream's program is its `nix-copy-closure`, over the daemon's its `nix copy`. All run inside the same root, over the same stores on a tmpfs, with the same options for ssh; they take turns, each into a
//! fresh store behind a fresh sshd. What is printed are medians, of the times and of the ratios within each round of turns.
//! Slowness fails nothing; a path that did not arrive as it was does.

mod cases;
pub(crate) mod closures;
mod contender;
mod packages;
mod report;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::daemon::Daemon;
use crate::database::{self, Row};
use crate::exec;
use crate::fixtures;
use crate::instance::Instance;
use crate::interop::compare;
use crate::interop::lab::{self, Direction, Protocol, Receiver};
use crate::relay::Relay;
use crate::roots::{self, Release};
use crate::sshd::{Keys, Server, Settings};
use crate::user::User;
use crate::{namespace, plot};
use cases::{CASES, Case, Content, TINY, There};
use contender::Contender;
use report::{Measurement, Sample};

/// Upstream needs 209 s for 2,001 paths at 50 ms.
const TIME_LIMIT: Duration = Duration::from_secs(20 * 60);

/// Where both instances have the program that is measured.
const OURS: &str = "lab/nix-copy-closure";

/// The same, seen from inside.
const OURS_INSIDE: &str = "/lab/nix-copy-closure";

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only this case
    #[arg(long)]
    case: Vec<String>,
    /// Which Debian's Nix is the peer and the other end
    #[arg(long, default_value_t = Release::Forky, value_enum)]
    release: Release,
    /// Paths of chain-50ms and flat-50ms: upstream takes about 0.1 s for each, in each direction
    #[arg(long, value_name = "N", default_value_t = 400)]
    paths: usize,
    /// Size of the file of loopback-big
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    big: u64,
    /// Only this one [default: openssh, libssh2 and upstream; all where bytes count; upstream not where it would take minutes]
    #[arg(long, value_name = "WHO")]
    contender: Vec<Contender>,
    /// Who copies and logs in: anybody but root has the daemons of both ends do what is done
    #[arg(long, value_name = "WHO", default_value = "root")]
    user: User,
    /// Only this protocol: ssh is `nix-store --serve`, ssh-ng `nix-daemon --stdio` [default: both]
    #[arg(long, value_name = "SCHEME", value_parser = ["ssh", "ssh-ng"])]
    protocol: Option<String>,
    /// How often everybody takes a turn [default: depends on the case]
    #[arg(long, value_name = "N")]
    pairs: Option<usize>,
    /// The nix-copy-closure to measure [default: built with the profile `fast`]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// More options for ssh, for everybody
    #[arg(long = "ssh-options", value_name = "OPTIONS", default_value = "", allow_hyphen_values = true)]
    for_ssh: String,
    /// Also write what was measured to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Print the cases and stop
    #[arg(long)]
    list: bool,
    /// Draw the tables of docs/benchmarks.md as docs/benchmarks.svg and stop
    #[arg(long)]
    plot: bool,
}

impl Options {
    /// Whether somebody takes part, where `usual` is who does unless others are asked for.
    fn has(&self, contender: Contender, usual: &[Contender]) -> bool {
        if self.contender.is_empty() {
            usual.contains(&contender)
        } else {
            self.contender.contains(&contender)
        }
    }

    fn speaks(&self, protocol: Protocol) -> bool {
        self.protocol.as_ref().is_none_or(|scheme| scheme == protocol.scheme())
    }
}

/// Before the namespaces: what needs no root. Tells whether there is anything to run.
pub(crate) fn prepare(options: &Options) -> Result<bool> {
    if options.plot {
        plot::run(&namespace::workspace())?;
        return Ok(false);
    }
    if options.list {
        for case in CASES {
            println!("{:20} {}", case.name, case.about);
        }
        return Ok(false);
    }
    for name in &options.case {
        ensure!(CASES.iter().any(|case| case.name == name), "no case is called {name} (--list shows them)");
    }
    ensure!((1..=TINY).contains(&options.paths), "--paths takes 1 to {TINY}");
    ensure!(options.pairs != Some(0), "--pairs takes 1 or more");
    if options.binary.is_none() && !namespace::is_inside() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = Command::new(cargo)
            .args(["build", "--locked", "--profile", "fast", "--package", "nix-copy-closure"])
            .args(options.has(Contender::Libssh2, &Contender::USUAL).then_some("--features=ssh2"))
            .current_dir(namespace::workspace())
            .status()
            .context("cannot start cargo")?;
        ensure!(
            status.success(),
            "the program does not build; without OpenSSL's headers, leave libssh2 out: --contender openssh --contender upstream"
        );
    }
    Ok(true)
}

/// Measures and prints.
pub(crate) fn run(options: &Options) -> Result<()> {
    let start = Instant::now();
    let binary =
        options.binary.clone().unwrap_or_else(|| namespace::target_folder().join("fast/nix-copy-closure"));
    // A copy: a build meanwhile must not change what is measured.
    let copy = namespace::run_folder().join("nix-copy-closure");
    fs::copy(&binary, &copy).with_context(|| format!("no program at {}", binary.display()))?;
    let mut roots = roots::ensure_all(&[options.release])?;
    let Some(root) = roots.remove(&options.release) else { return Ok(()) };
    let keys = Keys::generate()?;
    let bench = Bench::open(options, root, &keys, &copy)?;
    let machine = report::machine(&bench.source.instance)?;
    println!("{machine}\n");
    let mut measurements = Vec::new();
    for case in
        CASES.iter().filter(|case| options.case.is_empty() || options.case.iter().any(|n| n == case.name))
    {
        for direction in [Direction::To, Direction::From] {
            for protocol in Protocol::ALL {
                if !options.speaks(protocol) || (protocol == Protocol::Daemon && !case.daemon) {
                    continue;
                }
                let measured = bench.measure(case, direction, protocol);
                measurements.push(measured.with_context(|| format!("case {}", case.name))?);
            }
        }
    }
    println!("\n{}", report::table(&measurements));
    println!("load average at the end: {}; took {:.0} s", report::load(), start.elapsed().as_secs_f64());
    if let Some(file) = &options.json {
        exec::write_file(file, format!("{:#}\n", report::json(&machine, &measurements)))?;
    }
    Ok(())
}

struct Bench<'a> {
    options: &'a Options,
    root: PathBuf,
    keys: &'a Keys,
    binary: &'a Path,
    /// Holds what is copied.
    source: Receiver,
    /// What it holds so far, each with its root.
    made: RefCell<BTreeMap<Content, String>>,
}

/// What a run has to leave at its destination.
struct Expected {
    root: String,
    rows: BTreeMap<String, Row>,
}

impl<'a> Bench<'a> {
    fn open(options: &'a Options, root: PathBuf, keys: &'a Keys, binary: &'a Path) -> Result<Self> {
        let source = lab::receiver(options.release, &root, keys, "source", &Settings::default(), |_| Ok(()))?;
        let bench = Self { options, root, keys, binary, source, made: RefCell::default() };
        bench.install(&bench.source.instance)?;
        // It was built with this machine's libraries, and runs with the release's.
        bench.source.instance.run(OURS_INSIDE, &["--version"]).context(
            "the program does not start in this root: what it is linked with must be there (for libssh2 OpenSSL 3)",
        )?;
        Ok(bench)
    }

    fn install(&self, instance: &Instance) -> Result<()> {
        let place = instance.path(OURS);
        fs::copy(self.binary, &place).with_context(|| format!("cannot write {}", place.display()))?;
        Ok(())
    }

    /// Puts a closure into a store. Gives its root.
    fn make(&self, content: Content, Receiver { instance, store, .. }: &Receiver) -> Result<String> {
        match content {
            Content::Tiny(count) => {
                fixtures::chain(instance, TINY)?;
                Ok(closures::link_of_chain(count.unwrap_or(self.options.paths) - 1))
            }
            Content::Flat(count) => fixtures::wide(instance, count.unwrap_or(self.options.paths) - 1),
            Content::Big => closures::big(instance, store, self.options.big << 20),
            Content::ManyFiles => fixtures::many_files(instance),
            Content::Wide => closures::wide(instance, store),
            Content::Realistic => closures::realistic(instance, store, closures::PATHS, closures::BYTES),
            Content::Packages(build) => packages::build(instance, store, build),
        }
    }

    /// The closure of a case, made on first use.
    fn content(&self, content: Content) -> Result<Expected> {
        let known = self.made.borrow().get(&content).cloned();
        let root = match known {
            Some(root) => root,
            None => self.make(content, &self.source)?,
        };
        self.made.borrow_mut().insert(content, root.clone());
        let store = &self.source.store;
        let mut all = database::read(store)?;
        let mut rows = BTreeMap::new();
        let mut pending = vec![root.clone()];
        while let Some(path) = pending.pop() {
            if let Some(row) = all.remove(&path) {
                pending.extend(row.references.iter().cloned());
                rows.insert(path, row);
            }
        }
        ensure!(!rows.is_empty(), "{root} is not in the source");
        Ok(Expected { root, rows })
    }

    fn measure(&self, case: &Case, direction: Direction, protocol: Protocol) -> Result<Measurement> {
        if let There::Earlier(build) = case.there {
            self.content(Content::Packages(build))?;
        }
        let expected = self.content(case.content)?;
        let bytes = expected.rows.values().filter_map(|row| u64::try_from(row.nar_size?).ok()).sum();
        let mut measurement = Measurement {
            case: case.name,
            direction: direction.flag(),
            scheme: protocol.scheme(),
            paths: expected.rows.len(),
            bytes,
            samples: BTreeMap::new(),
            login: Vec::new(),
        };
        let usual: &[Contender] = if case.everybody { &Contender::ALL } else { &Contender::USUAL };
        let takes_part = |contender: &Contender| {
            self.options.has(*contender, usual)
                && (case.upstream || !contender.is_upstream())
                && contender.speaks(protocol)
                && (contender.registers() || self.options.user == User::Root)
        };
        for round in 0..self.options.pairs.unwrap_or(case.pairs) {
            for contender in Contender::ALL.into_iter().filter(takes_part) {
                // Whoever copied nothing has left nothing to verify.
                let thorough = round == 0 && case.there == There::Nothing;
                let turn = self.turn(case, direction, protocol, contender, &expected, thorough)?;
                println!(
                    "{:20} {:6} {:6} {contender:10} {:8.2} s  (processor {:.2} s)  {:3} MB   (bare login {:.2} s)",
                    case.name,
                    direction.flag(),
                    protocol.scheme(),
                    turn.sample.seconds,
                    turn.sample.usage.processor.as_secs_f64(),
                    turn.sample.usage.peak.div_ceil(1 << 20),
                    turn.login
                );
                measurement.login.push(turn.login);
                measurement.samples.entry(contender).or_default().push(turn.sample);
            }
        }
        Ok(measurement)
    }

    /// Gives a receiver what it has before the copy as a copy of the source.
    fn prepare(&self, receiver: &Instance, there: There, root: &str) -> Result<()> {
        if !matches!(there, There::All | There::AllButTheRoot) {
            return Ok(());
        }
        let from = self.source.store.folder().join("nix/.");
        exec::run("cp", [Path::new("-a"), &from, &receiver.path("nix")])?;
        if there == There::AllButTheRoot {
            receiver.run("nix-store", &["--delete", root])?;
        }
        Ok(())
    }

    /// One copy into a fresh store.
    fn turn(
        &self,
        case: &Case,
        direction: Direction,
        protocol: Protocol,
        contender: Contender,
        expected: &Expected,
        thorough: bool,
    ) -> Result<Turn> {
        let settings = Settings::default();
        let prepare = |instance: &mut Instance| self.prepare(instance, case.there, &expected.root);
        let receiver =
            lab::receiver(self.options.release, &self.root, self.keys, "receiver", &settings, prepare)?;
        if let There::Earlier(build) = case.there {
            self.make(Content::Packages(build), &receiver)?;
        }
        self.install(&receiver.instance)?;
        let user = self.options.user;
        let ends = [&self.source.instance, &receiver.instance].into_iter().filter(|_| user != User::Root);
        let _daemons = ends.map(Daemon::start).collect::<Result<Vec<_>>>()?;
        let (near, server) = match direction {
            Direction::To => (&self.source.instance, &receiver.server),
            Direction::From => (&receiver.instance, &self.source.server),
        };
        self.keys.install_client(near, user, server)?;
        let relay = case.line.map(|line| Relay::start(server.port(), line)).transpose()?;
        let port = relay.as_ref().map_or(server.port(), Relay::port);
        let login = self.login(near, server, port)?;
        let options = self.ssh_options(server, port);
        let mut command = if contender.registers() {
            self.registering(near, contender, protocol, direction, &expected.root)
        } else {
            unregistered(near, contender, direction, &expected.root, &options)
        };
        command.env("NIX_SSHOPTS", &options);
        let finished = exec::capture_within(&mut command, TIME_LIMIT, Vec::new())?.success()?;
        let arrived = || format!("{contender} {} {}", direction.flag(), case.name);
        if contender.registers() {
            check(&database::read(&receiver.store)?, expected, case.there).with_context(arrived)?;
        } else {
            let lacks = expected.rows.keys().find(|path| !receiver.store.real(path).exists());
            ensure!(lacks.is_none(), "{}: {lacks:?} did not arrive", arrived());
        }
        if thorough && contender.registers() {
            let roots = std::slice::from_ref(&expected.root);
            let wrong = compare::judge(&receiver.instance, &receiver.store, roots)?;
            ensure!(wrong.is_empty(), "{contender}: Nix finds wrong: {}", wrong.join("\n"));
        }
        let sample = Sample { seconds: finished.took.as_secs_f64(), usage: finished.usage };
        Ok(Turn { sample, login })
    }

    /// A program that copies closures, as it is called.
    fn registering(
        &self,
        near: &Instance,
        contender: Contender,
        protocol: Protocol,
        direction: Direction,
        root: &str,
    ) -> Command {
        let user = self.options.user;
        let program = match protocol {
            _ if contender.is_ours() => OURS_INSIDE,
            Protocol::Serve => "nix-copy-closure",
            Protocol::Daemon => "nix",
        };
        let mut command = near.command_as(user, program);
        command.args(contender.options());
        let mut url = protocol.url(user);
        if contender.is_upstream() && protocol == Protocol::Daemon {
            // The other program does not check signatures either.
            command.args(["copy", "--no-check-sigs"]);
        }
        if contender == Contender::UpstreamCompressed {
            match protocol {
                Protocol::Serve => drop(command.arg("--gzip")),
                Protocol::Daemon => url.push_str("?compress=true"),
            }
        }
        command.args([direction.flag(), &url]).arg(root);
        command
    }

    /// How long ssh takes for nothing: the part of a copy that no client can save.
    fn login(&self, near: &Instance, server: &Server, port: u16) -> Result<f64> {
        let user = self.options.user;
        let mut command = near.command_as(user, "ssh");
        let options = self.ssh_options(server, port);
        command.args(options.split_whitespace()).args([&format!("{}@127.0.0.1", user.name()), "true"]);
        Ok(exec::capture(&mut command)?.success()?.took.as_secs_f64())
    }

    /// The same for everybody. The relay's port is not in known_hosts, sshd's is.
    fn ssh_options(&self, server: &Server, port: u16) -> String {
        format!(
            "-F none -p {port} -o BatchMode=yes -o HostKeyAlias=[127.0.0.1]:{} {}",
            server.port(),
            self.options.for_ssh
        )
    }
}

/// What people do who only want the files at the other end, as one line of a shell.
fn unregistered(
    near: &Instance,
    contender: Contender,
    direction: Direction,
    root: &str,
    ssh_options: &str,
) -> Command {
    let ssh = format!("ssh {ssh_options}");
    let (host, list) = ("root@127.0.0.1", format!("nix-store -qR {root}"));
    let pack = format!("{list} | cut -c 2- | tar -C / -cf - -T - | zstd -3 --long -cq");
    let unpack = "zstd -dcq --long=27 | tar -C / -xf -";
    let line = match (contender, direction) {
        (Contender::Rsync, Direction::To) => {
            format!("{list} | rsync -arz --files-from=- -e '{ssh}' / {host}:/")
        }
        (Contender::Rsync, Direction::From) => {
            format!("{ssh} {host} {list} | rsync -arz --files-from=- -e '{ssh}' {host}:/ /")
        }
        (_, Direction::To) => format!("{pack} | {ssh} {host} '{unpack}'"),
        (_, Direction::From) => format!("{ssh} {host} '{pack}' | {unpack}"),
    };
    let mut command = near.command("bash");
    command.args(["-o", "pipefail", "-c", &line]);
    command
}

struct Turn {
    sample: Sample,
    login: f64,
}

/// Whether all arrived as it was; and nothing else, where nothing was before.
fn check(rows: &BTreeMap<String, Row>, expected: &Expected, there: There) -> Result<()> {
    for (path, row) in &expected.rows {
        let found = rows.get(path).with_context(|| format!("{path} did not arrive"))?;
        let same =
            found.hash == row.hash && found.nar_size == row.nar_size && found.references == row.references;
        ensure!(same, "{path} is registered otherwise: {found:?}, expected {row:?}");
    }
    let is_all = there != There::Nothing || rows.len() == expected.rows.len();
    ensure!(is_all, "{} paths arrived, not {}", rows.len(), expected.rows.len());
    Ok(())
}
