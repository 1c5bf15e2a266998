//! Writing to a descriptor that somebody else may have made non-blocking.

use std::{
    io::{self, Write},
    os::fd::AsFd,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};

/// Writes everything, however the descriptor is set.
///
/// Whether a descriptor blocks belongs to the open file, which other processes share: a parent written for an event loop (node,
/// another ssh) leaves `O_NONBLOCK` on the pipes that it hands down. Changing it back would break the parent, so a full pipe is
/// waited for with poll(2) instead.
///
/// ```
/// use std::io::{Read as _, Write as _};
///
/// let (mut reader, writer) = std::io::pipe()?;
/// ncc_progress::Patient::new(&writer).write_all(b"all of it")?;
/// drop(writer);
/// let mut text = String::new();
/// reader.read_to_string(&mut text)?;
/// assert_eq!(text, "all of it");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Patient<F>(F);

impl<F: AsFd> Patient<F> {
    /// Writes to this descriptor, without a buffer.
    pub const fn new(descriptor: F) -> Self {
        Self(descriptor)
    }
}

impl<F: AsFd> Write for Patient<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(&self.0, bytes) {
                // Two names, which are the same number nearly everywhere.
                Err(error) if error == Errno::AGAIN || error == Errno::WOULDBLOCK => {
                    match poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None) {
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

    use super::*;

    #[test]
    fn a_pipe_that_does_not_block_gets_everything() {
        let (mut reader, writer) = io::pipe().unwrap();
        fcntl_setfl(&writer, fcntl_getfl(&writer).unwrap() | OFlags::NONBLOCK).unwrap();
        // More than any pipe holds.
        let text: Vec<u8> = (0..4_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        let expected = text.clone();
        let writing = std::thread::spawn(move || {
            Patient::new(&writer).write_all(&text).unwrap();
            // It is as it was found.
            assert!(fcntl_getfl(&writer).unwrap().contains(OFlags::NONBLOCK));
        });
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        writing.join().unwrap();
        assert!(read == expected);
    }
}
