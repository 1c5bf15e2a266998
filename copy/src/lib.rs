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
//! ```
//! use ncc_copy::{NoObserver, Request, copy};
//! use ncc_store::test_util::MemoryStore;
//!
//! # futures_util::FutureExt::now_or_never(async {
//! let here = MemoryStore::new("this machine");
//! let library = here.add("library", "code", &[]);
//! let program = here.add("program", "more code", &[library]);
//! let there = MemoryStore::new("the other machine");
//!
//! let report = copy(&here, &there, &Request::new([program.clone()]), &NoObserver.shared()).await?;
//! assert_eq!(report.sent.count(), 2);
//! let again = copy(&here, &there, &Request::new([program]), &NoObserver.shared()).await?;
//! assert_eq!(again.sent.count(), 0);
//! # Ok::<(), ncc_copy::CopyError>(())
//! # }).expect("memory is always ready")?;
//! # Ok::<(), ncc_copy::CopyError>(())
//! ```

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
pub use request::{Purpose, Request, Retries, Signatures};
pub use run::{copy, run};
pub use signatures::Unsigned;
