//! Minimal Debian roots, each with its own age of real Nix and OpenSSH.
//!
//! A root is not installed (debootstrap, configure scripts: minutes) but *extracted*: apt resolves and fetches, tar unpacks in
//! parallel, and the few files that install scripts would have made are written here. Neither dpkg nor perl nor systemd gets
//! in. Roots are built once and cached; runs see them only through an overlay and never change them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::ValueEnum;

use crate::apt::Apt;
use crate::instance::{Instance, LabStore};
use crate::sshd::{self, Keys};
use crate::{exec, namespace};

/// Changes when the way a root is made changes; older roots are then built anew.
const RECIPE: &str = "5";

/// What a root is asked to hold; apt adds what these need.
const WANTED: [&str; 14] = [
    "nix-bin",
    "openssh-client",
    "openssh-server",
    "sudo",
    "bash",
    "dash",
    "coreutils",
    "findutils",
    "grep",
    "sed",
    // What a host compresses with, and what `cargo xtask bench` compares with.
    "zstd",
    "gzip",
    "tar",
    "rsync",
];

/// What dependencies bring in but nothing here runs. Leaving it out halves download and extraction.
const UNUSED: [&str; 22] = [
    "adduser",
    "base-files",
    "base-passwd",
    "bzip2",
    "curl",
    "debconf",
    "debianutils",
    "dpkg",
    "init-system-helpers",
    "libcurl4",
    "libcurl4t64",
    "libc-gconv-modules-extra",
    "libpam-modules-bin",
    "libpam-runtime",
    "libsystemd-shared",
    "lsb-base",
    "mawk",
    "openssh-sftp-server",
    "passwd",
    "procps",
    "systemd",
    "xz-utils",
];

/// Same, for whole families of packages.
const UNUSED_FAMILIES: [&str; 6] =
    ["perl", "libperl", "libdbi-perl", "libdbd-", "libwww-curl-perl", "libtext-"];

/// A Debian release, and the age of Nix it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Release {
    Bullseye,
    Bookworm,
    Trixie,
    Forky,
    /// Whatever this machine has; never built.
    #[value(skip)]
    Here,
}

impl Release {
    /// Those with a root of their own, oldest first.
    pub(crate) const ALL: [Self; 4] = [Self::Bullseye, Self::Bookworm, Self::Trixie, Self::Forky];

    /// Debian's name, also the suite.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bullseye => "bullseye",
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Forky => "forky",
            Self::Here => "here",
        }
    }

    /// Start of the Nix version expected in it. Forky still moves within its series.
    pub(crate) fn nix_version(self) -> &'static str {
        match self {
            Self::Bullseye => "2.3.7",
            Self::Bookworm => "2.8.0",
            Self::Trixie => "2.26.3",
            Self::Forky => "2.34",
            Self::Here => "",
        }
    }

    /// 2.3 knows neither the `nix-command` feature nor `nix store sign`.
    pub(crate) fn has_nix_command(self) -> bool {
        self != Self::Bullseye
    }
}

impl std::fmt::Display for Release {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(self.name())
    }
}

/// Arguments of `cargo xtask roots`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only this release
    #[arg(long)]
    release: Vec<Release>,
}

/// Builds what is missing and shows each version over ssh.
pub(crate) fn run(options: &Options) -> Result<()> {
    let roots = ensure_all(&options.release)?;
    let keys = Keys::generate()?;
    for (release, root) in roots {
        let start = Instant::now();
        let store = LabStore::create("roots", release.name())?;
        let instance = Instance::start(release, &root, &store)?;
        let server = sshd::start(&instance, &keys, &sshd::Settings::default())?;
        let version = server.run(&["nix-store", "--version"])?.success()?.text();
        println!(
            "{release:10} {version}   ({} ms from root to answer over ssh)",
            start.elapsed().as_millis()
        );
    }
    Ok(())
}

