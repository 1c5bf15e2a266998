//! A running copy of a cached root: an overlay over it, with `/nix` a plain folder outside the overlay.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use rustix::mount::{
    MountFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_remount, unmount,
};

use rustix::process::{chroot, pivot_root};

use crate::exec::{self, Finished};
use crate::namespace;
use crate::roots::Release;
use crate::user::User;

/// All that programs inside see of the outside's environment, beside who they run for.
const ENVIRONMENT: [(&str, &str); 2] = [("PATH", "/usr/local/bin:/usr/bin:/usr/sbin"), ("LC_ALL", "C")];

/// Makes folder names unique within a run.
static COUNTER: AtomicU32 = AtomicU32::new(0);

fn fresh_folder(kind: &str, label: &str) -> Result<PathBuf> {
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let folder = namespace::run_folder().join(kind).join(format!("{number}-{label}"));
    exec::make_folder(&folder)?;
    Ok(folder)
}

/// What may be a file system of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// `nix/store`.
    Objects,
    /// `nix/var`.
    State,
}

/// A folder that holds one store, in the layout of a chroot store: `FOLDER/nix/store`, `FOLDER/nix/var/nix`.
///
/// On the host it is `--store FOLDER`; an instance that mounts it has it as its real `/nix`. So any Nix can look at what any
/// other program wrote.
#[derive(Debug)]
pub(crate) struct LabStore {
    folder: PathBuf,
}

impl LabStore {
    /// A folder with an empty `nix/`: the first program to open it creates the store.
    pub(crate) fn create(kind: &str, label: &str) -> Result<Self> {
        let folder = fresh_folder("stores", &format!("{kind}-{label}"))?;
        exec::make_folder(&folder.join("nix"))?;
        Ok(Self { folder })
    }

    /// What the host passes as `--store`.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The real store directory.
    pub(crate) fn store(&self) -> PathBuf {
        self.folder.join("nix/store")
    }

    /// Nix's database.
    pub(crate) fn database(&self) -> PathBuf {
        self.folder.join("nix/var/nix/db/db.sqlite")
    }

    /// Where a part of it lies.
    pub(crate) fn folder_of(&self, part: Part) -> PathBuf {
        match part {
            Part::Objects => self.store(),
            Part::State => self.folder.join("nix/var"),
        }
    }

    /// Makes a part a file system of its own with only so many bytes and files. Before any instance mounts it.
    pub(crate) fn limit(&self, part: Part, bytes: u64, files: u64) -> Result<()> {
        let folder = self.folder_of(part);
        exec::make_folder(&folder)?;
        let options = std::ffi::CString::new(format!("size={bytes},nr_inodes={files},mode=0755"))?;
        mount("small-store", folder, "tmpfs", MountFlags::empty(), Some(options.as_c_str()))
            .context("cannot mount a small store")
    }

    /// Gives a limited part other limits, and undoes [`freeze`].
    pub(crate) fn resize(&self, part: Part, bytes: u64, files: u64) -> Result<()> {
        let options = std::ffi::CString::new(format!("size={bytes},nr_inodes={files}"))?;
        mount_remount(self.folder_of(part), MountFlags::empty(), options.as_c_str())
            .context("cannot change a store's size")
    }

    /// Shows the store read-only to everybody, as on NixOS: the mount, not the file system. After this no instance sees it
    /// otherwise.
    pub(crate) fn protect(&self) -> Result<()> {
        exec::make_folder(&self.store())?;
        mount_bind(self.store(), self.store())
            .and_then(|()| mount_remount(self.store(), MountFlags::BIND | MountFlags::RDONLY, c""))
            .context("cannot mount a store read-only")
    }

    /// Undoes [`protect`](Self::protect).
    pub(crate) fn unprotect(&self) -> Result<()> {
        unmount(self.store(), UnmountFlags::DETACH).context("cannot unmount a store")
    }

    /// Where the host finds a store path of this store.
    pub(crate) fn real(&self, store_path: &str) -> PathBuf {
        self.folder.join(store_path.trim_start_matches('/'))
    }
}

