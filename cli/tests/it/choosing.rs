//! Hosts on which not both protocols are spoken, and what it costs to find that out.

use std::fs;

use ncc_transport_ssh::test_util::Sshd;

use crate::{
    daemons::{has_daemon, verify},
    ssh::{logins, only_a_shell},
    support::World,
    transports::{Ssh, path, sshd, with_each_transport},
};

with_each_transport! {
    r16185_a_nix_without_a_serve_protocol_is_asked_through_its_daemon,
    r16185_a_named_nix_store_without_a_serve_protocol_leads_to_the_daemon_beside_it,
    r413627_an_account_that_lets_only_a_daemon_pass_costs_one_login_more,
    a_closed_account_costs_one_login_more,
    where_nothing_speaks_either_protocol_there_is_no_server,
    a_named_program_that_ends_without_a_word_is_no_login_shell,
}

/// As upstream means to have it: <https://github.com/NixOS/nix/pull/16185>.
const WITHOUT_SERVE: &str = "#!/bin/sh\n\
    case \" $* \" in\n\
    *' --serve '*) echo \"error: 'nix-store --serve' is no longer supported\" >&2; exit 1;;\n\
    *' --version '*) echo 'nix-store (Nix) 2.99.0'; exit;;\n\
    esac\n\
    exit 9\n";

/// An sshd whose logins find the programs in `bin` first.
fn sshd_with_bin(world: &World) -> Option<Sshd> {
    let environment =
        format!("SetEnv PATH={}:{} HOME=/nowhere", world.directory().join("bin").display(), path().display());
    Sshd::start(&[&environment])
}

/// There and back.
fn copies(world: &World, ssh: Ssh, sshd: &Sshd, words: &[&str], expected: &str) {
    let mut command = ssh.reach(world, sshd);
    let ran = world.run(command.args(words).args(["-v", "127.0.0.1"]).args([&world.top, &world.other]));
    ran.says(0, &["copying 4 paths...", expected]);
    verify(world);

    let back = World::new();
    let mut command = ssh.reaching(back.bare(), sshd);
    command.arg("--from").arg("--store").arg(back.to()).arg("--remote-store").arg(world.to());
    let ran = back.run(command.args(words).arg("127.0.0.1").arg(&world.top));
    ran.says(0, &["copying 3 paths..."]);
    verify(&back);
}

fn r16185_a_nix_without_a_serve_protocol_is_asked_through_its_daemon(ssh: Ssh) {
    if !has_daemon() {
        return;
    }
    let world = World::new();
    fs::create_dir(world.directory().join("bin")).unwrap();
    world.script("bin/nix-store", WITHOUT_SERVE);
    let Some(sshd) = sshd_with_bin(&world) else { return };
    let expected = "host '127.0.0.1' is asked through 'nix-daemon --stdio': nix-store: cannot be run: \
                    $DIR/bin/nix-store does not know --serve";
    copies(&world, ssh, &sshd, &[], expected);
    assert_eq!(logins(&sshd), 2, "{}", sshd.log());
}

fn r16185_a_named_nix_store_without_a_serve_protocol_leads_to_the_daemon_beside_it(ssh: Ssh) {
    if !has_daemon() {
        return;
    }
    let world = World::new();
    fs::create_dir(world.directory().join("bin")).unwrap();
    let program = world.script("bin/nix-store", WITHOUT_SERVE).display().to_string();
    world.script(
        "bin/nix-daemon",
        &format!("#!/bin/sh\nPATH='{}'\nexec nix-daemon \"$@\"\n", path().display()),
    );
    let Some(sshd) = sshd(&[]) else { return };
    let expected = "is asked through '$DIR/bin/nix-daemon --stdio': '$DIR/bin/nix-store' does not know the serve protocol";
    copies(&world, ssh, &sshd, &["--remote-program", &program], expected);
    assert_eq!(logins(&sshd), 2 * ssh.logins(2), "{}", sshd.log());
}

/// <https://github.com/NixOS/nixpkgs/pull/413627>: with an allow list, and with a command that runs whatever was asked for
/// (`nix.sshServe.protocol = "ssh-ng"`).
fn r413627_an_account_that_lets_only_a_daemon_pass_costs_one_login_more(ssh: Ssh) {
    if !has_daemon() {
        return;
    }
    for list in ["*' --serve '*|*sh*) echo refused >&2; exit 127;;", ""] {
        let world = World::new();
        let account = format!(
            "#!/bin/sh\nPATH='{}'\ncase \"$SSH_ORIGINAL_COMMAND\" in {list}\n*) exec nix-daemon --stdio --store '{}';; esac\n",
            path().display(),
            world.to().display()
        );
        let account = world.script("account", &account);
        let Some(sshd) = sshd(&[&format!("ForceCommand {}", account.display())]) else { return };
        let expected = "is asked through 'nix-daemon --stdio': the account does not let everything pass";
        copies(&world, ssh, &sshd, &[], expected);
        assert_eq!(logins(&sshd), 2 * ssh.logins(2), "{}", sshd.log());
    }
}

fn a_closed_account_costs_one_login_more(ssh: Ssh) {
    let Some(sshd) = sshd(&["ForceCommand sh -c 'echo This account is closed. >&2; exit 1'"]) else { return };
    let world = World::new();
    let ran = world.run(ssh.reach(&world, &sshd).arg("127.0.0.1").arg(&world.other));
    ran.says(5, &["This account is closed.", "'nix-store --serve --write' or 'nix-daemon --stdio'"]);
    assert_eq!(logins(&sshd), ssh.logins(2), "{}", sshd.log());
}

fn where_nothing_speaks_either_protocol_there_is_no_server(ssh: Ssh) {
    let world = World::new();
    let bin = only_a_shell(&world);
    world.script("bin/nix-store", WITHOUT_SERVE);
    let Some(sshd) = Sshd::start(&[&format!("SetEnv PATH={bin} HOME=/nowhere")]) else { return };
    let ran = world.run(ssh.reach(&world, &sshd).arg("127.0.0.1").arg(&world.other));
    let expected = [
        "there is no server there: nix-store: cannot be run: $DIR/bin/nix-store does not know --serve; no nix-daemon",
        "hint: either Nix has to be there, or this program",
    ];
    ran.says(1, &expected);
    assert_eq!(logins(&sshd), 1, "{}", sshd.log());
}

fn a_named_program_that_ends_without_a_word_is_no_login_shell(ssh: Ssh) {
    let world = World::new();
    let silent = world.script("silent", "#!/bin/sh\nexit 3\n");
    let Some(sshd) = sshd(&[]) else { return };
    let mut command = ssh.reach(&world, &sshd);
    let ran = world.run(command.arg("--remote-program").arg(&silent).arg("127.0.0.1").arg(&world.other));
    ran.says(1, &["there is no server there: '$DIR/silent' ended without a word (exit status 3)", "hint:"]);
    assert!(!ran.stderr.contains("login shell ended"), "{}", ran.transcript());
}
