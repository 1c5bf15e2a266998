use std::collections::{BTreeMap, BTreeSet};

use ncc_closure::Graph;
use ncc_store::{PathInfo, StorePath};
use proptest::{collection, prelude::*, sample::Index};

use crate::{info, path};

const LARGEST: usize = 90;

/// Random paths without cycles, in random order, some referring to themselves.
fn infos() -> impl Strategy<Value = Vec<PathInfo>> {
    let node = (any::<u32>(), collection::vec(any::<Index>(), 0..4), any::<bool>(), 1_u64..1000);
    collection::vec(node, 0..LARGEST).prop_flat_map(|nodes| {
        let paths: Vec<_> = nodes
            .iter()
            .enumerate()
            // The rank is random, the name makes it unique.
            .map(|(index, (rank, ..))| path(*rank, &format!("n{index}")))
            .collect();
        let infos: Vec<_> = nodes
            .into_iter()
            .enumerate()
            .map(|(index, (_, references, own, size))| {
                let earlier =
                    references.iter().filter(|_| index > 0).map(|r| paths[r.index(index.max(1))].clone());
                let own = own.then(|| paths[index].clone());
                let mut info = info(&paths[index], earlier.chain(own));
                info.nar_size = size;
                info
            })
            .collect();
        Just(infos).prop_shuffle()
    })
}

/// The definition: add what is referred to until nothing is added.
fn plain_closure(infos: &[PathInfo], roots: &[StorePath]) -> BTreeSet<StorePath> {
    let by_path: BTreeMap<_, _> = infos.iter().map(|info| (&info.path, info)).collect();
    let mut closure: BTreeSet<StorePath> = roots.iter().cloned().collect();
    loop {
        let more: Vec<_> = closure
            .iter()
            .flat_map(|path| by_path[path].references.iter())
            .filter(|reference| !closure.contains(*reference))
            .cloned()
            .collect();
        if more.is_empty() {
            return closure;
        }
        closure.extend(more);
    }
}

fn paths(graph: &Graph) -> Vec<StorePath> {
    graph.iter().map(|info| info.path.clone()).collect()
}

