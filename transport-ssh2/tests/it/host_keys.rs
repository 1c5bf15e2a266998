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
            let stderr = works(&sshd, options.clone()).await;
            assert!(stderr.contains("added [127.0.0.1]:"), "{stderr}");
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
    let stderr = works(&sshd, options).await;
    assert!(stderr.contains("anybody may pretend") && stderr.contains("not the one in"), "{stderr}");
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
