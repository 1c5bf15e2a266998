//! Conversations with daemons, from memory.

mod golden;
mod hostile;
mod round_trip;

use std::{fs, path::PathBuf};

use bytes::Bytes;
use futures_util::FutureExt as _;
use ncc_protocol::{
    ProtocolError,
    wire::{WireReader, WireWrite as _},
    worker::{
        Answer, AnswerError, Answers, Daemon, DaemonError, LogMessage, NarForm, NarWriter, Request, Version,
        client_greeting, put_client_settings, read_daemon, read_server_greeting,
    },
};
use ncc_store::StoreDir;
use tokio::io::AsyncRead;

/// What every recorded client ends with: an operation that no daemon knows.
const LAST_WORD: u64 = 999;

pub(crate) fn folder(version: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/worker").join(version)
}

/// Both halves of a recorded conversation.
pub(crate) struct Recording {
    pub(crate) offered: Version,
    pub(crate) request: Vec<u8>,
    pub(crate) reply: Vec<u8>,
}

pub(crate) fn recording(version: &str, case: &str) -> Recording {
    let read = |kind: &str| fs::read(folder(version).join(format!("{case}.{kind}"))).unwrap();
    let offered = if case.ends_with("-client-1.20") { Version::OLDEST } else { Version::NEWEST };
    Recording { offered, request: read("request"), reply: read("reply") }
}

/// The cases in which all requests are right.
pub(crate) fn cases(version: &str) -> Vec<String> {
    let index = fs::read_to_string(folder(version).join("index.tsv")).unwrap();
    let names = index.lines().skip(1).map(|line| line.split('\t').next().unwrap().to_owned());
    let cases: Vec<String> = names.filter(|name| name != "query-path-info-no-path").collect();
    assert!(cases.len() > 20);
    cases
}

/// What came of one request.
#[derive(Debug)]
pub(crate) enum Outcome {
    Answer(Answer),
    Nar(Vec<u8>),
    Refused(DaemonError),
}

/// A conversation as it was understood.
#[derive(Debug)]
pub(crate) struct Understood {
    pub(crate) daemon: Daemon,
    pub(crate) asked: Vec<Request>,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) messages: Vec<LogMessage>,
    /// How the answers ended.
    pub(crate) end: AnswerError,
}

impl Understood {
    pub(crate) fn refusals(&self) -> Vec<&DaemonError> {
        let mut refusals = Vec::new();
        for outcome in &self.outcomes {
            if let Outcome::Refused(error) = outcome {
                refusals.push(error);
            }
        }
        refusals
    }
}

/// Reads the daemon's half up to where it is no answer, or at an end.
pub(crate) fn understand(
    offered: Version,
    asked: impl FnOnce(&Daemon) -> Vec<Request>,
    reply: impl AsyncRead + Unpin,
) -> Result<Understood, AnswerError> {
    let conversation = async {
        let (store_dir, mut reader) = (StoreDir::default(), WireReader::new(reply));
        let mut messages = Vec::new();
        let version = read_server_greeting(&mut reader, offered).await?;
        let daemon = read_daemon(&mut reader, version, |message| messages.push(message)).await?;
        let asked = asked(&daemon);
        let mut outcomes = Vec::new();
        // Refusals may come without a question: the daemon repeats its last one.
        let unknown = Request::SetOptions(Box::default());
        let mut questions = asked.iter().chain(std::iter::repeat(&unknown));
        let end = loop {
            let question = questions.next().expect("endless");
            let answer = Answers::new(&mut reader, &store_dir, &daemon, |message| messages.push(message))
                .read(question)
                .await;
            outcomes.push(match answer {
                Ok(Answer::Nar(mut nar)) => {
                    let mut bytes = Vec::new();
                    loop {
                        match nar.next(&mut reader).await {
                            Ok(Some(block)) => bytes.extend_from_slice(&block),
                            Ok(None) => break Outcome::Nar(bytes),
                            Err(AnswerError::Refused(error)) => break Outcome::Refused(error),
                            Err(error) => return Err(error),
                        }
                    }
                }
                Ok(answer) => Outcome::Answer(answer),
                Err(AnswerError::Refused(error)) => Outcome::Refused(error),
                Err(error) => break error,
            });
        };
        Ok(Understood { daemon, asked, outcomes, messages, end })
    };
    conversation.now_or_never().expect("memory never waits")
}

/// Reads the client's half, and writes it again.
pub(crate) fn read_requests(offered: Version, daemon: &Daemon, request: &[u8]) -> (Vec<Request>, Vec<u8>) {
    let conversation = async {
        let store_dir = StoreDir::default();
        let mut written = client_greeting(offered);
        put_client_settings(daemon.version, &mut written);
        let mut reader = WireReader::new(&request[written.len()..request.len() - 8]);
        let mut requests = Vec::new();
        while let Some(request) = Request::read(&mut reader, &store_dir, daemon).await? {
            request.encode(&store_dir, daemon, &mut written)?;
            match &request {
                Request::AddToStoreNar { info, .. } => {
                    copy_nar(
                        &mut reader,
                        NarWriter::new(daemon.version),
                        Some(info.nar_size),
                        daemon,
                        &mut written,
                    )
                    .await?;
                }
                Request::AddMultipleToStore { .. } => {
                    copy_nar(&mut reader, NarWriter::new(daemon.version), None, daemon, &mut written).await?;
                }
                _ => {}
            }
            requests.push(request);
        }
        written.put_u64(LAST_WORD);
        Ok::<_, ProtocolError>((requests, written))
    };
    conversation.now_or_never().expect("memory never waits").unwrap()
}

/// Reads what follows an addition and writes it again, in the same blocks.
async fn copy_nar(
    reader: &mut WireReader<&[u8]>,
    mut writer: NarWriter,
    size: Option<u64>,
    daemon: &Daemon,
    written: &mut Vec<u8>,
) -> Result<(), ProtocolError> {
    let mut left = size.unwrap_or(u64::MAX);
    while left > 0 {
        let block = match NarForm::of(daemon.version) {
            NarForm::Framed => {
                let length = reader.u64("a frame").await?;
                if length == 0 {
                    break;
                }
                raw(reader, length).await?
            }
            NarForm::Pushed => reader.bytes("a piece of a NAR", 32 << 10).await?,
            NarForm::Plain => raw(reader, left).await?,
        };
        if NarForm::of(daemon.version) != NarForm::Framed {
            left -= block.len() as u64;
        }
        writer.put(&block, written);
    }
    writer.finish(written);
    Ok(())
}

async fn raw(reader: &mut WireReader<&[u8]>, size: u64) -> Result<Bytes, ProtocolError> {
    let mut bytes = Vec::new();
    while let Some(left @ 1..) = size.checked_sub(bytes.len() as u64) {
        bytes.extend_from_slice(&reader.block("raw bytes", left).await?);
    }
    Ok(bytes.into())
}

/// A recorded conversation, understood.
pub(crate) fn replay(version: &str, case: &str) -> Understood {
    let Recording { offered, request, reply } = recording(version, case);
    understand(offered, |daemon| read_requests(offered, daemon, &request).0, &reply[..]).unwrap()
}
