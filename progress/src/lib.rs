//! What a person, or a program that reads logs, sees of a copy while it happens. Everything goes to standard error.
//!
//! [`Progress::start`] gives one object per copy. The engine tells its observer what happens, and one of three forms is made
//! of it: the lines that Nix prints, a bar on a terminal, or `@nix` lines of JSON. A thread looks ten times a second whether
//! there is something new to draw, and whether nothing has happened for too long.
//!
//! Two rules of the terminal: nothing is drawn before the host has answered, because until then ssh may be asking for a
//! password on the same terminal; and whoever wants to say something while the bar is there goes through [`tell`], so
//! that the bar is not torn.

mod bar;
mod chain;
pub mod human;
mod internal_json;
mod lines;
mod options;
mod progress;
mod report;
mod state;
mod terminal;
#[cfg(test)]
mod testing;
mod watchdog;

pub use chain::{causes, chain};
pub use options::{Direction, Importance, LogFormat, ProgressOptions};
pub use progress::{Progress, aside, tell};
pub use report::{Wire, nothing_json, plan_json};
