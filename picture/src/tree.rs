//! A tree for the terminal.

use super::{
    TreeOptions,
    model::{Model, Sizes, State, cut_middle},
    outline::{Line, outline},
};
use ncc_progress::human::bytes;

/// Columns that a name has at least, however deep it stands.
const NARROWEST_NAME: usize = 18;
/// What a column of sizes takes, with the blanks before it.
const COLUMN: usize = 10;
/// A level moves everything to the right by so much.
const INDENT: usize = 2;
/// A path, what is below it and what is beside it.
const FEWEST_LINES: usize = 3;
/// The narrowest picture that is drawn.
const NARROWEST: usize = 20;

/// The characters that a terminal can show.
struct Glyphs {
    branch: &'static str,
    last: &'static str,
    pass: &'static str,
    states: [&'static str; 3],
    ellipsis: &'static str,
}

const UNICODE: Glyphs =
    Glyphs { branch: "├─", last: "└─", pass: "│ ", states: ["●", "◐", "○"], ellipsis: "…" };
const ASCII: Glyphs =
    Glyphs { branch: "|-", last: "`-", pass: "| ", states: ["*", "~", "o"], ellipsis: ".." };

/// Ways to bring out a text, as parameters of the escape sequence "select graphic rendition".
#[derive(Clone, Copy)]
enum Style {
    Plain,
    Bold,
    Faint,
    Of(State),
}

impl Style {
    fn parameters(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "1",
            Self::Faint | Self::Of(State::Present) => "2",
            Self::Of(State::Send) => "33",
            Self::Of(State::Substituted) => "36",
        }
    }
}

/// The sizes that are written beside the names.
#[derive(Clone, Copy)]
enum Column {
    Nar,
    ToSend,
    Closure,
}

impl Column {
    /// What fits: of a narrow terminal the names need most.
    fn fitting(width: usize) -> &'static [Self] {
        match width {
            0..30 => &[],
            30..48 => &[Self::ToSend],
            48..66 => &[Self::Nar, Self::ToSend],
            _ => &[Self::Nar, Self::ToSend, Self::Closure],
        }
    }

    fn heading(self) -> &'static str {
        match self {
            Self::Nar => "itself",
            Self::ToSend => "to send",
            Self::Closure => "closure",
        }
    }

    fn value(self, sizes: Sizes) -> u64 {
        match self {
            Self::Nar => sizes.nar,
            Self::ToSend => sizes.to_send,
            Self::Closure => sizes.closure,
        }
    }
}

/// Draws it.
pub(crate) fn draw(model: &Model, options: &TreeOptions) -> String {
    let width = options.width.max(NARROWEST);
    let columns = Column::fitting(width);
    let area = width - columns.len() * COLUMN;
    let pen = Pen { options, glyphs: if options.unicode { &UNICODE } else { &ASCII }, text: String::new() };
    let mut drawing = Drawing { model, pen, columns, area };
    let head = wrap(&totals(model), "; ", width);
    let headings = usize::from(!columns.is_empty());
    let longest_legend = wrap(&drawing.legend(true, usize::MAX), "  ", width).len();
    let room = options.lines.map_or(usize::MAX, |lines| {
        lines.saturating_sub(head.len() + headings + longest_legend).max(FEWEST_LINES)
    });
    let deepest = area.saturating_sub(NARROWEST_NAME + 2) / INDENT;
    let outline = outline(model, room, deepest);

    for line in head {
        drawing.pen.put(Style::Plain, &line);
        drawing.pen.end();
    }
    drawing.headings();
    drawing.body(&outline.lines);
    let again = outline.lines.iter().any(|(_, line)| matches!(line, Line::Again(_)));
    for line in wrap(&drawing.legend(again, outline.left_out), "  ", width) {
        drawing.pen.put(Style::Faint, &line);
        drawing.pen.end();
    }
    drawing.pen.text
}

fn totals(model: &Model) -> Vec<String> {
    let mut parts = vec![format!("closure: {}", model.total_of_all().text())];
    for state in State::ALL {
        let count = model.total(state);
        if count.paths > 0 || state == State::Send {
            parts.push(format!("{}: {}", state.word(), count.text()));
        }
    }
    parts
}

/// Puts parts into as few lines as there can be.
fn wrap(parts: &[String], separator: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(line) if line.chars().count() + separator.len() + part.chars().count() <= width => {
                line.push_str(separator);
                line.push_str(part);
            }
            _ => lines.push(cut_middle(part, width, "..")),
        }
    }
    lines
}

/// Writes, and knows how wide the line is.
struct Pen<'a> {
    options: &'a TreeOptions,
    glyphs: &'static Glyphs,
    text: String,
}

impl Pen<'_> {
    fn put(&mut self, style: Style, text: &str) {
        let parameters = style.parameters();
        if self.options.colour && !parameters.is_empty() && !text.trim().is_empty() {
            self.text.push_str("\u{1b}[");
            self.text.push_str(parameters);
            self.text.push('m');
            self.text.push_str(text);
            self.text.push_str("\u{1b}[0m");
        } else {
            self.text.push_str(text);
        }
    }

    /// Ends a line.
    fn end(&mut self) {
        if !self.options.colour {
            self.text.truncate(self.text.trim_end_matches(' ').len());
        }
        self.text.push('\n');
    }
}

