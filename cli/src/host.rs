//! The other machine: which one is meant, how it is reached, and what is run there.

use std::{env, path::Path, path::PathBuf};

use ncc_remote_store::{Compress, Connections, Elevation, RemoteAccess, ServeProgram, Spoken};
use ncc_settings::{Parameters, StoreKind};
use ncc_store::{Side, StoreDir};
use ncc_transport::{Compression, HostArgument, PinnedHostKey, Rate, Scheme, Target};

use crate::{
    arguments::{Arguments, Ssh},
    environment::{is_on_path, variable},
    failure::Failure,
    machine::say_of_parameters,
};

/// A host, and the store on it.
pub(crate) struct Host {
    pub(crate) target: Target,
    /// How messages call it.
    pub(crate) name: String,
    pub(crate) way: Way,
    pub(crate) spoken: Spoken,
    pub(crate) program: ServeProgram,
    pub(crate) elevation: Elevation,
    pub(crate) access: RemoteAccess,
    /// Its URI there; `None` is the default store.
    pub(crate) store: Option<String>,
    /// Its logical store directory.
    pub(crate) store_dir: StoreDir,
    pub(crate) compress: Compress,
    pub(crate) connections: Connections,
    /// What may be used of the line.
    pub(crate) rate: Option<Rate>,
}

/// How a host is reached.
#[derive(Clone)]
pub(crate) enum Way {
    /// It is this machine: the program is started here.
    Here,
    /// Over SSH.
    Ssh(Connection),
}

/// What is known about a connection before it is made.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) implementation: Ssh,
    pub(crate) compression: Compression,
    pub(crate) key: Option<PathBuf>,
    pub(crate) host_key: Option<PinnedHostKey>,
    /// The words of NIX_SSHOPTS.
    pub(crate) options: Vec<std::ffi::OsString>,
    /// How talkative ssh is.
    #[cfg_attr(not(feature = "ssh"), expect(dead_code, reason = "libssh2 has no details to tell"))]
    pub(crate) verbosity: u8,
    /// More than one channel is going to be opened: nothing may be asked twice.
    #[cfg_attr(
        not(feature = "ssh"),
        expect(dead_code, reason = "libssh2 has all channels on one connection")
    )]
    pub(crate) several_channels: bool,
}

/// How a host was asked for.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// The host with its parameters.
    pub(crate) word: &'a str,
    /// Which end of the copy it is.
    pub(crate) side: Side,
    /// The other end is a host too.
    pub(crate) is_one_of_two: bool,
    /// The store directory of stores that name none.
    pub(crate) store_dir: &'a StoreDir,
}

impl Asked<'_> {
    /// An option and a parameter that say the same thing meet here: the option wins, unless it is for two hosts and the
    /// parameter for one.
    fn decide<T>(self, option: Option<T>, parameter: Option<T>) -> Option<T> {
        if self.is_one_of_two { parameter.or(option) } else { option.or(parameter) }
    }
}

impl Host {
    pub(crate) fn new(asked: Asked<'_>, arguments: &Arguments) -> Result<Self, Failure> {
        let word = asked.word;
        let (authority, query) = word.split_once('?').unwrap_or((word, ""));
        let (target, spoken) = target(word, authority)?;
        let refused = |error| Failure::new(format_args!("the parameters of the host '{word}'"), error);
        let parameters = &Parameters::parse(query).map_err(refused)?;
        say_of_parameters(parameters, &StoreKind::Ssh)?;
        let target = target.or_port(parameters.value("port").and_then(|port| port.parse().ok()));

        let value = |name: &str| parameters.value(name).map(str::to_owned);
        let stores = &arguments.stores;
        let program = asked.decide(stores.remote_program.clone(), value("remote-program"));
        let mut program = program.map_or(Ok(ServeProgram::Search), |program| serve_program(&program))?;
        let connection = Connection::new(asked, arguments, parameters)?;
        let compress = compress(arguments, &connection, spoken);
        let reason = connection.reason(arguments);
        let way = match reason {
            Some(reason) if target.is_localhost() => {
                tracing::info!("'localhost' is reached over ssh: {reason}");
                Way::Ssh(connection)
            }
            None if target.is_localhost() => {
                let searched = spoken == Spoken::AsFound && program == ServeProgram::Search;
                if searched && !["nix-store", "nix-daemon"].into_iter().any(is_on_path) {
                    program = ServeProgram::Named(own_program()?);
                }
                Way::Here
            }
            _ => Way::Ssh(connection),
        };
        let store_dir = value("store").map(|text| StoreDir::new(&text)).transpose();
        let look = arguments.what.dry_run;
        Ok(Self {
            name: target.to_string(),
            way,
            spoken,
            program,
            elevation: if stores.remote_sudo { Elevation::Sudo } else { Elevation::None },
            access: if look { RemoteAccess::ReadOnly } else { RemoteAccess::ReadWrite },
            store: asked.decide(stores.remote_store.clone(), value("remote-store")),
            store_dir: store_dir
                .map_err(|error| Failure::new("the host's parameter 'store' is no store directory", error))?
                .unwrap_or_else(|| asked.store_dir.clone()),
            compress,
            connections: connections(arguments, spoken),
            rate: arguments.how.bwlimit.0,
            target,
        })
    }
}

