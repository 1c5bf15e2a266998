//! The command line itself.

use std::{process::Stdio, time::Duration};

use rustix::process::Signal;

use crate::support::{PROGRAM, Running, World};

#[test]
fn no_host_is_upstreams_error() {
    let world = World::new();
    let ran = world.run(&mut world.bare());
    ran.says(1, &["error: no host name specified", "--help"]);
    assert_eq!(ran.stdout, "");
}

/// A guess that is far away misleads; that a word could be a path as well is no help either.
#[test]
fn what_is_not_known_is_guessed_only_if_it_is_near() {
    let world = World::new();
    let ran = world.run(world.copy().args(["--no-such-check", "localhost"]).arg(&world.other));
    ran.says(1, &["unexpected argument '--no-such-check'"]);
    assert!(!ran.stderr.contains("similar") && !ran.stderr.contains("tip:"), "{}", ran.transcript());
    let ran = world.run(world.copy().args(["-x", "localhost"]).arg(&world.other));
    assert!(!ran.stderr.contains("similar"), "{}", ran.transcript());
    world.run(world.copy().args(["--dry-rum", "localhost"])).says(1, &["'--dry-run'"]);
}

#[test]
fn what_would_have_an_effect_that_is_not_given_is_refused() {
    let world = World::new();
    for (words, says) in [
        (&["--repair"][..], "'--repair' is not supported: paths that are valid are never written again"),
        (&["--option", "min-free", "100"], "setting 'min-free' (the command line) has no effect"),
        (&["--option", "use-case-hack", "perhaps"], "use-case-hack"),
    ] {
        world.run(world.copy().args(words).arg("localhost").arg(&world.other)).says(1, &[says]);
    }
    assert!(!world.to().exists());
}

#[test]
fn settings_without_effect_are_named_to_those_who_ask() {
    let world = World::new();
    let words = ["--cores", "0", "--option", "sandbox", "false", "localhost"];
    let ran = world.run(world.copy().args(words).arg(&world.other));
    assert!(!ran.stderr.contains("no effect"), "{}", ran.transcript());
    let ran = world.run(world.copy().arg("-v").args(words).arg(&world.other));
    ran.says(0, &["these settings have no effect on a copy: cores, sandbox"]);
    let ran = world.run(world.copy().args(["--timeout", "5", "localhost"]).arg(&world.other));
    ran.says(0, &["warning: '--timeout' limits builds", "--stall-timeout"]);
    let ran =
        world.run(world.copy().args(["--option", "no-such-setting", "5", "localhost"]).arg(&world.other));
    ran.says(0, &["warning: setting 'no-such-setting'"]);
}

/// Names on a command line, in a list, or in an archive may hold anything.
#[test]
fn what_a_terminal_would_obey_is_written_out() {
    let world = World::new();
    let hostile = "/tmp/\x1b[2J\u{202e}x";
    let ran = world.run(world.copy().args(["localhost", hostile]));
    ran.says(1, &[r"/tmp/\u{1b}[2J\u{202e}x"]);
    let ran = world.run_with_input(world.copy().args(["localhost", "--stdin"]), hostile.as_bytes());
    ran.says(1, &[r"/tmp/\u{1b}[2J\u{202e}x"]);
    for words in [&["--bogus\x1b[2J", "localhost"][..], &["--", "a\x1b[2Jb", "/nix/store"]] {
        let ran = world.run(world.copy().args(words));
        assert!(ran.code == 1 && !ran.stderr.contains('\x1b'), "{}", ran.transcript());
    }
}

#[test]
fn quiet_prints_errors_alone() {
    let world = World::new();
    let words = ["--quiet", "--bzip2", "--timeout", "5", "--option", "no-such-setting", "5"];
    world.run(world.copy().args(words).args(["localhost?bogus=1", &world.other])).is("exit 0");
    world.run(world.copy().args(["--quiet", "localhost", "/etc/passwd"])).says(1, &["error: "]);
}

#[test]
fn errors_before_the_copy_are_lines_of_nix_too() {
    let world = World::new();
    for words in [&["localhost", "/etc/passwd"][..], &["a b", &world.other]] {
        let ran = world.run(world.copy().args(["--log-format", "internal-json"]).args(words));
        assert!(ran.code == 1 && !ran.stderr.is_empty(), "{}", ran.transcript());
        assert!(ran.stderr.lines().all(|line| line.starts_with("@nix {")), "{}", ran.transcript());
    }
}

#[test]
fn an_unknown_option_is_refused_and_never_a_host() {
    let world = World::new();
    for words in
        [&["--bogus", "localhost"][..], &["localhost", "--bogus"], &["-oProxyCommand=touch x", "localhost"]]
    {
        let ran = world.run(world.copy().args(words).arg(&world.top));
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{}", ran.transcript());
        assert!(ran.stderr.starts_with("error: unexpected argument '-"), "{}", ran.transcript());
    }
    assert!(!world.to().exists() && !world.directory().join("x").exists());
}

