//! No bytes of a daemon panic, hang, reach a terminal, or take more memory than they may.

use std::{
    error::Error,
    io, iter,
    pin::Pin,
    task::{Context, Poll},
};

use allocation_counter::measure;
use ncc_protocol::{
    wire::WireWrite as _,
    worker::{
        AddOptions, AnswerError, KEPT_TEXT, KEPT_TRACES, LogMessage, MESSAGE_LIMIT, Request, SERVER_MAGIC,
        Version,
    },
};
use ncc_store::StoreDir;
use proptest::prelude::*;
use rstest::rstest;
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

use super::{Outcome, Recording, Understood, cases, read_requests, recording, replay, understand};
use crate::memory::Flood;

const NEXT: u64 = 0x6f6c_6d67;
const READ: u64 = 0x6461_7461;
const LAST: u64 = 0x616c_7473;
const ERROR: u64 = 0x6378_7470;
const START_ACTIVITY: u64 = 0x5354_5254;
const RESULT: u64 = 0x5253_4c54;

const MIB: u64 = 1 << 20;

/// A daemon of this version, up to the messages that end the handshake.
fn greeting(minor: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_u64(SERVER_MAGIC);
    bytes.put_u64(0x100 | minor);
    if minor >= 38 {
        bytes.put_u64(0);
    }
    if minor >= 33 {
        bytes.put_bytes(b"2.99");
    }
    if minor >= 35 {
        bytes.put_u64(1);
    }
    bytes
}

/// A daemon that is ready.
fn ready(minor: u64) -> Vec<u8> {
    let mut bytes = greeting(minor);
    bytes.put_u64(LAST);
    bytes
}

fn numbers(mut bytes: Vec<u8>, numbers: &[u64]) -> Vec<u8> {
    for &number in numbers {
        bytes.put_u64(number);
    }
    bytes
}

fn note() -> ncc_store::StorePath {
    StoreDir::default().parse("/nix/store/nlhn6cma43vk5l44cgr8sw3ykiir1wmm-hi").unwrap()
}

/// The error that ends a conversation, or keeps it from beginning.
fn end_of(asked: &[Request], reply: impl AsyncRead + Unpin) -> AnswerError {
    match understand(Version::NEWEST, |_| asked.to_vec(), reply) {
        Ok(understood) => understood.end,
        Err(error) => error,
    }
}

/// The error with its causes, as a terminal gets to see it.
fn explained(error: &dyn Error) -> String {
    let causes = iter::successors(error.source(), |&error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[rstest]
fn a_cut_anywhere_is_an_error_and_nothing_else(
    #[values("2.3.7", "2.8.0", "2.26.3", "2.34.8")] version: &str,
) {
    for case in cases(version) {
        let Recording { offered, request, reply } = recording(version, &case);
        let whole = replay(version, &case);
        let asked = read_requests(offered, &whole.daemon, &request).0;
        let step = if reply.len() > 1000 { 13 } else { 1 };
        for end in (0..reply.len()).step_by(step) {
            match understand(offered, |_| asked.clone(), &reply[..end]) {
                // In the middle of a NAR, of the handshake.
                Err(AnswerError::Broken(_)) => {}
                Ok(Understood { outcomes, end: AnswerError::Broken(_), .. }) => {
                    assert!(outcomes.len() < whole.outcomes.len(), "{case}, cut at {end}");
                }
                other => panic!("{case}, cut at {end}: {other:?}"),
            }
        }
    }
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
fn how_answers_are_cut_makes_no_difference(
    #[values("2.3.7", "2.8.0", "2.26.3", "2.34.8")] version: &str,
    #[values(1, 7, 1000)] piece: usize,
) {
    for case in cases(version) {
        let Recording { offered, request, reply } = recording(version, &case);
        let whole = replay(version, &case);
        let asked = |daemon: &_| read_requests(offered, daemon, &request).0;
        let pieces = understand(offered, asked, Pieces(&reply, piece)).unwrap();
        assert_eq!(format!("{whole:?}"), format!("{pieces:?}"), "{case}");
    }
}

#[rstest]
#[case::features(numbers(Vec::new(), &[SERVER_MAGIC, 0x126, 1_000_000]), "the daemon's features announces")]
#[case::trust(
    { let mut bytes = greeting(38); let end = bytes.len() - 8; bytes[end] = 3; bytes },
    "the daemon's trust is 3"
)]
#[case::other_major(numbers(Vec::new(), &[SERVER_MAGIC, 0x226]), "it speaks version 2.38 of the daemon protocol")]
#[case::too_old(numbers(Vec::new(), &[SERVER_MAGIC, 0x113]), "it speaks version 1.19 of the daemon protocol")]
#[case::no_daemon(b"nix-daemon: command not found\n".to_vec(), "the greeting of the daemon protocol did not come")]
#[case::unknown_message(numbers(ready(38), &[0x1234]), "a message of the daemon is 4660")]
#[case::data_for_nobody(numbers(ready(38), &[READ, 32768]), "a message of the daemon is 1684108385")]
#[case::endless_line(numbers(ready(38), &[NEXT, u64::MAX]), "a log line announces")]
#[case::negative_fields(
    numbers(ready(38), &[START_ACTIVITY, 1, 1, 1, 0, u64::MAX]),
    "the fields of an activity announces"
)]
#[case::type_of_a_field(numbers(ready(38), &[RESULT, 1, 1, 1, 2]), "the type of a field is 2")]
#[case::large_level(numbers(ready(38), &[START_ACTIVITY, 1, 1 << 32]), "the level of an activity announces")]
#[case::many_traces(
    numbers(ready(38), &[ERROR, 0, 0, 0, 0, 0, 1 << 26]),
    "the traces of an error announces 67108864"
)]
#[case::position(numbers(ready(38), &[ERROR, 0, 0, 0, 0, 1]), "the position of an error is 1")]
#[case::old_error(numbers(ready(21), &[ERROR, 0, 1 << 40]), "the status of an error announces")]
fn what_no_daemon_says_is_refused(#[case] reply: Vec<u8>, #[case] message: &str) {
    let text = explained(&end_of(&[], &reply[..]));
    assert!(text.starts_with(message), "{text}");
}

