//! Asking a person.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::fd::AsFd as _,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use ncc_transport::sanitize_line;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
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
/// The terminal belongs to the program, and so do signals; this type sends none and handles none. While a secret is typed,
///
/// * Ctrl-C sends SIGINT as ever. A program that ends on SIGINT, SIGTERM or SIGHUP has to call
///   [`release_terminal`](Self::release_terminal) before it does, or it leaves a terminal without echo behind;
/// * Ctrl-Z and Ctrl-\ send nothing by themselves: the terminal is given back, and then the program is told ([`SignalKey`]).
#[non_exhaustive]
pub struct TerminalPrompter {
    on_key: Box<dyn Fn(SignalKey) + Send + Sync>,
}

/// A key that usually sends a signal, pressed while a secret was typed; the terminal is as it was before the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignalKey {
    /// Ctrl-Z, which stops the foreground job with SIGTSTP. The question is repeated when the callback has returned.
    Suspend,
    /// Ctrl-\, which ends it with SIGQUIT. If the program goes on, nobody has answered the question.
    Quit,
}

/// How often a question looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(250);

/// How long a callback's signal may take to stop this process: another of its threads may be the one to get it.
const STOPPING: Duration = Duration::from_millis(100);

/// Longer than any password.
const MAX_ANSWER: usize = 4096;

impl TerminalPrompter {
    /// The terminal, which is opened when there is something to ask. `on_key` does what such a key asks for, for instance by sending
    /// the signal to the process group, as the terminal would have done.
    pub fn new(on_key: impl Fn(SignalKey) + Send + Sync + 'static) -> Self {
        Self { on_key: Box::new(on_key) }
    }

    /// Gives the terminal back, as it was before the question that is being asked, if there is one. Afterwards no question is asked
    /// any more in this process. For a program that is about to end: returns when it is done, and never waits for anybody.
    pub fn release_terminal() {
        TERMINAL.release();
    }
}

impl Default for TerminalPrompter {
    /// Ctrl-Z and Ctrl-\ have no effect while a secret is typed.
    fn default() -> Self {
        Self::new(|_| ())
    }
}

impl std::fmt::Debug for TerminalPrompter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TerminalPrompter").finish_non_exhaustive()
    }
}

impl Prompter for TerminalPrompter {
    fn ask(&self, question: &Question<'_>, cancelled: &dyn Fn() -> bool) -> Answer {
        let Ok(tty) = OpenOptions::new().read(true).write(true).open("/dev/tty") else {
            return Answer::Nobody;
        };
        TERMINAL
            .ask(&tty, question, cancelled, &*self.on_key)
            .ok()
            .flatten()
            .map_or(Answer::Nobody, Answer::Text)
    }
}

/// The one that this process has.
static TERMINAL: Terminal =
    Terminal { turn: Mutex::new(()), state: Mutex::new(State { silent: None, released: false }) };

#[derive(Debug)]
struct Terminal {
    /// One question at a time: several connections may want to ask.
    turn: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What to restore while there is no echo.
    silent: Option<(File, Termios)>,
    /// Nothing is asked any more.
    released: bool,
}

