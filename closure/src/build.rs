//! From metadata to a graph in topological order.

use std::{cmp::Reverse, collections::BinaryHeap, collections::HashMap, sync::Arc};

use ncc_store::{PathInfo, StorePath};

use crate::{
    Graph, GraphError,
    edges::{Edges, Node, nodes},
};

/// What to do about references to paths that are not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outside {
    Refuse,
    Ignore,
}

pub(crate) fn build(mut infos: Vec<Arc<PathInfo>>, outside: Outside) -> Result<Graph, GraphError> {
    infos.sort_unstable_by(|left, right| left.path.cmp(&right.path));
    for (left, right) in infos.iter().zip(infos.iter().skip(1)) {
        if left.path == right.path {
            return Err(GraphError::Duplicate { path: left.path.clone() });
        }
    }
    if Node::try_from(infos.len()).is_err() {
        return Err(GraphError::TooLarge { paths: infos.len() });
    }
    // Until here, and in what follows, nodes are numbered in the order of their paths.
    let references = references(&infos, outside)?;
    let order = topological_order(&infos, &references)?;

    // From here on in topological order.
    let mut by_path = vec![0; infos.len()];
    for (&old, new) in order.iter().zip(nodes(order.len())) {
        if let Some(place) = by_path.get_mut(old as usize) {
            *place = new;
        }
    }
    let renumber = |old: &Node| by_path.get(*old as usize).copied().unwrap_or_default();
    let mut renumbered = Edges::with_capacity(references.nodes(), references.len());
    let mut ordered = Vec::with_capacity(infos.len());
    for &old in &order {
        renumbered.push(references.of(old).iter().map(renumber));
        ordered.extend(infos.get(old as usize).cloned());
    }
    Ok(Graph::from_parts(ordered, by_path, renumbered))
}

fn references(infos: &[Arc<PathInfo>], outside: Outside) -> Result<Edges, GraphError> {
    let numbers: HashMap<&StorePath, Node> =
        infos.iter().map(|info| &info.path).zip(nodes(infos.len())).collect();
    let count = infos.iter().map(|info| info.references.len()).sum();
    let mut edges = Edges::with_capacity(infos.len(), count);
    let mut targets = Vec::new();
    for info in infos {
        targets.clear();
        for reference in info.other_references() {
            match numbers.get(reference) {
                Some(&number) => targets.push(number),
                None if outside == Outside::Ignore => {}
                None => {
                    let (path, reference) = (info.path.clone(), reference.clone());
                    return Err(GraphError::MissingReference { path, reference });
                }
            }
        }
        edges.push(targets.iter().copied());
    }
    Ok(edges)
}

/// References first; of all that could come next, the smallest path.
fn topological_order(infos: &[Arc<PathInfo>], references: &Edges) -> Result<Vec<Node>, GraphError> {
    let referrers = references.reversed();
    let mut waiting_for: Vec<usize> = nodes(infos.len()).map(|node| references.of(node).len()).collect();
    let mut ready: BinaryHeap<Reverse<Node>> =
        nodes(infos.len()).filter(|&node| references.of(node).is_empty()).map(Reverse).collect();
    let mut order = Vec::with_capacity(infos.len());
    while let Some(Reverse(node)) = ready.pop() {
        order.push(node);
        for &referrer in referrers.of(node) {
            if let Some(count) = waiting_for.get_mut(referrer as usize) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    ready.push(Reverse(referrer));
                }
            }
        }
    }
    if order.len() == infos.len() {
        return Ok(order);
    }
    let waits = |node: Node| waiting_for.get(node as usize).is_some_and(|&count| count > 0);
    let paths = cycle(references, infos.len(), waits)
        .into_iter()
        .filter_map(|node| infos.get(node as usize))
        .map(|info| info.path.clone())
        .collect();
    Err(GraphError::Cycle { paths })
}

/// A cycle among the nodes that wait. Each of them has a reference that waits too, so whoever follows those comes
/// round in the end.
fn cycle(references: &Edges, count: usize, waits: impl Fn(Node) -> bool) -> Vec<Node> {
    let mut walk = Vec::new();
    let mut place_in_walk: HashMap<Node, usize> = HashMap::new();
    let mut next = nodes(count).find(|&node| waits(node));
    while let Some(node) = next {
        if let Some(start) = place_in_walk.insert(node, walk.len()) {
            let mut cycle = walk.split_off(start);
            let smallest = cycle.iter().enumerate().min_by_key(|(_, node)| **node).map_or(0, |(at, _)| at);
            cycle.rotate_left(smallest);
            return cycle;
        }
        walk.push(node);
        next = references.of(node).iter().copied().find(|&reference| waits(reference));
    }
    walk
}
