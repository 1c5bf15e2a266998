//! The candidate with all that it needs to run in a root that is older than what it was linked with.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::exec;
use crate::namespace;

/// Where an instance has it.
pub(crate) const PLACE: &str = "candidate";

/// A folder with the candidate, its libraries, their loader, and a script that brings these together.
#[derive(Debug)]
pub(crate) struct Kit {
    folder: PathBuf,
}

impl Kit {
    /// Gathers what `binary` is linked with on this machine.
    pub(crate) fn gather(binary: &Path) -> Result<Self> {
        let folder = namespace::run_folder().join(PLACE);
        exec::make_folder(&folder)?;
        let copy = |from: &Path, name: &OsStr| {
            fs::copy(from, folder.join(name)).with_context(|| format!("cannot copy {}", from.display()))
        };
        copy(binary, OsStr::new("program"))?;
        let mut command = format!("/{PLACE}/program");
        // Of a program that is linked statically it lists nothing, and fails in some versions.
        let list = exec::capture(Command::new("ldd").arg(binary))?.text();
        for line in list.lines() {
            let Some(file) = line.split_whitespace().find(|word| word.starts_with('/')) else { continue };
            let name = Path::new(file).file_name().context("a library without a name")?;
            copy(Path::new(file), name)?;
            // The loader alone is not looked for by a name.
            if !line.contains("=>") {
                let loader = name.display();
                command = format!("/{PLACE}/{loader} --library-path /{PLACE} /{PLACE}/program");
            }
        }
        let script = folder.join("nix-copy-closure");
        exec::write_file(&script, format!("#!/bin/sh\nexec {command} \"$@\"\n"))?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("cannot make {} executable", script.display()))?;
        Ok(Self { folder })
    }

    /// What an instance is to have at [`PLACE`].
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// What to start inside.
pub(crate) fn program() -> String {
    format!("/{PLACE}/nix-copy-closure")
}
