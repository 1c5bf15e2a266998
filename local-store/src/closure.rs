//! Closures, from the tables in the database.

use std::collections::HashMap;

use ncc_store::{Outputs, PathInfo, StorePath, StorePathSet};

use crate::{LocalStoreError, query::Query};

/// The metadata of some paths, as far as it could be read.
///
/// One damaged row is no reason to say nothing about all the others, so that each path fails by itself.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct PathInfos {
    /// What could be read, in ascending order. What they refer to may be among `bad`.
    pub infos: Vec<PathInfo>,
    /// What could not, in ascending order: a path that is not valid or cannot be understood, or one that refers to
    /// something of which the database does not know the name.
    pub bad: Vec<(StorePath, LocalStoreError)>,
}

impl PathInfos {
    /// All of it, or the first error.
    pub(crate) fn complete(self) -> Result<Vec<PathInfo>, LocalStoreError> {
        match self.bad.into_iter().next() {
            Some((_, error)) => Err(error),
            None => Ok(self.infos),
        }
    }

    pub(crate) fn sort(&mut self) {
        self.infos.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        self.bad.sort_by(|(a, _), (b, _)| a.cmp(b));
    }
}

/// Everything that `roots` refer to.
///
/// One look-up per path and one for its references. Measured with `examples/measure.rs` among 100,000 paths of ten
/// references each: 5 ms for a closure of 1,000, 83 ms for 10,000, 1.3 s for all of them. Reading both tables whole
/// takes 0.13 s before anything is done with the rows, whatever the closure: only a closure of most of a large store
/// would gain by it.
pub(crate) fn closure(
    query: &Query<'_>,
    roots: &[StorePath],
    outputs: Outputs,
    full: impl Fn(&StorePath) -> String,
) -> Result<PathInfos, LocalStoreError> {
    let mut bad: Vec<(StorePath, LocalStoreError)> = Vec::new();
    let mut visits = Visits::default();
    for root in roots {
        match query.id(root)? {
            Some(id) => drop(visits.place(id)),
            None => bad.push((root.clone(), LocalStoreError::NotValid { path: full(root) })),
        }
    }
    // What each place came to, and of each info the places of its references.
    let mut nodes: Vec<Node> = Vec::new();
    let mut references: Vec<Box<[u32]>> = Vec::new();
    while let Some(&id) = visits.ids.get(nodes.len()) {
        let node = match query.row(id)? {
            None => Node::Lost,
            Some(row) => match (query.interpret(&row), query.path(&row)) {
                (Ok(info), _) => Node::Info(info),
                (Err(error), Ok(path)) if error.concerns_one_row() => {
                    bad.push((path.clone(), error));
                    Node::Bad(path)
                }
                (Err(error), _) if !error.concerns_one_row() => return Err(error),
                (Err(_), _) => Node::Nameless,
            },
        };
        let places: Box<[u32]> = match &node {
            Node::Info(info) => {
                let places = query.references(id)?.into_iter().map(|id| visits.place(id)).collect();
                if outputs == Outputs::Include && info.path.is_derivation() {
                    for id in query.valid_outputs(id)? {
                        visits.place(id);
                    }
                }
                places
            }
            _ => Box::default(),
        };
        references.push(places);
        nodes.push(node);
    }
    let Visits { ids, .. } = visits;
    // In place and with shared texts: a closure can have 100,000 paths.
    for (place, references) in references.into_iter().enumerate() {
        let mut paths = Vec::with_capacity(references.len());
        let mut error = None;
        for (node, id) in references.iter().filter_map(|place| {
            let place = usize::try_from(*place).ok()?;
            Some((nodes.get(place)?, *ids.get(place)?))
        }) {
            match node {
                Node::Info(info) => paths.push(info.path.clone()),
                Node::Bad(path) => paths.push(path.clone()),
                Node::Nameless | Node::Lost => error = Some(id),
            }
        }
        let Some(node) = nodes.get_mut(place) else { continue };
        let Node::Info(info) = node else { continue };
        info.references = paths.into_iter().collect::<StorePathSet>();
        if let Some(id) = error {
            let error = match query.row(id)?.map(|row| query.path(&row)) {
                Some(Err(error)) => error,
                _ => query.lost(&info.path, id),
            };
            let path = info.path.clone();
            bad.push((path.clone(), error));
            *node = Node::Bad(path);
        }
    }
    let infos = nodes.into_iter().filter_map(|node| match node {
        Node::Info(info) => Some(info),
        _ => None,
    });
    let mut result = PathInfos { infos: infos.collect(), bad };
    result.sort();
    Ok(result)
}

enum Node {
    Info(PathInfo),
    /// Its row cannot be understood, but for its name.
    Bad(StorePath),
    /// Not even that.
    Nameless,
    /// There is no such row.
    Lost,
}

/// Row ids in the order in which they were found.
#[derive(Default)]
struct Visits {
    ids: Vec<i64>,
    places: HashMap<i64, u32>,
}

impl Visits {
    fn place(&mut self, id: i64) -> u32 {
        *self.places.entry(id).or_insert_with(|| {
            self.ids.push(id);
            // A database of four thousand million paths does not fit into any memory.
            u32::try_from(self.ids.len() - 1).unwrap_or(u32::MAX)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use ncc_store::test_util::MemoryStore;

    use super::*;
    use crate::{Access, LocalStore, LocalStoreConfig};

    /// The thread of a future that was dropped must not walk through the whole database.
    #[test]
    fn what_nobody_wants_any_more_is_not_looked_up() {
        let directory = tempfile::tempdir().unwrap();
        let config = LocalStoreConfig::chroot(directory.path());
        let store = LocalStore::open(config, Access::ReadWrite).unwrap();
        let memory = MemoryStore::new("memory");
        let chain = memory.add_chain(50);
        for info in memory.infos(&chain).iter() {
            store.add_nar(info, &mut &memory.nar(&info.path).unwrap()[..]).unwrap();
        }
        let asked = Cell::new(0);
        let cancelled = || {
            asked.set(asked.get() + 1);
            asked.get() >= 10
        };
        let root = &chain[49..];
        let ends = [
            store.examine_closure_until(root, Outputs::Exclude, &cancelled).map(drop),
            store.examine_paths_until(&chain, &cancelled).map(drop),
            store.query_valid_paths_until(&chain, &cancelled).map(drop),
        ];
        for end in ends {
            assert!(matches!(end, Err(LocalStoreError::Cancelled { .. })), "{end:?}");
        }
        // Once each, after the tenth time.
        assert_eq!(asked.get(), 12);
        assert_eq!(store.query_closure(root, Outputs::Exclude).unwrap().len(), 50);
    }
}
