//! `--compress`: the same stores with it as without, and what becomes of a host whose programs fail.

use std::{
    ffi::OsString,
    fmt::Write as _,
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    support::{AT_ONCE, PROGRAM, Ran, World, full},
    transports::{Ssh, path, sshd, with_each_transport},
};

with_each_transport! {
    each_method_gives_the_same_store_both_ways,
    one_login_is_enough,
    a_host_that_opens_no_second_session_is_copied_to_without,
    what_the_remote_shell_prints_is_no_part_of_it,
    nothing_is_compressed_to_a_host_that_is_near,
    a_limit_is_kept_in_both_directions,
}

const METHODS: [&str; 4] = ["gzip", "zstd", "zstd:1", "zstd:19"];

/// A path that compresses well, and is larger than all buffers on the way.
fn add_text(world: &World) -> String {
    let mut content = String::new();
    for number in 0..300_000 {
        let _ = writeln!(content, "line {number}");
    }
    full(&world.add("text", "file", &content, []))
}

fn number(json: &str, name: &str) -> u64 {
    let (_, rest) = json.split_once(&format!("\"{name}\":")).unwrap();
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

/// That the files of two stores are the same. What is registered of them, the copy itself has looked at.
#[track_caller]
pub(crate) fn same_content(one: &Path, other: &Path) {
    let directory = |store: &Path| store.join("nix/store");
    let output = Command::new("diff").arg("-r").args([directory(one), directory(other)]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// That the copy went well, and was compressed so.
#[track_caller]
fn was_compressed(ran: &Ran, with: &str, direction: &str) {
    ran.says(0, &[]);
    assert!(ran.stdout.contains(&format!("\"compression\": \"{with}\"")), "{}", ran.transcript());
    let (wire, nars) = (number(&ran.stdout, direction), 4_000_000);
    assert!(wire < nars / 2, "{wire} bytes on the wire");
}

fn each_method_gives_the_same_store_both_ways(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let text = add_text(&world);
    for method in METHODS {
        let name = &method[..4];
        let store = |what: &str| world.directory().join(format!("{what}-{}", method.replace(':', "-")));
        let mut command = ssh.reaching(world.bare(), &sshd);
        command.args(["--json", "--compress", method, "--remote-program", PROGRAM, "127.0.0.1", "--store"]);
        command.arg(world.from()).arg("--remote-store").arg(store("to")).args([
            &world.top,
            &world.other,
            &text,
        ]);
        was_compressed(&world.run(&mut command), name, "sent");
        same_content(&world.from(), &store("to"));

        let mut command = ssh.reaching(world.bare(), &sshd);
        command.args([
            "--json",
            "--compress",
            method,
            "--remote-program",
            PROGRAM,
            "--from",
            "127.0.0.1",
            "--store",
        ]);
        command.arg(store("from")).arg("--remote-store").arg(world.from()).args([
            &world.top,
            &world.other,
            &text,
        ]);
        was_compressed(&world.run(&mut command), name, "received");
        same_content(&world.from(), &store("from"));
    }
}

fn one_login_is_enough(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let mut command = ssh.served(&world, &sshd);
    command.args(["--json", "--compress", "zstd", "127.0.0.1"]).arg(add_text(&world));
    was_compressed(&world.run(&mut command), "zstd", "sent");
    assert_eq!(sshd.logins(), 1);
}

fn a_host_that_opens_no_second_session_is_copied_to_without(ssh: Ssh) {
    // OpenSSH makes another connection then, which may be refused as well.
    let Some(sshd) = sshd(&["MaxSessions 1", "MaxStartups 1:100:1"]) else { return };
    let world = World::new();
    let mut command = ssh.served(&world, &sshd);
    world.run(command.args(["--compress", "zstd", "127.0.0.1"]).arg(&world.top)).says(0, &[]);
    assert_eq!(world.copied(&world.all()), [true, true, true, false]);
}

fn what_the_remote_shell_prints_is_no_part_of_it(ssh: Ssh) {
    let Some(sshd) =
        sshd(&["ForceCommand echo Welcome; printf ' to %s ' this; eval \"$SSH_ORIGINAL_COMMAND\""])
    else {
        return;
    };
    let world = World::new();
    let text = add_text(&world);
    let mut command = ssh.served(&world, &sshd);
    was_compressed(
        &world.run(command.args(["--json", "--compress", "zstd", "127.0.0.1"]).arg(&text)),
        "zstd",
        "sent",
    );
    let mut command = ssh.reaching(world.bare(), &sshd);
    command.args([
        "--json",
        "--compress",
        "zstd",
        "--remote-program",
        PROGRAM,
        "--from",
        "127.0.0.1",
        "--store",
    ]);
    command.arg(world.directory().join("third")).arg("--remote-store").arg(world.to()).arg(&text);
    was_compressed(&world.run(&mut command), "zstd", "received");
}

fn nothing_is_compressed_to_a_host_that_is_near(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let mut command = ssh.served(&world, &sshd);
    // On a machine that is busy even this line may seem long: only what is said has to be true.
    let ran = world.run(command.args(["-v", "--json", "127.0.0.1"]).arg(add_text(&world)));
    let near = ran.stderr.contains("nothing is compressed: the host is near");
    assert_eq!(near, ran.stdout.contains("\"compression\": null"), "{}", ran.transcript());
    ran.says(0, &[if near { "round trip" } else { "compressing with" }]);
}

/// How it is kept is shown in `ncc-transport`, with a clock that stands still.
fn a_limit_is_kept_in_both_directions(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let text = add_text(&world);
    for to in [true, false] {
        let mut command = ssh.reaching(if to { world.copy() } else { world.fetch() }, &sshd);
        command.args(["--bwlimit", "2m", "--compress", "none", "--remote-program", PROGRAM, "127.0.0.1"]);
        let start = Instant::now();
        world.run(command.arg(&text)).says(0, &[]);
        // 3.5 MB: no machine is so slow that this could be shorter.
        assert!(start.elapsed() > Duration::from_secs(1), "{:?}", start.elapsed());
        fs::rename(world.to(), world.directory().join(format!("copied-{to}"))).unwrap();
    }
}

/// A directory with these programs of this machine.
pub(crate) fn programs(world: &World, names: &[&str]) -> OsString {
    let bin = world.directory().join("bin");
    fs::create_dir_all(&bin).unwrap();
    for name in names {
        let found =
            std::env::split_paths(&path()).map(|directory| directory.join(name)).find(|file| file.exists());
        symlink(found.unwrap(), bin.join(name)).unwrap();
    }
    bin.into()
}

fn local(world: &World, to: bool, path: &Path, method: &str, root: &str) -> Command {
    let mut command = if to { world.copy() } else { world.fetch() };
    command.env("PATH", path).args([
        "-v",
        "--json",
        "--keep-going",
        "--compress",
        method,
        "--remote-program",
        PROGRAM,
    ]);
    command.arg("localhost").arg(root);
    command
}

#[test]
fn a_host_without_the_program_is_copied_to_without() {
    for to in [true, false] {
        let world = World::new();
        let bin = programs(&world, &["sh", "id"]);
        let ran = world.run(&mut local(&world, to, bin.as_ref(), "zstd", &world.top));
        ran.says(0, &["nothing is compressed: the host has no program for it that runs"]);
        assert_eq!(world.copied(&world.all()), [true, true, true, false]);
    }
}

/// Programs in the place of zstd that fail each in its way: at once, by a signal, with a wrong stream, with one that does not end,
/// over an option that they do not know.
#[test]
fn a_filter_that_fails_costs_no_path() {
    let bodies = [
        "exit 1",
        "kill -9 $$",
        "echo this is no compressed stream; cat >/dev/null",
        "head -c 40000 | zstd \"$@\"; exit 1",
        "zstd \"$@\" | head -c 40000",
        "for word; do case $word in --long*) echo Incorrect parameters >&2; exit 1;; esac; done; exec zstd \"$@\"",
    ];
    for body in bodies {
        for to in [true, false] {
            let world = World::new();
            let text = add_text(&world);
            let bin = world.directory().join("fake");
            fs::create_dir(&bin).unwrap();
            let real = path();
            let real = real.to_str().unwrap();
            world.script(
                "fake/zstd",
                &format!("#!/bin/sh\ncase $1 in --version) echo v1.3;; *) PATH={real}; {body};; esac\n"),
            );
            let path = format!("{}:{real}", bin.display());
            let ran = world.run(&mut local(&world, to, path.as_ref(), "zstd", &text));
            ran.says(0, &[]);
            assert_eq!(world.copied(&[&text]), [true], "{body}");
            // The last one is only ever asked to compress.
            let is_used = to && body.contains("Incorrect");
            assert_eq!(
                ran.stderr.contains("nothing is compressed from now on"),
                !is_used,
                "{}",
                ran.transcript()
            );
            world.expect_no_process(AT_ONCE);
        }
    }
}

/// What the server itself refuses is its refusal, not the filter's failure.
#[test]
fn what_is_wrong_with_a_path_is_said_of_the_path() {
    let world = World::new();
    world.damage(&world.library, "lib/library.so");
    let ran = world.run(&mut local(&world, true, path().as_ref(), "zstd", &world.top));
    ran.says(4, &["library"]);
    let ran = world.run(&mut local(&world, true, path().as_ref(), "zstd", &world.other));
    was_compressed_at_all(&ran);
}

#[track_caller]
fn was_compressed_at_all(ran: &Ran) {
    ran.says(0, &["compressing with zstd"]);
    assert!(!ran.stderr.contains("from now on"), "{}", ran.transcript());
}

#[test]
fn methods_that_are_none_are_refused() {
    let world = World::new();
    for method in ["brotli", "zstd:0", "zstd:20", "zstd:", ""] {
        let ran = world.run(world.copy().args(["--compress", method, "localhost"]).arg(&world.top));
        ran.says(1, &["'zstd:LEVEL' with a level from 1 to 19"]);
    }
}

#[test]
fn rates_that_are_none_are_refused() {
    let world = World::new();
    for rate in ["fast", "1b", "-1", ""] {
        let ran = world.run(world.copy().arg(format!("--bwlimit={rate}")).arg("localhost").arg(&world.top));
        ran.says(1, &["it is a number of KiB per second"]);
    }
    world.run(world.copy().args(["--bwlimit", "0", "localhost"]).arg(&world.top)).says(0, &[]);
}