#[rstest]
#[case::valid_paths(
    Request::QueryValidPaths { paths: iter::once(note()).collect(), substitute: false },
    &[LAST, u64::MAX],
    "the valid paths announces"
)]
#[case::missing(
    Request::QueryMissing { wanted: Vec::new() },
    &[LAST, u64::MAX],
    "the missing paths announces"
)]
#[case::outputs(
    Request::QueryDerivationOutputMap { path: note() },
    &[LAST, u64::MAX],
    "the outputs of a derivation announces"
)]
#[case::output_paths(
    Request::QueryDerivationOutputs { path: note() },
    &[LAST, u64::MAX],
    "the outputs of a derivation announces"
)]
#[case::references(
    Request::QueryPathInfo { path: note() },
    &[LAST, 1, 0, 0],
    "the NAR hash is no hash"
)]
#[case::done(Request::AddTempRoot { path: note() }, &[LAST, 2], "the daemon's answer is 2")]
#[case::nar(Request::NarFromPath { path: note() }, &[LAST, 1, 1], "a NAR is malformed")]
fn answers_that_are_none(#[case] request: Request, #[case] answer: &[u64], #[case] message: &str) {
    let text = explained(&end_of(&[request], &numbers(ready(38), answer)[..]));
    assert!(text.starts_with(message), "{text}");
}

/// Found by fuzzing: eight bytes that look like the tag of an error, in the place of padding.
#[rstest]
fn an_error_begins_where_a_string_could(#[values(1, 1000)] piece: usize) {
    let mut reply = numbers(ready(38), &[LAST]);
    reply.put_bytes(b"nix-archive-1");
    reply.put_u64(1);
    reply.push(b'(');
    reply.put_u64(ERROR);
    reply.resize(reply.len() + 200, 0);
    let request = Request::NarFromPath { path: note() };
    let text = explained(&end_of(&[request], Pieces(&reply, piece)));
    assert!(text.starts_with("a NAR is malformed"), "{text}");
}

#[test]
fn a_flood_of_messages_takes_no_memory() {
    let count = 300_000;
    let flood = Flood::new(ready(38), count, |number, bytes| {
        bytes.put_u64(NEXT);
        bytes.put_bytes(format!("line {number}").as_bytes());
    });
    let mut lines = 0;
    let used = measure(|| {
        let conversation = async {
            use ncc_protocol::{wire::WireReader, worker::*};
            let mut reader = WireReader::new(flood);
            let version = read_server_greeting(&mut reader, Version::NEWEST).await.unwrap();
            let daemon = read_daemon(&mut reader, version, drop).await.unwrap();
            let store_dir = StoreDir::default();
            let sink = |message| lines += u64::from(matches!(message, LogMessage::Line(_)));
            Answers::new(&mut reader, &store_dir, &daemon, sink).done().await.unwrap_err();
        };
        futures_util::FutureExt::now_or_never(conversation).expect("memory never waits");
    });
    assert_eq!(lines, count);
    assert!(used.bytes_max < MIB, "{} bytes", used.bytes_max);
}

