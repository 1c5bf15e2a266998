//! The program under the name `nix`: what it does, and what it leaves to the real one. That is a script here, which says what it was
//! given; `callers` has Nix's own.

use std::{
    fs,
    os::unix::{fs::symlink, process::ExitStatusExt as _},
    path::PathBuf,
    process::{Command, Stdio},
};

use rustix::process::Signal;

use crate::support::{AT_ONCE, PROGRAM, Running, World, full};

/// Says its name and words, reads all of its input, and ends in a way of its own.
const STAND_IN: &str = "#!/bin/sh\necho \"$0\"\nfor word; do echo \"<$word>\"; done\n/bin/cat\nexit 7\n";

/// A world where `bin/nix` and `bin/nix-copy-closure` are this program, and stand-ins of the same names are in `real`.
struct Faces {
    world: World,
    bin: PathBuf,
    real: PathBuf,
}

impl Faces {
    fn new() -> Self {
        let world = World::new();
        let [bin, real] = ["bin", "real"].map(|name| world.directory().join(name));
        for folder in [&bin, &real] {
            fs::create_dir(folder).unwrap();
        }
        for name in ["nix", "nix-copy-closure"] {
            symlink(PROGRAM, bin.join(name)).unwrap();
            world.script(&format!("real/{name}"), STAND_IN);
        }
        Self { world, bin, real }
    }

    /// The program by one of its names, with the stand-ins behind it in PATH, and the source as the default store.
    fn called(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        command
            .env_clear()
            .env(
                "PATH",
                std::env::join_paths([self.bin.as_path(), &self.real, "/usr/bin".as_ref(), "/bin".as_ref()])
                    .unwrap(),
            )
            .env("HOME", self.world.directory())
            .env("NIX_CONF_DIR", self.world.directory())
            .env("NIX_REMOTE", self.world.from())
            .env("LC_ALL", "C.UTF-8")
            .current_dir(self.world.directory());
        command
    }

    fn nix(&self, words: &[&str]) -> Command {
        let mut command = self.called("nix");
        command.args(words);
        command
    }

    /// A URL of the other store.
    fn url(&self) -> String {
        format!("ssh://localhost?remote-store={}&remote-program={PROGRAM}", self.world.to().display())
    }

    /// Expects that a stand-in was given these words, and that its end is ours.
    #[track_caller]
    fn is_handed_on(&self, command: &mut Command, name: &str, words: &[&str]) {
        let ran = self.world.run_with_input(command, b"input");
        let words: Vec<String> = words.iter().map(|word| format!("<{word}>\n")).collect();
        let expected = format!("$DIR/real/{name}\n{}input", words.concat());
        assert_eq!(
            (ran.code, self.world.plain(ran.stdout.as_bytes())),
            (7, self.world.plain(expected.as_bytes())),
            "{}",
            ran.transcript()
        );
        assert_eq!(ran.stderr, "");
    }
}

#[test]
fn what_is_no_copy_of_store_paths_is_handed_on_word_for_word() {
    let faces = Faces::new();
    let (url, top) = (faces.url(), faces.world.top.clone());
    let to: &[&str] = &["copy", "--to", &url];
    fs::create_dir(faces.world.directory().join("flake")).unwrap();
    let absent = "/nix/store/00000000000000000000000000000000-absent";
    for words in [
        &["build", ".#x y", "--copy"][..],
        &["--extra-experimental-features", "nix-command flakes", "eval", "--expr", "1 + 1"],
        &["-vL", "--store", "copy", "develop"],
        &[],
        &["--version"],
        &["copy", "--help"],
        &["copy"],
        &["copy", &top],
        &["copy", "--to", "file:///tmp/cache", &top],
        &["copy", "--to", "s3://bucket?region=x", &top],
        &["copy", "--from", "https://cache.nixos.org", &top],
        &["copy", "--to", "host", &top],
        &["copy", "--from", "ssh://host", "--store", "local", "--to", &url, &top],
        &[to, &[]].concat(),
        &[to, &["--all", &top]].concat(),
        &[to, &["nixpkgs#hello"]].concat(),
        &[to, &["."]].concat(),
        &[to, &["./flake"]].concat(),
        &[to, &["flake:a/b", &top]].concat(),
        &[to, &["/etc/passwd"]].concat(),
        &[to, &["-f", "x.nix", "a"]].concat(),
        &[to, &["--expr", "x"]].concat(),
        &[to, &["--dry-run", &top]].concat(),
        &[to, &["--repair", &top]].concat(),
        &[to, &["--option", "min-free", "100", &top]].concat(),
        &[to, &["--derivation", &top]].concat(),
        &[to, &[absent]].concat(),
        &["copy", "--from", &url, "--all"],
        &["copy", "--from", &url, "--derivation", &top],
    ] {
        faces.is_handed_on(&mut faces.nix(words), "nix", words);
    }
    let mut completing = faces.nix(&["copy", "--to", &url, &top]);
    faces.is_handed_on(completing.env("NIX_GET_COMPLETIONS", "2"), "nix", &["copy", "--to", &url, &top]);
    assert!(!faces.world.to().exists());
}

