//! One version's workbench: a source with the fixtures, receivers on demand, upstream's client and ours.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;

use anyhow::{Context, Result};

use crate::database;
use crate::exec::{self, Finished};
use crate::fixtures::{self, Mixed};
use crate::instance::{Instance, LabStore};
use crate::interop::kit::{self, Kit};
use crate::roots::Release;
use crate::sshd::{self, Keys, Server, Settings};
use crate::user::User;

/// Which way paths go, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Direction {
    To,
    From,
}

impl Direction {
    /// The client's flag.
    pub(crate) fn flag(self) -> &'static str {
        match self {
            Self::To => "--to",
            Self::From => "--from",
        }
    }
}

/// What is spoken with the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    /// With `nix-store --serve`, which is what a plain host means.
    Serve,
    /// With `nix-daemon --stdio`.
    Daemon,
}

impl Protocol {
    pub(crate) const ALL: [Self; 2] = [Self::Serve, Self::Daemon];

    /// What stands for it in front of a host.
    pub(crate) const fn scheme(self) -> &'static str {
        match self {
            Self::Serve => "ssh",
            Self::Daemon => "ssh-ng",
        }
    }

    /// How a client names a user of the other end, and so what to speak. The plain host is what most people write.
    pub(crate) fn url(self, user: User) -> String {
        match self {
            Self::Serve => format!("{}@127.0.0.1", user.name()),
            Self::Daemon => format!("{}://{}@127.0.0.1", self.scheme(), user.name()),
        }
    }
}

/// The program under test.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) binary: PathBuf,
    /// Judges states and exit codes but not texts: for upstream in the candidate's place, when the runner itself is tested.
    pub(crate) lenient: bool,
    /// What `--transport` is given; `None` leaves it to the candidate.
    pub(crate) transport: Option<String>,
}

impl Candidate {
    /// A copy between the store at `store` and `server`, not yet started.
    pub(crate) fn command(
        &self,
        direction: Direction,
        store: &LabStore,
        server: &Server,
        paths: &[String],
    ) -> Command {
        self.command_for(direction, store, server, "root@127.0.0.1", paths)
    }

    /// The same with another user or protocol.
    pub(crate) fn command_for(
        &self,
        direction: Direction,
        store: &LabStore,
        server: &Server,
        host: &str,
        paths: &[String],
    ) -> Command {
        let mut command = self.bare(server);
        command.arg(direction.flag()).arg("--store").arg(store.folder()).arg(host).args(paths);
        command
    }

    /// The same, to end as soon as its connection is lost. (Upstream's program always does.)
    pub(crate) fn once(&self, mut command: Command) -> Command {
        if !self.lenient {
            command.args(["--retries", "0"]);
        }
        command
    }

    /// The program with ssh options that reach `server`, and a clean environment.
    pub(crate) fn bare(&self, server: &Server) -> Command {
        let mut command = Command::new(&self.binary);
        if let Some(transport) = &self.transport {
            command.args(["--transport", transport]);
        }
        command.env_clear().env("NIX_SSHOPTS", format!("{} -p {}", server.ssh_options(), server.port()));
        for name in ["PATH", "HOME", "USER", "LANG"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
    }

    /// Runs a copy to its end, which must be good.
    pub(crate) fn copy(
        &self,
        direction: Direction,
        store: &LabStore,
        server: &Server,
        paths: &[String],
    ) -> Result<Finished> {
        exec::capture(&mut self.command(direction, store, server, paths))?.success()
    }
}

/// A fresh store with a running instance and sshd around it.
#[derive(Debug)]
pub(crate) struct Receiver {
    // Dropped in this order: sshd first, the store last.
    pub(crate) server: Server,
    pub(crate) instance: Instance,
    pub(crate) store: LabStore,
}

/// A version's workbench.
#[derive(Debug)]
pub(crate) struct Lab<'a> {
    pub(crate) release: Release,
    pub(crate) candidate: &'a Candidate,
    root: &'a Path,
    keys: &'a Keys,
    many: OnceCell<String>,
    chain: OnceCell<String>,
    wide: OnceCell<String>,
    huge: OnceCell<String>,
    upstream: RefCell<BTreeMap<(Direction, Protocol), Rc<LabStore>>>,
    /// Brings the candidate into an instance.
    pub(crate) kit: &'a Kit,
    pub(crate) mixed: Mixed,
    /// Holds the fixtures.
    pub(crate) source: Receiver,
}

