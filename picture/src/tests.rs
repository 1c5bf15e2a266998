//! Pictures of small plans, word by word; and of plans that are too large to look at.

use std::{os::unix::fs::PermissionsExt as _, time::Instant};

use ncc_store::StorePath;

use super::{
    model::{State, cut_middle},
    test_plans::PlanBuilder,
    *,
};

const MIB: u64 = 1 << 20;

/// Two programs that share a library; libc is there already.
fn programs() -> PlanBuilder {
    let mut plan = PlanBuilder::default();
    let libc = plan.add(State::Present, "glibc-2.40", 30 * MIB, &[]);
    let zlib = plan.add(State::Present, "zlib-1.3", MIB / 2, &[&libc]);
    let library = plan.add(State::Send, "openssl-3.3.2", 6 * MIB, &[&libc, &zlib]);
    let data = plan.add(State::Send, "tzdata-2024b", 2 * MIB, &[]);
    let curl = plan.add(State::Send, "curl-8.10.1", MIB, &[&libc, &library, &zlib]);
    let git = plan.add(State::Send, "git-2.47.0", 40 * MIB, &[&curl, &library, &data, &libc]);
    plan.roots(&[&git, &curl])
}

fn draw(plan: &PlanBuilder, options: &TreeOptions) -> String {
    let text = tree(&plan.plan(), options);
    for line in text.lines() {
        assert!(line.chars().count() <= options.width, "'{line}' is too wide");
    }
    text
}

#[test]
fn a_tree_draws_each_path_once_and_the_widest_first() {
    assert_eq!(
        draw(&programs(), &TreeOptions::default()),
        "\
closure: 6 paths, 79.5 MiB; to send: 4 paths, 49.0 MiB
present: 2 paths, 30.5 MiB
                                                      itself   to send   closure
● git-2.47.0                                        40.0 MiB  49.0 MiB  79.5 MiB
├─● curl-8.10.1                                      1.0 MiB   7.0 MiB  37.5 MiB
│ ├─● openssl-3.3.2                                  6.0 MiB   6.0 MiB  36.5 MiB
│ │ └─○ 2 present
│ └─○ 2 present
├─● openssl-3.3.2 (*)
├─● tzdata-2024b                                     2.0 MiB   2.0 MiB   2.0 MiB
└─○ glibc-2.40                                      30.0 MiB         -  30.0 MiB
● curl-8.10.1 (*)
● to send  ○ present  (*) drawn above
"
    );
}

