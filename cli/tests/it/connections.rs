//! `--connections`: the same stores with it as without, and what becomes of a host that has no room, or loses a channel.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    compress::{programs, same_content},
    support::{AT_ONCE, PROGRAM, Ran, World, full},
    transports::{Ssh, path, sshd, with_each_transport},
};

with_each_transport! {
    several_give_the_same_store_as_one_both_ways,
    one_login_is_enough,
    as_many_as_the_host_has_room_for_do,
    a_host_with_room_for_none_is_copied_to,
    what_the_remote_shell_prints_is_no_part_of_it,
    a_limit_holds_for_all_together,
}

/// Larger than all windows and buffers on the way, of no whole number of blocks, and not to be compressed.
const SIZE: usize = (20 << 20) + 12_345;

fn add_noise(world: &World) -> String {
    let mut state = 7_u64;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b' ' + u8::try_from(state >> 58).unwrap())
    });
    full(&world.add("noise", "file", &noise.take(SIZE).collect::<String>(), []))
}

/// `PROGRAM` to or from a host, with `words` before it.
fn command(command: Command, to: bool, words: &[&str], stores: [&Path; 2], roots: &[&str]) -> Command {
    let mut command = command;
    command.args(["-v", "--json", "--remote-program", PROGRAM]).args(words);
    let [here, there] = if to { stores } else { [stores[1], stores[0]] };
    if !to {
        command.arg("--from");
    }
    command.arg("127.0.0.1").arg("--store").arg(here).arg("--remote-store").arg(there).args(roots);
    command
}

#[track_caller]
fn went_over(ran: &Ran, channels: usize) {
    ran.says(0, &[]);
    assert!(ran.stdout.contains(&format!("\"channels\": {channels}")), "{}", ran.transcript());
}

fn several_give_the_same_store_as_one_both_ways(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let noise = add_noise(&world);
    for (channels, method) in [(1, "none"), (2, "none"), (7, "none"), (7, "zstd"), (3, "gzip")] {
        for to in [true, false] {
            let store = world.directory().join(format!("{channels}-{method}-{to}"));
            let words = ["--connections", &channels.to_string(), "--compress", method];
            let (stores, roots) = ([&*world.from(), &*store], [&*world.top, &*world.other, &*noise]);
            let mut command = command(ssh.reaching(world.bare(), &sshd), to, &words, stores, &roots);
            went_over(&world.run(&mut command), channels);
            same_content(&world.from(), &store);
        }
    }
}

fn striped(ssh: Ssh, world: &World, sshd: &ncc_transport_ssh::test_util::Sshd, root: &str) -> Ran {
    let stores = [&*world.from(), &*world.to()];
    let bare = ssh.reaching(world.bare(), sshd);
    world.run(&mut command(bare, true, &["--connections", "7", "--compress", "none"], stores, &[root]))
}

fn one_login_is_enough(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    went_over(&striped(ssh, &world, &sshd, &world.top), 7);
    assert_eq!(sshd.logins(), 1);
}

/// Of five, two are the one for questions and the server's own.
fn as_many_as_the_host_has_room_for_do(ssh: Ssh) {
    let Some(sshd) = sshd(&["MaxSessions 5"]) else { return };
    let world = World::new();
    let noise = add_noise(&world);
    went_over(&striped(ssh, &world, &sshd, &noise), 3);
    assert_eq!(sshd.logins(), 1);
}

fn a_host_with_room_for_none_is_copied_to(ssh: Ssh) {
    let Some(sshd) = sshd(&["MaxSessions 2"]) else { return };
    let world = World::new();
    let ran = striped(ssh, &world, &sshd, &world.top);
    went_over(&ran, 1);
    ran.says(0, &["one channel: the host has room for no more"]);
    assert_eq!(sshd.logins(), 1);
}

fn what_the_remote_shell_prints_is_no_part_of_it(ssh: Ssh) {
    let words = "ForceCommand echo Welcome; printf ' to %s ' this; eval \"$SSH_ORIGINAL_COMMAND\"";
    let Some(sshd) = sshd(&[words]) else { return };
    let world = World::new();
    let noise = add_noise(&world);
    went_over(&striped(ssh, &world, &sshd, &noise), 7);
    let back = world.directory().join("back");
    let words = ["--connections", "7", "--compress", "none"];
    let bare = ssh.reaching(world.bare(), &sshd);
    went_over(&world.run(&mut command(bare, false, &words, [&world.to(), &back], &[&noise])), 7);
    same_content(&world.to(), &back);
}

