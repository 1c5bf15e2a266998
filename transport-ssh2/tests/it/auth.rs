//! Saying who we are.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use ncc_transport::FailureKind;
use ncc_transport_ssh::test_util::Sshd;
use ncc_transport_ssh2::Ssh2;

use crate::{Script, fails, refused, start, with, works};

/// An ssh-agent in the foreground, ended by its number.
struct Agent {
    child: Child,
    socket: PathBuf,
}

impl Agent {
    fn start(directory: &Path) -> Self {
        let socket = directory.join("agent");
        let mut child =
            Command::new("ssh-agent").args(["-D", "-a"]).arg(&socket).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("SSH_AUTH_SOCK"), "{line}");
        Self { child, socket }
    }

    fn add(&self, key: &Path) {
        let output =
            Command::new("ssh-add").arg("-q").arg(key).env("SSH_AUTH_SOCK", &self.socket).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn make_key(path: &Path, arguments: &[&str]) {
    let output = Command::new("ssh-keygen")
        .args(["-q", "-C", "of a test", "-f"])
        .arg(path)
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Lets this key in too.
fn authorize(sshd: &Sshd, line: &str) {
    let path = sshd.directory().join("authorized_keys");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(path, format!("{text}{line}")).unwrap();
}

fn public(path: &Path) -> String {
    fs::read_to_string(format!("{}.pub", path.display())).unwrap()
}

#[tokio::test]
async fn the_agent_is_asked_for_all_its_keys() {
    let Some(sshd) = start(&[]) else { return };
    let agent = Agent::start(sshd.directory());
    let other = sshd.directory().join("other");
    make_key(&other, &["-t", "ed25519", "-N", ""]);
    agent.add(&other);
    agent.add(&sshd.key());
    // The key file is out of the way.
    let hidden = sshd.directory().join("hidden");
    fs::rename(sshd.key(), &hidden).unwrap();
    let words = format!("-o IdentityAgent={} -o IdentitiesOnly=no -i /nope", agent.socket.display());
    works(&sshd, with(&sshd, &words)).await;

    // Only named keys; the one that fits is named by its public half.
    let only = format!("-o IdentityAgent={} -i {}", agent.socket.display(), sshd.key().display());
    works(&sshd, with(&sshd, &only)).await;
    fs::rename(sshd.directory().join("user_key.pub"), sshd.directory().join("hidden.pub")).unwrap();
    refused(&sshd, with(&sshd, &only), FailureKind::KeyFileUnusable, "no such file").await;

    fs::rename(&hidden, sshd.key()).unwrap();
    let gone = "-o IdentityAgent=/nope/agent -o IdentitiesOnly=no";
    works(&sshd, with(&sshd, gone)).await;
}

/// One that takes the connection and says nothing, and one that does not even take it.
#[tokio::test]
async fn an_agent_that_is_silent_is_given_up_and_said() {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, connect, listen, socket};

    let Some(sshd) = start(&[]) else { return };
    let at = |name: &str| sshd.directory().join(name);
    let _silent = UnixListener::bind(at("silent")).unwrap();
    let full = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    let address = SocketAddrUnix::new(at("full")).unwrap();
    bind(&full, &address).unwrap();
    listen(&full, 0).unwrap();
    let waiting = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    connect(&waiting, &address).unwrap();

    let says = "does not answer within 10 seconds";
    let works = async |name: &str| {
        let start = Instant::now();
        let told = works(&sshd, with(&sshd, &format!("-o IdentityAgent={}", at(name).display()))).await;
        assert!(told.contains(says), "{told}");
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    };
    // Without a key that would do.
    let refused = async {
        let mut options = with(&sshd, &format!("-o IdentityAgent={}", at("silent").display()));
        options.extra = options
            .extra
            .into_iter()
            .map(|word| if word == *sshd.key() { at("host_key").into() } else { word })
            .collect();
        refused(&sshd, options, FailureKind::PermissionDenied, says).await;
    };
    tokio::join!(works("silent"), works("full"), refused);
}

#[tokio::test]
async fn keys_with_passphrases_are_asked_for_once_and_only_if_the_server_wants_them() {
    let Some(sshd) = start(&[]) else { return };
    for (name, arguments) in [
        ("ed25519", &["-t", "ed25519"][..]),
        ("ecdsa", &["-t", "ecdsa"]),
        ("rsa", &["-t", "rsa", "-b", "2048"]),
        ("older", &["-t", "rsa", "-b", "2048", "-m", "PEM"]),
    ] {
        let key = sshd.directory().join(name);
        make_key(&key, &[arguments, &["-N", "open sesame"]].concat());
        let words = format!("-o BatchMode=no -i {}", key.display());
        // Without the server's own user_key, which would get in.
        let only = |answers: &[&str]| {
            let mut options = with(&sshd, &words);
            let own = sshd.key();
            let at = options.extra.iter().position(|word| *word == own.as_os_str()).unwrap();
            options.extra.drain(at - 1..=at);
            let script = Script::new(answers);
            options.prompter = script.clone();
            (options, script)
        };
        // The server does not want it: nobody is asked.
        let (options, script) = only(&["open sesame"]);
        refused(&sshd, options, FailureKind::PermissionDenied, name).await;
        assert_eq!(script.asked().len(), 0, "{name}");

        authorize(&sshd, &public(&key));
        let (options, script) = only(&["open sesame"]);
        works(&sshd, options).await;
        assert_eq!(script.asked(), [format!("Passphrase for the key '{}': ", key.display())]);

        let (options, script) = only(&["wrong", "open sesame"]);
        works(&sshd, options).await;
        assert_eq!(script.asked().len(), 2);

        let (options, script) = only(&["wrong", "wrong", "wrong", "open sesame"]);
        refused(&sshd, options, FailureKind::KeyFileUnusable, "the passphrase was wrong 3 times").await;
        assert_eq!(script.asked().len(), 3);

        let (options, _) = only(&[]);
        refused(&sshd, options, FailureKind::KeyFileUnusable, "nobody is there to be asked").await;
    }
}

#[tokio::test]
async fn certificates_beside_the_key_are_used() {
    let Some(sshd) = start(&[]) else { return };
    let at = |name: &str| sshd.directory().join(name);
    make_key(&at("ca"), &["-t", "ed25519", "-N", ""]);
    let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let key = at(&format!("certified_{kind}"));
        make_key(&key, &["-t", kind, "-N", ""]);
        let public = at(&format!("certified_{kind}.pub"));
        let output = Command::new("ssh-keygen")
            .args(["-q", "-I", "test", "-n", user.trim(), "-s"])
            .arg(at("ca"))
            .arg(&public)
            .output()
            .unwrap();
        assert!(output.status.success());
        fs::write(at("authorized_keys"), format!("cert-authority {}", self::public(&at("ca")))).unwrap();
        works(&sshd, with(&sshd, &format!("-i {}", key.display()))).await;

        let elsewhere = at(&format!("elsewhere_{kind}"));
        fs::rename(at(&format!("certified_{kind}-cert.pub")), &elsewhere).unwrap();
        refused(&sshd, with(&sshd, &format!("-i {}", key.display())), FailureKind::PermissionDenied, kind)
            .await;
        works(
            &sshd,
            with(&sshd, &format!("-i {} -o CertificateFile={}", key.display(), elsewhere.display())),
        )
        .await;
    }
}

