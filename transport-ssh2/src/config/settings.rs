//! What the options mean.

use std::{path::PathBuf, time::Duration};

use ncc_transport::Target;

use super::{Origin, Raw, Value, bad, line::pattern_list_matches};
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
    /// What is not done as it was asked for, for a person to know.
    pub(crate) warnings: Vec<String>,
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

/// Options that change nothing here, with every value that OpenSSH takes: they are about terminals, forwardings, master connections
/// and other things that this transport does not do; or ignoring them is the stricter choice; or they are about how things look.
const WITHOUT_EFFECT: &[&str] = &[
    "addkeystoagent",
    "canonicaldomains",
    "canonicalizefallbacklocal",
    "canonicalizemaxdots",
    "canonicalizepermittedcnames",
    "casignaturealgorithms",
    "checkhostip",
    "clearallforwardings",
    "controlmaster",
    "controlpath",
    "controlpersist",
    "dynamicforward",
    "enableescapecommandline",
    "enablesshkeysign",
    "escapechar",
    "exitonforwardfailure",
    "fingerprinthash",
    "forkafterauthentication",
    "forwardagent",
    "forwardx11",
    "forwardx11timeout",
    "forwardx11trusted",
    "gatewayports",
    "gssapiauthentication",
    "gssapidelegatecredentials",
    "gssapiclientidentity",
    "gssapikeyexchange",
    "gssapikexalgorithms",
    "gssapirenewalforcesrekey",
    "gssapiserveridentity",
    "gssapitrustdns",
    "hostbasedacceptedalgorithms",
    "hostbasedauthentication",
    "hostbasedkeytypes",
    "ignoreunknown",
    "ipqos",
    "kbdinteractivedevices",
    "localcommand",
    "localforward",
    "loglevel",
    "logverbose",
    "nohostauthenticationforlocalhost",
    "obscurekeystroketiming",
    "permitlocalcommand",
    "permitremoteopen",
    "rekeylimit",
    "remotecommand",
    "remoteforward",
    "requesttty",
    "securitykeyprovider",
    "sendenv",
    "sessiontype",
    "setenv",
    "stdinnull",
    "streamlocalbindmask",
    "streamlocalbindunlink",
    "syslogfacility",
    "tag",
    "tcpkeepalive",
    "tunnel",
    "tunneldevice",
    "updatehostkeys",
    "usekeychain",
    "verifyhostkeydns",
    "visualhostkey",
    "versionaddendum",
    "warnweakcrypto",
    "xauthlocation",
    "channeltimeout",
    "pubkeyacceptedkeytypes",
    "pubkeyacceptedalgorithms",
    "useroaming",
    "protocol",
    "useprivilegedport",
    "refuseconnection",
];

/// Options that would have an effect that this transport cannot have, unless they have this value.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("bindaddress", ""),
    ("bindinterface", ""),
    ("canonicalizehostname", "no"),
    ("knownhostscommand", "none"),
    ("pkcs11provider", "none"),
    ("proxyusefdpass", "no"),
    ("requiredrsasize", ""),
    ("revokedhostkeys", "none"),
];

/// Options that have an effect.
const SUPPORTED: &[&str] = &[
    "addressfamily",
    "batchmode",
    "certificatefile",
    "challengeresponseauthentication",
    "ciphers",
    "compression",
    "connectionattempts",
    "connecttimeout",
    "globalknownhostsfile",
    "hashknownhosts",
    "hostkeyalgorithms",
    "hostkeyalias",
    "hostname",
    "identitiesonly",
    "identityagent",
    "identityfile",
    "kbdinteractiveauthentication",
    "kexalgorithms",
    "macs",
    "numberofpasswordprompts",
    "passwordauthentication",
    "port",
    "preferredauthentications",
    "proxycommand",
    "proxyjump",
    "pubkeyauthentication",
    "serveralivecountmax",
    "serveraliveinterval",
    "stricthostkeychecking",
    "user",
    "userknownhostsfile",
];

/// In OpenSSH's order, those that libssh2 can do.
const DEFAULT_KEYS: &[&str] = &["id_rsa", "id_ecdsa", "id_ed25519"];

const DEFAULT_METHODS: &str = "publickey,keyboard-interactive,password";

