//! Reading primitives.

use std::{convert::Infallible, io};

use bytes::{Buf as _, Bytes, BytesMut};
use ncc_store::{StoreDir, StorePath, StorePathError, StorePathSet};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{
    COUNT_LIMIT, MESSAGE_LIMIT, PATH_LIMIT, TEXT_LIMIT,
    budget::{Budget, PathList},
    padding,
};
use crate::{ProtocolError, error::printable};

/// How much is asked of the stream at once, and how large a block of a NAR gets.
const BLOCK: usize = 128 << 10;

/// Reads primitives and raw blocks from a byte stream, through a buffer of its own.
///
/// Every text and every path is paid for from a budget of memory, which each message gets anew: whoever reads messages calls
/// [`WireReader::begin`] or [`WireReader::begin_answer`] in front of each. Scalars and raw blocks cost nothing. Paths that
/// come more than once in a message share one text.
#[derive(Debug)]
pub struct WireReader<R> {
    inner: R,
    buffer: BytesMut,
    budget: Box<Budget>,
}

impl<R: AsyncRead + Unpin> WireReader<R> {
    /// Reads from `inner`, whose every byte belongs to the protocol from here on.
    pub fn new(inner: R) -> Self {
        Self { inner, buffer: BytesMut::new(), budget: Box::new(Budget::new(MESSAGE_LIMIT)) }
    }

    /// Begins a message that may take `limit` bytes of memory: [`MESSAGE_LIMIT`], or [`PATHS_LIMIT`] for lists of paths.
    ///
    /// [`PATHS_LIMIT`]: super::PATHS_LIMIT
    pub fn begin(&mut self, limit: u64) {
        *self.budget = Budget::new(limit);
    }

    /// Begins an answer to a question about `asked`, with [`PER_PATH_LIMIT`] bytes for each on top of [`MESSAGE_LIMIT`].
    /// Those paths cost nothing more, wherever they come up in it.
    ///
    /// [`PER_PATH_LIMIT`]: super::PER_PATH_LIMIT
    pub fn begin_answer(&mut self, asked: &StorePathSet) {
        *self.budget = Budget::for_answer_about(asked);
    }

    /// Pays for something of the message that is being read.
    ///
    /// # Errors
    /// [`ProtocolError::MessageTooLarge`] if the message has less than `bytes` left.
    pub fn spend(&mut self, what: &'static str, bytes: u64) -> Result<(), ProtocolError> {
        self.budget.spend(what, bytes)
    }

    /// One read of the stream into the buffer; 0 at its end.
    async fn read_more(&mut self, what: &'static str) -> Result<usize, ProtocolError> {
        if self.buffer.capacity().saturating_sub(self.buffer.len()) < 4096 {
            self.buffer.reserve(BLOCK);
        }
        self.inner.read_buf(&mut self.buffer).await.map_err(|source| ProtocolError::Io { what, source })
    }

    async fn fill(&mut self, size: usize, what: &'static str) -> Result<(), ProtocolError> {
        while self.buffer.len() < size {
            if self.read_more(what).await? == 0 {
                return Err(ProtocolError::UnexpectedEnd { what });
            }
        }
        Ok(())
    }

    /// Whether the stream ends here. Waits until it does, or until there is another byte.
    ///
    /// # Errors
    /// [`ProtocolError::Io`].
    pub async fn at_end(&mut self) -> Result<bool, ProtocolError> {
        Ok(self.buffer.is_empty() && self.read_more("the next message").await? == 0)
    }

    /// A scalar.
    ///
    /// # Errors
    /// [`ProtocolError::UnexpectedEnd`], [`ProtocolError::Io`].
    pub async fn u64(&mut self, what: &'static str) -> Result<u64, ProtocolError> {
        self.fill(8, what).await?;
        Ok(self.buffer.get_u64_le())
    }

    /// A scalar that must fit 32 bits, zero or not zero.
    ///
    /// # Errors
    /// [`ProtocolError::TooLarge`] beyond 32 bits, as Nix has it.
    pub async fn bool32(&mut self, what: &'static str) -> Result<bool, ProtocolError> {
        Ok(self.u32(what).await? != 0)
    }

    /// A scalar that must fit 32 bits.
    ///
    /// # Errors
    /// [`ProtocolError::TooLarge`] beyond 32 bits, as Nix has it.
    pub async fn u32(&mut self, what: &'static str) -> Result<u32, ProtocolError> {
        let announced = self.u64(what).await?;
        let limit = u64::from(u32::MAX);
        u32::try_from(announced).map_err(|_| ProtocolError::TooLarge { what, announced, limit })
    }

