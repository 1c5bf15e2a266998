//! What files say of a host.

use std::{fs, path::PathBuf, time::Duration};

use rstest::rstest;

use super::*;

fn surroundings(home: &Path) -> Surroundings {
    Surroundings {
        home: home.to_owned(),
        local_user: "me".to_owned(),
        local_host: "here.example.org".to_owned(),
        system: home.join("etc"),
    }
}

fn settings_of(host: &str, text: &str, more: &[(&str, &str)]) -> Result<Settings, ConnectionError> {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join(".ssh")).unwrap();
    for (name, text) in more {
        fs::write(home.path().join(".ssh").join(name), text).unwrap();
    }
    let path = home.path().join(".ssh/config");
    fs::write(&path, text).unwrap();
    let surroundings = surroundings(home.path());
    let mut raw = Raw::new(&surroundings, host);
    raw.read(&path)?;
    if raw.begin_final_pass() {
        raw.read(&path)?;
    }
    let mut settings = Settings::resolve(&raw)?;
    // The directory's name is another each time.
    let relative = |path: &mut PathBuf| {
        if let Ok(rest) = path.strip_prefix(home.path()) {
            *path = Path::new("~").join(rest);
        }
    };
    settings.identity_files.iter_mut().for_each(|(path, _)| relative(path));
    settings.user_known_hosts.iter_mut().for_each(relative);
    Ok(settings)
}

fn port(host: &str, text: &str) -> u16 {
    settings_of(host, text, &[]).unwrap().port
}

#[rstest]
#[case::nothing("", 22)]
#[case::everywhere("Port 1", 1)]
#[case::equals_sign("Port=1", 1)]
#[case::spaces_around_it("  port =  1  # why", 1)]
#[case::quoted("Port \"1\"", 1)]
#[case::first_wins("Host h\nPort 1\nHost *\nPort 2", 1)]
#[case::not_ours("Host g\nPort 1", 22)]
#[case::several("Host g h\nPort 1", 1)]
#[case::wildcards("Host *.org ?\nPort 1", 1)]
#[case::negated("Host * !h\nPort 1", 22)]
#[case::case("HOST H\nPORT 1", 1)]
#[case::match_all("Host g\nMatch all\nPort 1", 1)]
#[case::match_host("Match host h,i\nPort 1", 1)]
#[case::match_host_after_hostname("HostName real\nMatch host real\nPort 1", 1)]
#[case::match_original_host("HostName real\nMatch originalhost h\nPort 1", 1)]
#[case::match_user("User you\nMatch user you\nPort 1", 1)]
#[case::match_user_default("Match user me\nPort 1", 1)]
#[case::match_local_user("Match localuser you\nPort 1", 22)]
#[case::match_both("Match host h user you\nPort 1", 22)]
#[case::match_negated("Match !host g\nPort 1", 1)]
#[case::match_ends_at_the_next("Match host h\nMatch host g\nPort 1", 22)]
#[case::match_final("Match final host real\nPort 1\nMatch all\nHostName real\n", 1)]
#[case::undecidable_and_irrelevant("Match host g exec x\nPort 1", 22)]
fn ports(#[case] text: &str, #[case] expected: u16) {
    assert_eq!(port("h", text), expected);
}

#[rstest]
#[case::undecidable("\nMatch host h exec \"test x\"\nPort 1", "config:2: 'Match exec' cannot be decided")]
#[case::undecidable_tag("Match tagged x\nPort 1", "config:1: 'Match tagged'")]
#[case::empty_match("Match\n", "config:1: 'match' lacks its value")]
#[case::port("Port 65536", "config:1: '65536' is no value for Port")]
#[case::port_zero("Port 0", "config:1: '0' is no value for Port")]
#[case::two_ports("Port 1 2", "config:1: one value was expected")]
#[case::unknown("\n\nFoo bar", "config:3: 'foo' is not a known option")]
#[case::quote("Port \"1", "config:1: a quote of 'port' is not closed")]
#[case::no_value("Port", "config:1: 'port' lacks its value")]
#[case::flag("Compression maybe", "config:1: 'maybe' is no value for compression")]
#[case::time("ConnectTimeout soon", "config:1: 'soon' is no value")]
#[case::token("IdentityFile %Z", "config:1: '%Z' is not supported")]
#[case::bind("BindAddress 10.0.0.1", "config:1: 'bindaddress' is not supported")]
#[case::shell("HostName $(id)\nProxyCommand nc %h", "config:2: a host or user name with special characters")]
#[case::itself("Include config", "config:1: too many files include each other")]
fn refused(#[case] text: &str, #[case] expected: &str) {
    let error = settings_of("h", text, &[]).unwrap_err();
    assert_eq!(error.kind, ncc_transport::FailureKind::BadConfiguration);
    assert!(error.evidence.contains(expected), "{}", error.evidence);
}

