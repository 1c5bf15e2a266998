//! What a person sees of a copy while it happens.

use std::path::PathBuf;

use ncc_copy::{Event, Observer};
use ncc_store::StoreDir;

/// Which way a copy goes, and how the other side is called.
pub(crate) enum Direction {
    To(String),
    From(String),
}

/// One line per path on stderr, as upstream prints them.
pub(crate) struct Lines {
    pub(crate) store_dir: StoreDir,
    pub(crate) direction: Direction,
}

impl Observer for Lines {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Planned(plan) if !plan.to_send.is_empty() => {
                eprintln!("copying {} paths...", plan.to_send.len());
            }
            Event::Started(info) => {
                let path = PathBuf::from(self.store_dir.full(&info.path));
                let side = match &self.direction {
                    Direction::To(host) => format!("to 'ssh://{host}'"),
                    Direction::From(host) => format!("from 'ssh://{host}'"),
                };
                eprintln!("copying path '{}' {side}...", path.display());
            }
            _ => {}
        }
    }
}