    /// A count of elements.
    ///
    /// # Errors
    /// [`ProtocolError::TooLarge`] over [`COUNT_LIMIT`].
    pub async fn count(&mut self, what: &'static str) -> Result<u64, ProtocolError> {
        self.count_up_to(what, COUNT_LIMIT).await
    }

    /// A count of elements, where it is known how many there can be.
    ///
    /// # Errors
    /// [`ProtocolError::TooLarge`] over `limit`.
    pub async fn count_up_to(&mut self, what: &'static str, limit: u64) -> Result<u64, ProtocolError> {
        let announced = self.u64(what).await?;
        if announced > limit {
            Err(ProtocolError::TooLarge { what, announced, limit })
        } else {
            Ok(announced)
        }
    }

    /// A string of at most `limit` bytes.
    ///
    /// # Errors
    /// [`ProtocolError::TooLarge`], [`ProtocolError::MessageTooLarge`], [`ProtocolError::Padding`], and those of the
    /// stream.
    pub async fn bytes(&mut self, what: &'static str, limit: u64) -> Result<Bytes, ProtocolError> {
        let bytes = self.unpaid_bytes(what, limit).await?;
        self.spend(what, (bytes.len() as u64).saturating_add(8))?;
        Ok(bytes)
    }

    async fn unpaid_bytes(&mut self, what: &'static str, limit: u64) -> Result<Bytes, ProtocolError> {
        let announced = self.u64(what).await?;
        let too_large = || ProtocolError::TooLarge { what, announced, limit };
        if announced > limit {
            return Err(too_large());
        }
        let length = usize::try_from(announced).map_err(|_| too_large())?;
        let padded = length.checked_add(padding(announced)).ok_or_else(too_large)?;
        self.fill(padded, what).await?;
        let string = self.buffer.split_to(length);
        self.padding(what, padding(announced)).await?;
        Ok(string.freeze())
    }

    /// The zeros behind a string.
    async fn padding(&mut self, what: &'static str, size: usize) -> Result<(), ProtocolError> {
        self.fill(size, what).await?;
        if self.buffer.split_to(size).iter().any(|&byte| byte != 0) {
            return Err(ProtocolError::Padding { what });
        }
        Ok(())
    }

    /// A short text: a hash, a content address.
    ///
    /// # Errors
    /// [`ProtocolError::NotText`], and those of [`WireReader::bytes`].
    pub async fn text(&mut self, what: &'static str) -> Result<String, ProtocolError> {
        self.string(what, TEXT_LIMIT).await
    }

    /// A text of at most `limit` bytes.
    ///
    /// # Errors
    /// [`ProtocolError::NotText`], and those of [`WireReader::bytes`].
    pub async fn string(&mut self, what: &'static str, limit: u64) -> Result<String, ProtocolError> {
        let bytes = self.bytes(what, limit).await?;
        // A copy, on purpose: it must not keep the whole block alive.
        String::from_utf8(bytes.to_vec()).map_err(|_| ProtocolError::NotText { what })
    }

