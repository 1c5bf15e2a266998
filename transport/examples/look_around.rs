//! Looks for programs on this machine the way it is done on a host, and shows what a script reports.
//!
//! ```text
//! cargo run -p ncc-transport --example look_around -- nix-store zstd
//! ```

#![allow(clippy::print_stdout, reason = "an example is a program")]

use std::error::Error;

use ncc_transport::{Fact, Findings, LocalProcess, Program, RemoteScript, Transport};
use tokio::io::AsyncReadExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let script = names.iter().fold(RemoteScript::new(), |script, name| {
        let places = [name.clone(), format!("~/.nix-profile/bin/{name}"), format!("/usr/local/bin/{name}")];
        script.find(Program::new(name).places(places).must_run())
    });
    let script =
        script.measure(Fact::System).measure(Fact::Processors).measure(Fact::FreeSpace("/".into())).report();
    println!("{}\n", script.command());

    let mut channel = LocalProcess::new().open(&script.command()).await?;
    let mut output = Vec::new();
    channel.stdout.read_to_end(&mut output).await?;
    let findings = Findings::parse(&output).ok_or("the script did not report")?;
    for name in &names {
        let (file, version) = (findings.program(name), findings.version(name));
        println!("{name}: {} ({})", file.unwrap_or("not found"), version.unwrap_or("no version"));
    }
    println!("{:?}, {:?} processors", findings.system(), findings.processors());
    println!("{:?} bytes free", findings.free_bytes());
    Ok(())
}
