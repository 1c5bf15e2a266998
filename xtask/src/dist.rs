//! `cargo xtask dist`: what a release offers. Per machine one archive with a program that is linked to nothing, its manual page,
//! completions and licences; and a file with the checksums of all.
//!
//! An archive depends on nothing but the sources, the compiler and the commit's date: paths of this machine are kept out of the
//! program, and names are sorted, owners and times fixed in the archive.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::metadata::{Metadata, Package};
use crate::toolchain::{self, CROSS, Toolchain};
use crate::{exec, namespace, wire};

const PROGRAM: &str = "nix-copy-closure";

/// A machine that there is an archive for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Machine {
    #[value(name = "x86_64")]
    X86_64,
    #[value(name = "aarch64")]
    Aarch64,
}

impl Machine {
    fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    fn triple(self) -> String {
        format!("{}-unknown-linux-gnu", self.name())
    }

    /// Whether this machine's own compiler makes programs for it.
    fn is_here(self) -> bool {
        std::env::consts::ARCH == self.name()
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only for this machine
    #[arg(long, value_enum)]
    machine: Vec<Machine>,
    /// The profile that the program is built with
    #[arg(long, default_value = "release")]
    profile: String,
    /// Where the archives go
    #[arg(long, value_name = "DIR", default_value = "target/dist")]
    folder: PathBuf,
}

impl Options {
    fn machines(&self) -> Vec<Machine> {
        let all = vec![Machine::X86_64, Machine::Aarch64];
        if self.machine.is_empty() { all } else { self.machine.clone() }
    }
}

/// Arguments of the hidden `cargo xtask cross`.
#[derive(Debug, clap::Args)]
pub(crate) struct Cross {
    machine: Machine,
    profile: String,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    exec::make_folder(&options.folder)?;
    let mut sums = String::new();
    for machine in options.machines() {
        let program = if machine.is_here() {
            build_here(machine, &options.profile)?
        } else {
            toolchain::fetch(&namespace::workspace().join("Cargo.toml"))?;
            // In a process of its own, which enters a namespace for it.
            let mut cross = Command::new(std::env::current_exe().context("cannot find this program")?);
            toolchain::run(cross.args(["cross", machine.name(), &options.profile]))?;
            built(ELSEWHERE, machine, &options.profile)
        };
        let archive = pack(machine, &program, &options.folder)?;
        let content = fs::read(&archive).with_context(|| format!("cannot read {}", archive.display()))?;
        let name = archive.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let _ = writeln!(sums, "{}  {name}", wire::sha256(&content));
        println!("{}: {} kB", archive.display(), content.len() / 1000);
    }
    exec::write_file(&options.folder.join("SHA256SUMS"), sums)
}

/// The target folder for what Debian's compiler makes.
const ELSEWHERE: &str = "cross";

/// Where cargo leaves the program.
fn built(folder: &str, machine: Machine, profile: &str) -> PathBuf {
    namespace::target_folder().join(folder).join(machine.triple()).join(profile).join(PROGRAM)
}

fn cargo_arguments(machine: Machine, profile: &str) -> Vec<String> {
    // With a target of its own, the flags are not for build scripts and macros.
    let words = ["build", "--locked", "--package", PROGRAM, "--profile", profile, "--target"];
    words.into_iter().map(str::to_owned).chain([machine.triple()]).collect()
}

/// Everything is linked into the program, and the folders in which it was made are not named in it.
fn flags(cargo_home: &Path) -> String {
    let sources = cargo_home.join("registry/src");
    let workspace = namespace::workspace();
    format!(
        "-C target-feature=+crt-static --remap-path-prefix={}=/sources --remap-path-prefix={}=/{PROGRAM}",
        sources.display(),
        workspace.display()
    )
}

fn build_here(machine: Machine, profile: &str) -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo
        .args(cargo_arguments(machine, profile))
        .env("RUSTFLAGS", flags(&toolchain::cargo_home()?))
        .env("CARGO_TARGET_DIR", namespace::target_folder());
    toolchain::run(&mut cargo)?;
    Ok(built("", machine, profile))
}

/// With Debian's compiler. What comes of it is run, emulated: a program that cannot start is not packed.
pub(crate) fn cross(options: &Cross) -> Result<()> {
    let (machine, profile) = (options.machine, &options.profile);
    let toolchain = Toolchain::start(&CROSS)?;
    let mut cargo = toolchain.cargo(ELSEWHERE);
    let prefix = format!("{}-linux-gnu", machine.name());
    let triple = machine.triple().replace('-', "_");
    cargo
        .args(cargo_arguments(machine, profile))
        .env("RUSTFLAGS", flags(&toolchain::cargo_home()?))
        .env(format!("CARGO_TARGET_{}_LINKER", triple.to_uppercase()), format!("{prefix}-gcc"))
        .env(format!("CC_{triple}"), format!("{prefix}-gcc"));
    toolchain::run(&mut cargo)?;
    let program = built(ELSEWHERE, machine, profile);
    let mut emulator = toolchain.command(&format!("qemu-{}", machine.name()));
    let said = exec::capture(emulator.arg(&program).arg("--version"))?.success()?.text();
    println!("on an emulated {}: {said}", machine.name());
    Ok(())
}

