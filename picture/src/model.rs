//! What both pictures are drawn from: the plan as a graph, with a state, a label and sizes for each path.

use std::{collections::HashMap, sync::Arc};

use ncc_closure::{Graph, GraphError};
use ncc_copy::Plan;
use ncc_store::{PathInfo, StorePath};

use ncc_progress::human::{bytes as human, nar};

/// Fewest characters of a digest that are shown where names are ambiguous.
const SHORTEST_DIGEST: usize = 4;

/// What happens to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// It goes over the wire.
    Send,
    /// The destination gets it from somewhere else.
    Substituted,
    /// The destination has it.
    Present,
}

impl State {
    /// All of them, in the order in which they are told.
    pub(crate) const ALL: [Self; 3] = [Self::Send, Self::Substituted, Self::Present];

    /// How it is called.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Send => "to send",
            Self::Substituted => "substituted",
            Self::Present => "present",
        }
    }
}

/// Bytes that belong to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Its NAR.
    pub(crate) nar: u64,
    /// Its closure, as far as it is to send.
    pub(crate) to_send: u64,
    /// Its whole closure.
    pub(crate) closure: u64,
}

/// How many paths, and how many bytes their NARs have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Paths.
    pub(crate) paths: usize,
    /// Bytes.
    pub(crate) bytes: u64,
}

impl Count {
    /// One more path, or many.
    pub(crate) fn add(&mut self, other: Self) {
        self.paths += other.paths;
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    /// `1 path, 96 B`, `3 paths, 4.2 KiB`.
    pub(crate) fn text(self) -> String {
        let plural = if self.paths == 1 { "" } else { "s" };
        let size = if self.paths == 0 { human(0) } else { nar(self.bytes) };
        format!("{} path{plural}, {size}", self.paths)
    }
}

/// A plan, numbered: nodes are numbers in topological order, each reference goes to a smaller one.
pub(crate) struct Model {
    graph: Graph,
    /// Without what is present.
    moving: Graph,
    /// Only what is to send.
    sent: Graph,
    states: Vec<State>,
    references: Vec<Vec<usize>>,
    /// Characters of the digest to show.
    digest_lengths: Vec<usize>,
    roots: Vec<usize>,
    totals: [Count; 3],
}

impl Model {
    /// The model of a plan.
    ///
    /// # Errors
    /// [`GraphError::Cycle`] for a plan that was not made by `ncc_copy::plan`.
    pub(crate) fn new(plan: &Plan) -> Result<Self, GraphError> {
        Self::with_states(
            &plan.roots,
            &[
                (State::Present, &plan.present),
                (State::Substituted, &plan.substituted),
                (State::Send, &plan.to_send),
            ],
        )
    }

    /// The model of paths in groups. Where a path is in two, the first counts.
    pub(crate) fn with_states(
        roots: &[StorePath],
        groups: &[(State, &[Arc<PathInfo>])],
    ) -> Result<Self, GraphError> {
        let mut state_of: HashMap<&StorePath, State> = HashMap::new();
        let mut infos = Vec::new();
        for (state, group) in groups {
            for info in *group {
                state_of.entry(&info.path).or_insert_with(|| {
                    infos.push(Arc::clone(info));
                    *state
                });
            }
        }
        let graph = Graph::partial(infos)?;
        let state = |info: &PathInfo| state_of.get(&info.path).copied().unwrap_or(State::Present);
        let moving = graph.restricted_to(|info| state(info) != State::Present);
        let sent = graph.restricted_to(|info| state(info) == State::Send);
        let states: Vec<_> = graph.iter().map(|info| state(info)).collect();

        let number: HashMap<&StorePath, usize> =
            graph.iter().enumerate().map(|(node, info)| (&info.path, node)).collect();
        let references = graph
            .iter()
            .map(|info| info.other_references().filter_map(|path| number.get(path).copied()).collect())
            .collect();
        let mut roots: Vec<_> = roots.iter().filter_map(|root| number.get(root).copied()).collect();
        roots.sort_unstable();
        roots.dedup();

        let mut totals = [Count::default(); 3];
        for (info, state) in graph.iter().zip(&states) {
            totals[*state as usize].add(Count { paths: 1, bytes: info.nar_size });
        }
        let digest_lengths = digest_lengths(&graph);
        drop(number);
        Ok(Self { graph, moving, sent, states, references, digest_lengths, roots, totals })
    }

