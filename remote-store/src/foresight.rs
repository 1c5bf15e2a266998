//! What a host would substitute: a question that the serve protocol does not have.
//!
//! `nix-store --realise --dry-run` answers it, in words for people that have not changed since Nix 2.3, in a channel of its
//! own. Nothing depends on it but what a dry run shows: a host that does not answer is one that cannot tell.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use ncc_store::{StoreDir, StorePath};
use ncc_transport::{LineSink, RemoteCommand, TransportError, throttled};

use crate::{
    options::NIX_STORE,
    run::{NOTHING, Run},
    store::Shared,
};

/// Those of `paths` that the host's substituters have; `None` if it cannot tell.
pub(crate) async fn substitutable(shared: &Shared, paths: &[StorePath]) -> Option<BTreeSet<StorePath>> {
    let command = shared.options.foresight_command()?;
    match ask(shared, &command, paths).await {
        Ok(Ok(found)) => return Some(found),
        Ok(Err(why)) => tracing::warn!("{} could not say what it would substitute: {why}", shared.name),
        Err(error) => tracing::warn!(%error, "{} could not be asked what it would substitute", shared.name),
    }
    None
}

/// The inner `Err` says why there is no answer.
async fn ask(
    shared: &Shared,
    command: &RemoteCommand,
    paths: &[StorePath],
) -> Result<Result<BTreeSet<StorePath>, String>, TransportError> {
    let store_dir = shared.store_dir();
    tracing::debug!(host = shared.transport.describe(), %command, "asking what would be substituted");
    let listing = Arc::new(Mutex::new(Listing::new(store_dir.clone(), paths)));
    let question: String = paths.iter().map(|path| store_dir.full(path) + "\n").collect();
    let run = Run {
        command,
        program: shared.options.program.name(NIX_STORE),
        stall_timeout: shared.options.stall_timeout,
        stderr: Some(listen(&listing, shared.options.stderr.clone().map(throttled))),
        most: NOTHING,
    };
    let ended = run.finish(&*shared.transport, question.as_bytes()).await?;
    Ok(ended.map(|_| std::mem::take(&mut listing.lock().unwrap_or_else(PoisonError::into_inner).found)))
}

/// Takes the lines of the listing; what else the host says goes on to `others`.
fn listen(listing: &Arc<Mutex<Listing>>, others: Option<LineSink>) -> LineSink {
    let listing = Arc::clone(listing);
    Arc::new(move |line| {
        let taken = listing.lock().unwrap_or_else(PoisonError::into_inner).take(line);
        if let (false, Some(others)) = (taken, &others) {
            others(line);
        }
    })
}

/// `these paths will be fetched (...):` and the like, with paths below them.
struct Listing {
    store_dir: StoreDir,
    asked: BTreeSet<StorePath>,
    found: BTreeSet<StorePath>,
    section: Section,
}

/// What the lines with a path, which come next, are about.
enum Section {
    None,
    Fetched,
    /// Built, or nobody knows how.
    Other,
}

impl Listing {
    fn new(store_dir: StoreDir, asked: &[StorePath]) -> Self {
        let asked = asked.iter().cloned().collect();
        Self { store_dir, asked, found: BTreeSet::new(), section: Section::None }
    }

    /// Whether this line belongs to the listing.
    fn take(&mut self, line: &str) -> bool {
        if let (false, Some(path)) = (matches!(self.section, Section::None), line.strip_prefix("  ")) {
            if matches!(self.section, Section::Fetched)
                && let Ok(path) = self.store_dir.parse(path)
                && self.asked.contains(&path)
            {
                self.found.insert(path);
            }
            return true;
        }
        self.section = if !line.ends_with(':') {
            Section::None
        } else if line.contains(" will be fetched") {
            Section::Fetched
        } else if line.contains(" will be built") || line.starts_with("don't know how to build") {
            Section::Other
        } else {
            Section::None
        };
        !matches!(self.section, Section::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Nix 2.8 and 2.3 print it.
    const SAID: &str = "\
warning: unable to download 'https://cache.example.org/nix-cache-info'
these 2 derivations will be built:
  /nix/store/3n58xw4373jp0ljirf06d8077j15pc4j-built
this path will be fetched (0.00 MiB download, 0.01 MiB unpacked):
  /nix/store/ab3li50xq0nl4q5lxdyinb8w8y13my9s-fetched
don't know how to build these paths:
  /nix/store/00000000000000000000000000000000-unknown
these paths will be fetched (1.00 MiB download, 2.00 MiB unpacked):
  /nix/store/11111111111111111111111111111111-too
  /nix/store/22222222222222222222222222222222-never-asked
  no path
the end
  /nix/store/00000000000000000000000000000000-unknown";

    #[test]
    fn only_what_will_be_fetched_counts() {
        let store_dir = StoreDir::default();
        let path = |text: &str| store_dir.parse(&format!("/nix/store/{text}")).unwrap();
        let asked = [
            path("3n58xw4373jp0ljirf06d8077j15pc4j-built"),
            path("ab3li50xq0nl4q5lxdyinb8w8y13my9s-fetched"),
            path("00000000000000000000000000000000-unknown"),
            path("11111111111111111111111111111111-too"),
        ];
        let mut listing = Listing::new(store_dir.clone(), &asked);
        let others: Vec<&str> = SAID.lines().filter(|line| !listing.take(line)).collect();
        assert_eq!(listing.found, [asked[1].clone(), asked[3].clone()].into());
        assert_eq!(
            others,
            [
                "warning: unable to download 'https://cache.example.org/nix-cache-info'",
                "the end",
                "  /nix/store/00000000000000000000000000000000-unknown"
            ]
        );
    }
}
