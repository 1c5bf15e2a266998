//! `--log-format internal-json`: lines that begin with `@nix ` and hold one JSON object, as programs such as
//! nix-output-monitor read them.
//!
//! The numbers and the order of fields are those of `src/libutil/logging.hh` and what Nix 2.34.8 wrote when it copied
//! with `nix copy` and `nix-copy-closure`. One thing differs because copying does: Nix waits for each path before it
//! begins the next, so it has one activity of a path at a time. Here several are open, each until the other side has
//! registered its path.

use std::{collections::HashMap, time::Duration};

use ncc_copy::Event;
use ncc_store::StorePath;
use serde_json::{Value, json};

use super::{
    Importance, human, lines,
    state::{Phase, State},
};

/// Types of activities.
const UNKNOWN: u64 = 0;
const COPY_PATH: u64 = 100;
const COPY_PATHS: u64 = 103;

/// Types of results.
const PROGRESS: u64 = 105;
const SET_EXPECTED: u64 = 106;

/// Levels: 3 is shown without `-v`, 4 with one.
const INFO: u8 = 3;
const TALKATIVE: u8 = 4;

/// The least time between two reports on one path. Nix writes one per 64 KiB, which is thousands of lines a second on
/// a fast link.
const STEP: Duration = Duration::from_millis(50);

/// What Nix calls the store of this machine.
const LOCAL: &str = "local";

/// Turns events into lines.
#[derive(Debug)]
pub(crate) struct InternalJson {
    next_id: u64,
    /// What goes on before it is known what to send.
    phase: Option<u64>,
    copy_paths: Option<u64>,
    /// Activities of paths, and when each was last reported on.
    paths: HashMap<StorePath, (u64, Duration)>,
}

impl InternalJson {
    /// As Nix: the process in the upper half, so that lines of several processes may be mixed.
    pub(crate) fn new(process: u32) -> Self {
        Self { next_id: u64::from(process) << 32, phase: None, copy_paths: None, paths: HashMap::new() }
    }

    fn id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// The lines for an event that `state` has taken in already.
    pub(crate) fn event(&mut self, state: &State, event: &Event<'_>, now: Duration) -> Vec<String> {
        let mut lines = Vec::new();
        match event {
            Event::ComputingClosure
            | Event::Asking { .. }
            | Event::Substituting { .. }
            | Event::Foreseeing { .. }
            | Event::Checking => {
                self.end_phase(&mut lines);
                let id = self.id();
                self.phase = Some(id);
                lines.push(start(id, TALKATIVE, UNKNOWN, &phase_text(state), None));
            }
            Event::Planned(plan) => {
                self.end_phase(&mut lines);
                if !plan.to_send.is_empty() {
                    let id = self.id();
                    self.copy_paths = Some(id);
                    let text = format!("copying {} paths", plan.to_send.len());
                    lines.push(start(id, INFO, COPY_PATHS, &text, None));
                    lines.push(result(id, SET_EXPECTED, &[COPY_PATH, state.total.bytes]));
                    self.overall(state, &mut lines);
                }
            }
            Event::Started(info) => {
                let id = self.id();
                self.paths.insert(info.path.clone(), (id, now));
                let (from, to) = (state.direction.source_uri(LOCAL), state.direction.destination_uri(LOCAL));
                let fields = json!([state.store_dir.full(&info.path), from, to]);
                let text = lines::copying(state, &info.path);
                lines.push(start(id, INFO, COPY_PATH, &text, Some(fields)));
                self.overall(state, &mut lines);
            }
            Event::Sent { path, .. } => {
                if let Some((id, last)) = self.paths.get_mut(*path)
                    && now.saturating_sub(*last) >= STEP
                    && let Some((sent, size)) = state.part_sent(path)
                {
                    *last = now;
                    lines.push(result(*id, PROGRESS, &[sent, size, 0, 0]));
                }
            }
            Event::Finished(info) => {
                if let Some((id, _)) = self.paths.get(&info.path) {
                    lines.push(result(*id, PROGRESS, &[info.nar_size, info.nar_size, 0, 0]));
                }
            }
            Event::Registered(path) | Event::Failed(path, _) => {
                if let Some((id, _)) = self.paths.remove(*path) {
                    lines.push(stop(id));
                }
                self.overall(state, &mut lines);
            }
            Event::StartingAgain => {
                lines.extend(self.stop_paths());
                self.overall(state, &mut lines);
            }
            _ => {}
        }
        lines
    }

