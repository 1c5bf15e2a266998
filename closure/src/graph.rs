//! [`Graph`] and the questions it answers by walking.

use std::{collections::VecDeque, sync::Arc};

use ncc_store::{PathInfo, StorePath};

use crate::{
    GraphError,
    build::{Outside, build},
    edges::{Edges, Node, nodes},
};

/// Store paths and what they refer to. Has no cycles: references of a path to itself do not count.
///
/// Cheap to restrict, since the metadata is shared.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// In topological order: every reference goes to a smaller number.
    infos: Vec<Arc<PathInfo>>,
    /// The numbers in ascending order of their paths.
    by_path: Vec<Node>,
    references: Edges,
    referrers: Edges,
}

impl Graph {
    /// A graph of paths that is complete: whatever they refer to is among them.
    ///
    /// # Errors
    /// [`GraphError::MissingReference`], [`GraphError::Duplicate`], [`GraphError::Cycle`].
    pub fn new<I>(infos: I) -> Result<Self, GraphError>
    where
        I: IntoIterator<Item: Into<Arc<PathInfo>>>,
    {
        build(infos.into_iter().map(Into::into).collect(), Outside::Refuse)
    }

    /// A graph of some paths, for instance those that a destination lacks. References to others do not count.
    ///
    /// # Errors
    /// [`GraphError::Duplicate`], [`GraphError::Cycle`].
    pub fn partial<I>(infos: I) -> Result<Self, GraphError>
    where
        I: IntoIterator<Item: Into<Arc<PathInfo>>>,
    {
        build(infos.into_iter().map(Into::into).collect(), Outside::Ignore)
    }

    pub(crate) fn from_parts(infos: Vec<Arc<PathInfo>>, by_path: Vec<Node>, references: Edges) -> Self {
        let referrers = references.reversed();
        Self { infos, by_path, references, referrers }
    }

    /// How many paths.
    pub fn len(&self) -> usize {
        self.infos.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.infos.is_empty()
    }

    /// How many references, those of a path to itself aside.
    pub fn reference_count(&self) -> usize {
        self.references.len()
    }

