//! What a copy has done, and what one would do, as one JSON object for programs. `docs/json.md` describes every field.

use ncc_copy::{CopyError, Plan, Report};
use ncc_store::{PathInfo, StoreDir};
use serde::Serialize;

use super::{Direction, state::State};
use crate::chain;

/// Goes up when a field changes its meaning or vanishes, not when one is added.
const VERSION: u8 = 1;

/// Bytes on the wire, both ways, before and after any compression that ssh does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Wire {
    /// Written to the host.
    pub sent: u64,
    /// Read from the host.
    pub received: u64,
}

/// Some paths with their size.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    count: usize,
    nar_bytes: u64,
    paths: Vec<Item>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    path: String,
    nar_size: u64,
}

#[derive(Debug, Serialize)]
struct Failed {
    path: String,
    /// `null` where the path refers to another one that failed.
    error: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Done {
    version: u8,
    action: &'static str,
    direction: &'static str,
    host: String,
    success: bool,
    error: Option<String>,
    seconds: f64,
    wire: Option<Wire>,
    roots: Vec<String>,
    present: Group,
    substituted: Group,
    sent: Group,
    unsent: Group,
    failed: Vec<Failed>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Planned {
    version: u8,
    action: &'static str,
    direction: &'static str,
    host: String,
    roots: Vec<String>,
    present: Group,
    substitutable: Group,
    unforeseen: bool,
    error: Option<String>,
    to_send: Group,
}

/// The report on a copy, however it ended.
pub(crate) fn report_json(state: &State, result: Result<&Report, &CopyError>, wire: Option<Wire>) -> String {
    let report = match result {
        Ok(report) => Some(report),
        Err(
            CopyError::Interrupted { report, .. }
            | CopyError::Failed { report }
            | CopyError::RootMissing { report, .. },
        ) => Some(&**report),
        Err(_) => None,
    };
    json(&done(state, result.err().map(|error| chain(error)), report, wire))
}

/// What ended before there was a plan.
pub fn nothing_json(direction: Direction, store_dir: &StoreDir, error: Option<String>) -> String {
    json(&done(&State::new(direction, store_dir.clone()), error, None, None))
}

fn done(state: &State, error: Option<String>, report: Option<&Report>, wire: Option<Wire>) -> Done {
    let (store_dir, plan) = (&state.store_dir, &state.plan);
    let failed = report.map_or(&[][..], |report| &report.failed);
    Done {
        version: VERSION,
        action: "copy",
        direction: state.direction.word(),
        host: state.direction.host().to_owned(),
        success: error.is_none(),
        error,
        // A report is read by people too: no more digits than mean something.
        seconds: report.map_or(0.0, |report| (report.elapsed.as_secs_f64() * 1000.0).round() / 1000.0),
        wire,
        roots: plan.roots.iter().map(|path| store_dir.full(path)).collect(),
        present: group(store_dir, plan.present.iter().map(|info| &**info)),
        substituted: group(store_dir, plan.substituted.iter().map(|info| &**info)),
        sent: group(
            store_dir,
            plan.to_send.iter().map(|info| &**info).filter(|info| !state.is_open(&info.path)),
        ),
        unsent: group(
            store_dir,
            plan.to_send.iter().map(|info| &**info).filter(|info| state.is_open(&info.path)),
        ),
        failed: failed
            .iter()
            .map(|failed| Failed {
                path: store_dir.full(&failed.path),
                error: failed.error.as_ref().map(|error| chain(error)),
            })
            .collect(),
    }
}

/// What a copy would do.
pub fn plan_json(plan: &Plan, direction: &Direction, store_dir: &StoreDir, error: Option<String>) -> String {
    json(&Planned {
        version: VERSION,
        action: "plan",
        direction: direction.word(),
        host: direction.host().to_owned(),
        roots: plan.roots.iter().map(|path| store_dir.full(path)).collect(),
        present: group(store_dir, plan.present.iter().map(|info| &**info)),
        substitutable: group(store_dir, plan.substituted.iter().map(|info| &**info)),
        unforeseen: plan.unforeseen,
        error,
        to_send: group(store_dir, plan.to_send.iter().map(|info| &**info)),
    })
}

fn group<'a>(store_dir: &StoreDir, infos: impl Iterator<Item = &'a PathInfo>) -> Group {
    let paths: Vec<_> =
        infos.map(|info| Item { path: store_dir.full(&info.path), nar_size: info.nar_size }).collect();
    Group {
        count: paths.len(),
        nar_bytes: paths.iter().fold(0, |sum: u64, item| sum.saturating_add(item.nar_size)),
        paths,
    }
}

fn json(value: &impl Serialize) -> String {
    // Strings, numbers and lists always have a form in JSON.
    serde_json::to_string_pretty(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ncc_copy::Event;
    use ncc_store::{Problem, Side, StoreError};
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{Story, seconds};

    #[test]
    fn a_report_says_what_became_of_every_path() {
        let story = Story::new();
        let mut state = story.state(Direction::To("web1".to_owned()));
        story.tell(|event, now| state.apply(&event, now));
        let mut report = Report::default();
        report.elapsed = Duration::from_micros(8_123_456);
        let wire = Some(Wire { sent: 36_200_000, received: 512 });
        let value: Value = serde_json::from_str(&report_json(&state, Ok(&report), wire)).unwrap();
        let item = |name: &str, size: u64| json!({ "path": story.full(name), "narSize": size });
        assert_eq!(
            value,
            json!({
                "version": 1,
                "action": "copy",
                "direction": "to",
                "host": "web1",
                "success": true,
                "error": null,
                "seconds": 8.123,
                "wire": { "sent": 36_200_000, "received": 512 },
                "roots": [story.full("data")],
                "present": {
                    "count": 2,
                    "narBytes": 2 << 20,
                    "paths": [
                        { "path": "/nix/store/1040h2081040h2081040h2081040h208-base", "narSize": 1 << 20 },
                        { "path": "/nix/store/144hj289144hj289144hj289144hj289-shell", "narSize": 1 << 20 },
                    ],
                },
                "substituted": { "count": 0, "narBytes": 0, "paths": [] },
                "sent": {
                    "count": 3,
                    "narBytes": 36_175_872,
                    "paths": [
                        item("library-1.0", 20 << 20), item("program-2.1", 10 << 20), item("data", 9 << 19),
                    ],
                },
                "unsent": { "count": 0, "narBytes": 0, "paths": [] },
                "failed": [],
            })
        );
    }

    #[test]
    fn what_failed_is_there_with_its_reason() {
        let story = Story::new();
        let mut state = story.state(Direction::From("web1".to_owned()));
        story.tell_until(seconds(6), |event, now| state.apply(&event, now));
        let path = story.plan.to_send[1].path.clone();
        let problem = Problem::SizeMismatch { path: path.clone(), expected: 10, actual: 9 };
        let error = StoreError::new(Side::Source, "web1", problem);
        let text = error.to_string();
        let mut report = Box::<Report>::default();
        report.sent = story.plan.to_send[..1].to_vec().into();
        report.unsent = story.plan.to_send[1..].to_vec().into();
        report.failed = vec![
            ncc_copy::Failed { path, error: Some(error) },
            ncc_copy::Failed { path: story.plan.to_send[2].path.clone(), error: None },
        ];
        let error = CopyError::Failed { report };
        let value: Value = serde_json::from_str(&report_json(&state, Err(&error), None)).unwrap();
        assert_eq!(value["success"], json!(false));
        assert_eq!(value["direction"], json!("from"));
        assert_eq!(value["error"], json!("2 of 3 paths could not be copied"));
        assert_eq!(value["wire"], json!(null));
        assert_eq!((&value["sent"]["count"], &value["unsent"]["count"]), (&json!(1), &json!(2)));
        assert_eq!(
            value["failed"],
            json!([
                { "path": story.full("program-2.1"), "error": text },
                { "path": story.full("data"), "error": null },
            ])
        );
    }

    #[test]
    fn what_failed_before_the_plan_has_empty_groups() {
        let story = Story::new();
        let mut state = story.state(Direction::To("web1".to_owned()));
        state.apply(&Event::ComputingClosure, seconds(0));
        let path = story.plan.roots[0].clone();
        let problem = Problem::SizeMismatch { path, expected: 10, actual: 9 };
        let error = StoreError::new(Side::Source, "here", problem);
        let value: Value =
            serde_json::from_str(&report_json(&state, Err(&CopyError::Store(error)), None)).unwrap();
        assert_eq!((&value["success"], &value["sent"]["count"]), (&json!(false), &json!(0)));
    }

    #[test]
    fn a_plan_keeps_what_would_be_substituted_apart() {
        let mut story = Story::new();
        let direction = Direction::To("web1".to_owned());
        let library = story.full("library-1.0");
        story.plan.substituted.push(story.plan.to_send.remove(0));
        let store_dir = StoreDir::default();
        let text = plan_json(&story.plan, &direction, &store_dir, None);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["action"], json!("plan"));
        assert_eq!(value["present"]["count"], json!(2));
        assert_eq!(value["substitutable"]["paths"][0]["path"], json!(library));
        assert_eq!((&value["toSend"]["count"], &value["toSend"]["narBytes"]), (&json!(2), &json!(29 << 19)));
        assert_eq!(value["roots"], json!([store_dir.full(&story.plan.roots[0])]));
    }
}