#[tokio::test]
async fn a_key_that_others_may_read_is_not_used() {
    let Some(sshd) = start(&[]) else { return };
    fs::set_permissions(sshd.key(), fs::Permissions::from_mode(0o644)).unwrap();
    refused(&sshd, with(&sshd, ""), FailureKind::KeyFileUnusable, "0644 are too open").await;
    refused(
        &sshd,
        with(&sshd, "-o PubkeyAuthentication=no"),
        FailureKind::PermissionDenied,
        "nothing to try",
    )
    .await;
}

#[tokio::test]
async fn wrong_passwords_are_asked_for_three_times() {
    let Some(sshd) = start(&["PasswordAuthentication yes", "MaxAuthTries 20"]) else { return };
    fs::write(sshd.directory().join("authorized_keys"), "").unwrap();
    let mut options = with(&sshd, "-o BatchMode=no -l root");
    let script = Script::new(&["a", "b", "c", "d", "e"]);
    options.prompter = script.clone();
    refused(&sshd, options, FailureKind::PermissionDenied, "a password, a password, a password").await;
    assert_eq!(script.asked(), ["root@127.0.0.1's password: "; 3]);

    // Nobody to be asked, or nobody may be.
    refused(&sshd, with(&sshd, "-o BatchMode=no -l root"), FailureKind::PermissionDenied, "password").await;
    let mut batch = with(&sshd, "-l root");
    let script = Script::new(&["a"]);
    batch.prompter = script.clone();
    refused(&sshd, batch, FailureKind::PermissionDenied, "password").await;
    assert_eq!(script.asked().len(), 0);
}

#[tokio::test]
async fn a_wrong_answer_to_the_server_is_not_asked_for_again_as_a_password() {
    let Some(sshd) = start(&[
        "UsePAM yes",
        "KbdInteractiveAuthentication yes",
        "PasswordAuthentication yes",
        "MaxAuthTries 20",
    ]) else {
        return;
    };
    fs::write(sshd.directory().join("authorized_keys"), "").unwrap();
    let mut options = with(&sshd, "-o BatchMode=no -o NumberOfPasswordPrompts=2 -l root");
    let script = Script::new(&["a", "b", "c", "d"]);
    options.prompter = script.clone();
    refused(&sshd, options, FailureKind::PermissionDenied, "an answer to the server's question").await;
    let asked = script.asked();
    assert!(
        asked.len() == 2 && asked.iter().all(|question| question.starts_with("(root@127.0.0.1)")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_server_that_allows_few_attempts_is_explained() {
    let Some(sshd) = start(&["MaxAuthTries 1"]) else { return };
    let mut words = String::new();
    for name in ["one", "two", "three"] {
        let key = sshd.directory().join(name);
        make_key(&key, &["-t", "ed25519", "-N", ""]);
        words.extend(["-i ", key.to_str().unwrap(), " "]);
    }
    let failure = fails(&Ssh2::new(sshd.target(), with(&sshd, &words))).await;
    assert_eq!(failure.kind, FailureKind::PermissionDenied, "{failure:?}");
    assert!(failure.hint.contains("MaxAuthTries"), "{failure:?}");
}

#[tokio::test]
async fn a_second_method_may_be_asked_for() {
    let Some(sshd) = start(&["PasswordAuthentication yes", "AuthenticationMethods publickey,password"])
    else {
        return;
    };
    let mut options = with(&sshd, "-o BatchMode=no");
    let script = Script::new(&["wrong"]);
    options.prompter = script.clone();
    refused(&sshd, options, FailureKind::PermissionDenied, "(password)").await;
    // The wrong one, and one that nobody gave.
    assert_eq!(script.asked().len(), 2);
}
