//! Shows a copy between two stores in memory: `cargo run -p ncc-progress --example show -- [FORMAT]`.

use std::error::Error;

use ncc_copy::{Request, copy};
use ncc_progress::{Console, ConsoleOptions, Direction, LogFormat, Progress, ProgressOptions};
use ncc_store::{StoreDir, test_util::MemoryStore};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let here = MemoryStore::new("this machine");
    let library = here.add("library", "code", &[]);
    let program = here.add("program", "more code", &[library]);
    let there = MemoryStore::new("web1");

    let mut options = ConsoleOptions::default();
    options.format = std::env::args().nth(1).and_then(|name| LogFormat::named(&name));
    let console = Console::start(options)?;
    let direction = Direction::to("web1");
    let progress = Progress::start(&console, ProgressOptions::new(direction, StoreDir::default()));
    let report = copy(&here, &there, &Request::new([program]), &progress.observer()).await?;
    progress.finish(Some(&report));
    console.flush(None);
    Ok(())
}