#[test]
fn of_a_long_text_only_the_beginning_is_kept() {
    let mut beginning = numbers(ready(38), &[NEXT]);
    let length = 64 * MIB;
    beginning.put_u64(length);
    let text = Flood::new(beginning, length / 8, |_, bytes| bytes.extend_from_slice(b"xxxxxxxx"));
    let mut end = None;
    let used = measure(|| {
        end = Some(understand(Version::NEWEST, |_| Vec::new(), text.chain(&LAST.to_le_bytes()[..])).unwrap());
    });
    let [LogMessage::Line(line)] = &end.unwrap().messages[..] else { panic!() };
    assert_eq!(line.len(), KEPT_TEXT + "...".len());
    assert!(used.bytes_max < 2 * MIB, "{} bytes", used.bytes_max);
    assert!(length < MESSAGE_LIMIT);
}

#[test]
fn of_many_traces_the_first_are_kept() {
    let traces = 1 << 16;
    let mut beginning = numbers(ready(38), &[ERROR]);
    for text in [&b"Error"[..], b"", b"Error", b"no"] {
        beginning.put_bytes(text);
    }
    let beginning = numbers(beginning, &[0, traces]);
    let flood = Flood::new(beginning, traces, |number, bytes| {
        bytes.put_u64(0);
        bytes.put_bytes(format!("while {number}").as_bytes());
    });
    let mut understood = None;
    let used = measure(|| understood = Some(understand(Version::NEWEST, |_| Vec::new(), flood).unwrap()));
    let understood = understood.unwrap();
    let [error] = &understood.refusals()[..] else { panic!("{understood:?}") };
    assert_eq!((error.message.as_str(), error.traces.len()), ("no", KEPT_TRACES));
    assert!(error.to_string().starts_with("no\nwhile 0\nwhile 1\n"));
    assert!(used.bytes_max < 2 * MIB, "{} bytes", used.bytes_max);
}

#[test]
fn long_traces_end_in_an_error() {
    let mut beginning = numbers(ready(38), &[ERROR]);
    for text in [&b"Error"[..], b"", b"Error", b"no"] {
        beginning.put_bytes(text);
    }
    let flood = Flood::new(numbers(beginning, &[0, 1 << 16]), 1 << 16, |_, bytes| {
        bytes.put_u64(0);
        bytes.put_bytes(&vec![b'x'; KEPT_TEXT]);
    });
    let mut text = String::new();
    let used = measure(|| text = explained(&end_of(&[], flood)));
    assert!(text.contains("a trace of an error"), "{text}");
    assert!(used.bytes_max < 80 * MIB, "{} bytes", used.bytes_max);
}

#[test]
fn a_daemon_may_ask_for_data_only_where_there_is_some() {
    let info = ncc_store::PathInfo::new(note(), ncc_store::NarHash::of(b""), 96);
    let add = Request::AddToStoreNar { info: Box::new(info), options: AddOptions::default() };
    let reply = numbers(ready(21), &[READ, 32768, LAST]);
    let understood = understand(Version::NEWEST, |_| vec![add.clone()], &reply[..]).unwrap();
    assert!(matches!(understood.outcomes[..], [Outcome::Answer(_)]), "{understood:?}");
    assert_eq!(understood.messages, [LogMessage::Wanted { bytes: 32768 }]);
    let reply = numbers(ready(38), &[READ, 32768, LAST]);
    let text = explained(&end_of(&[add], &reply[..]));
    assert!(text.starts_with("a message of the daemon is"), "{text}");
}

#[test]
fn requests_that_a_daemon_does_not_know_are_not_written() {
    use ncc_protocol::worker::Daemon;
    let old = Daemon::of_version(Version::from_minor(21).unwrap());
    for request in [
        Request::QueryDerivationOutputMap { path: note() },
        Request::AddMultipleToStore { options: AddOptions::default() },
        Request::AddTempRoots { paths: iter::once(note()).collect() },
        Request::AddPermRoot { path: note(), link: "/x".to_owned() },
    ] {
        let mut bytes = Vec::new();
        let error = request.encode(&StoreDir::default(), &old, &mut bytes).unwrap_err();
        assert!(error.to_string().starts_with("the daemon does not know"), "{error}");
        assert!(bytes.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_change_of_a_conversation_is_survived(
        version in proptest::sample::select(vec!["2.3.7", "2.8.0", "2.26.3", "2.34.8"]),
        case in any::<proptest::sample::Index>(),
        place in any::<proptest::sample::Index>(),
        byte: u8,
    ) {
        let cases = cases(version);
        let case = case.get(&cases);
        let Recording { offered, request, mut reply } = recording(version, case);
        let asked = read_requests(offered, &replay(version, case).daemon, &request).0;
        *place.get_mut(&mut reply) = byte;
        let end = understand(offered, |_| asked.clone(), &reply[..]);
        let (mut texts, error) = match end {
            Ok(understood) => (
                understood.refusals().iter().map(ToString::to_string).collect(),
                understood.end,
            ),
            Err(error) => (Vec::new(), error),
        };
        texts.push(explained(&error));
        for text in texts {
            prop_assert!(!text.contains(|sign: char| sign.is_control() && sign != '\n'), "{text:?}");
        }
    }
}
