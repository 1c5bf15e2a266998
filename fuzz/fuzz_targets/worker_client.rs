//! The client's half of the daemon's protocol takes whatever a daemon writes. How the bytes were cut makes no difference,
//! and messages carry no control characters. Requests that can be read can be written, and are then the same.
#![no_main]

use std::{
    error::Error,
    io, iter,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::FutureExt as _;
use libfuzzer_sys::fuzz_target;
use ncc_protocol::{
    wire::WireReader,
    worker::{
        Answer, AnswerError, Answers, Daemon, DaemonError, LogMessage, Request, Version, read_daemon,
        read_server_greeting,
    },
};
use ncc_store::StoreDir;
use tokio::io::{AsyncRead, ReadBuf};

// The first eight bytes say how long the requests behind them are (without a handshake); what a daemon says is the rest.
fuzz_target!(|data: &[u8]| {
    let Some((length, rest)) = data.split_first_chunk() else { return };
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX).min(rest.len());
    let (requests, reply) = rest.split_at(length);
    let whole = understand(requests, reply);
    let pieces = understand(requests, Pieces(reply));
    assert_eq!(format!("{whole:?}"), format!("{pieces:?}"), "how the bytes were cut makes a difference");
    let texts = match &whole {
        Ok((messages, _)) => messages.iter().map(|message| format!("{message:?}")).collect(),
        Err(error) => {
            let chain = iter::successors(Some(error as &dyn Error), |&error| error.source());
            chain.map(ToString::to_string).collect::<Vec<_>>()
        }
    };
    for text in texts {
        assert!(!text.contains(|sign: char| sign.is_control() && sign != '\n'), "{text:?}");
    }
});

#[derive(Debug)]
#[allow(dead_code, reason = "compared as it is shown")]
enum Outcome {
    Answer(Answer),
    Nar(Vec<u8>),
    Refused(DaemonError),
}

type Understood = (Vec<LogMessage>, Vec<Outcome>);

fn understand(requests: &[u8], reply: impl AsyncRead + Unpin) -> Result<Understood, AnswerError> {
    let (store_dir, mut reader) = (StoreDir::default(), WireReader::new(reply));
    let conversation = async {
        let (mut messages, mut outcomes) = (Vec::new(), Vec::new());
        let version = read_server_greeting(&mut reader, Version::NEWEST).await?;
        let daemon = read_daemon(&mut reader, version, |message| messages.push(message)).await?;
        for request in read_requests(requests, &store_dir, &daemon) {
            let sink = |message| messages.push(message);
            let answer = Answers::new(&mut reader, &store_dir, &daemon, sink).read(&request).await;
            outcomes.push(match answer {
                Ok(Answer::Nar(mut nar)) => {
                    let mut bytes = Vec::new();
                    while let Some(block) = nar.next(&mut reader).await? {
                        bytes.extend_from_slice(&block);
                    }
                    Outcome::Nar(bytes)
                }
                Ok(answer) => Outcome::Answer(answer),
                Err(AnswerError::Refused(error)) => Outcome::Refused(error),
                Err(error) => return Err(error),
            });
        }
        Ok((messages, outcomes))
    };
    conversation.now_or_never().expect("memory never waits")
}

/// All requests up to the first that is none; each can be written, and is the same when it is read again.
fn read_requests(bytes: &[u8], store_dir: &StoreDir, daemon: &Daemon) -> Vec<Request> {
    let conversation = async {
        let (mut reader, mut requests) = (WireReader::new(bytes), Vec::new());
        while let Ok(Some(request)) = Request::read(&mut reader, store_dir, daemon).await {
            let mut written = Vec::new();
            request.encode(store_dir, daemon, &mut written).expect("the daemon knows what it read");
            let mut again = WireReader::new(&written[..]);
            let same = Request::read(&mut again, store_dir, daemon).await.expect("it was written by us");
            // What has been built there is not said again.
            if !matches!(&request, Request::AddToStoreNar { info, .. } if info.ultimate || info.malformed_signatures > 0)
            {
                assert_eq!(same.as_ref(), Some(&request));
            }
            assert!(again.at_end().await.expect("memory does not fail"));
            requests.push(request);
        }
        requests
    };
    conversation.now_or_never().expect("memory never waits")
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
