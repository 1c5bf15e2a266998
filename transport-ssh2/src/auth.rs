//! Saying who we are, in OpenSSH's order: the agent's keys, key files, keyboard-interactive, password.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use ncc_transport::FailureKind;
use ssh2::{Agent as SshAgent, KeyboardInteractivePrompt, Prompt, PublicKey};

use crate::{
    Answer, Prompter, Question,
    agent::{self, Alarm, State},
    config::{Agent, Settings},
    error::ConnectionError,
    keys::{PrivateKey, Unusable, public_beside, public_line, rsa_bits},
    link::{Limit, Link, code, number},
    prompt::harmless,
};

/// Who asks, and whether that may be.
pub(crate) struct Asking<'a> {
    pub(crate) prompter: &'a dyn Prompter,
    pub(crate) cancelled: &'a dyn Fn() -> bool,
    /// The host's key is the known one: only then may it be told a password.
    pub(crate) trusted: bool,
}

/// Authenticates, or says what was tried. Adds to `warnings` what did not go as configured.
pub(crate) fn authenticate(
    link: &mut Link,
    settings: &Settings,
    asking: &Asking<'_>,
    patience: Duration,
    warnings: &mut Vec<String>,
) -> Result<(), ConnectionError> {
    let account = format!("{}@{}", settings.user, settings.host);
    let mut attempt = Attempt {
        link,
        settings,
        asking,
        account,
        patience,
        limit: Limit::Silence(patience),
        offered: Vec::new(),
        tried: Vec::new(),
        unusable: Vec::new(),
        silent_agent: None,
        asked_in_vain: false,
    };
    let result = attempt.run();
    let tried = attempt.tried.len();
    warnings.append(&mut attempt.unusable);
    warnings.extend(attempt.silent_agent);
    match result {
        // What OpenSSH's server does after MaxAuthTries.
        Err(error) if error.kind == FailureKind::ClosedByServer && tried > 0 => {
            let evidence = format!("{}, after {tried} attempts to authenticate", error.evidence);
            Err(ConnectionError::new(FailureKind::PermissionDenied, evidence)
                .hint("the server may allow fewer attempts (MaxAuthTries): name the right key (-i FILE, IdentityFile), and set IdentitiesOnly"))
        }
        // Before anything was offered. Not the kind of before a login, after which the whole is simply tried again.
        Err(error) if error.kind == FailureKind::ClosedByServer => {
            Err(ConnectionError::new(FailureKind::LoginAborted, error.evidence))
        }
        other => other,
    }
}

struct Attempt<'a> {
    link: &'a mut Link,
    settings: &'a Settings,
    asking: &'a Asking<'a>,
    account: String,
    patience: Duration,
    limit: Limit,
    /// Public keys that the server has refused.
    offered: Vec<Vec<u8>>,
    /// What was tried, for the message.
    tried: Vec<String>,
    /// Keys that should be there, and why they cannot be used.
    unusable: Vec<String>,
    /// An agent is there and was given up.
    silent_agent: Option<String>,
    /// A person answered and the server did not like it.
    asked_in_vain: bool,
}

/// What the server said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reply {
    Accepted,
    Refused,
    /// It knows the key, but wants something else in addition, or does not like the signature.
    NotEnough,
    /// The private key could not be used: a wrong passphrase, an agent that does not want to.
    NoSignature,
}

