//! What a copy will do.
//!
//! The roots are asked for first, while the closure is still being computed: a valid path has a valid closure, and a
//! temporary root on it protects all of it. So a copy with nothing to do costs one small question, whatever the size
//! of the closure. Otherwise one question for the whole closure follows, and one more where paths may be substituted.

use std::{collections::BTreeSet, pin::pin, sync::Arc};

use futures_util::future::{Either, select};
use ncc_closure::{Graph, GraphError};
use ncc_store::{
    Closure, Destination, Members, OnFailure, Outputs, PathInfo, Problem, Side, Source, StoreError,
    StorePath, ValidityQuery,
};

use crate::{
    CopyError, Described, Event, Failed, Observer, Purpose, Request, Unsigned, dependants::dependants,
    retrying::Tries, signatures,
};

/// A closure of at most this many paths is asked for as soon as it is known, without waiting for what the destination says
/// about the roots: a quarter of a megabyte, which costs less than a round trip.
const SMALL_CLOSURE: usize = 4096;

/// What a copy will do.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Plan {
    /// What must be valid in the end.
    pub roots: Vec<StorePath>,
    /// All roots are valid at the destination already, and therefore everything that they refer to. Nobody asked for
    /// more, and none of the lists below holds anything.
    pub roots_are_valid: bool,
    /// Valid at the destination already.
    pub present: Vec<Arc<PathInfo>>,
    /// Valid there as well, known by name only: a source that is far away is not asked for more than is to be sent, unless
    /// [`Request::described`] says so.
    pub present_by_name: Vec<StorePath>,
    /// Substituted by the destination while the plan was made; in a plan that is only to look at, what it would substitute.
    pub substituted: Vec<Arc<PathInfo>>,
    /// What is to be sent, references before their referrers.
    pub to_send: Vec<Arc<PathInfo>>,
    /// What the source cannot give, each with the reason, and what refers to that: only with [`OnFailure::Continue`].
    pub failed: Vec<Failed>,
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
    let ends = Ends { source, destination, request, observer };
    let mut tries = Tries::new(request.retries, observer);
    let plan = loop {
        match ends.make_plan().await {
            Err(CopyError::Store(error)) => tries.wait_after(error).await?,
            plan => break plan?,
        }
        observer.event(Event::StartingAgain);
    };
    observer.event(Event::Planned(&plan));
    Ok(plan)
}

struct Ends<'a> {
    source: &'a dyn Source,
    destination: &'a dyn Destination,
    request: &'a Request,
    observer: &'a Arc<dyn Observer>,
}

