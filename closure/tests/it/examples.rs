use std::time::{Duration, Instant};

use ncc_closure::{Graph, GraphError};
use ncc_store::{PathInfo, StorePath};

use crate::{info, path};

/// Named edges: `("a", "bc")` is a path a that refers to b and c. Paths are ordered as the letters are.
fn graph(edges: &[(&str, &str)]) -> Result<Graph, GraphError> {
    Graph::new(infos(edges))
}

fn infos(edges: &[(&str, &str)]) -> Vec<PathInfo> {
    edges
        .iter()
        .map(|(from, to)| info(&named(from), to.split("").filter(|t| !t.is_empty()).map(named)))
        .collect()
}

fn named(letter: &str) -> StorePath {
    path(letter.bytes().next().unwrap().into(), letter)
}

fn names<'a>(infos: impl IntoIterator<Item = &'a std::sync::Arc<PathInfo>>) -> String {
    infos.into_iter().map(|info| info.path.name().to_owned()).collect()
}

#[test]
fn paths_come_after_their_references_and_otherwise_in_ascending_order() {
    let graph = graph(&[("a", "d"), ("b", ""), ("c", "ac"), ("d", "d"), ("e", "")]).unwrap();
    assert_eq!(names(&graph), "bdace");
    assert_eq!(graph.reference_count(), 2, "references to itself do not count");
    assert_eq!(names(graph.roots()), "bce");
    let levels: Vec<_> = graph.levels().iter().map(names).collect();
    assert_eq!(levels, ["bde", "a", "c"]);
}

#[test]
fn references_and_referrers() {
    let graph = graph(&[("a", "bc"), ("b", "c"), ("c", "c")]).unwrap();
    assert_eq!(names(graph.references(&named("a")).unwrap()), "bc");
    assert_eq!(names(graph.references(&named("c")).unwrap()), "");
    assert_eq!(names(graph.referrers(&named("c")).unwrap()), "ba");
    assert_eq!(graph.info(&named("b")).unwrap().path, named("b"));
    assert!(graph.referrers(&named("x")).is_err());
    assert!(graph.info(&named("x")).is_none());
}

#[test]
fn a_cycle_is_named_from_its_smallest_path_on() {
    // The way into the cycle, a -> d, and what hangs below, e, are no part of it.
    let error = graph(&[("a", "d"), ("b", "ce"), ("c", "d"), ("d", "b"), ("e", "")]).unwrap_err();
    assert_eq!(error, GraphError::Cycle { paths: vec![named("b"), named("c"), named("d")] });
    let text = error.to_string();
    assert!(
        text.ends_with(&format!("{0} -> {1} -> {2} -> {0}", named("b"), named("c"), named("d"))),
        "{text}"
    );
}

#[test]
fn a_missing_reference_is_an_error_unless_the_graph_is_partial() {
    let edges = [("a", "bx"), ("b", "")];
    let error = graph(&edges).unwrap_err();
    assert_eq!(error, GraphError::MissingReference { path: named("a"), reference: named("x") });
    assert_eq!(names(&Graph::partial(infos(&edges)).unwrap()), "ba");
}

#[test]
fn a_path_given_twice_is_an_error() {
    let error = graph(&[("a", ""), ("b", ""), ("a", "b")]).unwrap_err();
    assert_eq!(error, GraphError::Duplicate { path: named("a") });
}

#[test]
fn a_closure_holds_what_its_roots_need_and_nothing_else() {
    let graph = graph(&[("a", "b"), ("b", "c"), ("c", ""), ("d", "c"), ("e", "")]).unwrap();
    assert_eq!(names(&graph.closure_of(&[named("b")]).unwrap()), "cb");
    assert_eq!(names(&graph.closure_of(&[named("d"), named("b"), named("d")]).unwrap()), "cbd");
    assert!(graph.closure_of(&[]).unwrap().is_empty());
    let error = graph.closure_of(&[named("a"), named("x")]).unwrap_err();
    assert_eq!(error, GraphError::NotInGraph { path: named("x") });
}

