//! From one host to another, through this machine and past its store.

use std::{
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Command,
};

use ncc_transport_ssh::test_util::Sshd;
use rustix::process::{Signal, kill_process};

use crate::{
    daemons::{Listening, NOBODY, forget_content_addresses, has_daemon, verify},
    kept::leads_to,
    support::{AT_ONCE, PROGRAM, Running, World, assert_unchanged, children, has_nix, snapshot, valid},
    terminal::SOON,
    transports::{Ssh, add_big, configuration, path, sshd, stuck, with_each_transport, with_key},
    tty::{Terminal, User},
};

with_each_transport! {
    both_protocols_and_one_login_for_each_host,
    one_host_may_be_both,
    the_host_that_is_not_reached_or_refuses_is_named,
    the_host_whose_line_is_cut_is_named_and_a_second_run_completes,
    a_root_at_the_destination_needs_no_second_login,
    two_passwords_are_asked_for_in_turn,
    a_destination_is_not_called_when_the_source_refuses,
}

/// Two hosts on this machine, reached without ssh; the local store of the command is a third one, in `local`.
fn here(world: &World) -> (Command, [String; 2]) {
    let mut command = world.bare();
    command.env("NIX_REMOTE", local(world));
    let host = |store: PathBuf| format!("localhost?remote-store={}", store.display());
    (command, [host(world.from()), host(world.to())])
}

fn local(world: &World) -> PathBuf {
    world.directory().join("local")
}

/// Two servers, and a command that reaches them as `a` and `b`.
struct Two {
    a: Sshd,
    b: Sshd,
    ssh: Ssh,
    options: String,
}

impl Two {
    fn start(ssh: Ssh, world: &World) -> Option<Self> {
        let (a, b) = (sshd(&[])?, sshd(&[])?);
        let options = configuration(world, &[("a", &a, ""), ("b", &b, "")]);
        Some(Self { a, b, ssh, options })
    }

    /// `--from a --to b`, with more parameters for each of them.
    fn command(&self, world: &World, scheme: &str, [a, b]: [&str; 2]) -> Command {
        let mut command = world.bare();
        self.ssh.choose(&mut command);
        command.env("NIX_SSHOPTS", &self.options).env("NIX_REMOTE", local(world));
        command.arg("--from").arg(format!("{scheme}a?remote-store={}{a}", world.from().display()));
        command.arg("--to").arg(format!("{scheme}b?remote-store={}{b}", world.to().display()));
        command
    }

    /// The same with this program as both servers.
    fn served(&self, world: &World, parameters: [&str; 2]) -> Command {
        let mut command = self.command(world, "", parameters);
        command.args(["--remote-program", PROGRAM]);
        command
    }

    fn logins(&self) -> [usize; 2] {
        [self.a.logins(), self.b.logins()]
    }
}

fn both_protocols_and_one_login_for_each_host(ssh: Ssh) {
    if !has_daemon() {
        return;
    }
    let world = World::new();
    let Some(two) = Two::start(ssh, &world) else { return };
    for (round, scheme) in ["ssh://", "ssh-ng://"].into_iter().enumerate() {
        let world = World::new();
        let copy = || world.run(two.command(&world, scheme, ["", ""]).args([&world.top, &world.other]));
        let ran = copy();
        let line = "copying path '/nix/store/...-top' from 'ssh://a' to 'ssh://b'...";
        ran.says(0, &["copying 4 paths...", line]);
        assert_eq!(world.copied(&world.all()), [true; 4]);
        verify(&world);
        assert_eq!(two.logins(), [2 * round + 1; 2], "{}", two.b.log());
        copy().says(0, &["copying 0 paths..."]);
        assert!(!local(&world).exists());
    }
}

fn one_host_may_be_both(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let mut command = world.bare();
    ssh.choose(&mut command);
    command.env("NIX_SSHOPTS", sshd.nix_sshopts()).args(["--remote-program", PROGRAM]);
    for (option, store) in [("--from", world.from()), ("--to", world.to())] {
        command.arg(option).arg(format!("127.0.0.1?remote-store={}", store.display()));
    }
    let none = "/nix/store/00000000000000000000000000000000-none";
    // Which of the two it is says the message.
    world
        .run(command.args([none, "-k"]).arg(&world.other))
        .says(4, &["is not valid in host '127.0.0.1 (source)'"]);
    assert_eq!(world.copied(&world.all()), [false, false, false, true]);
    assert_eq!(sshd.logins(), 2, "{}", sshd.log());
}

