//! The transport that leads to a host.

use std::sync::Arc;

use ncc_transport::{LocalProcess, Target, Transport};

use crate::{
    arguments::Ssh,
    failure::Failure,
    host::{Connection, Way},
};

/// The transport. A further one is one more line here.
pub(crate) fn transport(target: Target, way: Way) -> Result<Arc<dyn Transport>, Failure> {
    match way {
        Way::Here => Ok(Arc::new(LocalProcess::new())),
        Way::Ssh(connection) => match connection.implementation {
            Ssh::Openssh => openssh(target, connection),
            Ssh::Libssh2 => libssh2(target, connection),
        },
    }
}

#[cfg(feature = "ssh")]
#[expect(clippy::unnecessary_wraps, reason = "as its namesake")]
fn openssh(target: Target, connection: Connection) -> Result<Arc<dyn Transport>, Failure> {
    use ncc_transport_ssh::{OpenSsh, OpenSshOptions, Sharing};

    let mut options = OpenSshOptions::default();
    options.extra = connection.options;
    options.compression = connection.compression;
    options.host_key = connection.host_key;
    options.identity_file = connection.key;
    if connection.several_channels {
        options.sharing = Sharing::Private;
    }
    // As upstream: ssh itself becomes talkative at four.
    options.verbosity = connection.verbosity.saturating_sub(3);
    Ok(Arc::new(OpenSsh::new(target, options)))
}

#[cfg(not(feature = "ssh"))]
fn openssh(_: Target, _: Connection) -> Result<Arc<dyn Transport>, Failure> {
    Err(Failure::text("this program was built without OpenSSH as a transport (feature 'ssh')"))
}

#[cfg(feature = "ssh2")]
#[expect(clippy::unnecessary_wraps, reason = "as its namesake")]
fn libssh2(target: Target, connection: Connection) -> Result<Arc<dyn Transport>, Failure> {
    use ncc_transport_ssh2::{Ssh2, Ssh2Options};

    let mut options = Ssh2Options::default();
    options.extra = connection.options;
    options.compression = connection.compression;
    options.pinned_host_key = connection.host_key;
    options.identity_file = connection.key;
    Ok(Arc::new(Ssh2::new(target, options)))
}

#[cfg(not(feature = "ssh2"))]
fn libssh2(_: Target, _: Connection) -> Result<Arc<dyn Transport>, Failure> {
    Err(Failure::text("this program was built without libssh2 as a transport")
        .hint("build it with 'cargo install --path cli --features ssh2'"))
}

/// Gives the terminal back, if somebody is being asked for a secret on it, before this process dies of a signal. OpenSSH's
/// program does that itself.
pub(crate) fn release_terminal() {
    #[cfg(feature = "ssh2")]
    ncc_transport_ssh2::TerminalPrompter::release_terminal();
}
