//! Two real stores behind real sshd's, a closure in one of them, and the program that copies it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::course::{Course, Far, Kind, Near};
use crate::bench::closures;
use crate::daemon::{Daemon, SOCKET};
use crate::database::{self, Row};
use crate::exec;
use crate::instance::{Instance, LabStore};
use crate::interop::kit::{self, Kit};
use crate::interop::lab::{self, Candidate, Direction, Protocol, Receiver};
use crate::namespace;
use crate::relay::{Line, Relay, Way};
use crate::roots::{self, Release};
use crate::sshd::{Keys, Settings};
use crate::user::User;

/// Paths of the closure, and about how many bytes they have: small enough for many runs, and more than all buffers between the two
/// ends hold.
const PATHS: usize = 120;
const BYTES: u64 = 24 << 20;

/// What every run uses.
pub(super) struct Workshop {
    pub(super) candidate: Candidate,
    pub(super) keys: Keys,
    kit: Kit,
    release: Release,
    root: PathBuf,
    pub(super) source: Receiver,
    pub(super) destination: Receiver,
    /// What is copied.
    pub(super) path: String,
    /// What the source's database says, before and after.
    pub(super) rows: BTreeMap<String, Row>,
    /// What a copy without a fault carries, up and down.
    carried: RefCell<BTreeMap<(Direction, Protocol), [u64; 2]>>,
}

impl Workshop {
    /// `None` where there is no such Nix, which is said loudly.
    pub(super) fn open(release: Release, binary: Option<&PathBuf>) -> Result<Option<Self>> {
        let root = if release == Release::Here {
            for program in ["nix-store", "nix-daemon", "ssh"] {
                if !exec::available(program) {
                    namespace::left_out(&format!("all faults: no {program} on this machine"))?;
                    return Ok(None);
                }
            }
            PathBuf::from("/")
        } else {
            match roots::ensure_all(&[release])?.remove(&release) {
                Some(root) => root,
                None => return Ok(None),
            }
        };
        // A copy: a build meanwhile must not change what is tested.
        let built = namespace::target_folder().join("fast/nix-copy-closure");
        let from = binary.unwrap_or(&built);
        let binary = namespace::run_folder().join("nix-copy-closure");
        fs::copy(from, &binary).with_context(|| format!("no program at {}", from.display()))?;
        let keys = Keys::generate()?;
        let candidate = Candidate { binary, lenient: false, transport: None };
        let kit = Kit::gather(&candidate.binary)?;
        let settings = Settings::default();
        let source = lab::receiver(release, &root, &keys, "source", &settings, |it| equip(it, &kit))?;
        let destination =
            lab::receiver(release, &root, &keys, "destination", &settings, |it| equip(it, &kit))?;
        let path = closures::realistic(&source.instance, &source.store, PATHS, BYTES)?;
        let rows = database::read(&source.store)?;
        let carried = RefCell::default();
        Ok(Some(Self { candidate, keys, kit, release, root, source, destination, path, rows, carried }))
    }

    /// What is tested, with what.
    pub(super) fn describe(&self) -> Result<String> {
        let nix = self.source.instance.run("nix-store", &["--version"])?;
        let ssh = self.source.instance.try_run("ssh", &["-V"])?.stderr;
        Ok(format!("{nix}; {}; {} paths, {} MiB", ssh.trim(), self.rows.len(), self.bytes() >> 20))
    }

    /// The sizes of all NARs.
    pub(super) fn bytes(&self) -> u64 {
        self.rows.values().filter_map(|row| u64::try_from(row.nar_size?).ok()).sum()
    }

    /// The size of the largest NAR.
    pub(super) fn largest(&self) -> u64 {
        self.rows.values().filter_map(|row| u64::try_from(row.nar_size?).ok()).max().unwrap_or_default()
    }

    /// Another destination, since something is wrong with this one.
    pub(super) fn renew(&mut self) -> Result<()> {
        self.destination = self.destination_on(LabStore::create("destination", "another")?)?;
        Ok(())
    }

    /// A destination around a store that was prepared.
    pub(super) fn destination_on(&self, store: LabStore) -> Result<Receiver> {
        lab::around(store, self.release, &self.root, &self.keys, &Settings::default(), |it| {
            equip(it, &self.kit)
        })
    }

    /// The other end of a copy to or from `destination`.
    pub(super) fn far<'a>(&'a self, course: &Course, destination: &'a Receiver) -> &'a Receiver {
        if course.direction == Direction::To { destination } else { &self.source }
    }

