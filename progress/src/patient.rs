//! Reading and writing a descriptor that somebody else may have made non-blocking.

use std::{
    io::{self, Read, Write},
    os::fd::AsFd,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};

/// Reads and writes as if the descriptor were blocking, however it is set.
///
/// Whether a descriptor blocks belongs to the open file, which other processes share: a parent written for an event loop (node,
/// another ssh) leaves `O_NONBLOCK` on the pipes that it hands down. Changing it back would break the parent, so a full or
/// empty pipe is waited for with poll(2) instead.
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
    /// Reads and writes this descriptor, without a buffer.
    pub const fn new(descriptor: F) -> Self {
        Self(descriptor)
    }
}

impl<F: AsFd> Patient<F> {
    /// Does something again and again until the descriptor is ready for it.
    fn wait(
        &self,
        ready: PollFlags,
        mut attempt: impl FnMut(&F) -> Result<usize, Errno>,
    ) -> io::Result<usize> {
        loop {
            match attempt(&self.0) {
                // Two names, which are the same number nearly everywhere.
                Err(error) if error == Errno::AGAIN || error == Errno::WOULDBLOCK => {
                    match poll(&mut [PollFd::new(&self.0, ready)], None) {
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }
}

impl<F: AsFd> Read for Patient<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait(PollFlags::IN, |descriptor| rustix::io::read(descriptor, &mut *buffer))
    }
}

impl<F: AsFd> Write for Patient<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wait(PollFlags::OUT, |descriptor| rustix::io::write(descriptor, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn an_empty_pipe_that_does_not_block_is_waited_for() {
        let (reader, mut writer) = io::pipe().unwrap();
        fcntl_setfl(&reader, fcntl_getfl(&reader).unwrap() | OFlags::NONBLOCK).unwrap();
        let mut plain = reader.try_clone().unwrap();
        assert_eq!(plain.read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            Patient::new(&reader).read_to_string(&mut text).map(|_| text)
        });
        for part in ["late ", "but whole"] {
            std::thread::yield_now();
            writer.write_all(part.as_bytes()).unwrap();
        }
        drop(writer);
        assert_eq!(reading.join().unwrap().unwrap(), "late but whole");
    }
}
