use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn target(user: Option<&str>, host: &str, port: Option<u16>) -> Target {
    Target { user: user.map(str::to_owned), host: host.to_owned(), port }
}

#[rstest]
#[case::name("h", None, "h", None)]
#[case::user("user@h", Some("user"), "h", None)]
#[case::underscore("a_b.example", None, "a_b.example", None)]
#[case::port("h:2200", None, "h", Some(2200))]
#[case::port_left_empty("h:", None, "h", None)]
#[case::user_and_port("user@h:1", Some("user"), "h", Some(1))]
#[case::largest_port("h:65535", None, "h", Some(65535))]
#[case::zeros_before_the_port("h:0022", None, "h", Some(22))]
#[case::v4("10.0.0.1:22", None, "10.0.0.1", Some(22))]
#[case::bracketed("[::1]", None, "::1", None)]
#[case::bracketed_and_port("user@[2001:db8::1]:2200", Some("user"), "2001:db8::1", Some(2200))]
#[case::bracketed_port_left_empty("[::1]:", None, "::1", None)]
#[case::bare_v6("::1", None, "::1", None)]
#[case::any_v6("::", None, "::", None)]
#[case::bare_v6_user("user@::1", Some("user"), "::1", None)]
#[case::long_v6("2001:db8::1", None, "2001:db8::1", None)]
#[case::v6_never_has_a_bare_port("2001:db8::1:2200", None, "2001:db8::1:2200", None)]
#[case::v4_in_v6("::ffff:10.0.0.1", None, "::ffff:10.0.0.1", None)]
#[case::zone("fe80::1%eth0", None, "fe80::1%eth0", None)]
#[case::zone_encoded("fe80::1%25eth0", None, "fe80::1%eth0", None)]
#[case::zone_bracketed("[fe80::1%eth0]:22", None, "fe80::1%eth0", Some(22))]
#[case::zone_bracketed_encoded("[fe80::1%25eth0]", None, "fe80::1%eth0", None)]
#[case::zone_number("fe80::1%2", None, "fe80::1%2", None)]
#[case::zone_25("fe80::1%25", None, "fe80::1%25", None)]
#[case::zone_251("fe80::1%251", None, "fe80::1%251", None)]
#[case::zone_251_encoded("[fe80::1%251]", None, "fe80::1%1", None)]
#[case::zone_of_a_bridge("fe80::1%br-lan.5", None, "fe80::1%br-lan.5", None)]
#[case::many_ats("a@b@h", Some("a@b"), "h", None)]
#[case::domain_user(r"DOMAIN\alice@h", Some(r"DOMAIN\alice"), "h", None)]
#[case::percent("u@a%b", Some("u"), "a%b", None)]
#[case::international("müller.example", None, "müller.example", None)]
// https://github.com/NixOS/nix/issues/14685, https://github.com/systemd/systemd/pull/30777
#[case::nix_14685_slash("vmi/test", None, "vmi/test", None)]
#[case::nix_14685_slash_user_port("root@vmi/test:22", Some("root"), "vmi/test", Some(22))]
#[case::nix_14685_uri("ssh://root@vmi/test", Some("root"), "vmi/test", None)]
#[case::nix_14685_encoded("ssh://root@vmi%2Ftest", Some("root"), "vmi/test", None)]
#[case::vsock("vsock/3", None, "vsock/3", None)]
#[case::vsock_percent("vsock%3", None, "vsock%3", None)]
#[case::hash("web#1", None, "web#1", None)]
#[case::pattern_like("a*b!c=d~e^f", None, "a*b!c=d~e^f", None)]
#[case::question_mark_encoded("ssh://a%3Fb", None, "a?b", None)]
// https://github.com/warp-tech/warpgate/issues/1333, https://github.com/sshuttle/sshuttle/issues/994
#[case::warpgate_1333_colon("admin:web1@h:2299", Some("admin:web1"), "h", Some(2299))]
#[case::warpgate_1333_encoded("ssh://admin%3Aweb1@h", Some("admin:web1"), "h", None)]
#[case::user_with_hash("admin#web1@h", Some("admin#web1"), "h", None)]
#[case::user_with_hash_encoded("ssh://admin%23web1@h", Some("admin#web1"), "h", None)]
#[case::user_with_blank("John Doe@h", Some("John Doe"), "h", None)]
#[case::user_with_slash("a/b@h", Some("a/b"), "h", None)]
#[case::user_like_a_uri("ssh://a%3A%2F%2Fb@h", Some("a://b"), "h", None)]
#[case::user_with_at_encoded("ssh://a%40b@h", Some("a@b"), "h", None)]
#[case::percent_encoded_percent("ssh://a%25b", None, "a%b", None)]
#[case::scheme("ssh://h", None, "h", None)]
#[case::scheme_slash("ssh://user@h:22/", Some("user"), "h", Some(22))]
#[case::scheme_ng("ssh-ng://h", None, "h", None)]
#[case::empty_query("h?", None, "h", None)]
fn accepted(#[case] text: &str, #[case] user: Option<&str>, #[case] host: &str, #[case] port: Option<u16>) {
    let parsed: Target = text.parse().unwrap();
    assert_eq!(parsed, target(user, host, port));
    // What is printed can be typed.
    assert_eq!(parsed.to_string().parse::<Target>().unwrap(), parsed);
}

