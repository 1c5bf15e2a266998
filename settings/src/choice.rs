//! Which store Nix would use on this machine, for this user.
//!
//! `auto` follows `resolveStoreConfig` of Nix (`src/libstore/store-registration.cc`): the store on the disk if its state
//! directory may be written, else the daemon if its socket exists, else, since Nix 2.10 and on Linux, a store in the
//! home directory of a user for whom there is no other one, else the store on the disk after all, which then fails.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use ncc_store::StoreDir;

use crate::{
    Environment, FileSystem, Origin, Os, Parameters, Settings, SettingsError, StoreKind, StoreReference,
    error::shown,
};

const STATE_DIR: &str = "nix/var/nix";
const LOG_DIR: &str = "nix/var/log/nix";

/// The directories of a store on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LocalLayout {
    /// The directory in which all others are, unless parameters say otherwise. `None` is the system's own store.
    pub root: Option<PathBuf>,
    /// The prefix of all store paths as texts.
    pub store_dir: StoreDir,
    /// Where the objects are.
    pub real_store_dir: PathBuf,
    /// Where database and locks are.
    pub state_dir: PathBuf,
    /// Where build logs are.
    pub log_dir: PathBuf,
    /// Whether the store must not be changed in any way, even by a lock (`read-only=true`).
    pub read_only: bool,
}

impl LocalLayout {
    /// The directories that `parameters` name, with those of the environment as defaults.
    fn new(
        root: Option<&Path>,
        parameters: &Parameters,
        environment: &Environment,
    ) -> Result<Self, SettingsError> {
        let path = |name| parameters.value(name).map(|path| environment.absolute(Path::new(path)));
        let root = path("root").or_else(|| root.map(Path::to_owned));
        let store_dir = match parameters.value("store") {
            Some(text) => {
                StoreDir::new(text).map_err(|source| SettingsError::StoreDirParameter { source })?
            }
            None => environment.store_dir()?,
        };
        // A root brings directories of its own, and those of the environment no longer count.
        let below = |variable, directory| match &root {
            Some(root) => root.join(directory),
            None => environment.path(variable).unwrap_or_else(|| Path::new("/").join(directory)),
        };
        let real =
            || root.as_ref().map_or_else(|| PathBuf::from(store_dir.as_str()), |root| root.join("nix/store"));
        Ok(Self {
            real_store_dir: path("real").unwrap_or_else(real),
            state_dir: path("state").unwrap_or_else(|| below("NIX_STATE_DIR", STATE_DIR)),
            log_dir: path("log").unwrap_or_else(|| below("NIX_LOG_DIR", LOG_DIR)),
            read_only: parameters.switch("read-only").unwrap_or(false),
            store_dir,
            root,
        })
    }

    /// Where the daemon of this store listens.
    fn daemon_socket(&self, environment: &Environment) -> PathBuf {
        environment
            .path("NIX_DAEMON_SOCKET_PATH")
            .unwrap_or_else(|| self.state_dir.join("daemon-socket/socket"))
    }
}

impl Environment {
    /// The logical store directory of a store whose parameters name none.
    ///
    /// # Errors
    /// If the variable that names another one than the usual names none.
    pub fn store_dir(&self) -> Result<StoreDir, SettingsError> {
        for name in ["NIX_STORE_DIR", "NIX_STORE"] {
            if let Some(path) = self.path(name) {
                let text = path.to_str().ok_or(SettingsError::VariableNotUtf8 { name })?;
                return StoreDir::new(text)
                    .map_err(|source| SettingsError::StoreDirVariable { name, source });
            }
        }
        Ok(StoreDir::default())
    }
}

/// Where a store is, after the machine was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StorePlace {
    /// On this disk.
    Local(LocalLayout),
    /// Behind a daemon on this machine. Who may read the files can do so without asking it.
    Daemon {
        /// Where it listens.
        socket: PathBuf,
        /// The directories of the store that it serves.
        layout: LocalLayout,
    },
    /// Not on this machine: see [`StoreReference::kind`].
    Elsewhere,
}

