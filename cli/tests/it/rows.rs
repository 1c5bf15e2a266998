//! Rows of the source's database that nobody can read, where this program is at both ends.

use crate::support::World;

/// The reason as the other end gives it.
const REASON: &str = "warning: the store in $DIR/from could not describe '...-";

/// <https://github.com/NixOS/nix/issues/6843>
#[test]
fn r6843_our_server_describes_all_paths_but_the_bad_one() {
    for odd in ["hash = 'sha256:zz'", "narSize = -5", "ca = 'fixed:x'"] {
        let world = World::new();
        world.change_database(&format!("update ValidPaths set {odd} where path like '%-other'"));
        let ran = world.run(world.fetch().args(["-k", "localhost", &world.other, &world.top]));
        ran.says(4, &[&format!("{REASON}other'"), odd.split_once(' ').unwrap().0]);
        assert_eq!(world.copied(&world.all()), [true, true, true, false], "{}", ran.transcript());
    }
}

/// What refers to the bad path cannot be copied, and all else can.
#[test]
fn r6843_a_bad_path_within_a_closure_costs_only_what_needs_it() {
    let world = World::new();
    world.change_database("update ValidPaths set hash = 'sha256:zz' where path like '%-program'");
    let ran = world.run(world.fetch().args(["-k", "localhost", &world.top, &world.other, &world.library]));
    ran.says(4, &[&format!("{REASON}program'"), "the host has it, but gives no metadata of it"]);
    assert_eq!(world.copied(&world.all()), [true, false, false, true], "{}", ran.transcript());
    assert_eq!(ran.stderr.matches(REASON).count(), 1, "said once: {}", ran.transcript());
}

/// Whoever does not want to go on is told why, and nothing is copied.
#[test]
fn a_bad_path_within_a_closure_stops_a_copy_that_is_not_to_go_on() {
    let world = World::new();
    world.change_database("update ValidPaths set hash = 'sha256:zz' where path like '%-library'");
    let ran = world.run(world.fetch().args(["localhost", &world.top]));
    ran.says(1, &[&format!("{REASON}library'")]);
    assert_eq!(world.copied(&world.all()), [false; 4], "{}", ran.transcript());
}
