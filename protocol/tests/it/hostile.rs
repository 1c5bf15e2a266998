//! No bytes of a peer panic, hang, or make room for more than came.

use std::{
    fs, io,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt as _;
use ncc_protocol::{
    serve::{CLIENT_MAGIC, Server, Writing, client_greeting, read_path_info, read_server_greeting},
    wire::{WireReader, WireWrite as _},
};
use ncc_store::{StoreDir, test_util::MemoryStore};
use proptest::prelude::*;
use rstest::rstest;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use crate::serve;

fn golden(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/serve/2.34.8").join(name)).unwrap()
}

/// Reads a QueryPathInfos session to its end or its first error.
fn read_infos(bytes: &[u8]) -> bool {
    async {
        let mut reader = WireReader::new(bytes);
        if read_server_greeting(&mut reader).await.is_err() {
            return false;
        }
        loop {
            match read_path_info(&mut reader, &StoreDir::default()).await {
                Ok(Some(_)) => {}
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }
    .now_or_never()
    .expect("a slice never waits")
}

#[test]
fn a_cut_anywhere_is_an_error_and_nothing_else() {
    let reply = golden("query-path-infos.reply");
    assert!(read_infos(&reply));
    for end in 0..reply.len() {
        assert!(!read_infos(&reply[..end]), "cut at {end}");
    }
    let request = golden("add-to-store-nar-closure.request");
    let (whole, _) = serve(&MemoryStore::new("ours"), &request[..], Writing::Allowed);
    for end in (0..request.len()).step_by(7) {
        let store = MemoryStore::new("ours");
        let (answered, _) = serve(&store, &request[..end], Writing::Allowed);
        assert!(whole.starts_with(&answered), "cut at {end}");
        // As many answers as registered paths: no more, no less.
        assert_eq!(store.paths().len(), answered.len().saturating_sub(16) / 8, "cut at {end}");
    }
}

#[test]
fn flags_beyond_32_bits_are_refused_as_nix_does() {
    let mut request = client_greeting();
    request.put_u64(1);
    request.put_u64(1 << 33);
    let (_, end) = serve(&MemoryStore::new("ours"), &request[..], Writing::Refused);
    assert!(end.unwrap_err().to_string().contains("the lock flag announces"));
}

/// The error with its causes, as a terminal gets to see it.
fn explained(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// One path info whose path, hash and content address are what they are given as.
fn path_info(path: &[u8], hash: &[u8], address: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_bytes(path);
    bytes.put_bytes(b"");
    bytes.put_u64(0);
    bytes.put_u64(96);
    bytes.put_u64(96);
    bytes.put_bytes(hash);
    bytes.put_bytes(address);
    bytes.put_u64(0);
    bytes
}

const PATH: &[u8] = b"/nix/store/nlhn6cma43vk5l44cgr8sw3ykiir1wmm-hi";
const HASH: &[u8] = b"sha256:1z63q11s9hppsav4x9kh767bqr7ypmw7ncg3wjncgs4lijvx8li2";

#[rstest]
#[case::good(PATH, HASH, b"", "")]
#[case::path(b"/nix/store/\x1b[2J\x1b]0;owned\x07", HASH, b"", "the path of a path info")]
#[case::another_directory(b"/\x1b[2J\nerror: all is lost", HASH, b"", "the path of a path info")]
#[case::direction("/nix/store/\u{202e}x".as_bytes(), HASH, b"", "the path of a path info")]
#[case::hash(PATH, b"\x1b[2J", b"", "the NAR hash")]
#[case::address(PATH, HASH, b"fixed:\x1b[2J\r", "the content address")]
fn no_text_of_a_peer_reaches_a_terminal_raw(
    #[case] path: &[u8],
    #[case] hash: &[u8],
    #[case] address: &[u8],
    #[case] what: &str,
) {
    let bytes = path_info(path, hash, address);
    let mut reader = WireReader::new(&bytes[..]);
    let read = read_path_info(&mut reader, &StoreDir::default()).now_or_never().unwrap();
    let text = read.err().map(|error| explained(&error)).unwrap_or_default();
    assert!(text.starts_with(what), "{text:?}");
    assert!(!text.contains(|sign: char| sign.is_control() || sign == '\u{202e}'), "{text:?}");
}

#[test]
fn a_message_is_no_longer_than_a_person_reads() {
    let long = vec![b'x'; 60_000];
    for bytes in [path_info(PATH, &long, b""), path_info(PATH, HASH, &long)] {
        let mut reader = WireReader::new(&bytes[..]);
        let read = read_path_info(&mut reader, &StoreDir::default()).now_or_never().unwrap();
        let text = explained(&read.unwrap_err());
        assert!(text.len() < 3000, "{} bytes", text.len());
    }
}

#[test]
fn signatures_that_are_not_even_text_are_left_out_like_others_that_are_none() {
    let mut bytes = path_info(PATH, HASH, b"");
    bytes.truncate(bytes.len() - 8);
    bytes.put_u64(2);
    bytes.put_bytes(b"\xff\xfe");
    bytes.put_bytes(b"no colon");
    let mut reader = WireReader::new(&bytes[..]);
    let info = read_path_info(&mut reader, &StoreDir::default()).now_or_never().unwrap();
    assert!(info.unwrap().unwrap().signatures.is_empty());
}

/// Gives few bytes at a time.
struct Pieces<'a>(&'a [u8], usize);

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (piece, rest) = self.0.split_at(self.1.min(self.0.len()).min(buffer.remaining()));
        buffer.put_slice(piece);
        self.0 = rest;
        Poll::Ready(Ok(()))
    }
}

#[rstest]
fn what_the_store_refused_is_the_reason_although_a_later_path_is_cut(
    #[values(1, 7, 13, 100, 1000)] piece: usize,
    #[values(0, 50, 110)] missing: usize,
) {
    let mut request = golden("add-to-store-nar-hash-mismatch.request");
    request.extend(&golden("add-to-store-nar.request")[16..]);
    request.truncate(request.len() - missing);
    let (_, end) = serve(&MemoryStore::new("ours"), Pieces(&request, piece), Writing::Allowed);
    let text = explained(&end.unwrap_err());
    assert!(text.contains("NAR hash is"), "{text}");
}

#[rstest]
fn a_path_that_is_cut_is_the_clients_failure(#[values(1, 7, 20, 100, 1000)] piece: usize) {
    let mut request = golden("add-to-store-nar.request");
    request.truncate(request.len() - 50);
    let (_, end) = serve(&MemoryStore::new("ours"), Pieces(&request, piece), Writing::Allowed);
    assert_eq!(explained(&end.unwrap_err()), "the stream ended while reading a NAR");
}

/// Counts how often it is written to and flushed.
#[derive(Default)]
struct Counting(usize);

impl AsyncWrite for Counting {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0 += 1;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0 += 1;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn small_answers_share_a_write_if_their_questions_came_together() {
    let store = MemoryStore::new("ours");
    let mut request = client_greeting();
    for path in store.add_chain(1000) {
        request.put_u64(3);
        request.put_path(&StoreDir::default(), &path);
    }
    let mut written = Counting::default();
    Server::new(&request[..], &mut written, &store, Writing::Refused).run().await.unwrap();
    assert!(written.0 < 20, "{} writes and flushes for 1000 dumps", written.0);
}

/// A client that waits for each answer gets it, although the next question is there in part.
#[tokio::test(start_paused = true)]
async fn no_answer_is_kept_back_while_the_next_question_is_awaited() {
    let store = MemoryStore::new("ours");
    let path = store.add("x", "y", &[]);
    let (mut client, input) = tokio::io::duplex(1 << 16);
    let (output, mut answers) = tokio::io::duplex(1 << 16);
    let mut request = client_greeting();
    request.put_u64(3);
    request.put_path(&StoreDir::default(), &path);
    request.extend_from_slice(&[3, 0, 0]);
    client.write_all(&request).await.unwrap();
    let mut answer = vec![0; 16 + store.nar(&path).unwrap().len()];
    tokio::select! {
        end = Server::new(input, output, &store, Writing::Refused).run() => panic!("{end:?}"),
        read = tokio::time::timeout(Duration::from_secs(1), answers.read_exact(&mut answer)) => {
            read.expect("it waits for nothing").unwrap();
        }
    }
    assert_eq!(answer[16..], store.nar(&path).unwrap());
}

proptest! {
    #[test]
    fn any_change_of_a_session_is_survived(position in 0usize..9184, value: u8) {
        let mut request = golden("add-to-store-nar-closure.request");
        let length = request.len();
        request[position % length] = value;
        let store = MemoryStore::new("ours");
        let (answered, _) = serve(&store, &request[..], Writing::Allowed);
        prop_assert!(store.paths().len() >= answered.len().saturating_sub(16) / 8);
    }

    #[test]
    fn any_bytes_behind_the_greeting_are_survived(bytes: Vec<u8>) {
        let mut request = CLIENT_MAGIC.to_le_bytes().to_vec();
        request.extend_from_slice(&bytes);
        let (answered, _) = serve(&MemoryStore::new("ours"), &request[..], Writing::Allowed);
        prop_assert!(answered.len() >= 16, "the greeting comes before the version is read");
    }
}