#[test]
fn options_may_follow_paths() {
    let world = World::new();
    let mut command = world.bare();
    command.arg("localhost").arg(&world.top).arg("--remote-store").arg(world.to());
    command.arg(&world.other).arg("--store").arg(world.from()).arg("--to");
    world.run(&mut command).says(0, &["copying 4 paths..."]);
}

#[test]
fn two_dashes_end_the_options() {
    let world = World::new();
    let ran = world.run(world.copy().args(["--", "localhost"]).arg(&world.other));
    ran.says(0, &["copying 1 paths..."]);
    let ran = world.run(world.copy().args(["--", "localhost", "--dry-run"]));
    ran.says(1, &["--dry-run' is not in the Nix store"]);
    let ran = world.run(world.copy().args(["--", "-bad-host"]).arg(&world.other));
    ran.says(1, &["'-bad-host' cannot be used as HOST"]);
}

#[test]
fn what_is_given_twice_is_as_good_as_once() {
    let world = World::new();
    let words = ["-s", "-s", "--to", "--to", "--gzip", "--gzip", "-k", "--keep-going", "--quiet", "--quiet"];
    world.run(world.copy().args(words).arg("localhost").arg(&world.top)).is("exit 0");
    let mut command = world.copy();
    command.arg("--store").arg(world.from()).args(["--include-outputs", "--include-outputs", "localhost"]);
    world.run(command.arg(&world.top)).says(0, &["copying 0 paths..."]);
}

/// A script that uses every option of upstream's manual, and those that all of Nix's old commands take.
#[test]
fn every_option_of_upstream_in_one_command() {
    let world = World::new();
    let words = [
        "--to",
        "--gzip",
        "--include-outputs",
        "--use-substitutes",
        "-s",
        "-v",
        "--verbose",
        "--show-progress",
        "--option",
        "sandbox",
        "false",
        "--log-format",
        "raw",
        "-j",
        "3",
        "--max-jobs",
        "auto",
        "--cores",
        "0",
        "--max-silent-time",
        "100",
        "-k",
        "-K",
        "--keep-failed",
        "-Q",
        "--fallback",
        "--no-gc-warning",
        "--readonly-mode",
        "--bzip2",
        "--xz",
        "--connect-timeout",
        "5",
    ];
    let ran = world.run(world.copy().args(words).arg("localhost").arg(&world.top));
    ran.says(0, &["copying 3 paths...", "'--bzip2' is obsolete", "'--xz' is obsolete"]);
    assert_eq!(world.copied(&world.all()), [true, true, true, false]);
}

#[test]
fn hosts_that_are_none_are_refused() {
    let world = World::new();
    for host in ["-x", "user@-x", "a b", "http://x", "ssh://", "localhost:99999"] {
        let ran = world.run(world.copy().args(["--", host]).arg(&world.other));
        ran.says(1, &["cannot be used as HOST", host]);
    }
    let ran = world.run(world.copy().arg("").arg(&world.other));
    ran.says(1, &["the host name is empty"]);
}

