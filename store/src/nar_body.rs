//! The bytes of a NAR on their way, and the check that they are what was recorded.

use std::{
    collections::VecDeque,
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_core::{Stream, stream::BoxStream};

use crate::{NarHasher, PathInfo, Problem, Side, StoreError};

/// The bytes of one NAR, in blocks: a stream.
///
/// An `Err` ends it. Dropping it early is allowed and tells the source that nobody wants the rest.
pub struct NarBody {
    blocks: BoxStream<'static, Result<Bytes, StoreError>>,
    verified: bool,
}

impl NarBody {
    /// A body that nobody has compared with what is recorded about it.
    pub fn new(blocks: impl Stream<Item = Result<Bytes, StoreError>> + Send + 'static) -> Self {
        Self { blocks: Box::pin(blocks), verified: false }
    }

    /// Whether it ends with an error unless its size and hash are what was recorded. Then nobody needs to hash it again.
    pub fn is_verified(&self) -> bool {
        self.verified
    }

    /// The same body, which ends with an error unless its size and hash are what `info` says. `store` is the name of the
    /// store that it comes from. A size of 0 is one that nobody has recorded.
    ///
    /// At least 256 KiB are held back until more has come, or all of it has turned out right. So what is wrong never
    /// arrives whole, however large the source's blocks are; and a small NAR that is wrong does not even begin, which
    /// leaves the connection of a destination usable for all other paths.
    #[must_use]
    pub fn verified(self, info: &Arc<PathInfo>, store: &str) -> Self {
        if self.verified {
            return self;
        }
        let blocks = Verified {
            info: Arc::clone(info),
            store: store.into(),
            blocks: self.blocks,
            hasher: Some(NarHasher::new()),
            held: VecDeque::new(),
            held_size: 0,
        };
        Self { blocks: Box::pin(blocks), verified: true }
    }

    /// The same body, with other blocks in the place of each. The caller answers for what it changes.
    #[must_use]
    pub fn map_blocks<S>(self, map: impl FnOnce(BoxStream<'static, Result<Bytes, StoreError>>) -> S) -> Self
    where
        S: Stream<Item = Result<Bytes, StoreError>> + Send + 'static,
    {
        Self { blocks: Box::pin(map(self.blocks)), verified: self.verified }
    }
}

impl Stream for NarBody {
    type Item = Result<Bytes, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.blocks.as_mut().poll_next(context)
    }
}

impl fmt::Debug for NarBody {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("NarBody").field("verified", &self.verified).finish_non_exhaustive()
    }
}

/// How much of a NAR, at least, is held back.
const HELD_BACK: u64 = 256 << 10;

struct Verified {
    info: Arc<PathInfo>,
    store: Arc<str>,
    blocks: BoxStream<'static, Result<Bytes, StoreError>>,
    /// `None` once the end has been seen, right or wrong.
    hasher: Option<NarHasher>,
    held: VecDeque<Bytes>,
    held_size: u64,
}

impl Verified {
    /// Whether enough is held for the first block to go, although the end has not been seen.
    fn holds_enough(&self) -> bool {
        let first = self.held.front().map_or(0, |block| block.len() as u64);
        self.held_size.saturating_sub(first) >= HELD_BACK
    }

    fn take(&mut self, block: Bytes) -> Result<(), StoreError> {
        let Some(hasher) = &mut self.hasher else { return Ok(()) };
        hasher.update(&block);
        let size = hasher.size();
        if self.info.nar_size != 0 && size > self.info.nar_size {
            return Err(self.size_mismatch(size));
        }
        self.held_size += block.len() as u64;
        // An empty block would be held for nothing, and without end.
        if !block.is_empty() {
            self.held.push_back(block);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), StoreError> {
        let (actual, size) = self.hasher.take().unwrap_or_default().finish();
        if self.info.nar_size != 0 && size != self.info.nar_size {
            return Err(self.size_mismatch(size));
        }
        if actual != self.info.nar_hash {
            let (path, expected) = (self.info.path.clone(), self.info.nar_hash);
            return Err(self.error(Problem::HashMismatch { path, expected, actual }));
        }
        Ok(())
    }

    fn size_mismatch(&self, actual: u64) -> StoreError {
        let path = self.info.path.clone();
        self.error(Problem::SizeMismatch { path, expected: self.info.nar_size, actual })
    }

    fn error(&self, problem: Problem) -> StoreError {
        StoreError::new(Side::Source, Arc::clone(&self.store), problem)
    }
}

impl Stream for Verified {
    type Item = Result<Bytes, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        while this.hasher.is_some() && !this.holds_enough() {
            let taken = match ready!(this.blocks.as_mut().poll_next(context)) {
                Some(Ok(block)) => this.take(block),
                Some(Err(error)) => Err(error),
                None => this.finish(),
            };
            if let Err(error) = taken {
                this.hasher = None;
                mem::take(&mut this.held);
                return Poll::Ready(Some(Err(error)));
            }
        }
        let block = this.held.pop_front();
        this.held_size -= block.as_ref().map_or(0, |block| block.len() as u64);
        Poll::Ready(block.map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, StreamExt as _, stream};

    use super::*;
    use crate::{NarHash, StorePath};

    fn info(nar: &[u8]) -> Arc<PathInfo> {
        let path = StorePath::from_base_name("nlhn6cma43vk5l44cgr8sw3ykiir1wmm-x").unwrap();
        Arc::new(PathInfo::new(path, NarHash::of(nar), nar.len() as u64))
    }

    fn body(nar: &[u8], block_size: usize) -> NarBody {
        let blocks: Vec<_> = nar.chunks(block_size).map(|block| Ok(Bytes::copy_from_slice(block))).collect();
        NarBody::new(stream::iter(blocks))
    }

    /// How many bytes come, and how it ends.
    fn read(body: NarBody) -> (usize, Option<StoreError>) {
        let (mut size, mut error) = (0, None);
        for block in body.collect::<Vec<_>>().now_or_never().unwrap() {
            assert!(error.is_none(), "nothing comes after an error");
            match block {
                Ok(block) => size += block.len(),
                Err(wrong) => error = Some(wrong),
            }
        }
        (size, error)
    }

    #[test]
    fn what_is_wrong_never_arrives_whole_however_large_its_blocks_are() {
        let right = vec![7; 1 << 20];
        let mut wrong = right.clone();
        wrong[1000] ^= 1;
        let cases = [
            (wrong, "NAR hash is"),
            (right[1..].to_vec(), "NAR has"),
            ([&right[..], b"x"].concat(), "NAR has"),
        ];
        for block_size in [1000, 100 << 10, 256 << 10, (256 << 10) + 1, 700 << 10, 4 << 20] {
            for (nar, message) in &cases {
                let (size, error) = read(body(nar, block_size).verified(&info(&right), "here"));
                assert!(size < right.len(), "blocks of {block_size}: {size} bytes of a wrong NAR arrived");
                assert!(error.unwrap().to_string().contains(message));
            }
            let verified = body(&right, block_size).verified(&info(&right), "here");
            assert!(verified.is_verified());
            let (size, error) = read(verified);
            assert!(size == right.len() && error.is_none());
        }
    }

    #[test]
    fn a_small_one_that_is_wrong_does_not_begin() {
        let (size, error) = read(body(b"wrong", 1).verified(&info(b"right"), "here"));
        assert_eq!(size, 0);
        assert!(error.unwrap().is_damage());
    }

    #[test]
    fn empty_blocks_are_nothing() {
        let blocks = [&b""[..], b"ri", b"", b"ght", b""].map(|block| Ok(Bytes::from_static(block)));
        let verified = NarBody::new(stream::iter(blocks)).verified(&info(b"right"), "here");
        let blocks: Vec<_> = verified.collect().now_or_never().unwrap();
        assert_eq!(blocks.into_iter().map(Result::unwrap).collect::<Vec<_>>(), ["ri", "ght"]);
    }
}
