//! Lines on their way to standard error: bounded, so that a terminal that does not read neither stops the program nor
//! fills its memory.

use std::collections::VecDeque;

/// Bytes of lines that may wait. About 20,000 lines of Nix's internal-json: a reader that falls that far behind has stopped.
const ROOM: usize = 4 << 20;

/// Errors may wait beyond that, since they are what a run is remembered by.
const ROOM_FOR_ERRORS: usize = 4 * ROOM;

/// Lines that are not written yet.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    lines: VecDeque<String>,
    bytes: usize,
    /// Lines that found no room since the last [`take`](Self::take).
    left_out: usize,
}

impl Queue {
    /// Adds a line, or counts it where there is no room.
    pub(crate) fn push(&mut self, line: String, is_error: bool) {
        let room = if is_error { ROOM_FOR_ERRORS } else { ROOM };
        if self.bytes.saturating_add(line.len()) > room {
            self.left_out = self.left_out.saturating_add(1);
            return;
        }
        self.bytes += line.len();
        self.lines.push_back(line);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.left_out == 0
    }

    /// Everything that waits, and how many lines behind it were left out.
    pub(crate) fn take(&mut self) -> (Vec<String>, usize) {
        self.bytes = 0;
        (self.lines.drain(..).collect(), std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_counted_and_errors_find_room_longer() {
        let mut queue = Queue::default();
        let line = "x".repeat(1 << 20);
        for _ in 0..6 {
            queue.push(line.clone(), false);
        }
        queue.push("error".to_owned(), true);
        let (lines, left_out) = queue.take();
        assert_eq!((lines.len(), left_out), (5, 2));
        assert_eq!(lines[4], "error");
        assert!(queue.is_empty());
        queue.push(line, false);
        assert_eq!(queue.take().1, 0);
    }
}
