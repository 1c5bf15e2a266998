//! Which lines a tree has: a graph becomes a tree, and the tree becomes as small as it must.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

use super::model::{Count, Model, State};

/// Up to so many paths are ordered by the exact sizes of their closures, which take time in proportion to paths ×
/// references. More are ordered by the heaviest way down from each. (What is written beside a path is exact always.)
const EXACT_ORDER: usize = 20_000;

/// One line of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A path, with what it refers to below it.
    Node(usize),
    /// A path that is drawn further up.
    Again(usize),
    /// What the destination has of the references of a path: one of them, and how many there are.
    Present(usize, usize),
    /// Paths that there was no room for, with everything below them that is not drawn further up.
    More(Count),
}

/// A tree as it will be drawn: each line with its depth, in their order.
#[derive(Debug, Default)]
pub(crate) struct Outline {
    /// Depth and line.
    pub(crate) lines: Vec<(usize, Line)>,
    /// Lines [`Line::Again`] and [`Line::Present`] that there was no room for.
    pub(crate) left_out: usize,
}

/// The tree with at most `lines` lines (as far as one line and one for the rest go) and levels `0..=deepest`.
pub(crate) fn outline(model: &Model, lines: usize, deepest: usize) -> Outline {
    let tree = Tree::new(model, deepest);
    let shown = tree.choose(lines);
    tree.write(shown)
}

/// The number of the place above all trees; the nodes have their own numbers.
const TOP: usize = usize::MAX;

/// All that is not present, each path in one place.
struct Tree<'a> {
    model: &'a Model,
    /// What siblings are ordered by, the largest first.
    weights: Vec<u64>,
    /// Above what a path is drawn. `None`: not in the tree, too deep down.
    parent: Vec<Option<usize>>,
    /// Where it comes in the whole tree.
    place: Vec<usize>,
    /// In how many levels it is.
    depth: Vec<usize>,
    /// What is drawn below each, as new.
    children: HashMap<usize, Vec<usize>>,
    /// What is only found below each where the tree may not go.
    too_deep: HashMap<usize, Count>,
    /// Everything in the subtree of each, what is too deep included.
    subtree: Vec<Count>,
    /// Nodes in the order of the whole tree.
    order: Vec<usize>,
    /// What stands at the top, new or not.
    tops: Vec<usize>,
    /// The last level.
    deepest: usize,
}

impl<'a> Tree<'a> {
    fn new(model: &'a Model, deepest: usize) -> Self {
        let count = model.len();
        let mut tree = Self {
            model,
            weights: weights(model),
            parent: vec![None; count],
            place: vec![usize::MAX; count],
            depth: vec![0; count],
            children: HashMap::new(),
            too_deep: HashMap::new(),
            subtree: vec![Count::default(); count],
            order: Vec::with_capacity(count),
            tops: Vec::new(),
            deepest,
        };
        let mut tops = model.roots().to_vec();
        tree.widest_first(&mut tops);
        let mut reached = vec![false; count];
        for &root in &tops {
            tree.grow(root, &mut reached);
        }
        tree.descend(0, &mut reached);
        // Outputs of derivations come along although nothing refers to them.
        for node in (0..count).rev() {
            if !reached[node] && model.state(node) != State::Present {
                let from = tree.order.len();
                tops.push(node);
                tree.grow(node, &mut reached);
                tree.descend(from, &mut reached);
            }
        }
        tree.tops = tops;
        tree.add_up();
        tree
    }

    fn widest_first(&self, nodes: &mut [usize]) {
        nodes.sort_by_key(|&node| (Reverse(self.weights[node]), &self.model.info(node).path));
    }

    /// Gives `top` and all that is reached first from it a place, as deep as it may go.
    fn grow(&mut self, top: usize, reached: &mut [bool]) {
        let mut ways = vec![(TOP, vec![top].into_iter())];
        while let Some((parent, rest)) = ways.last_mut() {
            let parent = *parent;
            let Some(node) = rest.next() else {
                ways.pop();
                continue;
            };
            if reached[node] || self.model.state(node) == State::Present {
                continue;
            }
            reached[node] = true;
            self.parent[node] = Some(parent);
            self.place[node] = self.order.len();
            self.depth[node] = ways.len() - 1;
            self.order.push(node);
            self.children.entry(parent).or_default().push(node);
            if ways.len() <= self.deepest {
                let mut below = self.model.references(node).to_vec();
                self.widest_first(&mut below);
                ways.push((node, below.into_iter()));
            }
        }
    }

    /// Counts what is only found below the deepest level, from the place `from` of the tree on.
    fn descend(&mut self, from: usize, reached: &mut [bool]) {
        for place in from..self.order.len() {
            let node = self.order[place];
            let mut count = Count::default();
            let mut stack = vec![node];
            while let Some(above) = stack.pop() {
                for &below in self.model.references(above) {
                    if !reached[below] && self.model.state(below) != State::Present {
                        reached[below] = true;
                        count.add(self.model.count(below));
                        stack.push(below);
                    }
                }
            }
            if count.paths > 0 {
                self.too_deep.insert(node, count);
            }
        }
    }

