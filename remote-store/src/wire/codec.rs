//! One direction of a stream, compressed or decompressed by a thread of its own: the second core works while the first is ssh's.
//!
//! All that is under way is bounded: a few hundred KiB of blocks, and the window, which is never above 128 MiB, whatever the
//! other end says. That is what `zstd -d` takes without being told more, too.

use std::{
    cell::Cell,
    io::{self, Read, Write},
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use flate2::{bufread::MultiGzDecoder, write::GzEncoder};
use ncc_transport::{Reader, Writer};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadBuf},
    runtime::Handle,
};

use super::level::{Adapting, GZIP, Spent, Step, ZSTD};

/// The largest window, as a power of two.
pub(super) const WINDOW_LOG: u32 = 27;

/// Bytes under way between a session and the thread.
const AHEAD: usize = 256 << 10;

/// What is compressed at once.
const BLOCK: usize = 128 << 10;

/// How long is looked before the level may change: longer than the buffers on the way take to fill.
const WHILE: Duration = Duration::from_millis(500);

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Zstd,
    Gzip,
}

impl Method {
    /// Of the program too.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }
}

/// How bytes are compressed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Encoding {
    pub(crate) method: Method,
    /// `None` follows the line.
    pub(crate) level: Option<i32>,
    /// About how many bytes come: a window that is larger than that is a waste.
    pub(crate) bytes: u64,
}

/// What is written goes compressed into `writer`. It ends, and so does the compressed stream, when it is shut down or dropped.
///
/// # Panics
/// Outside of a tokio runtime.
pub(crate) fn encoded(writer: Writer, encoding: Encoding) -> Writer {
    let (front, back) = tokio::io::duplex(AHEAD);
    let runtime = Handle::current();
    on_a_thread("compression", move || {
        let mut output = Blocking::new(writer, runtime.clone());
        // Whoever reads the answers hears why, and whoever writes finds that nobody takes anything any more.
        if let Err(error) = encode(Blocking::new(back, runtime.clone()), &mut output, encoding) {
            tracing::debug!(%error, "the compression has ended early");
        }
        let _ = runtime.block_on(output.stream.shutdown());
    });
    Box::new(front)
}

/// What comes compressed from `reader`.
///
/// # Panics
/// Outside of a tokio runtime.
pub(crate) fn decoded(reader: Reader, method: Method) -> Reader {
    let (front, back) = tokio::io::duplex(AHEAD);
    let runtime = Handle::current();
    let failure = Arc::new(Mutex::new(None));
    let decoded = Decoded { front, failure: Arc::clone(&failure) };
    on_a_thread("decompression", move || {
        let mut output = Blocking::new(back, runtime.clone());
        if let Err(error) = decode(Blocking::new(reader, runtime), &mut output, method) {
            // Before the stream ends for whoever reads it, with `output`.
            *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    });
    Box::new(decoded)
}

/// Without a thread all ends at once, as if the host had hung up.
fn on_a_thread(name: &str, work: impl FnOnce() + Send + 'static) {
    if let Err(error) = std::thread::Builder::new().name(name.to_owned()).spawn(work) {
        tracing::warn!("no thread for the {name}: {error}");
    }
}

/// An async stream on a thread that may block.
struct Blocking<S> {
    stream: S,
    runtime: Handle,
    waited: Rc<Cell<Duration>>,
}

impl<S> Blocking<S> {
    fn new(stream: S, runtime: Handle) -> Self {
        Self { stream, runtime, waited: Rc::default() }
    }

    fn note(&self, since: Instant) {
        self.waited.set(self.waited.get() + since.elapsed());
    }
}

impl<S: AsyncRead + Unpin> Read for Blocking<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let start = Instant::now();
        let read = self.runtime.block_on(self.stream.read(buffer));
        self.note(start);
        read
    }
}

impl<S: tokio::io::AsyncWrite + Unpin> Write for Blocking<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let start = Instant::now();
        let written = self.runtime.block_on(self.stream.write(bytes));
        self.note(start);
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.runtime.block_on(self.stream.flush())
    }
}