impl Attempt<'_> {
    fn run(&mut self) -> Result<(), ConnectionError> {
        let mut offered = self.methods()?;
        if self.link.session.authenticated() {
            return Ok(());
        }
        for method in self.settings.methods.clone() {
            if !offered.contains(&method) {
                continue;
            }
            let reply = match method.as_str() {
                "publickey" => self.keys()?,
                "keyboard-interactive" => self.keyboard_interactive()?,
                "password" => self.password()?,
                _ => Reply::Refused,
            };
            match reply {
                Reply::Accepted => return Ok(()),
                // Another method may be asked for in addition.
                Reply::NotEnough => offered = self.methods()?,
                Reply::Refused | Reply::NoSignature => {}
            }
        }
        Err(self.denied(&offered))
    }

    /// What the server accepts now, found by asking to be let in without anything.
    fn methods(&mut self) -> Result<Vec<String>, ConnectionError> {
        let user = &self.settings.user;
        let list = self.link.run("authentication", self.limit, |session| {
            let list = session.auth_methods(user).map(str::to_owned);
            if session.authenticated() { Ok(String::new()) } else { list }
        })?;
        let list = list.map_err(|error| ConnectionError::libssh2(FailureKind::PermissionDenied, &error))?;
        Ok(list.split(',').map(str::to_owned).collect())
    }

    fn denied(&self, offered: &[String]) -> ConnectionError {
        let tried = match self.tried.as_slice() {
            [] => "nothing to try".to_owned(),
            tried => format!("tried {}", tried.join(", ")),
        };
        let evidence = format!("{}: permission denied ({}); {tried}", self.account, offered.join(","));
        match (self.unusable.first(), &self.silent_agent) {
            (Some(reason), _) => {
                ConnectionError::new(FailureKind::KeyFileUnusable, format!("{reason}; {evidence}"))
            }
            (None, Some(reason)) => {
                ConnectionError::new(FailureKind::PermissionDenied, format!("{reason}; {evidence}"))
            }
            (None, None) => ConnectionError::new(FailureKind::PermissionDenied, evidence),
        }
    }

    /// One key, as libssh2 does it: asks whether the server would accept it, and only then signs.
    fn offer(
        &mut self,
        what: String,
        operation: impl FnMut(&mut ssh2::Session) -> Result<(), ssh2::Error>,
    ) -> Result<Reply, ConnectionError> {
        self.tried.push(what);
        match self.link.run("authentication", self.limit, operation)? {
            Ok(()) => Ok(Reply::Accepted),
            Err(error) if number(&error) == code::AUTHENTICATION_FAILED => Ok(Reply::Refused),
            // Two errors with one number: libssh2 could not sign, or the server did not like the signature.
            Err(error) if error.message().contains("Invalid signature") => Ok(Reply::NotEnough),
            Err(error) if has_hung_up(&error) => Err(closed()),
            Err(_) => Ok(Reply::NoSignature),
        }
    }

    fn keys(&mut self) -> Result<Reply, ConnectionError> {
        let mut files = Vec::new();
        for (path, named) in &self.settings.identity_files {
            match PrivateKey::read(path) {
                Ok(key) => match self.too_short(&path.display(), key.public.as_deref()) {
                    Some(reason) => self.unusable.push(reason),
                    None => files.push(key),
                },
                // Its public half may say which key of the agent's is meant; or it was one of the usual names.
                Err(Unusable::Missing) if !named || public_beside(path).is_some() => {}
                Err(Unusable::Missing) => self.unusable.push(format!("{}: no such file", path.display())),
                Err(Unusable::Public) => {}
                Err(Unusable::Other(reason)) => self.unusable.push(reason),
            }
        }
        let named: Vec<Vec<u8>> = self
            .settings
            .identity_files
            .iter()
            .filter_map(|(path, _)| public_beside(path))
            .chain(files.iter().filter_map(|key| key.public.clone()))
            .collect();
        let reply = self.agent(&named)?;
        if matches!(reply, Reply::Accepted | Reply::NotEnough) {
            return Ok(reply);
        }
        for key in &files {
            let reply = self.file(key)?;
            if matches!(reply, Reply::Accepted | Reply::NotEnough) {
                return Ok(reply);
            }
        }
        Ok(Reply::Refused)
    }

    /// The agent's keys: those that are named in the configuration first.
    fn agent(&mut self, named: &[Vec<u8>]) -> Result<Reply, ConnectionError> {
        let Some((agent, mut keys)) = self.connect_agent()? else { return Ok(Reply::Refused) };
        let is_named = |key: &PublicKey| named.iter().any(|named| named == key.blob());
        if self.settings.identities_only {
            keys.retain(is_named);
        }
        keys.sort_by_key(|key| !is_named(key));
        for key in keys {
            let user = &self.settings.user;
            let comment = harmless(key.comment());
            let what = format!("agent's key '{comment}'");
            if let Some(reason) = self.too_short(&what, Some(key.blob())) {
                self.unusable.push(reason);
                continue;
            }
            let alarm = Alarm::after(self.patience, &self.link.handle, self.unsigned(&what))?;
            let reply = self.offer(what, |_| agent.userauth(user, &key))?;
            drop(alarm);
            if matches!(reply, Reply::Accepted | Reply::NotEnough) {
                return Ok(reply);
            }
            if reply == Reply::Refused {
                self.offered.push(key.blob().to_vec());
            }
        }
        Ok(Reply::Refused)
    }

    /// Why an RSA key is not used.
    fn too_short(&self, what: &dyn fmt::Display, key: Option<&[u8]>) -> Option<String> {
        let (bits, required) = (rsa_bits(key?)?, self.settings.rsa_bits);
        (bits < required)
            .then(|| format!("{what}: it has {bits} bits, but RequiredRSASize asks for {required}"))
    }

    /// What is said if libssh2 does not come back from an agent.
    fn unsigned(&self, what: &str) -> ConnectionError {
        let seconds = self.patience.as_secs();
        let evidence = format!("{}: {what} has signed nothing for {seconds} seconds", self.account);
        ConnectionError::new(FailureKind::PermissionDenied, evidence).hint(
            "the agent may wait for somebody to confirm or unlock the key; or do without it (IdentityAgent=none, -i FILE)",
        )
    }

    /// An agent that does not answer is none.
    fn connect_agent(&mut self) -> Result<Option<(SshAgent, Vec<PublicKey>)>, ConnectionError> {
        let (path, named): (PathBuf, bool) = match &self.settings.agent {
            Agent::None => return Ok(None),
            Agent::Environment => match std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()) {
                Some(path) => (path.into(), false),
                None => return Ok(None),
            },
            Agent::Socket(path) => (path.clone(), true),
        };
        let connected = match agent::look(&path, &self.link.handle)? {
            State::Answers => self.list_agent(&path).ok(),
            State::Absent => None,
            State::Silent => {
                let patience = agent::PATIENCE.as_secs();
                self.silent_agent = Some(format!(
                    "the agent at {} does not answer within {patience} seconds",
                    path.display()
                ));
                return Ok(None);
            }
        };
        if connected.is_none() && named {
            self.unusable.push(format!("no agent answers at {}", path.display()));
        }
        Ok(connected)
    }

    fn list_agent(&self, path: &Path) -> Result<(SshAgent, Vec<PublicKey>), ssh2::Error> {
        let mut agent = self.link.session.agent()?;
        agent.set_identity_path(path)?;
        agent.connect()?;
        agent.list_identities()?;
        let keys = agent.identities()?;
        Ok((agent, keys))
    }

    /// A key file: its certificates first.
    fn file(&mut self, key: &PrivateKey) -> Result<Reply, ConnectionError> {
        let publics = key.certificates(&self.settings.certificate_files).into_iter().map(Some);
        let publics = publics.chain(std::iter::once(key.public.clone()));
        let publics: Vec<_> = publics
            .filter(|public| public.as_ref().is_none_or(|public| !self.offered.contains(public)))
            .collect();
        let mut passphrase = None;
        for public in publics {
            let reply = self.with_passphrase(key, public.as_deref(), &mut passphrase)?;
            if reply != Reply::Refused {
                return Ok(reply);
            }
        }
        Ok(Reply::Refused)
    }

    /// Asks for the passphrase only after the server has said that it would accept the key.
    fn with_passphrase(
        &mut self,
        key: &PrivateKey,
        public: Option<&[u8]>,
        passphrase: &mut Option<String>,
    ) -> Result<Reply, ConnectionError> {
        let line = public.and_then(public_line);
        let name = key.path.display().to_string();
        // Without the public key libssh2 needs the private one before it can ask the server.
        let mut asked = 0;
        if key.encrypted && line.is_none() && passphrase.is_none() {
            let Some(answer) = self.ask(&Question::Passphrase { file: &name }) else {
                return Ok(Reply::NoSignature);
            };
            *passphrase = Some(answer);
            asked = 1;
        }
        loop {
            // An empty one and not none: with none, OpenSSL might ask on the terminal itself.
            let secret = passphrase.clone().unwrap_or_default();
            let user = self.settings.user.clone();
            let what = if asked == 0 { name.clone() } else { format!("{name} with a passphrase") };
            let reply = self.offer(what, |session| {
                session.userauth_pubkey_memory(&user, line.as_deref(), &key.text, Some(&secret))
            })?;
            if reply != Reply::NoSignature {
                return Ok(reply);
            }
            if !key.encrypted {
                self.unusable.push(format!("{name}: libssh2 cannot sign with it"));
                return Ok(reply);
            }
            if asked >= self.settings.password_prompts {
                self.unusable.push(format!("{name}: the passphrase was wrong {asked} times"));
                return Ok(reply);
            }
            let Some(answer) = self.ask(&Question::Passphrase { file: &name }) else {
                self.unusable.push(format!("{name}: it has a passphrase, and nobody is there to be asked"));
                return Ok(reply);
            };
            *passphrase = Some(answer);
            asked += 1;
        }
    }

    fn ask(&self, question: &Question<'_>) -> Option<String> {
        if self.settings.batch {
            return None;
        }
        match self.asking.prompter.ask(question, self.asking.cancelled) {
            Answer::Text(text) => Some(text),
            Answer::Nobody => None,
        }
    }

    fn password(&mut self) -> Result<Reply, ConnectionError> {
        // What was wrong for keyboard-interactive is usually the same password.
        if !self.asking.trusted || self.asked_in_vain {
            return Ok(Reply::Refused);
        }
        for _ in 0..self.settings.password_prompts {
            let Some(password) = self.ask(&Question::Password { account: &self.account }) else { break };
            self.tried.push("a password".to_owned());
            let user = &self.settings.user;
            match self
                .link
                .run("authentication", self.limit, |session| session.userauth_password(user, &password))?
            {
                Ok(()) => return Ok(Reply::Accepted),
                Err(error) if number(&error) == code::PASSWORD_EXPIRED => {
                    return Err(ConnectionError::new(
                        FailureKind::PermissionDenied,
                        format!("{}: the password has expired", self.account),
                    )
                    .hint("log in by hand and change it"));
                }
                Err(error) if has_hung_up(&error) => return Err(closed()),
                Err(_) => self.asked_in_vain = true,
            }
        }
        Ok(Reply::Refused)
    }

    fn keyboard_interactive(&mut self) -> Result<Reply, ConnectionError> {
        if !self.asking.trusted || self.settings.batch {
            return Ok(Reply::Refused);
        }
        for _ in 0..self.settings.password_prompts {
            let user = self.settings.user.clone();
            let mut conversation =
                Conversation { account: &self.account, asking: self.asking, asked: false, nobody: false };
            let result = self.link.run("authentication", self.limit, |session| {
                session.userauth_keyboard_interactive(&user, &mut conversation)
            });
            let (asked, nobody) = (conversation.asked, conversation.nobody);
            if asked {
                self.tried.push("an answer to the server's question".to_owned());
            }
            match result? {
                Ok(()) => return Ok(Reply::Accepted),
                Err(error) if has_hung_up(&error) => return Err(closed()),
                Err(_) => {}
            }
            self.asked_in_vain |= asked;
            // A server that asks nothing has nothing to be answered next time.
            if nobody || !asked {
                break;
            }
        }
        Ok(Reply::Refused)
    }
}

