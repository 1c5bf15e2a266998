//! What `cargo metadata` says about the workspace.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::exec;

/// All packages of the lock file, of every platform.
pub(crate) struct Metadata(Value);

/// One of them.
pub(crate) struct Package<'a>(&'a Value);

/// What a dependency is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Normal,
    /// Tests, benchmarks, examples.
    Dev,
    Build,
}

impl Kind {
    fn read(value: &Value) -> Self {
        match value.as_str() {
            Some("dev") => Self::Dev,
            Some("build") => Self::Build,
            _ => Self::Normal,
        }
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

impl Metadata {
    pub(crate) fn read() -> Result<Self> {
        Self::with(&["--all-features"])
    }

    /// As these arguments of cargo's narrow it down.
    pub(crate) fn with(arguments: &[&str]) -> Result<Self> {
        let mut cargo = Command::new("cargo");
        cargo.args(["metadata", "--format-version", "1", "--locked"]).args(arguments);
        let output = exec::capture(&mut cargo)?.success()?;
        Ok(Self(serde_json::from_slice(&output.stdout).context("cargo metadata is no JSON")?))
    }

    pub(crate) fn packages(&self) -> impl Iterator<Item = Package<'_>> {
        list(&self.0["packages"]).map(Package)
    }

    /// The crates of this workspace.
    pub(crate) fn members(&self) -> impl Iterator<Item = Package<'_>> {
        let members: BTreeSet<&str> = list(&self.0["workspace_members"]).filter_map(Value::as_str).collect();
        self.packages().filter(move |package| members.contains(package.id()))
    }

    /// Each dependency of `member`, by the name that its source has for it, and what it is for. Those on the crate itself, by
    /// which its tests get a feature, are left out.
    pub(crate) fn dependencies(&self, member: &Package<'_>) -> Vec<(String, Kind)> {
        let others =
            list(&member.0["dependencies"]).filter(|dependency| dependency["name"] != member.0["name"]);
        others
            .filter_map(|dependency| {
                let package = dependency["name"].as_str()?;
                // A library may have another name than its package.
                let found = self.packages().find(|other| other.name() == package);
                let library = found.and_then(|package| package.library()).unwrap_or(package);
                let name = dependency["rename"].as_str().unwrap_or(library).replace('-', "_");
                Some((name, Kind::read(&dependency["kind"])))
            })
            .collect()
    }

    /// Everything that is built for `member`, tests aside.
    pub(crate) fn needed_by(&self, member: &Package<'_>) -> Vec<Package<'_>> {
        let nodes: BTreeMap<&str, &Value> =
            list(&self.0["resolve"]["nodes"]).filter_map(|node| Some((node["id"].as_str()?, node))).collect();
        let mut needed = BTreeSet::new();
        let mut pending = vec![member.id()];
        while let Some(id) = pending.pop() {
            let dependencies = nodes.get(id).into_iter().flat_map(|node| list(&node["deps"]));
            for dependency in dependencies {
                let is_built =
                    list(&dependency["dep_kinds"]).any(|kind| Kind::read(&kind["kind"]) != Kind::Dev);
                if let Some(id) = dependency["pkg"].as_str().filter(|_| is_built)
                    && needed.insert(id)
                {
                    pending.push(id);
                }
            }
        }
        self.packages().filter(|package| needed.contains(package.id())).collect()
    }
}

impl<'a> Package<'a> {
    fn id(&self) -> &'a str {
        self.0["id"].as_str().unwrap_or_default()
    }

    pub(crate) fn name(&self) -> &'a str {
        self.0["name"].as_str().unwrap_or_default()
    }

    /// A field of the manifest that is one text; empty where there is none.
    pub(crate) fn field(&self, name: &str) -> &'a str {
        self.0[name].as_str().unwrap_or_default()
    }

    /// A field that is a list of texts.
    pub(crate) fn list(&self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        list(&self.0[name]).filter_map(Value::as_str)
    }

    pub(crate) fn is_published(&self) -> bool {
        // `publish = false` is a list of no registries.
        self.0["publish"].is_null()
    }

    fn library(&self) -> Option<&'a str> {
        let is_library = |target: &&Value| {
            list(&target["kind"])
                .filter_map(Value::as_str)
                .any(|kind| kind.contains("lib") || kind == "proc-macro")
        };
        list(&self.0["targets"]).find(is_library)?["name"].as_str()
    }

    /// Where its Cargo.toml is.
    pub(crate) fn folder(&self) -> PathBuf {
        let manifest = Path::new(self.0["manifest_path"].as_str().unwrap_or_default());
        manifest.parent().unwrap_or(manifest).to_path_buf()
    }

    pub(crate) fn licence(&self) -> Option<&'a str> {
        self.0["license"].as_str()
    }

    /// `None` for crates of the workspace.
    pub(crate) fn source(&self) -> Option<&'a str> {
        self.0["source"].as_str()
    }

    /// Major and minor number of the oldest Rust that it says it is content with.
    pub(crate) fn rust_version(&self) -> Option<(u32, u32)> {
        let mut numbers = self.0["rust_version"].as_str()?.split('.').map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    }

    /// Crates of this workspace among the dependencies, without those that only tests have.
    pub(crate) fn own_dependencies(&self) -> impl Iterator<Item = &'a str> {
        list(&self.0["dependencies"])
            .filter(|dependency| {
                dependency["path"].is_string() && Kind::read(&dependency["kind"]) != Kind::Dev
            })
            .filter_map(|dependency| dependency["name"].as_str())
    }
}
