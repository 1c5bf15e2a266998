//! Which host: the words a user may write for it.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use crate::command::quoted_for_shell;

/// A host to connect to: `[user@]host[:port]`.
///
/// Whatever ssh takes as a destination is taken, names of `Host` blocks and of gateways included; and nothing that ssh refuses
/// since a host name can end up in the shell command of a ProxyCommand: neither user nor host is empty, begins with a dash, or
/// holds control characters or what a shell would interpret.
///
/// Accepts what upstream's releases accept, all together:
///
/// | Written | Means |
/// |---|---|
/// | `h`, `a_b.example` | a name: resolved, or an alias in the user's ssh configuration |
/// | `vsock/3`, `web#1` | names too |
/// | `alice@h`, `a@b@h` | the last `@` ends the user |
/// | `admin:web1@h`, `admin#web1@h`, `DOMAIN\\alice@h` | the user is handed to ssh as written |
/// | `h:2200`, `h:` | with a port, with the usual one |
/// | `::1`, `alice@2001:db8::1` | an IPv6 address: more than one colon is never a port |
/// | `[::1]`, `[2001:db8::1]:2200` | the same in brackets, which a port needs |
/// | `fe80::1%eth0`, `[fe80::1%25eth0]` | with a zone |
/// | `ssh://h`, `ssh://h/` | the same as `h` |
/// | `ssh://admin%3Aweb1@vmi%2Ftest` | `admin:web1` at `vmi/test`: in a URI, `%XX` is any byte |
///
/// In a URI a colon in the user begins a password (`ssh://alice:secret@h`). That is refused, where upstream drops it in silence: each
/// process on the machine could read it, and whoever wrote it expects that it has an effect.
///
/// ```
/// use ncc_transport::Target;
///
/// let target: Target = "alice@[2001:db8::1]:2200".parse()?;
/// assert_eq!((target.user(), target.host(), target.port()), (Some("alice"), "2001:db8::1", Some(2200)));
/// assert_eq!(target.to_string(), "alice@[2001:db8::1]:2200");
/// # Ok::<(), ncc_transport::TargetError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    user: Option<String>,
    host: String,
    port: Option<u16>,
}

impl Target {
    /// The user to log in as, if written.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The name or address, without brackets; an IPv6 zone follows after a plain `%`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, if written.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Whether this is exactly `localhost`, without user and port: then upstream uses no ssh, and so should a caller.
    pub fn is_localhost(&self) -> bool {
        self.host == "localhost" && self.user.is_none() && self.port.is_none()
    }

    /// The name under which `known_hosts` has the host, unless the user's configuration says otherwise.
    pub fn known_as(&self) -> String {
        match self.port {
            Some(port) if port != 22 => format!("[{}]:{port}", self.host),
            _ => self.host.clone(),
        }
    }

    /// What to type to try the connection by hand.
    pub fn by_hand(&self) -> String {
        let port = self.port.map_or_else(String::new, |port| format!("-p {port} "));
        let user = self.user().map_or_else(String::new, |user| format!("-l {} ", quoted_for_shell(user)));
        format!("ssh {port}{user}{}", quoted_for_shell(&self.host))
    }

    /// Reads `[user@]host[:port]`, nothing around it.
    fn from_authority(text: &str, syntax: Syntax) -> Result<Self, TargetError> {
        let (user, address) = match text.rsplit_once('@') {
            Some((user, address)) => (Some(checked_user(user, syntax)?), address),
            None => (None, text),
        };
        let (host, port) = if let Some(bracketed) = address.strip_prefix('[') {
            let (inside, after) = bracketed
                .split_once(']')
                .ok_or_else(|| TargetError::InvalidIpv6 { address: address.to_owned() })?;
            let port = match after {
                "" => None,
                _ => Some(
                    after
                        .strip_prefix(':')
                        .ok_or_else(|| TargetError::InvalidIpv6 { address: address.to_owned() })?,
                ),
            };
            (ipv6(inside, Syntax::Uri)?, port)
        } else {
            match address.split_once(':') {
                Some((_, rest)) if rest.contains(':') => (ipv6(address, Syntax::Plain)?, None),
                Some((host, port)) => (checked_name(host, syntax)?, Some(port)),
                None => (checked_name(address, syntax)?, None),
            }
        };
        Ok(Self { user, host, port: port.map(parse_port).transpose()?.flatten() })
    }

