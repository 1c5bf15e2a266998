//! A graph for Graphviz: the whole closure with all of its references.

use std::fmt::Write as _;

use ncc_store::StoreDir;

use super::model::{Model, State};
use ncc_progress::human::{self, bytes};

/// Draws it.
pub(crate) fn draw(model: &Model, store_dir: &StoreDir) -> String {
    let all: Vec<_> = (0..model.len()).collect();
    let sizes = model.sizes(&all);
    let largest = sizes.iter().map(|sizes| sizes.nar).max().unwrap_or(0).max(1);
    let mut text = opening(&headline(model));
    for (&node, sizes) in all.iter().zip(&sizes) {
        let state = model.state(node);
        let full = store_dir.full(&model.info(node).path);
        let label = format!(
            "{}\n{} itself\n{} closure",
            model.label(node, "…"),
            human::nar(sizes.nar),
            bytes(sizes.closure)
        );
        let tooltip = format!(
            "{full}\n{}; {} itself, {} to send, {} closure",
            state.word(),
            human::nar(sizes.nar),
            bytes(sizes.to_send),
            bytes(sizes.closure)
        );
        let (inside, line, style) = colours(state);
        let pen = if model.roots().contains(&node) { 3 } else { 1 };
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(
            text,
            "  {} [label={}, tooltip={}, width={}, fillcolor=\"{inside}\", color=\"{line}\", style=\"{style}\", penwidth={pen}];",
            quote(model.info(node).path.base_name()),
            quote(&label),
            quote(&tooltip),
            diameter(sizes.nar, largest),
        );
    }
    for &node in &all {
        for &reference in model.references(node) {
            let _ = writeln!(
                text,
                "  {} -> {};",
                quote(model.info(node).path.base_name()),
                quote(model.info(reference).path.base_name()),
            );
        }
    }
    text.push_str("}\n");
    text
}

/// What is drawn when nothing can be.
pub(crate) fn sorry(why: &str) -> String {
    opening(&format!("no picture: {why}")) + "}\n"
}

fn opening(headline: &str) -> String {
    format!(
        "digraph closure {{\n  \
         graph [rankdir=LR, fontname=\"sans-serif\", labelloc=t, label={}];\n  \
         node [shape=circle, fontname=\"sans-serif\", fontsize=10, margin=\"0.03,0.03\"];\n  \
         edge [color=\"#999999\", arrowsize=0.6];\n",
        quote(headline)
    )
}

fn headline(model: &Model) -> String {
    let mut text = format!("closure: {}", model.total_of_all().text());
    for state in State::ALL {
        let count = model.total(state);
        if count.paths > 0 {
            let _ = write!(text, "\n{} ({}): {}", state.word(), colour_name(state), count.text());
        }
    }
    text
}

/// Fill, line and style, distinct for every kind of colour vision and in print.
fn colours(state: State) -> (&'static str, &'static str, &'static str) {
    match state {
        State::Send => ("#f2a678", "#d55e00", "filled"),
        State::Substituted => ("#b3d9ee", "#0072b2", "filled,dashed"),
        State::Present => ("#ffffff", "#8a8a8a", "filled"),
    }
}

fn colour_name(state: State) -> &'static str {
    match state {
        State::Send => "orange",
        State::Substituted => "blue, dashed",
        State::Present => "white",
    }
}

/// Inches; the area goes with the size.
#[expect(clippy::cast_precision_loss, reason = "a picture needs no 53 bits")]
fn diameter(size: u64, largest: u64) -> String {
    format!("{:.2}", 0.6 + 1.9 * (size as f64 / largest as f64).sqrt())
}

/// A quoted string of the language, in which lines are centred. Everything stands for itself: a backslash begins
/// escapes such as `\N` in labels, so it is doubled.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            // The input ends at a zero, and other control characters help nobody.
            character if character.is_control() => quoted.push('\u{fffd}'),
            character => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}
