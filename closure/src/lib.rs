//! Graphs of store paths: closures, topological order, sizes, paths between
