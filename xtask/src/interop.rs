//! `cargo xtask interop`: the candidate against real Nix of four ages, both directions, compared with upstream's own copies.

pub(crate) mod cases;
pub(crate) mod compare;
pub(crate) mod kit;
pub(crate) mod lab;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::namespace;
use crate::roots::{self, Release};
use crate::sshd::Keys;
use cases::{CASES, Case, Outcome, When};
use kit::Kit;
use lab::{Candidate, Lab};

/// Arguments of `cargo xtask interop`.
#[derive(clap::Args)]
#[allow(clippy::struct_excessive_bools)] // four independent flags
pub(crate) struct Options {
    /// Only this release of Debian, and so of Nix
    #[arg(long)]
    release: Vec<Release>,
    /// Only this case, or cases that start so
    #[arg(long)]
    case: Vec<String>,
    /// The nix-copy-closure to test [default: built with the profile `fast`]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// The candidate's transport, openssh or libssh2 [default: its own choice]
    #[arg(long, value_name = "NAME")]
    transport: Option<String>,
    /// Also the cases with a file of more than 4 GiB
    #[arg(long)]
    slow: bool,
    /// Which releases the slow cases run against (the format has no versions; one old and one new reader suffice)
    #[arg(long, default_values = ["bullseye", "forky"])]
    slow_release: Vec<Release>,
    /// Judge states and exit codes, not message texts: for upstream's own binary in the candidate's place
    #[arg(long)]
    lenient: bool,
    /// Releases tested at the same time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Keep every store and instance until Enter is pressed at the end
    #[arg(long)]
    keep: bool,
    /// Print the cases and stop
    #[arg(long)]
    list: bool,
}

/// A line of the table.
struct Line {
    case: &'static str,
    release: Release,
    took: Duration,
    result: Result<Outcome>,
}

impl Options {
    fn selects(&self, case: &Case, release: Release) -> bool {
        let named = self
            .case
            .iter()
            .any(|name| case.name == name || (case.name.starts_with(name.as_str()) && name.ends_with('-')));
        if !self.case.is_empty() {
            return named;
        }
        match case.when {
            When::Always => true,
            When::Slow => self.slow && self.slow_release.contains(&release),
            When::Named => false,
        }
    }
}

/// Before the namespaces: what needs no root.
pub(crate) fn prepare(options: &Options) -> Result<bool> {
    if options.list {
        for case in CASES {
            println!("{:22} {}{}", case.name, case.about, case.when.note());
        }
        return Ok(false);
    }
    for name in &options.case {
        ensure!(
            CASES.iter().any(
                |case| case.name == name || (name.ends_with('-') && case.name.starts_with(name.as_str()))
            ),
            "no case is called {name} (--list shows them)"
        );
    }
    if options.binary.is_none() && !namespace::is_inside() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = Command::new(cargo)
            .args(["build", "--locked", "--profile", "fast", "--package", "nix-copy-closure"])
            // Not all features: one of them builds an OpenSSL.
            .args(options.transport.as_ref().map(|_| "--features=ssh2"))
            .current_dir(namespace::workspace())
            .status()
            .context("cannot start cargo")?;
        ensure!(status.success(), "the candidate does not build");
    }
    Ok(true)
}

