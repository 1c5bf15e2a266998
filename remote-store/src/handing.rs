//! NARs on their way from a connection to whoever takes them.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use ncc_protocol::{
    ProtocolError,
    wire::{NarReader, WireReader},
    worker::{self, AnswerError},
};
use ncc_store::{Nar, NarBody, NarPlan, NarSource, NarStream, PathInfo, StoreError, sequential_nars};
use ncc_transport::Reader;
use tokio::sync::mpsc;

/// Blocks of one NAR under way between the connection and whoever takes it, at most 128 KiB each.
const BLOCKS_AHEAD: usize = 8;

pub(crate) type NarSender = mpsc::Sender<Result<Nar, StoreError>>;
pub(crate) type BlockSender = mpsc::Sender<Result<Bytes, StoreError>>;

/// The NARs of a plan, which `send` hands over one after another in a task of its own, with the connection that `begin` gets.
pub(crate) fn handed_over<C: Send, F: Future<Output = ()> + Send>(
    store: &str,
    plan: NarPlan,
    begin: impl Future<Output = Result<C, StoreError>> + Send + 'static,
    send: impl FnOnce(C, NarPlan, NarSender) -> F + Send + 'static,
) -> Arc<dyn NarSource> {
    let nars: NarStream = if plan.is_empty() {
        Box::pin(stream::empty())
    } else {
        let (nars, mut receiver) = mpsc::channel(1);
        // Ends by itself once neither the stream nor the last body is wanted any more.
        tokio::spawn(async move {
            let connection = tokio::select! {
                biased;
                () = nars.closed() => return,
                connection = begin => connection,
            };
            match connection {
                Ok(connection) => send(connection, plan, nars).await,
                Err(error) => drop(nars.send(Err(error)).await),
            }
        });
        Box::pin(stream::poll_fn(move |context| receiver.poll_recv(context)))
    };
    sequential_nars(store, nars)
}

/// Hands on that a NAR comes next, with the other end of what gives its blocks; `None` if nobody wants it, nor those behind it.
pub(crate) async fn announce(info: &Arc<PathInfo>, nars: &NarSender) -> Option<BlockSender> {
    let (blocks, mut receiver) = mpsc::channel(BLOCKS_AHEAD);
    let body = NarBody::new(stream::poll_fn(move |context| receiver.poll_recv(context)));
    nars.send(Ok(Nar { info: Arc::clone(info), body })).await.is_ok().then_some(blocks)
}

/// What tells where a NAR ends.
pub(crate) enum Blocks {
    /// So many bytes are left.
    Left(u64),
    /// The archive itself.
    Archive(NarReader),
    /// The archive itself, in whose place a daemon may refuse.
    Daemon(worker::NarReader),
}

impl Blocks {
    /// A size of 0 is not known, which Nix has not recorded of what it registered long ago.
    pub(crate) fn of_size(size: u64) -> Self {
        if size == 0 { Self::Archive(NarReader::new()) } else { Self::Left(size) }
    }

    async fn next(&mut self, reader: &mut WireReader<Reader>) -> Result<Option<Bytes>, AnswerError> {
        let block: Result<_, ProtocolError> = match self {
            Self::Left(0) => Ok(None),
            Self::Left(left) => {
                let block = reader.block("a NAR", *left).await?;
                *left = left.saturating_sub(block.len() as u64);
                Ok(Some(block))
            }
            Self::Archive(archive) => archive.next(reader).await,
            Self::Daemon(archive) => return archive.next(reader).await,
        };
        Ok(block?)
    }
}

/// Hands on one NAR; `false` if nobody wants this one and those behind it.
pub(crate) async fn hand_over(
    reader: &mut WireReader<Reader>,
    mut archive: Blocks,
    blocks: &BlockSender,
    nars: &NarSender,
) -> Result<bool, AnswerError> {
    // A body that nobody reads is passed over, for the sake of the next; unless nobody wants the next either.
    let mut unwanted = std::pin::pin!(async {
        blocks.closed().await;
        nars.closed().await;
    });
    loop {
        let block = tokio::select! {
            biased;
            () = &mut unwanted => return Ok(false),
            block = archive.next(reader) => block?,
        };
        let Some(block) = block else { return Ok(true) };
        let _ = blocks.send(Ok(block)).await;
    }
}
