//! A graph as a picture that needs no other program: SVG 1.1, no scripts.
//!
//! From left to right, what refers to what. A disc whose area is the size of the NAR stands in a card with the name.
//! The states differ in brightness and in pattern too: not everybody sees the colours, and printers often have none.

use std::fmt::Write as _;

use ncc_store::StoreDir;

use super::{
    layered::{Layout, Piece, layout},
    model::{Count, Model, Sizes, State, cut_middle},
    sketch::Sketch,
};
use ncc_progress::human::{self, bytes};

/// Around everything.
const MARGIN: f64 = 28.0;
/// The narrowest picture: its title must fit.
const NARROWEST: f64 = 720.0;
/// The largest disc.
const RADIUS: f64 = 21.0;
/// Left of the name.
const DISC_SPACE: f64 = 2.0 * RADIUS + 14.0;
/// The height of a card with a small disc.
const CARD: f64 = 36.0;
/// What a character takes in a monospaced font, for each unit of the font's size.
const CHARACTER: f64 = 0.61;
/// Font sizes of names and of what stands below them.
const NAME: f64 = 12.0;
const DETAIL: f64 = 9.5;
/// The longest name that is not cut.
const LONGEST_NAME: usize = 34;
/// Room for edges between two layers: at least, and at most.
const CHANNEL: (f64, f64) = (56.0, 130.0);
/// Title and totals, and a line below them.
const HEAD: f64 = 122.0;
const NOTE: f64 = 16.0;

/// Draws it.
pub(crate) fn draw(model: &Model, store_dir: &StoreDir) -> String {
    let sketch = Sketch::new(model);
    let sizes = model.sizes(&sketch.nodes);
    let largest = sizes.iter().map(|sizes| sizes.nar).max().unwrap_or(0).max(1);
    let cards: Vec<_> = sketch
        .nodes
        .iter()
        .zip(&sizes)
        .map(|(&node, &sizes)| Card::new(model, node, sizes, largest))
        .collect();
    let heights: Vec<_> = cards.iter().map(|card| card.height).collect();
    let layout = layout(&sketch.edges, &heights);
    let columns = columns(&cards, &layout);
    let picture = Picture { model, store_dir, sketch, cards, layout, columns };
    picture.draw()
}

/// What is drawn when nothing can be.
pub(crate) fn sorry(why: &str) -> String {
    let mut svg = Svg::new(NARROWEST, 80.0, "no picture");
    svg.text(MARGIN, 46.0, "class=\"title\"", &format!("no picture: {why}"));
    svg.finish()
}

/// A path as it is drawn.
struct Card {
    node: usize,
    state: State,
    root: bool,
    sizes: Sizes,
    name: String,
    detail: String,
    radius: f64,
    width: f64,
    height: f64,
}

impl Card {
    fn new(model: &Model, node: usize, sizes: Sizes, largest: u64) -> Self {
        let name = cut_middle(&model.label(node, "…"), LONGEST_NAME, "…");
        let detail = if sizes.nar == sizes.closure {
            human::nar(sizes.nar)
        } else {
            format!("{} · closure {}", human::nar(sizes.nar), bytes(sizes.closure))
        };
        let radius = (RADIUS * (real(sizes.nar) / real(largest)).sqrt()).max(1.5);
        let widest = (characters(&name) * NAME).max(characters(&detail) * DETAIL) * CHARACTER;
        Self {
            node,
            state: model.state(node),
            root: model.roots().contains(&node),
            sizes,
            name,
            detail,
            radius,
            width: DISC_SPACE + widest + 12.0,
            height: CARD.max(2.0 * radius + 8.0),
        }
    }
}

