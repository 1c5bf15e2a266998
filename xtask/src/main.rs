//! What developers and CI run: `cargo xtask <command>`.
//!
//! One module per command; each has an `Options` (clap) and a `run`.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a tool for people: printing is its job

mod book;
mod demo;
mod dependencies;
mod exec;
mod layers;
mod manifests;
mod manual;
mod metadata;
mod plot;
mod test;

// These need Linux: namespaces, and Debian in them.
#[cfg(target_os = "linux")]
mod apt;
#[cfg(target_os = "linux")]
mod bench;
#[cfg(target_os = "linux")]
mod daemon;
#[cfg(target_os = "linux")]
mod darwin;
#[cfg(target_os = "linux")]
mod database;
#[cfg(target_os = "linux")]
mod dist;
#[cfg(target_os = "linux")]
mod faults;
#[cfg(target_os = "linux")]
mod fixtures;
#[cfg(target_os = "linux")]
mod golden;
#[cfg(target_os = "linux")]
mod instance;
#[cfg(target_os = "linux")]
mod interop;
#[cfg(target_os = "linux")]
mod namespace;
#[cfg(target_os = "linux")]
mod noise;
#[cfg(target_os = "linux")]
mod processes;
#[cfg(target_os = "linux")]
mod relay;
#[cfg(target_os = "linux")]
mod roots;
#[cfg(target_os = "linux")]
mod sshd;
#[cfg(target_os = "linux")]
mod toolchain;
#[cfg(target_os = "linux")]
mod user;
#[cfg(target_os = "linux")]
mod wire;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "What developers and CI run")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Copy a real closure between two stores on this machine, with nothing but what is built here
    Demo(demo::Options),
    /// Make the manual page and the completions anew
    Man(manual::Options),
    /// Everything that decides whether a change lands
    Test(test::Options),
    /// Of that, the fuzz targets, for as long as you like
    Fuzz(test::Fuzz),
    /// Of that, the part that takes a second: the layer rule, the manifests, the book, and what every dependency has to be
    House,
    /// Check that everything that ships, and this tool, compiles for macOS (types only)
    #[cfg(target_os = "linux")]
    Darwin,
    /// Build the roots that hold real Nix of four ages, and show that each answers over ssh
    #[cfg(target_os = "linux")]
    Roots(roots::Options),
    /// Test a nix-copy-closure against real Nix of four ages
    #[cfg(target_os = "linux")]
    Interop(interop::Options),
    /// Break copies in every way at random places: nothing may be lost, and the next run has to finish them
    #[cfg(target_os = "linux")]
    Faults(faults::Options),
    /// Measure a nix-copy-closure against upstream's, over lines with a delay and without
    #[cfg(target_os = "linux")]
    Bench(bench::Options),
    /// Capture sessions of real Nix, on the serve and the daemon protocol, into protocol/testdata
    #[cfg(target_os = "linux")]
    Golden(golden::Options),
    /// Make the archives of a release: static programs for Linux, with all that belongs to them
    #[cfg(target_os = "linux")]
    Dist(dist::Options),
    /// Used by `dist` itself
    #[command(hide = true)]
    #[cfg(target_os = "linux")]
    Cross(dist::Cross),
    /// Used by the laboratory itself
    #[command(hide = true)]
    #[cfg(target_os = "linux")]
    Enter(instance::Enter),
}

fn main() -> ExitCode {
    // The laboratory's commands run inside namespaces of their own; others (demo, test) need not.
    let result = match Arguments::parse().command {
        Task::Demo(options) => demo::run(&options),
        Task::Man(options) => manual::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Fuzz(options) => test::fuzz(&options),
        Task::House => test::house(),
        #[cfg(target_os = "linux")]
        Task::Roots(options) => namespace::enter().and_then(|()| roots::run(&options)),
        #[cfg(target_os = "linux")]
        Task::Interop(options) => interop(&options),
        #[cfg(target_os = "linux")]
        Task::Faults(options) => in_laboratory(faults::prepare(&options), || faults::run(&options)),
        #[cfg(target_os = "linux")]
        Task::Bench(options) => in_laboratory(bench::prepare(&options), || bench::run(&options)),
        #[cfg(target_os = "linux")]
        Task::Darwin => in_laboratory(darwin::prepare(), darwin::run),
        #[cfg(target_os = "linux")]
        Task::Dist(options) => dist::run(&options),
        #[cfg(target_os = "linux")]
        Task::Cross(options) => in_laboratory(Ok(true), || dist::cross(&options)),
        #[cfg(target_os = "linux")]
        Task::Enter(options) => instance::enter(&options),
        #[cfg(target_os = "linux")]
        Task::Golden(options) => namespace::enter().and_then(|()| golden::run(&options)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Starts this very command anew with SIGINT as a terminal has it. Whoever starts a job in the background of a script ignores it,
/// all below inherit that, and a program that is to be interrupted then rightly goes on.
#[cfg(target_os = "linux")]
fn heed_interrupts() -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt as _;

    const AGAIN: &str = "NCC_XTASK_HEEDS_INTERRUPTS";
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    let is_ignored = ignored & (1 << (rustix::process::Signal::INT.as_raw() - 1)) != 0;
    if !is_ignored || std::env::var_os(AGAIN).is_some() {
        return Ok(());
    }
    let error = std::process::Command::new("env")
        .arg("--default-signal=INT")
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(AGAIN, "1")
        .exec();
    Err(anyhow::Error::new(error).context("cannot start 'env'"))
}

#[cfg(target_os = "linux")]
fn interop(options: &interop::Options) -> anyhow::Result<()> {
    heed_interrupts()?;
    in_laboratory(interop::prepare(options), || interop::run(options))
}

/// What is to be built is built outside: cargo and its lock have no business in a namespace. Tells whether there is more to do.
#[cfg(target_os = "linux")]
fn in_laboratory(
    prepared: anyhow::Result<bool>,
    run: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if prepared? {
        namespace::enter()?;
        run()?;
    }
    Ok(())
}
