//! Equal files that become hard links of one.

use std::{fs, os::unix::fs::MetadataExt as _};

use ncc_local_store::{Access, LocalStore, LocalStoreConfig, Optimise};
use ncc_store::test_util::file_nar;

use crate::support::*;

fn optimising(scratch: &Scratch) -> LocalStore {
    let mut config = LocalStoreConfig::chroot(scratch.path());
    config.optimise = Optimise::NewObjects;
    LocalStore::open(config, Access::ReadWrite).unwrap()
}

#[test]
fn equal_files_of_new_objects_are_linked_as_nix_does_it() {
    let scratch = Scratch::new();
    let store = optimising(&scratch);
    let tree = tree_nar(b"#!/bin/sh\n");
    let bytes = file_nar(b"bytes");
    let (a, b, file) = (output("a", &tree), output("b", &tree), output("file", &bytes));
    for (info, nar) in [(&a, &tree), (&b, &tree), (&file, &bytes)] {
        store.add_nar(info, &mut &nar[..]).unwrap();
    }
    assert_eq!(assert_sound(&store), 3);
    let status = |path: &std::path::Path| fs::symlink_metadata(path).unwrap();
    let (a, b) = (store.real_path(&a.path), store.real_path(&b.path));
    for name in ["bin/run", "empty", "link"] {
        assert_eq!(status(&a.join(name)).ino(), status(&b.join(name)).ino(), "{name}");
        assert_eq!(status(&a.join(name)).nlink(), 3, "{name}");
    }
    let linked = status(&store.real_path(&file.path));
    assert_eq!(linked.nlink(), 4, "two trees, one object, one entry of .links");
    assert_eq!(linked.mode() & 0o7777, 0o444);
    for directory in [a.clone(), a.join("bin"), b.clone(), b.join("bin"), b.join("hollow")] {
        let status = status(&directory);
        assert_eq!((status.mode() & 0o7777, status.mtime()), (0o555, 1), "{}", directory.display());
    }
    assert_eq!(on_disk(&store).len(), 3, "{:?}", on_disk(&store));
    let links = || {
        let names = fs::read_dir(store.real_store_dir().join(".links")).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(links().len(), 4, "run, the empty file, the link and the bytes");
    let before = links();
    if nix_is_here() {
        nix_ok(&scratch.path(), "nix-store", ["--optimise"]);
        assert_eq!(links(), before, "Nix would have called them the same");
        assert_eq!(status(&store.real_path(&file.path)).ino(), linked.ino());
        nix_ok(&scratch.path(), "nix-store", ["--verify", "--check-contents"]);
    }
}

#[test]
fn a_damaged_entry_damages_nobody_else() {
    let scratch = Scratch::new();
    let store = optimising(&scratch);
    let nar = file_nar(b"good");
    let (a, b) = (output("a", &nar), output("b", &nar));
    store.add_nar(&a, &mut &nar[..]).unwrap();
    let first = store.real_path(&a.path);
    let mut permissions = fs::metadata(&first).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
    fs::set_permissions(&first, permissions.clone()).unwrap();
    fs::write(&first, "evil").unwrap();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o444);
    fs::set_permissions(&first, permissions).unwrap();
    store.add_nar(&b, &mut &nar[..]).unwrap();
    assert_eq!(fs::read(store.real_path(&b.path)).unwrap(), b"good");
    assert_eq!(fs::metadata(store.real_path(&b.path)).unwrap().nlink(), 2);
}

#[test]
fn nothing_is_linked_unless_wanted() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let nar = file_nar(b"x");
    store.add_nar(&output("a", &nar), &mut &nar[..]).unwrap();
    assert_eq!(fs::read_dir(store.real_store_dir().join(".links")).unwrap().count(), 0);
}

#[test]
fn who_is_not_root_links_too() {
    if !is_root() {
        return equal_files_of_new_objects_are_linked_as_nix_does_it();
    }
    let scratch = Scratch::new();
    fs::create_dir(scratch.path().join("home")).unwrap();
    std::os::unix::fs::chown(scratch.path().join("home"), Some(4242), Some(4242)).unwrap();
    let program = scratch.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let output = std::process::Command::new("setpriv")
        .args(["--reuid=4242", "--regid=4242", "--clear-groups"])
        .arg(&program)
        .args(["--exact", "optimising::equal_files_of_new_objects_are_linked_as_nix_does_it", "--nocapture"])
        .env("TMPDIR", scratch.path().join("home"))
        // Nix does not run as a user without a name: what it compares was compared as root.
        .env_remove("NCC_REQUIRE_REAL")
        .output();
    let Ok(output) = output else { return left_out("no setpriv: linking as another user was not tried") };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
