//! Why a copy is not complete.

use std::collections::HashSet;

use ncc_closure::GraphError;
use ncc_store::{StoreDir, StoreError, StorePath};

use crate::{Report, Unsigned};

/// Why a copy is not complete. Everything that was registered until then stays, and is not sent again next time.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// A store failed before anything was sent.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The two stores have different logical store directories, which are part of every path.
    #[error(
        "{source_name} has the store directory '{source_dir}', but {destination_name} has '{destination_dir}'"
    )]
    StoreDirs {
        /// The source's name.
        source_name: String,
        /// Its store directory.
        source_dir: StoreDir,
        /// The destination's name.
        destination_name: String,
        /// Its store directory.
        destination_dir: StoreDir,
    },
    /// The source's metadata contradicts itself.
    #[error("{store} describes references that cannot be")]
    Graph {
        /// The source's name.
        store: String,
        /// What is wrong with them.
        #[source]
        source: GraphError,
    },
    /// Paths lack a signature, and nothing was sent.
    #[error("nothing is copied: {0}")]
    Unsigned(Unsigned),
    /// All that is to be sent does not fit, and nothing was.
    #[error(
        "nothing is copied: {store} has room for {} MiB, and what is to be sent takes {} MiB",
        .free >> 20, .needed.div_ceil(1 << 20)
    )]
    NoSpace {
        /// The destination's name.
        store: String,
        /// Bytes of the NARs.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// It failed on the way.
    #[error("copying stopped after {} of {} paths", report.sent.count(), report.sent.count() + report.unsent.count())]
    Interrupted {
        /// What had been done until then.
        report: Box<Report>,
        /// Why it went no further.
        #[source]
        source: StoreError,
    },
    /// Paths could not be copied, one by one.
    #[error("{}", failed(report))]
    Failed {
        /// What had been done, and what failed with which error.
        report: Box<Report>,
    },
    /// All went well by all accounts, and yet a root is not valid at the destination.
    #[error("{store} has no valid path '{path}' after the copy")]
    RootMissing {
        /// The destination's name.
        store: String,
        /// The full path.
        path: String,
        /// What had been done.
        report: Box<Report>,
    },
}

fn failed(report: &Report) -> String {
    let failed = report.failed.len();
    let unsent: HashSet<&StorePath> = report.unsent.iter().map(|info| &info.path).collect();
    // Some cannot even be described by the source.
    let unknown = report.failed.iter().filter(|failed| !unsent.contains(&failed.path)).count();
    let total = report.sent.count() + report.unsent.count() + unknown;
    let text = format!("{failed} of {total} paths could not be copied");
    match (report.unsent.count() + unknown).saturating_sub(failed) {
        0 => text,
        1 => format!("{text}, and 1 was not tried"),
        others => format!("{text}, and {others} were not tried"),
    }
}
