//! The names of a closure in one answer, which the daemon's protocol has no question for: `nix-store --query --requisites`, in
//! a channel of its own.
//!
//! What it says is a hint, and saves waiting: whoever asks the daemon for the metadata of a path, and then for that of its references,
//! waits for a round trip per level of the graph.

use std::{sync::Arc, time::Duration};

use ncc_store::{StoreDir, StorePath};
use ncc_transport::{RemoteCommand, Transport};
use tokio::task::JoinSet;

use crate::{options::NIX_STORE, run::Run};

/// How much of a list is taken: the names of more than half a million paths.
const LONGEST_LIST: u64 = 64 << 20;

/// What lists closures on a host.
pub(crate) struct Requisites {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) command: RemoteCommand,
    pub(crate) stall_timeout: Option<Duration>,
}

/// A list that is being made; dropped, it is not any more.
pub(crate) struct Listing(JoinSet<Vec<StorePath>>);

impl Requisites {
    /// Has the closure of these paths listed, in a task of its own.
    pub(crate) fn list(&self, store_dir: &StoreDir, roots: &[StorePath]) -> Listing {
        let question: String = roots.iter().map(|root| store_dir.full(root) + "\n").collect();
        let (transport, command) = (Arc::clone(&self.transport), self.command.clone());
        let (stall_timeout, store_dir) = (self.stall_timeout, store_dir.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let run = Run {
                command: &command,
                program: NIX_STORE,
                stall_timeout,
                stderr: None,
                most: LONGEST_LIST,
            };
            match run.finish(&*transport, question.as_bytes()).await {
                Ok(Ok(list)) => paths_in(&list, &store_dir),
                Ok(Err(why)) => {
                    tracing::debug!(%why, "the host does not list the closure");
                    Vec::new()
                }
                Err(error) => {
                    tracing::debug!(%error, "the host cannot be asked to list the closure");
                    Vec::new()
                }
            }
        });
        Listing(tasks)
    }
}

impl Listing {
    /// The list, once, as soon as it is there.
    pub(crate) fn take(&mut self) -> Option<Vec<StorePath>> {
        self.0.try_join_next()?.ok()
    }
}

/// The lines that are paths. What else a login shell prints is none.
fn paths_in(list: &[u8], store_dir: &StoreDir) -> Vec<StorePath> {
    let lines = list.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    lines.filter_map(|line| store_dir.parse(line).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_count() {
        let list =
            b"Welcome!\n/nix/store/ab3li50xq0nl4q5lxdyinb8w8y13my9s-fetched\n\xff\n/nix/store/short\n/nix/st";
        let paths = paths_in(list, &StoreDir::default());
        assert_eq!(paths.iter().map(StorePath::name).collect::<Vec<_>>(), ["fetched"]);
    }
}
