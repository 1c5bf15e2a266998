//! The transport itself.

use std::{
    ffi::OsString,
    fs::Permissions,
    io,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ncc_transport::{
    BoxFuture, Channel, End, Failure, FailureKind, RemoteCommand, Target, Transport, TransportError,
};
use tempfile::TempDir;
use tokio::{
    process::Command,
    sync::{Mutex, OnceCell},
};

use crate::{
    Compression, ConfigurationUse, OpenSshOptions, Sharing,
    configuration::{Configuration, PINNED},
    explain,
    first::{First, Prospect},
    options::{asks_for_forwarding, names_control_path, silenced_by},
    without_notices,
};

/// How long a master may take to say that it is there.
const CHECK_PATIENCE: Duration = Duration::from_secs(5);

/// Reaches a host by spawning OpenSSH, one ssh for each channel.
///
/// ssh runs in our session and process group, so that it can ask on the terminal; it is told to end when its channel is dropped. The
/// command's end is ssh's: its status is the remote command's, or 255 where ssh failed or the remote command died of a signal.
///
/// # What ssh is started with
///
/// In this order; for most options of OpenSSH the first value wins.
///
/// | Words | Why |
/// |---|---|
/// | `-p PORT`, `-l USER` | of the [`Target`], if written there: it names this host, while NIX_SSHOPTS is for all hosts |
/// | `-o HostKeyAlias=...`, `-o StrictHostKeyChecking=yes` and others | only with a [pinned host key](OpenSshOptions::host_key): no other is accepted, whatever else is configured; and a running master, whose key nobody compared, is not used |
/// | `-o RemoteCommand=none` | a configured one makes ssh refuse ours |
/// | `-o PermitLocalCommand=no` | a LocalCommand prints into the stream |
/// | `-o SessionType=default`, `-o StdinNull=no`, `-o ForkAfterAuthentication=no` | only against words that say otherwise |
/// | [`extra`](OpenSshOptions::extra) | the user's own options win over all that follows |
/// | `-T` | no terminal, which would corrupt the stream; the last of `-t` and `-T` wins, and it beats RequestTTY |
/// | `-x` | no X11 |
/// | `-e none` | no escape character |
/// | `-o ClearAllForwardings=yes` | a configured forwarding whose port is taken, by the user's own session, can end ours (ExitOnForwardFailure); left out if the user's own options ask for a forwarding |
/// | `-C`, `-v`, `-i FILE`, `-o UserKnownHostsFile=FILE` | if asked for |
/// | `-o ServerAliveInterval=30`, `-o ServerAliveCountMax=3`, `-o ConnectTimeout=30` | only what the user's configuration leaves unset, which `ssh -G` tells |
/// | `-o ControlMaster=auto`, `-o ControlPersist=no`, `-o ControlPath="FILE"` | only with [`Sharing::Private`], or once [`share`](Transport::share) was called (then the master persists until this is dropped, but at most 10 seconds without a channel); and where the user has no master already |
/// | `-o BatchMode=yes` | only for a further channel that shares so: it must not ask |
/// | `-o ControlMaster=no` | only if the configuration would make this very ssh a master without ControlPersist |
/// | `--`, host, command | the command as one word |
///
/// Channels that share a connection wait until the first of them has logged in: nobody is asked twice.
///
/// Agent forwarding, ciphers, jump hosts and a user's running ControlMaster are as the user configured them.
#[derive(Debug)]
pub struct OpenSsh {
    target: Target,
    options: OpenSshOptions,
    /// Asked for by the first channel.
    configuration: OnceCell<Configuration>,
    /// Found out by the first channel that is to share.
    shared: OnceCell<Shared>,
    /// Whether channels that come after the first are to share a connection, also where that one has ended by then.
    late: Arc<AtomicBool>,
    /// The folder with the file of a pinned host key; made by the first channel.
    pin: OnceCell<TempDir>,
    /// The channel that logs in for the others, while several share a connection.
    first: Mutex<Option<First>>,
}

/// Through what further channels share the connection of the first.
#[derive(Debug)]
enum Shared {
    Nothing,
    /// A control socket of ours, in a folder of its own.
    Private(Private),
    /// The user's own master, which the first channel leaves behind.
    Users,
}

#[derive(Debug)]
struct Private {
    folder: TempDir,
    /// Whether the master outlives its own channel for a while, since that may end before another is opened.
    persists: Arc<AtomicBool>,
    /// How that is ended: with this ssh, for this host.
    ends: (OsString, String),
}

impl Private {
    fn socket(&self) -> PathBuf {
        socket_in(&self.folder)
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        let (program, host) = &self.ends;
        let socket = self.socket();
        if self.persists.load(Ordering::Relaxed) && socket.exists() {
            let mut path = OsString::from("ControlPath=");
            path.push(quoted(socket.as_os_str()));
            let mut exit = std::process::Command::new(program);
            exit.args(["-F", "none", "-O", "exit", "-o"]).arg(path).args(["--", host]);
            // If this does not work, it ends by itself.
            let _ = exit.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

/// As long as nobody wants anything else.
static NOTHING: Shared = Shared::Nothing;

/// How long a channel waits for the user's own master to come up behind another channel. It may be that none ever does.
const MASTER_PATIENCE: Duration = Duration::from_secs(30);

impl OpenSsh {
    /// The transport to `target`. Nothing is started until the first channel.
    pub fn new(target: Target, options: OpenSshOptions) -> Self {
        Self {
            target,
            late: Arc::default(),
            options,
            configuration: OnceCell::new(),
            shared: OnceCell::new(),
            pin: OnceCell::new(),
            first: Mutex::default(),
        }
    }

    /// The host.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// What ssh is started with for `command`, by what is known of the user's configuration now: it is read by the first
    /// channel.
    pub fn arguments(&self, command: &RemoteCommand) -> Vec<OsString> {
        let nothing = Configuration::default();
        let configuration = self.configuration.get().unwrap_or(&nothing);
        let mut words = self.targets_words();
        let private = match self.shared.get() {
            Some(Shared::Private(private)) => Some(private),
            _ => None,
        };
        let shares = private.is_some_and(|private| private.socket().exists());
        let socket =
            private.map(|private| quoted(private.socket().as_os_str()).to_string_lossy().into_owned());
        let persists = self.late.load(Ordering::Relaxed);
        let sharing = configuration.sharing(socket.as_deref(), shares, persists);
        let pin = self.options.host_key.as_ref().zip(self.pin.get());
        if let Some((key, folder)) = pin {
            let file = quoted(pinned_in(folder).as_os_str()).to_string_lossy().into_owned();
            set(&mut words, configuration.pin(key, &file));
            match socket {
                Some(_) => set(&mut words, sharing.clone()),
                None => set(&mut words, ["ControlMaster=no".to_owned(), "ControlPath=none".to_owned()]),
            }
        }
        set(&mut words, configuration.necessities());
        words.extend(self.options.extra.iter().cloned());
        words.extend(["-T", "-x", "-e", "none"].map(Into::into));
        if !asks_for_forwarding(&self.options.extra) {
            set(&mut words, ["ClearAllForwardings=yes".to_owned()]);
        }
        if self.options.compression == Compression::On {
            words.push("-C".into());
        }
        words.extend((0..self.options.verbosity.min(3)).map(|_| "-v".into()));
        if let Some(file) = &self.options.identity_file {
            words.extend(["-i".into(), file.into()]);
        }
        if let Some(file) = &self.options.known_hosts_file {
            let mut setting = OsString::from("UserKnownHostsFile=");
            setting.push(quoted(file.as_os_str()));
            words.extend(["-o".into(), setting]);
        }
        set(&mut words, configuration.additions(&self.options));
        if pin.is_none() {
            set(&mut words, sharing);
        }
        words.extend(["--".into(), self.target.host().into(), command.to_shell()]);
        words
    }

    /// Whether further channels share a connection without our doing.
    async fn shares_already(&self, configuration: &Configuration) -> bool {
        if configuration.control_path().is_none() {
            return false;
        }
        if names_control_path(&self.options.extra) {
            return true;
        }
        self.has_master().await
    }

    /// Whether a master of the user's is there.
    async fn has_master(&self) -> bool {
        let mut check = Command::new(&self.options.program);
        check.args(self.users_words()).args(["-O", "check", "--", self.target.host()]);
        check.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let status = tokio::time::timeout(CHECK_PATIENCE, check.status()).await;
        status.is_ok_and(|status| status.is_ok_and(|status| status.success()))
    }

    /// By what ssh was told not to speak, if it was.
    fn silenced(&self) -> Option<&'static str> {
        let quiet = self.configuration.get().is_some_and(Configuration::is_quiet);
        silenced_by(&self.options.extra).or_else(|| quiet.then_some("LogLevel QUIET"))
    }

    /// Port and user of the target.
    fn targets_words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        if let Some(port) = self.target.port() {
            words.extend(["-p".into(), port.to_string().into()]);
        }
        if let Some(user) = self.target.user() {
            words.extend(["-l".into(), user.into()]);
        }
        words
    }

    /// The same, then the user's own options.
    fn users_words(&self) -> Vec<OsString> {
        let mut words = self.targets_words();
        words.extend(self.options.extra.iter().cloned());
        words
    }

    /// Finds out and makes what every channel needs.
    async fn prepare(&self) -> Result<&Shared, TransportError> {
        let configuration = self
            .configuration
            .get_or_init(|| async {
                match self.options.configuration {
                    ConfigurationUse::Ask => {
                        Configuration::ask(&self.options.program, &self.users_words(), self.target.host())
                            .await
                    }
                    ConfigurationUse::Ignore => Configuration::default(),
                }
            })
            .await;
        if let Some(key) = &self.options.host_key {
            let written = self.pin.get_or_try_init(|| async {
                let folder = private_folder()?;
                std::fs::write(pinned_in(&folder), key.known_hosts_line(PINNED))?;
                Ok(folder)
            });
            written.await.map_err(|source| TransportError::Prepare {
                host: self.describe(),
                what: "the pinned host key cannot be written to a temporary file",
                source,
            })?;
        }
        // Nobody has compared the key of a master that is there with the pinned one.
        let pinned = self.options.host_key.is_some();
        let users = !pinned && configuration.makes_master();
        let late = self.late.load(Ordering::Relaxed);
        if !users && !late && self.options.sharing != Sharing::Private {
            return Ok(&NOTHING);
        }
        Ok(self
            .shared
            .get_or_init(|| async {
                if users {
                    Shared::Users
                } else if pinned || !self.shares_already(configuration).await {
                    // Without a folder all works as well, but for what has to be asked once more.
                    let folder = private_folder().ok().filter(is_short);
                    folder.map_or(Shared::Nothing, |folder| {
                        let ends = (self.options.program.clone(), self.target.host().to_owned());
                        let persists = Arc::clone(&self.late);
                        Shared::Private(Private { folder, persists, ends })
                    })
                } else {
                    Shared::Nothing
                }
            })
            .await)
    }

    fn start(&self, command: &RemoteCommand) -> Result<Channel, TransportError> {
        self.start_with(&[], command)
    }

    fn start_with(&self, words: &[&str], command: &RemoteCommand) -> Result<Channel, TransportError> {
        let mut process = Command::new(&self.options.program);
        process.args(words).args(self.arguments(command));
        Channel::spawn(&self.describe(), process)
    }
}

/// Adds settings, each `Keyword=value`.
fn set(words: &mut Vec<OsString>, settings: impl IntoIterator<Item = String>) {
    words.extend(settings.into_iter().flat_map(|setting| ["-o".into(), setting.into()]));
}

/// The longest path of a socket: systems take 104 bytes or 108, and ssh first makes one with 17 more in its name.
const SOCKET_LENGTH: usize = 104 - 17 - 1;

/// A folder that nobody else may enter; in `/tmp` where the usual place has too long a name for a socket.
fn private_folder() -> io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("ncc-").permissions(Permissions::from_mode(0o700));
    let usual = builder.tempdir()?;
    if is_short(&usual) { Ok(usual) } else { builder.tempdir_in("/tmp").or(Ok(usual)) }
}

fn is_short(folder: &TempDir) -> bool {
    socket_in(folder).as_os_str().len() <= SOCKET_LENGTH
}

fn socket_in(folder: &TempDir) -> PathBuf {
    folder.path().join("s")
}

fn pinned_in(folder: &TempDir) -> PathBuf {
    folder.path().join("known_hosts")
}

/// A path as the value of a setting: unquoted, a list of files would be split at blanks; and `%` begins a token.
fn quoted(file: &std::ffi::OsStr) -> OsString {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let mut setting = b"\"".to_vec();
    for &byte in file.as_bytes() {
        match byte {
            b'"' | b'\\' => setting.extend([b'\\', byte]),
            b'%' => setting.extend(b"%%"),
            _ => setting.push(byte),
        }
    }
    setting.push(b'"');
    OsString::from_vec(setting)
}

/// The failure, where one host key is pinned: then a host with another key, of whatever type, shows a wrong one.
fn about_a_pin(failure: Failure) -> Failure {
    use FailureKind::{HostKeyChanged, HostKeyUnknown, NoCommonAlgorithm};
    let is_about_keys = failure.kind != NoCommonAlgorithm || failure.evidence.contains("host key type");
    if !(matches!(failure.kind, HostKeyChanged | HostKeyUnknown | NoCommonAlgorithm) && is_about_keys) {
        return failure;
    }
    let hint = "the host shows another key than the pinned one ('base64-ssh-public-host-key'): either it was reinstalled, or somebody is \
                in between; ask its owner for the key";
    Failure::new(HostKeyChanged, failure.evidence, hint)
}

impl Transport for OpenSsh {
    fn describe(&self) -> String {
        self.target.to_string()
    }

    fn open<'a>(&'a self, command: &'a RemoteCommand) -> BoxFuture<'a, Result<Channel, TransportError>> {
        Box::pin(async move {
            let shared = self.prepare().await?;
            if matches!(shared, Shared::Nothing) {
                return self.start(command);
            }
            let mut first = self.first.lock().await;
            if let Some(first) = &*first {
                let patience = matches!(shared, Shared::Users).then_some(MASTER_PATIENCE);
                let mut waiting = first.wait(patience);
                loop {
                    let is_up = match shared {
                        Shared::Private(private) => private.socket().exists(),
                        _ => self.has_master().await,
                    };
                    if is_up {
                        return self.start(command);
                    }
                    match waiting.prospect().await {
                        Prospect::Good => {}
                        Prospect::NothingToShare => return self.start(command),
                        Prospect::Ended => break,
                    }
                }
            }
            // What its place was held for is over, or was never begun.
            let (watched, channel) = First::watch(self.start(command)?);
            *first = Some(watched);
            Ok(channel)
        })
    }

    /// Only through the master: where that refuses, ssh would make a connection of its own, which it has no way to then.
    fn open_beside<'a>(
        &'a self,
        command: &'a RemoteCommand,
    ) -> BoxFuture<'a, Result<Channel, TransportError>> {
        Box::pin(async move {
            self.prepare().await?;
            self.start_with(&["-o", "ProxyCommand=false"], command)
        })
    }

    /// From the next channel on, whatever [`OpenSshOptions::sharing`] says.
    fn share(&self) -> bool {
        self.late.store(true, Ordering::Relaxed);
        true
    }

    fn explain(&self, end: &End<'_>) -> Option<Failure> {
        let failure = explain(&self.target, end, self.silenced())?;
        Some(if self.options.host_key.is_some() { about_a_pin(failure) } else { failure })
    }

    fn words_of_the_host(&self, stderr: &str) -> String {
        without_notices(stderr)
    }
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, time::Duration};

    use rstest::rstest;

    use super::*;
    use crate::{KeepAlive, parse_ssh_options};

    fn quiet() -> OpenSshOptions {
        OpenSshOptions { keep_alive: None, connect_timeout: None, ..OpenSshOptions::default() }
    }

    fn line(target: &str, options: OpenSshOptions) -> String {
        let transport = OpenSsh::new(target.parse().unwrap(), options);
        let command = RemoteCommand::new("nix-store").args(["--serve", "--write"]);
        let words = transport.arguments(&command);
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join("|")
    }

    const FIRST: &str = "-o|RemoteCommand=none|-o|PermitLocalCommand=no";
    const STREAM: &str = "|-T|-x|-e|none";
    const CLEAR: &str = "|-o|ClearAllForwardings=yes";

    #[rstest]
    #[case::name("h", "", "h")]
    #[case::user("alice@h", "-l|alice|", "h")]
    #[case::port("h:2200", "-p|2200|", "h")]
    #[case::all("alice@[2001:db8::1]:2200", "-p|2200|-l|alice|", "2001:db8::1")]
    #[case::zone("[fe80::1%25eth0]", "", "fe80::1%eth0")]
    #[case::several_ats("a@b@h", "-l|a@b|", "h")]
    fn targets(#[case] target: &str, #[case] before: &str, #[case] host: &str) {
        let expected = format!("{before}{FIRST}{STREAM}{CLEAR}|--|{host}|nix-store --serve --write");
        assert_eq!(line(target, quiet()), expected);
    }

    #[test]
    fn the_users_options_come_before_what_we_would_like_and_after_what_must_be() {
        let extra = parse_ssh_options("-o RemoteCommand='a b' -p 1 -n").unwrap();
        let options = OpenSshOptions { extra, ..quiet() };
        assert_eq!(
            line("h:2", options),
            format!("-p|2|{FIRST}|-o|RemoteCommand=a b|-p|1{STREAM}{CLEAR}|--|h|nix-store --serve --write")
        );
    }

    #[test]
    fn forwardings_that_are_asked_for_stay() {
        let options = OpenSshOptions { extra: parse_ssh_options("-R 8080:cache:80").unwrap(), ..quiet() };
        assert_eq!(
            line("h", options),
            format!("{FIRST}|-R|8080:cache:80{STREAM}|--|h|nix-store --serve --write")
        );
    }

    #[test]
    fn every_option_has_its_word() {
        let options = OpenSshOptions {
            compression: Compression::On,
            verbosity: 9,
            identity_file: Some(PathBuf::from("/my key")),
            known_hosts_file: Some(PathBuf::from("/my \"known\" 100%")),
            keep_alive: Some(KeepAlive::new(Duration::from_millis(1500), 2)),
            connect_timeout: Some(Duration::from_secs(7)),
            ..OpenSshOptions::default()
        };
        let expected = format!(
            "{FIRST}{STREAM}{CLEAR}|-C|-v|-v|-v|-i|/my key|-o|UserKnownHostsFile=\"/my \\\"known\\\" 100%%\"\
             |-o|ServerAliveInterval=2|-o|ServerAliveCountMax=2|-o|ConnectTimeout=7|--|h|nix-store --serve --write"
        );
        assert_eq!(line("h", options), expected);
    }
}
