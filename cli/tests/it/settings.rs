//! Settings of Nix, and the names of stores: what is heard, what is said, and what is refused.

use std::fs;

use ncc_local_store::Access;

use crate::support::{World, full, open, real};

#[test]
fn an_unknown_parameter_is_a_warning() {
    let world = World::new();
    let mut command = world.copy();
    command.arg("localhost?shiny=1&dubious&max-connections=4&store=/nix/store").arg(&world.other);
    world.run(&mut command).is("
        2| warning: 'dubious' among the parameters of the store has no '=' and is ignored
        2| warning: the parameter 'shiny' of the store is not known and ignored
        2| copying 1 paths...
        2| copying path '/nix/store/...-other' to 'ssh://localhost'...
        2| copied 1 path (456 B) to localhost in ... s
        exit 0
    ");
    let mut command = world.bare();
    command
        .arg("--store")
        .arg(format!("local?root={}&shiny=1&require-sigs=false&log=/x", world.from().display()));
    command.args(["-n", "localhost?remote-store="]).arg(&world.other);
    let ran = world.run(&mut command);
    ran.says(0, &["warning: the parameter 'shiny' of the store is not known and ignored"]);
    assert!(!ran.stderr.contains("require-sigs"), "{}", ran.transcript());
}

#[test]
fn parameters_have_the_form_that_they_have_in_nix() {
    let world = World::new();
    for (host, why) in [
        (
            "localhost?max-connections=x",
            "parameter 'max-connections' of the store is 'x', which is not a number",
        ),
        ("localhost?compress=maybe", "'compress' of the store is 'maybe', which is not a boolean"),
        ("localhost?remote-store=%zz", "has a percent sign that begins no valid escape"),
        ("localhost?port=0", "which is not a port number"),
    ] {
        world.run(world.copy().arg(host).arg(&world.other)).says(1, &[why]);
    }
}

#[test]
fn repair_is_refused_by_name() {
    let world = World::new();
    world.run(world.copy().args(["--repair", "localhost"]).arg(&world.other)).is("
        2| error: '--repair' is not supported: paths that are valid are never written again; \
'nix-store --repair-path' repairs a damaged one
        exit 1
    ");
    assert_eq!(world.copied(&world.all()), [false; 4]);
}

#[test]
fn what_would_have_an_effect_is_refused_or_warned_of() {
    let world = World::new();
    let mut command = world.copy();
    let ran = world.run(command.args(["--json-log-path", "/x", "localhost"]).arg(&world.other));
    ran.says(1, &["setting 'json-log-path' (the command line) has no effect: no such log is written"]);
    // What a file says may be somebody else's doing, and matters to what is written here.
    fs::write(world.directory().join("nix.conf"), "min-free = 1000000\nfrobnicate = 1\n").unwrap();
    let warning = "warning: setting 'min-free' ($DIR/nix.conf:1) has no effect: no garbage is collected";
    let unknown = "warning: setting 'frobnicate' ($DIR/nix.conf:2) has no effect: no version of Nix is known to have it";
    let ran = world.run(world.copy().args(["-n", "localhost"]).arg(&world.other));
    ran.says(0, &[unknown]);
    assert!(!ran.stderr.contains("min-free"), "{}", ran.transcript());
    world.run(world.fetch().arg("localhost").arg(&world.other)).says(0, &[warning, unknown]);
}

#[test]
fn settings_without_effect_are_named_once_with_v() {
    let world = World::new();
    let settings =
        ["--timeout", "3", "--cores", "4", "--no-sandbox", "--no-gc-warning", "--http-connections", "9"];
    let copy = |more: &[&str]| {
        world.run(world.copy().args(settings).args(more).args(["--dry-run", "localhost"]).arg(&world.other))
    };
    let line =
        "these settings have no effect on a copy: cores, http-connections, no-gc-warning, sandbox, timeout";
    let ran = copy(&["-v"]);
    ran.says(0, &[line]);
    assert_eq!(ran.stderr.matches("have no effect").count(), 1, "{}", ran.transcript());
    assert!(!copy(&[]).stderr.contains("effect"));
}

#[test]
fn keep_going_may_be_a_setting() {
    let world = World::new();
    world.damage(&world.library, "lib/library.so");
    let copy = |arguments: &[&str], conf: &str| {
        let mut command = world.copy();
        command.args(arguments).arg("localhost").arg(&world.top).arg(&world.other).env("NIX_CONFIG", conf);
        world.run(&mut command).code
    };
    assert_eq!(copy(&[], "keep-going = false"), 1);
    assert_eq!(copy(&["--no-keep-going"], "keep-going = true"), 1);
    assert_eq!(copy(&[], "keep-going = true"), 4);
}

/// Issue 10140 of Nix, <https://github.com/NixOS/nix/issues/10140>: the programs that come with Nix look at the store
/// that nix.conf names, and so does this one.
#[test]
fn nix_10140_store_in_nix_conf() {
    let world = World::new();
    let etc = world.directory().join("etc");
    let user = world.directory().join("user");
    for directory in [&etc, &user.join("nix")] {
        fs::create_dir_all(directory).unwrap();
    }
    let store = format!("store = {}\n", world.from().display());
    let look = |variables: &[(&str, &std::path::Path)]| {
        let mut command = world.bare();
        command.arg("--remote-store").arg(world.to()).args(["-nv", "localhost", &world.other]);
        world.run(command.env("NIX_CONF_DIR", &etc).envs(variables.iter().copied()))
    };
    assert_ne!(look(&[]).code, 0);
    fs::write(etc.join("nix.conf"), "!include missing.conf\n!include more.conf\n").unwrap();
    fs::write(etc.join("more.conf"), &store).unwrap();
    let said = "the store is '$DIR/from' (from $DIR/etc/more.conf:1)";
    look(&[]).says(0, &[said]);
    fs::remove_file(etc.join("more.conf")).unwrap();
    fs::write(user.join("nix/nix.conf"), &store).unwrap();
    look(&[("XDG_CONFIG_HOME", &user)]).says(0, &["(from $DIR/user/nix/nix.conf:1)"]);
    look(&[("NIX_USER_CONF_FILES", &user.join("nix/nix.conf"))])
        .says(0, &["(from $DIR/user/nix/nix.conf:1)"]);
    fs::write(etc.join("nix.conf"), "nonsense\n").unwrap();
    look(&[]).says(1, &["syntax error in $DIR/etc/nix.conf:1: 'nonsense' is not of the form 'NAME = VALUE'"]);
}

/// Issues of Nix 2375, 4923 and 13152, <https://github.com/NixOS/nix/issues/2375>.
#[test]
fn nix_2375_a_daemons_socket_in_another_place() {
    let world = World::new();
    let socket = world.directory().join("socket");
    let remote = format!("unix://{}?root={}", socket.display(), world.from().display());
    let copy = |direction: &str| {
        let mut command = world.bare();
        command
            .args([direction, "-v"])
            .arg("--remote-store")
            .arg(world.to())
            .args(["localhost", &world.other]);
        world.run(command.env("NIX_REMOTE", &remote))
    };
    copy("--to").says(0, &["the daemon at '$DIR/socket' is not asked: the store is only read, and directly"]);
    copy("--from")
        .says(1, &["(NIX_REMOTE) cannot be opened: no daemon listens at '$DIR/socket'", "'--store local'"]);
}

#[test]
fn a_directory_is_relative_to_the_working_directory() {
    let world = World::new();
    for uri in ["./from", "../$NAME/from", "to/../from"] {
        let name = world.directory().file_name().unwrap().to_str().unwrap();
        let mut command = world.bare();
        command.args(["--store", &uri.replace("$NAME", name), "--remote-store"]).arg(world.to());
        world.run(command.args(["-nv", "localhost"]).arg(&world.other)).says(0, &[]);
    }
}

#[test]
fn a_store_that_is_read_only_takes_nothing() {
    let world = World::new();
    let uri = format!("local?root={}&read-only=true", world.to().display());
    let mut command = world.bare();
    command
        .args(["--from", "--store", &uri, "--remote-store"])
        .arg(world.from())
        .arg("localhost")
        .arg(&world.other);
    world.run(&mut command).says(1, &["it is read-only, by its parameter 'read-only'"]);
    assert_eq!(world.copied(&world.all()), [false; 4]);
}

#[test]
fn equal_files_become_one_where_the_setting_says_so() {
    let world = World::new();
    let mut command = world.fetch();
    command.arg("localhost").arg(&world.top).env("NIX_CONFIG", "auto-optimise-store = true");
    world.run(&mut command).says(0, &[]);
    assert_eq!(fs::read_dir(world.to().join("nix/store/.links")).unwrap().count(), 3);
}

/// Bytes 18 and 19 of a database are 2 if it has a write-ahead log, and 1 if it has none.
#[test]
fn settings_of_the_local_store_are_honoured() {
    let world = World::new();
    let mut command = world.fetch();
    command.args(["--fsync-store-paths", "--no-use-sqlite-wal", "localhost"]).arg(&world.top);
    world.run(&mut command).says(0, &[]);
    let database = fs::read(world.to().join("nix/var/nix/db/db.sqlite")).unwrap();
    assert_eq!(database[18..20], [1, 1]);
}

/// Issue 66 of nova-nix, <https://github.com/Novavero-AI/nova-nix/issues/66>: names in a store that was filled with the
/// hack have suffixes, which the setting takes away again.
#[test]
fn nova_66_use_case_hack_in_both_directions() {
    let world = World::new();
    let tree = world.directory().join("names");
    fs::create_dir(&tree).unwrap();
    for name in ["A", "a"] {
        fs::write(tree.join(name), name).unwrap();
    }
    let info = open(&world.from(), Access::ReadWrite).add_tree("names", &tree, []).unwrap();
    let path = full(&info.path);
    let hack = ["--option", "use-case-hack", "true"];
    world.run(world.fetch().args(hack).arg("localhost").arg(&path)).says(0, &[]);
    assert!(real(&world.to(), &path).join("a~nix~case~hack~1").is_file());
    let third = world.directory().join("third");
    let mut command = world.bare();
    command
        .args(hack)
        .arg("--store")
        .arg(world.to())
        .arg("--remote-store")
        .arg(&third)
        .arg("localhost")
        .arg(&path);
    world.run(&mut command).says(0, &[]);
    assert!(real(&third, &path).join("a").is_file());
}
