//! What was measured, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use anyhow::Result;
use serde_json::{Value, json};

use super::contender::Contender;
use crate::exec::Usage;
use crate::instance::Instance;

/// One run of one program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) seconds: f64,
    /// Memory is that of the program alone, processor time that of the program and its ssh.
    pub(super) usage: Usage,
}

/// All runs of a case in one direction.
#[derive(Clone, Debug)]
pub(super) struct Measurement {
    pub(super) case: &'static str,
    pub(super) direction: &'static str,
    /// That of the protocol.
    pub(super) scheme: &'static str,
    pub(super) paths: usize,
    pub(super) bytes: u64,
    /// In the order of their turns, so that those with the same index belong together.
    pub(super) samples: BTreeMap<Contender, Vec<Sample>>,
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

impl Measurement {
    fn of(&self, contender: Contender) -> &[Sample] {
        self.samples.get(&contender).map_or(&[], Vec::as_slice)
    }

    fn seconds(&self, contender: Contender) -> Option<f64> {
        median(self.of(contender).iter().map(|sample| sample.seconds))
    }

    fn processor(&self, contender: Contender) -> Option<f64> {
        median(self.of(contender).iter().map(|sample| sample.usage.processor.as_secs_f64()))
    }

    fn peak(&self, contender: Contender) -> Option<u64> {
        self.of(contender).iter().map(|sample| sample.usage.peak).max()
    }

    /// How many times as long as ours over OpenSSH: the median of the rounds, since within one the machine is the same.
    fn ratio(&self, contender: Contender) -> Option<f64> {
        let pairs = self.of(contender).iter().zip(self.of(Contender::Openssh));
        median(pairs.map(|(theirs, ours)| theirs.seconds / ours.seconds))
    }
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

/// A line for everybody who took part in a case, in Markdown, so that it can go into a document as it is.
pub(super) fn table(measurements: &[Measurement]) -> String {
    let mut text = format!(
        "| {:20} | {:6} | {:6} | {:>6} | {:>6} | {:>7} | {:10} | {:>8} | {:>5} | {:>12} | {:>10} |\n",
        "case", "", "", "paths", "MB", "login", "", "time", "ratio", "processor, s", "memory, MB"
    );
    text.push_str("|---|---|---|---:|---:|---:|---|---:|---:|---:|---:|\n");
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let with_digits = |value: Option<f64>| or_dash(value.map(|value| format!("{value:.2}")));
    for measurement in measurements {
        for &contender in measurement.samples.keys() {
            let memory = measurement.peak(contender).filter(|_| contender.registers());
            let _ = writeln!(
                text,
                "| {:20} | {:6} | {:6} | {:>6} | {:>6.1} | {:>5} s | {contender:10} | {:>6} s | {:>5} | {:>12} | {:>10} |",
                measurement.case,
                measurement.direction,
                measurement.scheme,
                measurement.paths,
                megabytes(measurement.bytes),
                with_digits(median(measurement.login.iter().copied())),
                with_digits(measurement.seconds(contender)),
                with_digits(measurement.ratio(contender)),
                with_digits(measurement.processor(contender)),
                or_dash(memory.map(|bytes| format!("{}", bytes.div_ceil(1 << 20)))),
            );
        }
    }
    text.push_str(
        "login: `ssh host true` over the same line. ratio: to ours over openssh, round by round. processor: of the client with its \
         ssh. memory: of the client without it.\n",
    );
    text
}

#[allow(clippy::cast_precision_loss)] // shown with one digit
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Everything, with each single run.
pub(super) fn json(machine: &str, measurements: &[Measurement]) -> Value {
    let runs = |samples: &[Sample]| -> Vec<Value> {
        samples.iter().map(|sample| json!({"seconds": sample.seconds, "processorSeconds": sample.usage.processor.as_secs_f64(), "peakBytes": sample.usage.peak})).collect()
    };
    let contender = |measurement: &Measurement, contender: Contender| {
        json!({
            "contender": contender.name(),
            "runs": runs(measurement.of(contender)),
            "ratio": measurement.ratio(contender),
        })
    };
    let cases: Vec<Value> = measurements
        .iter()
        .map(|measurement| {
            let of_all = measurement.samples.keys().map(|&who| contender(measurement, who));
            json!({
                "case": measurement.case,
                "direction": measurement.direction,
                "scheme": measurement.scheme,
                "paths": measurement.paths,
                "narBytes": measurement.bytes,
                "contenders": of_all.collect::<Vec<_>>(),
                "loginSeconds": measurement.login,
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
