//! Pictures of a planned copy: a tree for the terminal, and a graph for a file.
//!
//! Each picture is a function of a [`Plan`] and its options alone: the same plan always gives the same text. Nothing here
//! looks at a terminal or at the environment; width, colours and letters are [`TreeOptions`].
//!
//! ```
//! use ncc_copy::Plan;
//! use ncc_picture::{GraphFormat, TreeOptions, graph, tree};
//! use ncc_store::StoreDir;
//!
//! let plan = Plan::default(); // ncc_copy::plan makes a real one
//! assert!(tree(&plan, &TreeOptions::default()).starts_with("closure: 0 paths"));
//! assert!(graph(&plan, &StoreDir::default(), GraphFormat::Dot).starts_with("digraph"));
//! ```

mod dot;
mod layered;
mod model;
mod outline;
mod sketch;
mod svg;
mod tree;

#[cfg(test)]
mod test_plans;

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use ncc_copy::Plan;
use ncc_store::StoreDir;

use model::Model;

/// How a tree is drawn.
#[derive(Clone, Copy, Debug)]
pub struct TreeOptions {
    /// Columns of the terminal; no line is wider. (Below 20 columns it is drawn as for 20.)
    pub width: usize,
    /// Lines that the whole picture may take, `None` for as many as it needs. (Nine have room for at
    /// least one path at any width.)
    pub lines: Option<usize>,
    /// Whether the terminal shows more than ASCII.
    pub unicode: bool,
    /// Whether to use the terminal's colours.
    pub colour: bool,
}

impl Default for TreeOptions {
    fn default() -> Self {
        Self { width: 80, lines: None, unicode: true, colour: false }
    }
}

/// The kinds of files that a graph can be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GraphFormat {
    /// A picture for browsers, laid out here.
    Svg,
    /// Input for Graphviz: everything, not laid out.
    Dot,
}

impl GraphFormat {
    /// The format that the extension of a file name asks for.
    ///
    /// # Errors
    /// [`PictureError::Format`].
    pub fn of(path: &Path) -> Result<Self, PictureError> {
        let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
        match extension.to_str() {
            Some("svg") => Ok(Self::Svg),
            Some("dot" | "gv") => Ok(Self::Dot),
            _ => Err(PictureError::Format { path: path.to_owned() }),
        }
    }
}

/// Why a graph could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PictureError {
    /// The extension says no format.
    #[error("'{}' is to be a graph, and its name ends neither in .svg nor in .dot", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("cannot write the graph to '{}'", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What will be copied, as a tree below the roots.
///
/// Siblings come with the largest closure first. What several paths refer to is drawn once, below the first of them,
/// and then only named. Ends with a newline.
pub fn tree(plan: &Plan, options: &TreeOptions) -> String {
    match Model::new(plan) {
        Ok(model) => tree::draw(&model, options),
        Err(error) => format!("no picture: {error}\n"),
    }
}

/// The whole closure with its references, as the text of a file.
pub fn graph(plan: &Plan, store_dir: &StoreDir, format: GraphFormat) -> String {
    let model = Model::new(plan);
    match (format, model) {
        (GraphFormat::Svg, Ok(model)) => svg::draw(&model, store_dir),
        (GraphFormat::Dot, Ok(model)) => dot::draw(&model, store_dir),
        (GraphFormat::Svg, Err(error)) => svg::sorry(&error.to_string()),
        (GraphFormat::Dot, Err(error)) => dot::sorry(&error.to_string()),
    }
}

/// Writes the graph to a file, in the format of its extension. Nobody ever sees a part of it: the file is made beside
/// and then renamed.
///
/// # Errors
/// [`PictureError`]. Before anything is copied, [`GraphFormat::of`] finds the ones in the name.
pub fn write_graph(path: &Path, plan: &Plan, store_dir: &StoreDir) -> Result<(), PictureError> {
    let text = graph(plan, store_dir, GraphFormat::of(path)?);
    replace(path, text.as_bytes()).map_err(|source| PictureError::Write { path: path.to_owned(), source })
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    // Behind a symbolic link it is the file that changes, not the link.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if fs::metadata(&target).is_ok_and(|metadata| !metadata.is_file()) {
        // A pipe or a device: renaming would put a file in its place. (A directory says here what it is.)
        return fs::OpenOptions::new().write(true).open(&target)?.write_all(content);
    }
    let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = tempfile::Builder::new();
    temporary.prefix(".nix-copy-closure-graph");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // As any new file: less what the umask takes away.
        temporary.permissions(fs::Permissions::from_mode(0o666));
    }
    let mut file = temporary.tempfile_in(directory)?;
    file.write_all(content)?;
    file.persist(&target)?;
    Ok(())
}

#[cfg(test)]
mod tests;