    /// How many bytes a copy like this one carries where nothing goes wrong. The transports differ by little.
    pub(super) fn carried(&self, course: &Course, way: Way) -> Result<u64> {
        let key = (course.direction, course.protocol);
        let known = self.carried.borrow().get(&key).copied();
        let [up, down] = match known {
            Some(carried) => carried,
            None => {
                let plain = Course { kind: Kind::Slow, near: Near::Store, far: Far::Nix, ..course.clone() };
                let far = self.far(&plain, &self.destination);
                let relay = Relay::start(far.server.port(), Line::default())?;
                let mut command = self.command(&plain, &self.destination, relay.port(), None);
                exec::capture(&mut command)?.success().context("the copy in which nothing goes wrong")?;
                let carried = Way::ALL.map(|way| relay.carried(way));
                self.sweep()?;
                self.carried.borrow_mut().insert(key, carried);
                carried
            }
        };
        Ok(if way == Way::Up { up } else { down })
    }

    /// The copy of a course, over the line at `port`; `wrapper` is started in the place of what serves.
    pub(super) fn command(
        &self,
        course: &Course,
        destination: &Receiver,
        port: u16,
        wrapper: Option<&str>,
    ) -> Command {
        self.command_for(course, destination, port, wrapper, &self.path)
    }

    /// The same for another path.
    pub(super) fn command_for(
        &self,
        course: &Course,
        destination: &Receiver,
        port: u16,
        wrapper: Option<&str>,
        path: &str,
    ) -> Command {
        let far = self.far(course, destination);
        let mut candidate = self.candidate.clone();
        candidate.transport = Some(course.transport.to_owned());
        let mut command = candidate.bare(&far.server);
        // The line's port is not in known_hosts, sshd's is. Each side may wait for the other for ever, also where a length was
        // corrupted: that has to be found before everybody falls asleep.
        let patience = if matches!(course.kind, Kind::Stall | Kind::Corrupt) {
            " -o ServerAliveInterval=1 -o ServerAliveCountMax=3 -o ConnectTimeout=5"
        } else {
            ""
        };
        let options = far.server.ssh_options();
        let alias = far.server.port();
        let options = format!("{options} -p {port} -o HostKeyAlias=[127.0.0.1]:{alias}{patience}");
        command.env("NIX_SSHOPTS", options).arg(course.direction.flag()).arg("--remote-program");
        command.arg(wrapper.map_or_else(|| server(course), str::to_owned));
        if !course.retries {
            command.args(["--retries", "0"]);
        }
        if wrapper.is_some() && course.kind == Kind::Garble {
            // Where a length was garbled, each side waits for the other.
            command.args(["--stall-timeout", "10"]);
        }
        if course.kind == Kind::Stall {
            // OpenSSH sends no keep-alives before the login is done.
            command.args(["--stall-timeout", "30"]);
        }
        command.arg("--store");
        command.arg(self.near_store(course, destination));
        command.arg(course.protocol.url(User::Root)).arg(path);
        command
    }

    fn near_store(&self, course: &Course, destination: &Receiver) -> OsString {
        let folder = |store: &LabStore| store.folder().to_path_buf();
        match (course.direction, course.near) {
            (Direction::To, _) => folder(&self.source.store).into(),
            (Direction::From, Near::Store) => folder(&destination.store).into(),
            (Direction::From, Near::Daemon) => {
                let socket = destination.instance.path(SOCKET);
                format!("unix://{}?root={}", socket.display(), folder(&destination.store).display()).into()
            }
        }
    }

    /// Empties the destination, as Nix's collector does where nothing is wanted; what it leaves, nothing but a lock or a root could
    /// hold.
    pub(super) fn sweep(&self) -> Result<()> {
        self.destination.instance.collect_garbage()?;
        let left = database::read(&self.destination.store)?;
        ensure!(left.is_empty(), "the collector leaves {} paths", left.len());
        let wrong = crate::interop::compare::unregistered(&self.destination.store)?;
        ensure!(wrong.is_empty(), "the collector leaves: {}", wrong.join("; "));
        Ok(())
    }
}

/// The daemon of this side, if the course has one.
pub(super) fn daemon(course: &Course, destination: &Receiver) -> Result<Option<Daemon>> {
    (course.near == Near::Daemon).then(|| Daemon::start(&destination.instance)).transpose()
}

/// Gives an instance the program, to serve.
fn equip(instance: &mut Instance, kit: &Kit) -> Result<()> {
    instance.bind(kit.folder(), kit::PLACE)
}

/// What serves at the other end, and what a wrapper around it is called.
pub(super) fn server(course: &Course) -> String {
    match (course.protocol, course.far) {
        (Protocol::Daemon, _) => "nix-daemon".to_owned(),
        (Protocol::Serve, Far::Nix) => "nix-store".to_owned(),
        (Protocol::Serve, Far::Ours) => kit::program(),
    }
}
