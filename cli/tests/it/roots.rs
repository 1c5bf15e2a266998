//! What may stand for a path.

use std::{fs, os::unix::fs::symlink};

use crate::support::{World, real};

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
        let _ = ncc_nar_remove(&world);
        world.run(world.copy().arg("localhost").arg(&word)).says(0, &["copying 2 paths..."]);
        assert_eq!(world.copied(&world.all()), [true, true, false, false], "{word}");
    }
}

fn ncc_nar_remove(world: &World) -> std::io::Result<()> {
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
