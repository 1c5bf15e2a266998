//! How failure is told: what, then each cause, then what can be done.

use std::{error::Error, fmt, sync::Arc};

use ncc_copy::CopyError;
use ncc_local_store::LocalStoreError;
use ncc_progress::{Console, Importance, causes, chain};
use ncc_remote_store::{RemoteError, RootError};
use ncc_store::{Side, StoreError};
use ncc_transport::TransportError;

use crate::exit;

/// Why the program ends without success.
pub(crate) struct Failure {
    message: String,
    hints: Vec<String>,
    code: u8,
}

impl Failure {
    /// A failure with a cause.
    pub(crate) fn new(what: impl fmt::Display, cause: impl Into<Box<dyn Error>>) -> Self {
        let cause = cause.into();
        Self { message: format!("{what}: {}", chain(&*cause)), hints: hints(&*cause), code: code(&*cause) }
    }

    /// A failure that needs no further words than its own.
    pub(crate) fn plain(cause: &(dyn Error + 'static)) -> Self {
        Self { message: chain(cause), hints: hints(cause), code: code(cause) }
    }

    /// A failure in words alone.
    pub(crate) fn text(message: impl Into<String>) -> Self {
        Self { message: message.into(), hints: Vec::new(), code: exit::ERROR }
    }

    /// What it says, on one line.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Whether all went well for some paths.
    pub(crate) fn is_partial(&self) -> bool {
        self.code == exit::PARTIAL
    }

    /// With another exit code.
    pub(crate) fn with_code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// With the words of another one.
    pub(crate) fn with_message_of(mut self, other: Self) -> Self {
        self.message = other.message;
        self
    }

    /// Without anything that a person can do.
    pub(crate) fn without_hints(mut self) -> Self {
        self.hints.clear();
        self
    }

    /// With one more thing that a person can do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Whether there is room for more advice.
    pub(crate) fn advises_little(&self) -> bool {
        self.hints.len() < 3
    }

    /// With what a person can do about this cause too, unless it has been said.
    pub(crate) fn hints_of(mut self, cause: &(dyn Error + 'static)) -> Self {
        for hint in hints(cause) {
            if !self.hints.contains(&hint) {
                self.hints.push(hint);
            }
        }
        self
    }

    /// Says it, and gives the exit code.
    pub(crate) fn report(self, console: &Console) -> u8 {
        console.say(Importance::Error, &format!("error: {}", self.message));
        for hint in self.hints {
            console.say(Importance::Error, &format!("hint: {hint}"));
        }
        self.code
    }
}

/// The exit code that fits the causes.
fn code(error: &(dyn Error + 'static)) -> u8 {
    causes(error).find_map(code_of).unwrap_or(exit::ERROR)
}

/// The exit code of one cause, if it has one of its own.
fn code_of(error: &(dyn Error + 'static)) -> Option<u8> {
    if let Some(error) = as_remote(error) {
        return match error {
            RemoteError::Unreached { failure, .. } => Some(exit::of(failure.class())),
            RemoteError::Transport(error) => code_of(error),
            RemoteError::NotAllowed { .. } => Some(exit::REFUSED),
            RemoteError::Lost { .. } | RemoteError::Silent { greeted: true, .. } => Some(exit::LOST),
            _ => None,
        };
    }
    if unsigned_side(error).is_some() {
        return Some(exit::REFUSED);
    }
    if let Some(CopyError::Interrupted { source, .. }) = error.downcast_ref::<CopyError>()
        && source.is_temporary()
    {
        // Also where the last try did not even reach the host: it was lost.
        return Some(exit::LOST);
    }
    Some(match error.downcast_ref::<TransportError>()? {
        TransportError::Connect { failure, .. } => exit::of(failure.class()),
        _ => exit::UNREACHED,
    })
}

/// Which side wants a signature, if a lack of one is all there is to the error.
fn unsigned_side(error: &(dyn Error + 'static)) -> Option<Side> {
    match error.downcast_ref::<CopyError>() {
        Some(CopyError::Unsigned(unsigned)) => Some(unsigned.side),
        _ => error.downcast_ref::<StoreError>().filter(|error| error.is_unsigned()).map(StoreError::side),
    }
}

/// The error of a host, also where several hold it.
fn as_remote<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a RemoteError> {
    error
        .downcast_ref::<RemoteError>()
        .or_else(|| error.downcast_ref::<Arc<RemoteError>>().map(|error| &**error))
}

fn hints(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut hints = Vec::new();
    for cause in causes(error) {
        hints.extend(hint(cause));
        if let Some(RemoteError::NotAllowed { .. }) = as_remote(cause) {
            // How the refusal came about is no further cause that something could be done about.
            break;
        }
    }
    hints.dedup();
    hints
}

/// What a person can do about one cause.
fn hint(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(error) = as_remote(error) {
        return remote_hint(error);
    }
    if let Some(TransportError::Connect { failure, .. }) = error.downcast_ref::<TransportError>() {
        return Some(failure.hint.clone()).filter(|hint| !hint.is_empty());
    }
    if let Some(RootError::Refused { .. }) = error.downcast_ref::<RootError>() {
        return Some("the paths are there, and from now on a garbage collector may delete them".to_owned());
    }
    match unsigned_side(error) {
        Some(Side::Destination) => {
            let also = if error.is::<CopyError>() {
                "; if 'require-sigs' is false there, '--no-check-sigs' copies all the same"
            } else {
                ""
            };
            return Some(format!(
                "'--sign-key FILE' signs them on the way, with a key whose public half stands in 'trusted-public-keys' of the \
                 receiving machine's nix.conf; or add the user to 'trusted-users' there, or copy as root{also}"
            ));
        }
        Some(Side::Source) => {
            return Some(
                "'nix store sign' at the source signs them, with a key whose public half stands in 'trusted-public-keys' of this \
                 machine's nix.conf; with '--no-check-sigs' the receiving side decides"
                    .to_owned(),
            );
        }
        None => {}
    }
    if let Some(CopyError::NoSpace { .. }) = error.downcast_ref::<CopyError>() {
        return Some(
            "'nix-collect-garbage' may free some; '--no-check-space' begins all the same".to_owned(),
        );
    }
    if let Some(CopyError::Interrupted { report, source }) = error.downcast_ref::<CopyError>() {
        // Of a lost line the cause below says the same.
        let is_lost = code(source) == exit::LOST;
        return (!report.sent.is_empty() && !source.is_damage() && !is_lost).then(|| {
            "what was registered stays; running the same command again continues from there".to_owned()
        });
    }
    if let Some(path) =
        error.downcast_ref::<StoreError>().filter(|error| error.is_damage()).and_then(StoreError::path)
    {
        return Some(format!(
            "'{path}' is damaged where it comes from: 'nix-store --verify-path PATH' there tells more, and \
             'nix-store --repair-path PATH' may mend it"
        ));
    }
    error.downcast_ref::<LocalStoreError>().and_then(local_hint)
}

/// What a full disk is called: by the system, and by SQLite.
const DISK_FULL: [&str; 2] = ["No space left on device", "database or disk is full"];

fn remote_hint(error: &RemoteError) -> Option<String> {
    match error {
        // Transparent: the transport's error stands for itself.
        RemoteError::Transport(error) => hint(error),
        RemoteError::Unreached { failure, .. } => Some(failure.hint.clone()).filter(|hint| !hint.is_empty()),
        RemoteError::ProgramNotFound { stderr, .. } if stderr.contains("sudo:") && stderr.contains("not found") => {
            Some("there is no 'sudo' for '--remote-sudo': copy as root ('root@HOST'), or install it there".to_owned())
        }
        RemoteError::ProgramNotFound { program, .. } => Some(format!(
            "if Nix is installed there, say where with '--remote-program /path/to/{}'",
            program.rsplit('/').next().unwrap_or(program)
        )),
        RemoteError::NoServer { .. } => Some(
            "either Nix has to be there, or this program, which serves too ('nix-copy-closure --serve'): '--remote-program' says where; \
             and no start-up file of the login shell may end that"
                .to_owned(),
        ),
        RemoteError::Ended { stderr, .. } if stderr.contains("sudo:") && stderr.contains("password") => Some(
            "'--remote-sudo' needs a rule in the host's sudoers that asks for no password (NOPASSWD), or copy as root"
                .to_owned(),
        ),
        RemoteError::Ended { stderr, .. } if DISK_FULL.iter().any(|words| stderr.contains(words)) => {
            Some("the disk of the host is full: 'nix-collect-garbage' there may free some".to_owned())
        }
        RemoteError::Lost { .. } => Some(
            "the process that served the store ended, or the one that led to it; what was registered stays, and the same \
             command continues from there"
                .to_owned(),
        ),
        RemoteError::NotAllowed { .. } => Some(
            "the login worked: an account that runs certain commands only has to allow 'nix-store --serve --write' or \
             'nix-daemon --stdio', perhaps in a 'command=' of its authorized_keys or a ForceCommand of sshd_config"
                .to_owned(),
        ),
        RemoteError::Silent { greeted: false, .. } => Some(
            "no server has started there: ssh or the login shell may be waiting for an answer, or the program hangs; \
             '--stall-timeout' sets how long to wait"
                .to_owned(),
        ),
        RemoteError::Silent { .. } => Some(
            "'nix-store' there hangs, or waits for a lock that another process holds, perhaps an earlier copy that was \
             interrupted; '--stall-timeout' sets how long to wait; what was registered stays, and the same command continues \
             from there"
                .to_owned(),
        ),
        RemoteError::Protocol { .. } => {
            Some("is the program on the host 'nix-store' of Nix 2.3.7 or later, and does its login shell start it?".to_owned())
        }
        _ => None,
    }
}

fn local_hint(error: &LocalStoreError) -> Option<String> {
    let is_root = rustix::process::geteuid().is_root();
    match error.io_kind() {
        Some(std::io::ErrorKind::PermissionDenied) if !is_root => Some(
            "only the owner of this store may do that: run as root, or give another store with '--store'"
                .to_owned(),
        ),
        Some(std::io::ErrorKind::StorageFull) => Some(THIS_DISK_FULL.to_owned()),
        _ => {
            let is_full = |error: &(dyn Error + 'static)| {
                let text = error.to_string();
                DISK_FULL.iter().any(|words| text.contains(words))
            };
            causes(error).any(is_full).then(|| THIS_DISK_FULL.to_owned())
        }
    }
}

const THIS_DISK_FULL: &str = "the disk of this machine is full: 'nix-collect-garbage' may free some of it";
