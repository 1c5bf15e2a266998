//! What is wrong with a graph, or with a question about it.

use ncc_store::StorePath;

/// Why paths make no graph, or a graph has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// A path refers to one that is not given.
    #[error("path '{path}' refers to '{reference}', which is missing")]
    MissingReference {
        /// The path.
        path: StorePath,
        /// What it refers to.
        reference: StorePath,
    },
    /// A path is given twice.
    #[error("path '{path}' is given twice")]
    Duplicate {
        /// The path.
        path: StorePath,
    },
    /// Paths refer to each other in a circle, which no store can hold.
    #[error("these paths refer to each other in a circle: {}", circle(paths))]
    Cycle {
        /// Each refers to the next and the last to the first; the smallest comes first.
        paths: Vec<StorePath>,
    },
    /// The question is about a path that is not in the graph.
    #[error("path '{path}' is not in the graph")]
    NotInGraph {
        /// The path.
        path: StorePath,
    },
    /// More paths than a graph can number.
    #[error("{paths} paths are too many")]
    TooLarge {
        /// How many were given.
        paths: usize,
    },
}

fn circle(paths: &[StorePath]) -> String {
    let mut text = String::new();
    for path in paths.iter().chain(paths.first()) {
        if !text.is_empty() {
            text.push_str(" -> ");
        }
        text.push_str(path.base_name());
    }
    text
}
