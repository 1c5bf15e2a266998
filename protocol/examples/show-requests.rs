//! Prints the requests of a captured client, one per line: `show-requests protocol/testdata/serve/2.34.8/all-pipelined.request`.
#![allow(clippy::print_stdout)]

use ncc_protocol::{
    serve::{CLIENT_MAGIC, Request},
    wire::WireReader,
};
use ncc_store::StoreDir;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args_os().nth(1).ok_or("give a file with what a client wrote")?;
    let bytes = std::fs::read(file)?;
    let mut reader = WireReader::new(&bytes[..]);
    if reader.u64("the greeting").await? != CLIENT_MAGIC {
        return Err("this is not what a client of the serve protocol writes".into());
    }
    println!("client offers version {:#x}", reader.u64("the version").await?);
    while let Some(request) = Request::read(&mut reader, &StoreDir::default()).await? {
        println!("{request:?}");
        if let Request::AddToStoreNar { info } = request {
            let mut left = info.nar_size;
            while left > 0 {
                left -= reader.block("the NAR", left).await?.len() as u64;
            }
        }
    }
    Ok(())
}
