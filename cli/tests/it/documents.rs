//! Help, manual page, completions.

use std::process::Stdio;

use crate::support::World;

#[test]
fn help_fits_eighty_columns() {
    let world = World::new();
    for word in ["--help", "-h"] {
        let ran = world.run(world.bare().arg(word));
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
        let wide: Vec<&str> = ran.stdout.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(wide.is_empty(), "{word}: {wide:#?}");
        for option in
            ["--to", "--from", "--gzip", "--include-outputs", "--use-substitutes", "--dry-run", "--verbose"]
        {
            assert!(ran.stdout.contains(option), "{word} does not tell of {option}");
        }
    }
}

#[test]
fn the_version_is_told() {
    let world = World::new();
    let ran = world.run(world.bare().arg("--version"));
    assert_eq!(ran.stdout, concat!("nix-copy-closure ", env!("CARGO_PKG_VERSION"), "\n"));
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
}

#[test]
fn a_verbose_version_says_what_leads_to_other_machines() {
    let world = World::new();
    let ran = world.run(world.bare().args(["--version", "-v"]));
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{}", ran.transcript());
    assert!(lines[1].starts_with("transport openssh: ") && lines[2].starts_with("transport libssh2: "));
    assert_eq!(lines[1..].iter().filter(|line| line.ends_with(", the default")).count(), 1, "{lines:?}");
}

#[cfg(feature = "ssh")] // which the help names as the default
#[test]
fn manual_and_completions_are_those_in_the_repository() {
    let world = World::new();
    let repository = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    for (words, file) in [
        (&["--manual"][..], "man/nix-copy-closure.1"),
        (&["--completions", "bash"], "completions/nix-copy-closure.bash"),
        (&["--completions", "fish"], "completions/nix-copy-closure.fish"),
        (&["--completions", "zsh"], "completions/nix-copy-closure.zsh"),
    ] {
        let ran = world.run(world.bare().args(words));
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
        let kept = std::fs::read_to_string(format!("{repository}/{file}")).unwrap();
        assert!(ran.stdout == kept, "{file} is stale: cargo xtask man");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let world = World::new();
    for words in [&["--help"][..], &["--version"], &["--manual"], &["--completions", "zsh"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = world.bare().args(words).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!stderr.contains("panicked") && output.status.code().is_some(), "{words:?}: {stderr}");
    }
}
