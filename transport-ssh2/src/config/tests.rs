//! What files say of a host.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
    time::Duration,
};

use ncc_transport_ssh::test_util::install_stock_ssh_configs;
use rstest::rstest;

use super::*;

fn surroundings(home: &Path) -> Surroundings {
    Surroundings {
        home: Some(home.to_owned()),
        local_user: Some("me".to_owned()),
        local_host: "here.example.org".to_owned(),
        system: home.join("etc"),
        environment: |name| match name {
            "A" => Some("${A}%h".to_owned()),
            _ => None,
        },
    }
}

/// A file as an editor of the user's leaves it, whatever the umask is here.
fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}

fn settings_of(host: &str, text: &str, more: &[(&str, &str)]) -> Result<Settings, ConnectionError> {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join(".ssh")).unwrap();
    for (name, text) in more {
        write(&home.path().join(".ssh").join(name), text);
    }
    let path = home.path().join(".ssh/config");
    write(&path, text);
    let mut settings = read(&surroundings(home.path()), host, &path, Source::USER)?;
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

fn read(
    surroundings: &Surroundings,
    host: &str,
    path: &Path,
    source: Source,
) -> Result<Settings, ConnectionError> {
    let mut raw = Raw::new(surroundings, host);
    raw.read(path, source)?;
    if raw.begin_final_pass()? {
        raw.read(path, source)?;
    }
    Settings::resolve(&raw)
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
#[case::case_of_keywords("HOST h\nPORT 1", 1)]
#[case::case_of_hosts("Host H\nPort 1", 22)]
#[case::case_of_hosts_in_match("Match host H\nPort 1", 1)]
#[case::case_of_users("Match user ME\nPort 1", 22)]
#[case::by_name("Port ssh", 22)]
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
#[case::match_final_of_the_real_name("Match final all\nHost real\nPort 1\nHost h\nHostName real", 1)]
#[case::exec("Match exec \"test %h = h\"\nPort 1", 1)]
#[case::exec_fails("Match exec false\nPort 1", 22)]
#[case::exec_negated("Match !exec=false\nPort 1", 1)]
#[case::exec_of_others("Match host g exec \"touch /nowhere/x\"\nPort 1", 22)]
#[case::tag("Tag t\nMatch tagged t,u\nPort 1", 1)]
#[case::no_tag("Match tagged t\nPort 1", 22)]
#[case::sessions_of_a_copy("Match sessiontype exec\nPort 1", 1)]
#[case::undecidable_and_irrelevant("Match host g localnetwork 10.0.0.0/8\nPort 1", 22)]
fn ports(#[case] text: &str, #[case] expected: u16) {
    assert_eq!(port("h", text), expected);
}

#[rstest]
#[case::undecidable(
    "\nMatch host h localnetwork 10.0.0.0/8\nPort 1",
    "config:2: the condition 'Match localnetwork' is not supported by the libssh2 transport"
)]
#[case::all_and_more("Match all host h\nPort 1", "config:1: 'Match all' cannot be combined")]
#[case::exec_with_a_shell_s_words(
    "HostName $(id)\nMatch exec \"x %h\"",
    "config:2: a host or user name with special"
)]
#[case::refused_by_itself("RefuseConnection \"it is retired\"", "config:1: it is retired")]
#[case::no_such_user(
    "IdentityFile ~nobody.knows/x",
    "config:1: the home directory of 'nobody.knows' is not known"
)]
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
    assert_eq!(port("h", "IgnoreUnknown f*\nFOO bar\nPort 1"), 1);
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