/// A part of a compressed stream that has one level; such parts may stand one behind another.
enum Frame<W: Write> {
    Stored(Stored<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
    Gzip(GzEncoder<W>),
}

impl<W: Write> Frame<W> {
    fn begin(encoding: &Encoding, step: Step, output: W) -> io::Result<Self> {
        Ok(match encoding.method {
            Method::Gzip => {
                let level = u32::try_from(step.level).unwrap_or(0).min(9);
                Self::Gzip(GzEncoder::new(output, flate2::Compression::new(level)))
            }
            Method::Zstd if step.level == 0 => Self::Stored(Stored::begin(output)?),
            Method::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(output, step.level)?;
                if step.long {
                    let window =
                        encoding.bytes.checked_ilog2().map_or(0, |log| log + 1).clamp(20, WINDOW_LOG);
                    encoder.long_distance_matching(true)?;
                    encoder.window_log(window)?;
                }
                Self::Zstd(encoder)
            }
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stored(stored) => stored.write(bytes),
            Self::Zstd(encoder) => encoder.write_all(bytes),
            Self::Gzip(encoder) => encoder.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<W> {
        match self {
            Self::Stored(stored) => stored.finish(),
            Self::Zstd(encoder) => encoder.finish(),
            Self::Gzip(encoder) => encoder.finish(),
        }
    }
}

/// A frame of zstd whose blocks hold the bytes as they are (RFC 8878, 3.1.1): the least work for both ends.
struct Stored<W: Write>(W);

impl<W: Write> Stored<W> {
    /// The magic number; no checksum, no size; a window of 128 KiB, which is as much as one block may hold.
    const HEADER: [u8; 6] = [0x28, 0xb5, 0x2f, 0xfd, 0, (17 - 10) << 3];

    fn begin(mut output: W) -> io::Result<Self> {
        output.write_all(&Self::HEADER)?;
        Ok(Self(output))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        for block in bytes.chunks(BLOCK) {
            // Size, type 0 (raw), not the last one.
            let [low, middle, high, _] = u32::try_from(block.len() << 3).unwrap_or(0).to_le_bytes();
            self.0.write_all(&[low, middle, high])?;
            self.0.write_all(block)?;
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<W> {
        // The last block, which is empty.
        self.0.write_all(&[1, 0, 0])?;
        Ok(self.0)
    }
}

fn encode<R: AsyncRead + Unpin, W: tokio::io::AsyncWrite + Unpin>(
    mut input: Blocking<R>,
    output: &mut Blocking<W>,
    encoding: Encoding,
) -> io::Result<()> {
    let mut adapting = Adapting::new(if encoding.method == Method::Zstd { ZSTD } else { GZIP });
    let step = encoding.level.map_or_else(|| adapting.step(), |level| Step::new(level, true));
    let (input_waited, line_waited) = (Rc::clone(&input.waited), Rc::clone(&output.waited));
    let mut frame = Frame::begin(&encoding, step, output)?;
    let mut block = vec![0; BLOCK];
    let (mut start, mut bytes_since) = (Instant::now(), 0_usize);
    loop {
        let size = input.read(&mut block)?;
        let Some(bytes) = block.get(..size).filter(|bytes| !bytes.is_empty()) else { break };
        frame.write(bytes)?;
        bytes_since = bytes_since.saturating_add(size);
        if encoding.level.is_some() || start.elapsed() < WHILE {
            continue;
        }
        let spent = Spent {
            total: start.elapsed(),
            waiting_for_input: input_waited.take(),
            waiting_for_line: line_waited.take(),
            kibibytes: u32::try_from(bytes_since / 1024).unwrap_or(u32::MAX),
        };
        if let Some(step) = adapting.observe(spent) {
            tracing::info!("compression: level {} from now on, as the line takes it", step.level);
            frame = Frame::begin(&encoding, step, frame.finish()?)?;
        }
        (start, bytes_since) = (Instant::now(), 0);
    }
    frame.finish()?.flush()
}

fn decode(input: impl Read, output: &mut impl Write, method: Method) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    let mut copy = |decoder: &mut dyn Read| loop {
        match decoder.read(&mut block)? {
            0 => return Ok(()),
            size => output.write_all(block.get(..size).unwrap_or_default())?,
        }
    };
    match method {
        Method::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(input)?;
            decoder.window_log_max(WINDOW_LOG)?;
            copy(&mut decoder)
        }
        Method::Gzip => copy(&mut MultiGzDecoder::new(io::BufReader::with_capacity(BLOCK, input))),
    }
}

struct Decoded {
    front: DuplexStream,
    failure: Arc<Mutex<Option<io::Error>>>,
}

impl AsyncRead for Decoded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.front).poll_read(context, buffer))?;
        if buffer.filled().len() == before
            && let Some(error) = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use tokio::io::AsyncRead;

    use super::*;

    const METHODS: [Method; 2] = [Method::Zstd, Method::Gzip];
    const LEVELS: [Option<i32>; 4] = [None, Some(0), Some(1), Some(9)];