#[test]
fn parameters_of_the_host_are_upstreams() {
    let world = World::new();
    let host = format!("localhost?remote-store={}&max-connections=4", world.to().display());
    let mut command = world.bare();
    command.arg("--store").arg(world.from()).arg(&host).arg(&world.other);
    world.run(&mut command).says(0, &["copying 1 paths...", "'ssh://localhost'"]);
    assert_eq!(world.copied(&world.all()), [false, false, false, true]);
    // Newer versions of Nix may know it.
    world.run(world.copy().args(["--dry-run", "localhost?bogus=1&store=/nix/store"]).arg(&world.other)).is("
        1| would copy 0 paths (0 B) to localhost
        1| already there: 1 path (456 B)
        2| warning: the parameter 'bogus' of the store is not known and ignored
        exit 0
    ");
    let ran = world.run(world.copy().arg("localhost?store=/elsewhere").arg(&world.other));
    ran.says(1, &["host 'localhost' has '/elsewhere'"]);
}

#[test]
fn compress_must_be_a_boolean() {
    let world = World::new();
    for value in ["true", "1", "yes", "false", "0", "no"] {
        world.run(world.copy().arg(format!("localhost?compress={value}")).arg(&world.other)).says(0, &[]);
    }
    world.run(world.copy().arg("localhost?compress=maybe").arg(&world.other)).says(1, &["compress", "maybe"]);
}

#[test]
fn sshopts_with_unbalanced_quotes_are_an_error() {
    let world = World::new();
    let mut command = world.copy();
    command.env("NIX_SSHOPTS", "-o 'ProxyCommand=x").arg("nowhere.invalid").arg(&world.other);
    world.run(&mut command).says(1, &["NIX_SSHOPTS", "quot"]);
}

#[test]
fn without_ssh_the_error_says_so() {
    let world = World::new();
    let ran = world.run(world.copy().arg("somewhere.invalid").arg(&world.other));
    ran.says(3, &["ssh"]);
}

#[test]
fn serving_takes_no_host() {
    let world = World::new();
    world.run(world.bare().args(["--serve", "localhost"])).says(1, &["'--serve' takes no host"]);
    world.run(world.bare().args(["--write", "localhost"])).says(1, &["--serve"]);
    world.run(world.bare().args(["--serve", "--to"])).says(1, &["--to"]);
}

/// One flag for each setting of Nix, in the forms that Nix takes.
#[test]
fn every_setting_of_nix_is_an_option_too() {
    let world = World::new();
    let words = [
        "--show-trace",
        "--sandbox",
        "--no-sandbox",
        "--relaxed-sandbox",
        "--no-require-sigs",
        "--no-fallback",
        "--keep-going",
        "--no-keep-going",
        "--tarball-ttl",
        "0",
        "--max-build-log-size",
        "0",
        "--substituters",
        "file:///nowhere",
        "--extra-substituters",
        "file:///nowhere",
        "--gc-keep-outputs",
        "--option",
        "tarball-ttl",
        "-1",
    ];
    world.run(world.copy().args(words).arg("localhost").arg(&world.other)).says(0, &["copying 1 paths..."]);
}

/// Otherwise paths would be looked for, or written, in another store than the one that is meant.
#[test]
fn the_setting_store_is_heard_wherever_it_stands() {
    let world = World::new();
    let from = world.from().display().to_string();
    let copy = |arguments: &[&str], config: &str| {
        let mut command = world.bare();
        command.args(arguments).arg("--remote-store").arg(world.to()).args(["-n", "localhost", &world.other]);
        command.env("NIX_REMOTE", "/nowhere");
        world.run(command.env("NIX_CONFIG", config))
    };
    for (arguments, config) in [
        (&["--option", "store", &from][..], "store = /nowhere"),
        (&[], &format!("store = /nowhere\nstore = {from} # mine")),
        (&["--store", &from, "--option", "store", "/nowhere"], ""),
    ] {
        let ran = copy(arguments, config);
        ran.says(0, &[]);
        assert!(ran.stdout.starts_with("would copy 1 path"), "{}", ran.transcript());
    }
    assert_ne!(copy(&[], "").code, 0);
}

#[test]
fn the_daemons_store_is_the_one_on_this_disk() {
    let world = World::new();
    let mut command = world.bare();
    command.env("NIX_REMOTE", "daemon").env("NIX_STATE_DIR", world.from().join("nix/var/nix"));
    command.arg("--remote-store").arg(world.to()).args(["-n", "localhost", &world.other]);
    let ran = world.run(&mut command);
    assert!(ran.stdout.starts_with("would copy 1 path"), "{}", ran.transcript());
}

#[test]
fn the_program_on_the_host_may_have_arguments() {
    let world = World::new();
    let mut command = world.copy();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.args(["--remote-program", &format!("env 'A=b c' {PROGRAM}"), "localhost"]).arg(&world.other);
    world.run(&mut command).says(0, &["copying 1 paths..."]);
    let ran = world.run(world.copy().args(["--remote-program", "it's", "localhost"]).arg(&world.other));
    ran.says(1, &["the program 'it's' cannot be run"]);
}

#[test]
fn json_is_one_report_however_it_ends() {
    let world = World::new();
    let report = |arguments: &[&str]| -> serde_json::Value {
        let ran = world.run(world.copy().arg("--json").args(arguments));
        serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.transcript()))
    };
    let nothing = report(&["localhost"]);
    assert_eq!((&nothing["action"], &nothing["success"]), (&"copy".into(), &true.into()));
    let elsewhere = report(&["localhost", "/etc/passwd"]);
    assert_eq!((&elsewhere["action"], &elsewhere["success"]), (&"copy".into(), &false.into()));
    assert!(elsewhere["error"].as_str().unwrap().contains("not in the Nix store"), "{elsewhere}");
    let unplanned = report(&["-n", "--remote-program", "/nowhere/nix-store", "localhost", &world.other]);
    assert_eq!((&unplanned["action"], &unplanned["toSend"]["count"]), (&"plan".into(), &0.into()));
    assert!(unplanned["error"].as_str().unwrap().contains("/nowhere/nix-store"), "{unplanned}");
}

#[test]
fn a_host_that_was_forgotten_gets_a_hint() {
    let world = World::new();
    world
        .run(world.copy().arg(&world.top))
        .says(1, &["cannot be used as HOST", "hint: the host comes first"]);
}

/// It waits for the list, and a signal ends it all the same.
#[test]
#[cfg(target_os = "linux")] // which says what signals a process hears
fn signals_are_heard_while_paths_are_read() {
    let world = World::new();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let (reader, writer) = std::io::pipe().unwrap();
        let running =
            Running::start_with(world.copy().args(["--stdin", "-v", "localhost"]), Stdio::from(reader));
        running.wait_for_handler(signal, Duration::from_secs(10));
        running.signal(signal);
        assert_eq!(running.end(&world, Duration::from_secs(3)).code, code);
        drop(writer);
    }
}
