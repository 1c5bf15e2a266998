//! A pinned host key is the only one that is accepted, whatever else is configured.

use std::{fs, process::Command};

use ncc_transport::{
    Channel, End, Exit, Failure, FailureClass, FailureKind, PinnedHostKey, RemoteCommand, StderrTail,
    Transport,
};
use ncc_transport_ssh::{OpenSsh, OpenSshOptions, Sharing, test_util::Sshd};
use tokio::io::AsyncReadExt as _;

/// Runs `echo in`; what became of it.
async fn log_in(transport: &OpenSsh) -> Result<(), Failure> {
    let Channel { stdin, mut stdout, stderr, mut control } =
        transport.open(&RemoteCommand::new("echo").arg("in")).await.unwrap();
    drop(stdin);
    let mut stderr = StderrTail::collect(stderr, None);
    let mut output = String::new();
    stdout.read_to_string(&mut output).await.unwrap();
    let exit = control.wait().await.unwrap();
    let text = stderr.finish().await;
    match transport.explain(&End::new(&exit, !output.is_empty(), &text)) {
        None => {
            assert_eq!((output.as_str(), exit), ("in\n", Exit::Code(0)), "{text}");
            Ok(())
        }
        Some(failure) => {
            assert_eq!(output, "", "{failure:?}");
            Err(failure)
        }
    }
}

/// A transport to `host` with this ssh_config and these further words, and a pinned key.
fn transport(sshd: &Sshd, config: &str, words: &[&str], key: PinnedHostKey) -> OpenSsh {
    let file = sshd.directory().join(format!("ssh_config-{}", unused_name()));
    let always = format!(
        "\nHost *\n User {}\n IdentityFile {}\n IdentitiesOnly yes\n IdentityAgent none\n BatchMode yes\n",
        sshd.target().user().unwrap_or("root"),
        sshd.key().display()
    );
    fs::write(&file, config.to_owned() + &always).unwrap();
    let mut options = OpenSshOptions::default();
    options.extra = vec!["-F".into(), file.into()];
    options.extra.extend(words.iter().map(Into::into));
    options.host_key = Some(key);
    OpenSsh::new("web1".parse().unwrap(), options)
}

/// A name that no other call returns.
fn unused_name() -> usize {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// The key of the user in the place of the host's: of the same type, and another.
fn wrong_key(sshd: &Sshd) -> PinnedHostKey {
    fs::read_to_string(sshd.directory().join("user_key.pub")).unwrap().parse().unwrap()
}

async fn refused(transport: &OpenSsh) {
    let failure = log_in(transport).await.expect_err("a wrong key is refused");
    assert_eq!(
        (failure.kind, failure.class()),
        (FailureKind::HostKeyChanged, FailureClass::Refused),
        "{failure:?}"
    );
    assert!(failure.hint.contains("base64-ssh-public-host-key"), "{failure:?}");
}

/// <https://github.com/indexable-inc/index/issues/2678>, <https://github.com/lablup/bssh/issues/279>
#[tokio::test]
async fn index_2678_the_pin_counts_whatever_the_host_is_called() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let web1 = format!("Host web1\n HostName 127.0.0.1\n Port {}\n", sshd.port());
    for further in [
        " StrictHostKeyChecking yes\n",
        " StrictHostKeyChecking accept-new\n",
        " HostKeyAlias other\n",
        " CheckHostIP yes\n",
        " CanonicalizeHostname yes\n",
        " NoHostAuthenticationForLocalhost yes\n",
        " StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n GlobalKnownHostsFile /dev/null\n",
        " KnownHostsCommand /bin/false\n",
        " HostKeyAlgorithms ecdsa-sha2-nistp256\n",
    ] {
        let config = web1.clone() + further;
        log_in(&transport(&sshd, &config, &[], sshd.host_key()))
            .await
            .unwrap_or_else(|failure| panic!("{further}: {failure:?}"));
        refused(&transport(&sshd, &config, &[], wrong_key(&sshd))).await;
    }
}

