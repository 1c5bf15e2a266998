//! One connection to a server: requests out and answers in, at the same time.

use std::{sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, Either, select};
use ncc_protocol::{
    ProtocolError,
    serve::{client_greeting, read_server_greeting},
    wire::WireReader,
};
use ncc_transport::{
    ChannelControl, End, Ending, Exit, LineSink, Reader, RemoteCommand, StderrTail, Transport, Writer,
    throttled,
};
use tokio::io::AsyncWriteExt as _;

use crate::{
    RemoteError, ServeOptions,
    error::Remains,
    silence::{Patience, Pulse},
};

/// How long a server may take to end once its input has ended, before its process is ended for it.
const TIME_TO_END: Duration = Duration::from_secs(5);

/// A server and everything known about it.
pub(crate) struct Connection {
    pub(crate) requests: Requests,
    pub(crate) answers: Answers,
    /// What explains a failure.
    pub(crate) server: ServerProcess,
}

/// How one answer is read; `Send` futures, which async closures cannot promise yet.
pub(crate) trait ReadAnswer<T>:
    for<'r> FnOnce(&'r mut WireReader<Reader>) -> BoxFuture<'r, Result<T, ProtocolError>> + Send
{
}

impl<T, F> ReadAnswer<T> for F where
    F: for<'r> FnOnce(&'r mut WireReader<Reader>) -> BoxFuture<'r, Result<T, ProtocolError>> + Send
{
}

/// Where requests go.
pub(crate) struct Requests {
    stdin: Writer,
    /// Written before the next request: the greeting, so that it shares a packet with the first request.
    unsent: Vec<u8>,
    pulse: Pulse,
}

/// Where answers come from.
pub(crate) struct Answers {
    pub(crate) reader: WireReader<Reader>,
    greeted: bool,
    on_greeting: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// The process at the other end.
pub(crate) struct ServerProcess {
    stderr: StderrTail,
    control: Box<dyn ChannelControl>,
    pulse: Pulse,
    program: String,
}

impl Connection {
    pub(crate) async fn open(
        transport: &dyn Transport,
        options: &ServeOptions,
        command: RemoteCommand,
    ) -> Result<Self, RemoteError> {
        tracing::debug!(host = transport.describe(), %command, "starting the server");
        let channel = transport.open(&command).await?;
        let pulse = Pulse::new(options.stall_timeout);
        Ok(Self {
            requests: Requests {
                stdin: pulse.note_requests(channel.stdin),
                unsent: client_greeting(),
                pulse: pulse.clone(),
            },
            answers: Answers {
                reader: WireReader::new(pulse.watch_answers(channel.stdout)),
                greeted: false,
                on_greeting: options.greeted.clone(),
            },
            server: ServerProcess::new(
                channel.stderr,
                channel.control,
                pulse,
                options,
                options.stderr.clone().map(throttled),
            ),
        })
    }

    /// Writes `request` and reads its answer, both at once, since either side may block on a full pipe.
    pub(crate) async fn exchange<T>(
        &mut self,
        request: &[u8],
        patience: Patience,
        read: impl ReadAnswer<T>,
    ) -> Result<T, ProtocolError> {
        let Self { requests, answers, server } = self;
        server.pulse.expect(patience);
        let write = std::pin::pin!(async { requests.write(request).await });
        let read = std::pin::pin!(async { read(answers.greeted().await?).await });
        let result = match select(write, read).await {
            // A failed write means that the server is gone: what can still be read says more.
            Either::Left((_, read)) => read.await,
            Either::Right((answer, write)) => match answer {
                // All of the answer can only have come after all of the request, but for a server that lies.
                Ok(answer) => write.await.map(|()| answer),
                Err(error) => Err(error),
            },
        };
        server.pulse.expect(Patience::Limited);
        result
    }

    /// Ends a connection that has nothing more to do.
    pub(crate) async fn close(self) {
        let Self { requests, server, .. } = self;
        drop(requests);
        server.end().await;
    }

    /// Ends a connection that failed with `error`, and finds out why.
    pub(crate) async fn explain(self, transport: &dyn Transport, error: ProtocolError) -> RemoteError {
        let Self { requests, answers, server } = self;
        drop(requests);
        let greeted = answers.greeted;
        drop(answers);
        server.explain(transport, greeted, error).await
    }
}

impl Requests {
    /// For whoever makes the host wait.
    pub(crate) const fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        if !self.unsent.is_empty() {
            let mut first = std::mem::take(&mut self.unsent);
            first.extend_from_slice(bytes);
            return write_all(&mut self.stdin, &first).await;
        }
        write_all(&mut self.stdin, bytes).await
    }
}

async fn write_all(stdin: &mut Writer, bytes: &[u8]) -> Result<(), ProtocolError> {
    stdin.write_all(bytes).await.map_err(ProtocolError::Write)?;
    stdin.flush().await.map_err(ProtocolError::Write)
}

impl Answers {
    /// The reader, behind the server's greeting.
    pub(crate) async fn greeted(&mut self) -> Result<&mut WireReader<Reader>, ProtocolError> {
        if !self.greeted {
            let version = read_server_greeting(&mut self.reader).await?;
            tracing::debug!(%version, "the server has greeted");
            self.greeted = true;
            if let Some(greeted) = &self.on_greeting {
                greeted();
            }
        }
        Ok(&mut self.reader)
    }

    pub(crate) const fn is_greeted(&self) -> bool {
        self.greeted
    }
}

impl ServerProcess {
    /// Listens to its stderr; each line goes to `sink`.
    pub(crate) fn new(
        stderr: Reader,
        control: Box<dyn ChannelControl>,
        pulse: Pulse,
        options: &ServeOptions,
        sink: Option<LineSink>,
    ) -> Self {
        let stderr = StderrTail::collect(stderr, Some(pulse.note_lines(sink)));
        Self { stderr, control, pulse, program: options.program.name().to_owned() }
    }

    /// The silence that ended the connection to it, if that is what ended it.
    pub(crate) fn silence(&self) -> Option<Duration> {
        self.pulse.ended_after()
    }

    /// Waits for the end, and brings it about if it does not come by itself.
    ///
    /// The second text is what came on stderr since something of ours ran there, if that is known.
    pub(crate) async fn end(mut self) -> (Exit, String, Option<String>) {
        // Whoever was silent for so long has had its time.
        let time = if self.silence().is_some() { Duration::ZERO } else { TIME_TO_END };
        let exit = match tokio::time::timeout(time, self.control.wait()).await {
            Ok(exit) => exit,
            Err(_) => {
                self.control.kill();
                self.control.wait().await
            }
        };
        let stderr = self.stderr.finish().await;
        (exit.unwrap_or(Exit::Unknown), stderr, self.stderr.since_start())
    }

    pub(crate) async fn explain(
        self,
        transport: &dyn Transport,
        greeted: bool,
        error: ProtocolError,
    ) -> RemoteError {
        let (program, silence) = (self.program.clone(), self.silence());
        // What it says because it is ended explains nothing.
        let before = silence.map(|_| self.stderr.text());
        let (exit, stderr, since_start) = self.end().await;
        let stderr = before.unwrap_or(stderr);
        tracing::debug!(%exit, %error, "the server has ended");
        let noise = matches!(&error, ProtocolError::NoGreeting { noise, .. } if !noise.is_empty());
        let end = End::new(&exit, greeted, &stderr).since_start(since_start.as_deref()).said_on_stdout(noise);
        let ending = Ending::of(transport, &end, &program);
        Remains { exit, stderr, ending, greeted, program, silence }.into_error(error)
    }
}
