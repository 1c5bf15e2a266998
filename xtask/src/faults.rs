//! `cargo xtask faults`: real copies that are broken in every way, at random places.
//!
//! Each run copies a closure between two real stores through a real sshd, and something goes wrong on the way. Then nothing of the
//! copy may be left running, both stores have to be sound in the eyes of real Nix, and the same command once more has to finish
//! it. Where a fault strikes is counted in bytes on the line, not in seconds, so that a slow machine sees the same faults.

mod check;
mod course;
mod garble;
mod limits;
mod line;
mod races;
mod report;
mod workshop;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

use crate::exec;
use crate::namespace;
use crate::roots::Release;
use course::{Course, Kind};
use report::{Report, Tale};
use workshop::Workshop;

/// Arguments of `cargo xtask faults`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many copies are broken
    #[arg(long, value_name = "N", default_value_t = 40)]
    runs: u64,
    /// What decides which fault comes where [default: another one each time, which is printed]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Only this run of a seed, to repeat it
    #[arg(long, value_name = "N")]
    run: Option<u64>,
    /// Only this kind of fault
    #[arg(long, value_name = "KIND")]
    kind: Vec<Kind>,
    /// Whose Nix is at both ends [default: this machine's own]
    #[arg(long)]
    release: Option<Release>,
    /// The nix-copy-closure to test [default: built with the profile `fast`]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Also write the report to a file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Before the namespaces: what needs no root.
pub(crate) fn prepare(options: &Options) -> Result<bool> {
    if options.binary.is_none() && !namespace::is_inside() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = Command::new(cargo)
            .args(["build", "--locked", "--profile", "fast"])
            .args(["--package", "nix-copy-closure", "--features", "ssh2"])
            .current_dir(namespace::workspace())
            .status()
            .context("cannot start cargo")?;
        ensure!(status.success(), "the program does not build");
    }
    Ok(true)
}

/// Breaks copies and reports.
pub(crate) fn run(options: &Options) -> Result<()> {
    let start = Instant::now();
    let seed = options.seed.unwrap_or_else(|| {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| u64::from(since.subsec_nanos()))
    });
    let Some(mut workshop) =
        Workshop::open(options.release.unwrap_or(Release::Here), options.binary.as_ref())?
    else {
        return Ok(());
    };
    println!("{}\nseed {seed}\n", workshop.describe()?);
    let kinds = if options.kind.is_empty() { Kind::ALL.to_vec() } else { options.kind.clone() };
    let numbers = options.run.map_or(0..options.runs, |run| run..run.saturating_add(1));
    let mut report = Report::default();
    for number in numbers {
        let course = Course::draw(seed, number, &kinds);
        let began = Instant::now();
        let tale = one(&workshop, &course).unwrap_or_else(|error| Tale::failed(&error));
        println!("{number:4} {course}: {}  ({:.1} s)", tale.describe(), began.elapsed().as_secs_f64());
        if !tale.wrong.is_empty() {
            println!("     repeat it with --seed {seed} --run {number}{}", repeat(options));
            // Whatever it left is not to be the next one's.
            workshop.renew()?;
        }
        report.add(course.kind, &tale);
    }
    let text = report.table();
    println!("\n{text}\nfaults took {:.0} s, seed {seed}", start.elapsed().as_secs_f64());
    if let Some(file) = &options.report {
        exec::write_file(file, text)?;
    }
    let failed = report.failed();
    if failed > 0 {
        bail!("{failed} of {} runs went wrong (seed {seed})", report.runs());
    }
    // A single run may come too late, and so may all of a kind that is asked for.
    let demanded = options.run.is_none() && options.kind.is_empty() && report.runs() >= Kind::ALL.len();
    ensure!(
        !demanded || report.enough_in_time(),
        "too many faults came too late to show anything (seed {seed})"
    );
    Ok(())
}

/// What has to be said again beside the seed and the number.
fn repeat(options: &Options) -> String {
    let kinds = options.kind.iter().map(|kind| format!(" --kind {kind}"));
    let release = options.release.map(|release| format!(" --release {release}"));
    kinds.chain(release).collect()
}

fn one(workshop: &Workshop, course: &Course) -> Result<Tale> {
    match course.kind {
        Kind::Full | Kind::ReadOnly | Kind::Files => limits::run(workshop, course),
        Kind::Garble => garble::run(workshop, course),
        Kind::Race => races::run(workshop, course),
        _ => line::run(workshop, course),
    }
}
