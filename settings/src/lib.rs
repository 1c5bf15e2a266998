//! What Nix on this machine has been told, and which store that makes the default.
//!
//! * [`Settings`]: `nix.conf`, the files it includes, those of the user, `NIX_CONFIG` and the command line, read as Nix
//!   reads them.
//! * [`SETTINGS`]: every setting of Nix 2.0 to 2.36, Lix and Determinate Nix, and what it means to a program that copies
//!   store paths.
//! * [`Settings::trusted_keys`], [`Settings::secret_keys`]: the keys that they name.
//! * [`StoreReference`]: the texts that name a store, such as `auto`, `/mnt`, `local?root=/mnt` and `ssh://host`.
//! * [`StoreChoice`]: the store that Nix would use here, and why.
//!
//! ```
//! use ncc_settings::{Disk, Environment, Settings, StoreChoice};
//!
//! let environment = Environment::from_process()?;
//! let given = [("store".to_owned(), "local?root=/mnt".to_owned())];
//! let settings = Settings::load(&environment, &Disk, &given)?;
//! let choice = StoreChoice::new(&settings, &environment, &Disk)?;
//! assert_eq!(choice.to_string(), "the store is 'local?root=/mnt' (from the command line)");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Nothing here opens a store or changes a file. Whatever is read comes from an [`Environment`] and a [`FileSystem`]
//! that the caller passes, so that all of it can be tried without touching the process.

// Configuration files and URIs may hold anything: no panics.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

mod catalogue;
mod choice;
mod conf;
mod environment;
mod error;
mod keys;
mod parameters;
mod reference;
mod settings;

pub use catalogue::{Class, FLAGS, Flag, Kind, SETTINGS, Setting, find_setting, option_takes_value};
pub use choice::{LocalLayout, StoreChoice, StorePlace};
pub use conf::Origin;
pub use environment::{Disk, Environment, FileSystem, Os};
pub use error::SettingsError;
pub use keys::read_secret_key;
pub use parameters::{ParameterRemark, Parameters};
pub use reference::{StoreKind, StoreReference};
pub use settings::{LocalStoreSettings, Remark, Review, Settings};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
