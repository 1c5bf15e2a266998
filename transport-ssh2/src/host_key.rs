//! Whether the server is the right one, and which algorithms are agreed on.

use std::fmt;

use ncc_transport::{FailureKind, PinnedHostKey};
use ssh2::{MethodType, Session};

use crate::{
    Answer, Prompter, Question,
    config::{Case, Settings, Strictness, pattern_list_matches},
    error::{ConnectionError, OPENSSH_CAN},
    keys::rsa_bits,
    known_hosts::{KnownHosts, Verdict, append, fingerprint, key_type},
};

/// ChaCha20 first whatever the processor: libssh2 gives it whole packets, but calls OpenSSL anew for each 16 bytes of AES, with CTR as
/// with GCM, so that AES in hardware still takes 1.4 times its processor time (`BENCHMARKS.md`); without such hardware it takes more.
const CIPHERS: &[&str] = &[
    "chacha20-poly1305@openssh.com",
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
];

/// In OpenSSH's order. Certificates are left out: libssh2 cannot check what stands in them.
const HOST_KEYS: &[&str] = &[
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
];

/// Reads the files of known hosts.
pub(crate) fn read_known_hosts(settings: &Settings) -> Result<KnownHosts, ConnectionError> {
    if settings.pinned.is_some() {
        return Ok(KnownHosts::default());
    }
    KnownHosts::read(settings.user_known_hosts.iter().chain(&settings.global_known_hosts)).map_err(
        |(path, error)| {
            ConnectionError::io(
                FailureKind::BadConfiguration,
                format!("cannot read {}", path.display()),
                error,
            )
        },
    )
}

/// Says to libssh2 what may be agreed on, and in which order.
pub(crate) fn prefer_algorithms(
    session: &Session,
    settings: &Settings,
    known: &KnownHosts,
) -> Result<(), ConnectionError> {
    let host = settings.known_as();
    let known_types: Vec<&str> = known.types(&host).collect();
    let is_known = |algorithm: &str| {
        known_types
            .iter()
            .any(|&kind| kind == algorithm || kind == "ssh-rsa" && algorithm.starts_with("rsa-sha2-"))
    };
    // The types that are known come first, each group in its usual order.
    let (mut host_keys, others): (Vec<&str>, Vec<&str>) =
        HOST_KEYS.iter().copied().partition(|algorithm| is_known(algorithm));
    host_keys.extend(others);
    // Those of the pinned key's type alone, so that a host with several keys shows the right one.
    let pinned = settings.pinned.as_ref().map(|pinned| pinned.algorithms().join(","));
    let asked_for = pinned.as_deref().or(settings.host_key_algorithms.as_deref());
    choose(session, "HostKeyAlgorithms", &[MethodType::HostKey], asked_for, &host_keys)?;
    let both = [MethodType::CryptCs, MethodType::CryptSc];
    choose(session, "Ciphers", &both, settings.ciphers.as_deref(), CIPHERS)?;
    if let Some(macs) = &settings.macs {
        let defaults = supported(session, MethodType::MacCs)?;
        choose(session, "MACs", &[MethodType::MacCs, MethodType::MacSc], Some(macs), &defaults)?;
    }
    if let Some(key_exchange) = &settings.key_exchange {
        let defaults = supported(session, MethodType::Kex)?;
        choose(session, "KexAlgorithms", &[MethodType::Kex], Some(key_exchange), &defaults)?;
    }
    Ok(())
}

fn supported(session: &Session, method: MethodType) -> Result<Vec<&'static str>, ConnectionError> {
    let mut names = session
        .supported_algs(method)
        .map_err(|error| ConnectionError::libssh2(FailureKind::NoCommonAlgorithm, &error))?;
    // libssh2 lists these among the key exchanges, and adds them by itself.
    names.retain(|name| !name.starts_with("ext-info-") && !name.starts_with("kex-strict-"));
    Ok(names)
}