/// The store that is meant, and what led to it.
///
/// [`Display`](fmt::Display) says both in one sentence.
///
/// ```
/// use ncc_settings::{Disk, Environment, Settings, StoreChoice, StorePlace};
///
/// let environment = Environment::empty("/").with_variable("NIX_REMOTE", "unix:///run/nix.socket?root=/mnt");
/// let choice = StoreChoice::new(&Settings::default(), &environment, &Disk)?;
/// assert!(matches!(&choice.place, StorePlace::Daemon { socket, layout }
///     if socket.ends_with("nix.socket") && layout.state_dir.ends_with("mnt/nix/var/nix")));
/// assert_eq!(choice.to_string(), "the store is 'unix:///run/nix.socket?root=/mnt' (from NIX_REMOTE)");
/// # Ok::<(), ncc_settings::SettingsError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreChoice {
    /// The text that names it.
    pub reference: StoreReference,
    /// Where the text comes from.
    pub origin: Origin,
    /// Where the store is.
    pub place: StorePlace,
    /// What `auto` was found to mean, as a clause; empty where nothing had to be found out.
    pub because: String,
}

impl StoreChoice {
    /// The default store: the setting `store` (which is also what `--store` sets), else `NIX_REMOTE`, else `auto`.
    ///
    /// # Errors
    /// [`SettingsError`], for a text that names no store.
    pub fn new(
        settings: &Settings,
        environment: &Environment,
        files: &dyn FileSystem,
    ) -> Result<Self, SettingsError> {
        let (text, origin) = if let Some(text) = settings.text("store") {
            (text, settings.origin("store"))
        } else if let Some(text) = environment.variable("NIX_REMOTE") {
            let text = text.to_str().ok_or(SettingsError::VariableNotUtf8 { name: "NIX_REMOTE" })?;
            (text, Origin::Variable("NIX_REMOTE"))
        } else {
            ("auto", Origin::Default)
        };
        let reference = StoreReference::parse(text, &environment.working_directory)?;
        Self::of(reference, origin, environment, files)
    }

    /// The store that `reference` means here.
    ///
    /// # Errors
    /// [`SettingsError`], for parameters that make no sense.
    pub fn of(
        reference: StoreReference,
        origin: Origin,
        environment: &Environment,
        files: &dyn FileSystem,
    ) -> Result<Self, SettingsError> {
        reference.review()?;
        let layout = |root| LocalLayout::new(root, &reference.parameters, environment);
        let mut because = String::new();
        let place = match &reference.kind {
            StoreKind::Auto => {
                let (place, reason) = auto(layout(None)?, &reference, environment, files)?;
                because = reason;
                place
            }
            StoreKind::Local { root } => StorePlace::Local(layout(root.as_deref())?),
            StoreKind::Daemon { socket } => {
                let layout = layout(None)?;
                let socket = socket.clone().unwrap_or_else(|| layout.daemon_socket(environment));
                StorePlace::Daemon { socket, layout }
            }
            StoreKind::Ssh | StoreKind::SshNg | StoreKind::Foreign { .. } => StorePlace::Elsewhere,
        };
        Ok(Self { reference, origin, place, because })
    }
}