/// As a package that has no `nix` of its own.
#[test]
fn copy_may_also_be_the_first_word() {
    let faces = Faces::new();
    let words = ["copy", "--to", &faces.url(), &faces.world.other];
    let ran = faces.world.run(faces.called("nix-copy-closure").args(words));
    ran.says(0, &["copying 1 paths..."]);
    assert_eq!(faces.world.copied(&faces.world.all()), [false, false, false, true]);
    let words = ["copy", "--to", "file:///nowhere", &faces.world.other];
    faces.is_handed_on(faces.called("nix-copy-closure").args(words), "nix", &words);
}

#[test]
fn it_can_be_switched_off() {
    let faces = Faces::new();
    let words = ["copy", "--to", &faces.url(), &faces.world.other];
    faces.is_handed_on(faces.nix(&words).env("NCC_DISABLE", "1"), "nix", &words);
    let old = ["--to", "localhost", &faces.world.other];
    faces.is_handed_on(
        faces.called("nix-copy-closure").args(old).env("NCC_DISABLE", "1"),
        "nix-copy-closure",
        &old,
    );
    for off in ["", "0"] {
        faces.world.run(faces.nix(&words).env("NCC_DISABLE", off)).says(0, &[]);
    }
}

#[test]
fn the_real_nix_may_be_named() {
    let faces = Faces::new();
    let elsewhere = faces.world.directory().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    for name in ["nix", "nix-copy-closure"] {
        fs::rename(faces.real.join(name), elsewhere.join(name)).unwrap();
    }
    let named = |name: &str, nix: &str| {
        let mut command = faces.called(name);
        command.args(["build", "x"]).env("NCC_NIX", nix);
        command
    };
    let absolute = elsewhere.join("nix").display().to_string();
    for nix in [absolute.as_str(), "elsewhere/nix"] {
        let ran = faces.world.run(&mut named("nix", nix));
        assert!(ran.code == 7 && ran.stdout.contains("elsewhere/nix\n<build>\n<x>"), "{}", ran.transcript());
    }
    let ran = faces.world.run(named("nix-copy-closure", &absolute).env("NCC_DISABLE", "1"));
    assert!(ran.stdout.starts_with("$DIR/elsewhere/nix-copy-closure\n"), "{}", ran.transcript());
    faces.world.run(&mut named("nix", "gone")).says(1, &["'./gone' cannot be started: No such file"]);
    let own = faces.bin.join("nix").display().to_string();
    faces.world.run(&mut named("nix", &own)).says(1, &["NCC_NIX names this very program"]);
}

