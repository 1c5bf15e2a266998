//! Copies, and what they say.

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Stdio},
};

use crate::support::{World, real, snapshot};

#[test]
fn the_closure_is_copied_to_the_host_by_default() {
    let world = World::new();
    world.run(world.copy().arg("localhost").arg(&world.top)).is("
        2| copying 3 paths...
        2| copying path '/nix/store/...-library' to 'ssh://localhost'...
        2| copying path '/nix/store/...-program' to 'ssh://localhost'...
        2| copying path '/nix/store/...-top' to 'ssh://localhost'...
        2| copied 3 paths (9.1 KiB) to localhost in ... s
        exit 0
    ");
    assert_eq!(world.copied(&world.all()), [true, true, true, false]);
    let copied = real(&world.to(), &world.library).join("lib/library.so");
    assert_eq!(fs::read_to_string(copied).unwrap(), "library\n".repeat(1000));
}

#[test]
fn from_fetches_the_closure() {
    let world = World::new();
    world.run(world.fetch().arg("localhost").arg(&world.top)).is("
        2| copying 3 paths...
        2| copying path '/nix/store/...-library' from 'ssh://localhost'...
        2| copying path '/nix/store/...-program' from 'ssh://localhost'...
        2| copying path '/nix/store/...-top' from 'ssh://localhost'...
        2| copied 3 paths (9.1 KiB) from localhost in ... s
        exit 0
    ");
    assert_eq!(world.copied(&world.all()), [true, true, true, false]);
}

#[test]
fn the_last_direction_wins() {
    let world = World::new();
    let ran = world.run(world.copy().args(["--from", "--to", "localhost"]).arg(&world.other));
    ran.says(0, &["to 'ssh://localhost'"]);
    let ran = world.run(world.fetch().args(["--to", "--from", "localhost"]).arg(&world.top));
    ran.says(0, &["from 'ssh://localhost'"]);
}

#[test]
fn a_second_run_has_nothing_to_send_and_says_so() {
    let world = World::new();
    world.run(world.copy().arg("localhost").arg(&world.top)).says(0, &[]);
    world.run(world.copy().arg("localhost").arg(&world.top)).is("
        2| copying 0 paths...
        2| nothing to copy to localhost; 3 were there already
        exit 0
    ");
    world.run(world.copy().args(["--quiet", "localhost"]).arg(&world.top)).is("exit 0");
}

#[test]
fn only_what_is_missing_is_sent() {
    let world = World::new();
    world.run(world.copy().arg("localhost").arg(&world.library)).says(0, &[]);
    world.run(world.copy().arg("localhost").arg(&world.program)).is("
        2| copying 1 paths...
        2| copying path '/nix/store/...-program' to 'ssh://localhost'...
        2| copied 1 path (456 B) to localhost in ... s; 1 was there already
        exit 0
    ");
}

#[test]
fn quiet_says_nothing() {
    let world = World::new();
    world.run(world.copy().args(["--quiet", "localhost"]).arg(&world.top)).is("exit 0");
    assert_eq!(world.copied(&world.all()), [true, true, true, false]);
}

#[test]
fn the_report_is_one_json_object_on_stdout() {
    let world = World::new();
    let ran = world.run(world.copy().args(["--json", "localhost"]).args([&world.top, &world.other]));
    assert_eq!(ran.code, 0, "{}", ran.transcript());
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["success"], true);
    assert_eq!((&report["direction"], &report["host"]), (&"to".into(), &"localhost".into()));
    assert_eq!((&report["sent"]["count"], &report["present"]["count"]), (&4.into(), &0.into()));
    assert_eq!(report["roots"].as_array().unwrap().len(), 2);
    assert!(report["seconds"].as_f64().unwrap() > 0.0);
    let again = world.run(world.copy().args(["--json", "localhost"]).arg(&world.top));
    let report: serde_json::Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!((&report["sent"]["count"], &report["present"]["count"]), (&0.into(), &3.into()));
}

/// The issue asks for the bytes on the wire.
#[test]
fn the_report_counts_the_bytes_on_the_wire() {
    let world = World::new();
    let ran = world.run(world.copy().args(["--json", "localhost"]).arg(&world.top));
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let sent = report["sent"]["narBytes"].as_u64().unwrap();
    assert!(report["wire"]["sent"].as_u64().unwrap() > sent, "{}", ran.transcript());
    assert!(report["wire"]["received"].as_u64().unwrap() > 0);
}

#[test]
fn a_failed_copy_has_a_report_too() {
    let world = World::new();
    world.damage(&world.program, "bin/program");
    let ran = world.run(world.copy().args(["--json", "localhost"]).arg(&world.top));
    assert_eq!(ran.code, 1, "{}", ran.transcript());
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["success"], false);
    assert!(report["error"].is_string());
}

#[test]
fn a_damaged_path_is_named_and_nothing_that_needs_it_becomes_valid() {
    let world = World::new();
    world.damage(&world.program, "bin/program");
    let ran = world.run(world.copy().arg("localhost").arg(&world.top));
    ran.says(1, &["...-program'", "--keep-going"]);
    assert_eq!(world.copied(&world.all())[1..3], [false, false]);
}

#[test]
fn keep_going_copies_all_others_and_names_what_failed_with_dependants() {
    let world = World::new();
    world.damage(&world.program, "bin/program");
    let mut command = world.copy();
    command.args(["--keep-going", "localhost"]).args([&world.top, &world.other]);
    let ran = world.run(&mut command);
    ran.says(4, &["...-program'", "1 more path could not be copied", "2 of 4 paths could not be copied"]);
    assert!(!ran.stderr.contains("...-top'"), "{}", ran.transcript());
    assert_eq!(world.copied(&world.all()), [true, false, false, true]);
}

#[test]
fn keep_going_fetches_all_others_too() {
    let world = World::new();
    world.damage(&world.program, "bin/program");
    let mut command = world.fetch();
    command.args(["-k", "-v", "localhost"]).args([&world.top, &world.other]);
    let ran = world.run(&mut command);
    ran.says(4, &["...-program'", "...-top'", "2 of 4 paths could not be copied"]);
    assert_eq!(world.copied(&world.all()), [true, false, false, true]);
}

/// Its NAR is cut in the middle, when it turns out to be wrong, and the connection with it.
#[test]
fn keep_going_goes_on_behind_a_large_damaged_path() {
    let copy = World::copy as fn(&World) -> Command;
    for from in [copy, World::fetch] {
        let world = World::new();
        let big = crate::transports::add_big(&world);
        world.damage(&big, "file");
        let ran = world.run(from(&world).args(["-k", "localhost", &big]).args([&world.top, &world.other]));
        ran.says(4, &["-big'", "1 of 5 paths could not be copied", "hint:", "nix-store --verify-path"]);
        assert_eq!(world.copied(&world.all()), [true; 4]);
        assert_eq!(world.copied(&[&big]), [false]);
    }
}

#[test]
fn keep_going_reports_in_json_what_failed() {
    let world = World::new();
    world.damage(&world.program, "bin/program");
    let mut command = world.copy();
    command.args(["--keep-going", "--json", "localhost"]).args([&world.top, &world.other]);
    let ran = world.run(&mut command);
    assert_eq!(ran.code, 4, "{}", ran.transcript());
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let failed: Vec<&str> =
        report["failed"].as_array().unwrap().iter().map(|failed| failed["path"].as_str().unwrap()).collect();
    assert_eq!(failed, ["/nix/store/...-program", "/nix/store/...-top"]);
    assert_eq!(report["sent"]["count"], 2);
}

#[test]
fn no_paths_are_copied_with_success() {
    let world = World::new();
    let before = snapshot(world.directory());
    world.run(world.copy().arg("localhost")).is("
        2| no paths given, nothing to copy
        exit 0
    ");
    world.run(world.copy().args(["--stdin", "localhost"])).is("
        2| no paths given, nothing to copy
        exit 0
    ");
    crate::support::assert_unchanged(&before, &snapshot(world.directory()));
}

#[test]
fn a_path_that_is_not_valid_is_named() {
    let world = World::new();
    let absent = "/nix/store/00000000000000000000000000000000-absent";
    world.run(world.copy().arg("localhost").args([&world.top, absent])).is("
        2| error: path '/nix/store/00000000000000000000000000000000-absent' is not valid in the store in $DIR/from
        exit 1
    ");
    assert_eq!(world.copied(&world.all()), [false; 4]);
    world.run(world.fetch().arg("localhost").arg(absent)).says(1, &[absent, "is not valid", "localhost"]);
}

#[test]
fn a_store_that_is_not_there_is_named() {
    let world = World::new();
    let mut command = world.bare();
    command.arg("--store").arg(world.directory().join("nowhere")).arg("localhost").arg(&world.top);
    world.run(&mut command).says(1, &["$DIR/nowhere"]);
    assert!(!world.directory().join("nowhere").exists());
}

#[test]
fn a_store_uri_of_no_known_kind_is_refused() {
    let world = World::new();
    for (uri, why) in [
        ("https://cache.example.org", "it is a binary cache"),
        ("s3://bucket", "it is a binary cache in S3"),
        ("gopher://host", "no kind of store is called 'gopher'"),
        ("lokal", "a directory is written './lokal'"),
        ("local?root=x", "which is not an absolute path"),
    ] {
        let ran = world.run(world.bare().args(["--store", uri, "localhost"]).arg(&world.top));
        ran.says(1, &[why]);
    }
    let ran = world.run(world.bare().args(["--serve", "--store", "ssh://host"]));
    ran.says(1, &["it is on another machine, and what is served has to be on this one"]);
}

#[test]
fn nix_remote_says_which_store_is_here() {
    let world = World::new();
    let mut command = world.bare();
    command.env("NIX_REMOTE", format!("local?root={}", world.from().display()));
    command.arg("--remote-store").arg(world.to()).arg("localhost").arg(&world.other);
    world.run(&mut command).says(0, &["copying 1 paths..."]);
    assert_eq!(world.copied(&world.all()), [false, false, false, true]);
    // --store wins.
    let mut command = world.copy();
    command.env("NIX_REMOTE", "https://nowhere.example.org").arg("localhost").arg(&world.top);
    world.run(&mut command).says(0, &["copying 3 paths..."]);
    let mut command = world.bare();
    command.env("NIX_REMOTE", "https://nowhere.example.org").arg("localhost").arg(&world.top);
    world.run(&mut command).says(1, &["NIX_REMOTE", "https://nowhere.example.org"]);
}

#[test]
fn stdout_closed_is_no_panic() {
    let world = World::new();
    for words in
        [&["--dry-run"][..], &["--dry-run", "--json"], &["--tree"], &["--json"], &["--dry-run", "--tree"]]
    {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = world.copy();
        command.args(words).arg("localhost").arg(&world.top).stdout(writer).stderr(Stdio::piped());
        let output = command.output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!stderr.contains("panicked"), "{words:?}: {stderr}");
        assert!(!stderr.contains("error"), "{words:?}: {stderr}");
        assert_eq!(output.status.code(), Some(0), "{words:?}: {stderr}");
    }
    // It copied nevertheless.
    assert_eq!(world.copied(&world.all()), [true, true, true, false]);
}

#[test]
fn the_named_program_serves() {
    let world = World::new();
    let program = world
        .script("serve", &format!("#!/bin/sh\necho called >&2\nexec {} \"$@\"\n", crate::support::PROGRAM));
    let mut command = world.copy();
    command.arg("--remote-program").arg(program).arg("localhost").arg(&world.other);
    world.run(&mut command).is("
        2| localhost: called
        2| copying 1 paths...
        2| copying path '/nix/store/...-other' to 'ssh://localhost'...
        2| copied 1 path (456 B) to localhost in ... s
        exit 0
    ");
}

#[test]
fn a_named_program_that_is_not_there_is_an_error_with_a_hint() {
    let world = World::new();
    let mut command = world.copy();
    command.args(["--remote-program", "/nowhere/nix-store", "localhost"]).arg(&world.other);
    world.run(&mut command).says(1, &["/nowhere/nix-store"]);
}

#[test]
fn internal_json_is_a_line_of_nix_for_each_event() {
    let world = World::new();
    let mut command = world.copy();
    command.args(["--log-format", "internal-json", "localhost"]).arg(&world.top);
    let ran = world.run(&mut command);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""));
    let (mut started, mut stopped) = (0, 0);
    for line in ran.stderr.lines() {
        let json = line.strip_prefix("@nix ").unwrap_or_else(|| panic!("{line}"));
        let event: serde_json::Value = serde_json::from_str(json).unwrap();
        match event["action"].as_str().unwrap() {
            "start" => started += 1,
            "stop" => stopped += 1,
            "result" | "msg" => {}
            other => panic!("{other}"),
        }
    }
    assert!(started > 3 && started == stopped, "{started} started, {stopped} stopped");
}

#[test]
fn an_error_is_a_line_of_nix_where_these_are_asked_for() {
    let world = World::new();
    world.damage(&world.program, "bin/program");
    let mut command = world.copy();
    command.args(["--log-format", "internal-json", "localhost"]).arg(&world.top);
    let ran = world.run(&mut command);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.lines().all(|line| line.starts_with("@nix {")), "{}", ran.transcript());
}

#[test]
fn raw_and_bars_are_lines_where_there_is_no_terminal() {
    for format in ["raw", "bar", "bar-with-logs", "multiline"] {
        let world = World::new();
        let mut command = world.copy();
        command.args(["--log-format", format, "localhost"]).arg(&world.other);
        world.run(&mut command).is("
            2| copying 1 paths...
            2| copying path '/nix/store/...-other' to 'ssh://localhost'...
        2| copied 1 path (456 B) to localhost in ... s
            exit 0
        ");
    }
    let world = World::new();
    world
        .run(world.copy().args(["--show-progress", "localhost"]).arg(&world.other))
        .says(0, &["copying path"]);
}

/// Whatever step is the first that can open no more, here or at the other end, which is this program too.
#[test]
fn with_few_open_files_it_copies_or_says_what_is_wrong() {
    let world = World::new();
    let mut codes = BTreeSet::new();
    // From some number on the program begins at all, and has what it needs.
    for most in 4..72 {
        for mut plain in [world.copy(), world.fetch()] {
            let _ = fs::remove_dir_all(world.to());
            plain.args(["localhost", &world.top]);
            let mut limited = Command::new("/bin/sh");
            limited.args(["-c", &format!("ulimit -n {most}\nexec \"$@\""), "sh"]);
            limited.arg(plain.get_program()).args(plain.get_args()).env_clear();
            limited.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
            let ran = world.run(limited.current_dir(world.directory()));
            let is_good = match ran.code {
                0 => world.copied(&world.all()[..3]) == [true; 3],
                1 | 3 | 6 => ran.stderr.contains("error: "),
                _ => false,
            };
            assert!(is_good, "{most}: {}", ran.transcript());
            codes.insert(ran.code);
        }
    }
    assert!(codes.contains(&0) && codes.contains(&1), "{codes:?}");
}
