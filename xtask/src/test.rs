//! Everything that decides whether a change lands: `cargo xtask test`.
//!
//! It installs what it needs where it may, says loudly what it leaves out where it may not, and with
//! `NCC_REQUIRE_REAL=1` leaving out is failing.

use std::{
    collections::BTreeSet,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{book, dependencies, exec, layers, manifests, metadata::Metadata, plot};

/// Programs that tests use, with the Debian packages that have them.
/// A path instead of a name is a file that must be there.
const PROGRAMS: [(&str, &str); 20] = [
    ("ssh", "openssh-client"),
    ("ssh-agent", "openssh-client"),
    ("/usr/sbin/sshd", "openssh-server"),
    ("nix-store", "nix-bin"),
    ("sqlite3", "sqlite3"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    // Makes a user who logs in with a password.
    ("useradd", "passwd"),
    // Looks at the locks of a database from another process.
    ("python3", "python3"),
    // Sees in which order a copy writes.
    ("strace", "strace"),
    // What a user may have as login shell, and a system as `sh`.
    ("dash", "dash"),
    ("bash", "bash"),
    ("zsh", "zsh"),
    ("ksh", "ksh"),
    ("mksh", "mksh"),
    ("fish", "fish"),
    ("tcsh", "tcsh"),
    ("busybox", "busybox"),
    // What libssh2 is built with.
    ("pkg-config", "pkg-config"),
    ("/usr/include/openssl/ssl.h", "libssl-dev"),
];

/// A slow line to the archive is no reason to do without.
const INSTALL_LIMIT: Duration = Duration::from_secs(15 * 60);

/// How long each fuzz target runs: enough to show that it works, not to find much.
const FUZZ_SECONDS: u32 = 15;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Leave out what takes minutes: interop with four Nix versions over each transport, faults, and fuzzing
    #[arg(long)]
    quick: bool,
}

/// What a run has to say at its end.
#[derive(Default)]
struct Summary {
    done: Vec<(&'static str, Duration)>,
    left_out: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let mut summary = Summary::default();

    let missing = install();
    if !missing.is_empty() {
        let text = format!("tests with {}: not installed, and not installable here", missing.join(", "));
        ensure!(!require_real(), "NCC_REQUIRE_REAL=1, but {text}");
        summary.left_out.push(text);
    }

    summary.step("formatting", || cargo(&["fmt", "--all", "--check"], &[]))?;
    summary.step("lints", || {
        cargo(
            &["clippy", "--workspace", "--all-targets", "--all-features", "--locked", "--", "-D", "warnings"],
            &[],
        )
    })?;
    summary.step("lints without OpenSSH and with the system's SQLite", || {
        let alone = ["--package", "nix-copy-closure", "--no-default-features", "--features", "ssh2"];
        let rest = ["--all-targets", "--locked", "--", "-D", "warnings"];
        cargo(&[&["clippy"], &alone[..], &rest].concat(), &[])
    })?;
    summary.step("layers, manifests, dependencies, book", house)?;
    summary.step("manual page, completions", || cargo(&["xtask", "man", "--check"], &[]))?;
    summary.step("tests", tests)?;
    summary.step("examples in the docs", || {
        cargo(&["test", "--workspace", "--all-features", "--locked", "--doc", "--quiet"], &[])
    })?;
    summary.step("docs", || {
        cargo(
            &["doc", "--workspace", "--all-features", "--no-deps", "--locked"],
            &[("RUSTDOCFLAGS", "-D warnings")],
        )
    })?;
    summary.step("the program, optimised", || {
        cargo(&["build", "--profile", "fast", "--locked", "--package", "nix-copy-closure"], &[])
    })?;
    summary.step("demo", || cargo(&["xtask", "demo"], &[]))?;
    summary.step("packages of the crates", packages)?;
    if options.quick {
        summary.left_out.push(
            "fuzzing, a static build, faults, and interop with four versions of Nix (--quick)".to_owned(),
        );
    } else {
        summary.step("fuzz targets", || fuzz(&Fuzz { seconds: FUZZ_SECONDS }))?;
        if cfg!(target_os = "linux") {
            if cfg!(target_env = "gnu") {
                summary.step("a static build on an old Debian", static_build)?;
            }
            summary.step("interop", || cargo(&["xtask", "interop"], &[]))?;
            summary.step("interop over libssh2", || {
                cargo(&["xtask", "interop", "--transport", "libssh2"], &[])
            })?;
            // The same faults each time: a gate that draws others shows others, and fails for what the change is not about. Those
            // whose end is a matter of time are left to whoever has it.
            summary.step("faults", || {
                let kinds = ["cut", "kill-client", "kill-server", "kill-daemon"].map(|kind| ["--kind", kind]);
                let common = ["xtask", "faults", "--seed", "1", "--runs", "12"];
                cargo(&[&common[..], &kinds.concat()].concat(), &[])
            })?;
        } else {
            summary.left_out.push("a static build, interop, faults: they need Linux".to_owned());
        }
    }
    summary.print();
    Ok(())
}

/// How the crates hang together, and what they are built upon.
pub(crate) fn house() -> Result<()> {
    let metadata = Metadata::read()?;
    layers::check(&metadata)?;
    manifests::check(&metadata)?;
    book::check(Path::new("."))?;
    plot::check(Path::new("."))?;
    dependencies::check(&metadata)
}

impl Summary {
    fn step(&mut self, name: &'static str, step: impl FnOnce() -> Result<()>) -> Result<()> {
        eprintln!("\n=== {name}");
        let start = Instant::now();
        step().with_context(|| format!("'{name}' failed"))?;
        self.done.push((name, start.elapsed()));
        Ok(())
    }

    fn print(&self) {
        eprintln!("\n=== all passed");
        for (name, took) in &self.done {
            eprintln!("{:>7.1} s  {name}", took.as_secs_f32());
        }
        for text in &self.left_out {
            eprintln!("LEFT OUT: {text}");
        }
    }
}

/// Whether leaving out anything real is a failure.
pub(crate) fn require_real() -> bool {
    std::env::var_os("NCC_REQUIRE_REAL").is_some_and(|value| value == "1")
}

fn is_there(program: &str) -> bool {
    if program.starts_with('/') { Path::new(program).is_file() } else { exec::available(program) }
}

/// Installs what is missing with the system's package manager, where that is allowed; gives what is missing still.
fn install() -> Vec<&'static str> {
    let missing = || PROGRAMS.iter().filter(|(program, _)| !is_there(program));
    let packages: BTreeSet<&str> = missing().map(|(_, package)| *package).collect();
    if !packages.is_empty() && rustix::process::geteuid().is_root() && exec::available("apt-get") {
        eprintln!("installing {}", packages.iter().copied().collect::<Vec<_>>().join(", "));
        let apt = |arguments: &[&str]| {
            let mut apt = Command::new("apt-get");
            apt.args(["-qq", "-o", "Dpkg::Use-Pty=0"])
                .args(arguments)
                .env("DEBIAN_FRONTEND", "noninteractive");
            exec::capture_within(&mut apt, INSTALL_LIMIT, Vec::new()).and_then(exec::Finished::success)
        };
        let install =
            |packages: &[&str]| apt(&[&["install", "--yes", "--no-install-recommends"], packages].concat());
        let all: Vec<&str> = packages.iter().copied().collect();
        if let Err(error) = apt(&["update"]).and_then(|_| install(&all)) {
            eprintln!("that did not work, so each by itself: {error:#}");
            // One package that a release does not have keeps none of the others away.
            for package in all {
                if let Err(error) = install(&[package]) {
                    eprintln!("{error:#}");
                }
            }
        }
    }
    missing().map(|(program, _)| *program).collect()
}

/// The tests of all crates: with nextest where it is there, which runs them side by side.
fn tests() -> Result<()> {
    let common = ["--workspace", "--all-features", "--locked", "--no-fail-fast"];
    let nextest =
        Command::new("cargo").args(["nextest", "--version"]).output().is_ok_and(|o| o.status.success());
    if nextest {
        cargo(&[&["nextest", "run"], &common[..]].concat(), &[])
    } else {
        cargo(&[&["test", "--all-targets", "--quiet"], &common[..]].concat(), &[])
    }
}

/// Arguments of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct Fuzz {
    /// How long each target runs
    #[arg(long, default_value_t = FUZZ_SECONDS)]
    seconds: u32,
}

