//! What the options mean.

use std::{path::PathBuf, time::Duration};

use ncc_transport::{PinnedHostKey, Target};

use super::{
    Origin, Raw, Value, bad,
    expansion::{self, Token},
    keywords,
};
use crate::error::ConnectionError;

/// How to reach one host.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    /// The name for known_hosts, if it is not the host's.
    pub(crate) host_key_alias: Option<String>,
    pub(crate) address_family: AddressFamily,
    pub(crate) attempts: u32,
    pub(crate) proxy: Proxy,
    pub(crate) connect_timeout: Option<Duration>,
    /// ServerAliveInterval; zero is off.
    pub(crate) alive_interval: Option<Duration>,
    pub(crate) alive_count: Option<u32>,
    pub(crate) compression: Option<bool>,
    pub(crate) ciphers: Option<String>,
    pub(crate) macs: Option<String>,
    pub(crate) key_exchange: Option<String>,
    pub(crate) host_key_algorithms: Option<String>,
    pub(crate) strictness: Strictness,
    pub(crate) user_known_hosts: Vec<PathBuf>,
    pub(crate) global_known_hosts: Vec<PathBuf>,
    pub(crate) hash_known_hosts: bool,
    /// In the order to try, and whether somebody named it, so that it should be there.
    pub(crate) identity_files: Vec<(PathBuf, bool)>,
    pub(crate) certificate_files: Vec<PathBuf>,
    pub(crate) identities_only: bool,
    pub(crate) agent: Agent,
    /// The methods to try, in this order.
    pub(crate) methods: Vec<String>,
    /// Nobody is to be asked.
    pub(crate) batch: bool,
    pub(crate) password_prompts: u32,
    /// RequiredRSASize: RSA keys with fewer bits are neither accepted from the host nor used.
    pub(crate) rsa_bits: u32,
    /// The one key that the host may have; not from the configuration.
    pub(crate) pinned: Option<PinnedHostKey>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AddressFamily {
    Any,
    V4,
    V6,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Proxy {
    None,
    /// Through these hosts, in this order.
    Jump(Vec<Target>),
    /// For a shell, its tokens replaced.
    Command(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strictness {
    /// An unknown host is refused.
    Yes,
    /// A person is asked.
    Ask,
    /// An unknown host is accepted, and remembered.
    AcceptNew,
    /// As `AcceptNew`, and a changed key is accepted too; password and keyboard-interactive are then not used.
    No,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Agent {
    /// `$SSH_AUTH_SOCK`.
    Environment,
    None,
    Socket(PathBuf),
}

/// In OpenSSH's order, those that libssh2 can do.
const DEFAULT_KEYS: &[&str] = &["id_rsa", "id_ecdsa", "id_ed25519"];

const DEFAULT_METHODS: &str = "publickey,keyboard-interactive,password";

/// What OpenSSH asks of RSA keys by default, and at least.
const RSA_BITS: u32 = 1024;

impl Settings {
    pub(crate) fn resolve(raw: &Raw<'_>) -> Result<Self, ConnectionError> {
        keywords::check(raw)?;
        if let Some(value) = raw.value("refuseconnection") {
            return Err(bad(&value.origin, value.words.join(" ")));
        }
        let surroundings = raw.surroundings();
        let host = raw.host_name()?;
        let port = raw.value("port").map_or(Ok(22), |value| match value.one()? {
            // The one name of /etc/services that makes sense.
            "ssh" => Ok(22),
            number => number.parse().ok().filter(|&port| port != 0).ok_or_else(|| bad_value("Port", value)),
        })?;
        let user = match raw.value("user") {
            Some(value) => value.one()?.to_owned(),
            None => surroundings.local_user.clone().ok_or_else(|| {
                ConnectionError::configuration(
                    "this user has no name here, which would be the name on the host too",
                )
                .hint("say who you are there: user@host")
            })?,
        };
        let host_key_alias = raw.value("hostkeyalias").map(Value::one).transpose()?.map(str::to_owned);
        let tokens = raw.tokens(&host, &port.to_string(), Some(user.clone()));
        let read = Reader { raw, tokens: &tokens };

        Ok(Self {
            proxy: read.proxy(&host)?,
            address_family: read.address_family()?,
            attempts: read.number("connectionattempts")?.unwrap_or(1).max(1),
            connect_timeout: read.time("connecttimeout")?.filter(|timeout| !timeout.is_zero()),
            alive_interval: read.time("serveraliveinterval")?,
            alive_count: read.number("serveralivecountmax")?,
            compression: read.flag("compression")?,
            ciphers: read.text("ciphers")?,
            macs: read.text("macs")?,
            key_exchange: read.text("kexalgorithms")?,
            host_key_algorithms: read.text("hostkeyalgorithms")?,
            user_known_hosts: match read.paths("userknownhostsfile")? {
                Some(paths) => paths,
                None => {
                    let names = ["known_hosts", "known_hosts2"].into_iter();
                    names.filter_map(|name| surroundings.in_ssh_directory(name)).collect()
                }
            },
            global_known_hosts: match read.paths("globalknownhostsfile")? {
                Some(paths) => paths,
                None => {
                    ["ssh_known_hosts", "ssh_known_hosts2"].map(|name| surroundings.system.join(name)).into()
                }
            },
            hash_known_hosts: read.flag("hashknownhosts")?.unwrap_or(false),
            identity_files: read.identity_files()?,
            certificate_files: read.each_path("certificatefile")?,
            identities_only: read.flag("identitiesonly")?.unwrap_or(false),
            agent: read.agent()?,
            password_prompts: read.number("numberofpasswordprompts")?.unwrap_or(3),
            rsa_bits: read.number("requiredrsasize")?.unwrap_or(0).max(RSA_BITS),
            host,
            port,
            user,
            host_key_alias,
            strictness: read.strictness()?,
            methods: read.methods()?,
            batch: read.flag("batchmode")?.unwrap_or(false),
            pinned: None,
        })
    }

    /// The name for known_hosts.
    pub(crate) fn known_as(&self) -> String {
        match &self.host_key_alias {
            Some(alias) => alias.clone(),
            None => crate::error::known_as(&self.host.to_ascii_lowercase(), self.port),
        }
    }
}

impl Raw<'_> {
    /// What the tokens of most options stand for.
    pub(super) fn tokens(&self, host: &str, port: &str, user: Option<String>) -> Vec<Token> {
        let surroundings = self.surroundings();
        let local_host = &surroundings.local_host;
        let alias = self.value("hostkeyalias").and_then(|value| value.words.first());
        let some = |text: &str| Some(text.to_owned());
        vec![
            ('h', some(host)),
            ('n', some(self.original_host())),
            ('p', some(port)),
            ('r', user),
            ('u', surroundings.local_user.clone()),
            ('d', surroundings.home.as_ref().map(|home| home.to_string_lossy().into_owned())),
            ('l', some(local_host)),
            ('L', some(local_host.split('.').next().unwrap_or_default())),
            ('i', Some(rustix::process::getuid().as_raw().to_string())),
            ('k', some(alias.map_or(self.original_host(), String::as_str))),
        ]
    }
}

fn bad_value(keyword: &str, value: &Value) -> ConnectionError {
    bad(&value.origin, format_args!("'{}' is no value for {keyword}", value.words.join(" ")))
}

struct Reader<'a> {
    raw: &'a Raw<'a>,
    tokens: &'a [Token],
}

impl Reader<'_> {
    fn text(&self, keyword: &str) -> Result<Option<String>, ConnectionError> {
        Ok(self.raw.value(keyword).map(Value::one).transpose()?.map(str::to_owned))
    }

    fn flag(&self, keyword: &str) -> Result<Option<bool>, ConnectionError> {
        let Some(value) = self.raw.value(keyword) else { return Ok(None) };
        match value.one()?.to_ascii_lowercase().as_str() {
            "yes" | "true" => Ok(Some(true)),
            "no" | "false" => Ok(Some(false)),
            _ => Err(bad_value(keyword, value)),
        }
    }

    fn number(&self, keyword: &str) -> Result<Option<u32>, ConnectionError> {
        let Some(value) = self.raw.value(keyword) else { return Ok(None) };
        value.one()?.parse().map(Some).map_err(|_| bad_value(keyword, value))
    }

    /// Seconds, or `1h30m` and the like; `none` is zero.
    fn time(&self, keyword: &str) -> Result<Option<Duration>, ConnectionError> {
        let Some(value) = self.raw.value(keyword) else { return Ok(None) };
        let text = value.one()?;
        let seconds = if text == "none" { Some(0) } else { seconds(text) };
        seconds.map(|seconds| Some(Duration::from_secs(seconds))).ok_or_else(|| bad_value(keyword, value))
    }

    /// A file's name, with `~`, tokens and `${VARIABLE}` replaced.
    fn path(&self, word: &str, origin: &Origin) -> Result<PathBuf, ConnectionError> {
        expansion::path(word, self.tokens, self.raw.surroundings(), origin)
    }

    fn paths(&self, keyword: &str) -> Result<Option<Vec<PathBuf>>, ConnectionError> {
        let Some(value) = self.raw.value(keyword) else { return Ok(None) };
        let words = value.words.iter().filter(|word| *word != "none");
        words.map(|word| self.path(word, &value.origin)).collect::<Result<_, _>>().map(Some)
    }

    fn each_path(&self, keyword: &str) -> Result<Vec<PathBuf>, ConnectionError> {
        let values = self.raw.values(keyword).iter().filter(|value| value.words != ["none"]);
        values.map(|value| self.path(value.one()?, &value.origin)).collect()
    }

    fn identity_files(&self) -> Result<Vec<(PathBuf, bool)>, ConnectionError> {
        if self.raw.value("identityfile").is_some() {
            return Ok(self.each_path("identityfile")?.into_iter().map(|path| (path, true)).collect());
        }
        let surroundings = self.raw.surroundings();
        let files = DEFAULT_KEYS.iter().filter_map(|name| surroundings.in_ssh_directory(name));
        Ok(files.map(|path| (path, false)).collect())
    }

    fn agent(&self) -> Result<Agent, ConnectionError> {
        let Some(value) = self.raw.value("identityagent") else { return Ok(Agent::Environment) };
        let word = value.one()?;
        Ok(match word {
            "none" => Agent::None,
            "SSH_AUTH_SOCK" => Agent::Environment,
            _ => match word.strip_prefix('$').filter(|name| !name.starts_with('{')) {
                Some(name) => {
                    let path = (self.raw.surroundings().environment)(name);
                    path.map_or(Agent::None, |path| Agent::Socket(path.into()))
                }
                None => Agent::Socket(self.path(word, &value.origin)?),
            },
        })
    }

    fn address_family(&self) -> Result<AddressFamily, ConnectionError> {
        let Some(value) = self.raw.value("addressfamily") else { return Ok(AddressFamily::Any) };
        match value.one()?.to_ascii_lowercase().as_str() {
            "any" => Ok(AddressFamily::Any),
            "inet" => Ok(AddressFamily::V4),
            "inet6" => Ok(AddressFamily::V6),
            _ => Err(bad_value("AddressFamily", value)),
        }
    }

    fn strictness(&self) -> Result<Strictness, ConnectionError> {
        let Some(value) = self.raw.value("stricthostkeychecking") else { return Ok(Strictness::Ask) };
        match value.one()?.to_ascii_lowercase().as_str() {
            "yes" | "true" => Ok(Strictness::Yes),
            "ask" => Ok(Strictness::Ask),
            "accept-new" => Ok(Strictness::AcceptNew),
            "no" | "off" | "false" => Ok(Strictness::No),
            _ => Err(bad_value("StrictHostKeyChecking", value)),
        }
    }

    fn methods(&self) -> Result<Vec<String>, ConnectionError> {
        let preferred = self.text("preferredauthentications")?;
        let preferred = preferred.as_deref().unwrap_or(DEFAULT_METHODS);
        let allowed = [
            (
                "publickey",
                self.flag("pubkeyauthentication").or_else(|error| {
                    // Values of OpenSSH that restrict what the session is bound to; libssh2 binds nothing.
                    match self.raw.value("pubkeyauthentication").map(|value| value.words.join(" ")).as_deref()
                    {
                        Some("unbound" | "host-bound") => Ok(Some(true)),
                        _ => Err(error),
                    }
                })?,
            ),
            ("keyboard-interactive", self.flag("kbdinteractiveauthentication")?),
            ("password", self.flag("passwordauthentication")?),
        ];
        let known = preferred.split(',').map(str::trim);
        Ok(known
            .filter(|method| allowed.iter().any(|(name, flag)| name == method && flag.unwrap_or(true)))
            .map(str::to_owned)
            .collect())
    }

    /// Raw has only one of the two unless it is `none`.
    fn proxy(&self, host: &str) -> Result<Proxy, ConnectionError> {
        if let Some(value) = self.raw.value("proxyjump") {
            let text = value.one()?;
            if !text.eq_ignore_ascii_case("none") {
                let hops = text.split(',').map(|hop| {
                    let hop = expansion::tokens(hop, self.tokens, &value.origin)?;
                    hop.parse::<Target>().map_err(|error| bad(&value.origin, error))
                });
                return Ok(Proxy::Jump(hops.collect::<Result<_, _>>()?));
            }
        }
        let Some(value) = self.raw.value("proxycommand") else { return Ok(Proxy::None) };
        let text = value.words.join(" ");
        if text.eq_ignore_ascii_case("none") {
            return Ok(Proxy::None);
        }
        let user =
            self.tokens.iter().find(|(letter, _)| *letter == 'r').and_then(|(_, user)| user.as_deref());
        expansion::check_for_shell([Some(host), user, Some(self.raw.original_host())], &value.origin)?;
        Ok(Proxy::Command(expansion::tokens(&text, self.tokens, &value.origin)?))
    }
}

/// OpenSSH's time: a number of seconds, or numbers with units.
fn seconds(text: &str) -> Option<u64> {
    let mut total: u64 = 0;
    let mut number: Option<u64> = None;
    for character in text.chars() {
        if let Some(digit) = character.to_digit(10) {
            number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(digit.into())?);
            continue;
        }
        let unit = match character.to_ascii_lowercase() {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 24 * 3600,
            'w' => 7 * 24 * 3600,
            _ => return None,
        };
        total = total.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    if text.is_empty() { None } else { total.checked_add(number.unwrap_or(0)) }
}
