//! OpenSSH against a real sshd on loopback: the conformance suite, and what only ssh does.

mod failures;
mod pins;
mod sessions;

use ncc_transport::conformance::Case;
use ncc_transport_ssh::test_util::Sshd;

async fn with_sshd(case: Case) {
    let Some(sshd) = Sshd::start(&[]) else { return };
    case(&sshd.transport()).await;
}

ncc_transport::conformance_tests!(with_sshd);