/// The roots of these releases (all when empty), built side by side. What cannot be had is said loudly and left out.
pub(crate) fn ensure_all(wanted: &[Release]) -> Result<BTreeMap<Release, PathBuf>> {
    let wanted: Vec<Release> = if wanted.is_empty() { Release::ALL.to_vec() } else { wanted.to_vec() };
    let built = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for release in wanted {
            let built = &built;
            scope.spawn(move || {
                let result = ensure_one(release);
                if let Ok(mut list) = built.lock() {
                    list.push((release, result));
                }
            });
        }
    });
    let mut roots = BTreeMap::new();
    for (release, result) in built.into_inner().map_err(|_| anyhow!("a root builder panicked"))? {
        match result {
            Ok(root) => {
                roots.insert(release, root);
            }
            Err(error) => namespace::left_out(&format!(
                "real Nix {} (no root of Debian {release}): {error:#}",
                release.nix_version()
            ))?,
        }
    }
    Ok(roots)
}

/// What a cached root is made of.
pub(crate) struct Recipe<'a> {
    /// Its folder's.
    pub(crate) name: &'a str,
    pub(crate) suite: &'a str,
    /// Changes when the way it is made changes; an older one is then built anew.
    pub(crate) version: &'a str,
    pub(crate) packages: &'a [&'a str],
    /// Architectures of packages beside this machine's.
    pub(crate) foreign: &'a [&'a str],
    /// Of what the packages need, what is taken along.
    pub(crate) is_used: fn(&str) -> bool,
}

/// The root of one release: the cached one, or a new one.
fn ensure_one(release: Release) -> Result<PathBuf> {
    let recipe = Recipe {
        name: release.name(),
        suite: release.name(),
        version: RECIPE,
        packages: &WANTED,
        foreign: &[],
        is_used,
    };
    ensure_root(&recipe, |root| check(release, root))
}

/// The root that a recipe makes: the cached one, or a new one that passes `check`.
pub(crate) fn ensure_root(recipe: &Recipe<'_>, check: impl Fn(&Path) -> Result<()>) -> Result<PathBuf> {
    let name = recipe.name;
    let folder = namespace::cache_folder().join("roots");
    exec::make_folder(&folder)?;
    let root = folder.join(name);
    let stamp = folder.join(format!("{name}.complete"));
    // Two runs at once: the second waits here, then finds the stamp.
    let _lock = namespace::lock_file(&folder.join(format!("{name}.lock")))?;
    if fs::read_to_string(&stamp).is_ok_and(|version| version == recipe.version) {
        return Ok(root);
    }
    let start = Instant::now();
    for leftover in [&stamp, &root] {
        match fs::symlink_metadata(leftover) {
            Ok(data) if data.is_dir() => fs::remove_dir_all(leftover),
            Ok(_) => fs::remove_file(leftover),
            Err(_) => Ok(()),
        }
        .with_context(|| format!("cannot remove {}", leftover.display()))?;
    }
    let apt_folder = folder.join(format!("{name}.apt"));
    let apt = Apt::update(&apt_folder, recipe.suite, recipe.foreign)?;
    let mut packages = apt.resolve(recipe.packages)?;
    packages.retain(|package, _| (recipe.is_used)(package));
    let files = apt.download(&packages)?;
    let downloaded = start.elapsed();
    build(&root, &files)?;
    check(&root)?;
    // The package lists (70 MB) and packages have done their duty.
    fs::remove_dir_all(&apt_folder).with_context(|| format!("cannot remove {}", apt_folder.display()))?;
    exec::write_file(&stamp, recipe.version)?;
    eprintln!(
        "root of {name}: {} packages, fetched in {:.1} s, complete after {:.1} s",
        files.len(),
        downloaded.as_secs_f64(),
        start.elapsed().as_secs_f64()
    );
    Ok(root)
}

