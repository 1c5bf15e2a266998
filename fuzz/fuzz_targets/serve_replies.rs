//! The readers of replies take whatever a host writes. What they accept can be written and read again, answers stay
//! within their questions, messages carry no control characters, and how the bytes were cut makes no difference.
#![no_main]

use std::{
    collections::BTreeSet,
    error::Error,
    io, iter,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::FutureExt as _;
use libfuzzer_sys::fuzz_target;
use ncc_protocol::{
    ProtocolError,
    serve::{
        Version, put_path_info, read_added, read_closure, read_path_info, read_path_infos, read_server_greeting,
        read_valid_paths,
    },
    wire::{WireReader, WireWrite as _},
};
use ncc_store::{PathInfo, StoreDir, StorePath, StorePathSet};
use tokio::io::{AsyncRead, ReadBuf};

/// What a session of one kind gives.
#[derive(Debug, PartialEq)]
enum Reply {
    Infos(Vec<PathInfo>),
    Valid(BTreeSet<StorePath>),
    Closure(Vec<StorePath>),
    Added(usize),
}

// The last byte picks the question.
fuzz_target!(|data: &[u8]| {
    let Some((&kind, reply)) = data.split_last() else { return };
    let asked = paths_in(kind, reply);
    let whole = read(kind, &asked, reply);
    let pieces = read(kind, &asked, Pieces(reply));
    match (&whole, &pieces) {
        (Ok(one), Ok(other)) => assert_eq!(one, other),
        (Err(one), Err(other)) => assert_eq!(format!("{one:?}"), format!("{other:?}")),
        _ => panic!("the verdict depends on how the bytes were cut: {whole:?}, {pieces:?}"),
    }
    match whole {
        Ok(Reply::Infos(mut infos)) => {
            assert!(infos.is_sorted_by(|left, right| left.path < right.path));
            assert!(infos.iter().all(|info| asked.contains(&info.path)));
            let mut written = Vec::new();
            for info in &infos {
                put_path_info(info, &StoreDir::default(), Version::OURS, &mut written);
            }
            written.put_u64(0);
            let mut reader = WireReader::new(&written[..]);
            let again = now(read_path_infos(&mut reader, &StoreDir::default(), &asked))
                .expect("it was written by us");
            // Texts that are no signatures are counted where they come from, and not written.
            infos.iter_mut().for_each(|info| info.malformed_signatures = 0);
            assert_eq!(again, infos);
            assert!(now(reader.at_end()).unwrap());
        }
        Ok(Reply::Valid(valid)) => assert!(valid.iter().all(|path| asked.contains(path))),
        Ok(Reply::Closure(_) | Reply::Added(_)) => {}
        Err(error) => {
            let chain = iter::successors(Some(&error as &dyn Error), |&error| error.source());
            for text in chain.map(ToString::to_string) {
                assert!(!text.contains(char::is_control), "{text:?}");
                assert!(text.len() < 20_000, "a message of {} bytes", text.len());
            }
        }
    }
});

fn read(kind: u8, asked: &StorePathSet, reply: impl AsyncRead + Unpin) -> Result<Reply, ProtocolError> {
    let (store_dir, mut reader) = (StoreDir::default(), WireReader::new(reply));
    now(async {
        read_server_greeting(&mut reader).await?;
        Ok(match kind % 4 {
            0 => Reply::Infos(read_path_infos(&mut reader, &store_dir, asked).await?),
            1 => Reply::Valid(read_valid_paths(&mut reader, &store_dir, asked).await?),
            2 => Reply::Closure(read_closure(&mut reader, &store_dir).await?.into_vec()),
            _ => {
                let mut count = 0;
                while !reader.at_end().await? {
                    read_added(&mut reader).await?;
                    count += 1;
                }
                Reply::Added(count)
            }
        })
    })
}

/// What the question must have been about for the answer to be right. Every other path is left out, so that answers
/// about more than was asked come up too.
fn paths_in(kind: u8, reply: &[u8]) -> StorePathSet {
    let (store_dir, mut reader, mut paths) = (StoreDir::default(), WireReader::new(reply), Vec::new());
    // Whatever is wrong in the middle ends the question.
    let _ = now(async {
        read_server_greeting(&mut reader).await?;
        if kind % 4 == 0 {
            while let Some(info) = read_path_info(&mut reader, &store_dir).await? {
                paths.push(info.path);
            }
        } else {
            paths = reader.paths("paths", &store_dir).await?.into_vec();
        }
        Ok::<_, ProtocolError>(())
    });
    let step = if kind & 0x80 == 0 { 1 } else { 2 };
    paths.into_iter().step_by(step).collect()
}

fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("memory never waits")
}

struct Pieces<'a>(&'a [u8]);

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = (1 + self.0.len() % 13).min(self.0.len()).min(buffer.remaining());
        let (piece, rest) = self.0.split_at(count);
        buffer.put_slice(piece);
        self.0 = rest;
        Poll::Ready(Ok(()))
    }
}
