//! `--tree` and `--graph`: when they are drawn, and where to.

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
};

use ncc_copy::Plan;
use ncc_picture::TreeOptions;
use ncc_progress::Patient;
use ncc_store::StoreDir;

use crate::{environment::variable, failure::Failure, intent::Show, output};

/// How wide a tree is where nobody says how wide the terminal is.
const DEFAULT_WIDTH: usize = 80;

/// Draws what was asked for. The tree goes to standard output, unless that is for JSON.
pub(crate) fn draw(show: &Show, plan: &Plan, store_dir: &StoreDir) -> Result<(), Failure> {
    if let Some(file) = &show.graph {
        ncc_picture::write_graph(file, plan, store_dir).map_err(|error| Failure::plain(&error))?;
    }
    if show.tree && show.json {
        let tree = ncc_picture::tree(plan, &options(io::stderr().is_terminal()));
        // That stderr is closed is no reason to stop copying.
        let _ = Patient::new(io::stderr()).write_all(tree.as_bytes());
    } else if show.tree {
        output::print(&ncc_picture::tree(plan, &options(io::stdout().is_terminal())))?;
    }
    Ok(())
}

/// On a terminal it must fit; elsewhere it has as many lines as it needs.
fn options(is_terminal: bool) -> TreeOptions {
    let size = is_terminal.then(|| console::Term::stdout().size_checked()).flatten();
    let (lines, columns) = size.unzip();
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(variable).unwrap_or_default();
    TreeOptions {
        width: columns.map_or(DEFAULT_WIDTH, usize::from),
        lines: lines.map(|lines| usize::from(lines).saturating_sub(2)),
        unicode: locale.to_ascii_lowercase().replace('-', "").contains("utf8"),
        colour: is_terminal
            && env::var_os("NO_COLOR").is_none()
            && variable("TERM").is_some_and(|term| term != "dumb"),
    }
}