fn the_host_that_is_not_reached_or_refuses_is_named(ssh: Ssh) {
    let world = World::new();
    let Some(two) = Two::start(ssh, &world) else { return };
    let nowhere = "ssh://nowhere.invalid";
    for (from, to) in [(nowhere, "b"), ("a", nowhere)] {
        let mut command = world.bare();
        ssh.choose(&mut command);
        command.env("NIX_SSHOPTS", &two.options).args(["--remote-program", PROGRAM, "--remote-store"]);
        command.arg(world.from()).args(["--from", from, "--to", to, &world.top]);
        let ran = world.run(&mut command);
        ran.says(3, &["nowhere.invalid", "hint:"]);
        assert!(!ran.stderr.contains("host 'a'") && !ran.stderr.contains("host 'b'"), "{}", ran.transcript());
    }
    // A key that b does not know.
    let options = configuration(&world, &[("a", &two.a, ""), ("b", &two.b, "")]);
    let file = world.directory().join("ssh_config");
    let (own, other) = (two.b.key().display().to_string(), two.a.key().display().to_string());
    let text = fs::read_to_string(&file).expect("a configuration").replace(&own, &other);
    fs::write(&file, text).expect("another configuration");
    let before = two.b.logins();
    let ran = world.run(two.served(&world, ["", ""]).env("NIX_SSHOPTS", options).arg(&world.top));
    ran.says(5, &["'b'", "hint:"]);
    assert_eq!(two.b.logins(), before);
    assert!(!world.to().exists());
}

/// A password for the second host, which would be asked for in vain.
fn a_destination_is_not_called_when_the_source_refuses(ssh: Ssh) {
    let world = World::new();
    let Some(two) = Two::start(ssh, &world) else { return };
    let options = with_key(&two.a, &two.b.key());
    let mut command = world.bare();
    ssh.choose(&mut command);
    command.env("NIX_SSHOPTS", options).args(["--remote-program", PROGRAM, "--from", "127.0.0.1", "--to"]);
    let ran = world.run(command.arg(format!("ssh://127.0.0.1:{}", two.b.port())).arg(&world.top));
    ran.says(5, &["127.0.0.1", "hint:"]);
    assert!(!two.b.log().contains("Connection from"), "{}", two.b.log());
}

fn the_host_whose_line_is_cut_is_named_and_a_second_run_completes(ssh: Ssh) {
    for (cut, other) in [("a", "b"), ("b", "a")] {
        let world = World::new();
        let Some(two) = Two::start(ssh, &world) else { return };
        let big = add_big(&world);
        let body = format!(
            "#!/bin/sh\n{PROGRAM} \"$@\" | {{ dd bs=65536 count=12 2>/dev/null; exec cat > /dev/null; }}\n"
        );
        let slow = world.script("slow", &body).display().to_string();
        let slow = format!("&remote-program={}", if cut == "a" { slow } else { stuck(&world) });
        let parameters = if cut == "a" { [slow.as_str(), ""] } else { ["", slow.as_str()] };
        let mut command = two.served(&world, parameters);
        let mut running = Running::start(command.args(["--retries", "0", &big, &world.top]));
        running.wait_for("-big'", SOON);
        let sshd = if cut == "a" { &two.a } else { &two.b };
        for session in children(sshd.pid().unwrap()) {
            kill_process(session, Signal::KILL).unwrap();
        }
        let ran = running.end(&world, SOON);
        ran.says(6, &[&format!("'{cut}'")]);
        assert!(!ran.stderr.contains(&format!("error: host '{other}'")), "{}", ran.transcript());
        assert_eq!(ran.stderr.matches("error: ").count(), 1, "{}", ran.transcript());
        assert_eq!(world.copied(&[&big]), [false]);
        world.run(two.served(&world, ["", ""]).args([&big, &world.top])).says(0, &[]);
        assert_eq!(world.copied(&[&big, &world.top]), [true, true]);
        assert!(!local(&world).exists());
    }
}

fn a_root_at_the_destination_needs_no_second_login(ssh: Ssh) {
    if !has_nix() {
        return;
    }
    let world = World::new();
    let Some(two) = Two::start(ssh, &world) else { return };
    let link = world.directory().join("kept");
    let mut command = two.command(&world, "", ["", ""]);
    world
        .run(command.args(["-v", "--add-root"]).arg(&link).arg(&world.top))
        .says(0, &["made the root '$DIR/kept'"]);
    leads_to(&link, &world.top);
    assert_eq!(two.logins(), [1, 1]);
}

