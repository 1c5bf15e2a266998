//! Runs a command on a host, as `ssh` would; NIX_SSHOPTS is honoured.
//!
//! ```text
//! cargo run -p ncc-transport-ssh --example run_on_host -- alice@h uname -a
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example is a program")]

use std::{error::Error, process::ExitCode, sync::Arc};

use ncc_transport::{Channel, End, Exit, RemoteCommand, StderrTail, Target, Transport};
use ncc_transport_ssh::{OpenSsh, OpenSshOptions, parse_ssh_options};
use tokio::io::AsyncReadExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(host), Some(program)) = (words.next(), words.next()) else {
        return Err("usage: run_on_host [USER@]HOST[:PORT] PROGRAM [ARGUMENT...]".into());
    };
    let target: Target = host.parse()?;
    let mut options = OpenSshOptions::default();
    options.extra = parse_ssh_options(&std::env::var("NIX_SSHOPTS").unwrap_or_default())?;
    let transport = OpenSsh::new(target, options);
    let command = RemoteCommand::new(program).args(words);

    let Channel { stdin, mut stdout, stderr, mut control } = transport.open(&command).await?;
    drop(stdin);
    let name = transport.describe();
    let mut stderr = StderrTail::collect(stderr, Some(Arc::new(move |line| eprintln!("[{name}] {line}"))));
    let mut output = String::new();
    stdout.read_to_string(&mut output).await?;
    print!("{output}");

    let exit = control.wait().await?;
    let messages = stderr.finish().await;
    // The command may be one that says nothing: any status but ssh's own is its.
    let has_run = exit != Exit::Code(255);
    if let Some(failure) = transport.explain(&End::new(&exit, has_run, &messages)) {
        eprintln!(
            "error: cannot reach {}: {failure}: {}\nhint: {}",
            transport.describe(),
            failure.evidence,
            failure.hint
        );
    }
    Ok(if exit.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
