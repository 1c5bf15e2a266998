use std::io::Read;

use crate::{
    decode::{DecodeOptions, Decoder, Event, Executable},
    error::Error,
    path::NarPath,
};

/// An object in an archive.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ListEntry {
    /// Where it is.
    pub path: NarPath,
    /// What it is.
    pub node: ListNode,
}

/// What an object in an archive is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ListNode {
    /// A directory. Its entries follow.
    Directory,
    /// A regular file.
    Regular {
        /// Whether its owner may execute it.
        executable: Executable,
        /// Size of its contents in bytes.
        size: u64,
        /// Where its contents start, in bytes from the start of the archive.
        offset: u64,
    },
    /// A symlink.
    Symlink {
        /// Where it points.
        target: Vec<u8>,
    },
}

/// Lists the objects of an archive in its order: the root, then everything below it, each directory
/// before its entries. Holds one entry in memory at a time and checks as strictly as
/// [`Decoder`] does.
///
/// ```
/// use ncc_nar::{Encoder, Executable, ListNode, list};
///
/// let mut encoder = Encoder::new(Vec::new());
/// encoder.file(Executable::Yes, b"hi")?;
/// let nar = encoder.finish()?;
/// let entries = list(&nar[..]).collect::<Result<Vec<_>, _>>()?;
/// assert!(entries[0].path.is_root());
/// assert_eq!(entries[0].node, ListNode::Regular { executable: Executable::Yes, size: 2, offset: 128 });
/// # Ok::<(), ncc_nar::Error>(())
/// ```
pub fn list<R: Read>(reader: R) -> List<R> {
    list_with_options(reader, &DecodeOptions::default())
}

/// [`list`] with other options.
pub fn list_with_options<R: Read>(reader: R, options: &DecodeOptions) -> List<R> {
    List { decoder: Some(Decoder::with_options(reader, options)) }
}

/// The iterator that [`list`] returns. Ends after the first error.
#[derive(Debug)]
pub struct List<R> {
    decoder: Option<Decoder<R>>,
}

impl<R: Read> Iterator for List<R> {
    type Item = Result<ListEntry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let decoder = self.decoder.as_mut()?;
        let node = loop {
            match decoder.next_event() {
                Ok(Some(Event::Entry(_) | Event::DirectoryEnd)) => {}
                Ok(Some(Event::Directory)) => break ListNode::Directory,
                Ok(Some(Event::Regular { executable, size })) => {
                    let offset = decoder.position();
                    break ListNode::Regular { executable, size, offset };
                }
                Ok(Some(Event::Symlink { target })) => {
                    break ListNode::Symlink { target: target.into() };
                }
                Ok(None) => {
                    self.decoder = None;
                    return None;
                }
                Err(error) => {
                    self.decoder = None;
                    return Some(Err(error));
                }
            }
        };
        let path = decoder.path();
        Some(Ok(ListEntry { path, node }))
    }
}