/// Whether the server ended the connection instead of answering, for which libssh2 has the number of a bad signature.
fn has_hung_up(error: &ssh2::Error) -> bool {
    ["Waiting for", "Unable to send"].iter().any(|beginning| error.message().starts_with(beginning))
}

fn closed() -> ConnectionError {
    ConnectionError::new(FailureKind::ClosedByServer, "authentication: the server closed the connection")
}

/// Answers a server's questions.
struct Conversation<'a> {
    account: &'a str,
    asking: &'a Asking<'a>,
    asked: bool,
    nobody: bool,
}

impl KeyboardInteractivePrompt for Conversation<'_> {
    fn prompt(&mut self, _: &str, instructions: &str, prompts: &[Prompt<'_>]) -> Vec<String> {
        let mut instruction = harmless(instructions);
        let mut answers = Vec::new();
        for Prompt { text, echo } in prompts {
            let question = Question::Server {
                account: self.account,
                instruction: &std::mem::take(&mut instruction),
                prompt: &harmless(text),
                echo: *echo,
            };
            // After one that nobody wanted to answer, the rest is not asked.
            let answer = if self.nobody {
                Answer::Nobody
            } else {
                self.asking.prompter.ask(&question, self.asking.cancelled)
            };
            match answer {
                Answer::Text(text) => {
                    self.asked = true;
                    answers.push(text);
                }
                Answer::Nobody => {
                    self.nobody = true;
                    answers.push(String::new());
                }
            }
        }
        answers
    }
}