    /// All paths in topological order: each after everything it refers to. A destination can take them in this order.
    ///
    /// The order depends on the paths and their references only; of those that could come next it is the smallest.
    pub fn iter(&self) -> std::slice::Iter<'_, Arc<PathInfo>> {
        self.infos.iter()
    }

    /// What is recorded about a path.
    pub fn info(&self, path: &StorePath) -> Option<&Arc<PathInfo>> {
        self.find(path).ok().and_then(|node| self.at(node))
    }

    /// Whether a path is in the graph.
    pub fn contains(&self, path: &StorePath) -> bool {
        self.find(path).is_ok()
    }

    /// What a path refers to, other than itself, in ascending order.
    ///
    /// # Errors
    /// [`GraphError::NotInGraph`].
    pub fn references(&self, path: &StorePath) -> Result<impl Iterator<Item = &Arc<PathInfo>>, GraphError> {
        let node = self.find(path)?;
        Ok(self.references.of(node).iter().filter_map(|&node| self.at(node)))
    }

    /// What refers to a path, other than itself, in topological order.
    ///
    /// # Errors
    /// [`GraphError::NotInGraph`].
    pub fn referrers(&self, path: &StorePath) -> Result<impl Iterator<Item = &Arc<PathInfo>>, GraphError> {
        let node = self.find(path)?;
        Ok(self.referrers.of(node).iter().filter_map(|&node| self.at(node)))
    }

    /// The paths that no other path refers to, in topological order.
    pub fn roots(&self) -> impl Iterator<Item = &Arc<PathInfo>> {
        self.infos
            .iter()
            .zip(nodes(self.len()))
            .filter_map(|(info, node)| self.referrers.of(node).is_empty().then_some(info))
    }

    /// The paths with the length of the longest way down from each: level 0 refers to nothing, level 1 to level 0
    /// only, and so on. All paths of one level can be registered at once when the levels before are.
    pub fn levels(&self) -> Vec<Vec<Arc<PathInfo>>> {
        let mut level_of = vec![0_usize; self.len()];
        let mut levels: Vec<Vec<Arc<PathInfo>>> = Vec::new();
        for (info, node) in self.infos.iter().zip(nodes(self.len())) {
            let below =
                self.references.of(node).iter().filter_map(|&reference| level_of.get(reference as usize));
            let level = below.max().map_or(0, |below| below.saturating_add(1));
            if let Some(place) = level_of.get_mut(node as usize) {
                *place = level;
            }
            // References are numbered before, so a level is never skipped.
            match levels.get_mut(level) {
                Some(paths) => paths.push(Arc::clone(info)),
                None => levels.push(vec![Arc::clone(info)]),
            }
        }
        levels
    }

    /// `roots` and everything that they refer to, directly or not.
    ///
    /// # Errors
    /// [`GraphError::NotInGraph`] for a root that is not in the graph.
    pub fn closure_of(&self, roots: &[StorePath]) -> Result<Self, GraphError> {
        self.closure_with_outputs(roots, |_| [])
    }

    /// The closure of `roots` with the outputs of every derivation in it, and what those refer to.
    ///
    /// `outputs` says what a derivation makes. Outputs that are not in the graph are left out: nothing says that a
    /// derivation was ever built.
    ///
    /// # Errors
    /// [`GraphError::NotInGraph`] for a root that is not in the graph.
    pub fn closure_with_outputs<I>(
        &self,
        roots: &[StorePath],
        mut outputs: impl FnMut(&StorePath) -> I,
    ) -> Result<Self, GraphError>
    where
        I: IntoIterator<Item = StorePath>,
    {
        let mut stack = roots.iter().map(|root| self.find(root)).collect::<Result<Vec<_>, _>>()?;
        let mut keep = vec![false; self.len()];
        while let Some(node) = stack.pop() {
            match keep.get_mut(node as usize) {
                Some(seen) if !*seen => *seen = true,
                _ => continue,
            }
            stack.extend_from_slice(self.references.of(node));
            if let Some(info) = self.at(node).filter(|info| info.path.is_derivation()) {
                stack.extend(outputs(&info.path).into_iter().filter_map(|output| self.find(&output).ok()));
            }
        }
        Ok(self.keeping(&keep))
    }

    /// Only the paths for which `keep` is true, and the references among them. Their order stays.
    #[must_use]
    pub fn restricted_to(&self, mut keep: impl FnMut(&PathInfo) -> bool) -> Self {
        self.keeping(&self.infos.iter().map(|info| keep(info)).collect::<Vec<_>>())
    }

    fn keeping(&self, keep: &[bool]) -> Self {
        let mut infos = Vec::new();
        let mut renumbered = vec![None; self.len()];
        let mut next = nodes(self.len());
        for ((info, &keep), place) in self.infos.iter().zip(keep).zip(&mut renumbered) {
            if keep {
                *place = next.next();
                infos.push(Arc::clone(info));
            }
        }
        let renumber = |old: &Node| renumbered.get(*old as usize).copied().flatten();
        let mut references = Edges::with_capacity(infos.len(), 0);
        for old in nodes(self.len()).filter(|old| renumber(old).is_some()) {
            references.push(self.references.of(old).iter().filter_map(renumber));
        }
        let by_path = self.by_path.iter().filter_map(renumber).collect();
        Self::from_parts(infos, by_path, references)
    }

    /// Why `to` is in the closure of `from`: a shortest way from one to the other, both included. `None` if it is not.
    ///
    /// # Errors
    /// [`GraphError::NotInGraph`] for either.
    pub fn why(&self, from: &StorePath, to: &StorePath) -> Result<Option<Vec<StorePath>>, GraphError> {
        let (start, target) = (self.find(from)?, self.find(to)?);
        // Backwards, so that following the marks gives the way forwards.
        let mut next_step: Vec<Option<Node>> = vec![None; self.len()];
        let mut queue = VecDeque::from([target]);
        while let Some(node) = queue.pop_front() {
            if node == start {
                return Ok(Some(self.follow(start, target, &next_step)));
            }
            for &referrer in self.referrers.of(node) {
                if let Some(step @ None) = next_step.get_mut(referrer as usize) {
                    *step = Some(node);
                    queue.push_back(referrer);
                }
            }
        }
        Ok(None)
    }

    fn follow(&self, start: Node, target: Node, next_step: &[Option<Node>]) -> Vec<StorePath> {
        let mut way = Vec::new();
        let mut here = Some(start);
        while let Some(node) = here {
            way.extend(self.at(node).map(|info| info.path.clone()));
            here = if node == target { None } else { next_step.get(node as usize).copied().flatten() };
        }
        way
    }

    pub(crate) fn find(&self, path: &StorePath) -> Result<Node, GraphError> {
        let by = |node: &Node| self.at(*node).map(|info| &info.path).cmp(&Some(path));
        let place = self.by_path.binary_search_by(by).ok();
        place
            .and_then(|place| self.by_path.get(place).copied())
            .ok_or_else(|| GraphError::NotInGraph { path: path.clone() })
    }

    pub(crate) fn below(&self, node: Node) -> &[Node] {
        self.references.of(node)
    }

    fn at(&self, node: Node) -> Option<&Arc<PathInfo>> {
        self.infos.get(node as usize)
    }
}

impl<'a> IntoIterator for &'a Graph {
    type Item = &'a Arc<PathInfo>;
    type IntoIter = std::slice::Iter<'a, Arc<PathInfo>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
