//! Signatures: those that are made on the way, and those that are asked for. The other ends are real Nix where it matters.

use std::{fs, path::PathBuf, process::Command};

use ncc_local_store::Access;
use ncc_store::{PathInfo, PublicKey, SecretKey, StoreDir};

use crate::{
    daemons::{Listening, NOBODY, forget_content_addresses, has_daemon, verify},
    support::{World, assert_unchanged, open, snapshot},
    transports::path,
};

/// A key in a file.
pub(crate) struct Key {
    pub(crate) file: PathBuf,
    pub(crate) public: PublicKey,
}

impl Key {
    /// Made as Nix makes it: a seed, and the public half behind it.
    pub(crate) fn new(world: &World, name: &str) -> Self {
        let seed = [name.len().try_into().unwrap(); 32];
        let public = SecretKey::from_seed(name, &seed).unwrap().public_key();
        let encode = |bytes: &[u8]| data_encoding::BASE64.encode(bytes);
        let half = public.to_string();
        let half = data_encoding::BASE64.decode(half.split_once(':').unwrap().1.as_bytes()).unwrap();
        let file = world.directory().join(format!("{name}.sec"));
        fs::write(&file, format!("{name}:{}\n", encode(&[&seed[..], &half].concat()))).unwrap();
        Self { file, public }
    }
}

/// What is recorded at the destination, if the path is valid there.
fn arrived(world: &World, path: &str) -> Option<PathInfo> {
    let store = open(&world.to(), Access::ReadOnly);
    store.query_path_info(&StoreDir::default().parse(path).unwrap()).unwrap()
}

fn is_signed(world: &World, path: &str, key: &Key) -> bool {
    arrived(world, path).unwrap().is_signed_by(&StoreDir::default(), std::slice::from_ref(&key.public))
}

fn sign_key(command: &mut Command, key: &Key) {
    command.arg("--sign-key").arg(&key.file);
}

#[test]
fn a_daemon_takes_from_anybody_what_was_signed_on_the_way() {
    if !has_daemon() {
        return;
    }
    let world = World::new();
    forget_content_addresses(&world);
    let key = Key::new(&world, "trusted");
    let daemon =
        Listening::start(&world, &format!("trusted-users = root\ntrusted-public-keys = {}", key.public));
    let fetch = |with: &dyn Fn(&mut Command)| {
        let mut command = daemon.fetch(&world, Some(NOBODY));
        with(&mut command);
        world.run(command.arg("ssh-ng://localhost").arg(&world.top))
    };
    fetch(&|_| ()).says(5, &["lacks a signature that the daemon at", "hint: '--sign-key FILE'"]);
    // Another key helps nothing.
    let another = Key::new(&world, "another-one");
    fetch(&|command| sign_key(command, &another)).says(5, &["lacks a signature that the daemon at"]);
    assert_eq!(world.copied(&world.all()), [false; 4]);
    let source = [world.from().join("nix/store"), world.from().join("nix/var/nix/db")];
    let before = source.each_ref().map(|directory| snapshot(directory));
    fetch(&|command| sign_key(command, &key)).says(0, &["copying 3 paths..."]);
    for (before, directory) in before.iter().zip(&source) {
        assert_unchanged(before, &snapshot(directory));
    }
    for path in [&world.top, &world.program, &world.library] {
        assert!(is_signed(&world, path, &key));
    }
    verify(&world);
}

/// Both protocols, in the direction that has a server to carry the signatures to.
#[test]
fn real_servers_record_what_was_signed_on_the_way() {
    if !has_daemon() {
        return;
    }
    for host in ["localhost", "ssh-ng://localhost"] {
        let world = World::new();
        let [one, two] = ["one", "number-two"].map(|name| Key::new(&world, name));
        let mut command = world.copy();
        sign_key(&mut command, &one);
        sign_key(&mut command, &two);
        world.run(command.env("PATH", path()).arg(host).arg(&world.top)).says(0, &["copying 3 paths..."]);
        for path in [&world.top, &world.program, &world.library] {
            assert!(is_signed(&world, path, &one) && is_signed(&world, path, &two), "{host}");
        }
        verify(&world);
    }
}

