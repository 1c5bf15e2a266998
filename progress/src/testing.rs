//! A copy as it was recorded once, for the tests of everything that shows copies.

use std::{
    io::{self, Write},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ncc_copy::{Event, Plan};
use ncc_store::{NarHash, PathInfo, StoreDir, StorePath};

use crate::{
    Direction,
    state::{State, Total},
    terminal::Terminal,
};

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Two paths are there, three (34.5 MiB) are sent, in eight seconds.
pub(crate) struct Story {
    pub(crate) plan: Plan,
}

const MEBIBYTE: u64 = 1 << 20;

impl Story {
    pub(crate) fn new() -> Self {
        let info = |number: u8, name: &str, size: u64| {
            let path = StorePath::from_parts(&[number; 20], name).unwrap();
            Arc::new(PathInfo::new(path, NarHash::new([number; 32]), size))
        };
        let mut plan = Plan::default();
        plan.present = vec![info(8, "base", MEBIBYTE), info(9, "shell", MEBIBYTE)];
        plan.to_send = vec![
            info(1, "library-1.0", 20 * MEBIBYTE),
            info(2, "program-2.1", 10 * MEBIBYTE),
            info(3, "data", 9 * MEBIBYTE / 2),
        ];
        plan.roots = vec![plan.to_send[2].path.clone()];
        Self { plan }
    }

    pub(crate) fn state(&self, direction: Direction) -> State {
        assert!(!self.plan.to_send.is_empty());
        State::new(direction, StoreDir::default())
    }

    pub(crate) fn total(&self) -> Total {
        Total { paths: self.plan.to_send.len(), bytes: self.plan.bytes_to_send() }
    }

    /// The full text of a path of which the name is given.
    pub(crate) fn full(&self, name: &str) -> String {
        let info = self.plan.to_send.iter().find(|info| info.path.name() == name).unwrap();
        StoreDir::default().full(&info.path)
    }

    /// Tells all of it, each event with its time.
    pub(crate) fn tell(&self, mut hear: impl FnMut(Event<'_>, Duration)) {
        self.tell_until(seconds(u64::MAX), &mut hear);
    }

    /// Tells what happened up to a time.
    pub(crate) fn tell_until(&self, end: Duration, mut hear: impl FnMut(Event<'_>, Duration)) {
        let [library, program, data] = [0, 1, 2].map(|place| &self.plan.to_send[place]);
        let events = [
            (0, Event::ComputingClosure),
            (1, Event::Asking { paths: 5 }),
            (2, Event::Planned(&self.plan)),
            (2, Event::Started(library)),
            (3, Event::Sent { path: &library.path, bytes: 10 * MEBIBYTE }),
            (4, Event::Sent { path: &library.path, bytes: 10 * MEBIBYTE }),
            (4, Event::Finished(library)),
            (4, Event::Started(program)),
            (5, Event::Sent { path: &program.path, bytes: 5 * MEBIBYTE }),
            (6, Event::Registered(&library.path)),
            (6, Event::Sent { path: &program.path, bytes: 5 * MEBIBYTE }),
            (6, Event::Finished(program)),
            (6, Event::Started(data)),
            (7, Event::Sent { path: &data.path, bytes: data.nar_size }),
            (7, Event::Finished(data)),
            (7, Event::Registered(&program.path)),
            (8, Event::Registered(&data.path)),
            (8, Event::Checking),
        ];
        for (second, event) in events {
            if seconds(second) <= end {
                hear(event, seconds(second));
            }
        }
    }
}

/// A terminal in memory, to write to and to look at.
#[derive(Clone)]
pub(crate) struct Memory(Arc<Mutex<vt100::Parser>>, pub(crate) Arc<Modes>);

/// What is else to be known of it.
#[derive(Default)]
pub(crate) struct Modes {
    pub(crate) hides_input: AtomicBool,
    pub(crate) is_background: AtomicBool,
}

impl Memory {
    pub(crate) fn new(columns: u16) -> Self {
        Self(Arc::new(Mutex::new(vt100::Parser::new(12, columns, 0))), Arc::default())
    }

    /// The lines that it shows, without blanks at the end.
    pub(crate) fn contents(&self) -> String {
        let parser = self.0.lock().unwrap();
        let (_, columns) = parser.screen().size();
        let rows: Vec<_> = parser.screen().rows(0, columns).map(|row| row.trim_end().to_owned()).collect();
        rows.join("\n").trim_end().to_owned()
    }

    /// What somebody else writes there.
    pub(crate) fn type_in(&self, text: &str) {
        self.0.lock().unwrap().process(text.as_bytes());
    }
}

impl Terminal for Memory {
    fn width(&self) -> usize {
        usize::from(self.0.lock().unwrap().screen().size().1)
    }

    fn hides_input(&self) -> bool {
        self.1.hides_input.load(Ordering::SeqCst)
    }

    fn is_foreground(&self) -> bool {
        !self.1.is_background.load(Ordering::SeqCst)
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().process(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