/// The left end and the width of each layer.
fn columns(cards: &[Card], layout: &Layout) -> Vec<(f64, f64)> {
    let mut widths = vec![0.0_f64; layout.layers];
    for (card, &layer) in cards.iter().zip(&layout.layer) {
        widths[layer] = widths[layer].max(card.width);
    }
    let mut channels = vec![0_usize; layout.layers];
    for piece in &layout.pieces {
        channels[piece.layer] += 1;
    }
    let mut left = MARGIN;
    let mut columns = Vec::with_capacity(widths.len());
    for (width, pieces) in widths.into_iter().zip(channels) {
        columns.push((left, width));
        left += width + (CHANNEL.0 + 2.0 * real(pieces as u64)).min(CHANNEL.1);
    }
    columns
}

struct Picture<'a> {
    model: &'a Model,
    store_dir: &'a StoreDir,
    sketch: Sketch,
    cards: Vec<Card>,
    layout: Layout,
    columns: Vec<(f64, f64)>,
}

impl Picture<'_> {
    fn draw(&self) -> String {
        let right = self.columns.last().map_or(0.0, |(left, width)| left + width);
        let width = (right + MARGIN).max(NARROWEST);
        let left_out = if self.sketch.is_partial() { 74.0 } else { 0.0 };
        let head = self.head_height();
        let height = head + self.layout.height + left_out + MARGIN;
        let title = title(self.model);
        let mut svg = Svg::new(width, height, &title);
        self.head(&mut svg, &title);
        // A small graph stands in the middle.
        let shift = ((width - MARGIN - right) / 2.0).max(0.0);
        let _ = writeln!(svg.0, "<g transform=\"translate({shift:.1} {head:.1})\">");
        self.edges(&mut svg);
        for (place, card) in self.cards.iter().enumerate() {
            self.card(&mut svg, place, card);
        }
        svg.0.push_str("</g>\n");
        self.rest(&mut svg, head + self.layout.height);
        svg.finish()
    }

    fn head(&self, svg: &mut Svg, title: &str) {
        svg.text(MARGIN, 40.0, "class=\"title\"", title);
        // The share of each state in the bytes.
        let all = self.model.total_of_all();
        let whole = NARROWEST - 2.0 * MARGIN;
        let mut left = MARGIN;
        for state in State::ALL {
            let count = self.model.total(state);
            let width = whole * real(count.bytes) / real(all.bytes.max(1));
            if count.bytes > 0 {
                let _ = writeln!(
                    svg.0,
                    "<rect class=\"{} share\" x=\"{left:.1}\" y=\"54\" width=\"{width:.1}\" height=\"10\"/>",
                    class(state)
                );
            }
            left += width;
        }
        let mut left = MARGIN;
        for state in State::ALL {
            let count = self.model.total(state);
            if count.paths == 0 && state == State::Substituted {
                continue;
            }
            let _ = writeln!(
                svg.0,
                "<circle class=\"{} disc\" cx=\"{:.1}\" cy=\"82\" r=\"6\"/>",
                class(state),
                left + 6.0
            );
            let text = format!("{}: {}", state.word(), count.text());
            svg.text(left + 18.0, 86.0, "class=\"legend\"", &text);
            left += 18.0 + characters(&text) * 6.6 + 26.0;
        }
        let mut baseline = HEAD - 14.0;
        for note in self.notes() {
            svg.text(MARGIN, baseline, "class=\"note\"", &note);
            baseline += NOTE;
        }
    }

    /// How to read it, a line each.
    fn notes(&self) -> Vec<String> {
        let mut notes = vec![
            "Lines lead from a path to what it refers to. A disc's area is the size of the NAR.".to_owned(),
        ];
        if self.sketch.is_partial() {
            notes.push(format!(
                "Only the roots and the largest paths are drawn, {} of {}; lines may pass over others.",
                self.sketch.nodes.len(),
                self.model.len()
            ));
        }
        if self.sketch.implied > 0 {
            notes.push(format!("Not drawn: {} lines that follow from others.", self.sketch.implied));
        }
        notes
    }

    /// Where the graph begins.
    fn head_height(&self) -> f64 {
        HEAD + NOTE * real(self.notes().len() as u64)
    }

    fn edges(&self, svg: &mut Svg) {
        let mut pieces: Vec<&Piece> = self.layout.pieces.iter().collect();
        // What leads to something present lies below the rest.
        pieces.sort_by_key(|piece| std::cmp::Reverse(self.cards[piece.target].state));
        for piece in pieces {
            let target = &self.cards[piece.target];
            let (left, column) = self.columns[piece.layer];
            let start = piece.from.map_or(left, |from| left + self.cards[from].width);
            // From a narrow card straight to the end of its column.
            let bend = left + column;
            let end = self.columns[piece.layer + 1].0;
            let (from, to) = piece.y;
            let middle = f64::midpoint(bend, end);
            let width = (0.9 + 0.35 * real(piece.strands as u64).sqrt()).min(3.0);
            let arrow = if target.state == State::Present { "faint-arrow" } else { "arrow" };
            let marker = if piece.arrives { format!(" marker-end=\"url(#{arrow})\"") } else { String::new() };
            let end = if piece.arrives { end - 2.0 } else { end };
            let _ = write!(
                svg.0,
                "<path class=\"edge to-{}\" stroke-width=\"{width:.2}\"{marker} \
                 d=\"M{start:.1} {from:.1}H{bend:.1}C{middle:.1} {from:.1} {middle:.1} {to:.1} {end:.1} {to:.1}\">",
                class(target.state),
            );
            let tooltip = match piece.from {
                Some(from) => format!("{} → {}", self.cards[from].name, target.name),
                None => format!("{} lines → {}", piece.strands, target.name),
            };
            svg.tooltip(&tooltip);
            svg.0.push_str("</path>\n");
        }
    }

    fn card(&self, svg: &mut Svg, place: usize, card: &Card) {
        let (left, _) = self.columns[self.layout.layer[place]];
        let middle = self.layout.y[place];
        let class = class(card.state);
        let root = if card.root { " root" } else { "" };
        let _ = write!(svg.0, "<g class=\"card{root}\" transform=\"translate({left:.1} {middle:.1})\">");
        let mut tooltip = format!(
            "{}\n{}: {} itself, {} in its closure",
            self.store_dir.full(&self.model.info(card.node).path),
            card.state.word(),
            human::nar(card.sizes.nar),
            bytes(card.sizes.closure),
        );
        if card.sizes.to_send > 0 {
            let _ = write!(tooltip, ", {} of it to send", bytes(card.sizes.to_send));
        }
        svg.tooltip(&tooltip);
        let _ = write!(
            svg.0,
            "<rect class=\"{class}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"6\"/>\
             <circle class=\"{class} disc\" cx=\"{:.1}\" r=\"{:.1}\"/>",
            -card.height / 2.0,
            card.width,
            card.height,
            DISC_SPACE / 2.0,
            card.radius,
        );
        svg.text(DISC_SPACE, -2.0, "class=\"name\"", &card.name);
        svg.text(DISC_SPACE, 11.5, "class=\"detail\"", &card.detail);
        svg.0.push_str("</g>\n");
    }

    /// What is not drawn.
    fn rest(&self, svg: &mut Svg, top: f64) {
        let mut left = MARGIN;
        let counts = self.sketch.left_out;
        for (state, count) in State::ALL.into_iter().zip(counts).filter(|(_, count)| count.paths > 0) {
            let text = not_drawn(count, state);
            let width = characters(&text) * 6.6 + 46.0;
            let _ = writeln!(
                svg.0,
                "<rect class=\"{0} rest\" x=\"{left:.1}\" y=\"{1:.1}\" width=\"{width:.1}\" height=\"34\" rx=\"6\"/>\
                 <circle class=\"{0} disc\" cx=\"{2:.1}\" cy=\"{3:.1}\" r=\"6\"/>",
                class(state),
                top + 36.0,
                left + 17.0,
                top + 53.0,
            );
            svg.text(left + 32.0, top + 57.0, "class=\"legend\"", &text);
            left += width + 16.0;
        }
    }
}