    fn stop_paths(&mut self) -> impl Iterator<Item = String> + use<> {
        let mut open: Vec<u64> = self.paths.drain().map(|(_, (id, _))| id).collect();
        open.sort_unstable();
        open.into_iter().map(stop)
    }

    /// Done, expected, running, failed: of whole paths.
    fn overall(&self, state: &State, lines: &mut Vec<String>) {
        if let Some(id) = self.copy_paths {
            let numbers = [state.registered.paths, state.total.paths, state.running(), state.failed];
            lines.push(result(
                id,
                PROGRESS,
                &numbers.map(|number| u64::try_from(number).unwrap_or(u64::MAX)),
            ));
        }
    }

    fn end_phase(&mut self, lines: &mut Vec<String>) {
        lines.extend(self.phase.take().map(stop));
    }

    /// Stops whatever is open.
    pub(crate) fn finish(&mut self) -> Vec<String> {
        let others = [self.copy_paths.take(), self.phase.take()].into_iter().flatten().map(stop);
        self.stop_paths().chain(others).collect()
    }
}

/// A line of text as such a message.
pub(crate) fn message(importance: Importance, text: &str) -> String {
    let level = match importance {
        Importance::Error => 0,
        Importance::Warning => 1,
        Importance::Notice => 2,
        Importance::Info => INFO,
        Importance::Debug => 6,
    };
    line(&json!({ "action": "msg", "level": level, "msg": text }))
}

fn phase_text(state: &State) -> String {
    match state.phase {
        Phase::Asking(paths) => {
            format!(
                "querying info about {} on '{}'",
                human::paths(paths),
                state.direction.destination_uri(LOCAL)
            )
        }
        Phase::Foreseeing(paths) => {
            let destination = state.direction.destination_uri(LOCAL);
            format!("querying substitutes of {} for '{destination}'", human::paths(paths))
        }
        Phase::Substituting(paths) => {
            format!("substituting {} on '{}'", human::paths(paths), state.direction.destination_uri(LOCAL))
        }
        Phase::Checking => format!("checking the result on '{}'", state.direction.destination_uri(LOCAL)),
        _ => format!("computing the closure on '{}'", state.direction.source_uri(LOCAL)),
    }
}

fn start(id: u64, level: u8, kind: u64, text: &str, fields: Option<Value>) -> String {
    let mut object =
        json!({ "action": "start", "id": id, "level": level, "parent": 0, "text": text, "type": kind });
    if let (Some(fields), Some(object)) = (fields, object.as_object_mut()) {
        object.insert("fields".to_owned(), fields);
    }
    line(&object)
}

fn stop(id: u64) -> String {
    line(&json!({ "action": "stop", "id": id }))
}

fn result(id: u64, kind: u64, fields: &[u64]) -> String {
    line(&json!({ "action": "result", "fields": fields, "id": id, "type": kind }))
}