impl<'a> Lab<'a> {
    /// Builds the mixed closure; the large ones wait until a case asks for them.
    pub(crate) fn open(
        release: Release,
        root: &'a Path,
        keys: &'a Keys,
        candidate: &'a Candidate,
        kit: &'a Kit,
    ) -> Result<Self> {
        let source = receiver(release, root, keys, "source", &Settings::default(), |instance| {
            instance.bind(kit.folder(), kit::PLACE)
        })?;
        let mixed = fixtures::mixed(&source.instance, &source.store)?;
        Ok(Self {
            release,
            candidate,
            root,
            keys,
            many: OnceCell::new(),
            chain: OnceCell::new(),
            wide: OnceCell::new(),
            huge: OnceCell::new(),
            upstream: RefCell::default(),
            kit,
            mixed,
            source,
        })
    }

    /// The path of 10,000 files.
    pub(crate) fn many(&self) -> Result<String> {
        self.later(&self.many, || fixtures::many_files(&self.source.instance))
    }

    /// The last of 2,000 chained paths.
    pub(crate) fn chain(&self) -> Result<String> {
        self.later(&self.chain, || fixtures::chain(&self.source.instance, fixtures::CHAIN))
    }

    /// A path that refers to more paths than may be asked for at once.
    pub(crate) fn wide(&self) -> Result<String> {
        self.later(&self.wide, || fixtures::wide(&self.source.instance, fixtures::WIDE))
    }

    /// The path with a file over 4 GiB.
    pub(crate) fn huge(&self) -> Result<String> {
        self.later(&self.huge, || fixtures::huge(&self.source.instance, &self.source.store))
    }

    fn later(&self, cell: &OnceCell<String>, make: impl Fn() -> Result<String>) -> Result<String> {
        if let Some(path) = cell.get() {
            return Ok(path.clone());
        }
        let path = make()?;
        database::settle_registration_times(&self.source.store)?;
        Ok(cell.get_or_init(|| path).clone())
    }

    /// An empty store behind an sshd.
    pub(crate) fn receiver(&self) -> Result<Receiver> {
        self.receiver_with(&Settings::default(), |_| Ok(()))
    }

    /// Same, with its own sshd settings, and `prepare` run on the instance before sshd starts.
    pub(crate) fn receiver_with(
        &self,
        settings: &Settings,
        prepare: impl Fn(&mut Instance) -> Result<()>,
    ) -> Result<Receiver> {
        let receiver = receiver(self.release, self.root, self.keys, "receiver", settings, prepare)?;
        Ok(receiver)
    }

    /// A receiver around a store that was prepared.
    pub(crate) fn receiver_on(&self, store: LabStore) -> Result<Receiver> {
        around(store, self.release, self.root, self.keys, &Settings::default(), |_| Ok(()))
    }

    /// A second door to the source store: another instance over it, whose sshd may behave differently.
    pub(crate) fn door(
        &self,
        settings: &Settings,
        prepare: impl Fn(&mut Instance) -> Result<()>,
    ) -> Result<Door> {
        let mut instance = Instance::start(self.release, self.root, &self.source.store)?;
        prepare(&mut instance)?;
        let server = sshd::start(&instance, self.keys, settings)?;
        Ok(Door { server, instance })
    }

    /// An instance whose `/nix` is a store that somebody else made.
    pub(crate) fn inspect(&self, store: &LabStore) -> Result<Instance> {
        Instance::start(self.release, self.root, store)
    }

    /// A copy by upstream's own client of this version, client and server both real. For `To`, `near` is an instance over
    /// the source; for `From`, one over an empty store.
    pub(crate) fn upstream_command(
        &self,
        direction: Direction,
        near: &Instance,
        server: &Server,
        paths: &[String],
    ) -> Result<Command> {
        self.client_command("nix-copy-closure", direction, near, server, paths)
    }

    /// The same with another client there.
    pub(crate) fn client_command(
        &self,
        program: &str,
        direction: Direction,
        near: &Instance,
        server: &Server,
        paths: &[String],
    ) -> Result<Command> {
        let mut command = client(self.keys, program, near, server)?;
        command.args([direction.flag(), "root@127.0.0.1"]).args(paths);
        Ok(command)
    }

    /// A copy by upstream's `nix copy`, from or to the store at `url`, which is on `server`.
    pub(crate) fn nix_copy(
        &self,
        direction: Direction,
        near: &Instance,
        server: &Server,
        url: &str,
        paths: &[String],
    ) -> Result<Command> {
        let mut command = client(self.keys, "nix", near, server)?;
        command.args(["copy", "--no-check-sigs", direction.flag(), url]).args(paths);
        Ok(command)
    }

