//! What happened, run by run and in sum.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::course::Kind;

/// What happened in one run.
#[derive(Debug, Default)]
pub(super) struct Tale {
    /// Whether the fault came while there was something to break.
    pub(super) in_time: bool,
    /// How the copy ended.
    pub(super) ends: Vec<String>,
    /// Bytes that had been carried before and were carried again.
    pub(super) twice: u64,
    /// More that a person may want to know.
    pub(super) note: String,
    /// Empty is good.
    pub(super) wrong: Vec<String>,
}

impl Tale {
    /// A run that could not be made.
    pub(super) fn failed(error: &anyhow::Error) -> Self {
        Self { wrong: vec![format!("{error:#}")], ..Self::default() }
    }

    /// In one line; in more if something was wrong.
    pub(super) fn describe(&self) -> String {
        let late = if self.in_time { "" } else { ", too late" };
        let mut text = format!("{}{late}", self.ends.join(", "));
        if self.twice > 0 {
            let _ = write!(text, ", {} KiB twice", self.twice.div_ceil(1 << 10));
        }
        if !self.note.is_empty() {
            let _ = write!(text, ", {}", self.note);
        }
        if !self.wrong.is_empty() {
            text.push_str(", WRONG");
        }
        for wrong in &self.wrong {
            let _ = write!(text, "\n     {}", wrong.replace('\n', "\n     "));
        }
        text
    }
}

#[derive(Default)]
struct Row {
    runs: usize,
    in_time: usize,
    wrong: usize,
    ends: BTreeMap<String, usize>,
    twice: u64,
    twice_at_most: u64,
}

impl Row {
    fn add(&mut self, tale: &Tale) {
        self.runs += 1;
        self.in_time += usize::from(tale.in_time);
        self.wrong += usize::from(!tale.wrong.is_empty());
        for end in &tale.ends {
            *self.ends.entry(end.clone()).or_default() += 1;
        }
        self.twice += tale.twice;
        self.twice_at_most = self.twice_at_most.max(tale.twice);
    }
}

/// All runs.
#[derive(Default)]
pub(super) struct Report {
    kinds: BTreeMap<Kind, Row>,
    sum: Row,
}

impl Report {
    pub(super) fn add(&mut self, kind: Kind, tale: &Tale) {
        self.kinds.entry(kind).or_default().add(tale);
        self.sum.add(tale);
    }

    pub(super) fn runs(&self) -> usize {
        self.sum.runs
    }

    pub(super) fn failed(&self) -> usize {
        self.sum.wrong
    }

    /// Whether at least two of three faults came while there was something to break.
    pub(super) fn enough_in_time(&self) -> bool {
        3 * self.sum.in_time >= 2 * self.sum.runs
    }

    /// For people, and for the docs.
    pub(super) fn table(&self) -> String {
        let mut text =
            "| fault | runs | in time | sent twice, mean and most | wrong | the broken copies ended with |\n\
                        |---|---:|---:|---:|---:|---|\n"
                .to_owned();
        let rows = self.kinds.iter().map(|(kind, row)| (kind.to_string(), row));
        for (name, row) in rows.chain([("all".to_owned(), &self.sum)]) {
            let ends = row.ends.iter().map(|(end, count)| format!("{end}: {count}")).collect::<Vec<_>>();
            let mean = row.twice / row.runs.max(1) as u64;
            let _ = writeln!(
                text,
                "| {name} | {} | {} | {}, {} KiB | {} | {} |",
                row.runs,
                row.in_time,
                mean.div_ceil(1 << 10),
                row.twice_at_most.div_ceil(1 << 10),
                row.wrong,
                ends.join(", ")
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts() {
        let mut report = Report::default();
        let ends = vec!["exit 6".to_owned()];
        let tale = Tale { in_time: true, ends, twice: 3 << 10, ..Tale::default() };
        report.add(Kind::Cut, &tale);
        report.add(Kind::Cut, &Tale { ends: vec!["exit 0".to_owned()], ..Tale::default() });
        let text = report.table();
        assert!(text.contains("| cut | 2 | 1 | 2, 3 KiB | 0 | exit 0: 1, exit 6: 1 |"), "{text}");
        assert!(text.contains("| all | 2 | 1 |"), "{text}");
        assert!(!report.enough_in_time() && report.failed() == 0 && report.runs() == 2);
        report.add(Kind::Slow, &tale);
        assert!(report.enough_in_time());
        report.add(Kind::Slow, &Tale::failed(&anyhow::anyhow!("no")));
        assert_eq!(report.failed(), 1);
    }
}
