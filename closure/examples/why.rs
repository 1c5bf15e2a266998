//! Draws a closure as levels, and says why its bottom is in it.
//!
//! `cargo run -p ncc-closure --example why`

#![allow(clippy::print_stdout, reason = "it is an example's job")]

use ncc_closure::{Graph, GraphError};
use ncc_store::test_util::MemoryStore;

fn main() -> Result<(), GraphError> {
    let store = MemoryStore::new("this machine");
    let libc = store.add("libc", "x".repeat(2_000_000), &[]);
    let zlib = store.add("zlib", "x".repeat(100_000), std::slice::from_ref(&libc));
    let tls = store.add("tls", "x".repeat(700_000), &[libc.clone(), zlib.clone()]);
    let browser = store.add("browser", "x".repeat(9_000_000), &[tls, zlib]);

    let closure = Graph::new(store.infos(&store.paths()).iter().cloned())?
        .closure_of(std::slice::from_ref(&browser))?;
    println!("{} paths, {} bytes", closure.len(), closure.total_size());
    for (level, paths) in closure.levels().iter().enumerate() {
        for info in paths {
            let size = closure.closure_size(&info.path)?;
            println!(
                "level {level}: {:8} {:>9} bytes, {size:>9} with its closure",
                info.path.name(),
                info.nar_size
            );
        }
    }
    let way = closure.why(&browser, &libc)?.unwrap_or_default();
    let names: Vec<_> = way.iter().map(ncc_store::StorePath::name).collect();
    println!("why libc: {}", names.join(" -> "));
    Ok(())
}
