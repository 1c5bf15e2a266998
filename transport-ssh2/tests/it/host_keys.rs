//! Whether the server is the right one.

use std::{fs, process::Command};

use ncc_transport::FailureKind;
use ncc_transport_ssh::test_util::Sshd;

use crate::{Script, fails, refused, start, with, works};
use ncc_transport_ssh2::{Ssh2, Ssh2Options};

/// A file of known hosts with this text, and options that use it.
fn knowing(sshd: &Sshd, text: &str, words: &str) -> (std::path::PathBuf, Ssh2Options) {
    let path = sshd.directory().join("known_by_test");
    fs::write(&path, text).unwrap();
    let options = with(sshd, &format!("-o UserKnownHostsFile={} {words}", path.display()));
    (path, options)
}

fn key(sshd: &Sshd, name: &str) -> String {
    fs::read_to_string(sshd.directory().join(name)).unwrap()
}

#[tokio::test]
async fn an_unknown_host_is_refused_unless_somebody_accepts_it() {
    let Some(sshd) = start(&[]) else { return };
    let (_, strict) = knowing(&sshd, "", "");
    refused(&sshd, strict, FailureKind::HostKeyUnknown, "SHA256:").await;

    let (path, nobody) = knowing(&sshd, "", "-o StrictHostKeyChecking=ask -o BatchMode=no");
    refused(&sshd, nobody, FailureKind::HostKeyUnknown, "nobody is there").await;
    let (_, batch) = knowing(&sshd, "", "-o StrictHostKeyChecking=ask");
    refused(&sshd, batch, FailureKind::HostKeyUnknown, "BatchMode").await;

    for (answer, accepted) in [("no", false), ("", false), ("yes", true)] {
        let (_, mut options) = knowing(&sshd, "", "-o StrictHostKeyChecking=ask -o BatchMode=no");
        let script = Script::new(&[answer]);
        options.prompter = script.clone();
        if accepted {
            let told = works(&sshd, options.clone()).await;
            assert!(told.contains("added [127.0.0.1]:"), "{told}");
            assert_eq!(script.asked().len(), 1);
            // Now it is known, and nobody is asked.
            assert_eq!(works(&sshd, options).await, "");
            assert_eq!(script.asked().len(), 1);
        } else {
            refused(&sshd, options, FailureKind::HostKeyUnknown, "not accepted").await;
            assert_eq!(fs::read_to_string(&path).unwrap(), "");
        }
        assert!(script.asked()[0].contains(&format!("[127.0.0.1]:{}", sshd.port())), "{:?}", script.asked());
    }
}

#[tokio::test]
async fn accept_new_remembers_hashed_names_and_accepts_no_change() {
    let Some(sshd) = start(&[]) else { return };
    let words = "-o StrictHostKeyChecking=accept-new -o HashKnownHosts=yes";
    let (path, options) = knowing(&sshd, "", words);
    assert!(works(&sshd, options.clone()).await.contains("added"));
    assert_eq!(works(&sshd, options).await, "");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("|1|") && text.lines().count() == 1, "{text}");
    // OpenSSH finds it too.
    let found = Command::new("ssh-keygen")
        .arg("-F")
        .arg(format!("[127.0.0.1]:{}", sshd.port()))
        .arg("-f")
        .arg(&path)
        .output()
        .unwrap();
    assert!(found.status.success());

    let other = format!("# a comment\n[127.0.0.1]:{} {}", sshd.port(), key(&sshd, "user_key.pub"));
    let (path, options) = knowing(&sshd, &other, words);
    refused(&sshd, options, FailureKind::HostKeyChanged, &format!("{}:2", path.display())).await;
    assert_eq!(fs::read_to_string(&path).unwrap(), other);
}

#[tokio::test]
async fn keys_that_openssh_hashed_are_found() {
    let Some(sshd) = start(&[]) else { return };
    let (path, options) = knowing(&sshd, &fs::read_to_string(sshd.known_hosts()).unwrap(), "");
    assert!(
        Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(&path).output().unwrap().status.success()
    );
    assert!(!fs::read_to_string(&path).unwrap().contains("127.0.0.1"));
    works(&sshd, options).await;
}