fn choose(
    session: &Session,
    option: &str,
    methods: &[MethodType],
    asked_for: Option<&str>,
    defaults: &[&str],
) -> Result<(), ConnectionError> {
    let [method, ..] = methods else { return Ok(()) };
    let supported = supported(session, *method)?;
    let names = select(asked_for, defaults, &supported);
    if names.is_empty() {
        let evidence = format!(
            "{option}: libssh2 has none of '{}'; it has {}",
            asked_for.unwrap_or_default(),
            supported.join(",")
        );
        return Err(ConnectionError::new(FailureKind::BadConfiguration, evidence).hint(OPENSSH_CAN));
    }
    for &method in methods {
        session
            .method_pref(method, &names.join(","))
            .map_err(|error| ConnectionError::libssh2(FailureKind::NoCommonAlgorithm, &error))?;
    }
    Ok(())
}

/// A list as in `Ciphers`: of its own, or `+` behind, `-` without, `^` before the defaults; with what is not supported left out.
fn select<'a>(asked_for: Option<&'a str>, defaults: &[&'a str], supported: &[&str]) -> Vec<&'a str> {
    let text = asked_for.unwrap_or_default();
    let rest = text.get(1..).unwrap_or_default();
    let mut names: Vec<&str> = match text.as_bytes().first() {
        None => defaults.to_vec(),
        Some(b'+') => defaults.iter().copied().chain(rest.split(',')).collect(),
        Some(b'^') => rest.split(',').chain(defaults.iter().copied()).collect(),
        Some(b'-') => {
            defaults.iter().copied().filter(|name| !pattern_list_matches(rest, name, Case::Ignored)).collect()
        }
        Some(_) => text.split(',').collect(),
    };
    let mut seen = Vec::new();
    names.retain(|name| {
        let new = supported.contains(name) && !name.contains("-cert-") && !seen.contains(name);
        seen.push(*name);
        new
    });
    names
}

/// Fails unless the server's key is the right one, or the user has switched this off; then the server is not trusted, and this returns
/// false. What has to be said all the same is added to `warnings`.
pub(crate) fn check(
    session: &Session,
    settings: &Settings,
    known: &KnownHosts,
    prompter: &dyn Prompter,
    cancelled: &dyn Fn() -> bool,
    warnings: &mut Vec<String>,
) -> Result<bool, ConnectionError> {
    let Some((key, _)) = session.host_key() else {
        return Err(ConnectionError::new(FailureKind::HostKeyUnknown, "the server has shown no key"));
    };
    let host = settings.known_as();
    let kind = key_type(key).unwrap_or("of an unknown type");
    let shown = format!("{kind} {}", fingerprint(key));
    if let Some(bits) = rsa_bits(key).filter(|&bits| bits < settings.rsa_bits) {
        let evidence = format!(
            "{host} shows an RSA key of {bits} bits, {shown}, but RequiredRSASize asks for {}",
            settings.rsa_bits
        );
        return Err(ConnectionError::new(FailureKind::HostKeyUnknown, evidence)
            .hint("give the host a longer key, or one of another type (ssh-keygen -A there)"));
    }
    if let Some(pinned) = &settings.pinned {
        if pinned.blob() == key {
            return Ok(true);
        }
        return Err(not_the_pinned(pinned, format_args!("the key {shown}")));
    }
    if settings.strictness == Strictness::No {
        warnings.push(format!("StrictHostKeyChecking is off: anybody may pretend to be {host}"));
    }
    let mut verdict = known.verdict(&host, key);
    if verdict == Verdict::Unknown && settings.host_key_alias.is_none() && settings.port != 22 {
        // As in OpenSSH: a key that is known without the port will do, if it is this one.
        let without_port = known.verdict(&settings.host.to_ascii_lowercase(), key);
        if matches!(without_port, Verdict::Known | Verdict::Revoked(_)) {
            verdict = without_port;
        }
    }
    let note = match verdict {
        Verdict::Known => return Ok(true),
        Verdict::Revoked(place) => {
            return Err(ConnectionError::new(
                FailureKind::HostKeyRevoked,
                format!("{host} shows the key {shown}, revoked in {place}"),
            ));
        }
        Verdict::Changed(place) => {
            if settings.strictness == Strictness::No {
                warnings.push(format!(
                    "the key of {host} is {shown}, not the one in {place}; going on, as configured"
                ));
                return Ok(false);
            }
            return Err(ConnectionError::new(
                FailureKind::HostKeyChanged,
                format!("{host} shows the key {shown}, not the one in {place}"),
            ));
        }
        Verdict::OtherType(place) => format!("{host} is known by a key of another type, in {place}"),
        Verdict::Authority(place) => {
            format!("{place} names an authority, but certificates of hosts are not supported")
        }
        Verdict::Unknown => String::new(),
    };
    let unknown = |reason: &str| {
        let note = if note.is_empty() { String::new() } else { format!("; {note}") };
        Err(ConnectionError::new(
            FailureKind::HostKeyUnknown,
            format!("{host} shows the key {shown}{reason}{note}"),
        ))
    };
    match settings.strictness {
        Strictness::Yes => return unknown(""),
        // A host that is known by something else is not new.
        Strictness::AcceptNew if !note.is_empty() => return unknown(""),
        Strictness::AcceptNew | Strictness::No => {}
        Strictness::Ask if settings.batch => return unknown(", and BatchMode forbids to ask"),
        Strictness::Ask => {
            let question = Question::HostKey { host: &host, key: &shown, note: &note };
            match prompter.ask(&question, cancelled) {
                Answer::Text(answer) if accepts(&answer, key) => {}
                Answer::Text(_) => return unknown(", which was not accepted"),
                Answer::Nobody => return unknown(", and nobody is there to be asked"),
            }
        }
    }
    remember(settings, &host, key, &shown, warnings);
    Ok(true)
}

/// The host showed something else than the key that was handed to us beforehand.
pub(crate) fn not_the_pinned(pinned: &PinnedHostKey, instead: fmt::Arguments<'_>) -> ConnectionError {
    let expected = format!("{} {}", pinned.key_type(), fingerprint(pinned.blob()));
    let evidence = format!("the pinned host key is {expected}, but the host shows {instead}");
    ConnectionError::new(FailureKind::HostKeyChanged, evidence).hint(
        "either the host was reinstalled or somebody is in between; only if you know that it was reinstalled, pin the new key",
    )
}

/// `yes`, or the fingerprint itself.
fn accepts(answer: &str, key: &[u8]) -> bool {
    let answer = answer.trim();
    answer.eq_ignore_ascii_case("yes") || answer == fingerprint(key)
}

fn remember(settings: &Settings, host: &str, key: &[u8], shown: &str, warnings: &mut Vec<String>) {
    let Some(path) = settings.user_known_hosts.first().filter(|path| path.as_os_str() != "/dev/null") else {
        return;
    };
    match append(path, host, key, settings.hash_known_hosts) {
        Ok(()) => warnings.push(format!("added {host} ({shown}) to {}", path.display())),
        Err(error) => warnings.push(format!("cannot add {host} to {}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::defaults(None, "a,b,c")]
    #[case::own(Some("c,x,a"), "c,a")]
    #[case::more(Some("+d,x"), "a,b,c,d")]
    #[case::first(Some("^d,b"), "d,b,a,c")]
    #[case::without(Some("-b*,c"), "a")]
    #[case::twice(Some("a,a"), "a")]
    #[case::certificates(Some("a-cert-v01,b"), "b")]
    #[case::nothing(Some("x"), "")]
    fn lists(#[case] asked_for: Option<&str>, #[case] expected: &str) {
        let supported = ["a", "b", "c", "d", "a-cert-v01"];
        assert_eq!(select(asked_for, &["a", "b", "c"], &supported).join(","), expected);
    }

    #[test]
    fn every_default_is_one_that_libssh2_has() {
        let session = Session::new().unwrap();
        for (method, names) in [(MethodType::HostKey, HOST_KEYS), (MethodType::CryptCs, CIPHERS)] {
            let supported = supported(&session, method).unwrap();
            assert!(names.iter().all(|name| supported.contains(name)), "{names:?} {supported:?}");
        }
    }
}