impl Terminal {
    /// The answer, if there is one.
    fn ask(
        &self,
        mut tty: &File,
        question: &Question<'_>,
        cancelled: &dyn Fn() -> bool,
        on_key: &dyn Fn(SignalKey),
    ) -> io::Result<Option<String>> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let text = question.text();
        let cancelled = || cancelled() || self.state().released;
        loop {
            let input = if question.is_secret() {
                // Before the question: whoever answers at once must not be seen, nor lose what is typed.
                let Some(keys) = self.silence(tty)? else { return Ok(None) };
                let input = tty.write_all(text.as_bytes()).and_then(|()| read_line(tty, &cancelled, &keys));
                self.restore(OptionalActions::Flush);
                tty.write_all(b"\n")?;
                input?
            } else if cancelled() {
                Input::Nothing
            } else {
                tty.write_all(text.as_bytes())?;
                read_line(tty, &cancelled, &[])?
            };
            match input {
                Input::Line(line) => return Ok(String::from_utf8(line).ok()),
                Input::Nothing => return Ok(None),
                Input::Key(key) => on_key(key),
            }
            if input == Input::Key(SignalKey::Quit) {
                return Ok(None);
            }
            thread::sleep(STOPPING);
        }
    }

    /// Switches the echo off: the keys that now end a line in the place of sending a signal. `None` if nothing is asked any more.
    ///
    /// Input comes line by line all the same, so that backspace works.
    fn silence(&self, tty: &File) -> io::Result<Option<[(u8, SignalKey); 2]>> {
        let mut state = self.state();
        if state.released {
            return Ok(None);
        }
        let before = tcgetattr(tty)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL);
        let mut capture = |signal, end_of_line| {
            let key = std::mem::replace(&mut silent.special_codes[signal], DISABLED);
            silent.special_codes[end_of_line] = key;
            key
        };
        let keys = [
            (capture(SpecialCodeIndex::VSUSP, SpecialCodeIndex::VEOL), SignalKey::Suspend),
            (capture(SpecialCodeIndex::VQUIT, SpecialCodeIndex::VEOL2), SignalKey::Quit),
        ];
        // In this order, so that a release that comes now finds what to restore.
        state.silent = Some((tty.try_clone()?, before));
        tcsetattr(tty.as_fd(), OptionalActions::Flush, &silent)?;
        Ok(Some(keys))
    }

    fn restore(&self, when: OptionalActions) {
        if let Some((tty, before)) = self.state().silent.take() {
            // The terminal is gone if this fails.
            let _ = tcsetattr(tty.as_fd(), when, &before);
        }
    }

    fn release(&self) {
        self.state().released = true;
        // At once: a terminal that was stopped (Ctrl-S) must not hold up the end of the program.
        self.restore(OptionalActions::Now);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The special character that is none (`_POSIX_VDISABLE`).
const DISABLED: u8 = if cfg!(any(target_os = "linux", target_os = "android")) { 0 } else { 0xff };

#[derive(PartialEq, Eq)]
enum Input {
    Line(Vec<u8>),
    Nothing,
    Key(SignalKey),
}

fn read_line(mut tty: &File, cancelled: &dyn Fn() -> bool, keys: &[(u8, SignalKey)]) -> io::Result<Input> {
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
            if let Some((_, key)) = keys.iter().find(|(code, _)| *code == byte && byte != DISABLED) {
                return Ok(Input::Key(*key));
            }
            match byte {
                b'\n' | b'\r' => return Ok(Input::Line(line)),
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

/// A server's text, harmless on a terminal.
pub(crate) fn harmless(text: &str) -> String {
    text.lines().map(|line| sanitize_line(line.as_bytes())).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::{os::unix::ffi::OsStrExt as _, path::Path};

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    /// Both ends of a terminal that is nobody's.
    fn pair() -> (File, File) {
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

    fn no_terminal_yet() -> Terminal {
        Terminal { turn: Mutex::new(()), state: Mutex::new(State { silent: None, released: false }) }
    }

    fn modes(tty: &File) -> LocalModes {
        tcgetattr(tty).unwrap().local_modes
    }

    const PASSWORD: Question<'_> = Question::Password { account: "alice@h" };

    /// Asks in a thread; what that thread says in the end.
    fn ask<'scope>(
        scope: &'scope thread::Scope<'scope, '_>,
        terminal: &'scope Terminal,
        tty: &'scope File,
        on_key: impl Fn(SignalKey) + Send + 'scope,
    ) -> thread::ScopedJoinHandle<'scope, Option<String>> {
        scope.spawn(move || terminal.ask(tty, &PASSWORD, &|| false, &on_key).unwrap())
    }

    #[test]
    fn a_secret_is_not_shown_and_the_echo_comes_back() {
        let ((mut master, tty), terminal) = (pair(), no_terminal_yet());
        let before = tcgetattr(&tty).unwrap();
        thread::scope(|scope| {
            let asking = ask(scope, &terminal, &tty, |_| ());
            // Whoever sees the question may answer at once.
            shown(&master, "password: ");
            assert!(modes(&tty).contains(LocalModes::ISIG) && !modes(&tty).contains(LocalModes::ECHO));
            master.write_all(b"sesame\n").unwrap();
            assert_eq!(asking.join().unwrap().as_deref(), Some("sesame"));
        });
        let after = tcgetattr(&tty).unwrap();
        assert_eq!(after.local_modes, before.local_modes);
        for index in [SpecialCodeIndex::VSUSP, SpecialCodeIndex::VQUIT, SpecialCodeIndex::VEOL] {
            assert_eq!(after.special_codes[index], before.special_codes[index]);
        }
        assert!(!shown(&master, "\n").contains("sesame"));
    }

    /// Ctrl-Z and Ctrl-\ became bytes of the password.
    #[test]
    fn keys_of_signals_give_the_terminal_back_first() {
        let ((mut master, tty), terminal) = (pair(), no_terminal_yet());
        let pressed = Mutex::new(Vec::new());
        thread::scope(|scope| {
            let asking = ask(scope, &terminal, &tty, |key| {
                assert!(modes(&tty).contains(LocalModes::ECHO | LocalModes::ISIG));
                pressed.lock().unwrap().push(key);
            });
            shown(&master, "password: ");
            master.write_all(b"ses\x1a").unwrap();
            // Asked again, from the start.
            shown(&master, "password: ");
            assert!(!modes(&tty).contains(LocalModes::ECHO));
            master.write_all(b"sesame\n").unwrap();
            assert_eq!(asking.join().unwrap().as_deref(), Some("sesame"));

            let asking = ask(scope, &terminal, &tty, |key| pressed.lock().unwrap().push(key));
            shown(&master, "password: ");
            master.write_all(b"ses\x1c").unwrap();
            assert_eq!(asking.join().unwrap(), None);
        });
        assert_eq!(*pressed.lock().unwrap(), [SignalKey::Suspend, SignalKey::Quit]);
        assert!(modes(&tty).contains(LocalModes::ECHO));
    }

    /// SIGTERM during a question left a terminal without echo.
    #[test]
    fn a_program_that_ends_gives_the_terminal_back_at_once() {
        let ((master, tty), terminal) = (pair(), no_terminal_yet());
        thread::scope(|scope| {
            let asking = ask(scope, &terminal, &tty, |_| ());
            shown(&master, "password: ");
            terminal.release();
            assert!(modes(&tty).contains(LocalModes::ECHO));
            assert_eq!(asking.join().unwrap(), None);
        });
        // And nothing takes it away again.
        assert_eq!(terminal.ask(&tty, &PASSWORD, &|| false, &|_| ()).unwrap(), None);
        assert!(modes(&tty).contains(LocalModes::ECHO));
    }

    #[test]
    fn a_question_that_nobody_needs_answered_ends() {
        let ((_master, tty), terminal) = (pair(), no_terminal_yet());
        let question = Question::Passphrase { file: "/key" };
        assert_eq!(terminal.ask(&tty, &question, &|| true, &|_| ()).unwrap(), None);
        assert!(modes(&tty).contains(LocalModes::ECHO));
    }

    #[test]
    fn answers_are_in_no_log() {
        assert_eq!(format!("{:?}", Answer::Text("sesame".to_owned())), "Text(...)");
    }
}