fn line(value: &Value) -> String {
    format!("@nix {value}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Direction,
        testing::{Story, seconds},
    };

    const LIBRARY: &str = "/nix/store/040h2081040h2081040h2081040h2081-library-1.0";

    fn said(direction: Direction) -> Vec<String> {
        let story = Story::new();
        let mut state = story.state(direction);
        let mut json = InternalJson::new(0);
        let mut lines = Vec::new();
        story.tell(|event, now| {
            state.apply(&event, now);
            lines.extend(json.event(&state, &event, now));
        });
        lines.extend(json.finish());
        lines
    }

    #[test]
    fn what_is_sent_again_is_stopped_first() {
        let story = Story::new();
        let mut state = story.state(Direction::to("localhost"));
        let mut json = InternalJson::new(0);
        let mut lines = Vec::new();
        let info = &story.plan.to_send[0];
        for event in
            [Event::Planned(&story.plan), Event::Started(info), Event::StartingAgain, Event::Started(info)]
        {
            state.apply(&event, seconds(1));
            lines.extend(json.event(&state, &event, seconds(1)));
        }
        lines.extend(json.finish());
        let count = |action: &str| lines.iter().filter(|line| line.contains(action)).count();
        assert_eq!((count(r#""action":"start""#), count(r#""action":"stop""#)), (3, 3), "{lines:#?}");
    }

    #[test]
    fn the_lines_are_those_of_nix() {
        let lines = said(Direction::to("localhost"));
        let start = format!(
            r#"@nix {{"action":"start","fields":["{LIBRARY}","local","ssh://localhost"],"id":3,"level":3,"parent":0,"text":"copying path '{LIBRARY}' to 'ssh://localhost'","type":100}}"#
        );
        let expected = [
            r#"@nix {"action":"start","id":0,"level":4,"parent":0,"text":"computing the closure on 'local'","type":0}"#,
            r#"@nix {"action":"stop","id":0}"#,
            r#"@nix {"action":"start","id":1,"level":4,"parent":0,"text":"querying info about 5 paths on 'ssh://localhost'","type":0}"#,
            r#"@nix {"action":"stop","id":1}"#,
            r#"@nix {"action":"start","id":2,"level":3,"parent":0,"text":"copying 3 paths","type":103}"#,
            r#"@nix {"action":"result","fields":[100,36175872],"id":2,"type":106}"#,
            r#"@nix {"action":"result","fields":[0,3,0,0],"id":2,"type":105}"#,
            &start,
            r#"@nix {"action":"result","fields":[0,3,1,0],"id":2,"type":105}"#,
            r#"@nix {"action":"result","fields":[10485760,20971520,0,0],"id":3,"type":105}"#,
            r#"@nix {"action":"result","fields":[20971520,20971520,0,0],"id":3,"type":105}"#,
            r#"@nix {"action":"result","fields":[20971520,20971520,0,0],"id":3,"type":105}"#,
        ];
        assert_eq!(lines[..expected.len()], expected);
        // The second has begun before the first is registered.
        let registered = lines.iter().position(|line| line == r#"@nix {"action":"stop","id":3}"#).unwrap();
        assert!(lines[..registered].iter().any(|line| line.contains("program-2.1")));
        assert_eq!(lines[registered + 1], r#"@nix {"action":"result","fields":[1,3,1,0],"id":2,"type":105}"#);
    }

    #[test]
    fn from_a_host_the_fields_are_the_other_way_round() {
        let lines = said(Direction::from_host("h"));
        let fields = format!(r#""fields":["{LIBRARY}","ssh://h","local"]"#);
        assert!(lines.iter().any(|line| line.contains(&fields)), "{lines:#?}");
        let lines = said(Direction::new(Some("h".to_owned()), Some("i".to_owned())));
        let fields = format!(r#""fields":["{LIBRARY}","ssh://h","ssh://i"]"#);
        assert!(lines.iter().any(|line| line.contains(&fields)), "{lines:#?}");
    }

    #[test]
    fn whatever_begins_ends() {
        let mut open = std::collections::BTreeSet::new();
        for line in said(Direction::to("h")) {
            let value: Value = serde_json::from_str(line.strip_prefix("@nix ").unwrap()).unwrap();
            let id = value["id"].as_u64().unwrap();
            match value["action"].as_str().unwrap() {
                "start" => assert!(open.insert(id)),
                "stop" => assert!(open.remove(&id)),
                _ => assert!(open.contains(&id)),
            }
        }
        assert_eq!(open.len(), 0);
    }

    #[test]
    fn what_was_cut_off_is_stopped_too() {
        let story = Story::new();
        let mut state = story.state(Direction::to("h"));
        let mut json = InternalJson::new(1);
        for event in [Event::Planned(&story.plan), Event::Started(&story.plan.to_send[0])] {
            state.apply(&event, seconds(0));
            json.event(&state, &event, seconds(0));
        }
        let last = [r#"@nix {"action":"stop","id":4294967297}"#, r#"@nix {"action":"stop","id":4294967296}"#];
        assert_eq!(json.finish(), last);
        assert_eq!(json.finish(), [""; 0]);
    }

    #[test]
    fn a_flood_of_blocks_is_thinned() {
        let story = Story::new();
        let mut state = story.state(Direction::to("h"));
        let mut json = InternalJson::new(0);
        let info = &story.plan.to_send[0];
        let mut lines = 0;
        for event in [Event::Planned(&story.plan), Event::Started(info)] {
            state.apply(&event, seconds(0));
            json.event(&state, &event, seconds(0));
        }
        for millisecond in 0..1000 {
            let now = Duration::from_millis(millisecond);
            let event = Event::Sent { path: &info.path, bytes: 1 };
            state.apply(&event, now);
            lines += json.event(&state, &event, now).len();
        }
        assert_eq!(lines, 19);
    }

    #[test]
    fn messages_have_the_levels_of_nix() {
        assert_eq!(
            message(Importance::Error, "a \"b\""),
            r#"@nix {"action":"msg","level":0,"msg":"a \"b\""}"#
        );
        assert_eq!(message(Importance::Warning, ""), r#"@nix {"action":"msg","level":1,"msg":""}"#);
    }
}
