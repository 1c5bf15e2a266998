use std::{cmp::Ordering, fmt};

use crate::{
    error::OrderError,
    escape::{Escaped, EscapedEnd},
    name::{EntryNameRef, NameError, check_name},
};

/// Where an object lies inside an archive: entry names joined by slashes, the root is empty.
///
/// Bytes, not text; shown escaped, the root as `.`.
#[derive(Clone, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NarPath(Vec<u8>);

impl NarPath {
    /// The path that `bytes` spell: names joined by single slashes, or nothing for the root.
    ///
    /// ```
    /// use ncc_nar::{NameError, NarPath};
    ///
    /// assert_eq!(NarPath::new("bin/hello").unwrap().names().count(), 2);
    /// assert!(NarPath::new("").unwrap().is_root());
    /// assert_eq!(NarPath::new("bin/../.."), Err(NameError::Dots));
    /// ```
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, NameError> {
        let bytes = bytes.as_ref();
        if !bytes.is_empty() {
            bytes.split(|byte| *byte == b'/').try_for_each(check_name)?;
        }
        Ok(Self(bytes.into()))
    }

    /// For names that were checked when they were read.
    pub(crate) fn known_valid(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// The path of the entry `name` of the directory that lies here.
    #[must_use]
    pub fn join(&self, name: EntryNameRef<'_>) -> Self {
        let mut path = self.0.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.as_bytes());
        Self(path)
    }

    /// The names joined by `/`; empty for the root.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the root node.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The entry names from the root down.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
    }
}

impl fmt::Display for NarPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() { f.write_str(".") } else { EscapedEnd(&self.0).fmt(f) }
    }
}

impl AsRef<[u8]> for NarPath {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for NarPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", Escaped(&self.0))
    }
}

/// The way from the root to the current node, which also remembers the previous entry name of every
/// open directory: exactly what the order check needs, without an allocation per directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct PathStack {
    bytes: Vec<u8>,
    /// For each open directory, where the names of its entries start in `bytes`.
    open: Vec<usize>,
}

impl PathStack {
    /// How many directories are open.
    pub(crate) fn depth(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn enter_directory(&mut self) {
        if !self.bytes.is_empty() {
            self.bytes.push(b'/');
        }
        self.open.push(self.bytes.len());
    }

    pub(crate) fn leave_directory(&mut self) {
        if let Some(start) = self.open.pop() {
            self.bytes.truncate(start.saturating_sub(1));
        }
    }

    /// Whether `name` may come after the entry before it in the current directory.
    pub(crate) fn check_order(&self, name: &[u8]) -> Result<(), OrderError> {
        let previous = self.name();
        // No name is empty, so that the first one sorts after "no previous name".
        match name.cmp(previous) {
            Ordering::Greater => Ok(()),
            Ordering::Equal => Err(OrderError::Duplicate { name: name.into() }),
            Ordering::Less => Err(OrderError::OutOfOrder { previous: previous.into(), name: name.into() }),
        }
    }

    pub(crate) fn set_entry(&mut self, name: &[u8]) {
        self.bytes.truncate(self.open.last().copied().unwrap_or(0));
        self.bytes.extend_from_slice(name);
    }

    /// The name of the current entry; empty before the first entry of a directory.
    fn name(&self) -> &[u8] {
        let start = self.open.last().copied().unwrap_or(0);
        self.bytes.get(start..).unwrap_or_default()
    }

    /// The path of the node that is being read or written.
    pub(crate) fn node(&self) -> &[u8] {
        self.bytes.strip_suffix(b"/").unwrap_or(&self.bytes)
    }

    /// The path of the innermost open directory.
    pub(crate) fn directory(&self) -> &[u8] {
        let start = self.open.last().copied().unwrap_or(0);
        self.bytes.get(..start.saturating_sub(1)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stack_knows_path_and_previous_name() {
        let mut stack = PathStack::default();
        stack.enter_directory();
        assert_eq!((stack.depth(), stack.node(), stack.directory()), (1, &b""[..], &b""[..]));
        assert_eq!(stack.check_order(b"a"), Ok(()));
        stack.set_entry(b"a");
        stack.enter_directory();
        assert_eq!((stack.node(), stack.directory()), (&b"a"[..], &b"a"[..]));
        assert_eq!(stack.check_order(b"A"), Ok(()));
        stack.set_entry(b"x");
        assert_eq!((stack.node(), stack.directory()), (&b"a/x"[..], &b"a"[..]));
        stack.set_entry(b"y");
        assert_eq!(stack.node(), b"a/y");
        stack.leave_directory();
        assert_eq!(stack.node(), b"a");
        assert_eq!(stack.check_order(b"a"), Err(OrderError::Duplicate { name: b"a".into() }));
        let unordered = OrderError::OutOfOrder { previous: b"a".into(), name: b"B".into() };
        assert_eq!(stack.check_order(b"B"), Err(unordered));
        stack.leave_directory();
        assert_eq!((stack.depth(), stack.node()), (0, &b""[..]));
    }

    #[test]
    fn a_path_shows_escaped_and_bounded() {
        assert_eq!(NarPath::default().to_string(), ".");
        assert_eq!(NarPath::new("a/\n").unwrap().to_string(), "a/\\n");
        let long = NarPath::new(vec!["x"; 2500].join("/")).unwrap();
        assert_eq!(long.to_string().len(), 1027);
        assert_eq!(NarPath::new("a/b").unwrap().names().collect::<Vec<_>>(), [b"a", b"b"]);
    }

    #[test]
    fn a_path_is_made_of_entry_names() {
        let name = EntryNameRef::new(b"b").unwrap();
        assert_eq!(NarPath::default().join(name), NarPath::new("b").unwrap());
        assert_eq!(NarPath::new("a").unwrap().join(name), NarPath::new("a/b").unwrap());
        assert_eq!(NarPath::new("a/../b"), Err(NameError::Dots));
        assert_eq!(NarPath::new("/a"), Err(NameError::Empty));
        assert_eq!(NarPath::new("a/"), Err(NameError::Empty));
        assert_eq!(NarPath::new("a\0"), Err(NameError::Nul));
    }
}