/// A package left out that is needed after all shows here, not in the middle of a case.
fn check(release: Release, root: &Path) -> Result<()> {
    let store = LabStore::create("check", release.name())?;
    let instance = Instance::start(release, root, &store)?;
    let version = instance.run("nix-store", &["--version"])?;
    ensure!(
        version.contains(release.nix_version()),
        "Debian {release} brought `{version}` where {} was expected",
        release.nix_version()
    );
    instance.run("ssh", &["-V"])?;
    Ok(())
}

fn is_used(package: &str) -> bool {
    !UNUSED.contains(&package) && !UNUSED_FAMILIES.iter().any(|family| package.starts_with(family))
}

/// Unpacks the packages and writes what their install scripts would have.
fn build(root: &Path, packages: &[PathBuf]) -> Result<()> {
    for folder in [
        "usr/bin",
        "usr/sbin",
        "usr/lib",
        "usr/lib64",
        "etc/nix",
        "etc/pam.d",
        "etc/ssh",
        "root",
        "run/sshd",
        "var/run",
        "var/empty",
        "nix",
        "proc",
        "dev",
        "sys",
        "tmp",
        "lab",
        "host",
    ] {
        exec::make_folder(&root.join(folder))?;
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        let link = root.join(name);
        symlink(format!("usr/{name}"), &link).with_context(|| format!("cannot create {}", link.display()))?;
    }
    let next = Mutex::new(packages.iter());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    loop {
                        let package = next.lock().map_err(|_| anyhow!("another extraction panicked"))?.next();
                        match package {
                            Some(package) => extract(package, root)?,
                            None => return Ok(()),
                        }
                    }
                })
            })
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| anyhow!("extraction panicked"))?)
    })?;
    let shell = root.join("usr/bin/sh");
    if fs::symlink_metadata(&shell).is_err() {
        symlink("dash", &shell).with_context(|| format!("cannot create {}", shell.display()))?;
    }
    let etc = root.join("etc");
    exec::write_file(
        &etc.join("passwd"),
        "root:x:0:0:root:/root:/bin/bash\n\
         sshd:x:101:65534::/run/sshd:/usr/sbin/nologin\n\
         plain:x:1000:1000::/tmp:/bin/bash\n\
         nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    )?;
    exec::write_file(&etc.join("group"), "root:x:0:\nsshd:x:101:\nplain:x:1000:\nnogroup:x:65534:\n")?;
    // `*`: no password, but not locked either, so that sshd lets keys in.
    exec::write_file(&etc.join("shadow"), "root:*:19000:0:99999:7:::\nplain:*:19000:0:99999:7:::\n")?;
    // The package's own file includes some that an install script makes.
    let permit = ["auth", "account", "session"].map(|kind| format!("{kind} required pam_permit.so\n"));
    exec::write_file(&etc.join("pam.d/sudo"), permit.concat())?;
    exec::write_file(&etc.join("hosts"), "127.0.0.1 localhost\n::1 localhost\n")?;
    exec::write_file(
        &etc.join("nsswitch.conf"),
        "passwd: files\ngroup: files\nshadow: files\nhosts: files\n",
    )?;
    Ok(())
}

/// `dpkg-deb --fsys-tarfile | tar`: dpkg-deb's own extraction would replace the links /bin, /lib by folders.
pub(crate) fn extract(package: &Path, root: &Path) -> Result<()> {
    let mut unpack = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start dpkg-deb")?;
    let tar = unpack.stdout.take().context("dpkg-deb without stdout")?;
    let status = Command::new("tar")
        .arg("--directory")
        .arg(root)
        .args(["--extract", "--keep-directory-symlink", "--no-same-owner", "--preserve-permissions"])
        .args(["--exclude=./usr/share/doc", "--exclude=./usr/share/man", "--exclude=./usr/share/locale"])
        .args(["--exclude=./usr/share/info", "--exclude=./usr/share/lintian", "--exclude=./usr/lib/*/gconv"])
        .stdin(tar)
        .status()
        .context("cannot start tar")?;
    if !unpack.wait().context("cannot wait for dpkg-deb")?.success() || !status.success() {
        bail!("cannot extract {}", package.display());
    }
    Ok(())
}
