//! Stores that are mounted read-only.

#![allow(clippy::print_stdout, reason = "children talk to their tests")]

use std::{env, fs, path::PathBuf, process::Command};

use ncc_local_store::{Access, LocalStore, LocalStoreConfig, LocalStoreError};
use ncc_store::test_util::file_nar;

use crate::support::*;

/// Runs a script as root of a mount namespace of its own, where `$R` is a scratch directory and `$T FUNCTION` runs
/// a function of this program. All mounts go with it.
fn in_a_mount_namespace(script: &str) -> Option<String> {
    if !is_root() || !Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|it| it.success())
    {
        left_out("no mount namespaces here: read-only stores were not tried");
        return None;
    }
    let scratch = Scratch::new();
    let program = scratch.path().join("program");
    fs::copy(env::current_exe().unwrap(), &program).unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-euc", script])
        .env("R", scratch.path())
        .env("T", program)
        .env("NCC_TEST_ROOT", scratch.path().join("r"))
        .output()
        .unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    Some(text)
}

const RUN: &str = "--exact mounts::child_adds --ignored --nocapture";

fn root() -> PathBuf {
    env::var_os("NCC_TEST_ROOT").unwrap().into()
}

/// Adds a path to a read-only store, takes it away with what is garbage, and lets a child look.
#[test]
#[ignore = "only as a child of the tests below"]
fn child_adds() {
    let root = root();
    let outside = || fs::read_link("/proc/self/ns/mnt").unwrap();
    let before = outside();
    let store = match LocalStore::open(LocalStoreConfig::chroot(&root), Access::ReadWrite) {
        Ok(store) => store,
        Err(error) => return println!("refused: {}", chain(&error)),
    };
    let nar = tree_nar(b"x");
    let info = output("x", &nar);
    // Garbage in its place, which is removed.
    store.add_nar(&output("y", &nar), &mut &nar[..50]).unwrap_err();
    store.add_nar(&info, &mut &nar[..]).unwrap();
    assert_eq!(assert_sound(&store), 1);
    assert_eq!(on_disk(&store), [info.path.base_name()]);
    assert_eq!(outside(), before);
    for thread in [false, true] {
        let look = {
            let root = root.clone();
            move || {
                let script = "readlink /proc/self/ns/mnt; touch \"$0/nix/store/z\" || true";
                let output = Command::new("sh").args(["-c", script]).arg(&root).output().unwrap();
                (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
            }
        };
        let (namespace, complaint) = if thread { std::thread::spawn(look).join().unwrap() } else { look() };
        assert_eq!(namespace.trim(), before.to_str().unwrap());
        assert!(complaint.contains("Read-only file system"), "{complaint}");
    }
    fs::write(root.join("nix/store/z"), "").unwrap_err();
    println!("added");
}

/// <https://github.com/NixOS/nix/issues/4337>, <https://github.com/NixOS/nixpkgs/issues/27362>
#[test]
fn r4337_only_the_store_sees_what_it_remounted() {
    let script = format!(
        "mkdir -p $R/r/nix/store; mount --bind $R/r/nix/store $R/r/nix/store
        mount -o remount,bind,ro $R/r/nix/store
        $T {RUN}
        ls $R/r/nix/store"
    );
    let Some(text) = in_a_mount_namespace(&script) else { return };
    assert!(text.contains("added"), "{text}");
}

/// <https://github.com/NixOS/nix/issues/9705>
#[test]
fn r9705_flags_that_are_locked_in_a_user_namespace_are_kept() {
    let script = format!(
        "mkdir $R/r; mount -t tmpfs -o nodev,nosuid,noatime x $R/r; mkdir -p $R/r/nix/store
        unshare --user --map-root-user --mount sh -euc '
        mount --bind $R/r/nix/store $R/r/nix/store
        mount -o remount,bind,ro,nodev,nosuid,noatime $R/r/nix/store
        $T {RUN}'"
    );
    let Some(text) = in_a_mount_namespace(&script) else { return };
    assert!(text.contains("added"), "{text}");
}

#[test]
fn a_root_directory_that_is_no_mount_point_does_not_matter() {
    let script = format!(
        "for d in usr bin lib lib64 proc dev; do
            if test -d /$d; then mkdir $R/$d; mount --rbind /$d $R/$d; fi
        done
        mkdir -p $R/r/nix/store $R/tmp; mount --bind $R/r/nix/store $R/r/nix/store
        mount -o remount,bind,ro $R/r/nix/store
        NCC_TEST_ROOT=/r chroot $R /program {RUN}"
    );
    let Some(text) = in_a_mount_namespace(&script) else { return };
    assert!(text.contains("added"), "{text}");
}

#[test]
fn what_cannot_be_remounted_is_refused_with_the_reason() {
    let script = format!(
        "mkdir -p $R/r/nix/store; mount -t tmpfs x $R/r; mkdir -p $R/r/nix/store; mount -o remount,ro x $R/r
        $T {RUN}
        umount $R/r; mkdir -p $R/r/nix/store; chmod -R a+rwX $R/r
        mount --bind $R/r/nix/store $R/r/nix/store; mount -o remount,bind,ro $R/r/nix/store
        setpriv --reuid 4242 --regid 4242 --clear-groups $T {RUN}"
    );
    let Some(text) = in_a_mount_namespace(&script) else { return };
    let refusals: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("refused: ")).collect();
    assert_eq!(refusals.len(), 2, "{text}");
    assert!(refusals[0].contains("is mounted read-only, together with what is around it"), "{text}");
    assert!(refusals[1].contains("is mounted read-only, and only root may remount it"), "{text}");
}

/// <https://github.com/NixOS/nix/issues/10916>: a store on a medium that is read-only, left in the middle of work.
#[test]
fn r10916_a_leftover_log_on_a_read_only_medium_is_named() {
    let script = "$T --exact mounts::child_leaves_a_log --ignored --nocapture || true
        mount --bind $R/r $R/r; mount -o remount,bind,ro $R/r
        $T --exact mounts::child_reads_it --ignored --nocapture";
    let Some(text) = in_a_mount_namespace(script) else { return };
    assert!(text.contains("read"), "{text}");
}

#[test]
#[ignore = "only as a child of the test above"]
fn child_leaves_a_log() {
    let nar = file_nar(b"x");
    let store = open(&root());
    store.add_nar(&output("a", &nar), &mut &nar[..]).unwrap();
    drop(store);
    let store = open(&root());
    store.add_nar(&output("b", &nar), &mut &nar[..]).unwrap();
    assert!(fs::metadata(root().join("nix/var/nix/db/db.sqlite-wal")).unwrap().len() > 0);
    // As if it were killed.
    fs::remove_file(root().join("nix/var/nix/db/db.sqlite-shm")).unwrap();
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
}

#[test]
#[ignore = "only as a child of the test above"]
fn child_reads_it() {
    let mut config = LocalStoreConfig::chroot(root());
    let error = LocalStore::open(config.clone(), Access::ReadOnly).unwrap_err();
    assert!(matches!(error, LocalStoreError::LeftoverLog { .. }), "{error:?}");
    assert!(!error.is_permission_denied());
    config.medium = ncc_local_store::Medium::ReadOnly;
    let store = LocalStore::open(config, Access::ReadOnly).unwrap();
    let paths = ["a", "b"].map(|name| output(name, b"").path);
    assert_eq!(store.query_valid_paths(&paths).unwrap().len(), 1);
    println!("read");
}