/// Builds every fuzz target and runs it for a while.
pub(crate) fn fuzz(options: &Fuzz) -> Result<()> {
    if !exec::available("cargo-fuzz") {
        cargo(&["install", "cargo-fuzz", "--locked", "--quiet"], &[])?;
    }
    // cargo-fuzz wants unstable flags of the compiler; RUSTC_BOOTSTRAP lends them to the stable one.
    let unstable = [("RUSTC_BOOTSTRAP", "1")];
    let mut list = Command::new("cargo");
    list.args(["fuzz", "list"]);
    let targets = exec::capture(&mut list)?.success()?.text();
    ensure!(targets.lines().next().is_some(), "there are no fuzz targets");
    for target in targets.lines() {
        let seconds = format!("-max_total_time={}", options.seconds);
        let seeds = format!("fuzz/seeds/{target}");
        let corpus = format!("fuzz/corpus/{target}");
        exec::make_folder(Path::new(&corpus))?;
        let mut arguments = vec!["fuzz", "run", target, &corpus];
        if Path::new(&seeds).is_dir() {
            arguments.push(&seeds);
        }
        arguments.extend(["--", &seconds, "-verbosity=0"]);
        cargo(&arguments, &unstable)?;
    }
    Ok(())
}

/// Packs every crate as the registry would get it. They are built elsewhere often enough.
fn packages() -> Result<()> {
    cargo(&["package", "--workspace", "--exclude", "xtask", "--no-verify", "--allow-dirty", "--quiet"], &[])
}

/// Links everything into the program, and lets it copy on the oldest and the newest Debian there is.
fn static_build() -> Result<()> {
    let mut rustc = Command::new("rustc");
    let version = exec::capture(rustc.arg("-vV"))?.success()?.text();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    // With a target of its own, the flags are not for build scripts and macros.
    cargo(
        &["build", "--profile", "fast", "--locked", "--package", "nix-copy-closure", "--target", host],
        &[("RUSTFLAGS", "-C target-feature=+crt-static")],
    )?;
    let program = Path::new("target").join(host).join("fast/nix-copy-closure");
    let program = program.to_str().context("a path that is not UTF-8")?;
    let cases = ["--case", "inside-to", "--case", "inside-from"];
    let releases = ["--release", "bullseye", "--release", "forky"];
    cargo(&[&["xtask", "interop", "--binary", program][..], &cases, &releases].concat(), &[])
}

/// Runs cargo with its output shown.
fn cargo(arguments: &[&str], variables: &[(&str, &str)]) -> Result<()> {
    let status = Command::new("cargo")
        .args(arguments)
        .envs(variables.iter().copied())
        .status()
        .context("cargo cannot be started")?;
    if !status.success() {
        bail!("cargo {} ended with {status}", arguments.join(" "));
    }
    Ok(())
}