impl Ends<'_> {
    async fn make_plan(&self) -> Result<Plan, CopyError> {
        match self.closure_unless_present().await? {
            None => Ok(Plan { roots: self.request.roots.clone(), roots_are_valid: true, ..Plan::default() }),
            Some((members, valid)) => self.plan(members, valid).await,
        }
    }

    /// How the destination is asked.
    fn query(&self) -> ValidityQuery {
        match self.request.purpose {
            Purpose::Copy => ValidityQuery::default().locking(),
            Purpose::Look => ValidityQuery::default(),
        }
    }

    /// What belongs to the closure, and what the destination has of it; `None` if that is known to be everything.
    async fn closure_unless_present(&self) -> Result<Option<(Members, BTreeSet<StorePath>)>, CopyError> {
        let Self { source, destination, request, observer } = self;
        // A valid derivation says nothing about its outputs; and whoever looks wants to see the closure.
        if request.outputs == Outputs::Include || request.purpose == Purpose::Look {
            let closure = self.closure().await?;
            let valid = self.valid(&closure).await?;
            return Ok(Some((closure, valid)));
        }
        let roots = &request.roots;
        // What was mistyped is said before anybody is asked for a password. Where the others are wanted all the same, the
        // closure says it, and one root that cannot be described stops nobody.
        if source.is_at_hand() && request.on_failure == OnFailure::Stop {
            let known: BTreeSet<StorePath> =
                source.path_infos(roots).await?.into_iter().map(|info| info.path).collect();
            if !roots.iter().all(|root| known.contains(root)) {
                self.closure().await?;
            }
        }
        observer.event(Event::AskingForRoots { paths: roots.len() });
        let all_valid = |valid: &BTreeSet<StorePath>| roots.iter().all(|root| valid.contains(root));
        let asking = destination.valid_paths(roots, self.query());
        if destination.is_at_hand() {
            if all_valid(&asking.await?) {
                return Ok(None);
            }
            let closure = self.closure().await?;
            let valid = self.valid(&closure).await?;
            return Ok(Some((closure, valid)));
        }
        let closure = match select(pin!(self.closure()), asking).await {
            Either::Left((closure, asking)) => {
                let closure = closure?;
                if names(&closure).count() <= SMALL_CLOSURE {
                    // Right behind the first question.
                    // A host that refuses the first is not asked for a login by the second.
                    let valid = self.valid(&closure);
                    let (_, valid) = futures_util::future::try_join(asking, valid).await?;
                    return Ok(Some((closure, valid)));
                }
                if all_valid(&asking.await?) {
                    return Ok(None);
                }
                closure
            }
            Either::Right((valid, closure)) => {
                if all_valid(&valid?) {
                    return Ok(None);
                }
                closure.await?
            }
        };
        let valid = self.valid(&closure).await?;
        Ok(Some((closure, valid)))
    }

    async fn closure(&self) -> Result<Members, CopyError> {
        let Self { source, request, observer, .. } = self;
        observer.event(Event::ComputingClosure);
        let Request { roots, outputs, .. } = request;
        let members = if request.without_references {
            Members::Described(self.roots_alone().await?)
        } else if request.described == Described::Everything || request.purpose == Purpose::Look {
            Members::Described(source.closure(roots, *outputs).await?)
        } else {
            source.members(roots, *outputs).await?
        };
        Ok(match members {
            Members::Described(closure) => Members::Described(self.usable(closure)?),
            Members::Named { paths, failed } => {
                let Closure { failed, .. } = self.usable(Closure { failed, ..Closure::default() })?;
                Members::Named { paths, failed }
            }
        })
    }

    /// What a copy takes of what the source says.
    fn usable(&self, mut closure: Closure) -> Result<Closure, StoreError> {
        if self.request.on_failure == OnFailure::Stop {
            closure = closure.complete()?.into();
        }
        for info in &mut closure.infos {
            // Having been built on one machine says nothing on another.
            info.ultimate = false;
        }
        Ok(closure)
    }

    /// The metadata of what is missing at least, and what is present of that which has none.
    async fn described(
        &self,
        members: Members,
        valid: &BTreeSet<StorePath>,
    ) -> Result<(Closure, Vec<StorePath>), StoreError> {
        let (paths, mut failed) = match members {
            Members::Described(closure) => return Ok((closure, Vec::new())),
            Members::Named { paths, failed } => (paths, failed),
        };
        let (present, missing): (Vec<_>, Vec<_>) =
            paths.iter().cloned().partition(|path| valid.contains(path));
        let mut closure = Closure::default();
        if !missing.is_empty() {
            closure = self.usable(self.source.describe(&missing).await?)?;
        }
        failed.append(&mut closure.failed);
        Ok((Closure { failed, ..closure }, present))
    }

    /// The roots without what they refer to.
    async fn roots_alone(&self) -> Result<Closure, StoreError> {
        let Self { source, request, .. } = self;
        let infos = source.path_infos(&request.roots).await?;
        let known: BTreeSet<&StorePath> = infos.iter().map(|info| &info.path).collect();
        let unknown = request.roots.iter().filter(|root| !known.contains(root));
        let error = |root: &StorePath| {
            let problem = Problem::NotValid { path: source.store_dir().full(root) };
            (root.clone(), StoreError::new(Side::Source, source.name(), problem))
        };
        let failed = unknown.map(error).collect();
        Ok(Closure { infos, failed })
    }

    /// What the destination has.
    async fn valid(&self, members: &Members) -> Result<BTreeSet<StorePath>, StoreError> {
        self.observer.event(Event::Asking { paths: names(members).count() });
        // What the source cannot give may be there all the same.
        let (Members::Described(Closure { failed, .. }) | Members::Named { failed, .. }) = members;
        let paths: Vec<_> = names(members).chain(failed.iter().map(|(path, _)| path)).cloned().collect();
        let valid = self.destination.valid_paths(&paths, self.query()).await?;
        // The closure's own texts in the place of the answer's: those of 100,000 paths take 10 MB.
        Ok(paths.into_iter().filter(|path| valid.contains(path)).collect())
    }

    /// What the destination substitutes, or would; `None` if it cannot tell.
    async fn substituted(&self, missing: &[StorePath]) -> Result<Option<BTreeSet<StorePath>>, StoreError> {
        let Self { destination, request, observer, .. } = self;
        let paths = missing.len();
        if !request.substitute || paths == 0 {
            return Ok(Some(BTreeSet::new()));
        }
        match request.purpose {
            Purpose::Copy => {
                observer.event(Event::Substituting { paths });
                destination.valid_paths(missing, self.query().substituting(true)).await.map(Some)
            }
            Purpose::Look => {
                observer.event(Event::Foreseeing { paths });
                destination.substitutable(missing).await
            }
        }
    }

    async fn plan(&self, members: Members, valid: BTreeSet<StorePath>) -> Result<Plan, CopyError> {
        let Self { source, destination, request, .. } = self;
        let (Closure { infos, failed }, present_by_name) = self.described(members, &valid).await?;
        // Only what is missing, so that what is present is not taken for substituted.
        let missing = infos.iter().map(|info| &info.path).filter(|path| !valid.contains(*path));
        let substituted = self.substituted(&missing.cloned().collect::<Vec<_>>()).await?;

        let is_complete = failed.is_empty() && !request.without_references;
        let mut failed: Vec<_> = failed
            .into_iter()
            .filter(|(path, _)| !valid.contains(path))
            .map(|(path, error)| Failed { path, error: Some(error) })
            .collect();
        // In topological order; and a closure that lacks something it refers to, though nobody said so, ends here.
        let infos = shared(infos);
        let graph = if !is_complete {
            Graph::partial(infos)
        } else if present_by_name.is_empty() {
            Graph::new(infos)
        } else {
            Graph::partial(infos).and_then(|graph| whole_with(graph, &valid))
        };
        let graph =
            graph.map_err(|error| CopyError::Graph { store: source.name().to_owned(), source: error })?;
        let unforeseen = substituted.is_none();
        let roots = request.roots.clone();
        let mut plan = Plan { roots, present_by_name, unforeseen, ..Plan::default() };
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
        let source_dir = source.store_dir();
        signatures::sign(&mut plan.to_send, request, source_dir);
        let refused = signatures::refused(&plan.to_send, request, *destination).await?;
        if !refused.is_empty() {
            let unsigned = Unsigned::among(refused.iter().map(|(_, error)| error), source_dir);
            if let Some(unsigned) = unsigned.filter(|_| request.on_failure == OnFailure::Stop) {
                return Err(CopyError::Unsigned(unsigned));
            }
            let paths: BTreeSet<StorePath> = refused.iter().map(|(path, _)| path.clone()).collect();
            plan.to_send.retain(|info| !paths.contains(&info.path));
            failed.extend(refused.into_iter().map(|(path, error)| Failed { path, error: Some(error) }));
        }
        if !failed.is_empty() {
            let hopeless = dependants(&plan.to_send, failed.iter().map(|failed| &failed.path));
            plan.to_send.retain(|info| !hopeless.contains(&info.path));
            failed.extend(hopeless.into_iter().map(|path| Failed { path, error: None }));
            plan.failed = failed;
        }
        Ok(plan)
    }
}