impl Settings {
    pub(crate) fn resolve(raw: &Raw<'_>) -> Result<Self, ConnectionError> {
        check_keywords(raw)?;
        let surroundings = raw.surroundings();
        let host = match raw.value("hostname") {
            Some(value) => {
                let alone = [('h', raw.original_host().to_owned())];
                replace_tokens(one(value)?, &alone, &value.origin)?
            }
            None => raw.original_host().to_owned(),
        };
        let port = raw.value("port").map_or(Ok(22), |value| {
            one(value)?.parse().ok().filter(|&port| port != 0).ok_or_else(|| bad_value("Port", value))
        })?;
        let user = raw.value("user").map(one).transpose()?.unwrap_or(&surroundings.local_user).to_owned();
        let host_key_alias = raw.value("hostkeyalias").map(one).transpose()?.map(str::to_owned);
        let tokens = [
            ('h', host.clone()),
            ('n', raw.original_host().to_owned()),
            ('p', port.to_string()),
            ('r', user.clone()),
            ('u', surroundings.local_user.clone()),
            ('d', surroundings.home.to_string_lossy().into_owned()),
            ('l', surroundings.local_host.clone()),
            ('L', surroundings.local_host.split('.').next().unwrap_or_default().to_owned()),
            ('i', rustix::process::getuid().as_raw().to_string()),
            ('k', host_key_alias.clone().unwrap_or_else(|| raw.original_host().to_owned())),
        ];
        let read = Reader { raw, tokens: &tokens };

        let mut warnings = Vec::new();
        let methods = read.methods()?;
        let batch = read.flag("batchmode")?.unwrap_or(false);
        let strictness = read.strictness()?;
        if strictness == Strictness::No {
            warnings.push(format!("StrictHostKeyChecking is off: anybody may pretend to be {host}"));
        }
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
                None => ["known_hosts", "known_hosts2"]
                    .map(|name| surroundings.home.join(".ssh").join(name))
                    .into(),
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
            host,
            port,
            user,
            host_key_alias,
            strictness,
            methods,
            batch,
            warnings,
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

fn check_keywords(raw: &Raw<'_>) -> Result<(), ConnectionError> {
    let ignored = raw.value("ignoreunknown").map(|value| value.words.join(",").to_ascii_lowercase());
    for (keyword, value) in raw.keywords() {
        let given = value.words.join(" ");
        if let Some((_, harmless)) = UNSUPPORTED.iter().find(|(name, _)| *name == keyword) {
            if !given.eq_ignore_ascii_case(harmless) {
                return Err(bad(
                    &value.origin,
                    format_args!("'{keyword}' is not supported without OpenSSH's own program"),
                ));
            }
        } else if !SUPPORTED.contains(&keyword)
            && !WITHOUT_EFFECT.contains(&keyword)
            && !ignored.as_ref().is_some_and(|patterns| pattern_list_matches(patterns, keyword))
        {
            return Err(bad(&value.origin, format_args!("'{keyword}' is not a known option")));
        }
    }
    Ok(())
}

/// The only word.
fn one(value: &Value) -> Result<&str, ConnectionError> {
    match value.words.as_slice() {
        [word] => Ok(word),
        words => Err(bad(&value.origin, format_args!("one value was expected, not '{}'", words.join(" ")))),
    }
}

fn bad_value(keyword: &str, value: &Value) -> ConnectionError {
    bad(&value.origin, format_args!("'{}' is no value for {keyword}", value.words.join(" ")))
}

fn replace_tokens(text: &str, tokens: &[(char, String)], origin: &Origin) -> Result<String, ConnectionError> {
    let mut result = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '%' => match characters.next() {
                Some('%') => result.push('%'),
                Some(letter) => match tokens.iter().find(|(known, _)| *known == letter) {
                    Some((_, value)) => result.push_str(value),
                    None => return Err(bad(origin, format_args!("'%{letter}' is not supported there"))),
                },
                None => return Err(bad(origin, "'%' at the end")),
            },
            _ => result.push(character),
        }
    }
    Ok(result)
}

struct Reader<'a> {
    raw: &'a Raw<'a>,
    tokens: &'a [(char, String)],
}