    fn add_up(&mut self) {
        for &node in self.order.iter().rev() {
            self.subtree[node].add(self.model.count(node));
            self.subtree[node].add(self.too_deep.get(&node).copied().unwrap_or_default());
            let sum = self.subtree[node];
            if let Some(parent) = self.parent[node].filter(|parent| *parent != TOP) {
                self.subtree[parent].add(sum);
            }
        }
    }

    fn children(&self, parent: usize) -> &[usize] {
        self.children.get(&parent).map_or(&[], Vec::as_slice)
    }

    /// The nodes to draw, with as many other lines as there is room for: the heaviest first, and none without the one
    /// above it.
    fn choose(&self, lines: usize) -> Shown {
        let mut shown = Shown { nodes: vec![false; self.model.len()], room: 0 };
        let key = |node: usize| (self.weights[node], Reverse(self.place[node]), node);
        let mut waiting: HashMap<usize, usize> = HashMap::new();
        let mut heap: BinaryHeap<_> = self.children(TOP).iter().map(|&node| key(node)).collect();
        waiting.insert(TOP, heap.len());
        // A line for the rest, at first for all.
        let mut used = usize::from(!heap.is_empty());
        while let Some((_, _, node)) = heap.pop() {
            let parent = self.parent[node].unwrap_or(TOP);
            let siblings = waiting.get(&parent).copied().unwrap_or_default();
            let below = self.children(node);
            // The node, and one for what is below it; but no more one for the rest of its siblings if it is the last.
            let last = siblings == 1 && !self.too_deep.contains_key(&parent);
            let more = usize::from(!below.is_empty() || self.too_deep.contains_key(&node));
            let needed = used + 1 + more - usize::from(last);
            if needed > lines && used > 1 {
                break;
            }
            used = needed;
            shown.nodes[node] = true;
            waiting.insert(parent, siblings - 1);
            waiting.insert(node, below.len());
            heap.extend(below.iter().map(|&node| key(node)));
        }
        shown.room = lines.saturating_sub(used);
        shown
    }

    fn write(&self, mut shown: Shown) -> Outline {
        let mut outline = Outline::default();
        let mut ways = vec![self.lines_below(TOP, &mut shown, &mut outline.left_out).into_iter()];
        while let Some(lines) = ways.last_mut() {
            let Some(line) = lines.next() else {
                ways.pop();
                continue;
            };
            outline.lines.push((ways.len() - 1, line));
            if let Line::Node(node) = line {
                ways.push(self.lines_below(node, &mut shown, &mut outline.left_out).into_iter());
            }
        }
        outline
    }

    /// What stands directly below a node.
    fn lines_below(&self, parent: usize, shown: &mut Shown, left_out: &mut usize) -> Vec<Line> {
        let top = parent == TOP;
        let mut below = if top { self.tops.clone() } else { self.model.references(parent).to_vec() };
        if !top {
            self.widest_first(&mut below);
        }
        let mut more = self.too_deep.get(&parent).copied().unwrap_or_default();
        let (mut lines, mut present) = (Vec::new(), Vec::new());
        for node in below {
            if self.model.state(node) == State::Present {
                present.push(node);
            } else if self.parent[node] == Some(parent) {
                if shown.nodes[node] {
                    lines.push(Line::Node(node));
                } else {
                    more.add(self.subtree[node]);
                }
            } else if self.parent[node].is_none() {
                // Too deep, and counted with the rest here or elsewhere.
            } else if self.drawn_before(node, parent, shown) && shown.take_room() {
                lines.push(Line::Again(node));
            } else {
                *left_out += 1;
            }
        }
        if more.paths > 0 {
            lines.push(Line::More(more));
        }
        // Of a root each one matters, of other references their number does.
        if top {
            for node in present {
                if shown.take_room() {
                    lines.push(Line::Present(node, 1));
                } else {
                    *left_out += 1;
                }
            }
        } else if let Some(&first) = present.first() {
            if shown.take_room() {
                lines.push(Line::Present(first, present.len()));
            } else {
                *left_out += 1;
            }
        }
        lines
    }

    /// Whether a line above those below `parent` has the path. Only at the deepest level it may still come.
    fn drawn_before(&self, node: usize, parent: usize, shown: &Shown) -> bool {
        let comes_later = parent != TOP && self.place[node] > self.place[parent];
        shown.nodes[node] && !(comes_later && self.depth[parent] == self.deepest)
    }
}

struct Shown {
    nodes: Vec<bool>,
    /// Lines that are left for what is drawn already or present.
    room: usize,
}

impl Shown {
    fn take_room(&mut self) -> bool {
        let has = self.room > 0;
        self.room = self.room.saturating_sub(1);
        has
    }
}

fn weights(model: &Model) -> Vec<u64> {
    if model.len() <= EXACT_ORDER {
        return model.moving_sizes();
    }
    let mut weights = vec![0_u64; model.len()];
    for node in 0..model.len() {
        if model.state(node) != State::Present {
            let heaviest = model.references(node).iter().map(|below| weights[*below]).max().unwrap_or(0);
            weights[node] = heaviest.saturating_add(model.info(node).nar_size);
        }
    }
    weights
}