    /// A store path, or `None` for the empty string.
    ///
    /// # Errors
    /// [`ProtocolError::Path`], and those of [`WireReader::bytes`].
    pub async fn optional_path(
        &mut self,
        what: &'static str,
        store_dir: &StoreDir,
    ) -> Result<Option<StorePath>, ProtocolError> {
        let bytes = self.unpaid_bytes(what, PATH_LIMIT).await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| ProtocolError::NotText { what })?;
        let refused = |source| ProtocolError::Path { what, source };
        let base_name = store_dir.strip(text).map_err(refused)?;
        if let Some(known) = self.budget.known(base_name) {
            return Ok(Some(known));
        }
        let path = store_dir.parse(text).map_err(refused)?;
        self.budget.learn(what, &path)?;
        Ok(Some(path))
    }

    /// A store path.
    ///
    /// # Errors
    /// Those of [`WireReader::optional_path`], and [`ProtocolError::Path`] for the empty string.
    pub async fn path(
        &mut self,
        what: &'static str,
        store_dir: &StoreDir,
    ) -> Result<StorePath, ProtocolError> {
        let path = self.optional_path(what, store_dir).await?;
        path.ok_or_else(|| {
            let source = StorePathError::NotInStore { path: String::new(), store_dir: store_dir.to_string() };
            ProtocolError::Path { what, source }
        })
    }

    /// A set of store paths, which may come in any order, and some of them more than once.
    ///
    /// # Errors
    /// Those of [`WireReader::count`] and [`WireReader::path`].
    pub async fn paths(
        &mut self,
        what: &'static str,
        store_dir: &StoreDir,
    ) -> Result<StorePathSet, ProtocolError> {
        let count = self.count(what).await?;
        let mut paths = PathList::default();
        for _ in 0..count {
            paths.push(self.path(what, store_dir).await?);
        }
        let paths = paths.into_set();
        self.spend(what, (paths.len() as u64).saturating_mul(size_of::<StorePath>() as u64))?;
        Ok(paths)
    }

    /// The next block of raw bytes, at least one and at most `wanted`.
    ///
    /// # Errors
    /// [`ProtocolError::UnexpectedEnd`], [`ProtocolError::Io`].
    pub async fn block(&mut self, what: &'static str, wanted: u64) -> Result<Bytes, ProtocolError> {
        if self.buffer.is_empty() && self.read_more(what).await? == 0 {
            return Err(ProtocolError::UnexpectedEnd { what });
        }
        let size = usize::try_from(wanted).unwrap_or(usize::MAX).min(self.buffer.len());
        Ok(self.buffer.split_to(size).freeze())
    }

    /// The bytes that have arrived and are not consumed.
    pub(crate) fn arrived(&self) -> &[u8] {
        &self.buffer
    }

    /// Waits for more bytes than have arrived.
    pub(crate) async fn wait_for_more(&mut self, what: &'static str) -> Result<(), ProtocolError> {
        if self.read_more(what).await? == 0 { Err(ProtocolError::UnexpectedEnd { what }) } else { Ok(()) }
    }

    /// Consumes the first `size` bytes that have arrived, or all of them, without a copy.
    pub(crate) fn take(&mut self, size: usize) -> Bytes {
        self.buffer.split_to(size.min(self.buffer.len())).freeze()
    }

    /// A string of which only the first `kept` bytes matter; the others are read and dropped. Gives those, and how many
    /// were dropped.
    pub(crate) async fn beginning(
        &mut self,
        what: &'static str,
        kept: usize,
        limit: u64,
    ) -> Result<(Vec<u8>, u64), ProtocolError> {
        let length = self.count_up_to(what, limit).await?;
        let (mut first, mut left) = (Vec::new(), length);
        while left > 0 {
            let block = self.block(what, left).await?;
            left = left.saturating_sub(block.len() as u64);
            let wanted = kept.saturating_sub(first.len()).min(block.len());
            first.extend_from_slice(block.get(..wanted).unwrap_or_default());
        }
        self.padding(what, padding(length)).await?;
        Ok((first, length.saturating_sub(kept as u64)))
    }

    /// Skips everything before the eight bytes of `magic`, which opens `protocol`, and those. Gives what was skipped.
    ///
    /// Login shells print greetings, quotas and warnings before the program starts. Up to `limit` bytes of that are
    /// passed over.
    ///
    /// # Errors
    /// [`ProtocolError::NoGreeting`] if the magic does not come within `limit` bytes or before the end.
    pub async fn skip_to_magic(
        &mut self,
        protocol: &'static str,
        magic: u64,
        limit: usize,
    ) -> Result<Vec<u8>, ProtocolError> {
        match self.skip_to_magic_or(protocol, magic, limit, |_| None::<(usize, Infallible)>).await? {
            Beginning::Greeting(noise) => Ok(noise),
            Beginning::Instead(never) => match never {},
        }
    }

    /// The same, unless `instead` recognises something else in what has come without the magic, and says how many bytes go up to
    /// the end of that. It is asked again whenever more has come.
    pub async fn skip_to_magic_or<T>(
        &mut self,
        protocol: &'static str,
        magic: u64,
        limit: usize,
        instead: impl Fn(&[u8]) -> Option<(usize, T)>,
    ) -> Result<Beginning<Vec<u8>, T>, ProtocolError> {
        let magic = magic.to_le_bytes();
        loop {
            if let Some(start) = memchr::memmem::find(&self.buffer, &magic) {
                let noise = self.buffer.split_to(start).to_vec();
                self.buffer.advance(magic.len());
                return Ok(Beginning::Greeting(noise));
            }
            if let Some((end, other)) = instead(&self.buffer) {
                self.buffer.advance(end.min(self.buffer.len()));
                return Ok(Beginning::Instead(other));
            }
            let full = self.buffer.len() > limit;
            let ended = full
                || match self.read_more("the greeting").await {
                    Ok(size) => size == 0,
                    // A connection that breaks before the greeting, or one that nobody wants to wait for any longer, is
                    // explained by what came until then.
                    Err(ProtocolError::Io { source, .. })
                        if source.kind() == io::ErrorKind::ConnectionReset
                            || source.kind() == io::ErrorKind::TimedOut && !self.buffer.is_empty() =>
                    {
                        true
                    }
                    Err(error) => return Err(error),
                };
            if ended {
                let shown = self.buffer.get(..limit.min(self.buffer.len())).unwrap_or_default();
                return Err(ProtocolError::NoGreeting { protocol, noise: printable(shown) });
            }
        }
    }
}

