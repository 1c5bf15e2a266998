//! As a person sees it.

use std::{fs, os::unix::fs::chown, path::Path, process::Command, time::Duration};

use ncc_transport_ssh::test_util::Sshd;

use crate::{
    relay::{Then, relay},
    retrying::{CUT, LONG, add_paths, lead},
    support::{AT_ONCE, PROGRAM, World},
    transports::{Ssh, add_big, path, prefer, sshd, stuck, stuck_running, with_each_transport, with_key},
    tty::{Terminal, User, left_out},
};

pub(crate) const SOON: Duration = Duration::from_secs(20);

/// What a person is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Login {
    Password,
    /// What the server likes to ask: PAM's question for a password.
    Interactive,
    /// The passphrase of a key file.
    Passphrase,
}

/// Makes the tests of every question, with each transport.
macro_rules! of_a_question {
    ($module:ident, $login:expr, [$($test:ident),+ $(,)?]) => {
        mod $module {
            use crate::transports::{Ssh, with_each_transport};

            with_each_transport! { $($test),+ }

            $(fn $test(ssh: Ssh) { super::$test(ssh, $login); })+
        }
    };
    ($($module:ident: $login:expr),+ $(,)?) => {
        $(of_a_question!($module, $login, [
            is_asked_for_once_and_the_bar_comes_after_it,
            is_enough_for_the_copy_which_is_summed_up,
            given_up_with_ctrl_c_gives_the_echo_back,
            answered_wrong_is_exit_5,
        ]);)+
    };
}

of_a_question! {
    a_password: super::Login::Password,
    a_servers_question: super::Login::Interactive,
    a_passphrase: super::Login::Passphrase,
}

/// A host that asks a person something, and a command that leads there.
struct Asking {
    world: World,
    sshd: Sshd,
    /// Whose password it is; gone at the end.
    _user: Option<User>,
    command: Command,
    /// The program for the other side.
    program: String,
    host: String,
    question: String,
    answer: &'static str,
    /// What sshd says when it is content.
    accepted: &'static str,
}

impl Asking {
    /// `None` where this cannot be done, which is said loudly.
    fn new(ssh: Ssh, login: Login) -> Option<Self> {
        match login {
            Login::Password => Self::with_user(ssh, login, sshd(&["PasswordAuthentication yes"])?),
            Login::Interactive => {
                let sshd = sshd(&["UsePAM yes", "KbdInteractiveAuthentication yes"])?;
                if sshd.log().contains("Unsupported option UsePAM") || !Path::new("/etc/pam.d/sshd").exists()
                {
                    left_out("sshd does not ask PAM here");
                    return None;
                }
                Self::with_user(ssh, login, sshd)
            }
            Login::Passphrase => Some(Self::with_key(ssh, sshd(&[])?)),
        }
    }

    /// A user with a password, who may write the other store.
    fn with_user(ssh: Ssh, login: Login, sshd: Sshd) -> Option<Self> {
        let world = World::new();
        let user = User::create(&world)?;
        let program = world.directory().join("served");
        fs::copy(PROGRAM, &program).expect("a program that everybody may run");
        fs::create_dir(world.to()).expect("a folder");
        chown(world.to(), Some(user.uid), None).expect("a folder of the user's");
        let host = format!("{}@127.0.0.1", user.name);
        let (method, question, accepted) = match login {
            Login::Interactive => {
                ("keyboard-interactive", format!("({host}) Password:"), "Accepted keyboard-interactive")
            }
            _ => ("password", format!("{host}'s password:"), "Accepted password"),
        };
        let mut command = ssh.reach(&world, &sshd);
        prefer(
            &mut command,
            &format!("-o BatchMode=no -o PreferredAuthentications={method} -o PubkeyAuthentication=no"),
        );
        Some(Self {
            program: program.display().to_string(),
            answer: user.password,
            _user: Some(user),
            world,
            sshd,
            command,
            host,
            question,
            accepted,
        })
    }

    /// The key that the server knows, behind a passphrase.
    fn with_key(ssh: Ssh, sshd: Sshd) -> Self {
        let world = World::new();
        let answer = "open sesame";
        let key = world.directory().join("key");
        fs::copy(sshd.key(), &key).expect("a key");
        let locked = Command::new("ssh-keygen")
            .args(["-q", "-p", "-P", "", "-N", answer, "-f"])
            .arg(&key)
            .output()
            .expect("ssh-keygen");
        assert!(locked.status.success(), "{}", String::from_utf8_lossy(&locked.stderr));
        let mut command = ssh.reach(&world, &sshd);
        command.env("NIX_SSHOPTS", format!("-o BatchMode=no {}", with_key(&sshd, &key)));
        let asks = ssh.words("Enter passphrase for key", "Passphrase for the key");
        Self {
            program: PROGRAM.to_owned(),
            question: format!("{asks} '{}':", key.display()),
            answer,
            _user: None,
            world,
            sshd,
            command,
            host: "127.0.0.1".to_owned(),
            accepted: "Accepted publickey",
        }
    }

    /// Starts it on a terminal, up to the question.
    fn start(&mut self, program: &str, paths: &[&str]) -> Terminal {
        self.command.args(["--remote-program", program, &self.host]).args(paths);
        let terminal = Terminal::start(&self.command);
        terminal.wait_for(&self.question);
        terminal
    }

    /// The same with the usual program and path.
    fn start_usual(&mut self) -> Terminal {
        let (program, top) = (self.program.clone(), self.world.top.clone());
        self.start(&program, &[&top])
    }
}

