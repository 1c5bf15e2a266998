//! What the registry shows of a crate: every one that is published says it.

use anyhow::{Result, ensure};

use crate::metadata::{Metadata, Package};

/// Fails with everything that a manifest lacks, or that the registry would refuse.
pub(crate) fn check(metadata: &Metadata) -> Result<()> {
    let mut problems = Vec::new();
    for package in metadata.members().filter(Package::is_published) {
        let mut lacks = |what: &str| problems.push(format!("{}: {what}", package.name()));
        for field in ["description", "license", "readme", "rust_version"] {
            if package.field(field).is_empty() {
                lacks(&format!("no {field}"));
            }
        }
        // The README has an example that is compiled, or says how to install the program.
        if !package.folder().join(package.field("readme")).is_file() {
            lacks("its README is not there");
        }
        let keywords: Vec<&str> = package.list("keywords").collect();
        if !(1..=5).contains(&keywords.len()) || keywords.iter().any(|word| word.len() > 20) {
            lacks("one to five keywords of at most 20 letters");
        }
        if !(1..=5).contains(&package.list("categories").count()) {
            lacks("one to five categories");
        }
    }
    ensure!(problems.is_empty(), "manifests:\n  {}", problems.join("\n  "));
    Ok(())
}
