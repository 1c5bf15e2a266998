//! What deployment tools call, word for word, with this program in front in PATH under both names: against a real sshd and real Nix, and
//! each line once more with Nix's own programs. The exit status says the same, and the same paths are there afterwards.

mod lines;

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use ncc_local_store::Access;
use ncc_transport_ssh::test_util::Sshd;

use crate::{
    daemons::{Listening, forget_content_addresses, has_daemon, verify_in},
    support::{PROGRAM, Ran, World, open},
    transports::{configuration, path},
};

/// Where a copy goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    To,
    From,
}

/// A world with both programs, a derivation, and what Nix needs to be let alone.
struct Callers {
    world: World,
    ours: PathBuf,
    derivation: String,
    output: String,
}

/// Nothing of this machine, no network, and what people who use `nix` have set.
const SETTINGS: &str = "substituters =\nexperimental-features = nix-command flakes\nbuild-users-group =\n";

impl Callers {
    fn new() -> Self {
        let world = World::new();
        let ours = world.directory().join("ours");
        fs::create_dir(&ours).unwrap();
        for name in ["nix", "nix-copy-closure"] {
            symlink(PROGRAM, ours.join(name)).unwrap();
        }
        fs::write(world.directory().join("nix.conf"), SETTINGS).unwrap();
        let mut callers = Self { world, ours, derivation: String::new(), output: String::new() };
        // One with an output that is there without having been built.
        fs::write(callers.world.directory().join("fixed"), "fixed").unwrap();
        let expression = "derivation { name = \"fixed\"; system = \"x\"; builder = \"/x\"; outputHashMode = \"flat\"; \
                          outputHashAlgo = \"sha256\"; outputHash = builtins.hashString \"sha256\" \"fixed\"; }";
        callers.derivation = callers.nix(&["nix-instantiate", "--expr", expression]);
        callers.output = callers.nix(&["nix-store", "--add-fixed", "sha256", "fixed"]);
        callers
    }

    /// A line of what a program of Nix says about the source.
    fn nix(&self, words: &[&str]) -> String {
        let mut command = Command::new(words[0]);
        let output =
            self.isolated(command.args(&words[1..])).env("NIX_REMOTE", self.world.from()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn isolated<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let directory = self.world.directory();
        command
            .env_clear()
            .env("PATH", path())
            .env("HOME", directory)
            .env("NIX_CONF_DIR", directory)
            .env("LC_ALL", "C.UTF-8")
            .current_dir(directory)
    }

    /// A store with nothing in it, and a directory for one run.
    fn fresh(&self, name: &str) -> (PathBuf, PathBuf) {
        let (store, tmp) =
            (self.world.directory().join(name), self.world.directory().join(format!("{name}-tmp")));
        for directory in [&store, &tmp] {
            // What Nix has made is not writable.
            let _ = Command::new("chmod").args(["-R", "u+w"]).arg(directory).output();
            let _ = fs::remove_dir_all(directory);
        }
        fs::create_dir(&tmp).unwrap();
        (store, tmp)
    }

    /// An sshd whose users have `store` for their default store.
    fn host(&self, store: &Path) -> Option<Sshd> {
        let directory = self.world.directory().display();
        let settings = format!(
            "SetEnv NIX_REMOTE={} HOME={directory} NIX_CONF_DIR={directory} PATH={}",
            store.display(),
            path().display()
        );
        Sshd::start(&[&settings])
    }

    /// Runs a line with these programs in front in PATH.
    fn run(&self, line: &str, programs: &[&Path], host: &Host<'_>, local: &Path, tmp: &Path) -> Ran {
        let mut search: Vec<PathBuf> = programs.iter().map(|folder| folder.to_path_buf()).collect();
        search.extend(std::env::split_paths(&path()));
        let mut command = Command::new("sh");
        self.isolated(command.args(["-c", line]))
            .env("PATH", std::env::join_paths(search).unwrap())
            .env("NIX_REMOTE", local)
            .env(
                "NIX_SSHOPTS",
                configuration(&self.world, &[("web", host.sshd, ""), ("source", host.source, "")]),
            )
            .env("HOST", format!("{}@web", user()))
            .env("SOURCE", format!("{}@source", user()))
            .env("KEY", host.sshd.key())
            .env("SOCKET", self.world.directory().join("socket"))
            .env("TMP", tmp)
            .env("CACHE", tmp.join("cache"))
            .env("TO", host.destination)
            .env("ENCODED_TO", host.destination.display().to_string().replace('/', "%2F"))
            .env("FROM", self.world.from())
            .env("TOP", &self.world.top)
            .env("OTHER", &self.world.other)
            .env("DRV", &self.derivation)
            .env("OUT", &self.output);
        if !programs.is_empty() && host.does_it_itself {
            command.env("NCC_NIX", "/nowhere/nix");
        }
        self.world.run(&mut command)
    }

    /// Runs our line and the one of Nix's own programs, each into a store of its own.
    fn compare(&self, direction: Direction, caller: &str, line: &str, control: &str, succeeds: bool) {
        let mut results = Vec::new();
        for (name, line, programs) in [("to", line, &[self.ours.as_path()][..]), ("control", control, &[])] {
            let (destination, tmp) = self.fresh(name);
            let (at_host, local) = if direction == Direction::To {
                (destination.clone(), self.world.from())
            } else {
                (self.world.from(), destination.clone())
            };
            let Some(sshd) = self.host(&at_host) else { return };
            let Some(source) = self.host(&self.world.from()) else { return };
            let host = Host { sshd: &sshd, source: &source, destination: &destination, does_it_itself: true };
            let ran = self.run(line, programs, &host, &local, &tmp);
            results.push((ran, contents(&destination), destination));
        }
        let [(ours, our_paths, to), (control, paths, _)] = &results[..] else { panic!("two runs") };
        assert_eq!(
            ours.code == 0,
            control.code == 0,
            "{caller}: {line}\n{}\n\n{}",
            ours.transcript(),
            control.transcript()
        );
        assert_eq!(our_paths, paths, "{caller}: {line}\n{}\n\n{}", ours.transcript(), control.transcript());
        assert_eq!(ours.stdout, control.stdout, "{caller}: {line}");
        let copied = (ours.code == 0, !our_paths.is_empty());
        assert_eq!(copied, (succeeds, succeeds), "{caller}: {line}\n{}", ours.transcript());
        if to.exists() {
            verify_in(&self.world, to);
        }
    }

    fn compare_all(&self, direction: Direction, lines: &[lines::Line]) {
        for (caller, line) in lines {
            self.compare(direction, caller, line, line, true);
        }
    }

    fn refuses_all(&self, direction: Direction, lines: &[lines::Line]) {
        for (caller, line) in lines {
            self.compare(direction, caller, line, line, false);
        }
    }
}

/// The other machine.
struct Host<'a> {
    sshd: &'a Sshd,
    /// One more, that has the paths.
    source: &'a Sshd,
    /// The store that is copied to, wherever it is.
    destination: &'a Path,
    /// There is no Nix that could be handed on to.
    does_it_itself: bool,
}