    /// Some of it can be compressed, and some cannot.
    fn content(size: usize) -> Vec<u8> {
        let mut state = 7_u32;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        });
        let text = b"some text that comes again and again, ".iter().copied().cycle();
        noise
            .zip(text)
            .enumerate()
            .map(|(at, (noise, text))| if at / 5000 % 2 == 0 { noise } else { text })
            .take(size)
            .collect()
    }

    fn encoding(method: Method, level: Option<i32>) -> Encoding {
        Encoding { method, level, bytes: 1 << 20 }
    }

    async fn compress(content: &[u8], encoding: Encoding) -> Vec<u8> {
        let (to, mut from) = tokio::io::duplex(1000);
        let mut writer = encoded(Box::new(to), encoding);
        let write = async {
            writer.write_all(content).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let mut compressed = Vec::new();
        let ((), read) = tokio::join!(write, from.read_to_end(&mut compressed));
        read.unwrap();
        compressed
    }

    async fn decompress(compressed: Vec<u8>, method: Method) -> io::Result<Vec<u8>> {
        let mut reader = decoded(Box::new(io::Cursor::new(compressed)), method);
        let mut content = Vec::new();
        reader.read_to_end(&mut content).await.map(|_| content)
    }

    #[tokio::test]
    async fn what_goes_in_comes_out() {
        for (method, size) in
            METHODS.into_iter().flat_map(|method| [0, 1, 300_000].map(|size| (method, size)))
        {
            for level in LEVELS {
                let content = content(size);
                let compressed = compress(&content, encoding(method, level)).await;
                assert_eq!(decompress(compressed, method).await.unwrap(), content, "{level:?} {size}");
            }
        }
    }

    #[tokio::test]
    async fn the_programs_understand_it() {
        let content = content(300_000);
        for (method, level) in METHODS.into_iter().flat_map(|method| LEVELS.map(|level| (method, level))) {
            let compressed = compress(&content, encoding(method, level)).await;
            let mut child = Command::new(method.name())
                .arg("-dc")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut stdin = child.stdin.take().unwrap();
            let feed = std::thread::spawn(move || stdin.write_all(&compressed));
            let output = child.wait_with_output().unwrap();
            feed.join().unwrap().unwrap();
            assert!(output.status.success());
            assert_eq!(output.stdout, content, "{level:?}");
        }
    }

    #[tokio::test]
    async fn frames_of_all_levels_may_stand_one_behind_another() {
        let content = content(100_000);
        for (method, steps) in [(Method::Zstd, ZSTD), (Method::Gzip, GZIP)] {
            let mut compressed = Vec::new();
            for step in steps {
                let mut frame = Frame::begin(&encoding(method, None), *step, compressed).unwrap();
                frame.write(&content).unwrap();
                compressed = frame.finish().unwrap();
            }
            assert_eq!(decompress(compressed, method).await.unwrap(), content.repeat(steps.len()));
        }
    }

    #[tokio::test]
    async fn what_is_cut_or_damaged_is_an_error_behind_what_is_whole() {
        let content = content(300_000);
        for method in METHODS {
            let compressed = compress(&content, encoding(method, Some(1))).await;
            for cut in [1, 10, compressed.len() / 2, compressed.len() - 1] {
                decompress(compressed[..cut].to_vec(), method).await.unwrap_err();
            }
            let mut damaged = compressed.clone();
            damaged[0] ^= 1;
            decompress(damaged, method).await.unwrap_err();
            let trailing = [compressed.as_slice(), b"garbage"].concat();
            decompress(trailing, method).await.unwrap_err();
        }
    }

    #[tokio::test]
    async fn a_window_that_is_too_large_is_refused() {
        for (log, allowed) in [(27, true), (28, false)] {
            // An empty last block.
            let frame = [0x28, 0xb5, 0x2f, 0xfd, 0, (log - 10) << 3, 1, 0, 0];
            assert_eq!(decompress(frame.to_vec(), Method::Zstd).await.is_ok(), allowed, "{log}");
        }
    }

    /// Gives for ever what a little input makes.
    struct Endless;

    impl AsyncRead for Endless {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            // A frame of one block that repeats one byte 128 KiB times.
            buffer.put_slice(&[0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3, 0x03, 0, 0x10, 0]);
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_grows_without_end_is_read_at_the_readers_pace_and_ends_with_it() {
        let mut reader = decoded(Box::new(Endless), Method::Zstd);
        let mut some = vec![1; 1 << 20];
        reader.read_exact(&mut some).await.unwrap();
        assert!(some.iter().all(|&byte| byte == 0));
        drop(reader);
    }

    #[tokio::test]
    async fn whoever_writes_finds_out_that_nobody_takes_it() {
        let (to, from) = tokio::io::duplex(1000);
        let mut writer = encoded(Box::new(to), encoding(Method::Zstd, Some(1)));
        drop(from);
        let content = content(100_000);
        let error = loop {
            if let Err(error) = writer.write_all(&content).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn dropping_ends_the_compressed_stream_as_well() {
        let (to, mut from) = tokio::io::duplex(1000);
        let mut writer = encoded(Box::new(to), encoding(Method::Zstd, None));
        writer.write_all(b"x").await.unwrap();
        drop(writer);
        let mut compressed = Vec::new();
        from.read_to_end(&mut compressed).await.unwrap();
        assert_eq!(decompress(compressed, Method::Zstd).await.unwrap(), b"x");
    }
}
