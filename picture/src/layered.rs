//! Places for the nodes of a graph without cycles: in layers from left to right, as Sugiyama, Tagawa and Toda laid
//! them out in 1981.
//!
//! An edge that passes layers gets a place in each of them. All long edges to one node share these places, so that
//! they run together like the strands of a cable and part only where they come from.

use std::collections::{BTreeMap, HashMap};

/// How often all layers are ordered anew.
const SWEEPS: usize = 24;
/// How often all nodes are moved towards their neighbours.
const MOVES: usize = 40;
/// Room between the places of two nodes of a layer, and between those of two edges that pass.
const GAP: f64 = 12.0;
const STRAND_GAP: f64 = 4.0;
/// So many nodes may stand in one layer; more move on to the next ones.
const FULL: usize = 36;
/// The height of a place where an edge passes.
const STRAND: f64 = 6.0;
/// How much more than one end of an edge a strand wants to be level with the next: a bend in a long line is what
/// disturbs most.
const STRAIGHTNESS: f64 = 6.0;

/// A piece of an edge, from one layer to the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Piece {
    /// The layer where it begins.
    pub(crate) layer: usize,
    /// The node where it begins, unless it only goes on there.
    pub(crate) from: Option<usize>,
    /// Where the edge ends.
    pub(crate) target: usize,
    /// Whether it ends in the next layer.
    pub(crate) arrives: bool,
    /// The heights of its ends.
    pub(crate) y: (f64, f64),
    /// How many edges run here.
    pub(crate) strands: usize,
}

/// Where everything is.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    /// For each node its layer; every edge goes to a higher one.
    pub(crate) layer: Vec<usize>,
    /// For each node the height of its middle.
    pub(crate) y: Vec<f64>,
    /// All edges, in pieces.
    pub(crate) pieces: Vec<Piece>,
    /// How many layers there are.
    pub(crate) layers: usize,
    /// How high all of it is.
    pub(crate) height: f64,
}

/// Finds the places. An edge has to go to a smaller number.
pub(crate) fn layout(edges: &[Vec<usize>], heights: &[f64]) -> Layout {
    let mut drawing = Drawing::new(edges, heights);
    drawing.order_layers();
    let y = drawing.place_vertices();
    drawing.finish(edges.len(), &y)
}

/// For each node a layer, as far to the left as may be: right of all that refer to it, and where there is room.
fn layers(edges: &[Vec<usize>]) -> Vec<usize> {
    let mut layer_of = vec![0_usize; edges.len()];
    let mut filled: Vec<usize> = Vec::new();
    for node in (0..edges.len()).rev() {
        while filled.get(layer_of[node]).is_some_and(|&count| count >= FULL) {
            layer_of[node] += 1;
        }
        let layer = layer_of[node];
        // A node is in the layer right of another one, or in the first after full ones: none is skipped.
        filled.resize(filled.len().max(layer + 1), 0);
        filled[layer] += 1;
        for &target in &edges[node] {
            layer_of[target] = layer_of[target].max(layer + 1);
        }
    }
    layer_of
}

/// Nodes, and behind them the places where edges pass.
struct Drawing {
    layer_of: Vec<usize>,
    heights: Vec<f64>,
    /// For each place to pass where the edges end there; a node for itself.
    target: Vec<usize>,
    /// How many edges run from one vertex to another in the next layer.
    strands: BTreeMap<(usize, usize), usize>,
    /// Neighbours to the left and to the right.
    left: Vec<Vec<usize>>,
    right: Vec<Vec<usize>>,
    layers: Vec<Vec<usize>>,
    nodes: usize,
}