fn user() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The valid paths of a store, none where there is no store.
fn contents(store: &Path) -> BTreeSet<String> {
    if !store.join("nix/var/nix/db/db.sqlite").exists() {
        return BTreeSet::new();
    }
    open(store, Access::ReadOnly).query_all_valid_paths().unwrap().iter().map(ToString::to_string).collect()
}

#[test]
fn nix_copy_closure_to() {
    if has_daemon() {
        Callers::new().compare_all(Direction::To, lines::OLD_TO);
    }
}

#[test]
fn nix_copy_closure_from() {
    if has_daemon() {
        Callers::new().compare_all(Direction::From, lines::OLD_FROM);
    }
}

#[test]
fn nix_copy_to() {
    if has_daemon() {
        let callers = Callers::new();
        let _daemon = Listening::over(&callers.world.from(), callers.world.directory(), SETTINGS);
        callers.compare_all(Direction::To, lines::NEW_TO);
    }
}

#[test]
fn nix_copy_with_words_of_newer_versions() {
    if has_daemon() {
        let callers = Callers::new();
        for (caller, line, control) in lines::NEWER {
            callers.compare(Direction::To, caller, line, control, true);
        }
    }
}

#[test]
fn nix_copy_from() {
    if has_daemon() {
        Callers::new().compare_all(Direction::From, lines::NEW_FROM);
    }
}

#[test]
fn nix_copy_between_hosts() {
    if has_daemon() {
        Callers::new().compare_all(Direction::To, lines::BETWEEN);
    }
}

#[test]
fn nix_copy_between_stores_of_this_machine() {
    if has_daemon() {
        Callers::new().compare_all(Direction::To, lines::HERE);
    }
}

/// Each command has its own mind, and so has each kind of store.
#[test]
fn paths_that_nobody_has_signed() {
    if has_daemon() {
        let callers = Callers::new();
        forget_content_addresses(&callers.world);
        callers.compare_all(Direction::To, lines::UNSIGNED_TO);
        callers.compare_all(Direction::From, lines::UNSIGNED_FROM);
        callers.refuses_all(Direction::To, lines::REFUSED_TO);
        callers.refuses_all(Direction::From, lines::REFUSED_FROM);
    }
}

#[test]
fn what_is_handed_on_is_what_nix_says() {
    if !has_daemon() {
        return;
    }
    let callers = Callers::new();
    for (what, line) in lines::HANDED_ON {
        let [ours, control] = [&[callers.ours.as_path()][..], &[]].map(|programs| {
            let (to, tmp) = callers.fresh("to");
            let sshd = callers.host(&to)?;
            let host = Host { sshd: &sshd, source: &sshd, destination: &to, does_it_itself: false };
            Some(callers.run(line, programs, &host, &callers.world.from(), &tmp).transcript())
        });
        assert_eq!(ours, control, "{what}: {line}");
    }
}