/// The archive of one machine.
fn pack(machine: Machine, program: &Path, folder: &Path) -> Result<PathBuf> {
    let name = format!("{PROGRAM}-{}-{}-linux", env!("CARGO_PKG_VERSION"), machine.name());
    let top = folder.join(&name);
    if top.exists() {
        fs::remove_dir_all(&top).with_context(|| format!("cannot remove {}", top.display()))?;
    }
    let workspace = namespace::workspace();
    let place = |from: &Path, to: &str| -> Result<PathBuf> {
        let to = top.join(to);
        exec::make_folder(to.parent().context("a file is in a folder")?)?;
        fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        Ok(to)
    };
    let placed = place(program, &format!("bin/{PROGRAM}"))?;
    fs::set_permissions(&placed, fs::Permissions::from_mode(0o755))?;
    symlink(PROGRAM, top.join("bin/ncc")).context("cannot make a link")?;
    for (from, to) in [
        ("man/nix-copy-closure.1", "share/man/man1/nix-copy-closure.1"),
        ("completions/nix-copy-closure.bash", "share/bash-completion/completions/nix-copy-closure"),
        ("completions/nix-copy-closure.fish", "share/fish/vendor_completions.d/nix-copy-closure.fish"),
        ("completions/nix-copy-closure.zsh", "share/zsh/site-functions/_nix-copy-closure"),
        ("LICENSE-APACHE", "LICENSE-APACHE"),
        ("LICENSE-MIT", "LICENSE-MIT"),
        ("README.md", "README.md"),
        ("CHANGELOG.md", "CHANGELOG.md"),
    ] {
        place(&workspace.join(from), to)?;
    }
    exec::write_file(&top.join("LICENSES-OF-LIBRARIES.txt"), licences(machine)?)?;

    let archive = folder.join(format!("{name}.tar.gz"));
    let tar = folder.join(format!("{name}.tar"));
    let mut command = Command::new("tar");
    command
        .arg("--create")
        .arg("--file")
        .arg(&tar)
        .args(["--format=gnu", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
        .args(["--mode=u=rwX,go=rX", &format!("--mtime=@{}", date()?), "--directory"])
        .arg(folder)
        .arg(&name);
    exec::capture(&mut command)?.success()?;
    // -n: neither name nor time of the file.
    exec::run("gzip", [Path::new("-9nf"), &tar])?;
    fs::remove_dir_all(&top).with_context(|| format!("cannot remove {}", top.display()))?;
    Ok(archive)
}

/// Seconds since 1970: what `SOURCE_DATE_EPOCH` says, or else the date of the commit.
fn date() -> Result<String> {
    if let Ok(date) = std::env::var("SOURCE_DATE_EPOCH") {
        return Ok(date);
    }
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"]).current_dir(namespace::workspace());
    Ok(exec::capture(&mut git)?
        .success()
        .context("SOURCE_DATE_EPOCH is not set, and git knows no date")?
        .text())
}

/// The licences of everything that is linked into the program, which have to be handed on with it.
fn licences(machine: Machine) -> Result<String> {
    let metadata = Metadata::with(&["--filter-platform", &machine.triple()])?;
    let program = metadata.members().find(|member| member.name() == PROGRAM).context("no program")?;
    let mut text = format!("{PROGRAM} contains these libraries.\n");
    for package in metadata.needed_by(&program) {
        if package.source().is_none() {
            continue;
        }
        let licence = package.licence().unwrap_or("no licence");
        let _ = write!(text, "\n=== {} {}: {licence}\n", package.name(), package.field("version"));
        for file in licence_files(&package)? {
            let content =
                fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let _ = write!(text, "\n{}\n", content.trim_end());
        }
    }
    text.push_str("\n=== SQLite: in the public domain\n\n=== GNU C Library: LGPL-2.1-or-later, https://www.gnu.org/software/libc/\n");
    text.push_str("\n=== Rust's standard library: MIT OR Apache-2.0\n");
    Ok(text)
}

/// What of a package has the name of a licence.
fn licence_files(package: &Package<'_>) -> Result<Vec<PathBuf>> {
    let folder = package.folder();
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        if path.is_file()
            && ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT"].iter().any(|word| name.starts_with(word))
        {
            files.push(path);
        }
    }
    files.sort();
    ensure!(package.licence().is_some() || !files.is_empty(), "{} says no licence", package.name());
    Ok(files)
}
