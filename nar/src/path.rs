use std::{cmp::Ordering, fmt};

use crate::escape::Escaped;

/// Where an object lies inside an archive: entry names joined by slashes, the root is empty.
///
/// Bytes, not text; shown escaped, the root as `.`.
#[derive(Clone, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NarPath(Vec<u8>);

impl NarPath {
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

impl From<&[u8]> for NarPath {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl AsRef<[u8]> for NarPath {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for NarPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A hostile archive can make this megabytes long; messages are for people.
        const SHOWN: usize = 1024;
        if self.is_root() {
            return f.write_str(".");
        }
        match self.0.get(self.0.len().saturating_sub(SHOWN)..) {
            Some(end) if self.0.len() > SHOWN => write!(f, "...{}", Escaped(end)),
            _ => Escaped(&self.0).fmt(f),
        }
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

    /// How `name` compares to the entry before it in the current directory; `None` if it is the first.
    pub(crate) fn compare_to_previous(&self, name: &[u8]) -> Option<(Ordering, &[u8])> {
        let previous = self.name();
        (!previous.is_empty()).then(|| (name.cmp(previous), previous))
    }

    pub(crate) fn set_entry(&mut self, name: &[u8]) {
        self.bytes.truncate(self.open.last().copied().unwrap_or(0));
        self.bytes.extend_from_slice(name);
    }

    /// The name of the current entry; empty before the first entry of a directory.
    pub(crate) fn name(&self) -> &[u8] {
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
        assert_eq!(stack.compare_to_previous(b"a"), None);
        stack.set_entry(b"a");
        stack.enter_directory();
        assert_eq!((stack.node(), stack.directory()), (&b"a"[..], &b"a"[..]));
        assert_eq!(stack.compare_to_previous(b"A"), None);
        stack.set_entry(b"x");
        assert_eq!((stack.node(), stack.directory()), (&b"a/x"[..], &b"a"[..]));
        stack.set_entry(b"y");
        assert_eq!(stack.node(), b"a/y");
        stack.leave_directory();
        assert_eq!(stack.node(), b"a");
        assert_eq!(stack.compare_to_previous(b"a"), Some((Ordering::Equal, &b"a"[..])));
        assert_eq!(stack.compare_to_previous(b"B").unwrap().0, Ordering::Less);
        stack.leave_directory();
        assert_eq!((stack.depth(), stack.node()), (0, &b""[..]));
    }

    #[test]
    fn a_path_shows_escaped_and_bounded() {
        assert_eq!(NarPath::default().to_string(), ".");
        assert_eq!(NarPath::from(&b"a/\n"[..]).to_string(), "a/\\n");
        let long = NarPath::from(&[b'x'; 5000][..]);
        assert_eq!(long.to_string().len(), 1027);
        assert_eq!(NarPath::from(&b"a/b"[..]).names().collect::<Vec<_>>(), [b"a", b"b"]);
    }
}