impl Drop for LabStore {
    fn drop(&mut self) {
        if !keep() {
            // Objects are read-only folders; as root that does not hinder. `limit` may have mounted something.
            for part in [Part::Objects, Part::State] {
                let _ = unmount(self.folder_of(part), UnmountFlags::DETACH);
            }
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// Makes a limited store read-only. The file system itself, not the mount: Nix undoes the latter. Not while a file in it is being
/// written.
pub(crate) fn freeze(store: &Path) -> Result<()> {
    mount_remount(store, MountFlags::RDONLY, c"").context("cannot make a store read-only")
}

/// A root that programs can run in.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) release: Release,
    root: PathBuf,
    folder: PathBuf,
    mounts: Vec<PathBuf>,
}

impl Instance {
    /// Mounts an overlay over the cached root, and the store at its `/nix`.
    pub(crate) fn start(release: Release, cached: &Path, store: &LabStore) -> Result<Self> {
        let folder = fresh_folder("instances", release.name())?;
        let root = folder.join("root");
        let (upper, work) = (folder.join("upper"), folder.join("work"));
        for path in [&root, &upper, &work] {
            exec::make_folder(path)?;
        }
        let mut instance = Self { release, root: root.clone(), folder, mounts: Vec::new() };
        let options =
            format!("lowerdir={},upperdir={},workdir={}", cached.display(), upper.display(), work.display());
        let options = std::ffi::CString::new(options)?;
        if let Err(error) = mount("overlay", &root, "overlay", MountFlags::empty(), Some(options.as_c_str()))
        {
            ensure!(release != Release::Here, "cannot lay an overlay over this machine's own root: {error}");
            // No overlayfs in this kernel or container: a copy does the same, slower.
            eprintln!("overlay: {error}; copying the root of {release}");
            let (from, to) = (cached.join("."), &root);
            exec::run("cp", [Path::new("-a"), Path::new("--reflink=auto"), &from, to])?;
        } else {
            instance.mounts.push(root.clone());
        }
        instance.add_mount("proc", |target| mount("proc", target, "proc", MountFlags::empty(), None))?;
        instance.add_mount("dev", |target| mount_bind_recursive("/dev", target))?;
        instance.bind(&store.folder.join("nix"), "nix")?;
        let features = if release.has_nix_command() { "experimental-features = nix-command\n" } else { "" };
        exec::write_file(
            &root.join("etc/nix/nix.conf"),
            // No network and no build users here; a fixed key signs what is built.
            format!(
                "sandbox = false\nbuild-users-group =\nsubstituters =\ntrusted-users = root {}\n{features}",
                User::Trusted.name()
            ),
        )?;
        User::add_all(&instance)?;
        Ok(instance)
    }

    fn add_mount(&mut self, name: &str, make: impl Fn(&Path) -> rustix::io::Result<()>) -> Result<()> {
        let target = self.root.join(name);
        exec::make_folder(&target)?;
        make(&target).with_context(|| format!("cannot mount {}", target.display()))?;
        self.mounts.push(target);
        Ok(())
    }

    /// Shows a folder of the host at `name` inside.
    pub(crate) fn bind(&mut self, from: &Path, name: &str) -> Result<()> {
        self.add_mount(name, |target| mount_bind_recursive(from, target))
    }

    /// Shows the whole host at `/host` inside, so that a forced ssh command may `chroot /host` back to it.
    pub(crate) fn bind_host(&mut self) -> Result<()> {
        self.add_mount("host", |target| mount_bind_recursive("/", target))
    }

    /// Makes the file `inside` start a program of the host: the instance sees the host under /host, and a script goes back there.
    pub(crate) fn lend(&mut self, program: &str, inside: &str) -> Result<()> {
        self.bind_host()?;
        let file = self.path(inside);
        exec::make_folder(file.parent().context("a folder")?)?;
        let script = format!("#!/bin/sh\nexec /usr/sbin/chroot /host /usr/bin/env {program} \"$@\"\n");
        exec::write_file(&file, script)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("cannot make {} executable", file.display()))
    }

    /// Where the host sees a file of this instance.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.root.join(inside.trim_start_matches('/'))
    }

