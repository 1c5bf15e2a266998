//! What of a closure is drawn as a graph: all of a small one, the largest paths of a large one; and of the edges those
//! that do not follow from others.

use std::cmp::Reverse;

use super::model::{Count, Model, State};

/// Up to so many paths are all drawn.
const ALL: usize = 200;
/// So many are drawn of more: what a person can still look over.
const LARGEST: usize = 120;
/// So many of those may be present, as long as there is something to send: the picture is about what moves.
const PRESENT: usize = 40;
/// Roots come first, but leave room for others.
const ROOTS: usize = 40;
/// From so many paths on, edges that follow from others are left out.
const ALL_EDGES: usize = 16;

/// A graph to draw.
#[derive(Debug, Default)]
pub(crate) struct Sketch {
    /// The nodes of the model, in topological order: an edge goes to one further to the front.
    pub(crate) nodes: Vec<usize>,
    /// For each of them which of them it points to: places in `nodes`, ascending.
    pub(crate) edges: Vec<Vec<usize>>,
    /// What is not drawn, for each state.
    pub(crate) left_out: [Count; 3],
    /// Edges that are not drawn because a longer way says the same.
    pub(crate) implied: usize,
}

impl Sketch {
    /// Chooses.
    pub(crate) fn new(model: &Model) -> Self {
        let nodes = choose(model);
        let mut sketch = Self { edges: contract(model, &nodes), nodes, ..Self::default() };
        let mut drawn = sketch.nodes.iter().copied().peekable();
        for node in 0..model.len() {
            if drawn.next_if_eq(&node).is_none() {
                sketch.left_out[model.state(node) as usize].add(model.count(node));
            }
        }
        if sketch.nodes.len() >= ALL_EDGES {
            sketch.implied = reduce(&mut sketch.edges);
        }
        sketch
    }

    /// Whether there is something that is not drawn.
    pub(crate) fn is_partial(&self) -> bool {
        self.left_out.iter().any(|count| count.paths > 0)
    }
}

fn choose(model: &Model) -> Vec<usize> {
    if model.len() <= ALL {
        return (0..model.len()).collect();
    }
    let mut by_size: Vec<_> = (0..model.len()).collect();
    by_size.sort_by_key(|&node| {
        let present = model.state(node) == State::Present;
        (present, Reverse(model.info(node).nar_size), &model.info(node).path)
    });
    let mut roots = model.roots().to_vec();
    roots.sort_by_key(|&node| (Reverse(model.info(node).nar_size), node));
    roots.truncate(ROOTS);

    let mut nodes = roots;
    let mut present = 0;
    let nothing_moves = model.total(State::Present).paths == model.len();
    for node in by_size {
        if nodes.len() >= LARGEST {
            break;
        }
        if nodes.contains(&node) {
            continue;
        }
        if model.state(node) == State::Present {
            present += 1;
            if present > PRESENT && !nothing_moves {
                break;
            }
        }
        nodes.push(node);
    }
    nodes.sort_unstable();
    nodes
}

/// Edges between the chosen nodes: references, and ways over nodes that are not chosen.
fn contract(model: &Model, nodes: &[usize]) -> Vec<Vec<usize>> {
    let mut place = vec![None; model.len()];
    for (number, &node) in nodes.iter().enumerate() {
        place[node] = Some(number);
    }
    // For each node the chosen ones that it reaches without passing another; references have smaller numbers.
    let mut reached: Vec<Set> = Vec::with_capacity(model.len());
    for node in 0..model.len() {
        let mut set = Set::new(nodes.len());
        for &reference in model.references(node) {
            match place[reference] {
                Some(number) => set.insert(number),
                None => set.unite(&reached[reference]),
            }
        }
        reached.push(set);
    }
    nodes.iter().map(|&node| reached[node].iter().collect()).collect()
}

/// Takes away every edge whose ends are connected by a longer way too, and says how many those were.
fn reduce(edges: &mut [Vec<usize>]) -> usize {
    let mut reached: Vec<Set> = Vec::with_capacity(edges.len());
    let mut removed = 0;
    for targets in edges.iter_mut() {
        let mut set = Set::new(reached.capacity());
        let before = targets.len();
        let mut kept = Vec::new();
        // From the back: no way leads from a target to one behind it.
        for &target in targets.iter().rev() {
            if !set.contains(target) {
                kept.push(target);
                set.insert(target);
                set.unite(&reached[target]);
            }
        }
        kept.reverse();
        removed += before - kept.len();
        *targets = kept;
        reached.push(set);
    }
    removed
}

/// Small numbers.
struct Set(Vec<u64>);

impl Set {
    fn new(limit: usize) -> Self {
        Self(vec![0; limit.div_ceil(64)])
    }

    fn insert(&mut self, number: usize) {
        self.0[number / 64] |= 1 << (number % 64);
    }

    fn contains(&self, number: usize) -> bool {
        self.0[number / 64] & (1 << (number % 64)) != 0
    }

    fn unite(&mut self, other: &Self) {
        for (word, others) in self.0.iter_mut().zip(&other.0) {
            *word |= others;
        }
    }

    /// Ascending.
    fn iter(&self) -> impl Iterator<Item = usize> {
        (0..self.0.len() * 64).filter(|&number| self.contains(number))
    }
}
