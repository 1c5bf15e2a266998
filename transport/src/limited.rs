//! A limit to how fast bytes go over the channels of a transport.

use std::{
    fmt, io,
    num::NonZeroU64,
    pin::Pin,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use crate::{BoxFuture, Channel, End, Failure, Reader, RemoteCommand, Transport, TransportError, Writer};

/// In how many turns a second's bytes go: often enough for the line to be used evenly.
const PACES: u64 = 10;

/// How late a turn may come without losing anything.
const PACE: Duration = Duration::from_millis(100);

/// What is under way at once at least: a packet.
const PACKET: u64 = 1024;

/// And at most, whatever the rate.
const MOST: u64 = 256 << 10;

/// Bytes per second, as rsync's `--bwlimit` takes them.
///
/// ```
/// use ncc_transport::Rate;
///
/// assert_eq!("100".parse::<Rate>().unwrap().bytes_per_second(), 102_400);
/// assert_eq!("1.5m".parse::<Rate>().unwrap().bytes_per_second(), 1_572_864);
/// assert_eq!("2MB".parse::<Rate>().unwrap().bytes_per_second(), 2_000_000);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(NonZeroU64);

/// Not a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is a number of KiB per second, or one with a unit: B, K or KiB, KB, M or MiB, MB, G or GiB, GB; at least 512 bytes"
)]
pub struct RateError;

impl Rate {
    /// The slowest, as with rsync.
    const SLOWEST: u64 = 512;

    /// The number.
    pub fn bytes_per_second(self) -> u64 {
        self.0.get()
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let end = text.find(|letter: char| letter != '.' && !letter.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at_checked(end).ok_or(RateError)?;
        let unit: u32 = match unit.to_ascii_lowercase().as_str() {
            "b" => 1,
            "" | "k" | "kib" => 1 << 10,
            "kb" => 1000,
            "m" | "mib" => 1 << 20,
            "mb" => 1_000_000,
            "g" | "gib" => 1 << 30,
            "gb" => 1_000_000_000,
            _ => return Err(RateError),
        };
        let bytes = number.parse::<f64>().map_err(|_| RateError)? * f64::from(unit);
        // No line is that fast; and up to here nothing is lost on the way to a whole number.
        if !(0.0..1e15).contains(&bytes) {
            return Err(RateError);
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "looked at before")]
        let bytes = bytes.round() as u64;
        NonZeroU64::new(bytes).filter(|bytes| bytes.get() >= Self::SLOWEST).map(Self).ok_or(RateError)
    }
}

/// A transport whose channels together take no more than so many bytes per second in each direction. What the host says on stderr
/// is not counted.
#[derive(Debug)]
pub struct Limited {
    transport: Arc<dyn Transport>,
    sent: Bucket,
    received: Bucket,
}

impl Limited {
    /// Limits `transport`.
    pub fn new(transport: Arc<dyn Transport>, rate: Rate) -> Self {
        Self { transport, sent: Bucket::new(rate), received: Bucket::new(rate) }
    }

    fn limited(&self, Channel { stdin, stdout, stderr, control }: Channel) -> Channel {
        Channel {
            stdin: Box::new(LimitedWriter { writer: stdin, turn: Turn::new(&self.sent) }),
            stdout: Box::new(LimitedReader {
                reader: stdout,
                turn: Turn::new(&self.received),
                block: Vec::new(),
            }),
            stderr,
            control,
        }
    }
}

impl Transport for Limited {
    fn describe(&self) -> String {
        self.transport.describe()
    }

    fn open<'a>(&'a self, command: &'a RemoteCommand) -> BoxFuture<'a, Result<Channel, TransportError>> {
        Box::pin(async move { Ok(self.limited(self.transport.open(command).await?)) })
    }

    fn open_beside<'a>(
        &'a self,
        command: &'a RemoteCommand,
    ) -> BoxFuture<'a, Result<Channel, TransportError>> {
        Box::pin(async move { Ok(self.limited(self.transport.open_beside(command).await?)) })
    }

    fn explain(&self, end: &End<'_>) -> Option<Failure> {
        self.transport.explain(end)
    }

    fn share(&self) -> bool {
        self.transport.share()
    }

    fn words_of_the_host(&self, stderr: &str) -> String {
        self.transport.words_of_the_host(stderr)
    }
}

/// What all channels draw from, in one direction.
#[derive(Clone)]
struct Bucket {
    rate: Rate,
    /// Bytes that may be under way at once.
    room: u64,
    /// When all that has gone so far would have gone at the rate.
    due: Arc<Mutex<Option<Instant>>>,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rate.fmt(formatter)
    }
}

impl Bucket {
    fn new(rate: Rate) -> Self {
        let room = (rate.bytes_per_second() / PACES).clamp(PACKET, MOST);
        Self { rate, room, due: Arc::default() }
    }