    /// Writes an executable script of bash.
    pub(crate) fn script(&self, name: &str, body: &str) -> Result<()> {
        let file = self.path(name);
        exec::write_file(&file, format!("#!/bin/bash\n{body}"))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("cannot make {} executable", file.display()))
    }

    /// A program inside, as root, with a clean environment.
    pub(crate) fn command(&self, program: &str) -> Command {
        self.command_as(User::Root, program)
    }

    /// The same for anybody.
    ///
    /// Not a plain chroot: children of Nix 2.8.0 return to the mount namespace's own root (setns) before they start ssh, and
    /// so out of any chroot. The root of this instance becomes the root of a namespace, see [`enter`].
    pub(crate) fn command_as(&self, user: User, program: &str) -> Command {
        let mut command = Command::new("unshare");
        // /proc/1/exe is this program (process 1 of the namespace), also when a build has replaced its file meanwhile.
        command.args(["--mount", "--", "/proc/1/exe", "enter", "--user", &user.id().to_string()]);
        command.arg(&self.root).arg(program);
        command.env_clear().envs(ENVIRONMENT).env("HOME", user.home()).env("USER", user.name());
        command
    }

    /// Nix's garbage collection.
    ///
    /// In a PID namespace of its own: the collector takes every path that any process has open for a root, and the laboratory
    /// of another release, with the same paths, may be at work next door.
    pub(crate) fn collect_garbage(&self) -> Result<()> {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--pid", "--fork", "--kill-child", "--"])
            .args(["/proc/1/exe", "enter", "--proc"])
            .arg(&self.root)
            .args(["nix-store", "--gc"])
            .env_clear()
            .envs(ENVIRONMENT)
            .env("HOME", User::Root.home());
        exec::capture(&mut command)?.success()?;
        Ok(())
    }

    /// Runs a program inside that may fail.
    pub(crate) fn try_run(&self, program: &str, arguments: &[&str]) -> Result<Finished> {
        exec::capture(self.command(program).args(arguments))
    }

    /// Runs a program inside that must succeed; its standard output.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let finished = self.try_run(program, arguments)?;
        Ok(finished.success().with_context(|| format!("in the root of {}", self.release))?.text())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if keep() {
            return;
        }
        for target in self.mounts.iter().rev() {
            // DETACH: takes submounts along, and a program that is still going cannot stop it.
            let _ = unmount(target, UnmountFlags::DETACH);
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Arguments of the hidden `cargo xtask enter`.
#[derive(clap::Args)]
pub(crate) struct Enter {
    /// Mount a /proc of this PID namespace.
    #[arg(long)]
    proc: bool,
    /// The number of the user and of the group to become.
    #[arg(long, default_value_t = 0)]
    user: u32,
    root: PathBuf,
    program: PathBuf,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Makes `root` the root of the (fresh) mount namespace, drops all that was outside, and becomes the program.
pub(crate) fn enter(options: &Enter) -> Result<()> {
    let root = &options.root;
    std::env::set_current_dir(root).with_context(|| format!("cannot enter {}", root.display()))?;
    if options.proc {
        mount("proc", "proc", "proc", MountFlags::empty(), None).context("cannot mount /proc")?;
    }
    // Old root below the new one at the same place, then the upper of the two removed: no folder for the old root is needed.
    pivot_root(".", ".").context("cannot change the root")?;
    unmount(".", UnmountFlags::DETACH).context("cannot leave the old root")?;
    chroot(".").context("cannot enter the new root")?;
    std::env::set_current_dir("/").context("no root")?;
    let mut program = Command::new(&options.program);
    let error = program.args(&options.arguments).uid(options.user).gid(options.user).exec();
    Err(error).with_context(|| format!("cannot start {}", options.program.display()))
}

/// Set by `--keep`; drops take no arguments.
static KEEP: AtomicBool = AtomicBool::new(false);

/// From now on nothing is removed or unmounted.
pub(crate) fn keep_everything() {
    KEEP.store(true, Ordering::Relaxed);
}

fn keep() -> bool {
    KEEP.load(Ordering::Relaxed)
}
