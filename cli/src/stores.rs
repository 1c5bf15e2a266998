//! The store on the host.

use std::{
    env,
    path::{Path, PathBuf},
    sync::Arc,
};

use ncc_progress::Progress;
use ncc_remote_store::{Elevation, RemoteAccess, RemoteStore, ServeOptions, ServeProgram};
use ncc_settings::{Parameters, StoreKind};
use ncc_store::StoreDir;
use ncc_transport::{HostArgument, LocalProcess, Scheme, Target, Transport};

use crate::{
    arguments::Arguments,
    failure::Failure,
    machine::say_of_parameters,
    ssh::{self, HostKey},
    wire::{Counted, Counter},
};

/// What the words for a host say.
pub(crate) struct Host {
    pub(crate) target: Target,
    parameters: Parameters,
}

impl Host {
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let (address, query) = text.split_once('?').unwrap_or((text, ""));
        let argument: HostArgument = address.parse().map_err(|error| {
            let failure = Failure::new(format_args!("'{text}' is no host to copy to or from"), error);
            if text.contains("/nix/store/") || text.starts_with(['/', '.', '@']) {
                failure.hint("the host comes first: nix-copy-closure HOST PATH...")
            } else {
                failure
            }
        })?;
        if argument.scheme == Some(Scheme::SshNg) {
            // The other protocol would be worse than none: it lets a trusted user add paths without signatures, which
            // whoever writes 'ssh-ng' expects to be checked.
            return Err(Failure::text(format!(
                "'{text}' asks for the protocol of the Nix daemon, which this program does not speak"
            ))
            .hint(format!(
                "'ssh://{}' copies through 'nix-store --serve', which does not ask for signatures",
                argument.target
            )));
        }
        let parameters = Parameters::parse(query)
            .map_err(|error| Failure::new(format_args!("the parameters of the host '{text}'"), error))?;
        say_of_parameters(&parameters, &StoreKind::Ssh)?;
        let port = parameters.value("port").and_then(|port| port.parse().ok());
        let target = argument.target.or_port(port);
        Ok(Self { target, parameters })
    }
}

fn compress(arguments: &Arguments) -> bool {
    for (given, name) in [(arguments.how.bzip2, "--bzip2"), (arguments.how.xz, "--xz")] {
        if given {
            tracing::warn!("'{name}' is obsolete and means '--gzip'");
        }
    }
    arguments.how.gzip || arguments.how.bzip2 || arguments.how.xz
}

/// The other side.
pub(crate) struct Remote {
    pub(crate) store: RemoteStore,
    /// What goes over the wire.
    pub(crate) counter: Counter,
    /// Must live as long as connections are made.
    _host_key: Option<HostKey>,
}

/// The store on the host. Nothing is started yet.
pub(crate) fn remote(
    arguments: &Arguments,
    host: Host,
    store_dir: &StoreDir,
    progress: &Progress,
) -> Result<Remote, Failure> {
    let Host { target, parameters } = host;
    let value = |name| parameters.value(name).map(str::to_owned);
    let compress = compress(arguments) || parameters.switch("compress").unwrap_or(false);
    let mut options = ServeOptions::default();
    options.store_dir = match parameters.value("store") {
        Some(text) => {
            StoreDir::new(text).map_err(|error| Failure::new("the host's parameter 'store'", error))?
        }
        None => store_dir.clone(),
    };
    options.store = arguments.stores.remote_store.clone().or_else(|| value("remote-store"));
    options.stderr = Some(progress.host_line());
    options.greeted = Some(progress.greeted());
    options.stall_timeout = arguments.how.stall_timeout();
    if let Some(program) = &arguments.stores.remote_program.clone().or_else(|| value("remote-program")) {
        options.program = serve_program(program)?;
    }
    if arguments.stores.remote_sudo {
        options.elevation = Elevation::Sudo;
    }
    if arguments.what.dry_run {
        options.access = RemoteAccess::ReadOnly;
    }
    let host_key =
        value("base64-ssh-public-host-key").map(|key| HostKey::write(&target, &key)).transpose()?;
    let transport: Arc<dyn Transport> = if target.is_localhost() {
        if options.program == ServeProgram::Search && !is_on_path("nix-store") {
            options.program = ServeProgram::Named(own_program()?);
        }
        Arc::new(LocalProcess::new())
    } else {
        let connection = ssh::Connection {
            target,
            verbosity: arguments.verbosity(),
            compress,
            key: value("ssh-key").map(PathBuf::from),
            host_key: host_key.as_ref(),
            // What would be substituted is a question of its own.
            several_channels: arguments.what.dry_run && arguments.how.use_substitutes && !arguments.what.from,
        };
        connection.transport(arguments.how.transport.unwrap_or_default())?
    };
    let counter = Counter::default();
    let transport = Arc::new(Counted::new(transport, counter.clone()));
    Ok(Remote { store: RemoteStore::new(transport, options), counter, _host_key: host_key })
}

/// A program, perhaps with arguments: upstream hands the text to a shell.
fn serve_program(text: &str) -> Result<ServeProgram, Failure> {
    let mut words = shell_words::split(text)
        .map_err(|error| Failure::new(format_args!("the program '{text}' cannot be run"), error))?;
    Ok(match words.pop() {
        None => return Err(Failure::text("the program to run on the host has no name")),
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

/// Whether a program is there to be run on this machine.
pub(crate) fn is_on_path(program: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|directory| directory.join(program).is_file()))
}