    /// The same host at this port, unless a port was written. For the URL parameter `port` that Lix has.
    #[must_use]
    pub fn or_port(mut self, port: Option<u16>) -> Self {
        self.port = self.port.or(port);
        self
    }
}

impl FromStr for Target {
    type Err = TargetError;

    /// As [`HostArgument`], but without parameters.
    fn from_str(text: &str) -> Result<Self, TargetError> {
        let argument: HostArgument = text.parse()?;
        match argument.params.iter().next() {
            None => Ok(argument.target),
            Some((key, _)) => Err(TargetError::UnexpectedParam { key: key.to_owned() }),
        }
    }
}

impl fmt::Display for Target {
    /// In a form that can be parsed again: as a user writes it, with brackets only where a port needs them; as a URI only where
    /// a name holds what would end it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [self.user.as_deref().unwrap_or_default(), &self.host];
        let needs_uri = names.iter().any(|name| name.contains('?') || name.contains("://"));
        let encoded = |name: &str| if needs_uri { percent_encoded(name) } else { name.to_owned() };
        if needs_uri {
            f.write_str("ssh://")?;
        }
        if let Some(user) = &self.user {
            write!(f, "{}@", encoded(user))?;
        }
        let is_address = self.host.contains(':');
        match self.port {
            Some(port) if is_address => write!(f, "[{}]:{port}", self.host),
            Some(port) => write!(f, "{}:{port}", encoded(&self.host)),
            None if is_address => f.write_str(&self.host),
            None => f.write_str(&encoded(&self.host)),
        }
    }
}

/// All that upstream accepts in the place of a host: `[ssh://][user@]host[:port][/][?key=value[&key=value...]]`.
///
/// ```
/// use ncc_transport::{HostArgument, Scheme};
///
/// let argument: HostArgument = "ssh://alice@h?remote-store=local?root=/mnt&compress=true".parse()?;
/// assert_eq!(argument.scheme, Some(Scheme::Ssh));
/// assert_eq!(argument.target.to_string(), "alice@h");
/// assert_eq!(argument.params.value("remote-store"), Some("local?root=/mnt"));
/// # Ok::<(), ncc_transport::TargetError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostArgument {
    /// What stood before `://`, if anything. A scheme is a promise: `ssh-ng://` means the daemon's protocol, which decides
    /// differently whom it trusts, so that a caller that does not speak it has to refuse.
    pub scheme: Option<Scheme>,
    /// The host.
    pub target: Target,
    /// What stood after `?`.
    pub params: TargetParams,
}

impl FromStr for HostArgument {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let (scheme, rest) = match text.split_once("://") {
            Some(("ssh", rest)) => (Some(Scheme::Ssh), rest),
            Some(("ssh-ng", rest)) => (Some(Scheme::SshNg), rest),
            // "h?remote-store=unix://..." is a host with a parameter.
            Some((before, _)) if before.contains(['?', '@', '/']) => (None, text),
            Some((other, _)) => return Err(TargetError::UnknownScheme { scheme: other.to_owned() }),
            None => (None, text),
        };
        let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, syntax) = match scheme {
            Some(_) => (authority.strip_suffix('/').unwrap_or(authority), Syntax::Uri),
            None => (authority, Syntax::Plain),
        };
        Ok(Self { scheme, target: Target::from_authority(authority, syntax)?, params: query.parse()? })
    }
}

/// The kinds of store URI that name a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scheme {
    /// `ssh://`: the serve protocol.
    Ssh,
    /// `ssh-ng://`: the daemon's protocol.
    SshNg,
}

/// The parameters of a host argument, in the order written. Which of them mean something is the caller's business; no key is
/// there twice, and no value holds control characters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetParams(Vec<(String, String)>);

impl TargetParams {
    /// The value of `key`.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == key).map(|(_, value)| value)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for TargetParams {
    type Err = TargetError;