struct Drawing<'a> {
    model: &'a Model,
    pen: Pen<'a>,
    columns: &'static [Column],
    /// Characters for everything but the columns.
    area: usize,
}

impl Drawing<'_> {
    fn headings(&mut self) {
        if self.columns.is_empty() {
            return;
        }
        self.pen.put(Style::Plain, &" ".repeat(self.area));
        for column in self.columns {
            self.pen.put(Style::Faint, &format!("{:>COLUMN$}", column.heading()));
        }
        self.pen.end();
    }

    fn body(&mut self, lines: &[(usize, Line)]) {
        let nodes: Vec<_> = lines
            .iter()
            .filter_map(|(_, line)| match *line {
                Line::Node(node) | Line::Present(node, 1) => Some(node),
                _ => None,
            })
            .collect();
        let mut sizes = self.model.sizes(&nodes).into_iter();
        let last = last_of_siblings(lines);
        // For each level whether more of it comes.
        let mut goes_on: Vec<bool> = Vec::new();
        for ((depth, line), last) in lines.iter().zip(last) {
            goes_on.truncate(depth.saturating_sub(1));
            let mut prefix = String::new();
            for more in &goes_on {
                prefix.push_str(if *more { self.pen.glyphs.pass } else { "  " });
            }
            if *depth > 0 {
                prefix.push_str(if last { self.pen.glyphs.last } else { self.pen.glyphs.branch });
                goes_on.push(!last);
            }
            let sizes = match line {
                Line::Node(_) | Line::Present(_, 1) => sizes.next(),
                _ => None,
            };
            self.line(&prefix, *line, sizes);
        }
    }

    fn line(&mut self, prefix: &str, line: Line, sizes: Option<Sizes>) {
        let (model, glyphs) = (self.model, self.pen.glyphs);
        let (mark, text, suffix, style) = match line {
            Line::Node(node) => {
                let style = if prefix.is_empty() { Style::Bold } else { Style::Plain };
                (Some(model.state(node)), model.label(node, glyphs.ellipsis), "", style)
            }
            Line::Again(node) => {
                (Some(model.state(node)), model.label(node, glyphs.ellipsis), " (*)", Style::Faint)
            }
            Line::Present(node, 1) => {
                (Some(State::Present), model.label(node, glyphs.ellipsis), "", Style::Faint)
            }
            Line::Present(_, paths) => (Some(State::Present), format!("{paths} present"), "", Style::Faint),
            Line::More(count) => {
                let text = format!("{} more, {}", count.paths, bytes(count.bytes));
                (None, text, "", Style::Faint)
            }
        };
        let before = prefix.chars().count() + 2;
        // Beside nothing there is room up to the edge.
        let area = if sizes.is_some() { self.area } else { self.area + self.columns.len() * COLUMN };
        let room = area.saturating_sub(before + suffix.len());
        let text = cut_middle(&text, room, glyphs.ellipsis);
        let used = before + text.chars().count() + suffix.len();
        self.pen.put(Style::Faint, prefix);
        match mark {
            Some(state) => self.pen.put(Style::Of(state), glyphs.states[state as usize]),
            None => self.pen.put(Style::Faint, if self.pen.options.unicode { "⋯" } else { "+" }),
        }
        self.pen.put(Style::Plain, " ");
        self.pen.put(style, &text);
        self.pen.put(Style::Faint, suffix);
        if let Some(sizes) = sizes {
            self.pen.put(Style::Plain, &" ".repeat(self.area.saturating_sub(used)));
            for column in self.columns {
                let value = match (column, column.value(sizes)) {
                    (Column::ToSend, 0) => "-".to_owned(),
                    // No NAR has 0 bytes: nobody has recorded how many.
                    (_, 0) => "unknown".to_owned(),
                    (_, size) => bytes(size),
                };
                self.pen.put(style, &format!("{value:>COLUMN$}"));
            }
        }
        self.pen.end();
    }

    fn legend(&self, again: bool, left_out: usize) -> Vec<String> {
        let glyph = |state: State| self.pen.glyphs.states[state as usize];
        let mut parts: Vec<_> = State::ALL
            .into_iter()
            .filter(|state| self.model.total(*state).paths > 0)
            .map(|state| format!("{} {}", glyph(state), state.word()))
            .collect();
        if again {
            parts.push("(*) drawn above".to_owned());
        }
        match left_out {
            0 => {}
            // How long this may become.
            usize::MAX => parts.push("100000 references not drawn".to_owned()),
            1 => parts.push("1 reference not drawn".to_owned()),
            count => parts.push(format!("{count} references not drawn")),
        }
        parts
    }
}

/// For each line whether it is the last below the one above it.
fn last_of_siblings(lines: &[(usize, Line)]) -> Vec<bool> {
    let deepest = lines.iter().map(|(depth, _)| *depth).max().unwrap_or(0);
    // For each level whether a line of it comes further down, before one of a level above.
    let mut comes = vec![false; deepest + 2];
    let mut last = vec![false; lines.len()];
    for ((depth, _), last) in lines.iter().zip(&mut last).rev() {
        *last = !comes[*depth];
        comes[*depth] = true;
        comes[*depth + 1] = false;
    }
    last
}
