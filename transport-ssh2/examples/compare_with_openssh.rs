//! Measures this transport beside the one that spawns OpenSSH, against the same sshd on loopback, in turns.
//!
//! ```text
//! cargo run --release -p ncc-transport-ssh2 --example compare_with_openssh -- [MEBIBYTES] [NIX_SSHOPTS words]
//! ```

#![allow(clippy::print_stdout, reason = "an example is a program")]

use std::{
    error::Error,
    time::{Duration, Instant},
};

use ncc_transport::{Channel, RemoteCommand, Transport};
use ncc_transport_ssh::{OpenSsh, test_util::Sshd};
use ncc_transport_ssh2::{Ssh2, Ssh2Options, parse_ssh_options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ROUNDS: usize = 5;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let mebibytes: usize = words.next().map_or(Ok(1024), |word| word.parse())?;
    let more = words.collect::<Vec<_>>().join(" ");
    let Some(sshd) = Sshd::start(&["SetEnv HOME=/nonexistent"]) else { return Ok(()) };

    let mut theirs = sshd.options();
    let mut ours = Ssh2Options::default();
    for extra in [&mut theirs.extra, &mut ours.extra] {
        *extra = parse_ssh_options(&format!("{more} {}", sshd.nix_sshopts()))?;
    }
    let openssh = OpenSsh::new(sshd.target(), theirs);
    let libssh2 = Ssh2::new(sshd.target(), ours);
    for (direction, upload) in [("to the host", true), ("from the host", false)] {
        // The best of several, in turns: whatever else the machine does hits both.
        let mut best = [Duration::MAX; 2];
        for _ in 0..ROUNDS {
            for (best, transport) in best.iter_mut().zip([&openssh as &dyn Transport, &libssh2]) {
                *best = (*best).min(copy(transport, mebibytes, upload).await?);
            }
        }
        let [openssh, libssh2] = best.map(|time| time.as_secs_f64());
        println!(
            "{mebibytes} MiB {direction}: OpenSSH {openssh:.2} s, libssh2 {libssh2:.2} s, ratio {:.2}",
            libssh2 / openssh
        );
    }
    Ok(())
}

/// One way through a channel that is open already, so that the time to connect is not in it.
async fn copy(transport: &dyn Transport, mebibytes: usize, upload: bool) -> Result<Duration, Box<dyn Error>> {
    let script = if upload {
        "echo; exec cat >/dev/null".to_owned()
    } else {
        format!("echo; read line; exec head -c {} /dev/zero", mebibytes << 20)
    };
    let Channel { mut stdin, mut stdout, stderr: _stderr, mut control } =
        transport.open(&RemoteCommand::new("sh").args(["-c", &script])).await?;
    stdout.read_u8().await?;
    let start = Instant::now();
    let mut buffer = vec![0; 64 * 1024];
    if upload {
        for _ in 0..mebibytes * 16 {
            stdin.write_all(&buffer).await?;
        }
    } else {
        stdin.write_all(b"\n").await?;
        while stdout.read(&mut buffer).await? > 0 {}
    }
    stdin.shutdown().await?;
    control.wait().await?;
    Ok(start.elapsed())
}