/// k0sproject/rig#380 <https://github.com/k0sproject/rig/pull/380>, net-ssh/net-ssh#692 <https://github.com/net-ssh/net-ssh/issues/692>
#[rstest]
#[case::none_above_a_jump("Host h\nProxyCommand none\nHost *\nProxyJump b", Proxy::None)]
#[case::command_above_a_jump("ProxyCommand nc\nProxyJump b", Proxy::Command("nc".to_owned()))]
#[case::jump_above_a_command("ProxyJump b\nProxyCommand nc", Proxy::Jump(vec!["b".parse().unwrap()]))]
#[case::no_jump_above_a_jump("ProxyJump none\nProxyJump b", Proxy::None)]
#[case::no_jump_above_a_command("ProxyJump none\nProxyCommand nc", Proxy::Command("nc".to_owned()))]
fn the_first_way_wins(#[case] text: &str, #[case] expected: Proxy) {
    assert_eq!(settings_of("h", text, &[]).unwrap().proxy, expected);
}

#[test]
fn variables_and_tokens_are_replaced_once() {
    let settings = settings_of("h", "IdentityFile /${A}/%h/$A/%%h", &[]).unwrap();
    assert_eq!(settings.identity_files, [(PathBuf::from("/${A}%h/h/$A/%h"), true)]);
}

#[test]
fn hidden_files_are_not_included_by_a_star() {
    let more = [(".hidden.conf", "Port 1"), ("seen.conf", "User seen")];
    let settings = settings_of("h", "Include *.conf", &more).unwrap();
    assert_eq!((settings.port, settings.user.as_str()), (22, "seen"));
    assert_eq!(settings_of("h", "Include .*.conf", &more).unwrap().port, 1);
}

/// Files of the system include from beside them, those of the user from `~/.ssh`, wherever they themselves are.
#[test]
fn whose_file_it_is_decides_where_it_includes_from() {
    let home = tempfile::tempdir().unwrap();
    for directory in [".ssh", "etc"] {
        fs::create_dir(home.path().join(directory)).unwrap();
    }
    let at = |name: &str| home.path().join(name);
    write(&at("etc/ssh_config"), "Include more");
    write(&at("etc/more"), "Port 1");
    write(&at(".ssh/more"), "Port 2");
    let surroundings = surroundings(home.path());
    let port = |path: &str, source| read(&surroundings, "h", &at(path), source).unwrap().port;
    assert_eq!(port("etc/ssh_config", Source::SYSTEM), 1);
    assert_eq!(port("etc/ssh_config", Source::NAMED), 2);
    write(&at("etc/ssh_config"), "Include ~/.ssh/more");
    assert_eq!(port("etc/ssh_config", Source::NAMED), 2);
    let error = read(&surroundings, "h", &at("etc/ssh_config"), Source::SYSTEM).unwrap_err();
    assert!(error.evidence.contains("ssh_config:1: '~' is not possible"), "{error}");
}

/// Somebody else's ProxyCommand would be executed.
#[test]
fn files_that_others_may_change_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let surroundings = surroundings(home.path());
    write(&at("main"), &format!("Port 1\nInclude {}", at("more").display()));
    write(&at("more"), "User you");
    let read = |source| read(&surroundings, "h", &at("main"), source);
    assert_eq!(read(Source::USER).unwrap().user, "you");
    let chmod = |name: &str, mode| fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();

    chmod("main", 0o664);
    let error = read(Source::USER).unwrap_err();
    let evidence = format!("{} may be changed by others: its permissions are 0664", at("main").display());
    assert_eq!(error.evidence, evidence);
    // Named by hand, or the system's: whoever may change that one may do anything.
    assert_eq!(read(Source::NAMED).unwrap().port, 1);
    assert_eq!(read(Source::SYSTEM).unwrap().port, 1);
    // But not what they include.
    chmod("main", 0o644);
    chmod("more", 0o646);
    for source in [Source::USER, Source::NAMED, Source::SYSTEM] {
        assert!(read(source).unwrap_err().evidence.contains("its permissions are 0646"));
    }
    if rustix::process::getuid().is_root() {
        chmod("more", 0o644);
        std::os::unix::fs::chown(at("more"), Some(54321), None).unwrap();
        assert!(read(Source::USER).unwrap_err().evidence.contains("the user with the number 54321"));
    }
}

