//! What every dependency has to be: used, under a licence that the program can have, from a registry, and content with the
//! Rust version that the crate promises.
//!
//! There are programs for parts of this. They are not used because a machine that has nothing but Rust would build them first,
//! which on two cores takes three minutes (cargo-machete) to ten (cargo-deny), for what a hundred lines do at once and
//! offline. An advisory database cannot be had offline at all.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use crate::metadata::{Kind, Metadata, Package};

/// Licences that a program under "MIT OR Apache-2.0" can include.
const ALLOWED: [&str; 10] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
];

/// Fails with everything that is wrong with a dependency.
pub(crate) fn check(metadata: &Metadata) -> Result<()> {
    let mut problems = BTreeSet::new();
    for package in metadata.packages() {
        problems.extend(licence(&package).into_iter().chain(origin(&package)));
    }
    for member in metadata.members() {
        problems.extend(unused(metadata, &member)?);
        problems.extend(rust_versions(metadata, &member));
    }
    ensure!(
        problems.is_empty(),
        "dependencies:\n  {}",
        problems.into_iter().collect::<Vec<_>>().join("\n  ")
    );
    Ok(())
}

fn licence(package: &Package<'_>) -> Option<String> {
    let name = package.name();
    let Some(licence) = package.licence() else { return Some(format!("{name}: says no licence")) };
    let problem = format!("{name}: licence '{licence}' is not on the list (xtask/src/dependencies.rs)");
    (!allows(licence)).then_some(problem)
}

/// Whether an SPDX expression can be met: one of the words around `OR` (older: `/`) is, which all around `AND` are.
fn allows(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    expression.split(" AND ").all(|part| {
        part.trim_matches(['(', ')', ' '])
            .split(" OR ")
            .any(|word| ALLOWED.contains(&word.trim_matches(['(', ')', ' '])))
    })
}

fn origin(package: &Package<'_>) -> Option<String> {
    let source = package.source()?;
    (!source.starts_with("registry+")).then(|| format!("{}: comes from '{source}'", package.name()))
}

/// Dependencies that no source file names. What the crate itself needs must be named by the crate itself, not by its tests.
fn unused(metadata: &Metadata, member: &Package<'_>) -> Result<Vec<String>> {
    let folder = member.folder();
    let mut library = Vec::new();
    sources(&folder.join("src"), &mut library)?;
    let mut tests = Vec::new();
    for name in ["tests", "benches", "examples"] {
        sources(&folder.join(name), &mut tests)?;
    }
    let in_library = words(&library)?;
    // Unit tests and the examples in the README are tests as well.
    let mut in_all = words(&tests)?;
    in_all.extend(in_library.iter().cloned());
    let readme = folder.join("README.md");
    if readme.is_file() {
        in_all.extend(words(&[readme])?);
    }
    let mut problems = Vec::new();
    for (name, kind) in metadata.dependencies(member) {
        let (used, place) = match kind {
            Kind::Normal => (in_library.contains(&name), "src"),
            Kind::Dev => (in_all.contains(&name), "any file"),
            // Build scripts: there are none, so what they need is not needed.
            Kind::Build => (false, "a build script"),
        };
        if !used {
            problems.push(format!("{}: {place} does not name {name}: remove the dependency", member.name()));
        }
    }
    Ok(problems)
}

/// Adds every Rust file at or below `folder`, which need not exist.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    let context = || format!("cannot list {}", folder.display());
    for entry in fs::read_dir(folder).with_context(context)? {
        let path = entry.with_context(context)?.path();
        if path.is_dir() {
            sources(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

/// All identifiers in these files, comments aside: a crate that only a comment mentions is not used. Lines of doc comments
/// stay, since the examples in them are compiled.
fn words(files: &[PathBuf]) -> Result<BTreeSet<String>> {
    let mut words = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let is_comment = |line: &str| {
            let line = line.trim_start();
            line.starts_with("//") && !line.starts_with("///") && !line.starts_with("//!")
        };
        for line in text.lines().filter(|line| !is_comment(line)) {
            let identifiers = line.split(|character: char| !character.is_alphanumeric() && character != '_');
            words.extend(identifiers.map(str::to_owned));
        }
    }
    Ok(words)
}

/// Dependencies that want a newer Rust than the crate says it is content with. Those of tests are left aside: who uses the crate
/// does not build them.
fn rust_versions(metadata: &Metadata, member: &Package<'_>) -> Vec<String> {
    let name = member.name();
    let Some(promised) = member.rust_version() else { return vec![format!("{name}: says no rust-version")] };
    let too_new = metadata.needed_by(member).into_iter().filter_map(|package| {
        let wanted = package.rust_version().filter(|wanted| *wanted > promised)?;
        let (package, (major, minor)) = (package.name(), wanted);
        Some(format!("{name}: {package} wants Rust {major}.{minor}, newer than its own rust-version"))
    });
    too_new.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        for good in ["MIT", "MIT OR GPL-3.0", "Unlicense/MIT", "(MIT OR Apache-2.0) AND Unicode-3.0"] {
            assert!(allows(good), "{good}");
        }
        for bad in ["GPL-3.0-only", "MIT AND GPL-3.0-only", ""] {
            assert!(!allows(bad), "{bad}");
        }
    }

    #[test]
    fn comments_name_nothing() -> Result<()> {
        let file = std::env::temp_dir().join(format!("ncc-xtask-words-{}.rs", std::process::id()));
        fs::write(&file, "use first::thing;\n    // like second\n/// third::call()\n")?;
        let found = words(std::slice::from_ref(&file));
        fs::remove_file(&file)?;
        let found = found?;
        assert!(found.contains("first") && found.contains("third") && !found.contains("second"));
        Ok(())
    }
}