#[test]
fn keys_are_read_before_anybody_is_called() {
    let world = World::new();
    let bad = world.directory().join("bad");
    fs::write(&bad, "name:c2VjcmV0\n").unwrap();
    let gone = world.directory().join("gone");
    // Nobody is there, which is another error.
    let host = "somebody@nowhere.invalid";
    for (file, says) in [
        (
            &bad,
            "error: file '$DIR/bad' is no secret key of Nix: secret key 'name' is not 64 bytes in base 64",
        ),
        (&gone, "error: key file '$DIR/gone' cannot be read: "),
    ] {
        let ran = world.run(world.copy().arg("--sign-key").arg(file).arg(host).arg(&world.top));
        ran.says(1, &[says]);
        assert!(!ran.stderr.contains("c2VjcmV0"), "{}", ran.transcript());
    }
    let ran = world.run(world.copy().args(["--sign", host]).arg(&world.top));
    ran.says(1, &["'--sign' has no key", "hint: '--sign-key FILE'"]);
}

#[test]
fn settings_name_keys_for_who_asks_for_them() {
    let world = World::new();
    let key = Key::new(&world, "of-the-settings");
    let copy = |words: &[&str], path: &str| {
        let mut command = world.copy();
        command.arg("-v").args(words).arg("--option").arg("secret-key-files").arg(&key.file);
        world.run(command.arg("localhost").arg(path))
    };
    // As upstream: not by itself.
    copy(&[], &world.other).says(0, &["no effect on a copy: secret-key-files"]);
    assert_eq!(arrived(&world, &world.other).unwrap().signatures, []);
    let ran = copy(&["--sign"], &world.library);
    ran.says(0, &["copying 1 paths..."]);
    assert!(!ran.stderr.contains("no effect"), "{}", ran.transcript());
    assert!(is_signed(&world, &world.library, &key));
}

#[test]
fn what_this_machine_does_not_trust_is_refused_at_this_end() {
    if !has_daemon() {
        return;
    }
    let world = World::new();
    forget_content_addresses(&world);
    let key = Key::new(&world, "trusted");
    // Both ways: what comes is not written, what goes is not sent.
    for mut command in [world.fetch(), world.copy()] {
        let ran = world.run(command.args(["--check-sigs", "localhost"]).args([&world.top, &world.other]));
        ran.says(
            5,
            &[
                "error: nothing is copied: 4 paths lack a signature that this machine trusts: '",
                "' and 1 more",
                "hint: 'nix store sign' at the source",
            ],
        );
        assert_eq!(world.copied(&world.all()), [false; 4]);
    }
    // The last word counts, and so does a trusted key.
    let trusted = |command: &mut Command| {
        command.args(["--check-sigs", "--option", "trusted-public-keys"]).arg(key.public.to_string());
    };
    let mut command = world.fetch();
    trusted(&mut command);
    sign_key(&mut command, &key);
    world.run(command.arg("localhost").arg(&world.top)).says(0, &["copying 3 paths..."]);
    let mut command = world.fetch();
    trusted(&mut command);
    world
        .run(command.args(["--no-check-sigs", "localhost"]).arg(&world.other))
        .says(0, &["copying 1 paths..."]);

    let mut command = world.fetch();
    command.args(["--check-sigs", "--option", "require-sigs", "false", "localhost"]).arg(&world.other);
    world.run(&mut command).says(0, &["warning: '--check-sigs' checks nothing: 'require-sigs' is false"]);
}

/// What needs no signature is copied as before, also by Nix.
#[test]
fn content_addressed_paths_need_no_signature() {
    let world = World::new();
    world
        .run(world.fetch().args(["--check-sigs", "localhost"]).arg(&world.top))
        .says(0, &["copying 3 paths..."]);
    assert_eq!(world.copied(&[&world.top]), [true]);
}

/// Root is trusted, and asks the daemon to look all the same.
#[test]
fn a_daemon_looks_at_signatures_for_who_asks_it_to() {
    if !has_daemon() {
        return;
    }
    let world = World::new();
    forget_content_addresses(&world);
    let [ours, both] = ["ours", "of-both"].map(|name| Key::new(&world, name));
    let daemon = Listening::start(&world, &format!("trusted-public-keys = {}", both.public));
    let fetch = |key: &Key| {
        let mut command = daemon.fetch(&world, None);
        let keys = format!("{} {}", ours.public, both.public);
        command.args(["--check-sigs", "--option", "trusted-public-keys", &keys]);
        sign_key(&mut command, key);
        world.run(command.arg("ssh-ng://localhost").arg(&world.library))
    };
    fetch(&ours).says(5, &["lacks a signature that the daemon at"]);
    assert_eq!(world.copied(&[&world.library]), [false]);
    fetch(&both).says(0, &["copying 1 paths..."]);
    verify(&world);
}
