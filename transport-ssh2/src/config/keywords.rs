//! Which options there are, and what becomes of them.

use super::{Case, Raw, bad, pattern_list_matches, unsupported};
use crate::error::ConnectionError;

/// Other names of options.
const ALIASES: &[(&str, &str)] = &[
    ("challengeresponseauthentication", "kbdinteractiveauthentication"),
    ("identityfile2", "identityfile"),
    // Red Hat's name before OpenSSH had the option.
    ("rsaminsize", "requiredrsasize"),
    ("skeyauthentication", "kbdinteractiveauthentication"),
    ("tisauthentication", "kbdinteractiveauthentication"),
];

/// Options that have an effect.
const SUPPORTED: &[&str] = &[
    "addressfamily",
    "batchmode",
    "certificatefile",
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
    "refuseconnection",
    "requiredrsasize",
    "serveralivecountmax",
    "serveraliveinterval",
    "stricthostkeychecking",
    "tag",
    "user",
    "userknownhostsfile",
];

/// Options that would have an effect that this transport cannot have, unless they have this value.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("bindaddress", ""),
    ("bindinterface", ""),
    ("canonicalizehostname", "no"),
    ("knownhostscommand", "none"),
    ("pkcs11provider", "none"),
    ("proxyusefdpass", "no"),
    ("revokedhostkeys", "none"),
];

/// Options that change nothing here, with every value that OpenSSH takes: they are about terminals, forwardings, master connections
/// and other things that this transport does not do; or ignoring them is the stricter choice; or they are about how things look; or
/// OpenSSH itself has forgotten them.
const WITHOUT_EFFECT: &[&str] = &[
    "addkeystoagent",
    "afstokenpassing",
    "canonicaldomains",
    "canonicalizefallbacklocal",
    "canonicalizemaxdots",
    "canonicalizepermittedcnames",
    "casignaturealgorithms",
    "channeltimeout",
    "checkhostip",
    "cipher",
    "clearallforwardings",
    "compressionlevel",
    "controlmaster",
    "controlpath",
    "controlpersist",
    "dsaauthentication",
    "dynamicforward",
    "enableescapecommandline",
    "enablesshkeysign",
    "escapechar",
    "exitonforwardfailure",
    "fallbacktorsh",
    "fingerprinthash",
    "forkafterauthentication",
    "forwardagent",
    "forwardx11",
    "forwardx11timeout",
    "forwardx11trusted",
    "gatewayports",
    "globalknownhostsfile2",
    "gssapiauthentication",
    "gssapiclientidentity",
    "gssapidelegatecredentials",
    "gssapikexalgorithms",
    "gssapikeyexchange",
    "gssapirenewalforcesrekey",
    "gssapiserveridentity",
    "gssapitrustdns",
    "hostbasedacceptedalgorithms",
    "hostbasedauthentication",
    "hostbasedkeytypes",
    "ignoreunknown",
    "ipqos",
    "kbdinteractivedevices",
    "keepalive",
    "kerberosauthentication",
    "kerberostgtpassing",
    "localcommand",
    "localforward",
    "loglevel",
    "logverbose",
    "nohostauthenticationforlocalhost",
    "obscurekeystroketiming",
    "permitlocalcommand",
    "permitremoteopen",
    "protocol",
    "pubkeyacceptedalgorithms",
    "pubkeyacceptedkeytypes",
    "rekeylimit",
    "remotecommand",
    "remoteforward",
    "requesttty",
    "rhostsauthentication",
    "rhostsrsaauthentication",
    "rsaauthentication",
    "securitykeyprovider",
    "sendenv",
    "sessiontype",
    "setenv",
    "smartcarddevice",
    "stdinnull",
    "streamlocalbindmask",
    "streamlocalbindunlink",
    "syslogfacility",
    "tcpkeepalive",
    "tunnel",
    "tunneldevice",
    "updatehostkeys",
    "usekeychain",
    "useprivilegedport",
    "userknownhostsfile2",
    "useroaming",
    "usersh",
    "verifyhostkeydns",
    "versionaddendum",
    "visualhostkey",
    "warnweakcrypto",
    "xauthlocation",
];

/// The name under which an option is kept.
pub(super) fn canonical(keyword: &str) -> &str {
    ALIASES.iter().find(|(other, _)| *other == keyword).map_or(keyword, |(_, name)| name)
}

/// Fails for options that are not known, and for those that are not done.
pub(super) fn check(raw: &Raw<'_>) -> Result<(), ConnectionError> {
    let ignored = raw.value("ignoreunknown").map(|value| value.words.join(","));
    for (keyword, value) in raw.keywords() {
        if let Some((_, harmless)) = UNSUPPORTED.iter().find(|(name, _)| *name == keyword) {
            if !value.words.join(" ").eq_ignore_ascii_case(harmless) {
                return Err(unsupported(&value.origin, format_args!("'{keyword}'")));
            }
        } else if !SUPPORTED.contains(&keyword)
            && !WITHOUT_EFFECT.contains(&keyword)
            && !ignored
                .as_ref()
                .is_some_and(|patterns| pattern_list_matches(patterns, keyword, Case::Ignored))
        {
            return Err(bad(&value.origin, format_args!("'{keyword}' is not a known option")));
        }
    }
    Ok(())
}