fn not_drawn(count: Count, state: State) -> String {
    let more = count.text().replacen(" path", " more path", 1);
    format!("{more}, {}", state.word())
}

fn title(model: &Model) -> String {
    let sent = model.total(State::Send);
    let all = model.total_of_all();
    let of = match model.roots() {
        &[root] => format!("{}: ", cut_middle(model.info(root).path.name(), 30, "…")),
        roots => format!("{} roots: ", roots.len()),
    };
    format!("{of}{} to send of {}", sent.text(), all.text())
}

fn class(state: State) -> &'static str {
    match state {
        State::Send => "send",
        State::Substituted => "substituted",
        State::Present => "present",
    }
}

fn characters(text: &str) -> f64 {
    real(text.chars().count() as u64)
}

#[expect(clippy::cast_precision_loss, reason = "a picture needs no 53 bits")]
fn real(number: u64) -> f64 {
    number as f64
}

/// What an element looks like. Orange and blue differ for everybody; what is present is white.
const STYLE: &str = "\
.paper{fill:#fff}\
text{font-family:'DejaVu Sans Mono',Menlo,Consolas,'Liberation Mono',monospace;fill:#1f2328}\
.title,.legend,.note{font-family:'Helvetica Neue',Helvetica,Arial,'Liberation Sans',sans-serif}\
.title{font-size:20px;font-weight:bold}\
.legend{font-size:12.5px}\
.note{font-size:11.5px;fill:#656d76}\
.name{font-size:12px}\
.root .name{font-weight:bold}\
.detail{font-size:9.5px;fill:#57606a}\
rect.send{fill:#fdeee4;stroke:#d55e00}\
rect.substituted{fill:#e6f2f9;stroke:#0072b2;stroke-dasharray:5 2.5}\
rect.present{fill:#fff;stroke:#b4b9be}\
.root rect{stroke-width:2.5}\
.disc.send,.share.send{fill:#d55e00;stroke:#a84a00}\
.disc.substituted,.share.substituted{fill:url(#stripes);stroke:#0072b2;stroke-dasharray:none}\
.disc.present,.share.present{fill:#e4e7ea;stroke:#868d94}\
.rest{stroke-dasharray:2 3}\
.edge{fill:none;stroke:#7a838c}\
.edge.to-present{stroke:#c4cacf}\
.edge:hover{stroke:#1f2328;stroke-width:3}\
.card:hover rect{stroke:#1f2328;stroke-width:2.5}";