/// Each host asks for the password of a user of its own, and nobody is asked for two things at once.
fn two_passwords_are_asked_for_in_turn(ssh: Ssh) {
    let config = ["PasswordAuthentication yes"];
    let (Some(a), Some(b)) = (sshd(&config), sshd(&config)) else { return };
    let (world, other) = (World::new(), World::new());
    let (Some(one), Some(two)) = (User::create(&world), User::create(&other)) else { return };
    let program = world.directory().join("served");
    fs::copy(PROGRAM, &program).expect("a program that everybody may run");
    fs::create_dir(world.to()).expect("a folder");
    chown(world.to(), Some(two.uid), None).expect("a folder of the user's");
    let own = Command::new("chown").args(["-R", &one.name]).arg(world.from()).status().expect("chown");
    assert!(own.success());
    let mut command = world.bare();
    ssh.choose(&mut command);
    let options = configuration(&world, &[("a", &a, ""), ("b", &b, "")]);
    let file = world.directory().join("ssh_config");
    let text = fs::read_to_string(&file).expect("a configuration").replace(" BatchMode yes\n", "");
    fs::write(&file, text).expect("another configuration");
    let ask = "-o BatchMode=no -o PreferredAuthentications=password -o PubkeyAuthentication=no";
    command.env("NIX_SSHOPTS", format!("{ask} {options}")).arg("--remote-program").arg(program);
    command.arg("--from").arg(format!("{}@a?remote-store={}", one.name, world.from().display()));
    command.arg("--to").arg(format!("{}@b?remote-store={}", two.name, world.to().display()));
    let mut terminal = Terminal::start(command.arg(&world.top));
    let asked = |user: &User| format!("{}@127.0.0.1's password:", user.name);
    terminal.wait_for(&asked(&one));
    // Long enough for another question, or a bar, which must not come.
    std::thread::sleep(std::time::Duration::from_millis(700));
    let said = format!("connecting to {}@a, then to {}@b...\n{}", one.name, two.name, asked(&one));
    assert_eq!(terminal.screen(), said);
    assert!(!b.log().contains("Connection from"), "{}", b.log());
    terminal.write(&format!("{}\r", one.password));
    terminal.wait_for(&asked(&two));
    assert!(!terminal.echoes());
    terminal.write(&format!("{}\r", two.password));
    assert_eq!(terminal.end(SOON), 0, "{}", terminal.screen());
    assert!(terminal.screen().contains("copied 3 paths"), "{}", terminal.screen());
    for (user, sshd) in [(&one, &a), (&two, &b)] {
        assert_eq!(terminal.raw().matches(&asked(user)).count(), 1, "{}", terminal.raw());
        assert_eq!(sshd.log().matches("Accepted password").count(), 1, "{}", sshd.log());
    }
    assert_eq!(world.copied(&world.all()), [true, true, true, false]);
    world.expect_no_process(AT_ONCE);
}

/// However it is written, and whatever the store of this machine holds.
#[test]
fn a_store_on_a_host_may_be_either_end() {
    type Spelling = fn(&mut Command, [&str; 2]);
    let spellings: [(&str, Spelling); 5] = [
        ("both", |command, [a, b]| {
            command.args(["--to", b, "--from", a]);
        }),
        ("store is the source", |command, [a, b]| {
            command.args(["--store", &format!("ssh://{a}"), "--to", b]);
        }),
        ("without a direction", |command, [a, b]| {
            command.args(["--store", &format!("ssh://{a}"), b]);
        }),
        ("store is the destination", |command, [a, b]| {
            command.args(["--from", a, "--store", &format!("ssh://{b}")]);
        }),
        ("variable", |command, [a, b]| {
            command.env("NIX_REMOTE", format!("ssh://{a}")).args(["--to", b]);
        }),
    ];
    for (name, spell) in spellings {
        let world = World::new();
        let (mut command, [a, b]) = here(&world);
        world.add("third", "file", "of this machine\n", []);
        fs::create_dir(local(&world)).expect("a folder");
        fs::write(local(&world).join("file"), "mine").expect("a file");
        let before = [local(&world), world.from().join("nix/store")].map(|directory| snapshot(&directory));
        spell(&mut command, [&a, &b]);
        let ran = world.run(command.arg(&world.top).arg(format!("{}/share/other", world.other)));
        ran.says(0, &["copying 4 paths..."]);
        assert_eq!(world.copied(&world.all()), [true; 4], "{name}");
        assert_unchanged(&before[0], &snapshot(&local(&world)));
        assert_unchanged(&before[1], &snapshot(&world.from().join("nix/store")));
    }
}

#[test]
fn a_third_store_is_refused_by_name() {
    let world = World::new();
    let (mut command, [a, b]) = here(&world);
    let ran = world.run(command.args(["--from", &a, "--to", &b, "--store"]).arg(world.to()).arg(&world.top));
    ran.says(1, &["'--store' names a third store"]);
    assert!(!world.to().exists());
}

