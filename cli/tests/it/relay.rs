//! A line that is cut: a TCP relay on loopback.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// What becomes of the connections behind those that are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// They last.
    Through,
    /// Nobody listens any more.
    Gone,
}

/// Listens on a free port, and leads each client to `port`; cuts one connection after each of `cuts` bytes, of both directions
/// together. The port it listens on.
pub(crate) fn relay(port: u16, cuts: &[u64], then: Then) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let own = listener.local_addr().expect("an address").port();
    let cuts = cuts.to_vec();
    std::thread::spawn(move || {
        let mut budgets = cuts.into_iter();
        loop {
            let budget = match (budgets.next(), then) {
                (Some(budget), _) => budget,
                (None, Then::Through) => u64::MAX,
                (None, Then::Gone) => return,
            };
            let Ok((client, _)) = listener.accept() else { return };
            let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the server listens");
            let left = Arc::new(AtomicU64::new(budget));
            let clone = |stream: &TcpStream| stream.try_clone().expect("a clone");
            for (from, to) in [(clone(&client), clone(&server)), (server, client)] {
                let left = Arc::clone(&left);
                std::thread::spawn(move || pass(from, to, &left));
            }
        }
    });
    own
}

fn pass(mut from: TcpStream, mut to: TcpStream, left: &AtomicU64) {
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let wanted = count as u64;
        let had =
            left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| Some(left.saturating_sub(wanted)));
        let passes = had.unwrap_or_default().min(wanted);
        let part = buffer.get(..usize::try_from(passes).expect("not more than the buffer"));
        if to.write_all(part.unwrap_or_default()).is_err() || passes < wanted {
            break;
        }
    }
    // A cut and an end look the same from the other side.
    for stream in [from, to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}