fn names(members: &Members) -> impl Iterator<Item = &StorePath> {
    let (infos, paths): (&[PathInfo], &[StorePath]) = match members {
        Members::Described(closure) => (&closure.infos, &[]),
        Members::Named { paths, .. } => (&[], paths.as_slice()),
    };
    infos.iter().map(|info| &info.path).chain(paths)
}

/// The graph, if it refers to nothing besides itself and `valid`.
fn whole_with(graph: Graph, valid: &BTreeSet<StorePath>) -> Result<Graph, GraphError> {
    for info in &graph {
        let mut references = info.other_references();
        if let Some(reference) =
            references.find(|reference| !valid.contains(*reference) && !graph.contains(reference))
        {
            let (path, reference) = (info.path.clone(), reference.clone());
            return Err(GraphError::MissingReference { path, reference });
        }
    }
    Ok(graph)
}

/// The same, each to be shared. In pieces, so that not all of them are in memory twice: 100,000 take 20 MB.
fn shared(mut infos: Vec<PathInfo>) -> Vec<Arc<PathInfo>> {
    const PIECE: usize = 4096;
    let mut shared = Vec::with_capacity(infos.len());
    while !infos.is_empty() {
        let piece = infos.split_off(infos.len().saturating_sub(PIECE));
        infos.shrink_to_fit();
        shared.extend(piece.into_iter().map(Arc::new));
    }
    shared
}