#[test]
fn what_would_be_copied_is_shown_and_told() {
    let world = World::new();
    let (mut command, [a, b]) = here(&world);
    let ran = world.run(command.args(["--from", &a, "--to", &b, "-n", "--tree", &world.top]));
    ran.says(0, &[]);
    for text in ["would copy 3 paths", "from localhost to localhost", "program"] {
        assert!(ran.stdout.contains(text), "{}", ran.transcript());
    }
    assert!(!world.to().exists());
    let json = |world: &World| {
        let (mut command, _) = here(world);
        let ran = world.run(command.args(["--from", &a, "--to", &b, "--json", &world.top]));
        serde_json::from_str::<serde_json::Value>(&ran.stdout).expect("JSON")
    };
    for (sent, present) in [(3, 0), (0, 3)] {
        let report = json(&world);
        assert_eq!(report["direction"], "between");
        assert_eq!((&report["from"], &report["to"]), (&"localhost".into(), &"localhost".into()));
        assert_eq!((&report["sent"]["count"], &report["present"]["count"]), (&sent.into(), &present.into()));
        assert!(report["wire"]["sent"].as_u64() > Some(0), "{report}");
    }
}

#[test]
fn one_damaged_path_at_the_source_costs_what_refers_to_it() {
    let world = World::new();
    world.damage(&world.program, "bin/program");
    let (mut command, [a, b]) = here(&world);
    let none = "/nix/store/00000000000000000000000000000000-none";
    let ran = world.run(command.args(["--from", &a, "--to", &b, "-k", &world.top, &world.other, none]));
    let not_valid = format!("path '{none}' is not valid in host 'localhost (source)'");
    ran.says(4, &[&not_valid, "does not match its metadata", "host 'localhost (source)'"]);
    assert_eq!(world.copied(&world.all()), [true, false, false, true]);
}

/// The daemon at b does not trust whoever is logged in there.
#[test]
fn a_destination_that_refuses_takes_what_was_signed_on_the_way() {
    if !has_daemon() {
        return;
    }
    let world = World::new();
    forget_content_addresses(&world);
    let key = crate::trust::Key::new(&world, "trusted");
    let daemon =
        Listening::start(&world, &format!("trusted-users = root\ntrusted-public-keys = {}", key.public));
    let script = format!(
        "#!/bin/sh\nexec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups nix-daemon \"$@\"\n"
    );
    let nobody = world.script("nobody", &script).display().to_string();
    let from = format!("ssh://localhost?remote-store={}", world.from().display());
    let to = format!(
        "ssh-ng://localhost?remote-store=unix://{}&remote-program={nobody}",
        daemon.socket().display()
    );
    let copy = |words: &[&str]| {
        let mut command = world.bare();
        command.env("PATH", path()).env("NIX_REMOTE", local(&world)).args(["--from", &from, "--to", &to]);
        world.run(command.args(words).arg(&world.top))
    };
    copy(&[]).says(
        5,
        &["lacks a signature that host 'localhost (destination)' trusts", "hint: '--sign-key FILE'"],
    );
    assert_eq!(world.copied(&world.all()), [false; 4]);
    let own = ["--check-sigs", "--option", "trusted-public-keys", &key.public.to_string()];
    copy(&own).says(5, &["lack a signature that this machine trusts"]);
    copy(&["--sign-key", &key.file.display().to_string()]).says(0, &["copying 3 paths..."]);
    assert_eq!(world.copied(&world.all()), [true, true, true, false]);
    verify(&world);
}

#[test]
fn parameters_of_one_host_win_over_options_for_both() {
    let world = World::new();
    let both = ["--remote-program".to_owned(), "/no/such/program".to_owned()];
    let (mut command, hosts) = here(&world);
    let [a, b] = hosts.map(|host| format!("{host}&remote-program={PROGRAM}"));
    world
        .run(command.args(&both).args(["--from", &a, "--to", &b, &world.other]))
        .says(0, &["copying 1 paths..."]);
    assert_eq!(valid(&world.to(), &[&world.other]), [true]);
    // And one option is for both.
    let (mut command, [a, b]) = here(&world);
    command.args(["--remote-program", PROGRAM, "--from", &a, "--to", &b, &world.top]);
    world.run(&mut command).says(0, &["copying 3 paths..."]);
}

#[test]
fn a_link_on_this_machine_may_stand_for_a_path_that_is_not_here() {
    let world = World::new();
    let (mut command, [a, b]) = here(&world);
    let link = world.directory().join("result");
    std::os::unix::fs::symlink(Path::new(&world.other).join("share"), &link).expect("a link");
    world.run(command.args(["--from", &a, "--to", &b]).arg(&link)).says(0, &["copying 1 paths..."]);
    assert_eq!(world.copied(&[&world.other]), [true]);
}
