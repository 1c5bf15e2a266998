//! One line per path, as upstream prints them.

use std::fmt::Write as _;

use ncc_copy::Event;

use crate::{options::uri, state::State};

/// The line that upstream prints at this moment, if any.
pub(crate) fn line(state: &State, event: &Event<'_>) -> Option<String> {
    match event {
        // Also where it is none: scripts look for it.
        Event::Planned(plan) => Some(format!("copying {} paths...", plan.to_send.len())),
        Event::Started(info) => Some(format!("{}...", copying(state, &info.path))),
        _ => None,
    }
}

/// `copying path '/nix/store/...' to 'ssh://HOST'`.
pub(crate) fn copying(state: &State, path: &ncc_store::StorePath) -> String {
    let mut text = format!("copying path '{}'", state.store_dir.full(path));
    let ends = [("from", state.direction.source_host()), ("to", state.direction.destination_host())];
    for (way, host) in ends.iter().filter(|(_, host)| host.is_some()) {
        // Writing to a String cannot fail.
        let _ = write!(text, " {way} '{}'", uri(*host, ""));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Direction, testing::Story};

    fn said(direction: Direction) -> Vec<String> {
        let story = Story::new();
        let mut state = story.state(direction);
        let mut lines = Vec::new();
        story.tell(|event, now| {
            state.apply(&event, now);
            lines.extend(line(&state, &event));
        });
        lines
    }

    #[test]
    fn the_words_are_those_of_upstream() {
        assert_eq!(
            said(Direction::to("root@web1")),
            [
                "copying 3 paths...",
                "copying path '/nix/store/040h2081040h2081040h2081040h2081-library-1.0' to 'ssh://root@web1'...",
                "copying path '/nix/store/081040h2081040h2081040h2081040h2-program-2.1' to 'ssh://root@web1'...",
                "copying path '/nix/store/0c1h60q30c1h60q30c1h60q30c1h60q3-data' to 'ssh://root@web1'...",
            ]
        );
        assert!(said(Direction::from_host("h"))[3].ends_with("-data' from 'ssh://h'..."));
        let between = Direction::new(Some("h".to_owned()), Some("i".to_owned()));
        assert!(said(between)[3].ends_with("-data' from 'ssh://h' to 'ssh://i'..."));
    }

    #[test]
    fn nothing_missing_is_said_too() {
        let story = Story::new();
        let state = story.state(Direction::to("h"));
        let nothing = line(&state, &Event::Planned(&ncc_copy::Plan::default()));
        assert_eq!(nothing.as_deref(), Some("copying 0 paths..."));
    }
}