/// Opening a FIFO waits for whoever writes to it.
#[test]
fn what_is_no_file_is_not_waited_for() {
    let home = tempfile::tempdir().unwrap();
    let fifo = home.path().join("fifo");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let main = home.path().join("main");
    write(&main, &format!("Include {}", fifo.display()));
    let surroundings = surroundings(home.path());
    for path in [&fifo, &main] {
        let error = read(&surroundings, "h", path, Source::USER).unwrap_err();
        assert!(error.to_string().contains("it is not a regular file"), "{error}");
    }
    let error = read(&surroundings, "h", Path::new("/dev/zero"), Source::NAMED).unwrap_err();
    assert!(error.to_string().contains("more than"), "{error}");
    assert_eq!(read(&surroundings, "h", Path::new("/dev/null"), Source::NAMED).unwrap().port, 22);
}

/// In a container that was started under any number; nix-community/nix-user-chroot#15
/// <https://github.com/nix-community/nix-user-chroot/issues/15>
#[test]
fn nobody_needs_a_name_or_a_home_here() {
    let nobody = Surroundings { home: None, local_user: None, ..surroundings(Path::new("/nowhere")) };
    let read = |text: &str| {
        let mut raw = Raw::new(&nobody, "h");
        text.lines().for_each(|line| raw.set_line(line, Origin::Words).unwrap());
        Settings::resolve(&raw)
    };
    let settings = read("User root\nIdentityFile /key\nUserKnownHostsFile /known").unwrap();
    assert_eq!(settings.identity_files, [(PathBuf::from("/key"), true)]);
    assert_eq!(read("User root").unwrap().identity_files, []);
    assert!(read("Port 1").unwrap_err().evidence.contains("this user has no name"));
    assert!(
        read("User root\nIdentityFile ~/key").unwrap_err().evidence.contains("home directory is not known")
    );
    assert!(read("User root\nIdentityFile %d/key").unwrap_err().evidence.contains("what '%d' stands for"));
}

/// alebeck/boring#20 <https://github.com/alebeck/boring/issues/20>: `RequiredRSASize` stood between this transport and every host of
/// Fedora and RHEL.
#[test]
fn whole_distributions_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let stock = install_stock_ssh_configs(directory.path());
    assert!(stock.len() >= 8, "{stock:?}");
    for (system, path) in stock {
        let settings = read(&surroundings(directory.path()), "h", &path, Source::SYSTEM)
            .unwrap_or_else(|error| panic!("{system}: {error}"));
        let has_policy = ["fedora", "rhel-9", "opensuse"].contains(&system.as_str());
        assert_eq!(settings.rsa_bits, if has_policy { 2048 } else { 1024 }, "{system}");
        assert_eq!(settings.ciphers.is_some(), has_policy, "{system}");
        assert_eq!(settings.hash_known_hosts, system.starts_with("debian"), "{system}");
    }
}

/// What `ssh -G` says of a host, or `None` if it refuses the file.
fn ssh_g(path: &Path, host: &str, more: &[&str]) -> Option<BTreeMap<String, Vec<String>>> {
    let output = Command::new("ssh")
        .args(more)
        .args(["-G", "-F"])
        .arg(path)
        .arg(host)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let (keyword, value) = line.split_once(' ').unwrap_or((line, ""));
        map.entry(keyword.to_owned()).or_default().push(value.to_owned());
    }
    output.status.success().then_some(map)
}

