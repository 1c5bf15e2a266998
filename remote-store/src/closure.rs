//! Which paths belong to a closure on a host.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use futures_util::future::BoxFuture;
use ncc_protocol::{
    ProtocolError,
    serve::{Request, read_closure, read_path_infos, read_valid_paths},
    wire::{COUNT_LIMIT, WireReader},
};
use ncc_store::{
    Outputs, Problem, Scope, Side, StoreDir, StoreError, StorePath, StorePathSet, ValidityQuery,
};
use ncc_transport::Reader;

use crate::{RemoteError, RemoteStore, silence::Patience};

/// How many paths a server may end over. Each takes a connection with it, and perhaps a password; a store with more of them has
/// to be mended first.
const ENDS: usize = 16;

/// The paths of a closure, and those that the host could not describe.
#[derive(Default)]
pub(crate) struct Names {
    pub(crate) paths: StorePathSet,
    pub(crate) failed: Vec<(StorePath, StoreError)>,
}

impl RemoteStore {
    /// What `roots` refer to.
    pub(crate) async fn names(&self, roots: &[StorePath], outputs: Outputs) -> Result<Names, StoreError> {
        if roots.is_empty() {
            return Ok(Names::default());
        }
        let store_dir = self.shared().store_dir();
        // Which of them are valid is asked in front: then a server that ends has not ended over a login, and it is known
        // whether it ended over a root that is not there.
        let question = Request::QueryClosure { outputs, paths: roots.to_vec() };
        let request = encode(store_dir, &[locking(roots), question]);
        let valid: Arc<OnceLock<BTreeSet<StorePath>>> = Arc::default();
        let (known, store_dir) = (Arc::clone(&valid), store_dir.clone());
        let asked: Arc<StorePathSet> = Arc::new(roots.iter().cloned().collect());
        let answer = self.shared().pool.ask(
            Patience::Limited,
            &request,
            |reader: &mut WireReader<Reader>| -> BoxFuture<'_, _> {
                Box::pin(async move {
                    let _ = known.set(read_valid_paths(reader, &store_dir, &asked).await?);
                    read_closure(reader, &store_dir).await
                })
            },
        );
        let error = match answer.await {
            Ok(paths) => return Ok(Names { paths, ..Names::default() }),
            Err(error) => error,
        };
        if let Some(valid) = valid.get() {
            let left: BTreeSet<_> = roots.iter().filter(|root| valid.contains(*root)).cloned().collect();
            if left.is_empty() || error.is_about_the_path() {
                tracing::info!(%error, "the host ended over the closure, asking path by path");
                return self.walk(left, outputs).await;
            }
        }
        Err(self.shared().failed(Side::Source, "compute the closure", None, error))
    }

    /// The same from a server that ends over a path that it cannot describe, as all of Nix do: for whose row in the database is
    /// damaged. Every path is asked for by itself, all that are known at once; the one without an answer is the one that it
    /// ended over, and the rest is asked for over a new connection. So this takes a round trip for each level of the graph,
    /// and a connection for each bad path.
    ///
    /// Outputs of derivations are in the answer for a whole closure only: where they are wanted, a bad path costs all of
    /// each root that leads to it.
    async fn walk(&self, roots: BTreeSet<StorePath>, outputs: Outputs) -> Result<Names, StoreError> {
        let mut failed: Vec<(StorePath, StoreError)> = Vec::new();
        let mut paths: BTreeSet<StorePath> = BTreeSet::new();
        let mut next = roots;
        while !next.is_empty() {
            let asked: Vec<StorePath> = next.into_iter().collect();
            let found = Arc::new(Mutex::new(Found { known: paths.len() + asked.len(), ..Found::default() }));
            let mut left = asked.as_slice();
            while !left.is_empty() {
                let ended = self.ask_each(left, outputs, &found).await.err();
                let answered = std::mem::take(&mut lock(&found).answered);
                let (described, rest) = left.split_at(answered.min(left.len()));
                paths.extend(described.iter().cloned());
                left = rest;
                let Some(error) = ended else { break };
                // It ended behind the last answer, which costs nothing.
                let Some((path, rest)) = left.split_first() else { break };
                let action = match outputs {
                    Outputs::Exclude => "describe",
                    Outputs::Include => "compute the closure of",
                };
                if failed.len() == ENDS {
                    let problem =
                        Problem::Store { action, path: Some(path.clone()), source: Box::new(error) };
                    return Err(StoreError::new(Side::Source, self.shared().name.as_str(), problem));
                }
                let error = self.shared().failed(Side::Source, action, Some(path), error);
                if error.scope() != Scope::Path {
                    return Err(error);
                }
                failed.push((path.clone(), error));
                left = rest;
            }
            next = std::mem::take(&mut lock(&found).paths);
            if outputs == Outputs::Include {
                paths.append(&mut next);
            }
            next.retain(|path| !paths.contains(path) && !failed.iter().any(|(failed, _)| failed == path));
        }
        Ok(Names { paths: paths.into_iter().collect(), failed })
    }

    /// Asks for these paths, each by itself, and gathers what they lead to until the server ends.
    async fn ask_each(
        &self,
        paths: &[StorePath],
        outputs: Outputs,
        found: &Arc<Mutex<Found>>,
    ) -> Result<(), Arc<RemoteError>> {
        let store_dir = self.shared().store_dir();
        let question = |path: &StorePath| {
            let paths = vec![path.clone()];
            match outputs {
                Outputs::Exclude => Request::QueryPathInfos { paths },
                Outputs::Include => Request::QueryClosure { outputs, paths },
            }
        };
        let request = encode(store_dir, &paths.iter().map(question).collect::<Vec<_>>());
        let (store_dir, found) = (store_dir.clone(), Arc::clone(found));
        let paths: Arc<[StorePath]> = paths.into();
        let answers = self.shared().pool.ask(
            Patience::Limited,
            &request,
            |reader: &mut WireReader<Reader>| -> BoxFuture<'_, _> {
                Box::pin(async move {
                    for path in &*paths {
                        let answer = match outputs {
                            Outputs::Exclude => {
                                let asked = [path.clone()].into_iter().collect();
                                let infos = read_path_infos(reader, &store_dir, &asked).await?;
                                infos.into_iter().flat_map(|info| info.references).collect()
                            }
                            Outputs::Include => read_closure(reader, &store_dir).await?,
                        };
                        lock(&found).take(answer)?;
                    }
                    Ok(())
                })
            },
        );
        answers.await
    }
}

