//! NARs without a length in front.

use bytes::Bytes;
use ncc_nar::{Parser, Step};
use tokio::io::AsyncRead;

use super::WireReader;
use crate::ProtocolError;

/// Reads one NAR whose size nobody has said: its own grammar tells where it ends.
///
/// The daemon sends all NARs so; of an old store, the serve protocol too (it records no size for some paths).
///
/// ```
/// use ncc_protocol::wire::{NarReader, WireReader};
///
/// # futures_util::FutureExt::now_or_never(async {
/// let nar = ncc_store::test_util::file_nar(b"content");
/// let wire = [&nar[..], b"what comes next"].concat();
/// let (mut reader, mut blocks) = (WireReader::new(&wire[..]), NarReader::new());
/// let mut read = Vec::new();
/// while let Some(block) = blocks.next(&mut reader).await? {
///     read.extend_from_slice(&block);
/// }
/// assert_eq!(read, nar);
/// assert_eq!(reader.block("the rest", 100).await?, "what comes next");
/// # Ok::<(), ncc_protocol::ProtocolError>(())
/// # }).expect("a slice never waits")?;
/// # Ok::<(), ncc_protocol::ProtocolError>(())
/// ```
#[derive(Debug, Default)]
pub struct NarReader {
    parser: Parser,
    /// Where in the NAR the last step began.
    position: u64,
    ended: bool,
}

impl NarReader {
    /// At the first byte of a NAR.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next block, in the very buffer in which it arrived; `None` at the end of the NAR.
    ///
    /// The blocks together are one well-formed NAR. Whether it is the right one only its hash tells.
    ///
    /// # Errors
    /// [`ProtocolError::Nar`], and those of the stream.
    pub async fn next<R: AsyncRead + Unpin>(
        &mut self,
        reader: &mut WireReader<R>,
    ) -> Result<Option<Bytes>, ProtocolError> {
        let what = "a NAR";
        let mut used = 0_usize;
        while !self.ended {
            let input = reader.arrived().get(used..).unwrap_or_default();
            self.position = self.parser.position();
            match self.parser.step(input) {
                Ok((consumed, step)) => {
                    used = used.saturating_add(consumed);
                    match step {
                        Step::End => self.ended = true,
                        Step::More { needed, .. } if input.len().saturating_sub(consumed) < needed => {
                            if used > 0 {
                                break;
                            }
                            reader.wait_for_more(what).await?;
                        }
                        _ => {}
                    }
                }
                // What was right before the mistake goes out first; the parser finds the mistake again.
                Err(_) if used > 0 => break,
                Err(source) => return Err(ProtocolError::Nar { what, source }),
            }
        }
        Ok((used > 0).then(|| reader.take(used)))
    }

    /// Where in the NAR those bytes begin that have arrived and are not given out, after an error.
    pub(crate) const fn position(&self) -> u64 {
        self.position
    }
}