impl Drawing {
    fn new(edges: &[Vec<usize>], heights: &[f64]) -> Self {
        let mut drawing = Self {
            layer_of: layers(edges),
            heights: heights.to_vec(),
            target: (0..edges.len()).collect(),
            strands: BTreeMap::new(),
            left: Vec::new(),
            right: Vec::new(),
            layers: Vec::new(),
            nodes: edges.len(),
        };
        let mut passing: HashMap<(usize, usize), usize> = HashMap::new();
        for (node, targets) in edges.iter().enumerate() {
            for &target in targets {
                let mut from = node;
                for layer in drawing.layer_of[node] + 1..drawing.layer_of[target] {
                    let next = *passing.entry((target, layer)).or_insert_with(|| {
                        drawing.layer_of.push(layer);
                        drawing.heights.push(STRAND);
                        drawing.target.push(target);
                        drawing.layer_of.len() - 1
                    });
                    *drawing.strands.entry((from, next)).or_default() += 1;
                    from = next;
                }
                *drawing.strands.entry((from, target)).or_default() += 1;
            }
        }
        let vertices = drawing.layer_of.len();
        drawing.left = vec![Vec::new(); vertices];
        drawing.right = vec![Vec::new(); vertices];
        for &(from, to) in drawing.strands.keys() {
            drawing.right[from].push(to);
            drawing.left[to].push(from);
        }
        drawing.fill_layers();
        drawing
    }

    /// Puts the vertices into their layers, in the order in which a walk from the left finds them.
    fn fill_layers(&mut self) {
        let deepest = self.layer_of.iter().max().map_or(0, |layer| layer + 1);
        self.layers = vec![Vec::new(); deepest];
        let mut seen = vec![false; self.layer_of.len()];
        for start in (0..self.nodes).rev().filter(|node| self.left[*node].is_empty()) {
            let mut stack = vec![start];
            while let Some(vertex) = stack.pop() {
                if !std::mem::replace(&mut seen[vertex], true) {
                    self.layers[self.layer_of[vertex]].push(vertex);
                    stack.extend(self.right[vertex].iter().rev());
                }
            }
        }
    }

    /// Orders each layer by where its neighbours are, to the right and to the left in turn, and keeps the order with
    /// the fewest crossings.
    fn order_layers(&mut self) {
        let mut best = (self.crossings(), self.layers.clone());
        for sweep in 0..SWEEPS {
            let rightwards = sweep % 2 == 0;
            let count = self.layers.len();
            for step in 1..count {
                let layer = if rightwards { step } else { count - 1 - step };
                self.order_layer(layer, rightwards);
            }
            let crossings = self.crossings();
            if crossings < best.0 {
                best = (crossings, self.layers.clone());
            }
        }
        self.layers = best.1;
    }

    fn order_layer(&mut self, layer: usize, by_left: bool) {
        let place = self.places();
        let mut keyed: Vec<(f64, usize)> = self.layers[layer]
            .iter()
            .map(|&vertex| {
                let neighbours = if by_left { &self.left[vertex] } else { &self.right[vertex] };
                let sum: f64 = neighbours.iter().map(|neighbour| place[*neighbour]).sum();
                let mean = if neighbours.is_empty() { place[vertex] } else { sum / real(neighbours.len()) };
                (mean, vertex)
            })
            .collect();
        keyed.sort_by(|left, right| left.0.total_cmp(&right.0));
        self.layers[layer] = keyed.into_iter().map(|(_, vertex)| vertex).collect();
    }

    /// For each vertex how far down in its layer it is, from 0 to 1.
    fn places(&self) -> Vec<f64> {
        let mut place = vec![0.0; self.layer_of.len()];
        for layer in &self.layers {
            for (index, &vertex) in layer.iter().enumerate() {
                place[vertex] = (real(index) + 0.5) / real(layer.len());
            }
        }
        place
    }

    fn crossings(&self) -> usize {
        let mut index = vec![0; self.layer_of.len()];
        for layer in &self.layers {
            for (place, &vertex) in layer.iter().enumerate() {
                index[vertex] = place;
            }
        }
        let mut crossings = 0;
        for pair in self.layers.windows(2) {
            // How many edges so far end at each place: a tree of sums.
            let mut ends = vec![0_usize; pair[1].len() + 1];
            let mut edges = 0;
            for &vertex in &pair[0] {
                let mut targets: Vec<_> = self.right[vertex].iter().map(|target| index[*target]).collect();
                targets.sort_unstable();
                for &target in &targets {
                    let mut before = 0;
                    let mut at = target + 1;
                    while at > 0 {
                        before += ends[at];
                        at &= at - 1;
                    }
                    crossings += edges - before;
                }
                for &target in &targets {
                    let mut at = target + 1;
                    while at < ends.len() {
                        ends[at] += 1;
                        at += at & at.wrapping_neg();
                    }
                }
                edges += targets.len();
            }
        }
        crossings
    }

