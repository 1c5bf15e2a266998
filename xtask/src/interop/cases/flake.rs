//! Our flake, as the configuration of a system has it: evaluated and built by real Nix. `testdata/flake` has the system, and what
//! it needs of nixpkgs.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::Outcome;
use crate::exec;
use crate::instance::LabStore;
use crate::interop::kit;
use crate::interop::lab::Lab;
use crate::namespace;
use crate::roots::Release;

/// Where an instance has `testdata/flake`, and beside it our flake. The flakes name it.
const PLACE: &str = "/lab/flake";

/// What has a module of ours.
const KINDS: [&str; 3] = ["nixos", "darwin", "home"];

pub(super) fn flake(lab: &Lab<'_>) -> Result<Outcome> {
    if lab.release == Release::Bullseye {
        return Ok(Outcome::skip("Nix 2.3 knows no flakes"));
    }
    if lab.candidate.lenient {
        return Ok(Outcome::skip("upstream's program is not what the modules bring"));
    }
    let store = LabStore::create("flake", lab.release.name())?;
    let mut instance = lab.inspect(&store)?;
    instance.bind(lab.kit.folder(), kit::PLACE)?;
    let workspace = namespace::workspace();
    lay(&workspace, &instance.path(PLACE).join("ours"))?;
    lay(&workspace.join("testdata/flake"), &instance.path(PLACE))?;

    let nix = |arguments: &[&str]| {
        let features = ["--extra-experimental-features", "nix-command flakes"];
        instance.run("nix", &[&features, arguments, &["--no-write-lock-file"]].concat())
    };
    let [ours, nixpkgs, system] = ["ours", "nixpkgs", "system"].map(|name| format!("path:{PLACE}/{name}"));
    // Builds what the flake calls its checks too.
    nix(&["flake", "check", &ours, "--override-input", "nixpkgs", &nixpkgs])?;
    nix(&["flake", "check", &system])?;

    nix(&["build", &system, "--out-link", "/lab/built"])?;

    let version = instance.run(&kit::program(), &["--version"])?;
    let mut wrong = Vec::new();
    for kind in KINDS {
        // What the module installs, `nix.package`, a program that has that in it, and `nix.package` with the face.
        let [installed, joined, rebuild, face] =
            ["installed", "nix", "rebuild", "face"].map(|part| format!("/lab/built/{kind}/{part}"));
        let mut expect = |what: &str, expected: &str, found: &str| {
            if found != expected {
                wrong.push(format!("{kind}: {what}: '{found}' in the place of '{expected}'"));
            }
        };
        for name in ["nix-copy-closure", "ncc"] {
            let said = instance.run(&format!("{installed}/bin/{name}"), &["--version"])?;
            expect(&format!("the installed {name}"), &version, &said);
        }
        // The program that puts its Nix first in PATH, as nixos-rebuild does.
        let rebuild = format!("{rebuild}/bin/nixos-rebuild");
        let called = |name| instance.run(&rebuild, &[name, "--version"]);
        expect("nix-copy-closure of nixos-rebuild", &version, &called("nix-copy-closure")?);
        expect("ncc of nixos-rebuild", &version, &called("ncc")?);
        expect("nix of nixos-rebuild", "their nix --version", &called("nix")?);
        expect("nix-store of nixos-rebuild", "their nix --version", &called("nix-store")?);

        let real = |path: String| instance.run("readlink", &["-f", &path]);
        let page = "share/man/man1/nix-copy-closure.1";
        let page_of_ours = real(format!("{installed}/{page}"))?;
        expect("the manual page in Nix", &page_of_ours, &real(format!("{joined}/{page}"))?);

        // With the face, `nix` is ours, and told which one is theirs. (The stand-in for our package forgets its name, so that
        // what is done under that name is not seen here.)
        let wrapper = instance.run("cat", &[&format!("{face}/bin/nix")])?;
        let theirs = instance.run("grep", &["-o", "NCC_NIX-/nix/store/[^}]*", &format!("{face}/bin/nix")])?;
        let theirs = theirs.trim_start_matches("NCC_NIX-");
        expect("nix that the face hands on to", "their nix x", &instance.run(theirs, &["x"])?);
        if !wrapper.contains(&format!("exec -a nix {}/bin/nix-copy-closure", real(installed.clone())?)) {
            wrong.push(format!("{kind}: the face is not ours: {wrapper}"));
        }
    }
    Ok(Outcome::of(wrong))
}

/// Copies the files at or below `folder` that are part of the project, which a build's are not.
fn lay(folder: &Path, to: &Path) -> Result<()> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(folder);
    let list = exec::capture(&mut git)?.success().context("which files are the project's, only git knows")?;
    for name in list.text().split_terminator('\0') {
        let (from, to) = (folder.join(name), to.join(name));
        // One that was removed and is still in the index.
        if from.is_file() {
            exec::make_folder(to.parent().context("a file is in a folder")?)?;
            fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        }
    }
    Ok(())
}
