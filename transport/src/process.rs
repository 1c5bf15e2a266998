//! A child process as a [`Channel`]: for this machine's own commands, and for transports that spawn a program.

use std::{
    io,
    pin::Pin,
    process::{ExitStatus, Stdio},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_core::future::BoxFuture;
use rustix::process::{Pid, Signal};
use tokio::{
    io::AsyncWrite,
    process::{Child, ChildStdin, Command},
};

use crate::{Channel, ChannelControl, Exit, TransportError};

/// How long a process has between SIGTERM and SIGKILL.
///
/// SIGTERM comes first because ssh, asked for a password, has switched the terminal's echo off and only a signal it can catch
/// lets it switch it on again.
const TERM_GRACE: Duration = Duration::from_secs(1);

/// The same, once there is no runtime left to wait in and a thread must block.
const BLOCKING_GRACE: Duration = Duration::from_millis(200);

/// What the pipe to a child's stdin may hold, on Linux: the most that `/proc/sys/fs/pipe-max-size` allows everybody by default,
/// so that a child (ssh) that encrypts finds work while its parent waits for a disk.
#[cfg(any(target_os = "linux", target_os = "android"))]
const STDIN_PIPE_SIZE: usize = 1024 * 1024;

impl Channel {
    /// Spawns `command` on this machine and makes it a channel: stdin, stdout and stderr are pipes, and the process ends with the
    /// channel. For transports that are a program; `host` is for messages.
    ///
    /// The child stays in our session and process group, so that it may ask questions on the terminal.
    pub fn spawn(host: &str, mut command: Command) -> Result<Self, TransportError> {
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        let host = host.to_owned();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                return Err(TransportError::ProgramNotFound { host, program });
            }
            Err(source) => return Err(TransportError::Spawn { host, program, source }),
        };
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let control = ProcessControl { child: Some(child), exit: None, forced_at: None, host, program };
        let (Some(stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
            let source = io::Error::other("the child has no pipes");
            return Err(TransportError::Spawn {
                host: control.host.clone(),
                program: control.program.clone(),
                source,
            });
        };
        #[cfg(any(target_os = "linux", target_os = "android"))]
        // Refused once a user's pipes hold too much in sum; then the default must do.
        let _ = rustix::pipe::fcntl_setpipe_size(&stdin, STDIN_PIPE_SIZE);
        Ok(Self {
            stdin: Box::new(PipeWriter(Some(stdin))),
            stdout: Box::new(stdout),
            stderr: Box::new(stderr),
            control: Box::new(control),
        })
    }
}

/// A child's stdin whose shutdown closes it. tokio's own `ChildStdin::shutdown` does nothing until it is dropped.
struct PipeWriter(Option<ChildStdin>);

impl PipeWriter {
    fn with_open<T>(
        self: Pin<&mut Self>,
        run: impl FnOnce(Pin<&mut ChildStdin>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match &mut self.get_mut().0 {
            Some(stdin) => run(Pin::new(stdin)),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }
}

impl AsyncWrite for PipeWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.with_open(|stdin| stdin.poll_write(cx, data))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.with_open(|stdin| stdin.poll_write_vectored(cx, data))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Some(stdin) => Pin::new(stdin).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().0 = None;
        Poll::Ready(Ok(()))
    }
}

#[derive(Debug)]
struct ProcessControl {
    /// Always there, until the drop takes it.
    child: Option<Child>,
    exit: Option<Exit>,
    /// Set by `kill`: when SIGTERM was not enough.
    forced_at: Option<Instant>,
    host: String,
    program: String,
}

impl ProcessControl {
    async fn finished(&mut self) -> io::Result<Exit> {
        if let Some(exit) = &self.exit {
            return Ok(exit.clone());
        }
        let child = self.child.as_mut().ok_or_else(|| io::Error::other("the process is gone"))?;
        let status = match self.forced_at {
            None => child.wait().await?,
            Some(deadline) => {
                let ended = tokio::time::timeout_at(deadline.into(), child.wait()).await;
                if ended.is_err() {
                    child.start_kill()?;
                }
                child.wait().await?
            }
        };
        Ok(self.exit.insert(exit_of(status)).clone())
    }
}

impl ChannelControl for ProcessControl {
    fn wait(&mut self) -> BoxFuture<'_, Result<Exit, TransportError>> {
        Box::pin(async move {
            self.finished().await.map_err(|source| TransportError::Wait {
                host: self.host.clone(),
                program: self.program.clone(),
                source,
            })
        })
    }

    fn kill(&mut self) {
        if self.forced_at.is_none() {
            self.child.as_ref().inspect(|child| terminate(child));
            self.forced_at = Some(Instant::now() + TERM_GRACE);
        }
    }

    fn process_id(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }
}

impl Drop for ProcessControl {
    fn drop(&mut self) {
        let Some(child) = self.child.take().filter(|_| self.exit.is_none()) else { return };
        terminate(&child);
        let remains = Remains(Some(child));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // If the runtime ends first, it drops the task, and with it `remains`.
            runtime.spawn(remains.reap());
        }
    }
}

/// A child that was told to end and has to be reaped; a zombie would stay otherwise.
struct Remains(Option<Child>);

impl Remains {
    async fn reap(mut self) {
        if let Some(child) = &mut self.0
            && tokio::time::timeout(TERM_GRACE, child.wait()).await.is_err()
        {
            // Errors mean that there is nothing left to kill.
            let _ = child.kill().await;
        }
        self.0 = None;
    }
}

impl Drop for Remains {
    fn drop(&mut self) {
        let Some(mut child) = self.0.take() else { return };
        if !ended_within(&mut child, BLOCKING_GRACE) {
            let _ = child.start_kill();
            ended_within(&mut child, BLOCKING_GRACE);
        }
    }
}

fn ended_within(child: &mut Child, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
            Ok(None) => return false,
            Ok(Some(_)) | Err(_) => return true,
        }
    }
}

/// Sends SIGTERM, unless the child has been reaped and its number may belong to another.
fn terminate(child: &Child) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // The only possible error is that it is gone.
        let _ = rustix::process::kill_process(pid, Signal::TERM);
    }
}

fn exit_of(status: ExitStatus) -> Exit {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal_name(signal)),
        (None, None) => Exit::Unknown,
    }
}

/// The names of RFC 4254, section 6.10; others as numbers.
fn signal_name(number: i32) -> String {
    [
        (Signal::ABORT, "ABRT"),
        (Signal::ALARM, "ALRM"),
        (Signal::FPE, "FPE"),
        (Signal::HUP, "HUP"),
        (Signal::ILL, "ILL"),
        (Signal::INT, "INT"),
        (Signal::KILL, "KILL"),
        (Signal::PIPE, "PIPE"),
        (Signal::QUIT, "QUIT"),
        (Signal::SEGV, "SEGV"),
        (Signal::TERM, "TERM"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
    ]
    .iter()
    .find(|(signal, _)| signal.as_raw() == number)
    .map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
}