    /// The height of each vertex: as near to its neighbours as its layer allows.
    fn place_vertices(&self) -> Vec<f64> {
        let mut y = vec![0.0; self.layer_of.len()];
        for layer in &self.layers {
            let offsets = self.offsets(layer);
            let middle = offsets.last().copied().unwrap_or(0.0) / 2.0;
            for (&vertex, offset) in layer.iter().zip(&offsets) {
                y[vertex] = offset - middle;
            }
        }
        for round in 0..MOVES {
            let count = self.layers.len();
            for step in 0..count {
                let layer = &self.layers[if round % 2 == 0 { step } else { count - 1 - step }];
                self.move_layer(layer, &mut y);
            }
        }
        y
    }

    /// Moves a layer to where the sum of the squares of the ways to what each vertex wishes is least, in the order
    /// that it has: a regression on ascending numbers, solved by pooling neighbours that would overlap.
    fn move_layer(&self, layer: &[usize], y: &mut [f64]) {
        let offsets = self.offsets(layer);
        // Sum of wishes times weights, sum of weights, number of vertices.
        let mut pools: Vec<(f64, f64, usize)> = Vec::new();
        for (&vertex, offset) in layer.iter().zip(&offsets) {
            let (wish, weight) = self.wish(vertex, y);
            pools.push(((wish - offset) * weight, weight, 1));
            while let [.., above, below] = pools.as_slice() {
                if above.0 / above.1 <= below.0 / below.1 {
                    break;
                }
                let pooled = (above.0 + below.0, above.1 + below.1, above.2 + below.2);
                pools.truncate(pools.len() - 2);
                pools.push(pooled);
            }
        }
        let mut rest = layer.iter().zip(&offsets);
        for (sum, weight, count) in pools {
            for (&vertex, offset) in rest.by_ref().take(count) {
                y[vertex] = sum / weight + offset;
            }
        }
    }

    /// Where a vertex would like to be, and how much.
    fn wish(&self, vertex: usize, y: &[f64]) -> (f64, f64) {
        let (mut sum, mut weights) = (0.0, 0.0);
        for &neighbour in self.left[vertex].iter().chain(&self.right[vertex]) {
            let straight = vertex >= self.nodes && self.target[vertex] == self.target[neighbour];
            let weight = if straight { STRAIGHTNESS } else { 1.0 };
            sum += y[neighbour] * weight;
            weights += weight;
        }
        if weights > 0.0 { (sum / weights, weights) } else { (y[vertex], 0.1) }
    }

    /// For each vertex of a layer how far below the first it must be.
    fn offsets(&self, layer: &[usize]) -> Vec<f64> {
        let mut offset = 0.0;
        let mut above: Option<usize> = None;
        let mut offsets = Vec::with_capacity(layer.len());
        for &vertex in layer {
            if let Some(above) = above {
                let gap = if above.min(vertex) < self.nodes { GAP } else { STRAND_GAP };
                offset += f64::midpoint(self.heights[above], self.heights[vertex]) + gap;
            }
            offsets.push(offset);
            above = Some(vertex);
        }
        offsets
    }

    fn finish(self, nodes: usize, y: &[f64]) -> Layout {
        let top = |vertex: usize| y[vertex] - self.heights[vertex] / 2.0;
        let bottom = |vertex: usize| y[vertex] + self.heights[vertex] / 2.0;
        let highest = (0..y.len()).map(top).fold(f64::INFINITY, f64::min);
        let lowest = (0..y.len()).map(bottom).fold(f64::NEG_INFINITY, f64::max);
        let pieces = self
            .strands
            .iter()
            .map(|(&(from, to), &strands)| Piece {
                layer: self.layer_of[from],
                from: (from < nodes).then_some(from),
                target: self.target[to],
                arrives: to < nodes,
                y: (y[from] - highest, y[to] - highest),
                strands,
            })
            .collect();
        Layout {
            layer: self.layer_of[..nodes].to_vec(),
            y: y[..nodes].iter().map(|y| y - highest).collect(),
            pieces,
            layers: self.layers.len(),
            height: if y.is_empty() { 0.0 } else { lowest - highest },
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "there are not that many nodes in a picture")]
fn real(number: usize) -> f64 {
    number as f64
}
