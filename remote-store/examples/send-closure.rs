//! Sends the closure of a path from this machine's store to a host, and says what became of it.
//!
//! ```text
//! cargo run -p ncc-remote-store --example send-closure -- HOST /nix/store/...-hello
//! ```

#![allow(clippy::print_stdout, reason = "an example is a program")]

use std::{error::Error, sync::Arc};

use ncc_copy::{NoObserver, Request, copy};
use ncc_local_store::{Access, Defaults, LocalStore, LocalStoreConfig};
use ncc_remote_store::{RemoteStore, ServeOptions};
use ncc_transport_ssh::{OpenSsh, OpenSshOptions};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(host), Some(path)) = (words.next(), words.next()) else {
        return Err("usage: send-closure [USER@]HOST[:PORT] PATH".into());
    };
    let here = LocalStore::open(LocalStoreConfig::system(&Defaults::default()), Access::ReadOnly)?;
    let root = here.store_dir().parse(&path)?;

    // Nothing is connected yet: the first question does that.
    let ssh = OpenSsh::new(host.parse()?, OpenSshOptions::default());
    let there = RemoteStore::new(Arc::new(ssh), ServeOptions::default());

    let mut request = Request::new([root]);
    // What the host can fetch by itself is not sent.
    request.substitute = true;
    let report = copy(&here, &there, &request, &NoObserver.shared()).await?;
    println!("{} paths sent, {} bytes", report.sent.count(), report.sent.bytes());

    // The server there ends, and lets go of its temporary roots.
    there.close().await;
    Ok(())
}
