//! Machines where something is scarce.

use std::{fs, process::Command, time::Duration};

use crate::support::{Ran, Running, World, full};

/// Runs it with room for so many files beside those that are open from the start, in each process.
fn with_files(files: u32, command: &Command, world: &World) -> Ran {
    let mut limited = Command::new("/bin/sh");
    let count = "n=$0; for file in /proc/$$/fd/*; do n=$((n+1)); done; ulimit -n $n && exec \"$@\"";
    limited.args(["-c", count, &files.to_string()]);
    limited.arg(command.get_program()).args(command.get_args()).env_clear();
    for (name, value) in command.get_envs() {
        limited.env(name, value.unwrap_or_default());
    }
    Running::start(limited.current_dir(world.directory())).end(world, Duration::from_secs(60))
}

/// A path that is deeper than descriptors are allowed, and many small ones, each of which holds a lock until it is registered.
#[test]
fn few_file_descriptors_are_enough_or_a_clear_error() {
    let world = World::new();
    let mut paths: Vec<String> =
        (0..150).map(|number| full(&world.add(&format!("small{number}"), "file", "x", []))).collect();
    paths.push(full(&world.add("deep", &format!("{}file", "d/".repeat(40)), "deep", [])));
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    for (fetches, files, enough) in [
        (false, 3, false),
        (false, 12, false),
        (false, 30, false),
        (true, 35, false),
        (false, 42, true),
        (true, 42, true),
        (true, 64, true),
    ] {
        let _ = fs::remove_dir_all(world.to());
        let mut command = if fetches { world.fetch() } else { world.copy() };
        let ran = with_files(files, command.arg("localhost").args(&paths), &world);
        assert!(!ran.stderr.contains("panicked"), "{}", ran.transcript());
        if enough {
            ran.says(0, &["copied 151 paths"]);
        } else {
            ran.says(1, &["error: could not start: too few files may be open at once", "'ulimit -n'"]);
        }
        assert_eq!(world.copied(&paths), vec![enough; paths.len()], "{files}: {}", ran.transcript());
    }
}
