//! Closures, from the tables in the database.

use std::collections::HashMap;

use ncc_store::{Outputs, PathInfo, StorePath, StorePathSet};

use crate::{LocalStoreError, query::Query};

/// Everything that `roots` refer to, in ascending order.
///
/// One look-up per path and one for its references: 100,000 paths with ten references each took 1.0 s so, and a
/// closure of 1,000 among them 7 ms, where reading both tables whole always takes 0.6 s.
pub(crate) fn closure(
    query: &Query<'_>,
    roots: &[StorePath],
    outputs: Outputs,
    full: impl Fn(&StorePath) -> String,
) -> Result<Vec<PathInfo>, LocalStoreError> {
    let mut found: HashMap<i64, Found> = HashMap::new();
    let mut todo = Vec::new();
    for root in roots {
        todo.push(query.id(root)?.ok_or_else(|| LocalStoreError::NotValid { path: full(root) })?);
    }
    while let Some(id) = todo.pop() {
        if found.contains_key(&id) {
            continue;
        }
        let info = query.interpret(&query.row(id)?)?;
        let references = query.references(id)?;
        todo.extend(references.iter().filter(|reference| !found.contains_key(reference)));
        if outputs == Outputs::Include && info.path.is_derivation() {
            todo.extend(query.valid_outputs(id)?);
        }
        found.insert(id, Found { info, references: references.into() });
    }
    let paths: HashMap<i64, StorePath> =
        found.iter().map(|(id, found)| (*id, found.info.path.clone())).collect();
    let mut infos: Vec<PathInfo> = found
        .into_values()
        .map(|Found { mut info, references }| {
            // Every one of them was visited above.
            info.references =
                references.iter().filter_map(|id| paths.get(id).cloned()).collect::<StorePathSet>();
            info
        })
        .collect();
    infos.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(infos)
}

struct Found {
    info: PathInfo,
    references: Box<[i64]>,
}
