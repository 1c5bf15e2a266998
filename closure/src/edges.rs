//! Edges between numbered nodes, in two allocations.

/// The number of a node.
pub(crate) type Node = u32;

/// For each node the nodes it points to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Edges {
    /// Where each node's targets end; they begin where the ones of the node before end.
    ends: Vec<usize>,
    targets: Vec<Node>,
}

impl Edges {
    pub(crate) fn with_capacity(nodes: usize, edges: usize) -> Self {
        Self { ends: Vec::with_capacity(nodes), targets: Vec::with_capacity(edges) }
    }

    /// Adds the next node.
    pub(crate) fn push(&mut self, targets: impl IntoIterator<Item = Node>) {
        self.targets.extend(targets);
        self.ends.push(self.targets.len());
    }

    /// What a node points to.
    pub(crate) fn of(&self, node: Node) -> &[Node] {
        let node = node as usize;
        let end = self.ends.get(node).copied().unwrap_or_default();
        let start = node.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or_default();
        self.targets.get(start..end).unwrap_or_default()
    }

    pub(crate) fn nodes(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.targets.len()
    }

    /// The same edges the other way round. The targets of each node are ascending.
    pub(crate) fn reversed(&self) -> Self {
        let mut ends = vec![0_usize; self.nodes()];
        for &target in &self.targets {
            if let Some(count) = ends.get_mut(target as usize) {
                *count = count.saturating_add(1);
            }
        }
        let mut sum = 0_usize;
        for count in &mut ends {
            // For now where each begins; it moves to the end as it fills.
            let here = *count;
            *count = sum;
            sum = sum.saturating_add(here);
        }
        let mut targets = vec![0; self.targets.len()];
        for source in nodes(self.nodes()) {
            for &target in self.of(source) {
                if let Some(next) = ends.get_mut(target as usize) {
                    if let Some(place) = targets.get_mut(*next) {
                        *place = source;
                    }
                    *next = next.saturating_add(1);
                }
            }
        }
        Self { ends, targets }
    }
}

/// The first `count` nodes. [`crate::Graph`] is never larger than a [`Node`] can say.
pub(crate) fn nodes(count: usize) -> std::ops::Range<Node> {
    0..Node::try_from(count).unwrap_or(Node::MAX)
}
