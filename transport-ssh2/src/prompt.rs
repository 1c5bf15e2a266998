//! Asking a person.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::fd::AsFd as _,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use ncc_transport::sanitize_line;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::Signal,
    termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr},
};

/// What a person is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Question<'a> {
    /// Whether the key that an unknown host shows is the right one: `yes`, the fingerprint itself, or anything else for no.
    HostKey {
        /// The host, as known_hosts has it.
        host: &'a str,
        /// The key's type and fingerprint, `ssh-ed25519 SHA256:...`.
        key: &'a str,
        /// What else is worth knowing, or nothing.
        note: &'a str,
    },
    /// The passphrase of a private key that the server would accept.
    Passphrase {
        /// The file.
        file: &'a str,
    },
    /// The user's password on the host.
    Password {
        /// `user@host`.
        account: &'a str,
    },
    /// What the server asks, in the server's own words: a password, a code.
    Server {
        /// `user@host`.
        account: &'a str,
        /// What the server says before its question, maybe several lines; harmless for a terminal, but not to be trusted.
        instruction: &'a str,
        /// The server's question; the same goes for it.
        prompt: &'a str,
        /// Whether the answer may be seen while it is typed.
        echo: bool,
    },
}

impl Question<'_> {
    /// Whether the answer is a secret, which must not be shown.
    pub fn is_secret(&self) -> bool {
        !matches!(self, Self::HostKey { .. } | Self::Server { echo: true, .. })
    }

    /// The question in words, without a newline at its end.
    pub fn text(&self) -> String {
        match self {
            Self::HostKey { host, key, note } => {
                let note = if note.is_empty() { String::new() } else { format!("{note}.\n") };
                format!(
                    "The host '{host}' is not known. Its key is\n  {key}\n{note}Is it the right one, and shall it be \
                     remembered (yes/no/fingerprint)? "
                )
            }
            Self::Passphrase { file } => format!("Passphrase for the key '{file}': "),
            Self::Password { account } => format!("{account}'s password: "),
            Self::Server { account, instruction, prompt, .. } => {
                let instruction =
                    if instruction.is_empty() { String::new() } else { format!("{instruction}\n") };
                format!("{instruction}({account}) {prompt}")
            }
        }
    }
}

/// What a [`Prompter`] says.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// This.
    Text(String),
    /// There is nobody to ask, or nobody who wants to answer.
    Nobody,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // It is a secret more often than not.
        f.write_str(match self {
            Self::Text(_) => "Text(...)",
            Self::Nobody => "Nobody",
        })
    }
}

/// Who is asked for passphrases, passwords, and whether a host's key is the right one.
///
/// It is called on the connection's own thread, one question after the other, and may block; `cancelled` turns true when nobody
/// waits for the connection any more.
pub trait Prompter: Send + Sync {
    /// Asks.
    fn ask(&self, question: &Question<'_>, cancelled: &dyn Fn() -> bool) -> Answer;
}

/// Asks on the terminal of the process (`/dev/tty`), never on stdin; secrets without echo. Where there is no terminal, nobody.
///
/// Ctrl-C has its usual effect, after the terminal is as it was.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct TerminalPrompter;

/// One terminal, one question at a time: several connections may want to ask.
static TERMINAL: Mutex<()> = Mutex::new(());

/// How often a question looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(250);

/// Longer than any password.
const MAX_ANSWER: usize = 4096;

impl TerminalPrompter {
    /// The terminal, which is opened when there is something to ask.
    pub fn new() -> Self {
        Self
    }
}

impl Prompter for TerminalPrompter {
    fn ask(&self, question: &Question<'_>, cancelled: &dyn Fn() -> bool) -> Answer {
        let _turn = TERMINAL.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(tty) = OpenOptions::new().read(true).write(true).open("/dev/tty") else {
            return Answer::Nobody;
        };
        ask_on(&tty, question, cancelled).ok().flatten().map_or(Answer::Nobody, Answer::Text)
    }
}

/// The answer, if there is one.
fn ask_on(
    mut tty: &File,
    question: &Question<'_>,
    cancelled: &dyn Fn() -> bool,
) -> io::Result<Option<String>> {
    let text = question.text();
    let line = if question.is_secret() {
        // Before the question: whoever answers at once must not be seen, nor lose what is typed.
        let silent = Silent::begin(tty)?;
        tty.write_all(text.as_bytes())?;
        let line = read_line(tty, cancelled, Some(silent.interrupt()));
        drop(silent);
        tty.write_all(b"\n")?;
        line?
    } else {
        tty.write_all(text.as_bytes())?;
        read_line(tty, cancelled, None)?
    };
    match line {
        Input::Line(line) => Ok(String::from_utf8(line).ok()),
        Input::Nothing => Ok(None),
        Input::Interrupt => {
            // What the terminal itself would have done. It reaches all that run in the foreground, as Ctrl-C does.
            let _ = rustix::process::kill_current_process_group(Signal::INT);
            Ok(None)
        }
    }
}

enum Input {
    Line(Vec<u8>),
    Nothing,
    Interrupt,
}

fn read_line(mut tty: &File, cancelled: &dyn Fn() -> bool, interrupt: Option<u8>) -> io::Result<Input> {
    let look = Timespec { tv_sec: 0, tv_nsec: i64::from(LOOK.subsec_nanos()) };
    let mut line = Vec::new();
    loop {
        let mut fds = [PollFd::new(&tty, PollFlags::IN)];
        let ready = match poll(&mut fds, Some(&look)) {
            Err(rustix::io::Errno::INTR) => 0,
            result => result?,
        };
        if cancelled() {
            return Ok(Input::Nothing);
        }
        if ready == 0 {
            continue;
        }
        let mut buffer = [0; 256];
        let count = tty.read(&mut buffer)?;
        for &byte in buffer.get(..count).unwrap_or_default() {
            match byte {
                b'\n' | b'\r' => return Ok(Input::Line(line)),
                _ if Some(byte) == interrupt => return Ok(Input::Interrupt),
                _ if line.len() < MAX_ANSWER => line.push(byte),
                _ => return Ok(Input::Nothing),
            }
        }
        // Ctrl-D on an empty line.
        if count == 0 {
            return Ok(Input::Nothing);
        }
    }
}

/// No echo, and no signals, which would end the process before it can switch the echo on again.
struct Silent<'a> {
    tty: &'a File,
    before: Termios,
}