/// How the other end begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning<G, T> {
    /// With its greeting.
    Greeting(G),
    /// With something else that was waited for as well.
    Instead(T),
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::wire::WireWrite as _;

    async fn string(wire: &[u8]) -> Result<Bytes, ProtocolError> {
        WireReader::new(wire).bytes("a string", 16).await
    }

    #[tokio::test]
    async fn strings_of_every_length_round_trip() {
        for length in 0..=16u8 {
            let bytes: Vec<u8> = (0..length).collect();
            let mut wire = Vec::new();
            wire.put_bytes(&bytes);
            assert_eq!(wire.len() % 8, 0);
            assert_eq!(string(&wire).await.unwrap(), bytes);
        }
    }

    #[rstest]
    #[case::cut_in_the_length(&[1, 0, 0], "the stream ended while reading a string")]
    #[case::cut_in_the_bytes(&[1, 0, 0, 0, 0, 0, 0, 0, b'x'], "the stream ended while reading a string")]
    #[case::padding(
        &[1, 0, 0, 0, 0, 0, 0, 0, b'x', 0, 0, 0, 0, 0, 0, 1],
        "a string is followed by padding that is not zero"
    )]
    #[case::over_the_limit(&[17, 0, 0, 0, 0, 0, 0, 0], "a string announces 17, the limit is 16")]
    #[case::absurd(
        &[0xff; 8],
        "a string announces 18446744073709551615, the limit is 16"
    )]
    #[tokio::test]
    async fn strings_that_are_refused(#[case] wire: &[u8], #[case] message: &str) {
        assert_eq!(string(wire).await.unwrap_err().to_string(), message);
    }

    #[tokio::test]
    async fn noise_before_the_magic_is_skipped_wherever_it_is_cut() {
        let wire = [b"Welcome!\r\n".as_slice(), &0x5452_eecb_u64.to_le_bytes(), &[7; 8]].concat();
        for cut in 0..wire.len() {
            let (first, second) = wire.split_at(cut);
            let mut reader = WireReader::new(tokio::io::AsyncReadExt::chain(first, second));
            assert_eq!(reader.skip_to_magic("serve", 0x5452_eecb, 100).await.unwrap(), b"Welcome!\r\n");
            assert_eq!(reader.u64("rest").await.unwrap(), 0x0707_0707_0707_0707);
        }
    }

    #[tokio::test]
    async fn something_else_may_come_in_the_place_of_the_magic() {
        let wire = [b"Welcome!\nword\n".as_slice(), &0x5452_eecb_u64.to_le_bytes(), &[7; 8]].concat();
        let instead = |came: &[u8]| Some((memchr::memmem::find(came, b"word\n")? + 5, "word"));
        for cut in 0..15 {
            let (first, second) = wire.split_at(cut);
            let mut reader = WireReader::new(tokio::io::AsyncReadExt::chain(first, second));
            // Only where the magic is not there yet: it beats everything.
            let expected = if cut == 14 {
                Beginning::Instead("word")
            } else {
                Beginning::Greeting(b"Welcome!\nword\n".to_vec())
            };
            assert_eq!(
                reader.skip_to_magic_or("serve", 0x5452_eecb, 100, instead).await.unwrap(),
                expected,
                "{cut}"
            );
            let next = if cut == 14 { 0x5452_eecb } else { 0x0707_0707_0707_0707 };
            assert_eq!(reader.u64("rest").await.unwrap(), next);
        }
        // Whatever is said of its end.
        let mut reader = WireReader::new(&b"x"[..]);
        let far = |_: &[u8]| Some((usize::MAX, ()));
        assert_eq!(reader.skip_to_magic_or("serve", 1, 100, far).await.unwrap(), Beginning::Instead(()));
    }

    #[tokio::test]
    async fn what_comes_behind_the_magic_is_no_noise_however_much_it_is() {
        let wire = [&0x5452_eecb_u64.to_le_bytes()[..], &vec![7; 100_000]].concat();
        let mut reader = WireReader::new(&wire[..]);
        assert!(reader.skip_to_magic("serve", 0x5452_eecb, 1000).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn endless_noise_is_bounded() {
        let mut reader = WireReader::new(tokio::io::repeat(b'x'));
        let error = reader.skip_to_magic("serve", 0x5452_eecb, 1000).await.unwrap_err();
        assert!(error.to_string().len() < 3000, "{error}");
    }

    #[tokio::test]
    async fn escape_sequences_in_noise_are_made_harmless() {
        let error = WireReader::new(&b"\x1b[2Jgone"[..]).skip_to_magic("serve", 1, 100).await.unwrap_err();
        assert!(!error.to_string().contains('\x1b'), "{error}");
        assert!(error.to_string().contains("gone"), "{error}");
    }
}