/// The table of `derivations.md`, section 4.
#[test]
fn outputs_of_derivations_belong_to_the_closure_on_request() {
    let [make_dep, make_top] = [path(1, "dep.drv"), path(2, "top.drv")];
    let [dep, dev, top, lib] = [path(3, "dep"), path(4, "dep-dev"), path(5, "top"), path(6, "top-lib")];
    let outputs = |derivation: &StorePath| match derivation.name() {
        "dep.drv" => vec![dep.clone(), dev.clone()],
        _ => vec![top.clone(), lib.clone()],
    };
    let everything = vec![
        info(&make_dep, []),
        info(&make_top, [make_dep.clone()]),
        info(&dep, []),
        info(&dev, []),
        info(&top, [dep.clone()]),
        info(&lib, []),
    ];
    let closure = |infos: &[PathInfo], root: &StorePath| {
        let graph = Graph::new(infos.to_vec()).unwrap();
        let mut paths: Vec<_> = graph
            .closure_with_outputs(std::slice::from_ref(root), outputs)
            .unwrap()
            .iter()
            .map(|info| info.path.name().to_owned())
            .collect();
        paths.sort();
        paths.join(" ")
    };
    assert_eq!(closure(&everything[..2], &make_top), "dep.drv top.drv");
    assert_eq!(closure(&everything, &make_top), "dep dep-dev dep.drv top top-lib top.drv");
    assert_eq!(closure(&everything[..5], &make_top), "dep dep-dev dep.drv top top.drv");
    assert_eq!(closure(&everything, &top), "dep top");
}

#[test]
fn the_way_from_one_path_to_another_is_a_shortest_one() {
    let graph = graph(&[("a", "bc"), ("b", "d"), ("c", "e"), ("d", "e"), ("e", ""), ("f", "")]).unwrap();
    let why = |from: &str, to: &str| graph.why(&named(from), &named(to)).unwrap();
    assert_eq!(why("a", "e"), Some(vec![named("a"), named("c"), named("e")]));
    assert_eq!(why("a", "a"), Some(vec![named("a")]));
    assert_eq!(why("e", "a"), None);
    assert_eq!(why("a", "f"), None);
    assert!(graph.why(&named("x"), &named("a")).is_err());
    assert!(graph.why(&named("a"), &named("x")).is_err());
}

#[test]
fn what_is_shared_counts_once() {
    let mut infos = infos(&[("a", "bc"), ("b", "d"), ("c", "d"), ("d", "")]);
    for (info, size) in infos.iter_mut().zip([1, 10, 100, 1000]) {
        info.nar_size = size;
    }
    let graph = Graph::new(infos).unwrap();
    assert_eq!(graph.closure_size(&named("a")).unwrap(), 1111);
    assert_eq!(graph.closure_sizes_of(&[named("c"), named("b"), named("c")]).unwrap(), [1100, 1010, 1100]);
    assert_eq!(graph.total_size(), 1111);
    let kept = graph.restricted_to(|info| info.path != named("b"));
    assert_eq!(names(&kept), "dca");
    assert_eq!(kept.closure_size(&named("a")).unwrap(), 1101);
}

#[test]
fn nothing_is_an_empty_graph() {
    let graph = Graph::new(Vec::<PathInfo>::new()).unwrap();
    assert!(graph.is_empty());
    assert!(graph.levels().is_empty());
    assert!(graph.closure_sizes().is_empty());
    assert_eq!(graph.total_size(), 0);
}

/// A chain would end a recursion; a million edges would end anything that is not about linear.
#[test]
fn long_chains_and_a_million_references() {
    const PATHS: u32 = 100_000;
    let started = Instant::now();
    let paths: Vec<_> = (0..PATHS).map(|rank| path(rank, "x")).collect();
    let infos: Vec<_> = (0..PATHS)
        .map(|rank| {
            let references = (1..=10_u32).filter_map(|step| rank.checked_sub(step * step * step));
            info(&paths[rank as usize], references.map(|reference| paths[reference as usize].clone()))
        })
        .collect();
    let graph = Graph::new(infos).unwrap();
    assert!(graph.reference_count() > 950_000);
    let top = &paths[paths.len() - 1];
    assert_eq!(graph.closure_of(std::slice::from_ref(top)).unwrap().len(), paths.len());
    assert_eq!(graph.closure_size(top).unwrap(), 100 * u64::from(PATHS));
    assert_eq!(graph.levels().len(), paths.len());
    // A hundred steps of a thousand, but for the last path, 99,999 steps away.
    assert!(graph.why(top, &paths[0]).unwrap().unwrap().len() < 120);
    // Quadratic work would take minutes; this takes well under a second in a release build.
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
}