#[test]
fn without_a_real_nix_it_is_said_what_would_have_been_left_to_it() {
    let faces = Faces::new();
    faces.world.run(faces.nix(&["build"]).env("PATH", &faces.bin)).is("
        2| error: this is 'nix build', which is left to Nix's own 'nix': there is none in PATH
        2| hint: NCC_NIX=/path/to/nix says where that is
        exit 1
    ");
    let ran = faces.world.run(faces.nix(&["copy", "--to", "ssh://h", "x\x1b[2J"]).env("PATH", &faces.bin));
    ran.says(1, &["error: 'x\\u{1b}[2J' is not a store path"]);
}

/// Whoever stands before this program in PATH has called it, perhaps.
#[test]
fn the_next_one_in_path_is_taken_and_never_this_program() {
    let faces = Faces::new();
    let first = faces.world.directory().join("first");
    fs::create_dir(&first).unwrap();
    // The same file once more, a folder, and what nobody may execute.
    for (folder, how) in [("a", 0), ("b", 1), ("c", 2)] {
        let folder = faces.world.directory().join(folder);
        fs::create_dir(&folder).unwrap();
        match how {
            0 => symlink(PROGRAM, folder.join("nix")).unwrap(),
            1 => fs::create_dir(folder.join("nix")).unwrap(),
            _ => fs::write(folder.join("nix"), "").unwrap(),
        }
    }
    let path = |folders: &[&str]| {
        std::env::join_paths(folders.iter().map(|folder| faces.world.directory().join(folder))).unwrap()
    };
    // It would be an endless loop, if what stands before were taken.
    let wrapper = format!("#!/bin/sh\nexec {}/nix --quiet \"$@\"\n", faces.bin.display());
    faces.world.script("first/nix", &wrapper);
    let mut command = faces.nix(&["build"]);
    command.env("PATH", path(&["first", "a", "bin", "b", "c", "real"]));
    faces.is_handed_on(&mut command, "nix", &["build"]);
    // What nothing follows, and what is named by a relative folder.
    let mut command = faces.nix(&["build"]);
    faces.is_handed_on(command.env("PATH", path(&["real", "bin"])), "nix", &["build"]);
    let ran = faces.world.run(faces.nix(&["build"]).env("PATH", "bin:real"));
    assert!(ran.code == 7 && ran.stdout.starts_with("./real/nix\n<build>"), "{}", ran.transcript());
}

/// A program that leads back here and that neither name nor file tells.
#[test]
fn no_loop_goes_on() {
    let faces = Faces::new();
    for (how, line) in [("replaced", "exec"), ("below", "")] {
        faces.world.script(
            &format!("real/nix-{how}"),
            &format!("#!/bin/sh\n{line} {}/nix -v \"$@\"\n", faces.bin.display()),
        );
        let ran =
            faces.world.run(faces.nix(&["build"]).env("NCC_NIX", faces.real.join(format!("nix-{how}"))));
        ran.says(1, &["this is 'nix build'", "leads back here, 20 times in a row"]);
    }
}

/// In a shell of `nix develop`, which was handed on too.
#[test]
fn what_was_handed_on_may_call_it_again() {
    let faces = Faces::new();
    faces.world.script(
        "real/nix",
        "#!/bin/sh\ncase $1 in develop) shift; exec \"$@\" ;; *) echo \"real $*\"; exit 7 ;; esac\n",
    );
    let ran = faces.world.run(&mut faces.nix(&["develop", "nix", "develop", "nix", "build"]));
    assert_eq!((ran.code, ran.stdout.as_str()), (7, "real build\n"), "{}", ran.transcript());
}

#[test]
fn signals_and_their_dispositions_are_those_of_the_real_one() {
    let faces = Faces::new();
    faces
        .world
        .script("real/nix", "#!/bin/sh\ngrep -E 'Sig(Ign|Blk)' /proc/self/status\nkill -TERM $$\nsleep 60\n");
    let ignoring = |command: &str| {
        let mut shell = faces.called("nix");
        let path = shell.get_envs().find(|(name, _)| *name == "PATH").unwrap().1.unwrap().to_owned();
        shell = Command::new("sh");
        shell.args(["-c", &format!("trap '' INT HUP; exec {command} build")]).env("PATH", path);
        let output = shell.output().unwrap();
        (output.status.signal(), String::from_utf8(output.stdout).unwrap())
    };
    let direct = ignoring(&faces.real.join("nix").display().to_string());
    assert_eq!(direct.0, Some(Signal::TERM.as_raw()));
    assert_eq!(ignoring(&faces.bin.join("nix").display().to_string()), direct);
}

/// Whoever decides by reading has taken it from the real one.
#[test]
fn standard_input_is_left_alone_until_it_is_decided() {
    let faces = Faces::new();
    let (url, bad) = (faces.url(), "nixpkgs#x");
    let words = ["copy", "--stdin", "--to", &url, bad];
    faces.is_handed_on(&mut faces.nix(&words), "nix", &words);
    // It is an open pipe all the while, and nobody waits for it.
    let (reader, _writer) = std::io::pipe().unwrap();
    faces.world.script("real/nix", "#!/bin/sh\nexit 7\n");
    let running = Running::start_with(&mut faces.nix(&words), Stdio::from(reader.try_clone().unwrap()));
    assert_eq!(running.end(&faces.world, AT_ONCE).code, 7);
    drop(reader);
    let list = format!(" {} {}\n{}\n", faces.world.top, faces.world.other, faces.world.top);
    let ran = faces.world.run_with_input(&mut faces.nix(&["copy", "--stdin", "--to", &url]), list.as_bytes());
    ran.says(0, &["copying 4 paths..."]);
}

#[test]
fn store_paths_links_and_files_are_copied_with_options_anywhere() {
    let faces = Faces::new();
    let url = faces.url();
    symlink(&faces.world.top, faces.world.directory().join("result")).unwrap();
    let file = format!("{}/share/other", faces.world.other);
    let ran = faces.world.run(&mut faces.nix(&[
        "--extra-experimental-features",
        "nix-command flakes",
        "-L",
        "copy",
        "./result",
        "--no-check-sigs",
        "--no-write-lock-file",
        "--option",
        "substituters",
        "",
        "--builders",
        "",
        "--refresh",
        "--no-update-lock-file",
        &file,
        "--to",
        &url,
    ]));
    ran.says(0, &["copying 4 paths...", "to 'ssh://localhost'"]);
    assert_eq!(faces.world.copied(&faces.world.all()), [true; 4]);
}

#[test]
fn paths_come_from_a_url_too_and_the_stores_may_be_named() {
    let faces = Faces::new();
    let from =
        format!("ssh://localhost?remote-store={}&remote-program={PROGRAM}", faces.world.from().display());
    let to = faces.world.to().display().to_string();
    let words = ["copy", "--no-check-sigs", "--from", &from, "--to", &to, &faces.world.top];
    faces.world.run(faces.nix(&words).env("NIX_REMOTE", "/nowhere")).says(0, &["copying 3 paths..."]);
    assert_eq!(faces.world.copied(&faces.world.all()), [true, true, true, false]);
    let words = ["copy", "--no-check-sigs", "--from", &from, &faces.world.other];
    faces.world.run(faces.nix(&words).env("NIX_REMOTE", &to)).says(0, &["copying 1 paths..."]);
    // From host to host, past the store of this machine.
    let other = World::new();
    let to = format!("ssh://localhost?remote-store={}&remote-program={PROGRAM}", other.to().display());
    let ran = faces.world.run(&mut faces.nix(&["copy", "--to", &to, "--from", &from, &faces.world.other]));
    ran.says(0, &["-other' from 'ssh://localhost' to 'ssh://localhost'..."]);
    assert_eq!(other.copied(&[&faces.world.other]), [true]);
    // What the other side does not have is its own trouble.
    let absent = full(&"00000000000000000000000000000000-absent".parse().unwrap());
    let to = faces.world.to();
    let ran = faces.world.run(faces.nix(&["copy", "--from", &from, &absent]).env("NIX_REMOTE", to));
    ran.says(1, &["host 'localhost'", "-absent' is not valid"]);
}

#[test]
fn two_stores_of_this_machine_are_called_by_their_urls() {
    let faces = Faces::new();
    let to = faces.world.to().display().to_string();
    faces.world.run(&mut faces.nix(&["copy", "--to", &to, &faces.world.other])).is("
        2| copying 1 paths...
        2| copying path '/nix/store/...-other' to 'local://$DIR/to'...
        2| copied 1 path (456 B) to local://$DIR/to in ... s
        exit 0
    ");
    assert_eq!(faces.world.copied(&faces.world.all()), [false, false, false, true]);
    let ran = faces.world.run(&mut faces.nix(&["copy", "--to", "daemon", &faces.world.other]));
    ran.says(1, &["the store 'daemon' cannot be opened: no daemon listens at"]);
}

#[test]
fn everything_or_the_paths_alone() {
    let faces = Faces::new();
    let url = faces.url();
    let copy = |words: &[&str]| faces.world.run(&mut faces.nix(&[&["copy", "--to", &url], words].concat()));
    // It refers to what is not there.
    assert_ne!(copy(&["--no-recursive", &faces.world.program]).code, 0);
    assert_eq!(faces.world.copied(&faces.world.all()), [false; 4]);
    copy(&["--no-recursive", &faces.world.library]).says(0, &["copying 1 paths..."]);
    copy(&["--no-recursive", &faces.world.top, &faces.world.program]).says(0, &["copying 2 paths..."]);
    assert_eq!(faces.world.copied(&faces.world.all()), [true, true, true, false]);
    copy(&["--all"]).says(0, &["copying 1 paths..."]);
    assert_eq!(faces.world.copied(&faces.world.all()), [true; 4]);
}

/// `nix copy` wants signatures where it writes itself, unless told otherwise; `nix-copy-closure` does not.
#[test]
fn signatures_are_looked_at_unless_told_otherwise() {
    let faces = Faces::new();
    faces.world.change_database("update ValidPaths set ca = null");
    let from =
        format!("ssh://localhost?remote-store={}&remote-program={PROGRAM}", faces.world.from().display());
    let copy = |words: &[&str]| {
        let mut command = faces.nix(&[&["copy", "--from", &from], words, &[&faces.world.other]].concat());
        faces.world.run(command.env("NIX_REMOTE", faces.world.to()))
    };
    let ran = copy(&[]);
    ran.says(5, &["lacks a signature", "'--no-check-sigs'"]);
    assert_eq!(faces.world.copied(&faces.world.all()), [false; 4]);
    copy(&["--no-require-sigs"]).says(0, &["copying 1 paths..."]);
    copy(&["--no-check-sigs"]).says(0, &["copying 0 paths..."]);
}