    /// Reads `key=value&key=value`, with `%XX` for any byte. A key without `=` has an empty value, as for Nix.
    fn from_str(query: &str) -> Result<Self, TargetError> {
        let mut params = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let invalid = || TargetError::InvalidParam { param: pair.to_owned() };
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) =
                (percent_decoded(key).ok_or_else(invalid)?, percent_decoded(value).ok_or_else(invalid)?);
            if key.is_empty() {
                return Err(invalid());
            }
            if params.value(&key).is_some() {
                return Err(TargetError::RepeatedParam { key });
            }
            params.0.push((key, value));
        }
        Ok(params)
    }
}

/// The words for a host cannot be understood, or would be dangerous.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// There is no host name.
    #[error("the host name is empty")]
    EmptyHost,
    /// There is an `@` with nothing before it.
    #[error("the user name before '@' is empty")]
    EmptyUser,
    /// A user or host that an ssh would take for an option.
    #[error("'{}' begins with a dash, which would make it an option of ssh", .name.escape_debug())]
    LeadingDash {
        /// The user or host.
        name: String,
    },
    /// A character that cannot be in a host or user name, or that a shell would interpret.
    #[error("'{}' in '{}' is not allowed in a host or user name", .character.escape_default(), .name.escape_debug())]
    InvalidCharacter {
        /// The user or host.
        name: String,
        /// The first such character.
        character: char,
    },
    /// A password was written. It is not in the error, so that it is in no log.
    #[error(
        "a password on the command line is visible to everybody on this machine; write '{user}@...' and let ssh ask for it"
    )]
    Password {
        /// The user, without the password.
        user: String,
    },
    /// What follows the colon is not a port.
    #[error("'{}' is not a port number from 1 to 65535", .port.escape_debug())]
    InvalidPort {
        /// What stands there.
        port: String,
    },
    /// Brackets or several colons, but not an IPv6 address; or the zone is not one.
    #[error("'{}' is not an IPv6 address (with a port, write '[address]:port')", .address.escape_debug())]
    InvalidIpv6 {
        /// What stands there.
        address: String,
    },
    /// Neither `ssh://` nor `ssh-ng://`.
    #[error("'{}://' does not name a host that is reached with ssh", .scheme.escape_debug())]
    UnknownScheme {
        /// What stands before `://`.
        scheme: String,
    },
    /// `%` without two hexadecimal digits in a URI, or what they say is not UTF-8.
    #[error("'{}' has a '%' that is not followed by two digits as in '%2F' (write a plain one as '%25')", .name.escape_debug())]
    InvalidEncoding {
        /// The user or host as written.
        name: String,
    },
    /// What stands there is a path and not a host.
    #[error("'{}' is a path, not a host", .name.escape_debug())]
    IsPath {
        /// The path.
        name: String,
    },
    /// No key, a bad `%XX`, not UTF-8, or control characters in it.
    #[error("'{}' is not a parameter of the form 'key=value'", .param.escape_debug())]
    InvalidParam {
        /// The parameter as written.
        param: String,
    },
    /// A parameter is there twice.
    #[error("the parameter '{}' is given twice", .key.escape_debug())]
    RepeatedParam {
        /// Its key.
        key: String,
    },
    /// There are parameters where only a host may stand.
    #[error("the parameter '{}' is not possible here", .key.escape_debug())]
    UnexpectedParam {
        /// The first key.
        key: String,
    },
}

/// What ssh itself refuses in a host name on the command line since CVE-2023-51385. Beyond that, a colon would be read as the
/// beginning of a port or an address, an `@` as the end of a user, and brackets as an address.
const NOT_IN_HOSTS: &[char] =
    &['\'', '`', '"', '$', '\\', ';', '&', '<', '>', '|', '(', ')', '{', '}', ',', '[', ']', '@', ':'];

/// What ssh itself refuses in a user name. A backslash is fine (`DOMAIN\alice`), and so is a blank.
const NOT_IN_USERS: &[char] = &['\'', '`', '"', ';', '&', '<', '>', '|', '(', ')', '{', '}'];

/// How names are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Syntax {
    /// In a URI: `%XX` is any byte (RFC 3986); in a zone, `%25` is the percent sign (RFC 6874), but people write it bare as well.
    Uri,
    /// As for ssh. A zone's percent sign is bare (RFC 4007); `%25` alone or before digits is interface 25..., before anything else it
    /// is a URI's.
    Plain,
}

