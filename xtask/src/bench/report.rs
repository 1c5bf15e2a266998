//! What was measured, for people and for programs.

use std::fmt::Write as _;
use std::fs;

use anyhow::Result;
use serde_json::{Value, json};

use crate::instance::Instance;

/// One run of one program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) seconds: f64,
    /// Largest resident size of the program, without its ssh, in bytes.
    pub(super) peak: u64,
}

/// All runs of a case in one direction.
#[derive(Clone, Debug)]
pub(super) struct Measurement {
    pub(super) case: &'static str,
    pub(super) direction: &'static str,
    pub(super) paths: usize,
    pub(super) bytes: u64,
    pub(super) ours: Vec<Sample>,
    /// Empty where upstream would take minutes.
    pub(super) upstream: Vec<Sample>,
    /// `ssh host true` over the same line, in seconds.
    pub(super) login: Vec<f64>,
}

/// The middle one, or the mean of the two in the middle.
fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get((values.len() - 1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

fn seconds(samples: &[Sample]) -> Option<f64> {
    median(samples.iter().map(|sample| sample.seconds))
}

fn peak(samples: &[Sample]) -> Option<u64> {
    samples.iter().map(|sample| sample.peak).max()
}

fn ratio(measurement: &Measurement) -> Option<f64> {
    Some(seconds(&measurement.upstream)? / seconds(&measurement.ours)?)
}

/// Processors, load, versions: in words, since numbers without them say little.
pub(super) fn machine(instance: &Instance) -> Result<String> {
    let information = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = information.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, name)| name.trim());
    let usable = std::thread::available_parallelism().map_or(1, usize::from);
    let ssh = instance.try_run("ssh", &["-V"])?.stderr;
    Ok(format!(
        "{usable} cores of {model}, stores on a tmpfs, load average {}\nupstream: {}; {}",
        load(),
        instance.run("nix-store", &["--version"])?,
        ssh.trim()
    ))
}

/// Of the last minute.
pub(super) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}

/// A line per case and direction, in Markdown, so that it can go into a document as it is.
pub(super) fn table(measurements: &[Measurement]) -> String {
    let mut text = format!(
        "| {:18} | {:6} | {:>5} | {:>6} | {:>7} | {:>8} | {:>10} | {:>6} | {:>16} |\n",
        "case", "", "paths", "MB", "login", "ours", "upstream", "ratio", "memory, MB"
    );
    text.push_str("|---|---|---:|---:|---:|---:|---:|---:|---:|\n");
    for measurement in measurements {
        let time = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2} s"));
        let memory = |samples: &[Sample]| {
            peak(samples).map_or_else(|| "-".to_owned(), |bytes| format!("{}", bytes.div_ceil(1 << 20)))
        };
        let ratio = ratio(measurement).map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        let _ = writeln!(
            text,
            "| {:18} | {:6} | {:>5} | {:>6.1} | {:>7} | {:>8} | {:>10} | {ratio:>6} | {:>16} |",
            measurement.case,
            measurement.direction,
            measurement.paths,
            megabytes(measurement.bytes),
            time(median(measurement.login.iter().copied())),
            time(seconds(&measurement.ours)),
            time(seconds(&measurement.upstream)),
            format!("{} / {}", memory(&measurement.ours), memory(&measurement.upstream)),
        );
    }
    text.push_str("login: `ssh host true` over the same line. ratio: upstream's time by ours. memory: ours / upstream.\n");
    text
}

#[allow(clippy::cast_precision_loss)] // shown with one digit
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Everything, with each single run.
pub(super) fn json(machine: &str, measurements: &[Measurement]) -> Value {
    let runs = |samples: &[Sample]| -> Vec<Value> {
        samples.iter().map(|sample| json!({"seconds": sample.seconds, "peakBytes": sample.peak})).collect()
    };
    let cases: Vec<Value> = measurements
        .iter()
        .map(|measurement| {
            json!({
                "case": measurement.case,
                "direction": measurement.direction,
                "paths": measurement.paths,
                "narBytes": measurement.bytes,
                "ours": runs(&measurement.ours),
                "upstream": runs(&measurement.upstream),
                "loginSeconds": measurement.login,
                "ratio": ratio(measurement),
            })
        })
        .collect();
    json!({"machine": machine, "cases": cases})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0]), Some(2.5));
    }
}