/// Runs the matrix.
pub(crate) fn run(options: &Options) -> Result<()> {
    let start = Instant::now();
    if options.keep {
        crate::instance::keep_everything();
    }
    let binary =
        options.binary.clone().unwrap_or_else(|| namespace::target_folder().join("fast/nix-copy-closure"));
    let binary = binary.canonicalize().with_context(|| format!("no candidate at {}", binary.display()))?;
    let candidate = Candidate { binary, lenient: options.lenient, transport: options.transport.clone() };
    let roots = roots::ensure_all(&options.release)?;
    println!("roots ready after {:.1} s", start.elapsed().as_secs_f64());
    if roots.is_empty() {
        return Ok(());
    }
    let keys = Keys::generate()?;
    let kit = Kit::gather(&candidate.binary)?;
    // The newest first: its lab is the slowest to set up, and two workers end together more often.
    let queue = Mutex::new(roots.iter().rev());
    let lines = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.jobs.max(1))
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    loop {
                        let next = queue.lock().map_err(|_| anyhow!("a worker panicked"))?.next();
                        let Some((release, root)) = next else { return Ok(()) };
                        let lab = Lab::open(*release, root, &keys, &candidate, &kit)
                            .with_context(|| format!("cannot set up the laboratory of {release}"))?;
                        for case in CASES.iter().filter(|case| options.selects(case, *release)) {
                            let line = run_case(case, &lab);
                            print!("{}", show(&line));
                            lines.lock().map_err(|_| anyhow!("a worker panicked"))?.push(line);
                        }
                    }
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("a worker panicked"))?)
    })?;
    let lines = lines.into_inner().map_err(|_| anyhow!("a worker panicked"))?;
    println!("\n{}", table(&lines, &roots.keys().copied().collect::<Vec<_>>()));
    let failed = lines.iter().filter(|line| !passed(line)).count();
    let skipped = lines.iter().filter(|line| is_skipped(line)).count();
    println!("interop took {:.0} s", start.elapsed().as_secs_f64());
    println!("{} passed, {failed} failed, {skipped} skipped", lines.len() - failed - skipped);
    if options.keep {
        println!("kept under {}; Enter ends this", namespace::run_folder().display());
        println!("(look from outside with: nsenter --target <pid of this> --mount --pid)");
        std::io::stdin().read_line(&mut String::new())?;
    }
    if failed > 0 {
        bail!("{failed} of {} checks against real Nix failed", lines.len());
    }
    Ok(())
}

fn run_case(case: &Case, lab: &Lab<'_>) -> Line {
    let start = Instant::now();
    let result = (case.run)(lab);
    Line { case: case.name, release: lab.release, took: start.elapsed(), result }
}

fn passed(line: &Line) -> bool {
    line.result.as_ref().is_ok_and(|outcome| outcome.wrong.is_empty())
}

fn is_skipped(line: &Line) -> bool {
    line.result.as_ref().is_ok_and(|outcome| outcome.skipped.is_some())
}

/// One case's end, with everything that differs.
fn show(line: &Line) -> String {
    let head = |word: &str, note: &str| {
        format!("{word:5} {:9} {:22} {:6.2} s  {note}\n", line.release, line.case, line.took.as_secs_f64())
    };
    match &line.result {
        Ok(Outcome { skipped: Some(why), .. }) => head("skip", why),
        Ok(outcome) if outcome.wrong.is_empty() => head("ok", &outcome.note),
        Ok(outcome) => {
            let mut text = head("FAIL", &outcome.note);
            for wrong in &outcome.wrong {
                let _ = writeln!(text, "      {}", wrong.replace('\n', "\n      "));
            }
            text
        }
        Err(error) => {
            format!("{}      {}\n", head("FAIL", ""), format!("{error:#}").replace('\n', "\n      "))
        }
    }
}

/// Cases down, versions across.
fn table(lines: &[Line], releases: &[Release]) -> String {
    let mut cells: BTreeMap<(&str, Release), &str> = BTreeMap::new();
    for line in lines {
        let cell = if is_skipped(line) {
            "skip"
        } else if passed(line) {
            "ok"
        } else {
            "FAIL"
        };
        cells.insert((line.case, line.release), cell);
    }
    let mut text = format!("{:22}", "");
    for release in releases {
        let _ = write!(text, " {:>8}", release.nix_version());
    }
    text.push('\n');
    for case in CASES {
        if releases.iter().all(|release| !cells.contains_key(&(case.name, *release))) {
            continue;
        }
        let _ = write!(text, "{:22}", case.name);
        for release in releases {
            let _ = write!(text, " {:>8}", cells.get(&(case.name, *release)).unwrap_or(&"-"));
        }
        text.push('\n');
    }
    text
}