impl Syntax {
    fn decoded(self, name: &str) -> Result<String, TargetError> {
        match self {
            Self::Plain => Ok(name.to_owned()),
            Self::Uri => bytes_of(name)
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .ok_or_else(|| TargetError::InvalidEncoding { name: name.to_owned() }),
        }
    }
}

fn checked(name: &str, is_bad: impl Fn(char) -> bool) -> Result<(), TargetError> {
    if name.starts_with('-') {
        return Err(TargetError::LeadingDash { name: name.to_owned() });
    }
    match name.chars().find(|&character| character.is_control() || is_bad(character)) {
        Some(character) => Err(TargetError::InvalidCharacter { name: name.to_owned(), character }),
        None => Ok(()),
    }
}

fn checked_name(name: &str, syntax: Syntax) -> Result<String, TargetError> {
    let name = syntax.decoded(name)?;
    if name.is_empty() {
        return Err(TargetError::EmptyHost);
    }
    // A host that was forgotten: ssh would look for the path.
    if name.starts_with(['/', '.']) && name.contains('/') || name.contains("nix/store/") {
        return Err(TargetError::IsPath { name });
    }
    checked(&name, |character| character.is_whitespace() || NOT_IN_HOSTS.contains(&character))?;
    Ok(name)
}

fn checked_user(user: &str, syntax: Syntax) -> Result<String, TargetError> {
    let (name, password) = match syntax {
        Syntax::Uri => user.split_once(':').map_or((user, None), |(name, password)| (name, Some(password))),
        Syntax::Plain => (user, None),
    };
    let name = syntax.decoded(name)?;
    if name.is_empty() || syntax == Syntax::Plain && name.starts_with(':') {
        return Err(TargetError::EmptyUser);
    }
    checked(&name, |character| {
        (character.is_whitespace() && character != ' ') || NOT_IN_USERS.contains(&character)
    })?;
    // ssh refuses both: an option, once a shell has split the words of a ProxyCommand, and an escape of what follows there.
    if name.contains(" -") {
        return Err(TargetError::LeadingDash { name });
    }
    if name.ends_with('\\') {
        return Err(TargetError::InvalidCharacter { name, character: '\\' });
    }
    match password {
        Some(_) => Err(TargetError::Password { user: name }),
        None => Ok(name),
    }
}

fn parse_port(port: &str) -> Result<Option<u16>, TargetError> {
    if port.is_empty() {
        return Ok(None);
    }
    let number = port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok()).flatten();
    match number {
        Some(number @ 1..) => Ok(Some(number)),
        _ => Err(TargetError::InvalidPort { port: port.to_owned() }),
    }
}

fn ipv6(text: &str, syntax: Syntax) -> Result<String, TargetError> {
    let invalid = || TargetError::InvalidIpv6 { address: text.to_owned() };
    let (address, zone) = text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)));
    address.parse::<Ipv6Addr>().map_err(|_| invalid())?;
    let Some(zone) = zone else { return Ok(address.to_owned()) };
    let zone = match (zone.strip_prefix("25"), syntax) {
        (Some(encoded), Syntax::Uri) if !encoded.is_empty() => encoded,
        (Some(encoded), Syntax::Plain) if encoded.bytes().any(|byte| !byte.is_ascii_digit()) => encoded,
        _ => zone,
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    if zone.is_empty() || zone.starts_with('-') || !zone.bytes().all(allowed) {
        return Err(invalid());
    }
    Ok(format!("{address}%{zone}"))
}

/// `None` for a bad `%XX`, for what is not UTF-8, and for control characters.
fn percent_decoded(text: &str) -> Option<String> {
    String::from_utf8(bytes_of(text)?).ok().filter(|text| !text.chars().any(char::is_control))
}

/// The bytes that a text with `%XX` stands for; `None` for a bad one.
fn bytes_of(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || {
                rest.next()
                    .and_then(|digit| char::from(digit).to_digit(16))
                    .and_then(|digit| u8::try_from(digit).ok())
            };
            let (high, low) = (digit()?, digit()?);
            bytes.push(high << 4 | low);
        } else {
            bytes.push(byte);
        }
    }
    Some(bytes)
}

/// A name for a URI.
fn percent_encoded(name: &str) -> String {
    let mut encoded = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte.into());
        } else {
            encoded.extend(['%'].into_iter().chain(format!("{byte:02X}").chars()));
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
