//! A whole copy with an observer, between two stores in memory: what a program that embeds the engine writes.
#![allow(clippy::print_stdout)]

use std::sync::Arc;

use ncc_copy::{Event, Observer, Request, copy};
use ncc_store::test_util::MemoryStore;

struct Printer;

impl Observer for Printer {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Planned(plan) => {
                println!("to send: {} paths, {} bytes", plan.to_send.len(), plan.bytes_to_send());
            }
            Event::Finished(info) => println!("sent       {}", info.path),
            Event::Registered(path) => println!("registered {path}"),
            _ => {}
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), ncc_copy::CopyError> {
    let here = MemoryStore::new("this machine");
    let chain = here.add_chain(5);
    let there = MemoryStore::new("the other machine");
    let observer: Arc<dyn Observer> = Arc::new(Printer);
    let report = copy(&here, &there, &Request::new(chain.last().cloned()), &observer).await?;
    println!("{} paths sent, {} were present", report.sent.count(), report.present.count());
    Ok(())
}
