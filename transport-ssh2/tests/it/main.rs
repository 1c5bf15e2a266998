//! libssh2 against a real sshd on loopback: the conformance suite, and what only this transport does.

use ncc_transport::conformance::Case;
use ncc_transport_ssh::test_util::Sshd;
use ncc_transport_ssh2::{Ssh2, Ssh2Options};

/// Options with which the server is reached, and nothing of the user's own interferes.
fn options(sshd: &Sshd) -> Ssh2Options {
    let mut options = Ssh2Options::default();
    options.extra = sshd.ssh_words().into_iter().map(Into::into).collect();
    options
}

async fn with_sshd(case: Case) {
    let Some(sshd) = Sshd::start(&[]) else { return };
    case(&Ssh2::new(sshd.target(), options(&sshd))).await;
}

ncc_transport::conformance_tests!(with_sshd);
