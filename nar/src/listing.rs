use std::{
    fmt,
    io::{Read, Seek},
    iter,
};

use crate::{
    decode::{DecodeOptions, Decoder, Event, Executable},
    error::Error,
    name::EntryNameRef,
    path::NarPath,
};

#[cfg(feature = "serde")]
mod json;

/// What is in an archive, and where: its tree without the contents of files.
///
/// Memory is proportional to the structure of the archive, however hostile that is, and nothing recurses.
///
/// With the feature `serde` it can be written and read as the `.ls` files of binary caches
/// (`{"version":1,"root":...}`), and a [`ListingNode`] can be written as `nix nar ls --json
/// --recursive` does. JSON cannot hold names that are not UTF-8; writing such a listing is an error.
///
/// ```
/// use ncc_nar::{DecodeOptions, Encoder, Executable, Listing, NarPath, NodeKind};
///
/// let mut encoder = Encoder::new(Vec::new());
/// encoder.directory()?;
/// encoder.entry("hello")?;
/// encoder.file(Executable::Yes, b"hi")?;
/// encoder.directory_end()?;
/// let nar = encoder.finish()?;
///
/// let listing = Listing::read(&nar[..], &DecodeOptions::default())?;
/// let node = listing.get(&NarPath::new("hello").unwrap()).unwrap();
/// assert_eq!(node.kind(), &NodeKind::Regular { executable: Executable::Yes, size: 2, offset: 264 });
/// assert_eq!(&nar[264..266], b"hi");
/// # Ok::<(), ncc_nar::Error>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listing {
    /// In the order of the archive: the root, then everything below it, each directory before its
    /// entries. Not nested, so that a deep tree cannot overflow the stack.
    items: Vec<Item>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Item {
    /// Empty for the root.
    name: Box<[u8]>,
    kind: NodeKind,
    /// The directory around it; itself for the root.
    parent: usize,
    /// Where what is below it ends.
    end: usize,
}

/// What an object in an archive is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NodeKind {
    /// A directory.
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

impl Listing {
    /// Lists the archive that `reader` yields, and checks it as strictly as [`Decoder`] does.
    pub fn read(reader: impl Read, options: &DecodeOptions) -> Result<Self, Error> {
        Self::decode(Decoder::with_options(reader, options), |_| Ok(()))
    }

    /// The same without reading the contents of files.
    pub fn read_seekable(reader: impl Read + Seek, options: &DecodeOptions) -> Result<Self, Error> {
        Self::decode(Decoder::with_options(reader, options), Decoder::skip_contents)
    }

    fn decode<R: Read>(
        mut decoder: Decoder<R>,
        skip_contents: impl Fn(&mut Decoder<R>) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let mut builder = Builder::default();
        loop {
            let kind = match decoder.next_event()? {
                None => return Ok(builder.finish()),
                Some(Event::Entry(name)) => {
                    builder.name = name.as_bytes().into();
                    continue;
                }
                Some(Event::DirectoryEnd) => {
                    builder.end_directory();
                    continue;
                }
                Some(Event::Directory) => NodeKind::Directory,
                Some(Event::Symlink { target }) => NodeKind::Symlink { target: target.into() },
                Some(Event::Regular { executable, size }) => {
                    let offset = decoder.position();
                    skip_contents(&mut decoder)?;
                    NodeKind::Regular { executable, size, offset }
                }
            };
            builder.add(kind);
        }
    }

    /// The root.
    pub fn root(&self) -> ListingNode<'_> {
        ListingNode { listing: self, index: 0 }
    }

    /// The node at `path`, if there is one.
    pub fn get(&self, path: &NarPath) -> Option<ListingNode<'_>> {
        path.names().try_fold(self.root(), ListingNode::entry)
    }

    /// All nodes in the order of the archive: the root, then everything below it, each directory before
    /// its entries.
    pub fn nodes(&self) -> impl Iterator<Item = ListingNode<'_>> {
        (0..self.items.len()).map(|index| ListingNode { listing: self, index })
    }
}

/// Puts a listing together in the order of the archive.
#[derive(Default)]
struct Builder {
    items: Vec<Item>,
    /// The directories that have not ended.
    open: Vec<usize>,
    /// The name of the next node.
    name: Box<[u8]>,
}

impl Builder {
    fn add(&mut self, kind: NodeKind) {
        let index = self.items.len();
        if kind == NodeKind::Directory {
            self.open.push(index);
        }
        let around = self.open.iter().rev().find(|open| **open < index);
        let (name, parent) = (std::mem::take(&mut self.name), around.copied().unwrap_or(index));
        self.items.push(Item { name, kind, parent, end: index.saturating_add(1) });
    }

    fn end_directory(&mut self) {
        let end = self.items.len();
        if let Some(item) = self.open.pop().and_then(|index| self.items.get_mut(index)) {
            item.end = end;
        }
    }

    fn finish(self) -> Listing {
        Listing { items: self.items }
    }
}

/// An object in a [`Listing`].
#[derive(Clone, Copy)]
pub struct ListingNode<'a> {
    listing: &'a Listing,
    index: usize,
}

impl<'a> ListingNode<'a> {
    #[allow(clippy::indexing_slicing, reason = "a node is only made for an item that there is")]
    fn item(self) -> &'a Item {
        &self.listing.items[self.index]
    }

    /// What it is.
    pub fn kind(self) -> &'a NodeKind {
        &self.item().kind
    }

    /// Its name; `None` for the root.
    pub fn name(self) -> Option<EntryNameRef<'a>> {
        Some(&*self.item().name).filter(|name| !name.is_empty()).map(EntryNameRef::known_valid)
    }

    /// Where it lies.
    pub fn path(self) -> NarPath {
        let mut names: Vec<_> = self.up().filter_map(Self::name).collect();
        names.reverse();
        let names: Vec<_> = names.into_iter().map(EntryNameRef::as_bytes).collect();
        NarPath::known_valid(&names.join(&b'/'))
    }

    /// How many directories are around it.
    pub fn depth(self) -> usize {
        self.up().skip(1).count()
    }

    /// The entries of a directory in ascending order; nothing for anything else.
    pub fn entries(self) -> impl Iterator<Item = ListingNode<'a>> {
        let node = move |index| (index < self.item().end).then_some(Self { index, ..self });
        iter::successors(node(self.index.saturating_add(1)), move |previous| node(previous.item().end))
    }

    /// The entry of that name.
    pub fn entry(self, name: &[u8]) -> Option<ListingNode<'a>> {
        self.entries().find(|entry| *entry.item().name == *name)
    }

    /// The node and the directories around it, up to the root.
    fn up(self) -> impl Iterator<Item = ListingNode<'a>> {
        iter::successors(Some(self), |node| {
            let parent = node.item().parent;
            (parent != node.index).then_some(Self { index: parent, ..*node })
        })
    }
}

impl fmt::Debug for ListingNode<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListingNode").field("path", &self.path()).field("kind", self.kind()).finish()
    }
}
