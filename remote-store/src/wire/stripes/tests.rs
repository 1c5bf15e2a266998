use std::collections::VecDeque;

use ncc_transport::{Exit, TransportError};
use proptest::prelude::*;

use super::*;
use futures_util::future::BoxFuture;

#[derive(Debug)]
struct Ended;

impl ChannelControl for Ended {
    fn wait(&mut self) -> BoxFuture<'_, Result<Exit, TransportError>> {
        Box::pin(async { Ok(Exit::Code(0)) })
    }

    fn kill(&mut self) {}
}

fn stripe(stdin: Writer, stdout: Reader) -> Stripe {
    let stderr = StderrTail::collect(Box::new(tokio::io::empty()), None);
    Stripe { stdin, stdout, end: StripeEnd { control: Box::new(Ended), _stderr: stderr } }
}

fn noise(size: usize) -> Vec<u8> {
    let mut state = 7_u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(size)
    .collect()
}

/// What the host's loop does with what came on each stripe; `None` where it ends before the last word.
fn join(mut stripes: Vec<VecDeque<u8>>) -> Option<Vec<u8>> {
    let (mut content, count) = (Vec::new(), stripes.len());
    for turn in (0..count).cycle() {
        let stripe = &mut stripes[turn];
        let end = stripe.iter().position(|&byte| byte == b'\n')?;
        let line: Vec<u8> = stripe.drain(..=end).collect();
        let size: usize = std::str::from_utf8(&line[..end]).unwrap().parse().unwrap();
        if size == 0 {
            return Some(content);
        }
        if stripe.len() <= size {
            return None;
        }
        content.extend(stripe.drain(..size));
        assert_eq!(stripe.pop_front(), Some(b'\n'));
    }
    None
}

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Reads until the end, each time at most the next of these sizes.
async fn read_in(mut reader: impl AsyncRead + Unpin, sizes: &[usize]) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    for size in sizes.iter().cycle() {
        let before = content.len();
        content.resize(before + size, 0);
        let read = reader.read(&mut content[before..]).await?;
        content.truncate(before + read);
        if read == 0 {
            break;
        }
    }
    Ok(content)
}

/// As the host's loop deals it out; `said` is what it says at the end.
fn joined(content: &[u8], count: usize, cut: Option<usize>, said: &'static [u8]) -> Joined {
    let mut parts = vec![Vec::new(); count];
    for (at, block) in content.chunks(Stripes::BLOCK).enumerate() {
        parts[at % count].extend_from_slice(block);
    }
    if let Some(cut) = cut {
        let part = &mut parts[cut % count];
        part.truncate(part.len().saturating_sub(1 + cut));
    }
    let stripes = parts
        .into_iter()
        .map(|part| stripe(Box::new(tokio::io::sink()), Box::new(io::Cursor::new(part))))
        .collect();
    Joined::new(stripes, Box::new(said))
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(prop_oneof![1..100_usize, 1000..300_000_usize, Just(Stripes::BLOCK)], 1..5)
        .prop_filter("not only by single bytes", |sizes| sizes.iter().any(|size| *size >= 1000))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_dealt_out_is_what_was_written(
        count in 1..=Stripes::MOST,
        size in prop_oneof![0..5_usize, 0..9_usize << 20, (0..9_usize).prop_map(|blocks| blocks << 20)],
        chunks in sizes(),
    ) {
        let content = noise(size);
        let dealt_out = run(async {
            let mut carriers = JoinSet::new();
            let (to, from): (Vec<_>, Vec<_>) = (0..count).map(|_| tokio::io::duplex(10_000)).unzip();
            let stripes =
                to.into_iter().map(|to| stripe(Box::new(to), Box::new(tokio::io::empty()))).collect();
            let mut writer = dealt(stripes, &mut carriers);
            let write = async {
                let mut left = content.as_slice();
                for size in chunks.iter().cycle() {
                    if left.is_empty() {
                        break;
                    }
                    let (chunk, rest) = left.split_at(left.len().min(*size));
                    writer.write_all(chunk).await.unwrap();
                    left = rest;
                }
                drop(writer);
            };
            let read = join_all(from.into_iter().map(|mut from| async move {
                let mut came = Vec::new();
                from.read_to_end(&mut came).await.unwrap();
                VecDeque::from(came)
            }));
            tokio::join!(write, read).1
        });
        prop_assert!(join(dealt_out) == Some(content));
    }

    #[test]
    fn what_is_joined_is_what_was_dealt_out(
        count in 1..=Stripes::MOST,
        size in prop_oneof![0..5_usize, 0..9_usize << 20, (0..9_usize).prop_map(|blocks| blocks << 20)],
        chunks in sizes(),
    ) {
        let content = noise(size);
        let said = format!("ncc-end {}\n", size / Stripes::BLOCK).leak().as_bytes();
        let came = run(async { read_in(joined(&content, count, None, said), &chunks).await });
        prop_assert!(came.unwrap() == content);
    }

    /// Whatever is missing, what came before is right, and the end is an error; but for the last block, of whose size only the
    /// stream itself knows.
    #[test]
    fn a_stripe_that_ends_early_cuts_the_stream(count in 2..=Stripes::MOST, cut in 0..2_000_000_usize) {
        let content = noise((8 << 20) + 5);
        let last = content.len() / Stripes::BLOCK % count;
        prop_assume!(cut % count != last);
        run(async {
            let mut reader = joined(&content, count, Some(cut), b"ncc-end 8\n");
            let mut came = Vec::new();
            let error = reader.read_to_end(&mut came).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
            assert!(content.starts_with(&came));
        });
    }
}

#[test]
fn an_end_that_the_script_does_not_confirm_is_an_error() {
    let content = noise(3 << 20);
    for said in [&b""[..], b"ncc-end 2\n", b"ncc-end 4\n", b"noise\n"] {
        run(async {
            let mut came = Vec::new();
            let mut reader = joined(&content, 2, None, said);
            reader.read_to_end(&mut came).await.unwrap_err();
            // And stays one.
            reader.read_to_end(&mut came).await.unwrap_err();
        });
    }
}

#[tokio::test]
async fn whoever_writes_finds_out_that_a_stripe_is_broken() {
    let mut carriers = JoinSet::new();
    let (gone, _) = tokio::io::duplex(1000);
    let stripes = [Box::new(tokio::io::sink()) as Writer, Box::new(gone)]
        .map(|stdin| stripe(stdin, Box::new(tokio::io::empty())));
    let mut writer = dealt(stripes.into(), &mut carriers);
    let block = vec![0; 100_000];
    let error = loop {
        if let Err(error) = writer.write_all(&block).await {
            break error;
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn several_channels_are_for_long_lines_and_many_bytes() {
    let auto = Connections::Auto;
    assert!(!auto.may_spread(31 << 20) && auto.may_spread(32 << 20));
    assert_eq!(auto.most(Duration::from_millis(59), false), 1);
    for (milliseconds, number) in [(60, 5), (86, 6), (100, 7), (60_000, 7)] {
        assert_eq!(auto.most(Duration::from_millis(milliseconds), false), number);
    }
    assert_eq!(auto.most(Duration::from_millis(100), true), 1);
    assert!(Connections::Most(2).may_spread(0) && !Connections::Most(1).may_spread(u64::MAX));
    assert_eq!(Connections::Most(2).most(Duration::ZERO, true), 2);
}