proptest! {
    #[test]
    fn every_path_comes_once_and_after_its_references(infos in infos()) {
        let graph = Graph::new(infos.clone()).unwrap();
        let mut seen = BTreeSet::new();
        for info in &graph {
            prop_assert!(info.other_references().all(|reference| seen.contains(reference)));
            prop_assert!(seen.insert(info.path.clone()));
        }
        prop_assert_eq!(seen.len(), infos.len());
    }

    #[test]
    fn the_order_does_not_depend_on_the_order_given(infos in infos()) {
        let mut backwards = infos.clone();
        backwards.reverse();
        prop_assert_eq!(paths(&Graph::new(infos).unwrap()), paths(&Graph::new(backwards).unwrap()));
    }

    #[test]
    fn closures_are_those_of_the_definition_and_their_own_closure(
        infos in infos(),
        roots in collection::vec(any::<Index>(), 0..4),
    ) {
        let roots: Vec<_> = if infos.is_empty() { Vec::new() } else {
            roots.iter().map(|root| infos[root.index(infos.len())].path.clone()).collect()
        };
        let closure = Graph::new(infos.clone()).unwrap().closure_of(&roots).unwrap();
        let plain = plain_closure(&infos, &roots);
        prop_assert_eq!(paths(&closure).into_iter().collect::<BTreeSet<_>>(), plain);
        let again = closure.closure_of(&roots).unwrap();
        prop_assert_eq!(paths(&again), paths(&closure));
        // What a closure refers to is in it, so it is a complete graph of its own.
        let anew = Graph::new(closure.iter().cloned()).unwrap();
        prop_assert_eq!(anew.reference_count(), closure.reference_count());
        prop_assert_eq!(anew.closure_sizes().iter().sum::<u64>(), closure.closure_sizes().iter().sum::<u64>());
    }

    #[test]
    fn sizes_are_the_sums_over_closures(infos in infos()) {
        let sizes: BTreeMap<_, _> = infos.iter().map(|info| (info.path.clone(), info.nar_size)).collect();
        let graph = Graph::new(infos.clone()).unwrap();
        for (info, size) in graph.iter().zip(graph.closure_sizes()) {
            let plain = plain_closure(&infos, std::slice::from_ref(&info.path));
            prop_assert_eq!(size, plain.iter().map(|path| sizes[path]).sum::<u64>());
            prop_assert_eq!(size, graph.closure_size(&info.path).unwrap());
        }
        prop_assert_eq!(graph.total_size(), sizes.values().sum::<u64>());
    }

    #[test]
    fn a_way_exists_exactly_within_the_closure_and_each_step_is_a_reference(
        infos in infos(), from: Index, to: Index,
    ) {
        prop_assume!(!infos.is_empty());
        let [from, to] = [from, to].map(|index| infos[index.index(infos.len())].path.clone());
        let graph = Graph::new(infos.clone()).unwrap();
        let way = graph.why(&from, &to).unwrap();
        prop_assert_eq!(way.is_some(), plain_closure(&infos, std::slice::from_ref(&from)).contains(&to));
        if let Some(way) = way {
            prop_assert_eq!((way.first(), way.last()), (Some(&from), Some(&to)));
            for step in way.windows(2) {
                prop_assert!(graph.info(&step[0]).unwrap().references.contains(&step[1]));
            }
        }
    }

    #[test]
    fn levels_hold_everything_and_refer_only_below(infos in infos()) {
        let graph = Graph::new(infos.clone()).unwrap();
        let levels = graph.levels();
        prop_assert_eq!(levels.iter().map(Vec::len).sum::<usize>(), infos.len());
        let level_of: BTreeMap<_, _> = levels
            .iter()
            .enumerate()
            .flat_map(|(level, infos)| infos.iter().map(move |info| (info.path.clone(), level)))
            .collect();
        for info in &graph {
            let below = info.other_references().map(|reference| level_of[reference]).max();
            prop_assert_eq!(level_of[&info.path], below.map_or(0, |below| below + 1));
        }
    }

    #[test]
    fn a_restriction_keeps_the_order_and_the_references_among_what_it_keeps(infos in infos(), mask: u128) {
        let graph = Graph::new(infos.clone()).unwrap();
        let kept: BTreeSet<_> = infos
            .iter()
            .enumerate()
            .filter(|(index, _)| mask >> index & 1 == 1)
            .map(|(_, info)| info.path.clone())
            .collect();
        let restricted = graph.restricted_to(|info| kept.contains(&info.path));
        let expected: Vec<_> = paths(&graph).into_iter().filter(|path| kept.contains(path)).collect();
        prop_assert_eq!(paths(&restricted), expected);
        for info in &restricted {
            let expected: Vec<_> = info.other_references().filter(|r| kept.contains(*r)).collect();
            let found: Vec<_> = restricted.references(&info.path).unwrap().map(|info| &info.path).collect();
            prop_assert_eq!(found, expected);
        }
        let partial = Graph::partial(infos.into_iter().filter(|info| kept.contains(&info.path))).unwrap();
        prop_assert_eq!(partial.reference_count(), restricted.reference_count());
    }

    #[test]
    fn a_reference_back_up_makes_a_cycle(infos in infos(), from: Index, to: Index) {
        let upper: Vec<_> = infos.iter().filter(|info| info.other_references().next().is_some()).collect();
        prop_assume!(!upper.is_empty());
        let from = upper[from.index(upper.len())].path.clone();
        let mut below = plain_closure(&infos, std::slice::from_ref(&from));
        below.remove(&from);
        let to = below.iter().nth(to.index(below.len())).unwrap().clone();
        let mut infos = infos;
        let lower = infos.iter_mut().find(|info| info.path == to).unwrap();
        lower.references = lower.references.iter().cloned().chain([from]).collect();
        let by_path: BTreeMap<_, _> = infos.iter().map(|info| (info.path.clone(), info.clone())).collect();
        match Graph::new(infos) {
            Err(ncc_closure::GraphError::Cycle { paths }) => {
                prop_assert!(paths.len() > 1);
                for (path, next) in paths.iter().zip(paths.iter().cycle().skip(1)) {
                    prop_assert!(by_path[path].references.contains(next));
                }
            }
            other => prop_assert!(false, "{:?}", other.map(|graph| graph.len())),
        }
    }
}