#[test]
fn half_the_width_takes_two_columns_and_ascii_is_enough() {
    let options = TreeOptions { width: 40, unicode: false, ..TreeOptions::default() };
    assert_eq!(
        draw(&programs(), &options),
        "\
closure: 6 paths, 79.5 MiB
to send: 4 paths, 49.0 MiB
present: 2 paths, 30.5 MiB
                                 to send
* git-2.47.0                    49.0 MiB
|-* curl-8.10.1                  7.0 MiB
| |-* openssl-3.3.2              6.0 MiB
| | `-o 2 present
| `-o 2 present
|-* openssl-3.3.2 (*)
|-* tzdata-2024b                 2.0 MiB
`-o glibc-2.40                         -
* curl-8.10.1 (*)
* to send  o present  (*) drawn above
"
    );
}

#[test]
fn few_lines_show_the_largest_and_count_the_rest() {
    let options = TreeOptions { lines: Some(7), ..TreeOptions::default() };
    assert_eq!(
        draw(&programs(), &options),
        "\
closure: 6 paths, 79.5 MiB; to send: 4 paths, 49.0 MiB
present: 2 paths, 30.5 MiB
                                                      itself   to send   closure
● git-2.47.0                                        40.0 MiB  49.0 MiB  79.5 MiB
├─⋯ 3 more, 9.0 MiB
└─○ glibc-2.40                                      30.0 MiB         -  30.0 MiB
● to send  ○ present  2 references not drawn
"
    );
}

#[test]
fn nothing_to_send_still_shows_the_roots() {
    let mut plan = PlanBuilder::default();
    let libc = plan.add(State::Present, "glibc-2.40", 30 * MIB, &[]);
    let hello = plan.add(State::Present, "hello-2.12", MIB, &[&libc]);
    assert_eq!(
        draw(&plan.roots(&[&hello]), &TreeOptions { width: 60, ..TreeOptions::default() }),
        "\
closure: 2 paths, 31.0 MiB; to send: 0 paths, 0 B
present: 2 paths, 31.0 MiB
                                            itself   to send
○ hello-2.12                               1.0 MiB         -
○ present
"
    );
    assert_eq!(
        draw(&PlanBuilder::default(), &TreeOptions { width: 20, ..TreeOptions::default() }),
        "closure: ..aths, 0 B\nto send: ..aths, 0 B\n"
    );
}

#[test]
fn substituted_paths_have_a_mark_of_their_own() {
    let mut plan = PlanBuilder::default();
    let libc = plan.add(State::Substituted, "glibc-2.40", 30 * MIB, &[]);
    let hello = plan.add(State::Send, "hello-2.12", MIB, &[&libc]);
    let text =
        tree::draw(&plan.roots(&[&hello]).model(), &TreeOptions { width: 60, ..TreeOptions::default() });
    assert!(text.contains("\n● hello-2.12                               1.0 MiB   1.0 MiB\n"), "{text}");
    assert!(text.contains("\n└─◐ glibc-2.40                            30.0 MiB         -\n"), "{text}");
    assert!(text.ends_with("● to send  ◐ substituted\n"), "{text}");
}

#[test]
fn outputs_that_nothing_refers_to_are_drawn_too() {
    let mut plan = PlanBuilder::default();
    let derivation = plan.add(State::Send, "hello.drv", 500, &[]);
    plan.add(State::Send, "hello", MIB, &[]);
    let text = draw(&plan.roots(&[&derivation]), &TreeOptions::default());
    assert!(text.contains("\n● hello.drv") && text.contains("\n● hello "), "{text}");
}

#[test]
fn paths_of_one_name_are_told_apart_by_their_digests() {
    let mut plan = PlanBuilder::default();
    let one = plan.add(State::Send, "same", MIB, &[]);
    let other = plan.add(State::Send, "same", 2 * MIB, &[&one]);
    let text = draw(&plan.roots(&[&other]), &TreeOptions::default());
    let short = |path: &StorePath| format!("{}…-same", path.digest().get(..4).unwrap());
    assert_ne!(short(&one), short(&other));
    assert!(text.contains(&format!("● {} ", short(&other))), "{text}");
    assert!(text.contains(&format!("└─● {} ", short(&one))), "{text}");
}

#[test]
fn colours_change_nothing_but_colours() {
    let plan = programs();
    let coloured = draw_without_check(&plan, true);
    assert!(coloured.contains("\u{1b}[33m●\u{1b}[0m \u{1b}[1mgit-2.47.0\u{1b}[0m"), "{coloured:?}");
    let mut bare = String::new();
    for (index, part) in coloured.split('\u{1b}').enumerate() {
        bare.push_str(if index == 0 { part } else { part.split_once('m').unwrap().1 });
    }
    let trimmed: Vec<_> = bare.lines().map(str::trim_end).collect();
    assert_eq!(trimmed, draw_without_check(&plan, false).lines().collect::<Vec<_>>());
}

fn draw_without_check(plan: &PlanBuilder, colour: bool) -> String {
    tree(&plan.plan(), &TreeOptions { colour, ..TreeOptions::default() })
}

#[test]
fn long_names_lose_their_middle() {
    assert_eq!(cut_middle("nixos-system-machine-24.05", 15, "…"), "nixos-s…e-24.05");
    assert_eq!(cut_middle("nixos-system-machine-24.05", 15, ".."), "nixos-s..-24.05");
    assert_eq!(cut_middle("short", 5, "…"), "short");
    assert_eq!(cut_middle("short", 1, ".."), "s");
    let mut plan = PlanBuilder::default();
    let long = plan.add(State::Send, &"n".repeat(211), MIB, &[]);
    let plan = plan.roots(&[&long]);
    for width in 20..100 {
        draw(&plan, &TreeOptions { width, ..TreeOptions::default() });
    }
}

/// `count` paths in `layers` layers of many references each; the sizes vary over four orders of magnitude.
fn system(count: usize, references: usize) -> PlanBuilder {
    let mut plan = PlanBuilder::default();
    let mut paths: Vec<StorePath> = Vec::new();
    let mut random = 1_u64;
    let mut next = move |limit: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(random >> 33).unwrap() % limit
    };
    for number in 0..count {
        let size = 1000_u64 << next(14);
        let chosen: Vec<_> = (0..references.min(number)).map(|_| paths[next(number)].clone()).collect();
        let state = if number * 3 < count { State::Present } else { State::Send };
        paths.push(plan.add(state, &format!("package-{number}"), size, &chosen.iter().collect::<Vec<_>>()));
    }
    let root = paths.last().unwrap().clone();
    plan.roots(&[&root])
}

#[test]
fn whatever_the_limit_no_path_and_no_byte_is_lost() {
    let builder = system(150, 4);
    let model = builder.model();
    let all = model.total(State::Send);
    for lines in [3, 5, 17, 40, 100, 1000] {
        for deepest in [0, 1, 3, 14] {
            let outline = outline::outline(&model, lines, deepest);
            assert!(outline.lines.len() <= lines, "{} lines of {lines}", outline.lines.len());
            let mut sum = model::Count::default();
            for (depth, line) in &outline.lines {
                assert!(*depth <= deepest + 1);
                match line {
                    outline::Line::Node(node) => sum.add(model.count(*node)),
                    outline::Line::More(count) => sum.add(*count),
                    _ => {}
                }
            }
            assert_eq!(sum, all, "{lines} lines, {deepest} levels");
        }
    }
}

#[test]
fn what_is_drawn_again_was_drawn_before() {
    let model = system(200, 5).model();
    for (lines, deepest) in [(1000, 14), (1000, 2), (60, 14), (60, 3)] {
        let mut seen = Vec::new();
        for (_, line) in outline::outline(&model, lines, deepest).lines {
            match line {
                outline::Line::Node(node) => seen.push(node),
                outline::Line::Again(node) => assert!(seen.contains(&node)),
                _ => {}
            }
        }
    }
}

#[test]
fn the_whole_picture_keeps_to_the_height() {
    let plan = system(300, 4);
    for lines in [9, 10, 24, 50] {
        for width in [40, 80, 120] {
            let text = draw(&plan, &TreeOptions { width, lines: Some(lines), ..TreeOptions::default() });
            assert!(text.lines().count() <= lines, "{} of {lines}:\n{text}", text.lines().count());
        }
    }
}

fn chain(length: usize) -> PlanBuilder {
    let mut plan = PlanBuilder::default();
    let mut last = plan.add(State::Send, "link", 100, &[]);
    for _ in 1..length {
        last = plan.add(State::Send, "link", 100, &[&last]);
    }
    plan.roots(&[&last])
}

#[test]
fn a_chain_of_a_hundred_thousand_paths_is_drawn_without_recursion() {
    let plan = chain(100_000);
    let started = Instant::now();
    let text = draw(&plan, &TreeOptions { lines: Some(30), ..TreeOptions::default() });
    assert!(text.lines().count() <= 30);
    assert!(text.contains(" more, 9.5 MiB\n"), "{text}");
    let unlimited = draw(&plan, &TreeOptions::default());
    assert!(unlimited.lines().count() < 30, "as deep as the width allows");
    let picture = graph(&plan.plan(), &StoreDir::default(), GraphFormat::Svg);
    assert!(picture.contains("of 100000"));
    // Even without optimization, on a machine that does other things.
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

#[test]
fn a_deep_graph_is_not_too_deep_for_graphviz_and_for_the_layers() {
    let plan = chain(180);
    assert_eq!(graph(&plan.plan(), &StoreDir::default(), GraphFormat::Dot).matches(" -> ").count(), 179);
    let text = graph(&plan.plan(), &StoreDir::default(), GraphFormat::Svg);
    assert_eq!(text.matches("<path class=\"edge").count(), 179);
}

#[test]
fn dot_says_everything_about_a_small_plan() {
    let mut plan = PlanBuilder::default();
    let libc = plan.add(State::Present, "libc", 4 * MIB, &[]);
    let hello = plan.add(State::Send, "hello", MIB, &[&libc]);
    let text = graph(&plan.roots(&[&hello]).plan(), &StoreDir::default(), GraphFormat::Dot);
    assert_eq!(
        text,
        format!(
            r##"digraph closure {{
  graph [rankdir=LR, fontname="sans-serif", labelloc=t, label="closure: 2 paths, 5.0 MiB\nto send (orange): 1 path, 1.0 MiB\npresent (white): 1 path, 4.0 MiB"];
  node [shape=circle, fontname="sans-serif", fontsize=10, margin="0.03,0.03"];
  edge [color="#999999", arrowsize=0.6];
  "{libc}" [label="libc\n4.0 MiB itself\n4.0 MiB closure", tooltip="/nix/store/{libc}\npresent; 4.0 MiB itself, 0 B to send, 4.0 MiB closure", width=2.50, fillcolor="#ffffff", color="#8a8a8a", style="filled", penwidth=1];
  "{hello}" [label="hello\n1.0 MiB itself\n5.0 MiB closure", tooltip="/nix/store/{hello}\nto send; 1.0 MiB itself, 1.0 MiB to send, 5.0 MiB closure", width=1.55, fillcolor="#f2a678", color="#d55e00", style="filled", penwidth=3];
  "{hello}" -> "{libc}";
}}
"##
        )
    );
}

#[test]
fn dot_strings_stand_for_themselves() {
    assert_eq!(dot::quote("a\"b\\N\n\0"), "\"a\\\"b\\\\N\\n\u{fffd}\"");
    let strange = StoreDir::new("/st\"ore\\").unwrap();
    let text = graph(&programs().plan(), &strange, GraphFormat::Dot);
    assert!(text.contains(r#"tooltip="/st\"ore\\/"#), "{text}");
}

#[test]
fn svg_is_xml_with_a_card_for_each_path() {
    let strange = StoreDir::new("/a<b>&\"'\u{1}]]>").unwrap();
    let text = graph(&programs().plan(), &strange, GraphFormat::Svg);
    let document = roxmltree::Document::parse(&text).unwrap();
    assert_eq!(document.root_element().tag_name().name(), "svg");
    let cards: Vec<_> = document
        .descendants()
        .filter(|node| node.attribute("class").is_some_and(|class| class.starts_with("card")))
        .collect();
    assert_eq!(cards.len(), 6);
    let tooltip = |node: &roxmltree::Node<'_, '_>| {
        node.children()
            .find(|child| child.has_tag_name("title"))
            .and_then(|title| title.text())
            .unwrap()
            .to_owned()
    };
    let tooltips: Vec<_> = cards.iter().map(tooltip).collect();
    assert!(
        tooltips.iter().any(|text| text.starts_with("/a<b>&\"'\u{fffd}]]>/")
            && text.ends_with(
                "-git-2.47.0\nto send: 40.0 MiB itself, 79.5 MiB in its closure, 49.0 MiB of it to send"
            )),
        "{tooltips:?}"
    );
    let edges = text.matches("<path class=\"edge").count();
    assert!(edges >= 10, "{edges} pieces for 10 references");
}

#[test]
fn a_large_svg_says_what_it_leaves_out() {
    let plan = system(5000, 6);
    let text = graph(&plan.plan(), &StoreDir::default(), GraphFormat::Svg);
    let document = roxmltree::Document::parse(&text).unwrap();
    assert!(text.contains("Only the roots and the largest paths are drawn, 120 of 5000"), "{text}");
    assert!(text.contains(" more paths, "));
    let all: String = document.descendants().filter_map(|node| node.text()).collect();
    assert!(!all.contains("NaN") && !text.contains("NaN") && !text.contains("inf"));
}

#[test]
fn pictures_of_nothing_are_pictures() {
    for format in [GraphFormat::Svg, GraphFormat::Dot] {
        let text = graph(&Plan::default(), &StoreDir::default(), format);
        assert!(text.contains("0 paths"), "{text}");
        assert!(format == GraphFormat::Dot || roxmltree::Document::parse(&text).is_ok());
    }
}

#[test]
fn cards_of_a_layer_do_not_overlap() {
    let sketch = sketch::Sketch::new(&system(190, 3).model());
    let heights: Vec<_> = sketch.nodes.iter().map(|node| if node % 3 == 0 { 50.0 } else { 36.0 }).collect();
    let layout = layered::layout(&sketch.edges, &heights);
    for (node, targets) in sketch.edges.iter().enumerate() {
        assert!(targets.iter().all(|target| layout.layer[*target] > layout.layer[node]));
        for other in 0..node {
            let apart = (layout.y[node] - layout.y[other]).abs();
            let needed = f64::midpoint(heights[node], heights[other]);
            assert!(layout.layer[node] != layout.layer[other] || apart >= needed, "{node} and {other}");
        }
    }
}

#[test]
fn the_same_plan_gives_the_same_pictures() {
    let (one, other) = (system(400, 5), system(400, 5));
    let directory = StoreDir::default();
    for format in [GraphFormat::Svg, GraphFormat::Dot] {
        assert_eq!(graph(&one.plan(), &directory, format), graph(&other.plan(), &directory, format));
    }
    let options = TreeOptions { lines: Some(40), ..TreeOptions::default() };
    assert_eq!(draw(&one, &options), draw(&other, &options));
}

#[test]
fn the_extension_says_the_format() {
    assert_eq!(GraphFormat::of(Path::new("a/b.SVG")).unwrap(), GraphFormat::Svg);
    assert_eq!(GraphFormat::of(Path::new("b.dot")).unwrap(), GraphFormat::Dot);
    for wrong in ["b.png", "svg", ".svg", ""] {
        let error = GraphFormat::of(Path::new(wrong)).unwrap_err();
        assert!(error.to_string().starts_with(&format!("'{wrong}' ")), "{error}");
    }
}

#[test]
fn a_graph_replaces_a_file_as_a_whole() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("copy.svg");
    let link = directory.path().join("link.svg");
    fs::write(&file, "old").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    write_graph(&link, &programs().plan(), &StoreDir::default()).unwrap();
    assert!(fs::read_to_string(&file).unwrap().starts_with("<?xml"));
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o600, 0o600);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "nothing stays beside");

    for wrong in [directory.path().join("missing/copy.dot"), directory.path().join("directory.dot")] {
        let _ = fs::create_dir(directory.path().join("directory.dot"));
        let error = write_graph(&wrong, &programs().plan(), &StoreDir::default()).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot write the graph to '{}'", wrong.display()));
    }
}
