//! The same store used by real Nix and by this crate.

use std::{fs, sync::Arc};

use futures_util::StreamExt as _;
use ncc_store::{Outcome, Outputs, SecretKey, Source as _, StorePath, test_util::MemoryStore};

use crate::support::*;

fn verify(root: &std::path::Path) {
    let output = nix(root, "nix-store", ["--verify", "--check-contents"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    for line in text.lines().filter(|line| !line.is_empty()) {
        let known = line.starts_with("reading the Nix store")
            || line.starts_with("checking path existence")
            || line.starts_with("checking link hashes")
            || line.starts_with("checking store hashes");
        assert!(known, "nix-store --verify complains: {text}");
    }
}

fn lines(text: &str) -> Vec<String> {
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn nix_finds_nothing_wrong_and_goes_on_using_it() {
    if !nix_is_here() {
        return;
    }
    let scratch = Scratch::new();
    let root = scratch.path();
    let memory = MemoryStore::new("memory");
    let library = memory.add("library", "code", &[]);
    let text = memory.add_text("text", "see library", &[library.clone()]);
    let program = memory.add_self_referring("program", &[library.clone()]);
    memory.sign(&program, &SecretKey::from_seed("key-1", &[1; 32]).unwrap());
    let nar = tree_nar(b"#!/bin/sh\n");
    let mut tree = output("tree", &nar);
    tree.references = [text.clone(), program.clone()].into_iter().collect();
    memory.insert(tree.clone(), nar.clone());
    let store = scratch.store();
    fill(&store, &memory).await;

    verify(&root);
    let expected = lines(&[&library, &text, &program, &tree.path].map(full).join("\n"));
    assert_eq!(lines(&nix_ok(&root, "nix-store", ["-qR", &full(&tree.path)])), expected);
    let hash = nix_ok(&root, "nix-store", ["-q", "--hash", &full(&tree.path)]);
    assert_eq!(hash.trim(), tree.nar_hash.to_string());
    let dumped = std::process::Command::new("nix-store")
        .arg("--dump")
        .arg(store.real_path(&tree.path))
        .output()
        .unwrap();
    assert!(dumped.stdout == nar, "nix-store --dump gives the same NAR");

    // Nix adds, with our store open.
    let file = root.join("file");
    fs::write(&file, "theirs").unwrap();
    let added = nix_ok(&root, "nix-store", ["--add", file.to_str().unwrap()]);
    let added = store.store_dir().parse(added.trim()).unwrap();
    let info = store.query_path_info(&added).unwrap().unwrap();
    assert!(info.content_address_gives_path(store.store_dir()));
    assert_eq!(store.add_tree("file", &file, []).unwrap(), info, "the same path by the same content");
    assert_eq!(assert_sound(&store), 5);
    verify(&root);
}

#[tokio::test]
async fn the_collector_heeds_our_roots() {
    if !nix_is_here() {
        return;
    }
    let scratch = Scratch::new();
    let root = scratch.path();
    let memory = MemoryStore::new("memory");
    let kept = memory.add("kept", "x", &[]);
    let garbage = memory.add("garbage", "y", &[]);
    fill(&scratch.store(), &memory).await;

    let store = scratch.store();
    store.add_temp_roots(std::slice::from_ref(&kept)).unwrap();
    // Unregistered, and rooted like what is just being written.
    let partial = output("partial", b"").path;
    store.add_temp_roots(std::slice::from_ref(&partial)).unwrap();
    fs::write(store.real_path(&partial), "half").unwrap();
    nix_ok(&root, "nix-store", ["--gc"]);
    assert_eq!(registered(&store), [kept.clone()]);
    assert!(store.real_path(&partial).exists());
    assert!(!store.real_path(&garbage).exists());
    // A path that is gone can come again.
    let outcomes = add_all(&store, &memory).await;
    assert!(outcomes.iter().any(|outcome| matches!(outcome, Ok(Outcome::Added(path)) if *path == garbage)));
    let refused = nix(&root, "nix-store", ["--delete", &full(&kept)]);
    assert!(!refused.status.success(), "alive as long as we are");

    drop(store);
    nix_ok(&root, "nix-store", ["--delete", &full(&kept)]);
    nix_ok(&root, "nix-store", ["--gc"]);
    let store = scratch.store();
    assert_eq!(registered(&store), []);
    assert_eq!(on_disk(&store), [""; 0]);
    let reserved = store.state_dir().join("db/reserved");
    assert_eq!(fs::metadata(reserved).unwrap().len(), 8 << 20, "made again after the collection");
}

/// It was, where we had looked at the header of the database file and closed it again: Nix, which closed its connection
/// as if it were the last, took the write-ahead log away with all that was to come.
#[test]
fn what_is_registered_while_nix_comes_and_goes_is_not_lost() {
    if !nix_is_here() {
        return;
    }
    let scratch = Scratch::new();
    let root = scratch.path();
    let nar = ncc_store::test_util::file_nar(b"x");
    let store = scratch.store();
    let again = scratch.store();
    for name in ["a", "b", "c"] {
        let info = output(name, &nar);
        store.add_nar(&info, &mut &nar[..]).unwrap();
        nix_ok(&root, "nix-store", ["--query", "--hash", &full(&info.path)]);
        assert!(store.state_dir().join("db/db.sqlite-wal").exists(), "two stores have it open");
    }
    drop((store, again));
    assert_eq!(registered(&scratch.store()).len(), 3);
}

const EXPRESSION: &str = r#"
let
  dep = derivation { name = "dep"; system = builtins.currentSystem; builder = "/bin/sh"; outputs = [ "out" "dev" ]; };
  fixed = derivation { name = "fixed"; system = builtins.currentSystem; builder = "/bin/sh";
    outputHashMode = "recursive"; outputHashAlgo = "sha256";
    outputHash = "0000000000000000000000000000000000000000000000000000"; };
in derivation { name = "top"; system = builtins.currentSystem; builder = "/bin/sh";
  args = [ (builtins.toFile "script" "echo hi") ]; inherit dep fixed; inherit (dep) dev; outputs = [ "lib" "out" ]; }
"#;

#[tokio::test]
async fn rows_are_those_that_nix_copy_writes() {
    if !nix_is_here() {
        return;
    }
    let [a, b, c] = [Scratch::new(), Scratch::new(), Scratch::new()];
    let top = nix_ok(&a.path(), "nix-instantiate", ["-E", EXPRESSION]);
    // The name of an output may stand behind it.
    let top = top.split(['!', '\n']).next().unwrap().to_owned();
    let file = a.path().join("file");
    fs::write(&file, "theirs").unwrap();
    let added = nix_ok(&a.path(), "nix-store", ["--add", file.to_str().unwrap()]);
    let flat = nix_ok(&a.path(), "nix-store", ["--add-fixed", "sha1", file.to_str().unwrap()]);
    let roots: Vec<&str> = [&top, &added, &flat].iter().map(|path| path.trim()).collect();

    let (from, to) =
        (format!("local?root={}", a.path().display()), format!("local?root={}", b.path().display()));
    let copy = ["copy", "--no-check-sigs", "--from", &from, "--to", &to];
    nix_ok(&b.path(), "nix", copy.into_iter().chain(["--derivation", roots[0]]));
    nix_ok(&b.path(), "nix", copy.into_iter().chain(roots[1..].iter().copied()));

    let source = open_read_only(&a.path());
    let paths: Vec<StorePath> = roots.iter().map(|path| source.store_dir().parse(path).unwrap()).collect();
    let infos = source.closure(&paths, Outputs::Exclude).await.unwrap().complete().unwrap();
    // References first, and nothing built here.
    let mut sorted = Vec::new();
    let mut left = infos;
    while !left.is_empty() {
        let waiting: Vec<_> = left.iter().map(|info| info.path.clone()).collect();
        let (ready, rest) =
            left.into_iter().partition(|info| info.other_references().all(|path| !waiting.contains(path)));
        let ready: Vec<ncc_store::PathInfo> = ready;
        sorted.extend(ready.into_iter().map(|mut info| {
            info.ultimate = false;
            Arc::new(info)
        }));
        left = rest;
    }
    let destination = c.store();
    let outcomes: Vec<_> = add_from(&destination, &source, sorted.into()).collect().await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(Outcome::Added(_)))), "{outcomes:?}");

    let theirs = open(&b.path());
    for query in [
        "select path, hash, deriver, narSize, ultimate, sigs, ca from ValidPaths order by path",
        "select a.path, b.path from Refs join ValidPaths a on a.id = referrer join ValidPaths b on b.id = reference \
         order by 1, 2",
        "select v.path, d.id, d.path from DerivationOutputs d join ValidPaths v on v.id = drv order by 1, 2",
    ] {
        let (ours, theirs) = (rows(&destination, query), rows(&theirs, query));
        assert!(!ours.is_empty());
        assert_eq!(ours, theirs, "{query}");
    }
    assert_eq!(on_disk(&destination), on_disk(&theirs));
    verify(&c.path());
}
