//! Runs a command on this machine and shows its three streams and its end.
//!
//! ```text
//! cargo run -p ncc-transport --example run_here -- sh -c 'cat; echo message >&2; exit 3' < Cargo.toml
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example is a program")]

use std::{error::Error, sync::Arc};

use ncc_transport::{Channel, LocalProcess, RemoteCommand, StderrTail, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args_os().skip(1);
    let program = words.next().ok_or("usage: run_here PROGRAM [ARGUMENT...]")?;
    let command = RemoteCommand::new(program).args(words);
    let transport = LocalProcess::new();

    let Channel { mut stdin, mut stdout, stderr, mut control } = transport.open(&command).await?;
    let host = transport.describe();
    let mut stderr = StderrTail::collect(stderr, Some(Arc::new(move |line| eprintln!("[{host}] {line}"))));
    let input = tokio::task::spawn_blocking(|| {
        let mut input = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut input).map(|_| input)
    })
    .await??;

    let mut output = String::new();
    let write = async {
        // A command that does not want its input closes it.
        let _ = stdin.write_all(&input).await;
        stdin.shutdown().await
    };
    let (written, read) = tokio::join!(write, stdout.read_to_string(&mut output));
    written?;
    read?;
    print!("{output}");
    let exit = control.wait().await?;
    stderr.finish().await;
    eprintln!("{exit}");
    Ok(())
}