#[test]
fn what_is_not_for_us_is_not_looked_at() {
    assert_eq!(port("h", "Host g\nFoo bar\nPort 0\nHost h\nPort 1"), 1);
    assert_eq!(port("h", "IgnoreUnknown f*\nFoo bar\nPort 1"), 1);
    assert_eq!(port("h", "ForwardAgent yes\nSendEnv LANG LC_*\nControlMaster auto\nPort 1"), 1);
}

#[test]
fn included_files_are_part_of_their_block() {
    let more = [("one.conf", "Port 1\nHost g\nUser g\n"), ("two.conf", "User two\n")];
    let settings = settings_of("h", "Host h\nInclude *.conf\nHost *\nUser last", &more).unwrap();
    assert_eq!((settings.port, settings.user.as_str()), (1, "two"));
    let settings = settings_of("g", "Host h\nInclude *.conf\nHost *\nUser last", &more).unwrap();
    assert_eq!((settings.port, settings.user.as_str()), (22, "last"));
    assert_eq!(settings_of("h", "Include nothing-here*\nUser last", &[]).unwrap().user, "last");
}

#[test]
fn everything_has_its_meaning() {
    let text = "HostName %h.example.org\nUser you\nIdentityFile ~/.ssh/%r@%h\nIdentityFile \"/a b\"\nIdentitiesOnly yes\n\
                UserKnownHostsFile ~/known /more\nStrictHostKeyChecking accept-new\nCompression yes\nCiphers ^a,b\n\
                ConnectTimeout 1m30\nServerAliveInterval 15\nServerAliveCountMax 4\nProxyJump a@b:2,c\nHashKnownHosts yes\n\
                PreferredAuthentications password,publickey,gssapi-with-mic\nNumberOfPasswordPrompts 1\nBatchMode yes";
    let settings = settings_of("h", text, &[]).unwrap();
    assert_eq!((settings.host.as_str(), settings.user.as_str(), settings.port), ("h.example.org", "you", 22));
    let files: Vec<_> =
        settings.identity_files.iter().map(|(path, named)| (path.to_str().unwrap(), *named)).collect();
    assert_eq!(files, [("~/.ssh/you@h.example.org", true), ("/a b", true)]);
    assert_eq!(settings.user_known_hosts, [Path::new("~/known"), Path::new("/more")]);
    assert_eq!(settings.strictness, Strictness::AcceptNew);
    assert_eq!((settings.compression, settings.ciphers.as_deref()), (Some(true), Some("^a,b")));
    assert_eq!(settings.connect_timeout, Some(Duration::from_secs(90)));
    assert_eq!((settings.alive_interval, settings.alive_count), (Some(Duration::from_secs(15)), Some(4)));
    assert_eq!(settings.proxy, Proxy::Jump(vec!["a@b:2".parse().unwrap(), "c".parse().unwrap()]));
    assert_eq!(settings.methods, ["password", "publickey"]);
    assert!(settings.identities_only && settings.hash_known_hosts && settings.batch);
    assert_eq!((settings.password_prompts, settings.known_as()), (1, "h.example.org".to_owned()));
}

#[test]
fn nothing_configured_is_as_in_openssh() {
    let settings = settings_of("h", "", &[]).unwrap();
    assert_eq!((settings.host.as_str(), settings.user.as_str()), ("h", "me"));
    assert_eq!(settings.strictness, Strictness::Ask);
    let files: Vec<_> =
        settings.identity_files.iter().map(|(path, named)| (path.to_str().unwrap(), *named)).collect();
    assert_eq!(files, [("~/.ssh/id_rsa", false), ("~/.ssh/id_ecdsa", false), ("~/.ssh/id_ed25519", false)]);
    assert_eq!(settings.methods, ["publickey", "keyboard-interactive", "password"]);
    assert_eq!((settings.password_prompts, settings.proxy), (3, Proxy::None));
    assert!(!settings.identities_only && !settings.hash_known_hosts && !settings.batch);
}

#[test]
fn a_proxy_command_gets_its_tokens() {
    let text = "ProxyCommand nc -X \"5\" %h %p # %%\nPort 2\nUser you";
    let settings = settings_of("h", text, &[]).unwrap();
    assert_eq!(settings.proxy, Proxy::Command("nc -X \"5\" h 2 # %".to_owned()));
    assert_eq!(settings_of("h", "ProxyCommand none", &[]).unwrap().proxy, Proxy::None);
}
