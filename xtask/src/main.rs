//! What developers and CI run: `cargo xtask <command>`.
//!
//! One module per command; each has an `Options` (clap) and a `run`.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a tool for people: printing is its job

mod apt;
mod bench;
mod daemon;
mod database;
mod demo;
mod dependencies;
mod exec;
mod faults;
mod fixtures;
mod golden;
mod instance;
mod interop;
mod layers;
mod manual;
mod metadata;
mod namespace;
mod noise;
mod processes;
mod relay;
mod roots;
mod sshd;
mod test;
mod user;
mod wire;

use std::{os::unix::process::CommandExt as _, process::ExitCode};

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
    /// Of that, the part that takes a second: the layer rule, and what every dependency has to be
    House,
    /// Build the roots that hold real Nix of four ages, and show that each answers over ssh
    Roots(roots::Options),
    /// Test a nix-copy-closure against real Nix of four ages
    Interop(interop::Options),
    /// Break copies in every way at random places: nothing may be lost, and the next run has to finish them
    Faults(faults::Options),
    /// Measure a nix-copy-closure against upstream's, over lines with a delay and without
    Bench(bench::Options),
    /// Capture sessions of real Nix, on the serve and the daemon protocol, into protocol/testdata
    Golden(golden::Options),
    /// Used by the laboratory itself
    #[command(hide = true)]
    Enter(instance::Enter),
}

fn main() -> ExitCode {
    // The laboratory's commands run inside namespaces of their own; others (demo, test) need not.
    let result = match Arguments::parse().command {
        Task::Demo(options) => demo::run(&options),
        Task::Man(options) => manual::run(&options),
        Task::Test(options) => test::run(&options),
        Task::House => test::house(),
        Task::Roots(options) => namespace::enter().and_then(|()| roots::run(&options)),
        Task::Interop(options) => interop(&options),
        Task::Faults(options) => in_laboratory(faults::prepare(&options), || faults::run(&options)),
        Task::Bench(options) => in_laboratory(bench::prepare(&options), || bench::run(&options)),
        Task::Enter(options) => instance::enter(&options),
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
fn heed_interrupts() -> anyhow::Result<()> {
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

fn interop(options: &interop::Options) -> anyhow::Result<()> {
    heed_interrupts()?;
    in_laboratory(interop::prepare(options), || interop::run(options))
}

/// What is to be built is built outside: cargo and its lock have no business in a namespace. Tells whether there is more to do.
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
