//! Compilers that this machine does not have: Debian's own, in a root like those of the laboratory.
//!
//! rustup's toolchain has the standard library of this machine's target alone, and other targets cannot be had everywhere that
//! Debian's packages can. Its cargo is given the sources that this machine's cargo has fetched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::instance::{Instance, LabStore};
use crate::roots::{self, Recipe, Release};
use crate::{exec, namespace};

/// The newest there is: the compiler has to be as new as the crates want.
const SUITE: Release = Release::Forky;

/// To compile for another machine of Debian's, and to run what comes of it.
pub(crate) const CROSS: Recipe<'_> = Recipe {
    name: "cross",
    suite: "forky",
    version: "2",
    packages: &[
        "bash",
        "cargo",
        "coreutils",
        "dash",
        "gcc",
        "gcc-aarch64-linux-gnu",
        "libc6-dev",
        "libc6-dev-arm64-cross",
        "libstd-rust-dev:arm64",
        "qemu-user",
        "rustc",
    ],
    foreign: &["amd64", "arm64"],
    is_used,
};

/// To check types for any machine that Rust knows, from the standard library's sources.
pub(crate) const CHECK: Recipe<'_> = Recipe {
    name: "check",
    suite: "forky",
    version: "2",
    packages: &["bash", "cargo", "coreutils", "dash", "gcc", "libc6-dev", "rust-src", "rustc"],
    foreign: &[],
    is_used,
};

/// Installing is extracting here, so what only installs is of no use.
fn is_used(package: &str) -> bool {
    !["dpkg", "debconf", "perl"].iter().any(|family| package.starts_with(family))
}

/// A root with a compiler, running, in which the workspace and cargo's home are where they are outside.
pub(crate) struct Toolchain {
    instance: Instance,
    root: PathBuf,
    cargo_home: PathBuf,
    // Last: the instance has it mounted.
    _store: LabStore,
}

impl Toolchain {
    pub(crate) fn start(recipe: &Recipe<'_>) -> Result<Self> {
        ensure!(recipe.suite == SUITE.name(), "toolchains are of {SUITE}");
        let root = roots::ensure_root(recipe, |_| Ok(()))?;
        let store = LabStore::create("toolchain", recipe.name)?;
        let mut instance = Instance::start(SUITE, &root, &store)?;
        let cargo_home = cargo_home()?;
        let workspace = namespace::workspace();
        let target = namespace::target_folder();
        exec::make_folder(&target)?;
        for folder in [&cargo_home, &workspace, &target] {
            let inside = folder.strip_prefix("/").context("a path that is not absolute")?;
            instance.bind(folder, inside.to_str().context("a path that is not UTF-8")?)?;
        }
        Ok(Self { instance, root, cargo_home, _store: store })
    }

    /// A file of the root.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.root.join(inside.trim_start_matches('/'))
    }

    /// A program in the root, in the workspace's folder.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = self.instance.command("/usr/bin/env");
        command.arg("--chdir").arg(namespace::workspace()).arg(program);
        command
    }

    /// Debian's cargo, which fetches nothing. It has a target folder of its own: another compiler's results are of no use to
    /// either.
    pub(crate) fn cargo(&self, target_folder: &str) -> Command {
        let mut command = self.command("cargo");
        // This machine's settings (mirrors, linkers) stand in cargo's home; what is fetched lies there too.
        command
            .env("CARGO_HOME", &self.cargo_home)
            .env("CARGO_TARGET_DIR", namespace::target_folder().join(target_folder))
            .env("CARGO_NET_OFFLINE", "true")
            .env("CARGO_INCREMENTAL", "0")
            // For build scripts: `cc` is a name that installing makes.
            .env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER", "gcc")
            .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "gcc");
        command
    }
}

/// Where cargo has its settings and what it has fetched.
pub(crate) fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = std::env::var_os("CARGO_HOME") {
        return Ok(PathBuf::from(home));
    }
    let home = std::env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?;
    Ok(Path::new(&home).join(".cargo"))
}

/// Has this machine's cargo fetch what the lock file beside a manifest names.
pub(crate) fn fetch(manifest: &Path) -> Result<()> {
    let mut cargo = Command::new("cargo");
    // The standard library's own manifest uses what is not stable yet.
    cargo.env("RUSTC_BOOTSTRAP", "1").args(["fetch", "--locked", "--manifest-path"]).arg(manifest);
    let status = cargo.status().context("cargo cannot be started")?;
    ensure!(status.success(), "cargo cannot fetch what {} needs", manifest.display());
    Ok(())
}

/// Runs a command to its end, however long it takes, with its output shown.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = exec::show(command);
    let status = command.status().with_context(|| format!("cannot start `{shown}`"))?;
    ensure!(status.success(), "`{shown}` ended with {status}");
    Ok(())
}

/// The sources of the standard library in a root, which name dependencies of their own.
pub(crate) fn standard_library(toolchain: &Toolchain) -> Result<PathBuf> {
    let sources = toolchain.path("usr/lib/rustlib/src/rust/library");
    let link = fs::canonicalize(&sources).with_context(|| format!("no {}", sources.display()))?;
    Ok(link)
}