impl<'a> Silent<'a> {
    fn begin(tty: &'a File) -> io::Result<Self> {
        let before = tcgetattr(tty)?;
        let mut silent = before.clone();
        // Line by line all the same, so that backspace works; but Ctrl-C then ends a line for us to see it.
        silent.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ISIG);
        silent.special_codes[SpecialCodeIndex::VEOL] = before.special_codes[SpecialCodeIndex::VINTR];
        tcsetattr(tty.as_fd(), OptionalActions::Flush, &silent)?;
        Ok(Self { tty, before })
    }

    fn interrupt(&self) -> u8 {
        self.before.special_codes[SpecialCodeIndex::VINTR]
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        // The terminal is gone if this fails.
        let _ = tcsetattr(self.tty.as_fd(), OptionalActions::Flush, &self.before);
    }
}

/// A server's text, harmless on a terminal.
pub(crate) fn harmless(text: &str) -> String {
    text.lines().map(|line| sanitize_line(line.as_bytes())).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::{os::unix::ffi::OsStrExt as _, path::Path, sync::mpsc, thread};

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    /// Both ends of a terminal that is nobody's.
    fn terminal() -> (File, File) {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let path = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
        (File::from(master), OpenOptions::new().read(true).write(true).open(path).unwrap())
    }

    /// Reads what the terminal shows until this is in it.
    fn shown(mut master: &File, until: &str) -> String {
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).contains(until) {
            let mut buffer = [0; 256];
            let count = master.read(&mut buffer).unwrap();
            text.extend_from_slice(&buffer[..count]);
        }
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_secret_is_not_shown_and_the_echo_comes_back() {
        let (mut master, tty) = terminal();
        let (send, receive) = mpsc::channel();
        let asked = tty.try_clone().unwrap();
        let asking = thread::spawn(move || {
            let question = Question::Password { account: "alice@h" };
            send.send(ask_on(&asked, &question, &|| false).unwrap()).unwrap();
        });
        // Whoever sees the question may answer at once.
        shown(&master, "password: ");
        master.write_all(b"sesame\n").unwrap();
        assert_eq!(receive.recv().unwrap().as_deref(), Some("sesame"));
        asking.join().unwrap();
        let modes = tcgetattr(&tty).unwrap().local_modes;
        assert!(modes.contains(LocalModes::ECHO | LocalModes::ISIG), "{modes:?}");
        assert!(!shown(&master, "\n").contains("sesame"));
    }

    #[test]
    fn a_question_that_nobody_needs_answered_ends() {
        let (_master, tty) = terminal();
        let question = Question::Passphrase { file: "/key" };
        assert_eq!(ask_on(&tty, &question, &|| true).unwrap(), None);
        assert!(tcgetattr(&tty).unwrap().local_modes.contains(LocalModes::ECHO));
    }

    #[test]
    fn answers_are_in_no_log() {
        assert_eq!(format!("{:?}", Answer::Text("sesame".to_owned())), "Text(...)");
    }
}
