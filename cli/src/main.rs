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
mod face;
mod failure;
mod host;
mod intent;
mod logging;
mod machine;
mod nothing;
mod output;
mod pictures;
mod roots;
mod route;
mod serving;
mod settings;
mod signals;
mod ssh;
mod stores;
mod streams;
mod substituting;
mod turns;
mod wire;

use std::{process::ExitCode, time::Duration};

use arguments::Task;
use failure::Failure;
use ncc_progress::Console;
use signals::{Signal, Signals};

/// How long after a failure a signal is waited for that may have been its cause.
const SIGNAL_ON_ITS_WAY: Duration = Duration::from_millis(100);

/// How long tidying up may take at the end.
const TIDYING: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let task = match face::read() {
        Ok(task) => task,
        Err(code) => return code,
    };
    if let Err(error) = environment::check_descriptors() {
        eprintln!("error: could not start: {error}");
        return exit::ERROR.into();
    }
    let options = task.console_options();
    let console = match Console::start(options) {
        Ok(console) => console,
        Err(error) => {
            eprintln!("error: could not start: {error}");
            return exit::ERROR.into();
        }
    };
    logging::start(console.clone(), if options.quiet { None } else { Some(options.verbosity) });
    let end = run(task, &console);
    console.flush(Some(TIDYING));
    match end {
        End::Code(code) => code.into(),
        End::Signal(signal) => {
            ssh::release_terminal();
            signal.die()
        }
    }
}

/// How the program ends.
enum End {
    Code(u8),
    Signal(Signal),
}

fn run(task: Task, console: &Console) -> End {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = match has_room().and_then(|()| builder.worker_threads(2).enable_all().build()) {
        Ok(runtime) => runtime,
        Err(error) => return End::Code(Failure::new("could not start", error).report(console)),
    };
    let end = runtime.block_on(async {
        let mut signals = Signals::catch(console);
        // In a task of its own: what it waits for in the middle of a step (a list on standard input, a lock) must not keep
        // a signal from being seen.
        let mut work = tokio::spawn(perform(task, console.clone()));
        let result = tokio::select! {
            biased;
            signal = signals.next() => {
                work.abort();
                // What it holds is let go of, such as the terminal and the other processes, unless it is in such a step.
                let _ = tokio::time::timeout(TIDYING, work).await;
                return End::Signal(signal);
            }
            result = &mut work => result,
        };
        let code = match result {
            Ok(Ok(())) => exit::SUCCESS,
            Ok(Err(failure)) => {
                // Ctrl-C goes to ssh too, and its end can be seen before the signal is: the cause is the signal then.
                if let Ok(signal) = tokio::time::timeout(SIGNAL_ON_ITS_WAY, signals.next()).await {
                    return End::Signal(signal);
                }
                failure.report(console)
            }
            Err(error) => Failure::new("this is a fault of this program", error).report(console),
        };
        // Whoever reads what was said may take as long as they like, or end the wait.
        let speaking = console.clone();
        let said = tokio::task::spawn_blocking(move || speaking.flush(None));
        tokio::select! {
            biased;
            signal = signals.next() => End::Signal(signal),
            _ = said => End::Code(code),
        }
    });
    // Threads that are in the middle of disk work may end it, with the locks that go with it; what takes longer is left
    // behind, since whatever they do is safe to be cut off anywhere.
    runtime.shutdown_timeout(TIDYING);
    end
}

/// Whether enough files may be open: where tokio cannot open those through which signals come, it panics.
fn has_room() -> std::io::Result<()> {
    let (one, _other) = std::os::unix::net::UnixStream::pair()?;
    let _more = [one.try_clone()?, one.try_clone()?, one.try_clone()?, one.try_clone()?, one.try_clone()?];
    Ok(())
}

async fn perform(task: Task, console: Console) -> Result<(), Failure> {
    match task {
        Task::Copy(arguments) => copying::copy(&arguments, &console).await,
        Task::Serve(arguments) => serving::serve(&arguments, &console).await,
        Task::Print(document) => documents::print(document),
    }
}
