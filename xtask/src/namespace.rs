//! The laboratory lives in mount and PID namespaces of its own, so that nothing outlives it.
//!
//! A run mounts overlays and starts sshd's. Undoing that by hand fails exactly when it matters: Ctrl-C, a panic, `kill -9`, a
//! CI time limit. Here the kernel does it: the command starts itself again as process 1 of a PID namespace, inside a
//! private mount namespace. When that process ends, however it ends, the kernel kills every process of the namespace
//! and drops its mounts; run data is on a tmpfs mounted inside, so that vanishes too.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, mount};

use crate::{exec, test::require_real};

/// Set in the environment of the inner process.
const INSIDE: &str = "NCC_XTASK_INSIDE";

/// Where a run keeps its data. The folder exists outside too, but is empty there. Its path is short (unix sockets allow 107
/// bytes) and owned by root all the way up (sshd insists).
const RUN: &str = "/run/ncc-interop";

/// Returns inside the namespaces; the outer process never returns from here on success, it exits with the inner status.
pub(crate) fn enter() -> Result<()> {
    if is_inside() {
        return mount_run_folder();
    }
    if !rustix::process::geteuid().is_root() {
        return nothing("the laboratory needs root (mounts, chroot)");
    }
    for program in ["unshare", "setpriv", "chroot"] {
        if !exec::available(program) {
            return nothing(&format!("`{program}` is missing"));
        }
    }
    exec::make_folder(Path::new(RUN))?;
    let program = std::env::current_exe().context("cannot find this program")?;
    // setpriv: Ctrl-C or kill -9 of this process kills unshare, and --kill-child hands that on to process 1.
    let status = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork"])
        .args(["--kill-child", "--mount-proc", "--"])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .status()
        .context("cannot start unshare")?;
    // The empty folder stays: removing it would pull the mount from under another run, which has it in its namespace.
    std::process::exit(status.code().unwrap_or(1));
}

/// Ends the program where no laboratory can be: with success, unless CI demands the real thing.
fn nothing(why: &str) -> Result<()> {
    left_out(&format!("all of the laboratory: {why}"))?;
    std::process::exit(0);
}

/// Whether this is the inner process.
pub(crate) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

fn mount_run_folder() -> Result<()> {
    // tmpfs: Nix syncs its database often, and thousands of small files are the point of several cases.
    mount("ncc-interop", RUN, "tmpfs", MountFlags::empty(), Some(c"size=80%,mode=0755"))
        .with_context(|| format!("cannot mount a tmpfs on {RUN}"))
}

/// The folder for everything one run makes.
pub(crate) fn run_folder() -> &'static Path {
    Path::new(RUN)
}

/// Says loudly what is not tested and goes on, or fails where CI demands the real thing.
pub(crate) fn left_out(what: &str) -> Result<()> {
    if require_real() {
        bail!("{what} (NCC_REQUIRE_REAL=1)");
    }
    eprintln!("\n*** LEFT OUT: {what}\n*** (NCC_REQUIRE_REAL=1 makes this a failure)\n");
    Ok(())
}

/// The folder that outlives runs: roots, downloads. Outside git.
pub(crate) fn cache_folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("NCC_INTEROP_CACHE") {
        return PathBuf::from(folder);
    }
    target_folder().join("interop")
}

/// The top of the work tree.
pub(crate) fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// cargo's target folder.
pub(crate) fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// Holds an exclusive lock on a file until dropped.
pub(crate) fn lock_file(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}