/// The same of ours, for the options that `ssh -G` shows as they were given.
fn ours(settings: &Settings) -> BTreeMap<&'static str, Vec<String>> {
    let home = std::env::home_dir().unwrap();
    let shown = |paths: &mut dyn Iterator<Item = &PathBuf>, home_as: &str| {
        let paths = paths.map(|path| match path.strip_prefix(&home) {
            Ok(rest) => format!("{home_as}/{}", rest.display()),
            Err(_) => path.display().to_string(),
        });
        paths.collect::<Vec<_>>()
    };
    let flag = |flag: bool| vec![if flag { "yes" } else { "no" }.to_owned()];
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs().to_string());
    let proxy = |name: &str| match &settings.proxy {
        Proxy::Command(command) if name == "proxycommand" => vec![command.clone()],
        Proxy::Jump(hops) if name == "proxyjump" => {
            vec![hops.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")]
        }
        _ => vec![],
    };
    let method = |name: &str| settings.methods.iter().any(|method| method == name);
    let whole_home = home.display().to_string();
    let mut map = BTreeMap::from([
        ("hostname", vec![settings.host.clone()]),
        ("user", vec![settings.user.clone()]),
        ("port", vec![settings.port.to_string()]),
        (
            "addressfamily",
            vec![match settings.address_family {
                AddressFamily::Any => "any".to_owned(),
                AddressFamily::V4 => "inet".to_owned(),
                AddressFamily::V6 => "inet6".to_owned(),
            }],
        ),
        ("batchmode", flag(settings.batch)),
        ("certificatefile", shown(&mut settings.certificate_files.iter(), "~")),
        ("compression", flag(settings.compression.unwrap_or(false))),
        ("connecttimeout", vec![seconds(settings.connect_timeout).unwrap_or_else(|| "none".to_owned())]),
        ("serveralivecountmax", vec![settings.alive_count.unwrap_or(3).to_string()]),
        ("hashknownhosts", flag(settings.hash_known_hosts)),
        ("hostkeyalias", settings.host_key_alias.iter().cloned().collect()),
        ("identitiesonly", flag(settings.identities_only)),
        ("kbdinteractiveauthentication", flag(method("keyboard-interactive"))),
        ("passwordauthentication", flag(method("password"))),
        ("numberofpasswordprompts", vec![settings.password_prompts.to_string()]),
        ("proxycommand", proxy("proxycommand")),
        ("proxyjump", proxy("proxyjump")),
        (
            "stricthostkeychecking",
            vec![match settings.strictness {
                Strictness::Yes => "true".to_owned(),
                Strictness::Ask => "ask".to_owned(),
                Strictness::AcceptNew => "accept-new".to_owned(),
                Strictness::No => "false".to_owned(),
            }],
        ),
        ("userknownhostsfile", vec![shown(&mut settings.user_known_hosts.iter(), &whole_home).join(" ")]),
        ("globalknownhostsfile", vec![shown(&mut settings.global_known_hosts.iter(), "~").join(" ")]),
    ]);
    if settings.identity_files.iter().all(|(_, named)| *named) && !settings.identity_files.is_empty() {
        map.insert("identityfile", shown(&mut settings.identity_files.iter().map(|(path, _)| path), "~"));
    }
    // Debian's ssh has another default with BatchMode.
    if let Some(interval) = seconds(settings.alive_interval) {
        map.insert("serveraliveinterval", vec![interval]);
    }
    for (keyword, list) in [
        ("ciphers", &settings.ciphers),
        ("macs", &settings.macs),
        ("kexalgorithms", &settings.key_exchange),
        ("hostkeyalgorithms", &settings.host_key_algorithms),
    ] {
        if let Some(list) = list {
            map.insert(keyword, vec![list.clone()]);
        }
    }
    map
}

/// What is read differently there and here.
fn compare_with_ssh(path: &Path, host: &str, what: &str, more: &[&str]) -> Vec<String> {
    let ours_read = read(&Surroundings::of_this_process(), host, path, Source::NAMED);
    let (settings, theirs) = match (ours_read, ssh_g(path, host, more)) {
        (Ok(settings), Some(theirs)) => (settings, theirs),
        (Err(_), None) => return Vec::new(),
        (Err(error), Some(_)) => return vec![format!("ssh reads what is refused here: {error}: {what}")],
        (Ok(_), None) => return vec![format!("ssh refuses what is read here: {what}")],
    };
    let mut differences = Vec::new();
    for (keyword, value) in ours(&settings) {
        let theirs = theirs.get(keyword).cloned().unwrap_or_default();
        // Names of hosts have no case.
        let same = |(one, other): (&String, &String)| one.eq_ignore_ascii_case(other);
        if theirs.len() != value.len() || !theirs.iter().zip(&value).all(same) {
            differences.push(format!("{keyword}: ssh has {theirs:?}, ours is {value:?}: {what}"));
        }
    }
    differences
}