    /// Runs that copy; it must succeed.
    pub(crate) fn upstream_copy(
        &self,
        direction: Direction,
        near: &Instance,
        server: &Server,
        paths: &[String],
    ) -> Result<()> {
        let mut command = self.upstream_command(direction, near, server, paths)?;
        exec::capture(&mut command)?.success().context("upstream's own copy failed")?;
        Ok(())
    }

    /// The store that upstream's own client leaves after copying `paths` from the source: what ours has to equal.
    pub(crate) fn baseline(&self, direction: Direction, paths: &[String]) -> Result<LabStore> {
        let receiver = self.receiver()?;
        let (near, server) = match direction {
            Direction::To => (&self.source.instance, &receiver.server),
            Direction::From => (&receiver.instance, &self.source.server),
        };
        self.upstream_copy(direction, near, server, paths)?;
        let Receiver { server, instance, store } = receiver;
        drop((server, instance));
        Ok(store)
    }

    /// The store that upstream's clients leave after copying the mixed closure as root, over either protocol.
    pub(crate) fn upstream_result(&self, direction: Direction, protocol: Protocol) -> Result<Rc<LabStore>> {
        if let Some(store) = self.upstream.borrow().get(&(direction, protocol)) {
            return Ok(Rc::clone(store));
        }
        let paths = self.mixed.roots();
        let store = match protocol {
            Protocol::Serve => self.baseline(direction, &paths)?,
            Protocol::Daemon => {
                let receiver = self.receiver()?;
                let (near, server) = match direction {
                    Direction::To => (&self.source.instance, &receiver.server),
                    Direction::From => (&receiver.instance, &self.source.server),
                };
                let url = protocol.url(User::Root);
                let mut copy = self.nix_copy(direction, near, server, &url, &paths)?;
                exec::capture(&mut copy)?.success().context("upstream's own copy failed")?;
                receiver.store
            }
        };
        let store = Rc::new(store);
        self.upstream.borrow_mut().insert((direction, protocol), Rc::clone(&store));
        Ok(store)
    }

    /// The candidate inside of an instance that has the kit, run by a user who can log in to `server`.
    pub(crate) fn inside(&self, near: &Instance, user: User, server: &Server) -> Result<Command> {
        self.keys.install_client(near, user, server)?;
        let mut command = near.command_as(user, &kit::program());
        command.env("NIX_SSHOPTS", format!("-F none -p {} -o BatchMode=yes", server.port()));
        command.args(self.candidate.transport.iter().flat_map(|name| ["--transport", name]));
        Ok(command)
    }

    /// A copy of the source store that may be damaged. Only small closures: everything in it is copied.
    pub(crate) fn small_source(&self, label: &str, paths: &[String]) -> Result<Receiver> {
        let receiver = receiver(self.release, self.root, self.keys, label, &Settings::default(), |_| Ok(()))?;
        self.upstream_copy(Direction::To, &self.source.instance, &receiver.server, paths)?;
        Ok(receiver)
    }
}

/// See [`Lab::door`].
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) server: Server,
    #[allow(dead_code)] // held for its mounts
    pub(crate) instance: Instance,
}

/// A fresh store, its instance and its sshd. Also what `cargo xtask bench` measures against.
pub(crate) fn receiver(
    release: Release,
    root: &Path,
    keys: &Keys,
    label: &str,
    settings: &Settings,
    prepare: impl Fn(&mut Instance) -> Result<()>,
) -> Result<Receiver> {
    let store = LabStore::create(label, release.name())?;
    around(store, release, root, keys, settings, prepare)
}

/// The same around a store that was prepared.
pub(crate) fn around(
    store: LabStore,
    release: Release,
    root: &Path,
    keys: &Keys,
    settings: &Settings,
    prepare: impl Fn(&mut Instance) -> Result<()>,
) -> Result<Receiver> {
    let mut instance = Instance::start(release, root, &store)?;
    instance.run("nix-store", &["--init"])?;
    prepare(&mut instance)?;
    let server = sshd::start(&instance, keys, settings)?;
    Ok(Receiver { server, instance, store })
}

/// A program inside of an instance, run by root, who can log in to `server`.
pub(crate) fn client(keys: &Keys, program: &str, near: &Instance, server: &Server) -> Result<Command> {
    keys.install_client(near, User::Root, server)?;
    let mut command = near.command(program);
    command.env("NIX_SSHOPTS", format!("-F none -p {} -o BatchMode=yes", server.port()));
    Ok(command)
}

/// Starts a program whose end will be waited for with [`exec::finish`].
pub(crate) fn spawn(command: &mut Command) -> Result<(Child, String)> {
    let shown = exec::show(command);
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    Ok((child, shown))
}
