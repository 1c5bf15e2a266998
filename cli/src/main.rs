//! `nix-copy-closure`: arguments in, messages and an exit code out. What it does is in the crates below.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the program that talks to people")]

#[cfg(not(any(feature = "ssh", feature = "ssh2")))]
compile_error!(
    "build with a feature for a transport: `ssh` (OpenSSH, the default), `ssh2` (libssh2), or both"
);

mod arguments;
mod copying;
mod documents;
mod dry_run;
mod environment;
mod exit;
mod failure;
mod logging;
mod nothing;
mod output;
mod pictures;
mod roots;
mod serving;
mod settings;
mod ssh;
mod stores;
mod substituting;
mod wire;

use std::{process::ExitCode, time::Duration};

use arguments::{Arguments, Task};
use failure::Failure;

/// How long after a failure a signal is waited for that may have been its cause.
const SIGNAL_ON_ITS_WAY: Duration = Duration::from_millis(100);

/// How long tidying up may take at the end.
const TIDYING: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let task = match Arguments::read() {
        Ok(task) => task,
        Err(code) => return code,
    };
    logging::start(task.verbosity());
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::new("could not start", error).report(),
    };
    let result = runtime.block_on(async {
        let mut signal = std::pin::pin!(interrupted());
        // In a task of its own: what it waits for in the middle of a step (a list on standard input, a lock) must not keep
        // a signal from being seen.
        let mut work = tokio::spawn(perform(task));
        let failure = tokio::select! {
            biased;
            signal = &mut signal => {
                work.abort();
                // What it holds is let go of, such as the terminal and the other processes, unless it is in such a step.
                let _ = tokio::time::timeout(TIDYING, work).await;
                return Err(signal);
            }
            result = &mut work => match result {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(failure)) => failure,
                Err(error) => Failure::new("this is a fault of this program", error),
            },
        };
        // Ctrl-C goes to ssh too, and its end can be seen before the signal is: the cause is the signal then.
        tokio::select! {
            biased;
            signal = signal => Err(signal),
            () = tokio::time::sleep(SIGNAL_ON_ITS_WAY) => Err(failure),
        }
    });
    // Threads that are in the middle of disk work may end it, with the locks that go with it; what takes longer is left
    // behind, since whatever they do is safe to be cut off anywhere.
    runtime.shutdown_timeout(TIDYING);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn perform(task: Task) -> Result<(), Failure> {
    match task {
        Task::Copy(arguments) => copying::copy(&arguments).await,
        Task::Serve(arguments) => serving::serve(&arguments).await,
        Task::Document(document) => documents::print(document),
    }
}

/// Waits for a signal that asks this program to end.
async fn interrupted() -> Failure {
    use tokio::signal::unix::{SignalKind, signal};
    let wait = |kind: SignalKind| async move {
        match signal(kind) {
            Ok(mut signals) => {
                signals.recv().await;
            }
            Err(error) => {
                tracing::warn!(%error, "a signal cannot be waited for");
                std::future::pending::<()>().await;
            }
        }
        Failure::signal(kind.as_raw_value())
    };
    tokio::select! {
        failure = wait(SignalKind::interrupt()) => failure,
        failure = wait(SignalKind::terminate()) => failure,
        failure = wait(SignalKind::hangup()) => failure,
    }
}
