//! Copies over a real SSH to a real sshd on loopback.

use std::{fs, os::unix::fs::symlink, process::Command};

use ncc_transport_ssh::test_util::Sshd;

use crate::{
    support::{PROGRAM, World},
    transports::{Ssh, sshd, with_each_transport, with_key},
};

with_each_transport! {
    both_directions_over_ssh,
    what_the_remote_shell_prints_is_passed_over,
    an_account_that_allows_no_command_is_exit_5_with_a_hint,
    a_named_program_that_fails_is_no_refusal,
    a_server_that_is_not_on_the_path_is_found_in_the_usual_places,
    a_server_that_is_nowhere_is_an_error_that_says_where_it_was_looked_for,
    a_named_program_that_is_nowhere_is_an_error_with_a_hint,
    a_url_with_port_key_host_key_and_compression_needs_no_sshopts,
    gzip_compresses_the_connection,
    sshopts_are_split_as_a_shell_does,
    remote_sudo_without_a_rule_is_an_error_with_a_hint,
    remote_sudo_runs_the_server_through_sudo,
    one_connection_is_one_authentication,
    r14148_localhost_with_words_for_ssh_is_reached_over_ssh,
}

/// How many connections sshd, at `LogLevel DEBUG1`, has begun to compress after the login.
fn compressed(sshd: &Sshd) -> usize {
    let log = sshd.log();
    // The half of it that does the logins says the same of itself.
    let lines = log.lines().filter(|line| !line.contains("[preauth]"));
    lines.filter(|line| line.contains("Enabling compression")).count()
}

