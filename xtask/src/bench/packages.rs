//! Closures of real files: the packages of a Debian, one to a store path.
//!
//! What a real build has and noise has not: content that compresses as programs do, and paths of the store inside of files, of the
//! path itself and of what it refers to. A second build of the same differs from the first in these alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::cases::Build;
use super::closures::{Written, register};
use crate::apt::Apt;
use crate::instance::{Instance, LabStore};
use crate::roots::{self, Release};
use crate::{exec, namespace, wire};

/// With all that they need: about 250 packages, 1.3 GB.
const WANTED: [&str; 8] =
    ["build-essential", "clang", "git", "golang-go", "nodejs", "postgresql", "python3", "vim"];

/// Changes when the way they are unpacked changes.
const RECIPE: &str = "1";

/// Of so many files of a path, one names the paths that it refers to.
const NAMING: usize = 8;

impl Build {
    const fn release(self) -> Release {
        match self {
            Self::Of(release) | Self::Again(release) => release,
        }
    }
}

/// An unpacked package.
struct Package {
    /// As Nix would call it: `bash-5.2.37-2`.
    name: String,
    folder: PathBuf,
    depends: Vec<String>,
}

/// Puts a build of the packages into the store. Gives the one path that refers to all.
pub(super) fn build(instance: &Instance, store: &LabStore, build: Build) -> Result<String> {
    let packages = unpacked(build.release())?;
    let path_of = |name: &str| wire::store_path_of(&format!("bench-{build:?}-{name}"), name);
    let mut written: Vec<Written> = Vec::new();
    let mut done: BTreeSet<&str> = BTreeSet::new();
    for package in in_order(&packages) {
        let Package { name, folder, depends } = &packages[package];
        let path = path_of(name);
        // What comes later is part of a circle, which a store cannot have.
        let references: Vec<String> = depends
            .iter()
            .filter(|depends| done.contains(depends.as_str()))
            .map(|depends| path_of(&packages[depends].name))
            .collect();
        let place = store.real(&path);
        exec::run("cp", [Path::new("-a"), Path::new("--reflink=auto"), folder, &place])?;
        name_paths(&place, &[std::slice::from_ref(&path), &references].concat())?;
        written.push(Written { path, references });
        done.insert(package);
    }
    let root = path_of("system");
    let references: Vec<String> = written.iter().map(|written| written.path.clone()).collect();
    exec::write_file(&store.real(&root), references.join("\n"))?;
    written.push(Written { path: root.clone(), references });
    register(instance, &written)?;
    Ok(root)
}

/// Each behind what it depends on, as far as there are no circles.
fn in_order(packages: &BTreeMap<String, Package>) -> Vec<&str> {
    fn visit<'a>(
        name: &str,
        packages: &'a BTreeMap<String, Package>,
        seen: &mut BTreeSet<&'a str>,
        order: &mut Vec<&'a str>,
    ) {
        let Some((name, package)) = packages.get_key_value(name) else { return };
        if seen.insert(name) {
            for depends in &package.depends {
                visit(depends, packages, seen, order);
            }
            order.push(name);
        }
    }
    let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
    for name in packages.keys() {
        visit(name, packages, &mut seen, &mut order);
    }
    order
}

/// Puts the paths at the end of some of the files, as compilers and wrappers leave them in real ones.
fn name_paths(folder: &Path, paths: &[String]) -> Result<()> {
    let mut files = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(folder) = pending.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                pending.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    let text = format!("\n{}\n", paths.join("\n"));
    for file in files.iter().step_by(NAMING) {
        let mut open = fs::OpenOptions::new()
            .append(true)
            .open(file)
            .with_context(|| format!("cannot open {}", file.display()))?;
        open.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// The packages of a release by name, unpacked once and kept.
fn unpacked(release: Release) -> Result<BTreeMap<String, Package>> {
    let folder = namespace::cache_folder().join("packages");
    exec::make_folder(&folder)?;
    let _lock = namespace::lock_file(&folder.join(format!("{release}.lock")))?;
    let (trees, list) = (folder.join(release.name()), folder.join(format!("{release}.list-{RECIPE}")));
    if !list.exists() {
        if trees.exists() {
            fs::remove_dir_all(&trees).with_context(|| format!("cannot remove {}", trees.display()))?;
        }
        exec::make_folder(&trees)?;
        let apt = Apt::update(&folder.join(format!("{release}.apt")), release.name(), &[])?;
        let mut text = String::new();
        for file in apt.download(&apt.resolve(&WANTED)?)? {
            let (name, version) = (field(&file, "Package")?, field(&file, "Version")?);
            let depends = [field(&file, "Pre-Depends")?, field(&file, "Depends")?].join(", ");
            let tree = trees.join(&name);
            exec::make_folder(&tree)?;
            roots::extract(&file, &tree)?;
            let _ = writeln!(text, "{name}\t{version}\t{}", names(&depends).join(" "));
        }
        fs::remove_dir_all(folder.join(format!("{release}.apt"))).context("cannot remove the packages")?;
        exec::write_file(&list, text)?;
    }
    let text = fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    let mut packages = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split('\t');
        let (Some(name), Some(version), Some(depends)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let version: String = version
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || ".+-_".contains(c) { c } else { '.' })
            .collect();
        let depends = depends.split_whitespace().map(str::to_owned).collect();
        let package = Package { name: format!("{name}-{version}"), folder: trees.join(name), depends };
        packages.insert(name.to_owned(), package);
    }
    ensure!(!packages.is_empty(), "{} lists no packages", list.display());
    Ok(packages)
}

fn field(package: &Path, name: &str) -> Result<String> {
    let mut command = Command::new("dpkg-deb");
    Ok(exec::capture(command.arg("--field").arg(package).arg(name))?.success()?.text())
}

/// The names in `a (>= 1) | b, c:any`, the first of each choice.
fn names(depends: &str) -> Vec<&str> {
    let name = |choice: &'_ str| choice.split([' ', '(', '|', ':']).next().unwrap_or_default().len();
    let choices = depends.split(',').map(str::trim).filter(|choice| !choice.is_empty());
    choices.map(|choice| &choice[..name(choice)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_dependencies() {
        assert_eq!(
            names("libc6 (>= 2.38), debconf (>= 0.5) | debconf-2.0, perl:any, "),
            ["libc6", "debconf", "perl"]
        );
        assert_eq!(names(", "), [""; 0]);
    }
}
