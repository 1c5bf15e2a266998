//! The Nix archive format (NAR): encode, decode, list, pack and unpack.
//!
//! An archive holds one file system object: a file, a symlink, or a directory with everything in it.
//! Of permissions it knows the execute bit; it knows no owners and no times. Each object has exactly
//! one archive, so that the hash of the archive identifies the object. This crate writes that one
//! form and accepts no other.
//!
//! | Task | Item |
//! |---|---|
//! | A tree on disk to an archive | [`pack`]; many of them: [`Packer`]; the size beforehand: [`size_of`] |
//! | An archive to a tree on disk | [`unpack`]; from bytes as they arrive: [`Unpacker`]; canonical modes and times: [`Metadata`] |
//! | Delete a tree, read-only directories too | [`remove`] |
//! | The same in a directory that is open | [`unpack_at`], [`Packer::pack_at`], [`remove_at`] |
//! | What is in an archive, and where | [`Listing`] |
//! | One file out of an archive | [`Decoder::seek_to`] |
//! | Read an archive piece by piece | [`Decoder`]; without waiting for a reader: [`Parser`] |
//! | Write an archive piece by piece | [`Encoder`], to any [`Write`](std::io::Write) or [`BlockSink`] |
//!
//! Archives stream: the decoder and the unpacker work in constant memory, the packer keeps the names
//! of the directories that are open, and only a [`Listing`] grows with the archive. Nothing reads
//! past the end of an archive, and nothing panics whatever the input. Names are bytes. Every failure
//! is an [`Error`] that says where and what.
//!
//! # Features
//!
//! `serde`, off by default: [`Listing`] as the JSON of Nix.
//!
//! # Example
//!
//! ```
//! use ncc_nar::{DecodeOptions, Listing, Metadata, PackOptions, UnpackOptions, pack, remove, unpack};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let directory = tempfile::tempdir()?;
//! let source = directory.path().join("source");
//! std::fs::create_dir(&source)?;
//! std::fs::write(source.join("greeting"), "hello")?;
//! std::os::unix::fs::symlink("greeting", source.join("link"))?;
//!
//! let mut nar = Vec::new();
//! let size = pack(&source, &mut nar, &PackOptions::default())?;
//! assert_eq!(size, nar.len() as u64);
//!
//! let listing = Listing::read(&nar[..], &DecodeOptions::default())?;
//! let paths: Vec<_> = listing.nodes().map(|node| node.path().to_string()).collect();
//! assert_eq!(paths, [".", "greeting", "link"]);
//!
//! let target = directory.path().join("target");
//! let mut options = UnpackOptions::default();
//! options.metadata = Metadata::Canonical;
//! unpack(&nar[..], &target, &options)?;
//! assert_eq!(std::fs::read(target.join("link"))?, b"hello");
//! // Its directories are read-only now.
//! remove(&target)?;
//! # Ok(())
//! # }
//! ```
//!
//! On systems other than Unix there is the codec only: no `pack`, `unpack` and `remove`.

#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unwrap_used
    )
)]

mod decode;
mod encode;
mod error;
mod escape;
mod listing;
mod name;
mod parser;
mod path;

#[cfg(unix)]
mod attributes;
#[cfg(unix)]
mod case_hack;
#[cfg(unix)]
mod directories;
#[cfg(unix)]
mod pack;
#[cfg(unix)]
mod read_ahead;
#[cfg(unix)]
mod remove;
#[cfg(unix)]
mod unpack;

pub use decode::{
    Contents, DEFAULT_BUFFER_SIZE, DEFAULT_MAX_DEPTH, DecodeOptions, Decoder, Event, Executable,
    NIX_MAX_DEPTH,
};
pub use encode::{BlockSink, Encoder, OwnedBlocks};
pub use error::{Error, Malformation, NotCanonical, Operation, OrderError};
pub use listing::{Listing, ListingNode, NodeKind};
pub use name::{EntryName, EntryNameRef, MAX_NAME, MAX_TARGET, NameError, TargetError};
pub use parser::{Parser, Step};
pub use path::NarPath;

#[cfg(unix)]
pub use case_hack::CaseHack;
#[cfg(unix)]
pub use pack::{PackOptions, Packer, pack, size_of};
#[cfg(unix)]
pub use remove::{remove, remove_at};
#[cfg(unix)]
pub use unpack::{DEFAULT_IGNORED_ACLS, Metadata, UnpackOptions, Unpacker, unpack, unpack_at};

/// Compiles and runs the example in the README.
#[cfg(all(doctest, unix))]
#[doc = include_str!("../README.md")]
struct Readme;
