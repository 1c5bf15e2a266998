//! `cargo xtask bench --plot`: the tables of `docs/benchmarks.md` as a picture. It shows what stands there and nothing else, so
//! that a picture cannot be of another run than the table.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

const PAGE: &str = "docs/benchmarks.md";
const PICTURE: &str = "docs/benchmarks.svg";

/// The sections whose tables are drawn.
const SECTIONS: [&str; 2] = ["### Over a line", "### Without a line"];

/// A line of a table: what was done, and the seconds that it took.
#[derive(Debug, PartialEq)]
struct Row {
    label: String,
    ours: f64,
    upstream: f64,
}

pub(crate) fn run(workspace: &Path) -> Result<()> {
    let picture = workspace.join(PICTURE);
    fs::write(&picture, drawn(workspace)?).with_context(|| format!("cannot write {}", picture.display()))?;
    println!("wrote {}", picture.display());
    Ok(())
}

/// Fails if the picture is not that of the tables.
pub(crate) fn check(workspace: &Path) -> Result<()> {
    let there = fs::read_to_string(workspace.join(PICTURE)).unwrap_or_default();
    ensure!(there == drawn(workspace)?, "{PICTURE} is stale: `cargo xtask bench --plot` makes it anew");
    Ok(())
}

fn drawn(workspace: &Path) -> Result<String> {
    let page = workspace.join(PAGE);
    let text = fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
    let rows = rows(&text);
    ensure!(!rows.is_empty(), "{PAGE} has no table with times");
    Ok(draw(&rows))
}

/// The rows that have times of both programs. A case that stands in the first column counts for the rows below it, too.
fn rows(page: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for section in SECTIONS {
        let Some((_, rest)) = page.split_once(&format!("{section}\n")) else { continue };
        let table = rest.split("\n##").next().unwrap_or_default();
        let mut case = "";
        for line in table.lines() {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [first, direction, paths, _, _, ours, upstream, ..] = cells[..] else { continue };
            if !first.is_empty() {
                case = first;
            }
            let seconds = |cell: &str| cell.strip_suffix(" s")?.parse().ok();
            if let (Some(ours), Some(upstream)) = (seconds(ours), seconds(upstream)) {
                let direction = direction.trim_matches('`');
                let noun = if paths == "1" { "path" } else { "paths" };
                rows.push(Row { label: format!("{case}: {direction}, {paths} {noun}"), ours, upstream });
            }
        }
    }
    rows
}

/// Left of the bars are the labels.
const LEFT: f64 = 330.0;
/// What a factor of ten is wide: 0.1 s is at the left, and the scale is logarithmic, since the slowest takes a thousand times
/// as long as the quickest.
const DECADE: f64 = 130.0;
const ROW: f64 = 40.0;
const TOP: f64 = 40.0;

fn draw(rows: &[Row]) -> String {
    let at = |seconds: f64| LEFT + DECADE * (seconds.max(0.1) / 0.1).log10();
    let (width, mut y) = (at(300.0) + 70.0, TOP);
    let mut bars = String::new();
    for Row { label, ours, upstream } in rows {
        let _ = writeln!(
            bars,
            r#"<text class="label" x="{:.0}" y="{:.0}">{label}</text>"#,
            LEFT - 10.0,
            y + 18.0
        );
        for (class, seconds, below) in [("ours", ours, 2.0), ("upstream", upstream, 16.0)] {
            let (end, top) = (at(*seconds), y + below);
            let _ = writeln!(
                bars,
                r#"<rect class="{class}" x="{LEFT:.0}" y="{top:.0}" width="{:.1}" height="12"/><text x="{:.1}" y="{:.0}">{seconds} s</text>"#,
                end - LEFT,
                end + 4.0,
                top + 10.0
            );
        }
        y += ROW;
    }
    let mut lines = String::new();
    for seconds in [0.1, 1.0, 10.0, 100.0] {
        let x = at(seconds);
        let _ = writeln!(lines, r#"<line x1="{x:.0}" y1="{TOP:.0}" x2="{x:.0}" y2="{y:.0}"/>"#);
        let _ = writeln!(lines, r#"<text class="scale" x="{x:.0}" y="{:.0}">{seconds} s</text>"#, y + 16.0);
    }
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0} {:.0}" font-family="sans-serif" font-size="12">
<style>
text {{ fill: #333; }} .label {{ text-anchor: end; }} .scale {{ text-anchor: middle; }}
.ours {{ fill: #2a7ab0; }} .upstream {{ fill: #b0b0b0; }} line {{ stroke: #ddd; }}
@media (prefers-color-scheme: dark) {{ text {{ fill: #ddd; }} .upstream {{ fill: #777; }} line {{ stroke: #444; }} }}
</style>
<rect class="ours" x="{LEFT:.0}" y="10" width="12" height="12"/><text x="{:.0}" y="20">this program</text>
<rect class="upstream" x="{:.0}" y="10" width="12" height="12"/><text x="{:.0}" y="20">upstream's nix-copy-closure; shorter is better</text>
{lines}{bars}</svg>
"#,
        y + 24.0,
        LEFT + 16.0,
        LEFT + 100.0,
        LEFT + 116.0,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rows_with_both_times_and_each_with_its_case() {
        let page = "### Over a line\n\n| case | | paths | MB | login | ours | upstream |\n|---|---|\n\
                    | slow | `--to` | 1 | 0.4 | 0.62 s | 2.64 s | 217.29 s | 82 |\n\
                    | | `--from` | 9 | 0.4 | 0.62 s | 2.1 s | 21 s | 10 |\n\
                    | alone | `--to` | 9 | 0.4 | 0.62 s | 2.1 s | | |\n\n### Other\n| x | y | 1 | 1 | 1 s | 1 s | 1 s |\n";
        let row = |label: &str, ours, upstream| Row { label: label.to_owned(), ours, upstream };
        let expected = [row("slow: --to, 1 path", 2.64, 217.29), row("slow: --from, 9 paths", 2.1, 21.0)];
        assert_eq!(rows(page), expected);
    }
}