    /// Until when to wait, if nothing may go now.
    fn wait(&self) -> Option<Instant> {
        let now = Instant::now();
        self.due.lock().unwrap_or_else(PoisonError::into_inner).filter(|due| *due > now)
    }

    /// So many bytes have gone.
    fn take(&self, bytes: usize) {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let nanoseconds =
            u128::try_from(bytes).unwrap_or(0) * 1_000_000_000 / u128::from(self.rate.bytes_per_second());
        let takes = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        // Time in which nothing went is not made up for, but for one turn that came late.
        let earliest = Instant::now().checked_sub(PACE);
        let start = due.max(earliest).unwrap_or_else(Instant::now);
        *due = Some(start + takes);
    }
}

/// One stream's wait for its share.
struct Turn {
    bucket: Bucket,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Turn {
    fn new(bucket: &Bucket) -> Self {
        Self { bucket: bucket.clone(), timer: None }
    }

    /// How many bytes may go at most, once some may.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<usize> {
        while let Some(due) = self.bucket.wait() {
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
            timer.as_mut().reset(due);
            ready!(timer.as_mut().poll(context));
        }
        Poll::Ready(usize::try_from(self.bucket.room).unwrap_or(usize::MAX))
    }
}

struct LimitedWriter {
    writer: Writer,
    turn: Turn,
}

impl AsyncWrite for LimitedWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let room = ready!(self.turn.poll_ready(context));
        let bytes = bytes.get(..room).unwrap_or(bytes);
        let written = ready!(Pin::new(&mut self.writer).poll_write(context, bytes))?;
        self.turn.bucket.take(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(context)
    }
}

struct LimitedReader {
    reader: Reader,
    turn: Turn,
    block: Vec<u8>,
}

impl AsyncRead for LimitedReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let room = ready!(this.turn.poll_ready(context)).min(buffer.remaining());
        // A part of a buffer can only be lent where it was written to before.
        this.block.resize(room, 0);
        let mut block = ReadBuf::new(&mut this.block);
        ready!(Pin::new(&mut this.reader).poll_read(context, &mut block))?;
        buffer.put_slice(block.filled());
        this.turn.bucket.take(block.filled().len());
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[rstest]
    #[case("512b", Some(512))]
    #[case("0.5", Some(512))]
    #[case("1", Some(1024))]
    #[case("100k", Some(102_400))]
    #[case("100KiB", Some(102_400))]
    #[case("100kb", Some(100_000))]
    #[case("1.5M", Some(1_572_864))]
    #[case("2g", Some(2 << 30))]
    #[case("1GB", Some(1_000_000_000))]
    #[case("511b", None)]
    #[case("0", None)]
    #[case("", None)]
    #[case("m", None)]
    #[case("-1", None)]
    #[case("1e3", None)]
    #[case("1.2.3", None)]
    #[case("nan", None)]
    #[case("99999999999999G", None)]
    #[case("5 MB/s", None)]
    #[case("1é", None)]
    fn rates(#[case] text: &str, #[case] expected: Option<u64>) {
        assert_eq!(text.parse::<Rate>().ok().map(Rate::bytes_per_second), expected);
    }

    fn rate(bytes: u64) -> Rate {
        Rate(NonZeroU64::new(bytes).unwrap())
    }

    /// Within a turn: what may be under way at once.
    #[track_caller]
    fn took(start: Instant, seconds: f64) {
        let elapsed = start.elapsed().as_secs_f64();
        assert!((seconds - 0.3..seconds + 0.3).contains(&elapsed), "{elapsed} s, not {seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn writers_share_the_rate() {
        let bucket = Bucket::new(rate(10_000));
        let write = async |bytes: usize| {
            let writer: Writer = Box::new(tokio::io::sink());
            let mut writer = LimitedWriter { writer, turn: Turn::new(&bucket) };
            writer.write_all(&vec![0; bytes]).await.unwrap();
        };
        let start = Instant::now();
        tokio::join!(write(30_000), write(50_000));
        took(start, 8.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_keeps_to_the_rate_and_loses_nothing() {
        let bucket = Bucket::new(rate(1_000_000));
        let content: Vec<u8> = (0..5_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        let reader: Reader = Box::new(io::Cursor::new(content.clone()));
        let mut reader = LimitedReader { reader, turn: Turn::new(&bucket), block: Vec::new() };
        let start = Instant::now();
        let mut read = Vec::new();
        reader.read_to_end(&mut read).await.unwrap();
        took(start, 5.0);
        assert!(read == content);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_not_made_up_for() {
        let bucket = Bucket::new(rate(10_000));
        let mut writer = LimitedWriter { writer: Box::new(tokio::io::sink()), turn: Turn::new(&bucket) };
        writer.write_all(&[0; 1000]).await.unwrap();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let start = Instant::now();
        writer.write_all(&vec![0; 50_000]).await.unwrap();
        took(start, 5.0);
    }
}
