//! What may stand for a path.

use std::{fmt::Write as _, fs, os::unix::fs::symlink, process::Stdio, time::Duration};

use crate::support::{Running, World, real};

#[test]
fn links_and_what_lies_below_a_path_stand_for_it() {
    let world = World::new();
    symlink(&world.program, world.directory().join("result")).unwrap();
    fs::create_dir(world.directory().join("profile")).unwrap();
    symlink(world.directory().join("result/bin/program"), world.directory().join("profile/program")).unwrap();
    for word in [
        "result".to_owned(),
        "./result/bin".to_owned(),
        "profile/program".to_owned(),
        format!("{}/bin/program", world.program),
        format!("{}/", world.program),
        real(&world.from(), &world.program).join("bin").display().to_string(),
    ] {
        let _ = remove_destination(&world);
        world.run(world.copy().arg("localhost").arg(&word)).says(0, &["copying 2 paths..."]);
        assert_eq!(world.copied(&world.all()), [true, true, false, false], "{word}");
    }
}

/// What is no list is said to be none, and one that does not come is waited for with a word.
#[test]
fn lists_without_an_end_are_refused_and_those_that_do_not_come_are_named() {
    let world = World::new();
    world.run(world.copy().args(["localhost", "@/dev/zero"])).says(1, &["'/dev/zero' is no list of paths"]);
    let fifo = world.directory().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let mut running = Running::start(world.copy().args(["localhost", "@fifo"]));
    running.wait_for("waiting for paths from 'fifo'", Duration::from_secs(20));
    fs::write(&fifo, format!("{}\n", world.other)).unwrap();
    running.end(&world, Duration::from_secs(20)).says(0, &["copying 1 paths..."]);
    let (reader, writer) = std::io::pipe().unwrap();
    let mut running = Running::start_with(world.copy().args(["localhost", "--stdin"]), Stdio::from(reader));
    running.wait_for("waiting for paths from standard input", Duration::from_secs(20));
    drop(writer);
    running.end(&world, Duration::from_secs(20)).says(0, &["no paths given"]);
}

/// Whatever is wrong with some of the given paths, the others are copied, and each bad one is named once.
#[test]
fn keep_going_copies_the_good_ones_of_what_is_given() {
    let world = World::new();
    let absent = |digit: char| format!("/nix/store/{}-absent", digit.to_string().repeat(32));
    let (one, two) = (absent('1'), absent('2'));
    let list = format!("{one}\n{}\n{two}\n/etc/passwd\n{one}\n", world.other);
    let mut command = world.copy();
    command.args(["-k", "--stdin", "localhost", &world.library]);
    let ran = world.run_with_input(&mut command, list.as_bytes());
    ran.says(4, &["path '/etc/passwd' is not in the Nix store"]);
    for path in [&one, &two] {
        let named =
            ran.stderr.lines().filter(|line| line.starts_with("error: ") && line.contains(path.as_str()));
        assert_eq!(named.count(), 1, "{}", ran.transcript());
    }
    assert_eq!(world.copied(&world.all()), [true, false, false, true]);
    // The same the other way round.
    let world = World::new();
    let ran = world.run(world.fetch().args(["-k", "localhost", &one, &world.other]));
    ran.says(4, &[&one]);
    assert_eq!(world.copied(&[&world.other]), [true]);
    // Without it nothing is copied, and all words that stand for no path are named.
    let world = World::new();
    let ran = world.run(world.copy().args(["localhost", &world.other, "/etc/passwd", "/etc/group"]));
    ran.says(1, &["'/etc/passwd' is not", "'/etc/group' is not"]);
    assert_eq!(world.copied(&[&world.other]), [false]);
}

#[test]
fn two_hundred_thousand_words_are_no_trouble() {
    let world = World::new();
    let mut list = format!("{}\n", world.other);
    for number in 0..200_000 {
        let _ = writeln!(list, "/nix/store/{number:0>32}-absent");
    }
    let ran = world.run_with_input(world.copy().args(["-k", "--stdin", "localhost"]), list.as_bytes());
    assert_eq!(ran.code, 4);
    let named = ran.stderr.lines().filter(|line| line.starts_with("error: path '/nix/store/")).count();
    assert_eq!(named, 200_000);
    assert_eq!(world.copied(&[&world.other]), [true]);
}

fn remove_destination(world: &World) -> std::io::Result<()> {
    // Objects are read-only directories, which only root removes just so.
    std::process::Command::new("chmod")
        .args(["-R", "u+w"])
        .arg(world.to())
        .stderr(std::process::Stdio::null())
        .status()?;
    fs::remove_dir_all(world.to())
}

#[test]
fn a_file_and_standard_input_give_a_path_per_line() {
    let world = World::new();
    fs::write(world.directory().join("list"), format!("{}\n\n  {}\r\n", world.library, world.other)).unwrap();
    world.run(world.copy().args(["localhost", "@list"])).says(0, &["copying 2 paths..."]);
    assert_eq!(world.copied(&world.all()), [true, false, false, true]);
    let input = format!("{}\n", world.top);
    let ran = world.run_with_input(world.copy().args(["--stdin", "localhost"]), input.as_bytes());
    ran.says(0, &["copying 2 paths..."]);
    world.run(world.copy().args(["localhost", "@nothing"])).says(1, &["nothing", "No such file"]);
}

#[test]
fn more_paths_than_an_argument_list_holds_come_in_by_stdin() {
    let world = World::new();
    let input = format!("{}\n", world.top).repeat(60_000);
    let ran = world.run_with_input(world.copy().args(["--stdin", "localhost"]), input.as_bytes());
    ran.says(0, &["copying 3 paths..."]);
}

#[test]
fn what_is_not_in_the_store_is_refused_in_upstreams_words() {
    let world = World::new();
    world.run(world.copy().args(["localhost", "/etc/passwd"])).is("
        2| error: path '/etc/passwd' is not in the Nix store
        exit 1
    ");
    world.run(world.copy().args(["localhost", "/nix/store"])).says(1, &["is not in the Nix store"]);
    world.run(world.copy().args(["localhost", "/nix/store/short-x"])).says(1, &["short-x"]);
    world
        .run(world.copy().args(["localhost", "nothing/here"]))
        .says(1, &["$DIR/nothing/here", "is not in the Nix store"]);
    symlink("/etc/passwd", world.directory().join("elsewhere")).unwrap();
    world.run(world.copy().args(["localhost", "elsewhere"])).says(1, &["'elsewhere'", "'/etc/passwd'"]);
    assert!(!world.to().exists(), "nothing was opened");
}