/// Nothing is believed of `ssh_config` that OpenSSH's own program does not say.
#[test]
fn ssh_reads_the_same() {
    if Command::new("ssh").arg("-V").stderr(Stdio::null()).status().is_err() {
        return ncc_transport::test_util::leave_out("no ssh is installed");
    }
    let directory = tempfile::tempdir().unwrap();
    let mut differences = Vec::new();
    // The name that only one vendor's ssh knows.
    let other = &["-o", "IgnoreUnknown=RSAMinSize"];
    for (system, path) in install_stock_ssh_configs(directory.path()) {
        for host in ["h", "linux-builder", "vsock/3", "machine/.host"] {
            // What a host that needs another process's socket is told is by name.
            if read(&Surroundings::of_this_process(), host, &path, Source::NAMED)
                .is_err_and(|error| error.evidence.contains("'proxyusefdpass' is not supported"))
            {
                assert_ne!(host, "h");
                continue;
            }
            differences.extend(compare_with_ssh(&path, host, &format!("{system} for {host}"), other));
        }
    }
    let path = directory.path().join("config");
    let included = directory.path().join("included");
    write(&included, "Port 77\nHost h\nUser included\nHost other\nUser other\n");
    for text in CONFIGURATIONS {
        let text = text.replace("INCLUDED", &included.display().to_string());
        write(&path, &text);
        for host in ["h", "H.org", "g"] {
            differences.extend(compare_with_ssh(&path, host, &format!("{host} in {text:?}"), &[]));
        }
    }
    assert!(differences.is_empty(), "{differences:#?}");
}