impl Reader<'_> {
    fn text(&self, keyword: &str) -> Result<Option<String>, ConnectionError> {
        Ok(self.raw.value(keyword).map(one).transpose()?.map(str::to_owned))
    }

    fn flag(&self, keyword: &str) -> Result<Option<bool>, ConnectionError> {
        let Some(value) = self.raw.value(keyword) else { return Ok(None) };
        match one(value)?.to_ascii_lowercase().as_str() {
            "yes" | "true" => Ok(Some(true)),
            "no" | "false" => Ok(Some(false)),
            _ => Err(bad_value(keyword, value)),
        }
    }

    fn number(&self, keyword: &str) -> Result<Option<u32>, ConnectionError> {
        let Some(value) = self.raw.value(keyword) else { return Ok(None) };
        one(value)?.parse().map(Some).map_err(|_| bad_value(keyword, value))
    }

    /// Seconds, or `1h30m` and the like; `none` is zero.
    fn time(&self, keyword: &str) -> Result<Option<Duration>, ConnectionError> {
        let Some(value) = self.raw.value(keyword) else { return Ok(None) };
        let text = one(value)?;
        let seconds = if text == "none" { Some(0) } else { seconds(text) };
        seconds.map(|seconds| Some(Duration::from_secs(seconds))).ok_or_else(|| bad_value(keyword, value))
    }

    /// A file's name, with `~`, tokens and `${VARIABLE}` replaced.
    fn path(&self, word: &str, origin: &Origin) -> Result<PathBuf, ConnectionError> {
        let home = &self.raw.surroundings().home;
        let mut text = replace_tokens(word, self.tokens, origin)?;
        while let Some((before, rest)) = text.split_once("${") {
            let (name, after) = rest
                .split_once('}')
                .ok_or_else(|| bad(origin, format_args!("'${{' without '}}' in '{word}'")))?;
            let value = std::env::var(name)
                .map_err(|_| bad(origin, format_args!("the environment has no variable '{name}'")))?;
            text = format!("{before}{value}{after}");
        }
        Ok(match text.strip_prefix("~/") {
            Some(rest) => home.join(rest),
            None if text == "~" => home.clone(),
            None if text.starts_with('~') => {
                return Err(bad(origin, format_args!("the home directory in '{text}' is not known")));
            }
            None => PathBuf::from(text),
        })
    }

    fn paths(&self, keyword: &str) -> Result<Option<Vec<PathBuf>>, ConnectionError> {
        let Some(value) = self.raw.value(keyword) else { return Ok(None) };
        let words = value.words.iter().filter(|word| *word != "none");
        words.map(|word| self.path(word, &value.origin)).collect::<Result<_, _>>().map(Some)
    }

    fn each_path(&self, keyword: &str) -> Result<Vec<PathBuf>, ConnectionError> {
        let values = self.raw.values(keyword).iter().filter(|value| value.words != ["none"]);
        values.map(|value| self.path(one(value)?, &value.origin)).collect()
    }

    fn identity_files(&self) -> Result<Vec<(PathBuf, bool)>, ConnectionError> {
        if self.raw.value("identityfile").is_some() {
            return Ok(self.each_path("identityfile")?.into_iter().map(|path| (path, true)).collect());
        }
        let directory = self.raw.surroundings().home.join(".ssh");
        Ok(DEFAULT_KEYS.iter().map(|name| (directory.join(name), false)).collect())
    }

    fn agent(&self) -> Result<Agent, ConnectionError> {
        let Some(value) = self.raw.value("identityagent") else { return Ok(Agent::Environment) };
        let word = one(value)?;
        Ok(match word {
            "none" => Agent::None,
            "SSH_AUTH_SOCK" => Agent::Environment,
            _ => match word.strip_prefix('$').filter(|name| !name.starts_with('{')) {
                Some(name) => std::env::var_os(name).map_or(Agent::None, |path| Agent::Socket(path.into())),
                None => Agent::Socket(self.path(word, &value.origin)?),
            },
        })
    }

    fn address_family(&self) -> Result<AddressFamily, ConnectionError> {
        let Some(value) = self.raw.value("addressfamily") else { return Ok(AddressFamily::Any) };
        match one(value)?.to_ascii_lowercase().as_str() {
            "any" => Ok(AddressFamily::Any),
            "inet" => Ok(AddressFamily::V4),
            "inet6" => Ok(AddressFamily::V6),
            _ => Err(bad_value("AddressFamily", value)),
        }
    }

    fn strictness(&self) -> Result<Strictness, ConnectionError> {
        let Some(value) = self.raw.value("stricthostkeychecking") else { return Ok(Strictness::Ask) };
        match one(value)?.to_ascii_lowercase().as_str() {
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
        let keyboard = match self.flag("kbdinteractiveauthentication")? {
            Some(flag) => Some(flag),
            None => self.flag("challengeresponseauthentication")?,
        };
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
            ("keyboard-interactive", keyboard),
            ("password", self.flag("passwordauthentication")?),
        ];
        let known = preferred.split(',').map(str::trim);
        Ok(known
            .filter(|method| allowed.iter().any(|(name, flag)| name == method && flag.unwrap_or(true)))
            .map(str::to_owned)
            .collect())
    }

    fn proxy(&self, host: &str) -> Result<Proxy, ConnectionError> {
        // Whichever was given first would win in OpenSSH; here the jump does, which is the stricter one.
        if let Some(value) = self.raw.value("proxyjump") {
            let text = one(value)?;
            if text.eq_ignore_ascii_case("none") {
                return Ok(Proxy::None);
            }
            let hops = text.split(',').map(|hop| {
                let hop = replace_tokens(hop, self.tokens, &value.origin)?;
                hop.parse::<Target>().map_err(|error| bad(&value.origin, error))
            });
            let hops = hops.collect::<Result<Vec<_>, _>>()?;
            return Ok(Proxy::Jump(hops));
        }
        let Some(value) = self.raw.value("proxycommand") else { return Ok(Proxy::None) };
        let text = value.words.join(" ");
        if text.eq_ignore_ascii_case("none") {
            return Ok(Proxy::None);
        }
        // It goes through a shell: nothing in a host or user name may be a shell's.
        let user = self.tokens.iter().find(|(letter, _)| *letter == 'r').map_or("", |(_, user)| user);
        if !is_safe(host) || !is_safe(user) || !is_safe(self.raw.original_host()) {
            return Err(bad(
                &value.origin,
                "a host or user name with special characters cannot be used with ProxyCommand",
            ));
        }
        Ok(Proxy::Command(replace_tokens(&text, self.tokens, &value.origin)?))
    }
}

fn is_safe(name: &str) -> bool {
    !name.starts_with('-')
        && !name.chars().any(|character| {
            character.is_control() || character.is_whitespace() || "'`\"$\\;&<>|(){}#!*?~".contains(character)
        })
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
