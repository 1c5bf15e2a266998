//! The copy engine. It knows a [`Source`](ncc_store::Source), a [`Destination`](ncc_store::Destination) and nothing
//! of what is behind them.
//!
//! A copy has five steps, and this crate reads in their order:
//!
//! 1. a [`Request`] says what is wanted, as data;
//! 2. [`plan`] asks the destination for the roots and the source for the closure, at the same time; and the destination for
//!    the whole closure, unless all roots are valid there;
//! 3. the [`Plan`] says what is present and what is to send, references first;
//! 4. [`run`] hands the plan and the source's NARs to the destination, which pulls what it needs, and verifies it;
//! 5. the [`Report`] says what happened, after the destination was asked once more whether the roots are valid.
//!
//! [`copy`] does all five. An [`Observer`] sees it happen.
//!
//! The README has an example.

mod dependants;
mod error;
mod observed;
mod observer;
mod plan;
mod report;
mod request;
mod retrying;
mod run;
mod signatures;

pub use error::CopyError;
pub use ncc_store::OnFailure;
pub use observer::{Event, NoObserver, Observer};
pub use plan::{Plan, plan};
pub use report::{Failed, Paths, Report};
pub use request::{Described, Purpose, Request, Retries, Signatures};
pub use run::{copy, run};
pub use signatures::Unsigned;

/// The example in README.md is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
