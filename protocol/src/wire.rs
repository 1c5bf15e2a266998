//! The primitives of all Nix protocols: every scalar is eight bytes, little-endian; every string has its length in
//! front and zeros behind, up to a multiple of eight.

mod budget;
mod nar;
mod reader;
mod writer;

pub use nar::NarReader;
pub use reader::{Beginning, WireReader};
pub use writer::WireWrite;

/// How long the text of a store path can be: a store directory of a whole PATH_MAX and a base name.
pub const PATH_LIMIT: u64 = 4096 + 256;

/// How many elements one set or list can have. Nix has no limit; the largest stores known have some millions of
/// paths.
pub const COUNT_LIMIT: u64 = 1 << 22;

/// What one message may take in memory, in bytes, where it is not a list of paths: room for 600,000 references of one path.
pub const MESSAGE_LIMIT: u64 = 64 << 20;

/// What an answer may take in memory beyond [`MESSAGE_LIMIT`], in bytes for each path in the question. A path info of
/// a real store takes about 600, with its references.
pub const PER_PATH_LIMIT: u64 = 1 << 10;

/// What a list of paths may take in memory, in bytes: a closure, a question about one. Room for four million paths.
pub const PATHS_LIMIT: u64 = 512 << 20;

/// How long a hash or a content address can be, of which messages quote the wrong ones. The longest right one is
/// `fixed:r:sha512:` with 128 digits.
pub const TEXT_LIMIT: u64 = 1 << 10;

/// How long a signature can be. The names of keys are free text, so generous.
pub const SIGNATURE_LIMIT: u64 = 64 << 10;

/// How much of a login shell's chatter before a greeting is passed over.
pub(crate) const NOISE_LIMIT: usize = 64 << 10;

/// Zero bytes behind a string of `length` bytes.
pub(crate) const fn padding(length: u64) -> usize {
    // The low three bits of the negative: 8 - length % 8, and 0 for 8.
    (length.wrapping_neg() & 7) as usize
}
