//! The `nix.conf` of distributions and installers: each is read, and no setting in it is unknown.

use std::{fs, path::Path};

use ncc_settings::{Disk, Environment, Settings};
use rstest::rstest;

fn settings(system: &str) -> Settings {
    let stock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/stock");
    let environment = Environment::empty("/")
        .with_variable("NIX_CONF_DIR", stock.join(system).join("etc/nix"))
        .with_variable("NIX_USER_CONF_FILES", "");
    Settings::load(&environment, &Disk, &[]).unwrap()
}

#[rstest]
#[case::arch("arch", "build-users-group")]
#[case::debian_12("debian-12", "sandbox")]
#[case::debian_13("debian-13", "sandbox")]
#[case::determinate("determinate", "lazy-trees")]
#[case::fedora("fedora", "build-users-group")]
#[case::installer("installer", "build-users-group")]
#[case::lix("lix", "bash-prompt-prefix")]
#[case::macos("macos", "extra-platforms")]
#[case::nixos("nixos", "sandbox-fallback")]
fn what_systems_come_with_is_known(#[case] system: &str, #[case] set: &str) {
    let settings = settings(system);
    assert!(settings.text(set).is_some(), "'{set}' is set in {system}");
    let review = settings.review();
    assert_eq!(review.unknown, []);
    assert_eq!((review.refused, review.missed), (Vec::new(), Vec::new()));
}

/// A system that is added to the folder has to be added above.
#[test]
fn every_system_with_settings_is_tried() {
    let stock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/stock");
    let systems = fs::read_dir(stock).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(systems.filter(|system| system.join("etc/nix/nix.conf").is_file()).count(), 9);
}

#[test]
fn determinate_includes_what_the_user_writes() {
    let settings = settings("determinate");
    assert_eq!(settings.words("trusted-users", "").collect::<Vec<_>>(), ["root", "alice"]);
    let keys: Vec<_> = settings.words("trusted-public-keys", "default").collect();
    assert_eq!((keys.len(), keys[0]), (2, "default"));
    assert_eq!(settings.switch("auto-optimise-store").unwrap(), Some(true));
}
