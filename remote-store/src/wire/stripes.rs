//! The bulk of a transfer over several channels of one login.
//!
//! On a long line the window of a channel, about 2 MB with OpenSSH, is empty long before the line is full. So one stream is dealt
//! out over several channels in blocks, and put together again at the other end: [`Stripes`] is the host's half and the format. There is still one
//! server, and one stream: what travels in it, many paths or a huge one, makes no difference, and no path waits for another channel's.
//!
//! A stripe that breaks cuts the stream. Both ends then do as they do where a connection breaks.

use std::{
    io,
    pin::Pin,
    str::FromStr,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::future::join_all;
use ncc_protocol::ProtocolError;
use ncc_transport::{
    Channel, ChannelControl, FilteredStream, Findings, Reader, StderrTail, Stripes, Transport, Writer,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadBuf, Take},
    sync::mpsc,
    task::JoinSet,
};

use super::{Carried, read_report};

/// With less than this to send, the channels are there when it has been sent.
const MANY_BYTES: u64 = 32 << 20;

/// The round trip from which on a window is in the way: within less, one channel carries 30 MB/s, of what is compressed mostly, and
/// each further one costs both ends' processors more than few lines are worth.
const FAR: Duration = Duration::from_millis(60);

/// One channel for each such part of a round trip carry 1 Gbit/s together. A window of OpenSSH's, as measured, is 1.8 MB. More
/// would cost both ends their processors' time for nothing.
const ENOUGH: Duration = Duration::from_micros(14_400);

/// How long one more channel is waited for.
const TIME_TO_OPEN: Duration = Duration::from_secs(10);

/// How much a script that ends may say.
const LAST_WORDS: usize = 64 << 10;

/// Bytes under way between a session and whoever deals them out.
const AHEAD: usize = 256 << 10;

/// Over how many channels of one login the bulk of a transfer goes.
///
/// ```
/// use ncc_remote_store::Connections;
///
/// assert_eq!("auto".parse(), Ok(Connections::Auto));
/// assert_eq!("4".parse(), Ok(Connections::Most(4)));
/// assert!("0".parse::<Connections>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// Over several where one would keep the line idle: for many bytes, and a host that is far.
    Auto,
    /// Over as many as this, whatever the line is, or as many as the host has room for. 1 is none beside the usual ones.
    Most(usize),
}

impl Default for Connections {
    fn default() -> Self {
        Self::Most(1)
    }
}

/// No number of channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is 'auto' or a number from 1 to {}", Stripes::MOST)]
pub struct ConnectionsError;

impl FromStr for Connections {
    type Err = ConnectionsError;

    fn from_str(text: &str) -> Result<Self, ConnectionsError> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let number = text.parse().ok().filter(|number| (1..=Stripes::MOST).contains(number));
        number.map(Self::Most).ok_or(ConnectionsError)
    }
}

impl Connections {
    /// Whether there may be several for so many bytes.
    pub(super) fn may_spread(self, bytes: u64) -> bool {
        match self {
            Self::Auto => bytes >= MANY_BYTES,
            Self::Most(number) => number > 1,
        }
    }

    /// How many there may be.
    pub(super) fn most(self, round_trip: Duration, line_is_slow: bool) -> usize {
        let milliseconds = round_trip.as_secs_f64() * 1000.0;
        match self {
            Self::Most(number) => number.min(Stripes::MOST),
            Self::Auto if line_is_slow => {
                tracing::info!("one channel: the rate is limited");
                1
            }
            Self::Auto if round_trip < FAR => {
                tracing::info!("one channel: its window is enough (round trip {milliseconds:.1} ms)");
                1
            }
            Self::Auto => {
                let enough = round_trip.as_micros().div_ceil(ENOUGH.as_micros());
                usize::try_from(enough).unwrap_or(Stripes::MOST).clamp(1, Stripes::MOST)
            }
        }
    }
}

/// How one direction is to be spread.
pub(super) struct Striping {
    transport: Arc<dyn Transport>,
    stream: FilteredStream,
    most: usize,
}

/// One channel of those over which it goes.
struct Stripe {
    stdin: Writer,
    stdout: Reader,
    end: StripeEnd,
}

/// Dropped, it ends the channel.
struct StripeEnd {
    control: Box<dyn ChannelControl>,
    /// Goes on reading. What it reads is the host's business with a channel that nobody depends on.
    _stderr: StderrTail,
}

impl Striping {
    pub(super) fn new(transport: Arc<dyn Transport>, stream: FilteredStream, most: usize) -> Self {
        Self { transport, stream, most }
    }

    /// Opens the other channels, tells the script that reported `findings` which there are, and puts them in the place of its stream.
    pub(super) async fn begin(
        &self,
        findings: &Findings,
        mut stdin: Writer,
        stdout: Reader,
        carried: &mut Carried,
    ) -> Result<(Writer, Reader), ProtocolError> {
        let Some(place) = findings.stripes() else {
            tracing::info!(
                "one channel: the host lacks what several need (mkfifo, and dd with iflag=fullblock)"
            );
            return Ok((stdin, stdout));
        };
        let opened = join_all((1..=self.most).map(|number| self.open(place, number))).await;
        let (mut numbers, mut stripes): (Vec<usize>, Vec<Stripe>) = opened.into_iter().flatten().unzip();
        if stripes.len() < 2 {
            (numbers, stripes) = (Vec::new(), Vec::new());
        }
        // Together with what follows, where that is there at once.
        stdin.write_all(&Stripes::chosen(&numbers)).await.map_err(ProtocolError::Write)?;
        stdin.flush().await.map_err(ProtocolError::Write)?;
        if stripes.is_empty() {
            tracing::info!("one channel: the host has room for no more");
            return Ok((stdin, stdout));
        }
        tracing::info!("spreading NARs over {} channels", stripes.len());
        carried.stripes = Some(stripes.len());
        Ok(match self.stream {
            FilteredStream::Stdin => (dealt(stripes, &mut carried.carriers), stdout),
            FilteredStream::Stdout => (stdin, Box::new(Joined::new(stripes, stdout))),
        })
    }