#[tokio::test]
async fn revoked_keys_are_refused_however_lax_the_rest() {
    let Some(sshd) = start(&[]) else { return };
    let text = format!(
        "{}@revoked * {}",
        fs::read_to_string(sshd.known_hosts()).unwrap(),
        key(&sshd, "host_key.pub")
    );
    for words in ["", "-o StrictHostKeyChecking=no", "-o StrictHostKeyChecking=accept-new"] {
        let (path, options) = knowing(&sshd, &text, words);
        refused(&sshd, options, FailureKind::HostKeyRevoked, &format!("{}:2", path.display())).await;
    }
}

#[tokio::test]
async fn checking_is_off_only_if_the_user_says_so_and_then_it_is_said() {
    let Some(sshd) = start(&[]) else { return };
    let changed = format!("[127.0.0.1]:{} {}", sshd.port(), key(&sshd, "user_key.pub"));
    let (_, options) = knowing(&sshd, &changed, "-o StrictHostKeyChecking=no");
    let told = works(&sshd, options).await;
    assert!(told.contains("anybody may pretend") && told.contains("not the one in"), "{told}");
}

#[tokio::test]
async fn authorities_and_other_types_make_nobody_known() {
    let Some(sshd) = start(&[]) else { return };
    let authority = format!("@cert-authority * {}", key(&sshd, "user_key.pub"));
    let (_, options) = knowing(&sshd, &authority, "-o StrictHostKeyChecking=accept-new");
    refused(&sshd, options, FailureKind::HostKeyUnknown, "certificates of hosts are not supported").await;

    let rsa = format!("[127.0.0.1]:{} ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQ==\n", sshd.port());
    let (_, options) = knowing(&sshd, &rsa, "-o StrictHostKeyChecking=accept-new");
    refused(&sshd, options, FailureKind::HostKeyUnknown, "a key of another type").await;
}

#[tokio::test]
async fn the_known_type_is_negotiated() {
    let Some(sshd) = start(&[]) else { return };
    // Another sshd with two keys, of which only the second choice is known.
    let extra = sshd.directory().join("ecdsa_key");
    assert!(
        Command::new("ssh-keygen")
            .args(["-q", "-t", "ecdsa", "-N", "", "-f"])
            .arg(&extra)
            .status()
            .unwrap()
            .success()
    );
    let Some(two) = start(&[&format!("HostKey {}", extra.display())]) else { return };
    let known =
        format!("[127.0.0.1]:{} {}", two.port(), fs::read_to_string(extra.with_extension("pub")).unwrap());
    let (_, options) = knowing(&two, &known, "");
    works(&two, options).await;
}

#[tokio::test]
async fn an_alias_stands_for_the_host() {
    let Some(sshd) = start(&[]) else { return };
    let (_, options) =
        knowing(&sshd, &format!("cluster {}", key(&sshd, "host_key.pub")), "-o HostKeyAlias=cluster");
    works(&sshd, options).await;
    let failure = fails(&Ssh2::new(sshd.target(), with(&sshd, "-o HostKeyAlias=cluster"))).await;
    assert_eq!(failure.kind, FailureKind::HostKeyUnknown);
}

/// A key that was known before the server got another port; OpenSSH takes it too.
#[tokio::test]
async fn a_key_that_is_known_without_the_port_will_do() {
    let Some(sshd) = start(&[]) else { return };
    let own = key(&sshd, "host_key.pub");
    let (_, options) = knowing(&sshd, &format!("127.0.0.1 {own}"), "");
    works(&sshd, options).await;
    // But another key there is no change: it may be another machine's.
    let (_, options) = knowing(&sshd, &format!("127.0.0.1 {}", key(&sshd, "user_key.pub")), "");
    refused(&sshd, options, FailureKind::HostKeyUnknown, "SHA256:").await;
    // And a revoked one is revoked.
    let (path, options) = knowing(&sshd, &format!("@revoked 127.0.0.1 {own}"), "");
    refused(&sshd, options, FailureKind::HostKeyRevoked, &format!("{}:1", path.display())).await;
    // An alias has no port.
    let (_, options) = knowing(&sshd, &format!("127.0.0.1 {own}"), "-o HostKeyAlias=other");
    refused(&sshd, options, FailureKind::HostKeyUnknown, "other shows").await;
}