fn auto(
    layout: LocalLayout,
    reference: &StoreReference,
    environment: &Environment,
    files: &dyn FileSystem,
) -> Result<(StorePlace, String), SettingsError> {
    let state = layout.state_dir.display().to_string();
    if files.is_writable(&layout.state_dir) {
        return Ok((StorePlace::Local(layout), format!("this user may write '{state}'")));
    }
    let socket = layout.daemon_socket(environment);
    if files.exists(&socket) {
        let because =
            format!("this user may not write '{state}', and a daemon has a socket '{}'", socket.display());
        return Ok((StorePlace::Daemon { socket, layout }, because));
    }
    let own_store_is_possible = environment.os == Os::Linux
        && !environment.is_root
        && reference.parameters.is_empty()
        && !files.exists(&layout.state_dir)
        && ["NIX_STORE_DIR", "NIX_STATE_DIR"].iter().all(|name| !environment.variables.contains_key(*name));
    match environment.data_home() {
        Some(data) if own_store_is_possible => {
            let root = data.join("root");
            let because =
                format!("there is neither '{state}' nor a daemon, so Nix uses '{}'", root.display());
            let layout = LocalLayout::new(Some(&root), &reference.parameters, environment)?;
            Ok((StorePlace::Local(layout), because))
        }
        _ => Ok((
            StorePlace::Local(layout),
            format!("there is no daemon with a socket '{}'", socket.display()),
        )),
    }
}