#[tokio::test]
async fn the_users_own_options_do_not_beat_it() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let web1 = format!("Host web1\n HostName 127.0.0.1\n Port {}\n", sshd.port());
    let known_hosts = format!("UserKnownHostsFile={}", sshd.known_hosts().display());
    for words in [
        ["-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no"],
        ["-o", known_hosts.as_str(), "-o", "StrictHostKeyChecking=accept-new"],
        ["-o", "HostKeyAlias=127.0.0.1", "-o", known_hosts.as_str()],
    ] {
        log_in(&transport(&sshd, &web1, &words, sshd.host_key()))
            .await
            .unwrap_or_else(|failure| panic!("{words:?}: {failure:?}"));
        refused(&transport(&sshd, &web1, &words, wrong_key(&sshd))).await;
    }
}

#[tokio::test]
async fn a_host_with_a_key_of_another_type_is_not_new() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let file = sshd.directory().join("ecdsa");
    let made =
        Command::new("ssh-keygen").args(["-q", "-t", "ecdsa", "-N", "", "-f"]).arg(&file).status().unwrap();
    assert!(made.success());
    let key: PinnedHostKey = fs::read_to_string(file.with_extension("pub")).unwrap().parse().unwrap();
    assert_eq!(key.key_type(), "ecdsa-sha2-nistp256");
    let web1 = format!(
        "Host web1\n HostName 127.0.0.1\n Port {}\n StrictHostKeyChecking accept-new\n UserKnownHostsFile {}\n",
        sshd.port(),
        sshd.directory().join("accepted").display()
    );
    refused(&transport(&sshd, &web1, &[], key)).await;
    assert!(!sshd.directory().join("accepted").exists());
}

#[tokio::test]
async fn a_master_whose_key_nobody_compared_is_not_used() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let socket = sshd.directory().join("master");
    let web1 = format!(
        "Host web1\n HostName 127.0.0.1\n Port {}\n StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n \
         ControlMaster auto\n ControlPath {}\n ControlPersist 20\n",
        sshd.port(),
        socket.display()
    );
    let mut unpinned = OpenSshOptions::default();
    let file = sshd.directory().join("unpinned");
    fs::write(&file, format!("{web1} IdentityFile {}\n IdentityAgent none\n", sshd.key().display())).unwrap();
    unpinned.extra = vec!["-F".into(), file.into()];
    log_in(&OpenSsh::new("web1".parse().unwrap(), unpinned)).await.unwrap();
    assert!(socket.exists());
    refused(&transport(&sshd, &web1, &[], wrong_key(&sshd))).await;
    // The right one logs in by itself, and several channels still share.
    let before = sshd.logins();
    let mut pinned = transport(&sshd, &web1, &[], sshd.host_key());
    log_in(&pinned).await.unwrap();
    assert_eq!(sshd.logins(), before + 1);
    pinned = {
        let mut options = OpenSshOptions::default();
        options.extra = vec!["-F".into(), sshd.directory().join("unpinned").into()];
        options.host_key = Some(sshd.host_key());
        options.sharing = Sharing::Private;
        OpenSsh::new("web1".parse().unwrap(), options)
    };
    let held = pinned.open(&RemoteCommand::new("cat")).await.unwrap();
    log_in(&pinned).await.unwrap();
    assert_eq!(sshd.logins(), before + 2);
    drop(held);
}

#[tokio::test]
async fn a_jump_host_is_neither_trusted_nor_refused_by_it() {
    let Some(sshd) = Sshd::start(&[]) else { return };
    let config = |known: &str| {
        format!(
            "Host jump\n HostName 127.0.0.1\n Port {0}\n StrictHostKeyChecking yes\n GlobalKnownHostsFile /dev/null\n \
             UserKnownHostsFile {known}\nHost web1\n HostName 127.0.0.1\n Port {0}\n ProxyJump jump\n",
            sshd.port()
        )
    };
    let known_hosts = sshd.known_hosts().display().to_string();
    log_in(&transport(&sshd, &config(&known_hosts), &[], sshd.host_key())).await.unwrap();
    refused(&transport(&sshd, &config(&known_hosts), &[], wrong_key(&sshd))).await;
    let failure = log_in(&transport(&sshd, &config("/dev/null"), &[], sshd.host_key())).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::ProxyFailed, "{failure:?}");
}
