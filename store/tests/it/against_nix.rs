use std::{env, fs, process::Command};

use crate::{check_written_by_nix, files, testdata};

const FEATURES: &str = "ca-derivations impure-derivations";

/// The `nix-instantiate` on this machine must write files of which the same holds as of the golden ones.
#[test]
fn the_nix_on_this_machine_agrees() {
    let version = Command::new("nix-instantiate").arg("--version").output();
    if let Err(error) = version {
        assert!(
            env::var_os("NCC_REQUIRE_REAL").is_none_or(|value| value != "1"),
            "NCC_REQUIRE_REAL=1, but nix-instantiate: {error}"
        );
        // Written past the capture of the test harness, so that it is seen.
        let note = b"LEFT OUT: derivations against real Nix, for there is no nix-instantiate here\n";
        std::io::Write::write_all(&mut std::io::stderr(), note).unwrap();
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let fixture = directory.path().join("fixture.nix");
    fs::copy(testdata().join("fixture.nix"), &fixture).unwrap();
    let output = Command::new("nix-instantiate")
        .arg("--store")
        .arg(directory.path().join("root"))
        .args(["--extra-experimental-features", FEATURES])
        .arg(&fixture)
        .env("HOME", directory.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let written = files(&directory.path().join("root/nix/store"));
    assert_eq!(written.len(), 10);
    check_written_by_nix(&written);
}
