//! A program on the host that does one thing and ends, beside the server.

use std::time::Duration;

use ncc_transport::{LineSink, RemoteCommand, Transport, TransportError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{error::reason, session::ServerProcess, silence::Pulse};

/// How much a host may make us read of a stdout on which nothing is said that matters.
pub(crate) const NOTHING: u64 = 64 << 10;

/// What is run, and how long it is waited for.
pub(crate) struct Run<'a> {
    pub(crate) command: &'a RemoteCommand,
    /// How messages call it.
    pub(crate) program: &'a str,
    /// How long it may be silent.
    pub(crate) stall_timeout: Option<Duration>,
    /// Is handed each line that it writes to stderr.
    pub(crate) stderr: Option<LineSink>,
    /// So many bytes of its stdout are read.
    pub(crate) most: u64,
}

impl Run<'_> {
    /// Runs it with this on its stdin, and waits until it has ended: what it wrote to stdout. The inner `Err` says why it failed.
    pub(crate) async fn finish(
        self,
        transport: &dyn Transport,
        input: &[u8],
    ) -> Result<Result<Vec<u8>, String>, TransportError> {
        let channel = transport.open(self.command).await?;
        let pulse = Pulse::new(self.stall_timeout);
        let mut stdin = pulse.note_requests(channel.stdin);
        let mut stdout = pulse.watch_answers(channel.stdout).take(self.most);
        let server =
            ServerProcess::new(channel.stderr, channel.control, pulse, self.program.to_owned(), self.stderr);
        let write = async {
            // Whoever does not listen says why, or nothing; either way there is no answer.
            let _ = stdin.write_all(input).await;
            let _ = stdin.shutdown().await;
            std::future::pending::<()>().await;
        };
        let mut said = Vec::new();
        // Its stdout ends when it does, or it hangs.
        let read = tokio::select! {
            read = stdout.read_to_end(&mut said) => read,
            () = write => Ok(0),
        };
        drop((stdin, stdout));
        let silence = server.silence();
        let (exit, stderr, since_start) = server.end().await;
        let stderr = since_start.unwrap_or(stderr);
        if let Some(limit) = silence {
            return Ok(Err(format!("nothing was heard from it for {} s", limit.as_secs())));
        }
        if read.is_err() || !exit.is_success() {
            return Ok(Err(format!("{} ({exit})", reason(&stderr))));
        }
        Ok(Ok(said))
    }
}
