//! What fails with a path.

use std::{collections::HashSet, sync::Arc};

use ncc_store::{PathInfo, StorePath};

/// What refers to one of `failed`, directly or not, in the order of `infos`, which is topological.
pub(crate) fn dependants<'a>(
    infos: &[Arc<PathInfo>],
    failed: impl IntoIterator<Item = &'a StorePath>,
) -> Vec<StorePath> {
    let failed: HashSet<&StorePath> = failed.into_iter().collect();
    let mut hopeless: HashSet<&StorePath> = HashSet::new();
    let mut dependants = Vec::new();
    for info in infos {
        let lacks = |reference: &StorePath| failed.contains(reference) || hopeless.contains(reference);
        if !failed.contains(&info.path) && info.other_references().any(lacks) {
            hopeless.insert(&info.path);
            dependants.push(info.path.clone());
        }
    }
    dependants
}
