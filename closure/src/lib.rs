//! Graphs of store paths: what refers to what, and what follows from it.
//!
//! A [`Graph`] is made of [`PathInfo`](ncc_store::PathInfo)s, however a store got them, and answers without asking
//! the store again: the closure of some paths, an order in which they can be registered, how large everything below a
//! path is, and why one path is in the closure of another.
//!
//! ```
//! use ncc_closure::Graph;
//! use ncc_store::test_util::MemoryStore;
//!
//! let store = MemoryStore::new("this machine");
//! let libc = store.add("libc", "...", &[]);
//! let library = store.add("library", "...", &[libc.clone()]);
//! let program = store.add("program", "...", &[library.clone()]);
//! let unrelated = store.add("unrelated", "...", &[]);
//!
//! let graph = Graph::new(store.infos(&store.paths()).iter().cloned())?;
//! let closure = graph.closure_of(&[program.clone()])?;
//! assert_eq!(closure.len(), 3);
//! assert!(!closure.contains(&unrelated));
//!
//! let order: Vec<_> = closure.iter().map(|info| info.path.clone()).collect();
//! assert_eq!(order, [libc.clone(), library.clone(), program.clone()], "references come first");
//! assert_eq!(graph.why(&program, &libc)?, Some(vec![program, library, libc]));
//! # Ok::<(), ncc_closure::GraphError>(())
//! ```
//!
//! A graph holds indices, not texts: 100,000 paths with a million references take about 10 MB beside the metadata, and
//! nothing here recurses.

// References come from a peer or a damaged database: no panics.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::arithmetic_side_effects
    )
)]

mod build;
mod edges;
mod error;
mod graph;
mod sizes;

pub use error::GraphError;
pub use graph::Graph;

/// The example in README.md is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