    /// How many paths.
    pub(crate) fn len(&self) -> usize {
        self.states.len()
    }

    /// The paths that were asked for, ascending.
    pub(crate) fn roots(&self) -> &[usize] {
        &self.roots
    }

    /// What happens to a path.
    pub(crate) fn state(&self, node: usize) -> State {
        self.states[node]
    }

    /// What a path refers to, other than itself.
    pub(crate) fn references(&self, node: usize) -> &[usize] {
        &self.references[node]
    }

    /// What is recorded about a path.
    pub(crate) fn info(&self, node: usize) -> &PathInfo {
        &self.graph.iter().as_slice()[node]
    }

    /// A path by itself.
    pub(crate) fn count(&self, node: usize) -> Count {
        Count { paths: 1, bytes: self.info(node).nar_size }
    }

    /// What of the closure is in that state.
    pub(crate) fn total(&self, state: State) -> Count {
        self.totals[state as usize]
    }

    /// The whole closure.
    pub(crate) fn total_of_all(&self) -> Count {
        let mut sum = Count::default();
        self.totals.iter().for_each(|total| sum.add(*total));
        sum
    }

    /// The name of a path, after as much of its digest as tells it from others of the same name.
    pub(crate) fn label(&self, node: usize, ellipsis: &str) -> String {
        let path = &self.info(node).path;
        let shown = path.digest().get(..self.digest_lengths[node]).unwrap_or_default();
        if shown.is_empty() {
            return path.name().to_owned();
        }
        format!("{shown}{ellipsis}-{}", path.name())
    }

    /// The sizes of some paths, in their order; exact.
    pub(crate) fn sizes(&self, nodes: &[usize]) -> Vec<Sizes> {
        let paths: Vec<_> = nodes.iter().map(|node| self.info(*node).path.clone()).collect();
        let whole = closure_sizes(&self.graph, &paths);
        let to_send = closure_sizes(&self.sent, &paths);
        nodes
            .iter()
            .zip(whole.into_iter().zip(to_send))
            .map(|(node, (closure, to_send))| Sizes { nar: self.info(*node).nar_size, to_send, closure })
            .collect()
    }

    /// For each path the size of its closure without what is present, exact.
    pub(crate) fn moving_sizes(&self) -> Vec<u64> {
        let mut sizes = self.moving.closure_sizes().into_iter();
        let size = |state: &State| if *state == State::Present { 0 } else { sizes.next().unwrap_or(0) };
        self.states.iter().map(size).collect()
    }
}

/// 0 for those that are not in the graph. (Nothing that is present refers to something that is to send, so a graph of
/// the latter gives what they have of it in their closure.)
fn closure_sizes(graph: &Graph, paths: &[StorePath]) -> Vec<u64> {
    let known: Vec<_> = paths.iter().filter(|path| graph.contains(path)).cloned().collect();
    let mut sizes = graph.closure_sizes_of(&known).unwrap_or_default().into_iter();
    paths.iter().map(|path| if graph.contains(path) { sizes.next().unwrap_or(0) } else { 0 }).collect()
}

/// 0 where a name is unique, else as many characters as tell all paths of that name apart.
fn digest_lengths(graph: &Graph) -> Vec<usize> {
    let mut lengths = vec![0; graph.len()];
    let mut by_name: Vec<(&str, &str, usize)> =
        graph.iter().enumerate().map(|(node, info)| (info.path.name(), info.path.digest(), node)).collect();
    by_name.sort_unstable();
    for group in by_name.chunk_by(|left, right| left.0 == right.0).filter(|group| group.len() > 1) {
        let common = |pair: &[(&str, &str, usize)]| {
            pair[0].1.bytes().zip(pair[1].1.bytes()).take_while(|(left, right)| left == right).count()
        };
        let longest = group.windows(2).map(common).max().unwrap_or(0);
        for (_, _, node) in group {
            lengths[*node] = SHORTEST_DIGEST.max(longest + 1);
        }
    }
    lengths
}

/// Cuts the middle out of a text that is too wide, so that the beginning and the version at the end stay.
pub(crate) fn cut_middle(text: &str, width: usize, ellipsis: &str) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let Some(kept) = width.checked_sub(ellipsis.chars().count()) else {
        return text.chars().take(width).collect();
    };
    let tail = kept / 2;
    let head: String = text.chars().take(kept - tail).collect();
    let tail: String = text.chars().skip(length - tail).collect();
    format!("{head}{ellipsis}{tail}")
}