/// How it is kept is shown in `ncc-transport`, with a clock that stands still.
fn a_limit_holds_for_all_together(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let noise = add_noise(&world);
    for to in [true, false] {
        let store = world.directory().join(format!("limited-{to}"));
        let words = ["--connections", "7", "--compress", "none", "--bwlimit", "10m"];
        let bare = ssh.reaching(world.bare(), &sshd);
        let start = std::time::Instant::now();
        let ran = world.run(&mut command(bare, to, &words, [&world.from(), &store], &[&noise]));
        went_over(&ran, 7);
        assert!(start.elapsed() > std::time::Duration::from_secs(1), "{:?}", start.elapsed());
    }
}

/// To this machine, whose programs are those of `path`, and whose temporary files are in `tmp`.
fn local(world: &World, to: bool, path: &Path, root: &str) -> Command {
    let tmp = tmp(world);
    fs::create_dir_all(&tmp).unwrap();
    let mut command = if to { world.copy() } else { world.fetch() };
    command.env("PATH", path).env("TMPDIR", tmp).args(["-v", "--json", "--remote-program", PROGRAM]);
    command.args(["--connections", "7", "--compress", "none", "localhost"]).arg(root);
    command
}

fn tmp(world: &World) -> PathBuf {
    world.directory().join("a tmp")
}

#[track_caller]
fn leaves_nothing(world: &World) {
    world.expect_no_process(AT_ONCE);
    let left: Vec<_> = fs::read_dir(tmp(world)).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, Vec::<PathBuf>::new());
}

#[test]
fn nothing_is_left_behind() {
    for to in [true, false] {
        let world = World::new();
        let noise = add_noise(&world);
        went_over(&world.run(&mut local(&world, to, path().as_ref(), &noise)), 7);
        assert_eq!(world.copied(&[&noise]), [true]);
        leaves_nothing(&world);
    }
}

#[test]
fn a_host_without_mktemp_makes_its_directory_itself_and_one_without_the_rest_has_one_channel() {
    let all = ["sh", "id", "cat", "dd", "mkfifo", "mkdir", "rm"];
    for missing in ["", "mkfifo", "dd", "cat", "mkdir"] {
        for to in [true, false] {
            let world = World::new();
            let names: Vec<&str> = all.into_iter().filter(|name| *name != missing).collect();
            let ran = world.run(&mut local(&world, to, programs(&world, &names).as_ref(), &world.top));
            went_over(&ran, if missing.is_empty() { 7 } else { 1 });
            assert_eq!(world.copied(&world.all()), [true, true, true, false], "{missing}");
            leaves_nothing(&world);
        }
    }
}

/// Programs that fail each in its way: channels that end in the middle or at a block's end, one that ends at once, a `dd` that does
/// not take all, and one that is killed.
#[test]
fn a_channel_that_breaks_costs_no_path() {
    let bodies = [
        ("cat", "exec head -c 1500000"),
        ("cat", "exec head -c 1048585"),
        ("cat", "exit 1"),
        ("cat", "head -c 700000; kill -9 $$"),
        ("dd", "case $1 in bs=1|bs=0) exec dd \"$@\";; esac; exec head -c 1000"),
        ("dd", "case $1 in bs=1|bs=0) exec dd \"$@\";; esac; kill -9 $$"),
    ];
    for (program, body) in bodies {
        for to in [true, false] {
            let world = World::new();
            let noise = add_noise(&world);
            let real = path();
            let real = real.to_str().unwrap();
            fs::create_dir(world.directory().join("fake")).unwrap();
            world.script(&format!("fake/{program}"), &format!("#!/bin/sh\nPATH={real}; {body}\n"));
            let path = format!("{}:{real}", world.directory().join("fake").display());
            let ran = world.run(&mut local(&world, to, path.as_ref(), &noise));
            ran.says(0, &["nothing is compressed from now on, nor spread over channels"]);
            assert_eq!(world.copied(&[&noise]), [true], "{body}");
            leaves_nothing(&world);
        }
    }
}

/// What the server itself refuses is its refusal, not a channel's failure.
#[test]
fn what_is_wrong_with_a_path_is_said_of_the_path() {
    let world = World::new();
    world.damage(&world.library, "lib/library.so");
    let ran = world.run(local(&world, true, path().as_ref(), &world.top).arg("--keep-going"));
    ran.says(4, &["library"]);
    assert!(!ran.stderr.contains("from now on"), "{}", ran.transcript());
    leaves_nothing(&world);
}

#[test]
fn numbers_that_are_none_are_refused() {
    let world = World::new();
    for number in ["0", "8", "many", "-1", ""] {
        let ran =
            world.run(world.copy().arg(format!("--connections={number}")).arg("localhost").arg(&world.top));
        ran.says(1, &["it is 'auto' or a number from 1 to 7"]);
    }
}

#[test]
fn a_daemon_gets_one_channel_and_says_so() {
    let world = World::new();
    let ran =
        world.run(world.bare().args(["-n", "--connections", "3", "ssh-ng://localhost"]).arg(&world.top));
    assert!(ran.stderr.contains("the protocol of 'ssh-ng' leaves no room for more"), "{}", ran.transcript());
}