    /// One more channel, and its number; `None` if it cannot be had, which is no misfortune.
    async fn open(&self, place: &str, number: usize) -> Option<(usize, Stripe)> {
        let command = Stripes::command(self.stream, place, number);
        let channel = self.transport.open_beside(&command).await;
        let opened = channel.inspect_err(|error| tracing::debug!(%error, number, "no further channel"));
        let Channel { stdin, mut stdout, stderr, control } = opened.ok()?;
        let mut end = StripeEnd { control, _stderr: StderrTail::collect(stderr, None) };
        let Ok((_, rest)) = read_report(&mut stdout, TIME_TO_OPEN).await else {
            end.control.kill();
            tracing::debug!(number, "no further channel");
            return None;
        };
        let stdout: Reader = Box::new(io::Cursor::new(rest).chain(stdout));
        Some((number, Stripe { stdin, stdout, end }))
    }
}

/// What is written is dealt out over `stripes`, by `carriers`. The end of it is the end of the stream.
fn dealt(stripes: Vec<Stripe>, carriers: &mut JoinSet<()>) -> Writer {
    let (front, back) = tokio::io::duplex(AHEAD);
    let mut queues = Vec::new();
    for stripe in stripes {
        // One block waits while one is written: each channel has its own pace for so long.
        let (queue, blocks) = mpsc::channel(1);
        queues.push(queue);
        carriers.spawn(async move {
            if let Err(error) = carry(stripe, blocks).await {
                tracing::debug!(%error, "a stripe is broken");
            }
        });
    }
    carriers.spawn(deal(back, queues));
    Box::new(front)
}

/// Cuts what comes into blocks. Without the last word the host takes the stream for broken.
async fn deal(mut input: DuplexStream, queues: Vec<mpsc::Sender<Vec<u8>>>) {
    for queue in queues.iter().cycle() {
        let mut block = Vec::with_capacity(Stripes::BLOCK);
        while block.len() < Stripes::BLOCK && input.read_buf(&mut block).await.is_ok_and(|size| size > 0) {}
        let is_last = block.is_empty();
        // If it takes no more, nobody does: whoever writes finds that out by the end of `input`.
        if queue.send(block).await.is_err() || is_last {
            return;
        }
    }
}

/// Writes blocks to one stripe, and sees to it that they arrive.
async fn carry(mut stripe: Stripe, mut blocks: mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    while let Some(block) = blocks.recv().await {
        // An empty one is the last word.
        stripe.stdin.write_all(&Stripes::in_front(block.len())).await?;
        stripe.stdin.write_all(&block).await?;
        stripe.stdin.write_all(Stripes::BEHIND).await?;
        stripe.stdin.flush().await?;
    }
    stripe.stdin.shutdown().await?;
    // Ended earlier, it would take with it what it has not passed on yet.
    let _ = stripe.end.control.wait().await;
    Ok(())
}

/// What comes by stripes.
struct Joined {
    /// Each up to the end of its block.
    stripes: Vec<Take<Reader>>,
    turn: usize,
    whole: u64,
    script: Reader,
    /// What the script says when it ends; `None` once that is judged.
    said: Option<Vec<u8>>,
    has_ended: bool,
    _ends: Vec<StripeEnd>,
}

impl Joined {
    fn new(stripes: Vec<Stripe>, script: Reader) -> Self {
        let (stripes, ends) = stripes
            .into_iter()
            // Dropping stdin changes nothing: it is not read.
            .map(|Stripe { stdout, end, .. }| (stdout.take(Stripes::BLOCK as u64), end))
            .unzip();
        let said = Some(Vec::new());
        Self { stripes, turn: 0, whole: 0, script, said, has_ended: false, _ends: ends }
    }

    /// Listens until the script has ended.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(said) = &mut self.said else { return Poll::Ready(Ok(())) };
        loop {
            let mut space = [0; 4096];
            let mut buffer = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut self.script).poll_read(context, &mut buffer))?;
            if buffer.filled().is_empty() || said.len() > LAST_WORDS {
                break;
            }
            said.extend_from_slice(buffer.filled());
        }
        if Stripes::whole_blocks(said) != Some(self.whole) {
            let error = io::Error::new(io::ErrorKind::UnexpectedEof, "one of several channels broke");
            return Poll::Ready(Err(error));
        }
        self.said = None;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Joined {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        while !this.has_ended && buffer.remaining() > 0 {
            let Some(stripe) = this.stripes.get_mut(this.turn) else { break };
            ready!(Pin::new(&mut *stripe).poll_read(context, buffer))?;
            if buffer.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
            if stripe.limit() > 0 {
                this.has_ended = true;
                break;
            }
            stripe.set_limit(Stripes::BLOCK as u64);
            this.whole = this.whole.saturating_add(1);
            this.turn = (this.turn + 1) % this.stripes.len().max(1);
        }
        if this.has_ended { this.poll_end(context) } else { Poll::Ready(Ok(())) }
    }
}

#[cfg(test)]
mod tests;
