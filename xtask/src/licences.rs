//! The licences of everything that ends up in the program, and where it comes from.
//!
//! An advisory database cannot be had offline; what can be checked without one is checked here.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use crate::metadata::Metadata;

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

/// Fails with every package whose licence is not allowed, or that does not come from a registry or this workspace.
pub(crate) fn check(metadata: &Metadata) -> Result<()> {
    let mut problems = BTreeSet::new();
    for package in metadata.packages() {
        let name = package.name();
        match package.licence() {
            Some(licence) if allows(licence) => {}
            Some(licence) => {
                problems.insert(format!(
                    "{name}: licence '{licence}' is not on the list (xtask/src/licences.rs)"
                ));
            }
            None => {
                problems.insert(format!("{name}: says no licence"));
            }
        }
        if package.source().is_some_and(|source| !source.starts_with("registry+")) {
            problems.insert(format!("{name}: comes from '{}'", package.source().unwrap_or_default()));
        }
    }
    ensure!(
        problems.is_empty(),
        "licences and sources:\n  {}",
        problems.into_iter().collect::<Vec<_>>().join("\n  ")
    );
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::allows;

    #[test]
    fn expressions() {
        for good in ["MIT", "MIT OR GPL-3.0", "Unlicense/MIT", "(MIT OR Apache-2.0) AND Unicode-3.0"] {
            assert!(allows(good), "{good}");
        }
        for bad in ["GPL-3.0-only", "MIT AND GPL-3.0-only", ""] {
            assert!(!allows(bad), "{bad}");
        }
    }
}
