//! Standard input and output of a server, which whoever started it may have made non-blocking.
//!
//! Tokio's own would fail there (`EAGAIN`), and a descriptor that it polls itself has to be non-blocking, which would change
//! it for every process that shares it. So a thread waits for each.

use std::{
    io::{self, Read as _, Write as _},
    thread::Builder,
};

use ncc_progress::Patient;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    runtime::Handle,
    sync::oneshot,
};

/// Bytes between a thread and the server, in each direction.
const BUFFER: usize = 256 << 10;

/// Bytes that are read or written at once.
const BLOCK: usize = 64 << 10;

/// Standard input: its end, and an error too, is the end of the stream.
pub(crate) fn standard_input() -> io::Result<DuplexStream> {
    let (mut inner, outer) = duplex(BUFFER);
    let runtime = Handle::current();
    Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut stdin = Patient::new(io::stdin());
        let mut block = vec![0; BLOCK];
        while let Ok(count @ 1..) = stdin.read(&mut block) {
            let bytes = block.get(..count).unwrap_or_default();
            if runtime.block_on(inner.write_all(bytes)).is_err() {
                // The server has ended.
                return;
            }
        }
    })?;
    Ok(outer)
}

/// Standard output, and what tells that all of it has been written once the stream is dropped.
///
/// When it cannot be written any more, the next write to the stream fails as to a broken pipe.
pub(crate) fn standard_output() -> io::Result<(DuplexStream, oneshot::Receiver<()>)> {
    let (mut inner, outer) = duplex(BUFFER);
    let (done, written) = oneshot::channel();
    let runtime = Handle::current();
    Builder::new().name("stdout".to_owned()).spawn(move || {
        let mut stdout = Patient::new(io::stdout());
        let mut block = vec![0; BLOCK];
        while let Ok(count @ 1..) = runtime.block_on(inner.read(&mut block)) {
            if stdout.write_all(block.get(..count).unwrap_or_default()).is_err() {
                break;
            }
        }
        drop(inner);
        let _ = done.send(());
    })?;
    Ok((outer, written))
}