fn make_key(sshd: &Sshd, name: &str, arguments: &[&str]) -> std::path::PathBuf {
    let path = sshd.directory().join(name);
    let output =
        Command::new("ssh-keygen").args(["-q", "-N", "", "-f"]).arg(&path).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    path
}

/// indexable-inc/index#2678 <https://github.com/indexable-inc/index/issues/2678>: a pinned key was looked up by the name that was
/// typed, and everything that made the check laxer counted all the same.
#[tokio::test]
async fn a_pinned_key_is_a_pin() {
    let Some(sshd) = start(&[]) else { return };
    let extra = make_key(&sshd, "ecdsa_key", &["-t", "ecdsa"]);
    let Some(two) = start(&[&format!("HostKey {}", extra.display())]) else { return };
    let pin = |line: String| Some(line.parse().unwrap());
    let lax = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null";
    let nothing_known = "-o UserKnownHostsFile=/dev/null";
    // Whatever it is called, and even if something else is known by that name.
    let (_, wrong) = knowing(&two, &format!("[127.0.0.1]:{} {}", two.port(), key(&sshd, "user_key.pub")), "");
    for mut options in [
        with(&two, nothing_known),
        with(&two, "-o HostKeyAlias=other -o CheckHostIP=yes -o StrictHostKeyChecking=yes"),
        with(&two, "-o HostKeyAlgorithms=ssh-ed25519"),
        wrong,
    ] {
        // Each of the two keys: its type is what is agreed on.
        for file in [two.directory().join("host_key"), extra.clone()] {
            options.pinned_host_key = pin(fs::read_to_string(file.with_extension("pub")).unwrap());
            assert_eq!(works(&two, options.clone()).await, "");
        }
    }
    // A wrong one is refused however lax the rest, also if the right one is known.
    for words in ["", lax, "-o StrictHostKeyChecking=accept-new"] {
        let mut options = with(&two, words);
        options.pinned_host_key = pin(key(&sshd, "user_key.pub"));
        let evidence = "the pinned host key is ssh-ed25519 SHA256:";
        refused(&two, options, FailureKind::HostKeyChanged, evidence).await;
        // And one of a type that the host does not have.
        let mut options = with(&sshd, words);
        options.pinned_host_key = pin(fs::read_to_string(extra.with_extension("pub")).unwrap());
        let evidence = "the host shows no key of its type";
        refused(&sshd, options, FailureKind::HostKeyChanged, evidence).await;
    }
}

/// The system-wide policies of Fedora and RHEL.
#[tokio::test]
async fn short_rsa_keys_are_refused() {
    let Some(other) = start(&[]) else { return };
    let host_key = make_key(&other, "rsa_host", &["-t", "rsa", "-b", "2048"]);
    let Some(sshd) = start(&[&format!("HostKey {}", host_key.display()), "HostKeyAlgorithms rsa-sha2-512"])
    else {
        return;
    };
    let public = fs::read_to_string(host_key.with_extension("pub")).unwrap();
    let known = format!("[127.0.0.1]:{} {public}", sshd.port());
    for keyword in ["RequiredRSASize", "RSAMinSize"] {
        let (_, options) = knowing(&sshd, &known, &format!("-o {keyword}=2048"));
        works(&sshd, options).await;
        let (_, options) = knowing(&sshd, &known, &format!("-o {keyword}=2049"));
        let evidence = "an RSA key of 2048 bits";
        refused(&sshd, options, FailureKind::HostKeyUnknown, evidence).await;
    }

    // Our own.
    let own = make_key(&other, "rsa_own", &["-t", "rsa", "-b", "2048"]);
    fs::copy(own.with_extension("pub"), other.directory().join("authorized_keys")).unwrap();
    let words = format!("-i {} -o RequiredRSASize=", own.display());
    works(&other, with(&other, &format!("{words}2048"))).await;
    let evidence = "it has 2048 bits, but RequiredRSASize asks for 3072";
    refused(&other, with(&other, &format!("{words}3072")), FailureKind::KeyFileUnusable, evidence).await;
}
