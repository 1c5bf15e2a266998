//! `--tree` and `--graph`.

use std::fs;

use crate::support::World;

#[test]
fn a_tree_is_drawn_with_and_without_copying() {
    let world = World::new();
    let drawn =
        world.run(world.copy().args(["--tree", "--dry-run", "localhost"]).args([&world.top, &world.other]));
    assert_eq!(drawn.code, 0, "{}", drawn.transcript());
    for name in ["library", "program", "top", "other"] {
        assert!(drawn.stdout.contains(name), "{}", drawn.transcript());
    }
    let wide: Vec<&str> = drawn.stdout.lines().filter(|line| line.chars().count() > 80).collect();
    assert!(wide.is_empty(), "{wide:#?}");
    assert_eq!(world.copied(&world.all()), [false; 4]);
    let copied = world.run(world.copy().args(["--tree", "localhost"]).args([&world.top, &world.other]));
    assert!(copied.stdout.contains("library"), "{}", copied.transcript());
    assert_eq!(world.copied(&world.all()), [true; 4]);
}

#[test]
fn json_has_stdout_for_itself() {
    let world = World::new();
    let ran = world.run(world.copy().args(["--tree", "--json", "--dry-run", "localhost"]).arg(&world.top));
    assert!(serde_json::from_str::<serde_json::Value>(&ran.stdout).is_ok(), "{}", ran.transcript());
    assert!(ran.stderr.contains("library"), "{}", ran.transcript());
}

#[test]
fn graphs_go_to_files_by_their_ending() {
    let world = World::new();
    for (name, beginning) in [("graph.svg", "<svg"), ("graph.dot", "digraph")] {
        let mut command = world.copy();
        command.args(["--dry-run", "--graph", name, "localhost"]).arg(&world.top);
        let ran = world.run(&mut command);
        assert_eq!(ran.code, 0, "{}", ran.transcript());
        let text = fs::read_to_string(world.directory().join(name)).unwrap();
        assert!(text.contains(beginning), "{name}: {text}");
        for path in ["library", "program", "top"] {
            assert!(text.contains(path), "{name} has no {path}");
        }
        assert!(!text.contains("other"), "{name} has what is not copied");
    }
}

#[test]
fn a_graph_that_cannot_be_written_stops_before_anything_is_copied() {
    let world = World::new();
    let ran = world.run(world.copy().args(["--graph", "graph.png", "localhost"]).arg(&world.top));
    ran.says(1, &["graph.png", "svg"]);
    let ran = world.run(world.copy().args(["--graph", "no/where.svg", "localhost"]).arg(&world.top));
    ran.says(1, &["no/where.svg"]);
    assert_eq!(world.copied(&world.all()), [false; 4]);
}
