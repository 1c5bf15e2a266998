//! OpenSSH against a real sshd on loopback: the conformance suite, and what only ssh does.

mod failures;
mod pins;
mod sessions;

use ncc_transport::conformance::Case;
use ncc_transport_ssh::{
    OpenSsh,
    test_util::{Sshd, install_stock_ssh_configs},
};

async fn with_sshd(case: Case) {
    let Some(sshd) = Sshd::start(&[]) else { return };
    case(&sshd.transport()).await;
}

ncc_transport::conformance_tests!(with_sshd);

/// What systems are delivered with does not keep ssh from a host, nor this crate from understanding what ssh says of it.
#[tokio::test]
async fn every_stock_configuration_reaches_a_host() {
    use ncc_transport::{Exit, RemoteCommand, StderrTail, Transport as _};

    let Some(sshd) = Sshd::start(&[]) else { return };
    for (system, path) in install_stock_ssh_configs(&sshd.directory().join("systems")) {
        let mut options = sshd.options();
        let at = options.extra.iter().position(|word| word == "none").unwrap();
        options.extra[at] = path.into();
        // A name that only Red Hat's ssh has.
        options.extra.extend(["-o", "IgnoreUnknown=RSAMinSize"].map(Into::into));
        let transport = OpenSsh::new(sshd.target(), options);
        let mut channel = transport.open(&RemoteCommand::new("true")).await.unwrap();
        let mut stderr = StderrTail::collect(channel.stderr, None);
        drop(channel.stdin);
        let exit = channel.control.wait().await.unwrap();
        assert_eq!(exit, Exit::Code(0), "{system}: {}", stderr.finish().await);
    }
}
