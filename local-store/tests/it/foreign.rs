//! Stores of root in directories of other users.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
};

use ncc_local_store::{Access, ForeignReason, LocalStore, LocalStoreConfig, LocalStoreError, Symlinks};
use rstest::rstest;

use crate::support::*;

const ALICE: u32 = 4242;

/// A directory of another user's, in one of root's.
struct Lab {
    _scratch: Scratch,
    alices: PathBuf,
    /// Where nothing may appear.
    outside: PathBuf,
}

fn lab() -> Option<Lab> {
    if !is_root() {
        left_out("not root: stores in directories of others were not tried");
        return None;
    }
    let scratch = Scratch::new();
    let (alices, outside) = (scratch.path().join("alice"), scratch.path().join("outside"));
    fs::create_dir(&alices).unwrap();
    fs::create_dir(&outside).unwrap();
    chown(&alices, Some(ALICE), Some(ALICE)).unwrap();
    Some(Lab { _scratch: scratch, alices, outside })
}

fn refusal(root: &Path) -> (PathBuf, ForeignReason) {
    let mut config = LocalStoreConfig::chroot(root);
    config.symlinks = Symlinks::Allow;
    match LocalStore::open(config, Access::ReadWrite) {
        Err(LocalStoreError::ForeignDirectory { path, reason }) => (path, reason),
        other => panic!("{other:?}"),
    }
}

#[rstest]
#[case::nothing_planted("", "")]
#[case::state("nix/var", "")]
#[case::database("nix/var/nix/db", "")]
#[case::file("nix/var/nix/db/db.sqlite", "file")]
#[case::objects("nix/store", "")]
fn root_is_not_led_elsewhere_by_links_of_others(#[case] link: &str, #[case] target: &str) {
    let Some(lab) = lab() else { return };
    let root = lab.alices.join("s");
    if !link.is_empty() {
        let link = root.join(link);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(lab.outside.join(target), &link).unwrap();
    }
    let (path, reason) = refusal(&root);
    assert_eq!((path, reason), (lab.alices.clone(), ForeignReason::Owner(ALICE)));
    assert_eq!(fs::read_dir(&lab.outside).unwrap().count(), 0);
    assert_eq!(root.exists(), !link.is_empty(), "nothing was made at all");
}

#[test]
fn what_leads_there_is_looked_at_too() {
    let Some(lab) = lab() else { return };
    // Root's own store, by way of alice's link.
    let root = lab.outside.join("roots");
    drop(open(&root));
    symlink(&root, lab.alices.join("link")).unwrap();
    assert_eq!(refusal(&lab.alices.join("link")).0, lab.alices);
    // Root's link to alice's directory.
    symlink(&lab.alices, lab.outside.join("link")).unwrap();
    assert_eq!(refusal(&lab.outside.join("link/s")).0, lab.alices);
    // Part of a store that is root's otherwise.
    let database = root.join("nix/var/nix/db");
    chown(&database, Some(ALICE), None).unwrap();
    assert_eq!(refusal(&root).0, database);
    chown(&database, Some(0), None).unwrap();
    drop(open(&root));
    fs::set_permissions(root.join("nix/var"), fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(refusal(&root), (root.join("nix/var"), ForeignReason::Mode(0o777)));
}

#[test]
fn directories_in_which_nobody_can_exchange_roots_entries_are_fine() {
    let Some(lab) = lab() else { return };
    let tmp = lab.outside.join("tmp");
    fs::create_dir(&tmp).unwrap();
    fs::set_permissions(&tmp, fs::Permissions::from_mode(0o1777)).unwrap();
    drop(open(&tmp.join("s")));
    // As a Nix for several users has it: builders may add to the store directory.
    let objects = tmp.join("s/nix/store");
    chown(&objects, Some(0), Some(ALICE)).unwrap();
    fs::set_permissions(&objects, fs::Permissions::from_mode(0o1775)).unwrap();
    drop(open(&tmp.join("s")));
    // But not a directory of alice's in there.
    fs::create_dir(tmp.join("a")).unwrap();
    chown(tmp.join("a"), Some(ALICE), None).unwrap();
    assert_eq!(refusal(&tmp.join("a")).0, tmp);
    // Nor files of others beside the database.
    fs::set_permissions(tmp.join("s/nix/var/nix/db"), fs::Permissions::from_mode(0o1777)).unwrap();
    assert_eq!(refusal(&tmp.join("s")).0, tmp.join("s/nix/var/nix/db"));
}

#[test]
fn alice_uses_her_own_store() {
    let Some(lab) = lab() else { return };
    let program = lab.outside.join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let output = std::process::Command::new("setpriv")
        .args([&format!("--reuid={ALICE}"), &format!("--regid={ALICE}"), "--clear-groups"])
        .arg(&program)
        .args(["--exact", "foreign::child_opens", "--ignored", "--nocapture"])
        .env("NCC_TEST_ROOT", lab.alices.join("s"))
        .output();
    let Ok(output) = output else { return left_out("no setpriv: alice was not tried") };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // And so may root, to read.
    open_read_only(&lab.alices.join("s"));
}

#[test]
#[ignore = "only as a child of the test above"]
fn child_opens() {
    open(std::env::var("NCC_TEST_ROOT").unwrap().as_ref());
}
