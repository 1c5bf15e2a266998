//! `cargo xtask man`: the manual page and the completions, made by the program from its own definition.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::exec;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Write nothing; fail if the committed files are not what the program would write
    #[arg(long)]
    check: bool,
}

/// Each file with the arguments that make the program print it.
const FILES: [(&str, &[&str]); 5] = [
    (REFERENCE, &["--help"]),
    ("man/nix-copy-closure.1", &["--manual"]),
    ("completions/nix-copy-closure.bash", &["--completions", "bash"]),
    ("completions/nix-copy-closure.fish", &["--completions", "fish"]),
    ("completions/nix-copy-closure.zsh", &["--completions", "zsh"]),
];

/// A page of the book, which shows what the program prints as it is.
const REFERENCE: &str = "docs/reference.md";

pub(crate) fn run(options: &Options) -> Result<()> {
    let mut stale = Vec::new();
    for (file, arguments) in FILES {
        let mut cargo = Command::new("cargo");
        cargo.args(["run", "--quiet", "--locked", "--package", "nix-copy-closure", "--"]).args(arguments);
        let mut made = exec::capture(&mut cargo)?.success()?.stdout;
        if file == REFERENCE {
            let text = String::from_utf8(made)?;
            made =
                format!("# All options\n\nAs `nix-copy-closure --help` prints them.\n\n```text\n{text}```\n")
                    .into_bytes();
        }
        let there = fs::read(file).unwrap_or_default();
        if there == made {
            continue;
        }
        if options.check {
            stale.push(file);
        } else {
            let folder = Path::new(file).parent().context("every file is in a folder")?;
            exec::make_folder(folder)?;
            exec::write_file(Path::new(file), made)?;
            println!("wrote {file}");
        }
    }
    ensure!(stale.is_empty(), "stale: {}; `cargo xtask man` makes them anew", stale.join(", "));
    Ok(())
}
