//! What a copy has done, and what one would do, as one JSON object for programs. `docs/json.md` describes every field.

use std::sync::Arc;

use ncc_copy::{Plan, Report};
use ncc_store::{PathInfo, StoreDir, StorePath};
use serde::Serialize;

use crate::{Direction, chain};

/// Goes up when a field changes its meaning or vanishes, not when one is added.
const VERSION: u8 = 1;

/// Bytes on the wire, both ways and with all hosts, without what SSH adds and saves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Wire {
    /// Written to hosts.
    pub sent: u64,
    /// Read from hosts.
    pub received: u64,
    /// What paths were compressed with, if any were.
    pub compression: Option<&'static str>,
    /// Over how many channels paths went at once.
    pub channels: usize,
}

/// From where to where.
#[derive(Debug, Serialize)]
struct Way<'a> {
    direction: &'static str,
    host: &'a str,
    /// `null` is this machine, here and for the next.
    from: Option<&'a str>,
    to: Option<&'a str>,
}

impl<'a> Way<'a> {
    fn of(direction: &'a Direction) -> Self {
        let (from, to) = (direction.source_host(), direction.destination_host());
        let (direction, host) = match (from, to) {
            (None, Some(host)) => ("to", host),
            (Some(host), None) => ("from", host),
            _ => ("between", direction.destination()),
        };
        Self { direction, host, from, to }
    }
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
struct Done<'a> {
    version: u8,
    action: &'static str,
    #[serde(flatten)]
    way: Way<'a>,
    success: bool,
    error: Option<String>,
    seconds: f64,
    reconnects: u32,
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
struct Planned<'a> {
    version: u8,
    action: &'static str,
    #[serde(flatten)]
    way: Way<'a>,
    roots: Vec<String>,
    present: Group,
    substitutable: Group,
    unforeseen: bool,
    error: Option<String>,
    to_send: Group,
    failed: Vec<Failed>,
}

/// What a report is about.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Which way.
    pub direction: Direction,
    /// The store directory that paths are written in.
    pub store_dir: StoreDir,
}

/// The report on a copy, however it ended: with an error, or before it began.
pub fn copy_json(
    subject: &Subject,
    roots: &[StorePath],
    report: Option<&Report>,
    wire: Option<Wire>,
    error: Option<String>,
) -> String {
    let Subject { direction, store_dir } = subject;
    let nothing = Report::default();
    let report = report.unwrap_or(&nothing);
    json(&Done {
        version: VERSION,
        action: "copy",
        way: Way::of(direction),
        success: error.is_none(),
        error,
        // A report is read by people too: no more digits than mean something.
        seconds: (report.elapsed.as_secs_f64() * 1000.0).round() / 1000.0,
        reconnects: report.reconnects,
        wire,
        roots: full(store_dir, roots),
        present: group(store_dir, &report.present),
        substituted: group(store_dir, &report.substituted),
        sent: group(store_dir, &report.sent),
        unsent: group(store_dir, &report.unsent),
        failed: failed(store_dir, &report.failed),
    })
}

/// What a copy would do; `None` where that could not be found out.
pub fn plan_json(subject: &Subject, plan: Option<&Plan>, error: Option<String>) -> String {
    let Subject { direction, store_dir } = subject;
    let nothing = Plan::default();
    let plan = plan.unwrap_or(&nothing);
    json(&Planned {
        version: VERSION,
        action: "plan",
        way: Way::of(direction),
        roots: full(store_dir, &plan.roots),
        present: group(store_dir, &plan.present),
        substitutable: group(store_dir, &plan.substituted),
        unforeseen: plan.unforeseen,
        error,
        to_send: group(store_dir, &plan.to_send),
        failed: failed(store_dir, &plan.failed),
    })
}

fn full(store_dir: &StoreDir, paths: &[StorePath]) -> Vec<String> {
    paths.iter().map(|path| store_dir.full(path)).collect()
}

fn failed(store_dir: &StoreDir, failed: &[ncc_copy::Failed]) -> Vec<Failed> {
    let of = |failed: &ncc_copy::Failed| Failed {
        path: store_dir.full(&failed.path),
        error: failed.error.as_ref().map(|error| chain(error)),
    };
    failed.iter().map(of).collect()
}