#[rstest]
#[case::empty("", TargetError::EmptyHost)]
#[case::only_a_user("user@", TargetError::EmptyHost)]
#[case::only_a_port(":22", TargetError::EmptyHost)]
#[case::only_a_scheme("ssh://", TargetError::EmptyHost)]
#[case::only_a_query("?a=b", TargetError::EmptyHost)]
#[case::empty_user("@h", TargetError::EmptyUser)]
#[case::option("-oProxyCommand=x", TargetError::LeadingDash { name: "-oProxyCommand=x".into() })]
#[case::option_as_host("user@-oProxyCommand=x", TargetError::LeadingDash { name: "-oProxyCommand=x".into() })]
#[case::option_as_user("-l@h", TargetError::LeadingDash { name: "-l".into() })]
#[case::option_with_escape("-\u{1b}[2J", TargetError::LeadingDash { name: "-\u{1b}[2J".into() })]
#[case::option_in_a_uri("ssh://-h", TargetError::LeadingDash { name: "-h".into() })]
#[case::password("ssh://user:secret@h", TargetError::Password { user: "user".into() })]
#[case::empty_password("ssh://user:@h", TargetError::Password { user: "user".into() })]
#[case::empty_user_with_password("ssh://:secret@h", TargetError::EmptyUser)]
#[case::empty_user_with_colon(":secret@h", TargetError::EmptyUser)]
#[case::comma("a,b", TargetError::InvalidCharacter { name: "a,b".into(), character: ',' })]
#[case::option_in_a_user("a -oProxyCommand=x@h", TargetError::LeadingDash { name: "a -oProxyCommand=x".into() })]
#[case::option_encoded("ssh://%2DoProxyCommand=x", TargetError::LeadingDash { name: "-oProxyCommand=x".into() })]
#[case::command_encoded("ssh://h%3Bid", TargetError::InvalidCharacter { name: "h;id".into(), character: ';' })]
#[case::colon_encoded("ssh://a%3Ab", TargetError::InvalidCharacter { name: "a:b".into(), character: ':' })]
#[case::at_encoded("ssh://a%40b", TargetError::InvalidCharacter { name: "a@b".into(), character: '@' })]
#[case::control_encoded("ssh://a%1bb", TargetError::InvalidCharacter { name: "a\u{1b}b".into(), character: '\u{1b}' })]
#[case::percent_alone("ssh://a%b", TargetError::InvalidEncoding { name: "a%b".into() })]
#[case::percent_not_utf8("ssh://%ff@h", TargetError::InvalidEncoding { name: "%ff".into() })]
#[case::store_path("/nix/store/x", TargetError::IsPath { name: "/nix/store/x".into() })]
#[case::store_path_in_a_uri("ssh://h/nix/store/x", TargetError::IsPath { name: "h/nix/store/x".into() })]
#[case::relative_path("./result", TargetError::IsPath { name: "./result".into() })]
#[case::port_word("h:abc", TargetError::InvalidPort { port: "abc".into() })]
#[case::port_zero("h:0", TargetError::InvalidPort { port: "0".into() })]
#[case::port_too_large("h:65536", TargetError::InvalidPort { port: "65536".into() })]
#[case::port_sign("h:+22", TargetError::InvalidPort { port: "+22".into() })]
#[case::port_escape("h:\u{1b}", TargetError::InvalidPort { port: "\u{1b}".into() })]
#[case::two_ports("h:22:33", TargetError::InvalidIpv6 { address: "h:22:33".into() })]
#[case::unclosed("[::1", TargetError::InvalidIpv6 { address: "[::1".into() })]
#[case::after_bracket("[::1]22", TargetError::InvalidIpv6 { address: "[::1]22".into() })]
#[case::bracketed_name("[h]:22", TargetError::InvalidIpv6 { address: "h".into() })]
#[case::empty_brackets("[]", TargetError::InvalidIpv6 { address: String::new() })]
#[case::empty_zone("fe80::1%", TargetError::InvalidIpv6 { address: "fe80::1%".into() })]
#[case::zone_with_a_command("fe80::1%$(id)", TargetError::InvalidIpv6 { address: "fe80::1%$(id)".into() })]
#[case::blank("a b", TargetError::InvalidCharacter { name: "a b".into(), character: ' ' })]
#[case::newline("h\n", TargetError::InvalidCharacter { name: "h\n".into(), character: '\n' })]
#[case::nul("h\0", TargetError::InvalidCharacter { name: "h\0".into(), character: '\0' })]
#[case::escape("\u{1b}[2J@h", TargetError::InvalidCharacter { name: "\u{1b}[2J".into(), character: '\u{1b}' })]
#[case::command("h;id", TargetError::InvalidCharacter { name: "h;id".into(), character: ';' })]
#[case::command_in_user("$(id)`id`@h", TargetError::InvalidCharacter { name: "$(id)`id`".into(), character: '(' })]
#[case::user_ends_in_backslash("a\\@h", TargetError::InvalidCharacter { name: "a\\".into(), character: '\\' })]
#[case::scheme_unknown("https://h", TargetError::UnknownScheme { scheme: "https".into() })]
#[case::param("h?a=b", TargetError::UnexpectedParam { key: "a".into() })]
#[case::no_key("h?=a", TargetError::InvalidParam { param: "=a".into() })]
#[case::bad_percent("h?a=%4", TargetError::InvalidParam { param: "a=%4".into() })]
#[case::control("h?a=%0a", TargetError::InvalidParam { param: "a=%0a".into() })]
#[case::not_utf8("h?a=%ff", TargetError::InvalidParam { param: "a=%ff".into() })]
#[case::twice("h?a=1&a=2", TargetError::RepeatedParam { key: "a".into() })]
fn refused(#[case] text: &str, #[case] expected: TargetError) {
    let error = text.parse::<Target>().unwrap_err();
    assert_eq!(error, expected);
    assert!(!error.to_string().contains(|character: char| character.is_control()), "{error}");
}

