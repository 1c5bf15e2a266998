//! What a peer's message can take in memory, measured.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use allocation_counter::measure;
use futures_util::FutureExt as _;
use ncc_protocol::{
    ProtocolError,
    serve::{Writing, client_greeting, read_closure, read_path_infos, read_valid_paths},
    wire::{COUNT_LIMIT, WireReader, WireWrite as _},
};
use ncc_store::{StoreDir, StorePath, StorePathSet, nix32, test_util::MemoryStore};
use rstest::rstest;
use tokio::io::{AsyncRead, ReadBuf};

use crate::serve;

const MIB: u64 = 1 << 20;

/// Elements in a flood that is read to its end: many times what the test allows, if each took but a pointer.
const MANY: u64 = 1 << 19;

/// A message that is made while it is read: a beginning, then element after element, up to a number of them.
pub(crate) struct Flood {
    ready: Vec<u8>,
    taken: usize,
    elements: std::ops::Range<u64>,
    element: fn(u64, &mut Vec<u8>),
}

impl Flood {
    pub(crate) fn new(beginning: Vec<u8>, count: u64, element: fn(u64, &mut Vec<u8>)) -> Self {
        Self { ready: beginning, taken: 0, elements: 0..count, element }
    }
}

impl AsyncRead for Flood {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.taken == self.ready.len() {
            self.ready.clear();
            self.taken = 0;
            while self.ready.len() < 64 << 10 {
                let Some(number) = self.elements.next() else { break };
                let element = self.element;
                element(number, &mut self.ready);
            }
        }
        let rest = &self.ready[self.taken..];
        let length = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..length]);
        self.taken += length;
        Poll::Ready(Ok(()))
    }
}

fn path(number: u64) -> StorePath {
    let mut digest = [0; 20];
    digest[..8].copy_from_slice(&number.to_le_bytes());
    StorePath::from_parts(&digest, "hi").unwrap()
}

fn put_different_path(number: u64, bytes: &mut Vec<u8>) {
    bytes.put_path(&StoreDir::default(), &path(number));
}

fn put_same_path(_: u64, bytes: &mut Vec<u8>) {
    bytes.put_path(&StoreDir::default(), &path(0));
}

fn put_signature(number: u64, bytes: &mut Vec<u8>) {
    let text = nix32::encode(&number.to_le_bytes());
    bytes.put_bytes(format!("{text}:{}", "A".repeat(86)).as_bytes());
}

fn put_long_signature(number: u64, bytes: &mut Vec<u8>) {
    bytes.put_bytes(format!("{number}{}:{}", "k".repeat(60_000), "A".repeat(86)).as_bytes());
}

fn put_empty_text(_: u64, bytes: &mut Vec<u8>) {
    bytes.put_u64(0);
}

/// The beginning of a path info: up to the references, or, with the number of references, up to the signatures.
fn path_info(references: Option<u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_same_path(0, &mut bytes);
    bytes.put_u64(0);
    if let Some(count) = references {
        bytes.put_u64(count);
        return bytes;
    }
    bytes.put_u64(0);
    bytes.put_u64(96);
    bytes.put_u64(96);
    bytes.put_bytes(b"sha256:1z63q11s9hppsav4x9kh767bqr7ypmw7ncg3wjncgs4lijvx8li2");
    bytes.put_u64(0);
    bytes.put_u64(COUNT_LIMIT);
    bytes
}

/// What reading a flood takes at most, and how it ends.
fn read_infos(flood: Flood) -> (u64, Result<usize, ProtocolError>) {
    let asked = StorePathSet::from_iter([path(0)]);
    let mut end = None;
    let memory = measure(|| {
        let mut reader = WireReader::new(flood);
        let read = read_path_infos(&mut reader, &StoreDir::default(), &asked).now_or_never();
        end = Some(read.expect("a flood never waits").map(|infos| infos.len()));
    });
    (memory.bytes_max, end.unwrap())
}

fn is_too_large(error: &ProtocolError) -> bool {
    matches!(error, ProtocolError::MessageTooLarge { .. })
}

#[rstest]
#[case::different_references(path_info(Some(COUNT_LIMIT)), put_different_path)]
#[case::signatures(path_info(None), put_signature)]
#[case::long_signatures(path_info(None), put_long_signature)]
fn one_path_cannot_take_all_memory(#[case] beginning: Vec<u8>, #[case] element: fn(u64, &mut Vec<u8>)) {
    let (memory, end) = read_infos(Flood::new(beginning, u64::MAX, element));
    let error = end.unwrap_err();
    assert!(is_too_large(&error), "{error}");
    assert!(memory < 192 * MIB, "{memory}");
}

#[rstest]
#[case::repeated_reference(path_info(Some(COUNT_LIMIT)), put_same_path)]
#[case::no_signatures_at_all(path_info(None), put_empty_text)]
fn elements_that_are_not_kept_take_nothing(
    #[case] beginning: Vec<u8>,
    #[case] element: fn(u64, &mut Vec<u8>),
) {
    // The stream ends where the elements do.
    let (memory, end) = read_infos(Flood::new(beginning, MANY, element));
    assert!(matches!(end, Err(ProtocolError::UnexpectedEnd { .. })), "{end:?}");
    assert!(memory < 2 * MIB, "{memory}");
}

