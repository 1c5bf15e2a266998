//! `--dry-run` changes nothing, anywhere.

use crate::support::{World, assert_unchanged, snapshot};

#[test]
fn it_says_what_would_be_sent_and_changes_not_a_byte() {
    let world = World::new();
    world.run(world.copy().arg("localhost").arg(&world.library)).says(0, &[]);
    let before = snapshot(world.directory());
    world.run(world.copy().args(["--dry-run", "localhost"]).arg(&world.top)).is("
        1| would copy 2 paths (912 B) to localhost
        1|        456 B  /nix/store/...-program
        1|        456 B  /nix/store/...-top
        1| already there: 1 path (8.3 KiB)
        exit 0
    ");
    assert_unchanged(&before, &snapshot(world.directory()));
}

#[test]
fn it_fetches_nothing_either() {
    let world = World::new();
    world.run(world.fetch().arg("localhost").arg(&world.library)).says(0, &[]);
    let before = snapshot(world.directory());
    world.run(world.fetch().args(["-n", "localhost"]).arg(&world.top)).is("
        1| would copy 2 paths (912 B) from localhost
        1|        456 B  /nix/store/...-program
        1|        456 B  /nix/store/...-top
        1| already there: 1 path (8.3 KiB)
        exit 0
    ");
    assert_unchanged(&before, &snapshot(world.directory()));
}

#[test]
fn a_store_here_that_does_not_exist_is_not_made() {
    let world = World::new();
    let before = snapshot(world.directory());
    let ran = world.run(world.fetch().args(["--dry-run", "localhost"]).arg(&world.top));
    assert!(ran.stdout.starts_with("would copy 3 paths"), "{}", ran.transcript());
    assert_unchanged(&before, &snapshot(world.directory()));
}

#[test]
fn a_store_there_that_does_not_exist_is_not_made() {
    let world = World::new();
    let before = snapshot(world.directory());
    let ran = world.run(world.copy().args(["--dry-run", "localhost"]).arg(&world.top));
    assert!(ran.stdout.starts_with("would copy 3 paths"), "{}", ran.transcript());
    assert_unchanged(&before, &snapshot(world.directory()));
}

#[test]
fn json_says_the_same_to_programs() {
    let world = World::new();
    world.run(world.copy().arg("localhost").arg(&world.library)).says(0, &[]);
    let before = snapshot(world.directory());
    let ran = world.run(world.copy().args(["--dry-run", "--json", "localhost"]).arg(&world.top));
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let plan: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        plan,
        serde_json::json!({
            "version": 1,
            "action": "plan",
            "direction": "to",
            "host": "localhost",
            "from": null,
            "to": "localhost",
            "roots": ["/nix/store/...-top"],
            "present": {
                "count": 1,
                "narBytes": 8456,
                "paths": [{ "path": "/nix/store/...-library", "narSize": 8456 }],
            },
            "substitutable": { "count": 0, "narBytes": 0, "paths": [] },
            "unforeseen": false,
            "error": null,
            "failed": [],
            "toSend": {
                "count": 2,
                "narBytes": 912,
                "paths": [
                    { "path": "/nix/store/...-program", "narSize": 456 },
                    { "path": "/nix/store/...-top", "narSize": 456 },
                ],
            },
        })
    );
    assert_unchanged(&before, &snapshot(world.directory()));
}

#[test]
fn with_substitution_it_says_who_will_be_asked() {
    let world = World::new();
    world.run(world.copy().arg("localhost").arg(&world.library)).says(0, &[]);
    let before = snapshot(world.directory());
    let ran = world.run(world.copy().args(["--dry-run", "-s", "localhost"]).arg(&world.top));
    assert!(ran.stdout.contains("substitute"), "{}", ran.transcript());
    assert_unchanged(&before, &snapshot(world.directory()));
}

#[test]
fn with_nothing_to_do_it_says_so() {
    let world = World::new();
    world.run(world.copy().arg("localhost").arg(&world.top)).says(0, &[]);
    let ran = world.run(world.copy().args(["--dry-run", "localhost"]).arg(&world.top));
    assert!(ran.stdout.starts_with("would copy 0 paths (0 B) to localhost\n"), "{}", ran.transcript());
}

#[test]
fn a_path_that_is_not_valid_is_an_error_here_too() {
    let world = World::new();
    let absent = "/nix/store/00000000000000000000000000000000-absent";
    world.run(world.copy().args(["--dry-run", "localhost", absent])).says(1, &[absent]);
}