fn group<'a>(store_dir: &StoreDir, infos: impl IntoIterator<Item = &'a Arc<PathInfo>>) -> Group {
    let item = |info: &Arc<PathInfo>| Item { path: store_dir.full(&info.path), nar_size: info.nar_size };
    let paths: Vec<_> = infos.into_iter().map(item).collect();
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

    use ncc_store::{Problem, Side, StoreError};
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::Story;

    fn subject(direction: Direction) -> Subject {
        Subject { direction, store_dir: StoreDir::default() }
    }

    fn to() -> Subject {
        subject(Direction::to("web1"))
    }

    #[test]
    fn a_report_says_what_became_of_every_path() {
        let story = Story::new();
        let mut report = Report::default();
        report.present = story.plan.present.clone().into();
        report.sent = story.plan.to_send.clone().into();
        report.elapsed = Duration::from_micros(8_123_456);
        let wire = Some(Wire { sent: 36_200_000, received: 512, compression: Some("zstd"), channels: 7 });
        let text = copy_json(&to(), &story.plan.roots, Some(&report), wire, None);
        let value: Value = serde_json::from_str(&text).unwrap();
        let item = |name: &str, size: u64| json!({ "path": story.full(name), "narSize": size });
        assert_eq!(
            value,
            json!({
                "version": 1,
                "action": "copy",
                "direction": "to",
                "host": "web1",
                "from": null,
                "to": "web1",
                "success": true,
                "error": null,
                "seconds": 8.123,
                "reconnects": 0,
                "wire": { "sent": 36_200_000, "received": 512, "compression": "zstd", "channels": 7 },
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
        let [library, program, data] = [0, 1, 2].map(|place| Arc::clone(&story.plan.to_send[place]));
        let problem = Problem::SizeMismatch { path: program.path.clone(), expected: 10, actual: 9 };
        let error = StoreError::new(Side::Source, "web1", problem);
        let text = error.to_string();
        let mut report = Report::default();
        report.sent = vec![library].into();
        report.unsent = vec![Arc::clone(&program), Arc::clone(&data)].into();
        report.failed = vec![
            ncc_copy::Failed { path: program.path.clone(), error: Some(error) },
            ncc_copy::Failed { path: data.path.clone(), error: None },
        ];
        let subject = subject(Direction::from_host("web1"));
        let error = Some("2 of 3 paths could not be copied".to_owned());
        let value: Value =
            serde_json::from_str(&copy_json(&subject, &[], Some(&report), None, error)).unwrap();
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
    fn a_copy_between_two_hosts_names_both() {
        let subject = subject(Direction::new(Some("web1".to_owned()), Some("web2".to_owned())));
        for text in [copy_json(&subject, &[], None, None, None), plan_json(&subject, None, None)] {
            let value: Value = serde_json::from_str(&text).unwrap();
            assert_eq!((&value["direction"], &value["host"]), (&json!("between"), &json!("web2")));
            assert_eq!((&value["from"], &value["to"]), (&json!("web1"), &json!("web2")));
        }
    }

    #[test]
    fn what_failed_before_the_plan_has_empty_groups() {
        let error = || Some("it went wrong".to_owned());
        let value: Value = serde_json::from_str(&copy_json(&to(), &[], None, None, error())).unwrap();
        assert_eq!((&value["success"], &value["sent"]["count"]), (&json!(false), &json!(0)));
        let value: Value = serde_json::from_str(&plan_json(&to(), None, error())).unwrap();
        assert_eq!((&value["error"], &value["toSend"]["count"]), (&json!("it went wrong"), &json!(0)));
    }

    #[test]
    fn a_plan_keeps_what_would_be_substituted_apart() {
        let mut story = Story::new();
        let library = story.full("library-1.0");
        story.plan.substituted.push(story.plan.to_send.remove(0));
        let text = plan_json(&to(), Some(&story.plan), None);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["action"], json!("plan"));
        assert_eq!(value["present"]["count"], json!(2));
        assert_eq!(value["substitutable"]["paths"][0]["path"], json!(library));
        assert_eq!((&value["toSend"]["count"], &value["toSend"]["narBytes"]), (&json!(2), &json!(29 << 19)));
        assert_eq!(value["roots"], json!([story.full("data")]));
    }
}
