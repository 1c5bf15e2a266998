//! What a person, or a program that reads logs, sees of a copy while it happens. Everything goes to standard error.
//!
//! A [`Console`] is the one writer of standard error: a thread with a bounded queue. [`Progress::start`] shows one copy on it.
//! The engine tells the copy's observer what happens, and one of three forms is made of it: the lines that Nix prints, a bar
//! on a terminal, or `@nix` lines of JSON. The thread looks ten times a second whether there is something new to draw, and
//! whether nothing has happened for too long.
//!
//! Two rules of the terminal: nothing is drawn before the host has answered, because until then ssh may be asking for a
//! password on the same terminal; and whoever wants to say something while the bar is there does it through the console, so
//! that the bar is not torn.
//!
//! ```
//! use ncc_copy::{Request, copy};
//! use ncc_progress::{Console, ConsoleOptions, Direction, Progress, ProgressOptions};
//! use ncc_store::{StoreDir, test_util::MemoryStore};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let here = MemoryStore::new("this machine");
//! let program = here.add("program", "code", &[]);
//! let there = MemoryStore::new("web1");
//!
//! let console = Console::start(ConsoleOptions::default())?;
//! let progress = Progress::start(
//!     &console,
//!     ProgressOptions::new(Direction::to("web1"), StoreDir::default()),
//! );
//! let report = copy(&here, &there, &Request::new([program]), &progress.observer()).await?;
//! progress.finish(Some(&report));
//! console.flush(None);
//! # Ok(())
//! # }
//! ```

mod bar;
mod chain;
mod console;
pub mod human;
mod internal_json;
mod lines;
mod options;
mod patient;
mod progress;
mod queue;
mod report;
mod state;
mod terminal;
#[cfg(test)]
mod testing;
mod watchdog;

pub use chain::{causes, chain};
pub use console::Console;
pub use options::{ConsoleOptions, Direction, Importance, LogFormat, ProgressOptions};
pub use patient::Patient;
pub use progress::Progress;
pub use report::{Subject, Wire, copy_json, plan_json};
pub use terminal::printable;
