//! What developers and CI run: `cargo xtask <command>`.
//!
//! One module per command; each has an `Options` (clap) and a `run`.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a tool for people: printing is its job

mod apt;
mod exec;
mod instance;
mod namespace;
mod roots;
mod sshd;

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
    /// Build the roots that hold real Nix of four ages, and show that each answers over ssh
    Roots(roots::Options),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Task::Roots(options) => namespace::enter().and_then(|()| roots::run(&options)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