/// Configurations as people write them, and their edges.
const CONFIGURATIONS: &[&str] = &[
    "Port 1",
    "Port=1",
    "  port =  1  # why",
    "Port \"1\"",
    "Port 1 2",
    "Port 0",
    "Port 65536",
    "Port 022",
    "Port ssh",
    "Port = = 7",
    "Port\t7  ",
    "\"Port\" 7",
    "Port 3\r\n",
    "Port",
    "Host h\nPort 1\nHost *\nPort 2",
    "Host g h\nPort 1",
    "Host *.org ?\nPort 1",
    "Host * !h\nPort 1",
    "Host !h *\nPort 1",
    "Host H\nPort 1",
    "HOST h\nPORT 1",
    "Host \"h\"\nPort 1",
    "Host a,h\nPort 1",
    "Host h # x\nPort 7",
    "Match all\nPort 1",
    "Match all host h\nPort 1",
    "Match\nPort 1",
    "Match host h,i\nPort 1",
    "Match host h,!h\nPort 1",
    "Match host H\nPort 1",
    "Match host=h\nPort 1",
    "Match !host g\nPort 1",
    "Match host h !user nobody\nPort 1",
    "HostName real\nMatch host real\nPort 1",
    "HostName real\nMatch originalhost h\nPort 1",
    "User you\nMatch user you\nPort 1",
    "User you\nMatch user YOU\nPort 1",
    "Match localuser nobody\nPort 1",
    "Match final host real\nPort 1\nMatch all\nHostName real",
    "Match final all\nHost real\nPort 7\nHost h\nHostName real",
    "Match final\nHostName zz\nPort 4",
    "Match !final\nPort 3",
    "Match canonical\nPort 3",
    "Match exec \"test %h = h\"\nPort 5",
    "Match exec \"test %n = H.org\"\nPort 5",
    "Match !exec \"false\"\nPort 6",
    "Match exec \"exit 1\"\nPort 6",
    "Match nonsense x\nPort 6",
    "Include INCLUDED",
    "Host g\nInclude INCLUDED",
    "Host *\nInclude INCLUDED\nPort 5",
    "Include INCLUDED nothing-here*\nUser late",
    "Include INCLUDED/not",
    "HostName %h.example.org",
    "HostName REAL%%h",
    "HostName 10.0.0.1\nHostKeyAlias other",
    "User you",
    "User a b",
    "IdentityFile ~/.ssh/id_a\nIdentityFile \"/a b\"",
    "IdentityFile a\\ b",
    "IdentityFile 'a \"b'",
    "IdentityFile a\"b c\"d",
    "IdentityFile \"a",
    "IdentityFile /a\nIdentityFile /a\nIdentityFile /b",
    "IdentityFile2 /x",
    "CertificateFile ~/cert\nCertificateFile /other",
    "IdentitiesOnly yes\nBatchMode True\nHashKnownHosts YES",
    "IdentitiesOnly maybe",
    "UserKnownHostsFile ~/known /more",
    "UserKnownHostsFile /dev/null\nGlobalKnownHostsFile /dev/null",
    "GlobalKnownHostsFile /a /b",
    "StrictHostKeyChecking accept-new",
    "StrictHostKeyChecking off",
    "StrictHostKeyChecking maybe",
    "StrictHostKeyChecking Yes",
    "AddressFamily INET",
    "AddressFamily inet6",
    "AddressFamily ipv4",
    "Compression yes",
    "Compression maybe",
    "ConnectTimeout 1m30",
    "ConnectTimeout 90s",
    "ConnectTimeout none",
    "ConnectTimeout soon",
    "ServerAliveInterval 1h",
    "ServerAliveInterval 15\nServerAliveCountMax 4",
    "ConnectionAttempts 4\nNumberOfPasswordPrompts 1",
    "PasswordAuthentication no\nKbdInteractiveAuthentication no",
    "ChallengeResponseAuthentication no\nKbdInteractiveAuthentication yes",
    "KbdInteractiveAuthentication yes\nChallengeResponseAuthentication no",
    "Ciphers aes128-ctr,aes256-ctr\nMACs hmac-sha2-256\nKexAlgorithms curve25519-sha256\nHostKeyAlgorithms ssh-ed25519",
    "ProxyJump a@b:2,c",
    "ProxyJump b # x",
    "ProxyJump ssh://u@b:3",
    "ProxyJump none",
    "ProxyJump none\nProxyJump b",
    "ProxyJump none\nProxyCommand nc",
    "ProxyJump b\nProxyCommand nc",
    "ProxyCommand none\nProxyJump b",
    "ProxyCommand nc\nProxyJump b",
    "ProxyCommand none\nProxyCommand nc\nProxyJump b",
    "Host h\nProxyCommand none\nHost *\nProxyJump b",
    "ProxyCommand nc -X \"5\"  x",
    "ProxyCommand=nc x # y",
    "NoSuchOption 1",
    "IgnoreUnknown no*\nNoSuchOption 1\nPort 3",
    "RequiredRSASize 2048\nRekeyLimit default none\nIPQoS af21 cs1",
    "KeepAlive yes\nProtocol 2\nCompressionLevel 6\nRhostsRSAAuthentication no\nPort 3",
    "LogLevel QUIET\nSendEnv LANG LC_*\nSetEnv A=b C=d\nForwardAgent yes\nControlMaster auto\nControlPath ~/c-%C\nControlPersist 10m",
    "VisualHostKey yes\nVerifyHostKeyDNS ask\nUpdateHostKeys no\nAddKeysToAgent yes\nCheckHostIP no\nTCPKeepAlive no",
    "RemoteForward 1 localhost:2\nLocalForward 3 h:4\nDynamicForward 5\nExitOnForwardFailure yes\nForwardX11 no\nRequestTTY no",
];
