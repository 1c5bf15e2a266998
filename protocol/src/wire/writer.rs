//! Writing primitives.

use ncc_store::{StoreDir, StorePath};

use super::padding;

/// What a `Vec<u8>` can take in wire form.
pub trait WireWrite {
    /// A scalar: integers, booleans, times, commands.
    fn put_u64(&mut self, value: u64);

    /// A string with its length and padding.
    fn put_bytes(&mut self, bytes: &[u8]);

    /// A store path as its full text.
    fn put_path(&mut self, store_dir: &StoreDir, path: &StorePath);

    /// An optional store path; absent is the empty string.
    fn put_optional_path(&mut self, store_dir: &StoreDir, path: Option<&StorePath>) {
        match path {
            Some(path) => self.put_path(store_dir, path),
            None => self.put_u64(0),
        }
    }

    /// A set or list of store paths, written in the order given.
    fn put_paths<'a, I>(&mut self, store_dir: &StoreDir, paths: I)
    where
        I: IntoIterator<Item = &'a StorePath, IntoIter: ExactSizeIterator>,
    {
        let paths = paths.into_iter();
        self.put_u64(paths.len() as u64);
        for path in paths {
            self.put_path(store_dir, path);
        }
    }
}

impl WireWrite for Vec<u8> {
    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        self.put_u64(bytes.len() as u64);
        self.extend_from_slice(bytes);
        pad(self, bytes.len());
    }

    fn put_path(&mut self, store_dir: &StoreDir, path: &StorePath) {
        let (front, base) = (store_dir.as_str(), path.base_name());
        let length = front.len().saturating_add(1).saturating_add(base.len());
        self.put_u64(length as u64);
        self.extend_from_slice(front.as_bytes());
        self.push(b'/');
        self.extend_from_slice(base.as_bytes());
        pad(self, length);
    }
}

fn pad(bytes: &mut Vec<u8>, length: usize) {
    bytes.resize(bytes.len().saturating_add(padding(length as u64)), 0);
}
