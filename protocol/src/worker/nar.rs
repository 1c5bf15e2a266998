//! NARs in both directions.

use bytes::Bytes;
use ncc_store::{PathInfo, StoreDir};
use tokio::io::AsyncRead;

use super::{
    AnswerError, Version,
    log::{ERROR, read_error},
};
use crate::{
    ProtocolError,
    path_info::put_registration,
    wire::{self, WireReader, WireWrite as _},
};

/// What a daemon of 1.21 or 1.22 asks for at once, and the longest string that it takes, in bytes.
const PULLED_AT_ONCE: usize = 32 << 10;

/// How the NAR of an addition is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NarForm {
    /// From 1.23 on: in frames, of any size, and a frame of no bytes at the end. What the daemon refuses it drains.
    Framed,
    /// 1.21 and 1.22: in strings. The daemon asks for each ([`LogMessage::Wanted`](super::LogMessage::Wanted)), but takes what was
    /// sent before it asked. So nobody has to wait, but then the conversation is lost
    ///
    /// * if the path is valid already: no string is read, and the first one is taken for an operation;
    /// * if the path is refused before its NAR is read, which is what happens without a signature from a client that the
    ///   daemon does not trust;
    /// * if the NAR is malformed or the disk full before the last string.
    Pushed,
    /// 1.20: as it is. A newer daemon to which 1.20 is offered gathers the whole NAR in memory, twice.
    Plain,
}

impl NarForm {
    /// The form that a version has.
    pub fn of(version: Version) -> Self {
        if version >= Version::FRAMES {
            Self::Framed
        } else if version >= Version::PULLED_NAR {
            Self::Pushed
        } else {
            Self::Plain
        }
    }
}

/// Writes what follows an addition, block by block, however large these are.
///
/// A framed sequence that was begun has to be finished, whatever happens, for the connection to be of any use: what is left
/// of the NAR can be left out, the end cannot.
#[derive(Debug)]
pub struct NarWriter {
    form: NarForm,
    /// Of [`NarForm::Pushed`]: what is no whole string yet. No string but the last is shorter than it can be: where the daemon takes
    /// one for an operation, its length must not be the number of any.
    gathered: Vec<u8>,
}

impl NarWriter {
    /// For an addition to a daemon of this version.
    pub fn new(version: Version) -> Self {
        Self { form: NarForm::of(version), gathered: Vec::new() }
    }

    /// Appends a block.
    pub fn put(&mut self, block: &[u8], bytes: &mut Vec<u8>) {
        match self.form {
            NarForm::Framed => {
                for frame in block.chunks(u32::MAX as usize) {
                    bytes.put_u64(frame.len() as u64);
                    bytes.extend_from_slice(frame);
                }
            }
            NarForm::Pushed => self.push(block, bytes),
            NarForm::Plain => bytes.extend_from_slice(block),
        }
    }

    fn push(&mut self, mut block: &[u8], bytes: &mut Vec<u8>) {
        let room = |gathered: &Vec<u8>| PULLED_AT_ONCE.saturating_sub(gathered.len());
        while let Some((head, rest)) = block.split_at_checked(room(&self.gathered)) {
            self.gathered.extend_from_slice(head);
            bytes.put_bytes(&self.gathered);
            self.gathered.clear();
            block = rest;
        }
        self.gathered.extend_from_slice(block);
    }

    /// Appends the end.
    pub fn finish(self, bytes: &mut Vec<u8>) {
        match self.form {
            NarForm::Framed => bytes.put_u64(0),
            NarForm::Pushed if !self.gathered.is_empty() => bytes.put_bytes(&self.gathered),
            NarForm::Pushed | NarForm::Plain => {}
        }
    }
}

/// Appends how many paths an AddMultipleToStore is about: the first thing to go through its [`NarWriter`].
pub fn put_count(paths: u64, bytes: &mut Vec<u8>) {
    bytes.put_u64(paths);
}

/// Appends what goes in front of each NAR of an AddMultipleToStore, through its [`NarWriter`].
pub fn put_path_info(info: &PathInfo, store_dir: &StoreDir, bytes: &mut Vec<u8>) {
    put_registration(info, store_dir, bytes);
}

/// The NAR that answers a NarFromPath: it has no length in front, so its own grammar tells where it ends.
#[derive(Debug)]
pub struct NarReader {
    blocks: wire::NarReader,
    version: Version,
}

impl NarReader {
    pub(super) fn new(version: Version) -> Self {
        Self { blocks: wire::NarReader::new(), version }
    }

    /// The next block, in the very buffer in which it arrived; `None` at the end of the NAR.
    ///
    /// The blocks together are one well-formed NAR. Whether it is the right one only its hash tells.
    ///
    /// # Errors
    /// [`AnswerError::Refused`] where the daemon says that it cannot go on; it says so in the place of a part of the NAR,
    /// and ends the connection. [`ProtocolError::Nar`], and those of the stream.
    pub async fn next<R: AsyncRead + Unpin>(
        &mut self,
        reader: &mut WireReader<R>,
    ) -> Result<Option<Bytes>, AnswerError> {
        let (what, source) = match self.blocks.next(reader).await {
            Err(ProtocolError::Nar { what, source }) => (what, source),
            other => return Ok(other?),
        };
        if let Some(end) = end_of_tag(&source, self.blocks.position()) {
            while reader.arrived().len() < end && reader.wait_for_more(what).await.is_ok() {}
            if reader.arrived().get(..end).unwrap_or_default().ends_with(&ERROR.to_le_bytes()) {
                reader.take(end);
                return Err(read_error(reader, self.version).await?.into());
            }
        }
        Err(ProtocolError::Nar { what, source }.into())
    }
}

/// Where, counted from `position` of the NAR, the tag of an error would end if that is what the parser stumbled over: it is too
/// large for the length of any string, and like these stands only at multiples of eight.
fn end_of_tag(error: &ncc_nar::Error, position: u64) -> Option<usize> {
    let ncc_nar::Error::Malformed { offset, .. } = error else { return None };
    let start = usize::try_from(offset.checked_sub(position)?).ok()?;
    offset.is_multiple_of(8).then(|| start.saturating_add(8))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A daemon of 1.21 that finds the path valid takes the first string's length for an operation.
    #[test]
    fn a_string_that_is_pushed_is_never_mistaken_for_an_operation() {
        let nar = vec![7; PULLED_AT_ONCE + 100];
        for block in [1, 8, 39, PULLED_AT_ONCE - 1, PULLED_AT_ONCE, nar.len()] {
            let (mut writer, mut bytes) = (NarWriter::new(Version::PULLED_NAR), Vec::new());
            nar.chunks(block).for_each(|block| writer.put(block, &mut bytes));
            writer.finish(&mut bytes);
            let mut expected = Vec::new();
            nar.chunks(PULLED_AT_ONCE).for_each(|string| expected.put_bytes(string));
            assert!(bytes == expected, "in blocks of {block} bytes");
        }
    }
}
