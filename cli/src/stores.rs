//! Which store is which: the one on this machine, and the one on the host.

use std::{
    env,
    path::{Path, PathBuf},
    sync::Arc,
};

use ncc_local_store::{Defaults, LocalStoreConfig};
use ncc_progress::Progress;
use ncc_remote_store::{Elevation, RemoteAccess, RemoteStore, ServeOptions, ServeProgram};
use ncc_store::StoreDir;
use ncc_transport::{HostArgument, LocalProcess, TargetParams, Transport};

use crate::{
    arguments::Arguments,
    environment::variable,
    failure::Failure,
    ssh::{self, HostKey},
    wire::{Counted, Counter},
};

/// Where the local store lies: `--store`, else the setting `store`, else `NIX_REMOTE`, else the system's.
pub(crate) fn local_config(arguments: &Arguments) -> Result<LocalStoreConfig, Failure> {
    let mut defaults = Defaults::default();
    if let Some(text) = variable("NIX_STORE_DIR").or_else(|| variable("NIX_STORE")) {
        let store_dir =
            StoreDir::new(&text).map_err(|error| Failure::new("NIX_STORE_DIR cannot be used", error))?;
        defaults = defaults.with_store_dir(store_dir);
    }
    if let Some(text) = variable("NIX_STATE_DIR") {
        defaults = defaults.with_state_dir(PathBuf::from(text));
    }
    let (uri, origin) = local_store(arguments);
    let uri = uri.unwrap_or_default();
    LocalStoreConfig::from_uri_with(&uri, &defaults)
        .map_err(|error| Failure::new(format_args!("the store '{uri}' ({origin}) cannot be opened"), error))
}

/// The URI of the local store, if something names one other than the default.
pub(crate) fn local_uri(arguments: &Arguments) -> Option<String> {
    local_store(arguments).0
}

/// The same, and what names it.
fn local_store(arguments: &Arguments) -> (Option<String>, &'static str) {
    let option = arguments.settings.iter().rev().find(|(name, _)| name == "store");
    let (uri, origin) = if let Some(uri) = &arguments.stores.store {
        (uri.clone(), "--store")
    } else if let Some((_, uri)) = option {
        (uri.clone(), "--option store")
    } else if let Some(uri) = configured_store() {
        (uri, "NIX_CONFIG")
    } else {
        (variable("NIX_REMOTE").unwrap_or_default(), "NIX_REMOTE")
    };
    // The daemon's store is the one on this disk, which every user may read.
    (Some(uri).filter(|uri| !matches!(uri.as_str(), "" | "auto" | "daemon" | "unix://")), origin)
}

/// The last `store = URI` in NIX_CONFIG, which has the form of nix.conf.
fn configured_store() -> Option<String> {
    let text = variable("NIX_CONFIG")?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let mut settings = lines.filter_map(|line| line.split_once('='));
    settings.rfind(|(name, _)| name.trim() == "store").map(|(_, uri)| uri.trim().to_owned())
}

/// The host's parameters, from `HOST?key=value` and the options that mean the same; the options win.
struct Parameters {
    store: Option<String>,
    program: Option<String>,
    compress: bool,
    key: Option<PathBuf>,
    host_key: Option<String>,
}

impl Parameters {
    fn new(arguments: &Arguments, params: &TargetParams) -> Result<Self, Failure> {
        let mut parameters = Self {
            store: arguments.stores.remote_store.clone(),
            program: arguments.stores.remote_program.clone(),
            compress: compress(arguments),
            key: None,
            host_key: None,
        };
        for (key, value) in params.iter() {
            let value = value.to_owned();
            match key {
                "remote-store" => parameters.store = parameters.store.or(Some(value)),
                "remote-program" => parameters.program = parameters.program.or(Some(value)),
                "compress" => parameters.compress |= boolean(key, &value)?,
                "ssh-key" => parameters.key = Some(value.into()),
                "base64-ssh-public-host-key" => parameters.host_key = Some(value),
                // One connection is all that is made: it carries everything at once. The others say what stores are worth.
                "max-connections"
                | "path-info-cache-size"
                | "priority"
                | "system-features"
                | "trusted"
                | "want-mass-query"
                | "log-fd" => {
                    tracing::info!("the host's parameter '{key}' has no effect");
                }
                other => {
                    return Err(Failure::text(format!(
                        "the host has a parameter '{other}', which is not known"
                    ))
                    .hint(
                        "known are: base64-ssh-public-host-key, compress, max-connections, remote-program, \
                         remote-store, ssh-key",
                    ));
                }
            }
        }
        Ok(parameters)
    }
}

/// As Nix reads one.
fn boolean(key: &str, value: &str) -> Result<bool, Failure> {
    match value {
        "true" | "yes" | "1" => Ok(true),
        "false" | "no" | "0" => Ok(false),
        _ => Err(Failure::text(format!("the host's parameter '{key}' is '{value}', neither true nor false"))),
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

/// How a host is called in messages, whatever parameters came with its name.
pub(crate) fn host_argument(host: &str) -> Result<HostArgument, Failure> {
    host.parse().map_err(|error| {
        let failure = Failure::new(format_args!("'{host}' is no host to copy to or from"), error);
        if host.contains("/nix/store/") || host.starts_with(['/', '.', '@']) {
            failure.hint("the host comes first: nix-copy-closure HOST PATH...")
        } else {
            failure
        }
    })
}

/// The store on the host. Nothing is started yet.
pub(crate) fn remote(
    arguments: &Arguments,
    argument: HostArgument,
    store_dir: &StoreDir,
    progress: &Progress,
) -> Result<Remote, Failure> {
    let parameters = Parameters::new(arguments, &argument.params)?;
    let mut options = ServeOptions::default();
    options.store_dir = store_dir.clone();
    options.store.clone_from(&parameters.store);
    options.stderr = Some(progress.host_line());
    options.greeted = Some(progress.greeted());
    options.stall_timeout = arguments.how.stall_timeout();
    if let Some(program) = &parameters.program {
        options.program = serve_program(program)?;
    }
    if arguments.stores.remote_sudo {
        options.elevation = Elevation::Sudo;
    }
    if arguments.what.dry_run {
        options.access = RemoteAccess::ReadOnly;
    }
    let host_key = parameters.host_key.map(|key| HostKey::write(&argument.target, &key)).transpose()?;
    let transport: Arc<dyn Transport> = if argument.target.is_localhost() {
        if options.program == ServeProgram::Search && !is_on_path("nix-store") {
            options.program = ServeProgram::Named(own_program()?);
        }
        Arc::new(LocalProcess::new())
    } else {
        let connection = ssh::Connection {
            target: argument.target,
            verbosity: arguments.verbosity(),
            compress: parameters.compress,
            key: parameters.key,
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