const DEFINITIONS: &str = "\
<defs>\
<pattern id=\"stripes\" width=\"5\" height=\"5\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
<rect width=\"5\" height=\"5\" style=\"fill:#cfe6f3;stroke:none\"/>\
<rect width=\"2.5\" height=\"5\" style=\"fill:#0072b2;stroke:none\"/>\
</pattern>\
<marker id=\"arrow\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" \
markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path d=\"M0 0.8L8 4L0 7.2z\" fill=\"#7a838c\"/></marker>\
<marker id=\"faint-arrow\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" \
markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path d=\"M0 0.8L8 4L0 7.2z\" fill=\"#b9bfc5\"/></marker>\
</defs>";

/// Text of a picture, with its elements open.
struct Svg(String);

impl Svg {
    fn new(width: f64, height: f64, title: &str) -> Self {
        let mut svg = Self(format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\">\n"
        ));
        svg.tooltip(title);
        let _ = write!(
            svg.0,
            "\n<style>{STYLE}</style>\n{DEFINITIONS}\n<rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n"
        );
        svg
    }

    fn text(&mut self, x: f64, y: f64, attributes: &str, text: &str) {
        let _ = write!(self.0, "<text x=\"{x:.1}\" y=\"{y:.1}\" {attributes}>{}</text>", escape(text));
    }

    fn tooltip(&mut self, text: &str) {
        let _ = write!(self.0, "<title>{}</title>", escape(text));
    }

    fn finish(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

/// Text between tags. XML has no way at all to say most control characters.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\n' | '\t' => escaped.push(character),
            character if character.is_control() || matches!(character, '\u{fffe}' | '\u{ffff}') => {
                escaped.push('\u{fffd}');
            }
            character => escaped.push(character),
        }
    }
    escaped
}
