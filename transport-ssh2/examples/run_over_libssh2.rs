//! Runs a command on a host, as `ssh` would, without any ssh program; NIX_SSHOPTS is honoured.
//!
//! ```text
//! cargo run -p ncc-transport-ssh2 --example run_over_libssh2 -- alice@h uname -a
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example is a program")]

use std::{error::Error, process::ExitCode, sync::Arc};

use ncc_transport::{Channel, RemoteCommand, StderrTail, Target, Transport, TransportError};
use ncc_transport_ssh2::{Ssh2, Ssh2Options, parse_ssh_options};
use tokio::io::AsyncReadExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(host), Some(program)) = (words.next(), words.next()) else {
        return Err("usage: run_over_libssh2 [USER@]HOST[:PORT] PROGRAM [ARGUMENT...]".into());
    };
    let target: Target = host.parse()?;
    let mut options = Ssh2Options::default();
    options.extra = parse_ssh_options(&std::env::var("NIX_SSHOPTS").unwrap_or_default())?;
    let transport = Ssh2::new(target, options);

    let Channel { stdin, mut stdout, stderr, mut control } = match transport
        .open(&RemoteCommand::new(program).args(words))
        .await
    {
        Ok(channel) => channel,
        Err(TransportError::Connect { host, failure, .. }) => {
            eprintln!("error: cannot reach {host}: {failure}: {}\nhint: {}", failure.evidence, failure.hint);
            return Ok(ExitCode::FAILURE);
        }
        Err(error) => return Err(error.into()),
    };
    drop(stdin);
    let name = transport.describe();
    let mut stderr = StderrTail::collect(stderr, Some(Arc::new(move |line| eprintln!("[{name}] {line}"))));
    let mut output = String::new();
    stdout.read_to_string(&mut output).await?;
    print!("{output}");
    let exit = control.wait().await?;
    stderr.finish().await;
    Ok(if exit.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