#[test]
fn a_closure_that_repeats_a_path_takes_no_more_than_the_path() {
    let mut end = None;
    let memory = measure(|| {
        let flood = Flood::new(MANY.to_le_bytes().to_vec(), MANY, put_same_path);
        end = Some(read_closure(&mut WireReader::new(flood), &StoreDir::default()).now_or_never().unwrap());
    });
    assert_eq!(end.unwrap().unwrap().into_vec(), [path(0)]);
    assert!(memory.bytes_max < 2 * MIB, "{memory:?}");
}

#[test]
fn a_closure_of_many_paths_is_read() {
    let flood = Flood::new(100_000_u64.to_le_bytes().to_vec(), 100_000, put_different_path);
    let closure = read_closure(&mut WireReader::new(flood), &StoreDir::default()).now_or_never().unwrap();
    assert_eq!(closure.unwrap().len(), 100_000);
}

/// References to what was asked for share its text: each takes the size of a pointer, however many there are.
#[test]
fn references_among_the_asked_paths_are_shared() {
    const PATHS: u64 = 1000;
    let asked: StorePathSet = (0..PATHS).map(path).collect();
    let (mut answer, store_dir) = (Vec::new(), StoreDir::default());
    for info in &asked {
        answer.put_path(&store_dir, info);
        answer.put_u64(0);
        answer.put_paths(&store_dir, &asked);
        answer.put_u64(96);
        answer.put_u64(96);
        answer.put_bytes(b"sha256:1z63q11s9hppsav4x9kh767bqr7ypmw7ncg3wjncgs4lijvx8li2");
        answer.put_u64(0);
        answer.put_u64(0);
    }
    answer.put_u64(0);
    let mut infos = Vec::new();
    let memory = measure(|| {
        let mut reader = WireReader::new(&answer[..]);
        infos = read_path_infos(&mut reader, &store_dir, &asked).now_or_never().unwrap().unwrap();
    });
    assert!(infos.iter().all(|info| info.references == asked));
    let lists = PATHS * PATHS * size_of::<StorePath>() as u64;
    assert!(memory.bytes_max < lists + 2 * MIB, "{memory:?}");
    let mut reader = WireReader::new(&[1, 0, 0, 0, 0, 0, 0, 0][..]);
    let valid = read_valid_paths(&mut reader, &store_dir, &asked).now_or_never().unwrap();
    assert!(valid.is_err(), "one path is announced, none comes");
}

/// What an announced count costs, before an element has come.
#[rstest]
fn absurd_counts_cost_nothing(#[values(u64::MAX, 1 << 40, 1 << 26, COUNT_LIMIT)] count: u64) {
    let mut request = client_greeting();
    request.put_u64(1);
    request.put_u64(0);
    request.put_u64(0);
    request.put_u64(count);
    let store = MemoryStore::new("ours");
    let memory = measure(|| assert!(serve(&store, &request[..], Writing::Refused).1.is_err()));
    assert!(memory.bytes_max < MIB, "{memory:?}");
    let (memory, end) = read_infos(Flood::new(path_info(Some(count)), 0, put_same_path));
    assert!(end.is_err());
    assert!(memory < MIB, "{memory:?}");
}

/// A client's requests have the same bounds.
#[rstest]
#[case::references(put_different_path, true)]
#[case::repeated_reference(put_same_path, false)]
fn one_request_cannot_take_all_memory(#[case] element: fn(u64, &mut Vec<u8>), #[case] too_large: bool) {
    let mut request = client_greeting();
    request.put_u64(9);
    put_same_path(0, &mut request);
    request.put_u64(0);
    request.put_bytes(b"sha256:1z63q11s9hppsav4x9kh767bqr7ypmw7ncg3wjncgs4lijvx8li2");
    request.put_u64(COUNT_LIMIT);
    let store = MemoryStore::new("ours");
    let memory = measure(|| {
        let count = if too_large { u64::MAX } else { MANY };
        let (_, end) = serve(&store, Flood::new(request, count, element), Writing::Allowed);
        let error = end.unwrap_err().to_string();
        assert_eq!(error.contains("larger than"), too_large, "{error}");
    });
    assert!(memory.bytes_max < if too_large { 192 } else { 2 } * MIB, "{memory:?}");
}

#[test]
fn a_question_that_repeats_a_path_takes_no_more_than_the_path() {
    let mut request = client_greeting();
    request.put_u64(1);
    request.put_u64(0);
    request.put_u64(0);
    request.put_u64(MANY);
    let store = MemoryStore::new("ours");
    let memory = measure(|| {
        let flood = Flood::new(request, MANY, put_same_path);
        assert!(serve(&store, flood, Writing::Allowed).1.is_ok());
    });
    assert!(memory.bytes_max < 2 * MIB, "{memory:?}");
}