#[test]
fn a_password_is_in_no_message() {
    let error = "ssh://user:secret@h".parse::<Target>().unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"));
    assert!(error.to_string().contains("visible to everybody"));
}

#[rstest]
#[case("localhost", true)]
#[case("localhost:", true)]
#[case("root@localhost", false)]
#[case("localhost:22", false)]
#[case("LOCALHOST", false)]
#[case("localhost.", false)]
#[case("127.0.0.1", false)]
fn localhost(#[case] text: &str, #[case] expected: bool) {
    assert_eq!(text.parse::<Target>().unwrap().is_localhost(), expected);
}

#[rstest]
#[case::bare("h?remote-program=x", None, &[("remote-program", "x")])]
#[case::several("ssh://u@h:22/?compress=true&ssh-key=/a%20b", Some(Scheme::Ssh), &[("compress", "true"), ("ssh-key", "/a b")])]
#[case::nested("ssh-ng://h?remote-store=local?root=/mnt", Some(Scheme::SshNg), &[("remote-store", "local?root=/mnt")])]
#[case::nested_uri("h?remote-store=unix:///run/d.sock", None, &[("remote-store", "unix:///run/d.sock")])]
#[case::plus_is_a_plus("h?base64-ssh-public-host-key=a+b/c==", None, &[("base64-ssh-public-host-key", "a+b/c==")])]
#[case::empty_value("h?a=&&b=1&", None, &[("a", ""), ("b", "1")])]
#[case::encoded_key("h?%61=%C3%A9", None, &[("a", "é")])]
#[case::no_value("h?a&b", None, &[("a", ""), ("b", "")])]
fn parameters(#[case] text: &str, #[case] scheme: Option<Scheme>, #[case] pairs: &[(&str, &str)]) {
    let argument: HostArgument = text.parse().unwrap();
    assert_eq!(argument.scheme, scheme);
    assert_eq!(argument.params.iter().collect::<Vec<_>>(), pairs);
    assert_eq!(argument.params.value("none"), None);
}

proptest! {
    #[test]
    fn anything_is_safe_or_refused(text in r"[-a:@\[\]%?/\\ ;$'0-9\PC]{0,24}") {
        if let Ok(argument) = text.parse::<HostArgument>() {
            let target = argument.target;
            for name in target.user().into_iter().chain([target.host()]) {
                prop_assert!(!name.is_empty() && !name.starts_with('-'));
                let bad = name.chars().find(|&c| c.is_control() || (c.is_whitespace() && c != ' ') || "'\"`;&<>|(){}".contains(c));
                prop_assert_eq!(bad, None);
            }
            prop_assert_eq!(target.to_string().parse::<Target>(), Ok(target));
        }
    }

    #[test]
    fn addresses_round_trip(bits: u128, port in proptest::option::of(1u16..)) {
        let host = Ipv6Addr::from(bits).to_string();
        let written = port.map_or(host.clone(), |port| format!("[{host}]:{port}"));
        prop_assert_eq!(written.parse::<Target>().unwrap(), target(None, &host, port));
    }
}
