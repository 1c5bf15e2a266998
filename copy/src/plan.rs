//! What a copy will do, found out with one question to each side, and one more where paths may be substituted.

use std::{collections::BTreeSet, sync::Arc};

use ncc_closure::Graph;
use ncc_store::{Destination, PathInfo, Source, StorePath, ValidityQuery};

use crate::{CopyError, Event, Observer, Purpose, Request};

/// What a copy will do.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Plan {
    /// What must be valid in the end.
    pub roots: Vec<StorePath>,
    /// Valid at the destination already.
    pub present: Vec<Arc<PathInfo>>,
    /// Substituted by the destination while the plan was made; in a plan that is only to look at, what it would substitute.
    pub substituted: Vec<Arc<PathInfo>>,
    /// What is to be sent, references before their referrers.
    pub to_send: Vec<Arc<PathInfo>>,
    /// A plan to look at, of a copy that would substitute, to a destination that cannot tell what it would find:
    /// [`to_send`](Self::to_send) is what would be sent at most.
    pub unforeseen: bool,
}

impl Plan {
    /// Bytes of all NARs to send.
    pub fn bytes_to_send(&self) -> u64 {
        self.to_send.iter().fold(0, |sum, info| sum.saturating_add(info.nar_size))
    }
}

/// Asks the source for the closure and the destination for what it has of it.
///
/// From then on until it is closed, the destination keeps its garbage collector off the whole closure: what is
/// present now is still present when what refers to it arrives.
///
/// # Errors
/// [`CopyError::Store`], [`CopyError::StoreDirs`], [`CopyError::Graph`].
pub async fn plan(
    source: &dyn Source,
    destination: &dyn Destination,
    request: &Request,
    observer: &Arc<dyn Observer>,
) -> Result<Plan, CopyError> {
    if source.store_dir() != destination.store_dir() {
        return Err(CopyError::StoreDirs {
            source_name: source.name().to_owned(),
            source_dir: source.store_dir().clone(),
            destination_name: destination.name().to_owned(),
            destination_dir: destination.store_dir().clone(),
        });
    }
    observer.event(Event::ComputingClosure);
    let mut closure = source.closure(&request.roots, request.outputs).await?;
    for info in &mut closure {
        // Having been built on one machine says nothing on another.
        info.ultimate = false;
    }

    observer.event(Event::Asking { paths: closure.len() });
    let paths: Vec<_> = closure.iter().map(|info| info.path.clone()).collect();
    let query = match request.purpose {
        Purpose::Copy => ValidityQuery::default().locking(),
        Purpose::Look => ValidityQuery::default(),
    };
    let valid = destination.valid_paths(&paths, query).await?;
    // Only what is missing, so that what is present is not taken for substituted.
    let missing: Vec<_> = paths.into_iter().filter(|path| !valid.contains(path)).collect();
    let substituted = if !request.substitute || missing.is_empty() {
        Some(BTreeSet::new())
    } else {
        let paths = missing.len();
        match request.purpose {
            Purpose::Copy => {
                observer.event(Event::Substituting { paths });
                Some(destination.valid_paths(&missing, query.substituting(true)).await?)
            }
            Purpose::Look => {
                observer.event(Event::Foreseeing { paths });
                destination.substitutable(&missing).await?
            }
        }
    };

    // In topological order; and a closure that lacks something it refers to ends here.
    let graph = Graph::new(closure)
        .map_err(|error| CopyError::Graph { store: source.name().to_owned(), source: error })?;
    let unforeseen = substituted.is_none();
    let mut plan = Plan { roots: request.roots.clone(), unforeseen, ..Plan::default() };
    let mut substituted = substituted.unwrap_or_default();
    for info in &graph {
        // A path whose references have to be sent cannot be substituted before that.
        let sent = |path: &StorePath| !valid.contains(path) && !substituted.contains(path);
        if request.purpose == Purpose::Look && info.other_references().any(sent) {
            substituted.remove(&info.path);
        }
        let place = if valid.contains(&info.path) {
            &mut plan.present
        } else if substituted.contains(&info.path) {
            &mut plan.substituted
        } else {
            &mut plan.to_send
        };
        place.push(Arc::clone(info));
    }
    observer.event(Event::Planned(&plan));
    Ok(plan)
}
