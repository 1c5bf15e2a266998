//! Prints the closure of a path in the store of this machine's `nix-store --serve`, with sizes.
//!
//! `remote-closure /nix/store/...-hello`; another transport makes it another machine.
#![allow(clippy::print_stdout)]

use std::sync::Arc;

use ncc_remote_store::{RemoteStore, ServeOptions};
use ncc_store::{Outputs, Source as _, StoreDir};
use ncc_transport::LocalProcess;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("give a store path")?;
    let root = StoreDir::default().parse(&path)?;
    let store = RemoteStore::new(Arc::new(LocalProcess::new()), ServeOptions::default());
    for info in store.closure(&[root], Outputs::Exclude).await?.complete()? {
        println!("{:>12} {}", info.nar_size, info.path);
    }
    store.close().await;
    Ok(())
}
