//! Draws a small copy: `cargo run -p ncc-picture --example draw [FILE.svg|FILE.dot]`.

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::{error::Error, path::Path, sync::Arc};

use ncc_copy::Plan;
use ncc_picture::{TreeOptions, tree, write_graph};
use ncc_store::{NarHash, PathInfo, StoreDir, StorePath};

fn main() -> Result<(), Box<dyn Error>> {
    let path = |name: &str, size: u64, references: &[&StorePath]| {
        let path = StorePath::from_parts(&[u8::try_from(size % 251).unwrap_or(0); 20], name)?;
        let mut info = PathInfo::new(path, NarHash::of(name.as_bytes()), size);
        info.references = references.iter().map(|path| (*path).clone()).collect();
        Ok::<_, Box<dyn Error>>(Arc::new(info))
    };
    let library = path("library-1.0", 20 << 20, &[])?;
    let data = path("data", 300_000, &[])?;
    let program = path("program-2.1", 1 << 20, &[&library.path, &data.path])?;

    // As ncc_copy::plan would make it.
    let mut plan = Plan::default();
    plan.roots = vec![program.path.clone()];
    plan.present = vec![library];
    plan.to_send = vec![data, program];

    print!("{}", tree(&plan, &TreeOptions::default()));
    if let Some(file) = std::env::args_os().nth(1) {
        write_graph(Path::new(&file), &plan, &StoreDir::default())?;
    }
    Ok(())
}