/// What answers have told so far.
#[derive(Default)]
struct Found {
    /// How many answers were read.
    answered: usize,
    paths: BTreeSet<StorePath>,
    /// How many paths are known beside these.
    known: usize,
}

impl Found {
    fn take(&mut self, paths: StorePathSet) -> Result<(), ProtocolError> {
        self.answered += 1;
        self.paths.extend(paths);
        let announced = (self.paths.len() + self.known) as u64;
        if announced > COUNT_LIMIT {
            return Err(ProtocolError::TooLarge { what: "a closure", announced, limit: COUNT_LIMIT });
        }
        Ok(())
    }
}

fn lock(found: &Mutex<Found>) -> std::sync::MutexGuard<'_, Found> {
    found.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks which of `paths` are valid, and protects them from the garbage collector.
pub(crate) fn locking(paths: &[StorePath]) -> Request {
    Request::QueryValidPaths { query: ValidityQuery::default().locking(), paths: paths.to_vec() }
}

pub(crate) fn encode(store_dir: &StoreDir, requests: &[Request]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for request in requests {
        request.encode(store_dir, &mut bytes);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closure_without_end_is_not_gathered() {
        let path = |number: u32| {
            StorePath::from_base_name(&format!("nlhn6cma43vk5l44cgr8sw3ykiir1wmm-{number}")).unwrap()
        };
        let known = usize::try_from(COUNT_LIMIT).unwrap() - 2;
        let mut found = Found { known, ..Found::default() };
        found.take([path(0), path(1)].into_iter().collect()).unwrap();
        found.take([path(1)].into_iter().collect()).unwrap();
        let error = found.take([path(2)].into_iter().collect()).unwrap_err();
        assert!(matches!(error, ProtocolError::TooLarge { .. }), "{error}");
    }
}
