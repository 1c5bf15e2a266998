//! The layer rule: which of our crates may know which. Checked over `cargo metadata`, dev-dependencies aside.

use anyhow::{Result, ensure};

use crate::metadata::Metadata;

/// Every crate of ours, and those of ours that it may depend on. The prefix `ncc-` is left out.
const ALLOWED: [(&str, &[&str]); 15] = [
    ("store", &[]),
    ("nar", &[]),
    ("transport", &[]),
    ("closure", &["store"]),
    ("settings", &["store"]),
    ("protocol", &["nar", "store"]),
    ("transport-ssh", &["transport"]),
    ("transport-ssh2", &["transport"]),
    ("local-store", &["nar", "store"]),
    ("remote-store", &["protocol", "transport", "nar", "store"]),
    ("copy", &["closure", "nar", "store"]),
    ("progress", &["copy", "store"]),
    // `progress` for sizes in words.
    ("picture", &["closure", "copy", "progress", "store"]),
    (
        "nix-copy-closure",
        &[
            "copy",
            "picture",
            "progress",
            "local-store",
            "remote-store",
            "settings",
            "transport",
            "transport-ssh",
            "transport-ssh2",
            // For `--serve`, and for the words in which a store is spoken of.
            "protocol",
            "store",
        ],
    ),
    // The demo makes a store of its own.
    ("xtask", &["local-store", "nar", "store"]),
];

/// Fails with every dependency that the rule does not allow.
pub(crate) fn check(metadata: &Metadata) -> Result<()> {
    let mut broken = Vec::new();
    for package in metadata.members() {
        let name = package.name();
        let short = name.trim_start_matches("ncc-");
        let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| *known == short) else {
            broken.push(format!("{name} has no place in the layer rule (xtask/src/layers.rs)"));
            continue;
        };
        for dependency in package.own_dependencies() {
            if !allowed.contains(&dependency.trim_start_matches("ncc-")) {
                broken.push(format!("{name} must not depend on {dependency}"));
            }
        }
    }
    ensure!(broken.is_empty(), "the layer rule is broken:\n  {}", broken.join("\n  "));
    Ok(())
}