fn is_asked_for_once_and_the_bar_comes_after_it(ssh: Ssh, login: Login) {
    let Some(mut asking) = Asking::new(ssh, login) else { return };
    let (big, top) = (add_big(&asking.world), asking.world.top.clone());
    let stuck = stuck_running(&asking.world, &asking.program);
    let mut terminal = asking.start(&stuck, &[&big, &top]);
    // Long enough for a bar to come, which must not.
    std::thread::sleep(Duration::from_millis(700));
    // Nothing but the question, and nobody reads the answer over the shoulder.
    assert_eq!(terminal.screen(), format!("connecting to {}...\n{}", asking.host, asking.question));
    assert!(!terminal.echoes());
    terminal.write(&format!("{}\r", asking.answer));
    terminal.wait_for("MiB");
    let screen = terminal.screen();
    assert!(screen.contains("big") || screen.contains("copying"), "{screen}");
    assert!(!terminal.raw().contains(asking.answer));
    assert_eq!(terminal.raw().matches(&asking.question).count(), 1, "{}", terminal.raw());
    // Ctrl-C: the bar goes, the terminal is as it was, nothing runs on.
    terminal.write("\x03");
    assert_eq!(terminal.end(AT_ONCE), 130);
    let left: Vec<String> = terminal.screen().lines().skip(2).map(|line| line.replace("^C", "")).collect();
    assert!(left.iter().all(|line| line.trim().is_empty()), "{left:#?}");
    assert!(terminal.echoes());
    asking.world.expect_no_process(Duration::from_secs(10));
    assert_eq!(asking.sshd.log().matches(asking.accepted).count(), 1, "{}", asking.sshd.log());
}

fn is_enough_for_the_copy_which_is_summed_up(ssh: Ssh, login: Login) {
    let Some(mut asking) = Asking::new(ssh, login) else { return };
    let mut terminal = asking.start_usual();
    terminal.write(&format!("{}\r", asking.answer));
    assert_eq!(terminal.end(SOON), 0, "{}", terminal.screen());
    let screen = terminal.screen();
    assert_eq!(screen.lines().count(), 3, "{screen}");
    assert!(screen.contains("copied 3 paths"), "{screen}");
    assert!(terminal.echoes());
    assert_eq!(asking.world.copied(&asking.world.all()), [true, true, true, false]);
}

fn given_up_with_ctrl_c_gives_the_echo_back(ssh: Ssh, login: Login) {
    let Some(mut asking) = Asking::new(ssh, login) else { return };
    let mut terminal = asking.start_usual();
    terminal.write("\x03");
    assert_eq!(terminal.end(AT_ONCE), 130, "{}", terminal.screen());
    assert!(terminal.echoes(), "the terminal shows no more what is typed");
    asking.world.expect_no_process(AT_ONCE);
}

fn answered_wrong_is_exit_5(ssh: Ssh, login: Login) {
    let Some(mut asking) = Asking::new(ssh, login) else { return };
    prefer(&mut asking.command, "-o NumberOfPasswordPrompts=1");
    let mut terminal = asking.start_usual();
    terminal.write("wrong\r");
    assert_eq!(terminal.end(SOON), 5, "{}", terminal.screen());
    let cause = match login {
        // OpenSSH tells it as one of the keys that were not accepted.
        Login::Passphrase => ssh.words("ermission denied", "the passphrase was wrong"),
        _ => "permission denied",
    };
    let screen = terminal.screen().replace('\n', "");
    for words in ["127.0.0.1", cause, "hint:"] {
        assert!(screen.contains(words), "{words:?} is not on the screen:\n{}", terminal.screen());
    }
    assert!(terminal.echoes());
    assert_eq!(asking.world.copied(&asking.world.all()), [false; 4]);
}

with_each_transport!(a_lost_connection_asks_again_and_the_bar_stays_away);

fn a_lost_connection_asks_again_and_the_bar_stays_away(ssh: Ssh) {
    let Some(mut asking) = Asking::new(ssh, Login::Password) else { return };
    let paths = add_paths(&asking.world, 8);
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let port = relay(asking.sshd.port(), &[CUT], Then::Through);
    lead(&mut asking.command, &asking.sshd, port);
    let program = asking.program.clone();
    let mut terminal = asking.start(&program, &paths);
    terminal.write(&format!("{}\r", asking.answer));
    terminal.wait_for("connecting again to");
    terminal.wait_for_change(|screen| screen.ends_with(&asking.question));
    // Long enough for a bar to come, which must not.
    std::thread::sleep(Duration::from_millis(700));
    assert!(terminal.screen().ends_with(&asking.question), "{}", terminal.screen());
    assert!(!terminal.echoes());
    terminal.write(&format!("{}\r", asking.answer));
    assert_eq!(terminal.end(LONG), 0, "{}", terminal.screen());
    assert_eq!(asking.world.copied(&paths), [true; 8]);
    assert_eq!(asking.sshd.log().matches(asking.accepted).count(), 2, "{}", asking.sshd.log());
}

#[test]
fn without_ssh_the_bar_is_there_and_goes_with_ctrl_c() {
    let world = World::new();
    let big = add_big(&world);
    let mut command = world.copy();
    command.env("PATH", path());
    command.args(["--remote-program", &stuck(&world), "localhost"]).args([&big, &world.top]);
    let mut terminal = Terminal::start(&command);
    terminal.wait_for("MiB");
    let wide = terminal.screen().lines().any(|line| line.chars().count() > 80);
    assert!(!wide, "{}", terminal.screen());
    terminal.write("\x03");
    assert_eq!(terminal.end(AT_ONCE), 130);
    assert_eq!(terminal.screen().replace("^C", "").trim(), "");
    world.expect_no_process(Duration::from_secs(10));
}
