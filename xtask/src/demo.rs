//! `cargo xtask demo`: the main job on a machine with nothing but Rust.
//!
//! The built program and the shared libraries it needs become a real closure in a store made for it; the program copies
//! that to a second store through `--to localhost`; both sides are shown; a second run sends nothing.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use ncc_local_store::{Access, LocalStore, LocalStoreConfig};
use ncc_store::{Outputs, PathInfo, StorePath};

use crate::exec;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where the two stores are made; what an earlier demo left there is removed
    #[arg(long, value_name = "DIR", default_value = "target/demo")]
    folder: PathBuf,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    println!("Building the program ...");
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--quiet", "--locked", "--profile", "fast", "--package", "nix-copy-closure"]);
    ensure!(cargo.status().context("cargo cannot be started")?.success(), "the program does not build");
    let program =
        Path::new("target/fast/nix-copy-closure").canonicalize().context("the built program is missing")?;

    exec::make_folder(&options.folder)?;
    let folder = options.folder.canonicalize()?;
    let (from, to, tree) = (folder.join("from"), folder.join("to"), folder.join("tree"));
    for old in [&from, &to, &tree] {
        if fs::symlink_metadata(old).is_ok() {
            ncc_nar::remove(old)?;
        }
    }

    println!("\n1. A store of its own in {}, with the program and all that it needs to run:\n", show(&from));
    let source = LocalStore::open(LocalStoreConfig::chroot(&from), Access::ReadWrite)?;
    let root = fill(&source, &program, &tree)?;
    let closure = contents(&source, &root)?;

    let text = source.store_dir().full(&root);
    println!("\n2. Copying its closure to {}:\n", show(&to));
    let first = copy(&program, &from, &to, &text)?;
    ensure!(first.contains(&format!("copying {} paths", closure.len())), "not all paths were sent");

    println!("\n3. What is there now:\n");
    let destination = LocalStore::open(LocalStoreConfig::chroot(&to), Access::ReadOnly)?;
    let copied = contents(&destination, &root)?;
    ensure!(same(&closure, &copied), "the two closures differ");
    let there = destination.real_path(&root).join("bin/nix-copy-closure");
    let version = exec::capture(Command::new(&there).arg("--version"))?.success()?.text();
    println!("\n   Same paths, same hashes. The copy runs: {}", version.trim());

    println!("\n4. The same command again:\n");
    let second = copy(&program, &from, &to, &text)?;
    ensure!(second.contains("copying 0 paths"), "the second run sent something");
    println!("   Nothing was sent: everything is there.");

    if exec::available("nix-store") {
        println!("\n5. What the real Nix on this machine thinks of the copy:\n");
        let mut verify = Command::new("nix-store");
        verify.arg("--store").arg(&to).args(["--verify", "--check-contents"]).env_remove("NIX_REMOTE");
        println!("   {}", exec::capture(&mut verify)?.success()?.stderr.trim().replace('\n', "\n   "));
    }
    Ok(())
}

/// The program with a link to it, and the libraries it is linked to, each a store path of its own.
fn fill(store: &LocalStore, program: &Path, tree: &Path) -> Result<StorePath> {
    let mut references = Vec::new();
    for (name, file) in libraries(program)? {
        references.push(store.add_tree(&name, &file, [])?.path);
    }
    exec::make_folder(&tree.join("bin"))?;
    fs::copy(program, tree.join("bin/nix-copy-closure"))?;
    std::os::unix::fs::symlink("nix-copy-closure", tree.join("bin/ncc"))?;
    Ok(store.add_tree(concat!("nix-copy-closure-", env!("CARGO_PKG_VERSION")), tree, references)?.path)
}

/// The shared libraries that the loader finds for a program, by name. None for a static program.
fn libraries(program: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let output = exec::capture(Command::new("ldd").arg(program))?;
    let mut libraries = BTreeMap::new();
    for word in String::from_utf8_lossy(&output.stdout).split_whitespace() {
        let file = Path::new(word);
        if let (true, Some(name)) = (file.is_absolute(), file.file_name()) {
            libraries.insert(name.to_string_lossy().into_owned(), file.canonicalize()?);
        }
    }
    Ok(libraries)
}

fn contents(store: &LocalStore, root: &StorePath) -> Result<Vec<PathInfo>> {
    let closure = store.query_closure(std::slice::from_ref(root), Outputs::Exclude)?;
    for info in &closure {
        let references = info.references.len();
        println!(
            "   {:>9} bytes  {references:>2} references  {}",
            info.nar_size,
            store.store_dir().full(&info.path)
        );
    }
    Ok(closure)
}

fn same(from: &[PathInfo], to: &[PathInfo]) -> bool {
    let key = |info: &PathInfo| (info.path.clone(), info.nar_hash, info.references.clone());
    from.iter().map(key).eq(to.iter().map(key))
}

/// Runs the program as a person would; gives what it said.
fn copy(program: &Path, from: &Path, to: &Path, path: &str) -> Result<String> {
    let mut command = Command::new(program);
    command.arg("--store").arg(from).args(["--to", "localhost", "--remote-store"]).arg(to).arg(path);
    println!(
        "   $ nix-copy-closure --store {} --to localhost --remote-store {} {path}",
        show(from),
        show(to)
    );
    let said = exec::capture(&mut command)?.success()?.stderr;
    for line in said.lines() {
        println!("   {line}");
    }
    Ok(said)
}

/// Paths as they are seen from the folder in which the demo was started.
fn show(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}