impl fmt::Display for StoreChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store is '{}' ", shown(&self.reference))?;
        match &self.origin {
            Origin::Default => f.write_str("(the default)")?,
            origin => write!(f, "(from {origin})")?,
        }
        match &self.place {
            _ if self.because.is_empty() => Ok(()),
            StorePlace::Local(layout) => match &layout.root {
                Some(root) => write!(
                    f,
                    ", which means the one in '{}': {}",
                    shown(root.display()),
                    shown(&self.because)
                ),
                None => write!(f, ", which means the one on this disk: {}", shown(&self.because)),
            },
            _ => write!(f, ", which means the daemon: {}", shown(&self.because)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, io};

    use rstest::rstest;

    use super::*;

    /// A machine on which some things exist, and some may be written.
    struct Machine {
        there: BTreeSet<&'static str>,
        writable: BTreeSet<&'static str>,
    }

    impl FileSystem for Machine {
        fn read(&self, _: &Path, _: u64) -> io::Result<Vec<u8>> {
            Err(io::ErrorKind::NotFound.into())
        }

        fn exists(&self, path: &Path) -> bool {
            self.there.iter().any(|there| Path::new(there) == path)
        }

        fn is_writable(&self, path: &Path) -> bool {
            self.writable.iter().any(|there| Path::new(there) == path)
        }
    }

    fn user(variables: &[(&str, &str)]) -> Environment {
        let mut environment = Environment::empty("/w");
        environment.os = Os::Linux;
        environment.home = Some("/home/a".into());
        for (name, value) in variables {
            environment = environment.with_variable(name, *value);
        }
        environment
    }

    fn choose(
        environment: &Environment,
        store: Option<&str>,
        there: &[&'static str],
        writable: &[&'static str],
    ) -> Result<StoreChoice, SettingsError> {
        let files =
            Machine { there: there.iter().copied().collect(), writable: writable.iter().copied().collect() };
        let given: Vec<_> = store.map(|uri| ("store".to_owned(), uri.to_owned())).into_iter().collect();
        let settings = Settings::load(environment, &files, &given)?;
        StoreChoice::new(&settings, environment, &files)
    }

    /// "local STORE REAL STATE" or "daemon SOCKET REAL STATE".
    fn shown(choice: &StoreChoice) -> String {
        let directories = |layout: &LocalLayout| {
            format!("{} {} {}", layout.store_dir, layout.real_store_dir.display(), layout.state_dir.display())
        };
        match &choice.place {
            StorePlace::Local(layout) => format!("local {}", directories(layout)),
            StorePlace::Daemon { socket, layout } => {
                format!("daemon {} {}", socket.display(), directories(layout))
            }
            StorePlace::Elsewhere => "elsewhere".to_owned(),
        }
    }

    const SYSTEM: &str = "/nix/store /nix/store /nix/var/nix";
    const SOCKET: &str = "/nix/var/nix/daemon-socket/socket";

    #[rstest]
    #[case::system("local", &[], SYSTEM)]
    #[case::directory("/mnt/x", &[], "/nix/store /mnt/x/nix/store /mnt/x/nix/var/nix")]
    #[case::root("local?root=/mnt/", &[], "/nix/store /mnt/nix/store /mnt/nix/var/nix")]
    #[case::root_parameter_wins("/a?root=/b", &[], "/nix/store /b/nix/store /b/nix/var/nix")]
    #[case::escaped("local?root=/a%2fb%26c", &[], "/nix/store /a/b&c/nix/store /a/b&c/nix/var/nix")]
    #[case::store("local?store=/gnu/store", &[], "/gnu/store /gnu/store /nix/var/nix")]
    #[case::store_in_root("local?root=/r&store=/gnu/store", &[], "/gnu/store /r/nix/store /r/nix/var/nix")]
    #[case::all("local?root=/r&store=/s&state=/t&real=/u&priority=3", &[], "/s /u /t")]
    #[case::path_with_parameters("/r?state=/t", &[], "/nix/store /r/nix/store /t")]
    #[case::empty_value("local?root=", &[], SYSTEM)]
    #[case::variables("local", &[("NIX_STORE_DIR", "/s"), ("NIX_STATE_DIR", "/t")], "/s /s /t")]
    #[case::variables_and_root(
        "/r", &[("NIX_STORE_DIR", "/s"), ("NIX_STATE_DIR", "/t")], "/s /r/nix/store /r/nix/var/nix"
    )]
    #[case::older_variable("local", &[("NIX_STORE", "/s")], "/s /s /nix/var/nix")]
    #[case::empty_variables("local", &[("NIX_STORE_DIR", ""), ("NIX_STATE_DIR", "")], SYSTEM)]
    fn directories_follow_from_parameters(
        #[case] uri: &str,
        #[case] variables: &[(&str, &str)],
        #[case] expected: &str,
    ) {
        let choice = choose(&user(variables), Some(uri), &[], &[]).unwrap();
        assert_eq!(shown(&choice), format!("local {expected}"));
    }

    #[rstest]
    #[case::root_or_single_user(&[], &["/nix/var/nix"], "local /nix/store /nix/store /nix/var/nix")]
    #[case::daemon(&["/nix/var/nix", SOCKET], &[], "daemon /nix/var/nix/daemon-socket/socket /nix/store /nix/store /nix/var/nix")]
    #[case::writable_beats_daemon(&["/nix/var/nix", SOCKET], &["/nix/var/nix"], "local /nix/store /nix/store /nix/var/nix")]
    #[case::no_daemon(&["/nix/var/nix"], &[], "local /nix/store /nix/store /nix/var/nix")]
    // NixOS/nix#6714, in Nix since 2.10: a plain user without /nix.
    #[case::no_nix_at_all(
        &[], &[],
        "local /nix/store /home/a/.local/share/nix/root/nix/store /home/a/.local/share/nix/root/nix/var/nix"
    )]
    fn auto_is_what_can_be_used(
        #[case] there: &[&'static str],
        #[case] writable: &[&'static str],
        #[case] expected: &str,
    ) {
        for store in [None, Some(""), Some("auto")] {
            assert_eq!(shown(&choose(&user(&[]), store, there, writable).unwrap()), expected);
        }
    }

    #[test]
    fn a_store_in_the_home_is_for_those_who_have_nothing_else() {
        let home = |environment: &Environment, store: Option<&str>| {
            shown(&choose(environment, store, &[], &[]).unwrap()).contains("/nix/root/nix/store")
        };
        assert!(home(&user(&[]), None));
        for (name, value) in [("NIX_STATE_DIR", "/t"), ("NIX_STORE_DIR", "/s"), ("NIX_STATE_DIR", "")] {
            assert!(!home(&user(&[(name, value)]), None), "{name}");
        }
        assert!(!home(&user(&[]), Some("auto?read-only=true")));
        let mut root = user(&[]);
        root.is_root = true;
        assert!(!home(&root, None));
        let mut darwin = user(&[]);
        darwin.os = Os::MacOs;
        assert!(!home(&darwin, None));
        let mut homeless = user(&[]);
        homeless.home = None;
        assert!(!home(&homeless, None));
        let elsewhere = choose(&user(&[("XDG_DATA_HOME", "/x")]), None, &[], &[]).unwrap();
        assert_eq!(shown(&elsewhere), "local /nix/store /x/nix/root/nix/store /x/nix/root/nix/var/nix");
        assert_eq!(
            elsewhere.to_string(),
            "the store is 'auto' (the default), which means the one in '/x/nix/root': \
             there is neither '/nix/var/nix' nor a daemon, so Nix uses '/x/nix/root'"
        );
    }

    #[rstest]
    // NixOS/nix#2375, #4923, #13152.
    #[case::socket("unix:///x/s", &[], "daemon /x/s /nix/store /nix/store /nix/var/nix")]
    #[case::usual_socket("unix://", &[], "daemon /nix/var/nix/daemon-socket/socket /nix/store /nix/store /nix/var/nix")]
    #[case::word("daemon", &[], "daemon /nix/var/nix/daemon-socket/socket /nix/store /nix/store /nix/var/nix")]
    #[case::variable("daemon", &[("NIX_DAEMON_SOCKET_PATH", "/v")], "daemon /v /nix/store /nix/store /nix/var/nix")]
    #[case::state("daemon", &[("NIX_STATE_DIR", "/t")], "daemon /t/daemon-socket/socket /nix/store /nix/store /t")]
    #[case::root("unix:///x/s?root=/r", &[], "daemon /x/s /nix/store /r/nix/store /r/nix/var/nix")]
    fn daemons_listen_somewhere(
        #[case] uri: &str,
        #[case] variables: &[(&str, &str)],
        #[case] expected: &str,
    ) {
        assert_eq!(shown(&choose(&user(variables), Some(uri), &[], &[]).unwrap()), expected);
        let by_variable = [variables, &[("NIX_REMOTE", uri)]].concat();
        assert_eq!(shown(&choose(&user(&by_variable), None, &[], &[]).unwrap()), expected);
    }

    #[test]
    fn settings_name_the_store_before_nix_remote_does() {
        let variables = [("NIX_REMOTE", "/remote"), ("NIX_CONFIG", "store = /conf")];
        let origin = |variables: &[(&str, &str)], store| {
            let choice = choose(&user(variables), store, &[], &[]).unwrap();
            (choice.reference.text, choice.origin)
        };
        assert_eq!(origin(&variables, Some("/given")), ("/given".to_owned(), Origin::CommandLine));
        assert_eq!(origin(&variables, None), ("/conf".to_owned(), Origin::Variable("NIX_CONFIG")));
        assert_eq!(origin(&variables[..1], None), ("/remote".to_owned(), Origin::Variable("NIX_REMOTE")));
        assert_eq!(origin(&[], None), ("auto".to_owned(), Origin::Default));
    }

    #[test]
    fn what_cannot_be_a_store_directory_says_who_named_it() {
        let error = choose(&user(&[("NIX_STORE_DIR", "/")]), None, &[], &[]).unwrap_err();
        assert_eq!(error.to_string(), "the environment variable NIX_STORE_DIR cannot be used");
        let error = choose(&user(&[]), Some("local?store=/a/../b"), &[], &[]).unwrap_err();
        assert!(matches!(error, SettingsError::StoreDirParameter { .. }));
    }

    #[test]
    fn other_machines_are_elsewhere() {
        for uri in ["ssh://h", "ssh-ng://h?compress=true", "https://cache.nixos.org"] {
            assert_eq!(shown(&choose(&user(&[]), Some(uri), &[], &[]).unwrap()), "elsewhere");
        }
    }
}
