//! The local process against the conformance suite, and what only a process on this machine can show.

mod process;

use ncc_transport::{LocalProcess, conformance::Case};

async fn with_local_process(case: Case) {
    case(&LocalProcess::new()).await;
}

ncc_transport::conformance_tests!(with_local_process);
