//! What `cargo metadata` says about the workspace.

use std::{collections::BTreeSet, process::Command};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::exec;

/// All packages of the lock file that are built on this platform.
pub(crate) struct Metadata(Value);

/// One of them.
pub(crate) struct Package<'a>(&'a Value);

impl Metadata {
    pub(crate) fn read() -> Result<Self> {
        let mut cargo = Command::new("cargo");
        cargo.args(["metadata", "--format-version", "1", "--locked", "--all-features"]);
        let output = exec::capture(&mut cargo)?.success()?;
        Ok(Self(serde_json::from_slice(&output.stdout).context("cargo metadata is no JSON")?))
    }

    pub(crate) fn packages(&self) -> impl Iterator<Item = Package<'_>> {
        self.0["packages"].as_array().into_iter().flatten().map(Package)
    }

    /// The crates of this workspace.
    pub(crate) fn members(&self) -> impl Iterator<Item = Package<'_>> {
        let members: BTreeSet<&str> =
            self.0["workspace_members"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        self.packages().filter(move |package| package.0["id"].as_str().is_some_and(|id| members.contains(id)))
    }
}

impl<'a> Package<'a> {
    pub(crate) fn name(&self) -> &'a str {
        self.0["name"].as_str().unwrap_or_default()
    }

    pub(crate) fn licence(&self) -> Option<&'a str> {
        self.0["license"].as_str()
    }

    /// `None` for crates of the workspace.
    pub(crate) fn source(&self) -> Option<&'a str> {
        self.0["source"].as_str()
    }

    /// Crates of this workspace among the dependencies, without those that only tests have.
    pub(crate) fn own_dependencies(&self) -> impl Iterator<Item = &'a str> {
        let dependencies = self.0["dependencies"].as_array().into_iter().flatten();
        dependencies
            .filter(|dependency| dependency["path"].is_string() && dependency["kind"].as_str() != Some("dev"))
            .filter_map(|dependency| dependency["name"].as_str())
    }
}
