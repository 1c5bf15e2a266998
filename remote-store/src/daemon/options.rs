//! How a daemon is talked to.

use std::{sync::Arc, time::Duration};

use ncc_store::StoreDir;
use ncc_transport::LineSink;

use crate::STALL_TIMEOUT;

/// What there is to say to a daemon on this machine. Fields may be added.
#[derive(Clone)]
#[non_exhaustive]
pub struct DaemonOptions {
    /// The logical store directory, which both sides must share.
    pub store_dir: StoreDir,
    /// Is handed each line that the daemon, or what leads to it, says for people.
    pub stderr: Option<LineSink>,
    /// Is called when the handshake is done: nothing is asked any more.
    pub greeted: Option<Arc<dyn Fn() + Send + Sync>>,
    /// The daemon takes only paths that are content-addressed or signed by a key that it trusts, also from a user whom it
    /// trusts. (From others it never takes anything else.)
    pub check_signatures: bool,
    /// As [`ServeOptions::stall_timeout`](crate::ServeOptions::stall_timeout).
    pub stall_timeout: Option<Duration>,
}

impl Default for DaemonOptions {
    fn default() -> Self {
        Self {
            store_dir: StoreDir::default(),
            stderr: None,
            greeted: None,
            check_signatures: false,
            stall_timeout: Some(STALL_TIMEOUT),
        }
    }
}

impl std::fmt::Debug for DaemonOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("DaemonOptions")
            .field("store_dir", &self.store_dir)
            .field("stall_timeout", &self.stall_timeout)
            .finish_non_exhaustive()
    }
}