impl Host {
    /// Whether what is started there is known to run as root without any elevation.
    pub(crate) fn logs_in_as_root(&self) -> bool {
        match self.way {
            Way::Here => rustix::process::geteuid().is_root(),
            Way::Ssh(_) => self.target.user() == Some("root"),
        }
    }

    /// Whether somebody may be asked something on the way there.
    pub(crate) fn asks(&self) -> bool {
        matches!(self.way, Way::Ssh(_))
    }
}

impl Connection {
    fn new(asked: Asked<'_>, arguments: &Arguments, parameters: &Parameters) -> Result<Self, Failure> {
        let how = &arguments.how;
        let host_key = parameters.value("base64-ssh-public-host-key").unwrap_or_default();
        let host_key = PinnedHostKey::from_base64(host_key).map_err(|error| {
            Failure::new("the host's parameter 'base64-ssh-public-host-key' cannot be used", error)
        })?;
        let options = variable("NIX_SSHOPTS").unwrap_or_default();
        let options = ncc_transport::parse_ssh_options(&options).map_err(|error| Failure::plain(&error))?;
        let compress = (how.gzip || how.bzip2 || how.xz).then_some(true);
        let compress = asked.decide(compress, parameters.switch("compress")).unwrap_or(false);
        Ok(Self {
            implementation: how.transport.unwrap_or_default(),
            compression: if compress { Compression::On } else { Compression::AsConfigured },
            key: parameters.value("ssh-key").map(PathBuf::from),
            host_key,
            options,
            verbosity: arguments.verbosity(),
            // What would be substituted is a question of its own, as is what a daemon's closure is; a root is made by a program of
            // its own; and what is compressed, or spread over channels, has a session to itself.
            several_channels: match asked.side {
                Side::Source => true,
                Side::Destination if arguments.what.dry_run => how.use_substitutes,
                Side::Destination => {
                    how.compress != Compress::None
                        || how.connections != Connections::Most(1)
                        || arguments.keep.is_given()
                }
            },
        })
    }

    /// Why even `localhost` is to be reached over ssh: it is a forwarded port, a container, or a test.
    fn reason(&self, arguments: &Arguments) -> Option<&'static str> {
        if arguments.how.transport.is_some() {
            Some("'--transport' is given")
        } else if self.key.is_some() {
            Some("the host has the parameter 'ssh-key'")
        } else if self.host_key.is_some() {
            Some("the host has the parameter 'base64-ssh-public-host-key'")
        } else if !self.options.is_empty() {
            Some("NIX_SSHOPTS is set")
        } else {
            None
        }
    }
}

/// The host without its parameters.
fn target(word: &str, authority: &str) -> Result<(Target, Spoken), Failure> {
    let argument: HostArgument = authority.parse().map_err(|error| {
        let failure = Failure::new(format_args!("'{word}' cannot be used as HOST"), error);
        if word.contains("/nix/store/") || word.starts_with(['/', '.', '@']) {
            failure.hint("the host comes first: nix-copy-closure HOST PATH...")
        } else {
            failure
        }
    })?;
    let spoken = if argument.scheme == Some(Scheme::SshNg) { Spoken::Daemon } else { Spoken::AsFound };
    Ok((argument.target, spoken))
}

/// How what is copied is compressed, beside what SSH does.
fn compress(arguments: &Arguments, connection: &Connection, spoken: Spoken) -> Compress {
    match arguments.how.compress {
        Compress::None => Compress::None,
        Compress::Auto if connection.compression == Compression::On => {
            tracing::info!("paths are not compressed: SSH compresses the connection");
            Compress::None
        }
        wanted if spoken == Spoken::Daemon => {
            // The daemon's answers are waited for in the middle, and a filter on the way prints late.
            let why = "paths are not compressed: the protocol of 'ssh-ng' leaves no room for it";
            if wanted == Compress::Auto {
                tracing::info!("{why}");
            } else {
                tracing::warn!("{why}; '--gzip' compresses the connection");
            }
            Compress::None
        }
        wanted => wanted,
    }
}

/// Over how many channels what is copied goes.
fn connections(arguments: &Arguments, spoken: Spoken) -> Connections {
    let wanted = arguments.how.connections;
    if spoken == Spoken::Daemon && wanted != Connections::Most(1) {
        let why = "paths take one channel: the protocol of 'ssh-ng' leaves no room for more";
        if wanted == Connections::Auto {
            tracing::info!("{why}");
        } else {
            tracing::warn!("{why}");
        }
        return Connections::Most(1);
    }
    wanted
}

/// A program, perhaps with arguments: upstream hands the text to a shell.
fn serve_program(text: &str) -> Result<ServeProgram, Failure> {
    let mut words = shell_words::split(text)
        .map_err(|error| Failure::new(format_args!("the program '{text}' cannot be run"), error))?;
    Ok(match words.pop() {
        None => return Err(Failure::text("the name of the program to run on the host is empty")),
        Some(word) if words.is_empty() => ServeProgram::Named(word),
        Some(word) => {
            words.push(word);
            ServeProgram::Words(words)
        }
    })
}

/// What serves on `localhost` where there is no Nix: this very program.
fn own_program() -> Result<String, Failure> {
    let own = env::current_exe().map_err(|error| Failure::new("this program cannot find itself", error))?;
    own.into_os_string().into_string().map_err(|path| {
        Failure::text(format!("the path of this program, '{}', is not UTF-8", Path::new(&path).display()))
    })
}