fn both_directions_over_ssh(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    world.run(ssh.served(&world, &sshd).args(["--to", "127.0.0.1"]).arg(&world.top)).is("
        2| copying 3 paths...
        2| copying path '/nix/store/...-library' to 'ssh://127.0.0.1'...
        2| copying path '/nix/store/...-program' to 'ssh://127.0.0.1'...
        2| copying path '/nix/store/...-top' to 'ssh://127.0.0.1'...
        2| copied 3 paths (9.1 KiB) to 127.0.0.1 in ... s
        exit 0
    ");
    let mut command = ssh.reaching(world.bare(), &sshd);
    command
        .args(["--from", "127.0.0.1", "--remote-program", PROGRAM, "--remote-store"])
        .arg(world.to())
        .arg("--store")
        .arg(world.directory().join("third"))
        .arg(&world.top);
    world.run(&mut command).says(0, &["copying 3 paths...", "from 'ssh://127.0.0.1'"]);
}

fn what_the_remote_shell_prints_is_passed_over(ssh: Ssh) {
    let Some(sshd) =
        sshd(&["ForceCommand echo Welcome; printf ' to %s ' this; eval \"$SSH_ORIGINAL_COMMAND\""])
    else {
        return;
    };
    let world = World::new();
    world.run(ssh.served(&world, &sshd).arg("127.0.0.1").arg(&world.other)).is("
        2| copying 1 paths...
        2| copying path '/nix/store/...-other' to 'ssh://127.0.0.1'...
        2| copied 1 path (456 B) to 127.0.0.1 in ... s
        exit 0
    ");
}

/// Whatever a refusal looks like: words on either stream, or a status alone; and whichever program was to run.
fn an_account_that_allows_no_command_is_exit_5_with_a_hint(ssh: Ssh) {
    let refusals = [
        ("sh -c 'echo This account is closed. >&2; exit 1'", "This account is closed."),
        ("echo This account is closed.", "This account is closed."),
        ("false", "exit status 1"),
    ];
    for (refusal, words) in refusals {
        let Some(sshd) = sshd(&[&format!("ForceCommand {refusal}")]) else { return };
        for named in [false, true] {
            let world = World::new();
            let mut command = if named { ssh.served(&world, &sshd) } else { ssh.reach(&world, &sshd) };
            let ran = world.run(command.arg("127.0.0.1").arg(&world.other));
            ran.says(5, &["127.0.0.1", words, "hint: the login worked", "'nix-store --serve --write'"]);
            assert_eq!(ran.stderr.matches("hint:").count(), 1, "{}", ran.transcript());
            assert_eq!(world.copied(&world.all()), [false; 4]);
        }
        assert_eq!(logins(&sshd), 2 * ssh.logins(2), "{}", sshd.log());
    }
}

pub(crate) fn logins(sshd: &Sshd) -> usize {
    sshd.log().matches("Accepted publickey").count()
}

/// An account that runs commands has refused nothing, whatever a program says before it greets; and where it is clear that the
/// words are the program's, nobody logs in again.
fn a_named_program_that_fails_is_no_refusal(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    for (body, words, expected) in [
        ("echo 'error: cannot open the database' >&2; exit 1", "cannot open the database", 1),
        ("echo No database. >&2; exit 1", "No database.", 2),
        ("echo No database.", "No database.", 2),
        ("exit 3", "exit status 3", 2),
    ] {
        let world = World::new();
        let program = world.script("program", &format!("#!/bin/sh\n{body}\n"));
        let before = logins(&sshd);
        let mut command = ssh.reach(&world, &sshd);
        let ran = world.run(command.arg("--remote-program").arg(program).arg("127.0.0.1").arg(&world.other));
        ran.says(1, &["127.0.0.1", words]);
        assert!(!ran.stderr.contains("the login worked"), "{}", ran.transcript());
        assert_eq!(logins(&sshd) - before, ssh.logins(expected), "{}", ran.transcript());
    }
}

/// A directory with a shell and nothing else, to be the PATH of the remote.
pub(crate) fn only_a_shell(world: &World) -> String {
    let bin = world.directory().join("bin");
    fs::create_dir(&bin).unwrap();
    for name in ["sh", "id"] {
        let found = ["/bin", "/usr/bin"].map(|directory| format!("{directory}/{name}"));
        let program = found.iter().find(|file| fs::exists(file).unwrap()).unwrap();
        symlink(program, bin.join(name)).unwrap();
    }
    bin.display().to_string()
}

fn a_server_that_is_not_on_the_path_is_found_in_the_usual_places(ssh: Ssh) {
    let world = World::new();
    let profile = world.directory().join(".nix-profile/bin");
    fs::create_dir_all(&profile).unwrap();
    symlink(PROGRAM, profile.join("nix-store")).unwrap();
    let environment = format!("SetEnv PATH={} HOME={}", only_a_shell(&world), world.directory().display());
    let Some(sshd) = Sshd::start(&[&environment]) else { return };
    world.run(ssh.reach(&world, &sshd).arg("127.0.0.1").arg(&world.other)).says(0, &["copying 1 paths..."]);
    assert_eq!(world.copied(&world.all()), [false, false, false, true]);
}

fn a_server_that_is_nowhere_is_an_error_that_says_where_it_was_looked_for(ssh: Ssh) {
    let world = World::new();
    let environment = format!("SetEnv PATH={} HOME={}", only_a_shell(&world), world.directory().display());
    let Some(sshd) = Sshd::start(&[&environment]) else { return };
    let ran = world.run(ssh.reach(&world, &sshd).arg("127.0.0.1").arg(&world.other));
    ran.says(
        1,
        &[
            "127.0.0.1",
            "'nix-store' was not found there",
            "$DIR/.nix-profile/bin/nix-store",
            "/nix/var/nix/profiles/default/bin/nix-store",
            "/run/current-system/sw/bin/nix-store",
            "hint: if Nix is installed there, say where with '--remote-program",
        ],
    );
}

fn a_named_program_that_is_nowhere_is_an_error_with_a_hint(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let mut command = ssh.reach(&world, &sshd);
    command.args(["--remote-program", "/nowhere/nix-store", "127.0.0.1"]).arg(&world.other);
    world
        .run(&mut command)
        .says(1, &["'/nowhere/nix-store' was not found there", "hint:", "--remote-program"]);
}

fn a_url_with_port_key_host_key_and_compression_needs_no_sshopts(ssh: Ssh) {
    use data_encoding::BASE64;

    let Some(sshd) = sshd(&["LogLevel DEBUG1"]) else { return };
    let world = World::new();
    let host_key = fs::read_to_string(sshd.directory().join("host_key.pub")).unwrap();
    let host_key: Vec<&str> = host_key.split_whitespace().take(2).collect();
    let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let host = format!(
        "ssh://{}@127.0.0.1:{}?compress=true&ssh-key={}&base64-ssh-public-host-key={}&remote-program={PROGRAM}",
        user.trim(),
        sshd.port(),
        sshd.key().display(),
        BASE64.encode(host_key.join(" ").as_bytes()).replace('+', "%2B").replace('=', "%3D"),
    );
    let mut command = ssh.reach(&world, &sshd);
    command.env(
        "NIX_SSHOPTS",
        "-F none -o BatchMode=yes -o IdentitiesOnly=yes -o GlobalKnownHostsFile=/dev/null",
    );
    let ran = world.run(command.arg(&host).arg(&world.other));
    ran.says(0, &["copying 1 paths..."]);
    assert_eq!(compressed(&sshd), 1, "{}", sshd.log());
    assert_eq!(world.copied(&world.all()), [false, false, false, true]);
}

fn gzip_compresses_the_connection(ssh: Ssh) {
    let Some(sshd) = sshd(&["LogLevel DEBUG1"]) else { return };
    let world = World::new();
    world.run(ssh.served(&world, &sshd).arg("127.0.0.1").arg(&world.other)).says(0, &[]);
    assert_eq!(compressed(&sshd), 0, "{}", sshd.log());
    for (option, connections) in [("--gzip", 1), ("--xz", 2), ("--bzip2", 3)] {
        world.run(ssh.served(&world, &sshd).args([option, "127.0.0.1"]).arg(&world.other)).says(0, &[]);
        assert_eq!(compressed(&sshd), connections, "{option}: {}", sshd.log());
    }
}

fn sshopts_are_split_as_a_shell_does(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    let key = world.directory().join("my key");
    fs::copy(sshd.key(), &key).unwrap();
    let quoted = format!("'{}'", key.display());
    let mut command = ssh.served(&world, &sshd);
    command.env("NIX_SSHOPTS", with_key(&sshd, quoted.as_ref())).arg("127.0.0.1").arg(&world.other);
    world.run(&mut command).says(0, &["copying 1 paths..."]);
}

fn remote_sudo_without_a_rule_is_an_error_with_a_hint(ssh: Ssh) {
    let world = World::new();
    let bin = only_a_shell(&world);
    let sudo = "#!/bin/sh\n[ \"$1\" = -n ] && echo 'sudo: a password is required' >&2\nexit 1\n";
    world.script("bin/sudo", sudo);
    let Some(sshd) = Sshd::start(&[&format!("SetEnv PATH={bin} HOME=/nowhere")]) else { return };
    let ran = world.run(ssh.served(&world, &sshd).args(["--remote-sudo", "127.0.0.1"]).arg(&world.other));
    ran.says(1, &["127.0.0.1", "a password is required", "hint: '--remote-sudo' needs a rule", "NOPASSWD"]);
}

fn remote_sudo_runs_the_server_through_sudo(ssh: Ssh) {
    let world = World::new();
    let bin = only_a_shell(&world);
    world.script("bin/sudo", "#!/bin/sh\n[ \"$1\" = -n ] && shift\necho as root: \"$1\" >&2\nexec \"$@\"\n");
    let Some(sshd) = Sshd::start(&[&format!("SetEnv PATH={bin} HOME=/nowhere")]) else { return };
    let ran = world.run(ssh.served(&world, &sshd).args(["--remote-sudo", "127.0.0.1"]).arg(&world.other));
    ran.says(0, &["127.0.0.1: as root: $PROGRAM", "copying 1 paths..."]);
}

/// The host is a forwarded port or a container then.
///
/// https://github.com/NixOS/nix/issues/14148
fn r14148_localhost_with_words_for_ssh_is_reached_over_ssh(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    let known = format!("-o HostKeyAlias=[127.0.0.1]:{}", sshd.port());
    // With '--transport' and NIX_SSHOPTS, then with the latter alone, where OpenSSH is the default.
    for (round, words) in
        [&["--remote-program", PROGRAM][..], &["--remote-program", PROGRAM]].iter().enumerate()
    {
        let world = World::new();
        let mut command = ssh.reach(&world, &sshd);
        if round == 1 {
            if !matches!(ssh, Ssh::OpenSsh) {
                return;
            }
            command = world.copy();
            command.env("PATH", crate::transports::path()).env("NIX_SSHOPTS", sshd.nix_sshopts());
        }
        crate::transports::prefer(&mut command, &known);
        let before = logins(&sshd);
        let ran = world.run(command.args(*words).args(["-v", "localhost"]).arg(&world.other));
        ran.says(0, &["copying 1 paths...", "'localhost' is reached over ssh: "]);
        assert_eq!(logins(&sshd), before + 1, "{}", sshd.log());
    }
}

fn one_connection_is_one_authentication(ssh: Ssh) {
    let Some(sshd) = sshd(&[]) else { return };
    let world = World::new();
    world.run(ssh.served(&world, &sshd).arg("127.0.0.1").args(world.all())).says(0, &[]);
    let log = sshd.log();
    assert_eq!(log.matches("Accepted publickey").count(), 1, "{log}");
}
