//! The layer rule: which of our crates knows which. Checked over `cargo metadata`, dev-dependencies aside.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use crate::metadata::Metadata;

/// Every crate of ours, and those of ours that it depends on. The prefix `ncc-` is left out.
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
    ("remote-store", &["protocol", "transport", "store"]),
    ("copy", &["closure", "store"]),
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

/// Fails with every dependency that the rule does not allow, and with everything it allows that is not there: a rule wider than
/// the truth would let a layer in unseen.
pub(crate) fn check(metadata: &Metadata) -> Result<()> {
    let mut broken = Vec::new();
    for package in metadata.members() {
        let name = package.name();
        let short = name.trim_start_matches("ncc-");
        let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| *known == short) else {
            broken.push(format!("{name} has no place in the layer rule (xtask/src/layers.rs)"));
            continue;
        };
        let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
        let there: BTreeSet<&str> =
            package.own_dependencies().map(|name| name.trim_start_matches("ncc-")).collect();
        broken.extend(there.difference(&allowed).map(|other| format!("{name} must not depend on {other}")));
        broken.extend(
            allowed.difference(&there).map(|other| {
                format!("{name} does not depend on {other}: take it out of xtask/src/layers.rs")
            }),
        );
    }
    ensure!(broken.is_empty(), "the layer rule is broken:\n  {}", broken.join("\n  "));
    Ok(())
}
