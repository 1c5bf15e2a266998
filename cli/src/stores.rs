//! Which store is which: the one on this machine, and the one on the host.

use std::{
    env,
    path::{Path, PathBuf},
    sync::Arc,
};

use ncc_local_store::{Defaults, LocalStoreConfig};
use ncc_remote_store::{RemoteStore, ServeOptions};
use ncc_store::StoreDir;
use ncc_transport::{HostArgument, LineSink, LocalProcess, Target, Transport};
use ncc_transport_ssh::{OpenSsh, OpenSshOptions, parse_ssh_options};

use crate::{arguments::Arguments, failure::Failure};

/// A variable of the environment, if it says anything.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where the local store lies: `--store`, else `NIX_REMOTE`, else the system's.
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
    let (uri, origin) = match &arguments.store {
        Some(uri) => (uri.clone(), "--store"),
        None => (variable("NIX_REMOTE").unwrap_or_default(), "NIX_REMOTE"),
    };
    LocalStoreConfig::from_uri_with(&uri, &defaults)
        .map_err(|error| Failure::new(format_args!("the store '{uri}' ({origin}) cannot be opened"), error))
}

/// The other side, and how it is called in messages.
pub(crate) struct Remote {
    pub(crate) store: RemoteStore,
    pub(crate) host: String,
}

/// The store on the host. Nothing is started yet.
pub(crate) fn remote(arguments: &Arguments, host: &str, store_dir: &StoreDir) -> Result<Remote, Failure> {
    let argument: HostArgument = host
        .parse()
        .map_err(|error| Failure::new(format_args!("'{host}' is no host to copy to or from"), error))?;
    if let Some((key, _)) = argument.params.iter().next() {
        return Err(Failure::text(format!("the parameter '{key}' in '{host}' is not supported"))
            .hint("'--remote-store' and '--remote-program' say what Nix's store parameters say"));
    }
    let mut options = ServeOptions::default();
    options.store_dir = store_dir.clone();
    options.store = arguments.remote_store.clone();
    options.stderr = Some(show_line(host, arguments.verbose > 0));
    let transport: Arc<dyn Transport> = if argument.target.is_localhost() {
        (options.program, options.program_arguments) = local_program(arguments)?;
        Arc::new(LocalProcess::new())
    } else {
        if let Some(program) = &arguments.remote_program {
            options.program.clone_from(program);
        }
        Arc::new(ssh(argument.target, arguments.verbose)?)
    };
    Ok(Remote { store: RemoteStore::new(transport, options), host: host.to_owned() })
}

/// What `localhost` runs: the program that was asked for, else `nix-store`, else this very program.
fn local_program(arguments: &Arguments) -> Result<(String, Vec<String>), Failure> {
    if let Some(program) = &arguments.remote_program {
        return Ok((program.clone(), Vec::new()));
    }
    if is_on_path("nix-store") {
        return Ok(("nix-store".to_owned(), Vec::new()));
    }
    let own = env::current_exe().map_err(|error| Failure::new("this program cannot find itself", error))?;
    let own = own.into_os_string().into_string().map_err(|path| {
        Failure::text(format!("the path of this program, '{}', is not UTF-8", Path::new(&path).display()))
    })?;
    Ok((own, Vec::new()))
}

fn is_on_path(program: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|directory| directory.join(program).is_file()))
}

fn ssh(target: Target, verbosity: u8) -> Result<OpenSsh, Failure> {
    let mut options = OpenSshOptions::default();
    if let Some(text) = variable("NIX_SSHOPTS") {
        options.extra = parse_ssh_options(&text).map_err(|error| Failure::plain(&error))?;
    }
    // As upstream: ssh itself becomes talkative at four.
    options.verbosity = verbosity.saturating_sub(3);
    Ok(OpenSsh::new(target, options))
}

/// Shows what the host writes to stderr while it is connected. Errors are left to the message at the end, which
/// quotes them, unless everything is wanted.
fn show_line(host: &str, everything: bool) -> LineSink {
    let host = host.to_owned();
    Arc::new(move |line: &str| {
        if everything || !line.trim_start().starts_with("error:") {
            eprintln!("{host}: {line}");
        }
    })
}
