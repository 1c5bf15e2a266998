//! What the user's configuration says of a host, as far as it matters here.

use std::{collections::HashMap, ffi::OsString, process::Stdio, time::Duration};

use ncc_transport::PinnedHostKey;
use tokio::process::Command;

use crate::{KeepAlive, OpenSshOptions};

/// How long `ssh -G` may take. It answers at once unless a `Match exec` in the user's configuration is slow.
const PATIENCE: Duration = Duration::from_secs(5);

/// What `ssh -G` printed: lower-case keyword, first value. Empty if it was not asked or did not answer.
#[derive(Debug, Default)]
pub(crate) struct Configuration(HashMap<String, String>);

impl Configuration {
    /// Runs `program`, which is ssh, with these words and `-G`.
    pub(crate) async fn ask(program: &OsString, words: &[OsString], host: &str) -> Self {
        let output = Command::new(program)
            .args(words)
            .args(["-G", "--", host])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .output();
        match tokio::time::timeout(PATIENCE, output).await {
            Ok(Ok(output)) if output.status.success() => {
                Self::parse(&String::from_utf8_lossy(&output.stdout))
            }
            // What is wrong will show when ssh is started for the channel, together with its message.
            _ => Self::default(),
        }
    }

    fn parse(text: &str) -> Self {
        let mut values = HashMap::new();
        for (keyword, value) in text.lines().filter_map(|line| line.split_once(' ')) {
            values.entry(keyword.to_owned()).or_insert_with(|| value.trim().to_owned());
        }
        Self(values)
    }

    /// Whether the keyword has one of these values; false if ssh did not mention it.
    fn says(&self, keyword: &str, values: &[&str]) -> bool {
        self.0.get(keyword).is_some_and(|value| values.contains(&value.as_str()))
    }

    /// Whether ssh leaves no word when it fails. "SILENT" is what `-G` prints for QUIET.
    pub(crate) fn is_quiet(&self) -> bool {
        self.says("loglevel", &["SILENT", "QUIET", "FATAL"])
    }

    /// Where the user's own control socket is, or would be.
    pub(crate) fn control_path(&self) -> Option<&str> {
        self.0.get("controlpath").map(String::as_str).filter(|path| *path != "none")
    }

    /// Whether the first ssh leaves a master behind that further ones use.
    pub(crate) fn makes_master(&self) -> bool {
        self.would_be_master() && !self.says("controlpersist", &["no"])
    }

    fn would_be_master(&self) -> bool {
        self.says("controlmaster", &["true", "yes", "auto", "ask", "autoask"])
    }

    /// What makes a pinned host key a pin, whatever the user's configuration and own options say of host keys. `file` is the
    /// quoted path of a `known_hosts` file that has the key under [`PINNED`].
    pub(crate) fn pin(&self, key: &PinnedHostKey, file: &str) -> Vec<String> {
        let mut algorithms = key.algorithms().join(",");
        // Whoever has to do with servers that know no better has said so.
        let list = self.0.get("hostkeyalgorithms");
        if key.key_type() == "ssh-rsa"
            && list.is_some_and(|list| list.split(',').any(|name| name == "ssh-rsa"))
        {
            algorithms.push_str(",ssh-rsa");
        }
        let mut settings: Vec<String> = [
            "StrictHostKeyChecking=yes",
            "GlobalKnownHostsFile=/dev/null",
            "VerifyHostKeyDNS=no",
            "UpdateHostKeys=no",
            "CheckHostIP=no",
            "NoHostAuthenticationForLocalhost=no",
        ]
        .map(str::to_owned)
        .into();
        settings.push(format!("HostKeyAlias={PINNED}"));
        settings.push(format!("UserKnownHostsFile={file}"));
        settings.push(format!("HostKeyAlgorithms={algorithms}"));
        // Only mentioned where it is set, and not known before OpenSSH 8.5.
        if self.0.is_empty() || self.0.contains_key("knownhostscommand") {
            settings.push("KnownHostsCommand=none".to_owned());
        }
        // With it, which some distributions have added, the host is known by Kerberos and not by its key.
        if self.says("gssapikeyexchange", &["yes"]) {
            settings.push("GSSAPIKeyExchange=no".to_owned());
        }
        settings
    }

    /// What a byte stream cannot do without, each `Keyword=value`: these come before the user's own options.
    pub(crate) fn necessities(&self) -> Vec<String> {
        // A configured command makes ssh refuse ours, and a LocalCommand prints into the stream.
        let mut settings = vec!["RemoteCommand=none".to_owned(), "PermitLocalCommand=no".to_owned()];
        // Settings for hosts that are only used for forwarding: no command, no stdin, in the background. Only mentioned, and
        // only understood, by OpenSSH 8.7 and later.
        if self.says("sessiontype", &["none", "subsystem"]) {
            settings.push("SessionType=default".to_owned());
        }
        if self.says("stdinnull", &["yes", "true"]) {
            settings.push("StdinNull=no".to_owned());
        }
        if self.says("forkafterauthentication", &["yes", "true"]) {
            settings.push("ForkAfterAuthentication=no".to_owned());
        }
        settings
    }

    /// The settings to add behind the user's own options, each `Keyword=value`.
    pub(crate) fn additions(&self, options: &OpenSshOptions) -> Vec<String> {
        let mut additions = Vec::new();
        // "0" and "none" are how -G prints what is not set. Who wants just that says so in NIX_SSHOPTS, which comes before.
        let unset = |keyword, unset| !self.0.contains_key(keyword) || self.says(keyword, &[unset]);
        // Debian's ssh sets this by itself for BatchMode; our count of 3 would make 15 minutes of it.
        let debians_own = self.says("batchmode", &["yes"]) && self.says("serveraliveinterval", &["300"]);
        if let Some(KeepAlive { interval, count, .. }) = options.keep_alive
            && (unset("serveraliveinterval", "0") || debians_own)
        {
            additions.push(format!("ServerAliveInterval={}", whole_seconds(interval)));
            // Whoever has set a count means it.
            if unset("serveralivecountmax", "3") {
                additions.push(format!("ServerAliveCountMax={count}"));
            }
        }
        if let Some(timeout) = options.connect_timeout
            && unset("connecttimeout", "none")
        {
            additions.push(format!("ConnectTimeout={}", whole_seconds(timeout)));
        }
        additions
    }

    /// How this ssh is to share its connection. `socket` is the quoted path of that of a private master; `shares` says that the
    /// master is there; `persists`, that it is not to end with its own channel.
    pub(crate) fn sharing(&self, socket: Option<&str>, shares: bool, persists: bool) -> Vec<String> {
        let mut settings = Vec::new();
        if let Some(socket) = socket {
            settings.push("ControlMaster=auto".to_owned());
            settings.push(format!("ControlPersist={}", if persists { "10" } else { "no" }));
            settings.push(format!("ControlPath={socket}"));
            if shares {
                settings.push("BatchMode=yes".to_owned());
            }
        } else if self.would_be_master() && !self.makes_master() {
            // Without ControlPersist, the first ssh of a user's ControlMaster setup is the master: it would outlive its own
            // session for as long as others use it, and end theirs when it is ended. Using a master that is there stays
            // possible.
            settings.push("ControlMaster=no".to_owned());
        }
        settings
    }
}

/// The name under which a pinned key stands in our `known_hosts` file: no host has it.
pub(crate) const PINNED: &str = "nix-copy-closure-pinned";

/// ssh takes whole seconds, and 0 would switch it off.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const DEFAULTS: [&str; 3] = ["ServerAliveInterval=30", "ServerAliveCountMax=3", "ConnectTimeout=30"];

    #[rstest]
    #[case::not_asked("", &DEFAULTS)]
    #[case::nothing_set("serveraliveinterval 0\nserveralivecountmax 3\nconnecttimeout none\n", &DEFAULTS)]
    #[case::all_set("serveraliveinterval 5\nconnecttimeout 7\n", &[])]
    #[case::debian("batchmode yes\nserveraliveinterval 300\nconnecttimeout none\n", &DEFAULTS)]
    #[case::one_set("serveraliveinterval 0\nconnecttimeout 7\n", &DEFAULTS[..2])]
    #[case::count_set("serveraliveinterval 0\nserveralivecountmax 9\nconnecttimeout 7\n", &DEFAULTS[..1])]
    fn additions(#[case] text: &str, #[case] expected: &[&str]) {
        assert_eq!(Configuration::parse(text).additions(&OpenSshOptions::default()), expected);
    }

    #[rstest]
    #[case::would_be_master("controlmaster auto\ncontrolpersist no\n", &["ControlMaster=no"])]
    #[case::persistent_master("controlmaster auto\ncontrolpersist 600\n", &[])]
    #[case::no_master("controlmaster false\ncontrolpersist no\n", &[])]
    fn masters(#[case] text: &str, #[case] expected: &[&str]) {
        assert_eq!(Configuration::parse(text).sharing(None, false, false), expected);
    }

    #[rstest]
    #[case::tunnel_only(
        "sessiontype none\nstdinnull yes\nforkafterauthentication yes\n",
        &["SessionType=default", "StdinNull=no", "ForkAfterAuthentication=no"]
    )]
    #[case::usual("sessiontype default\nstdinnull no\nforkafterauthentication no\n", &[])]
    fn necessities(#[case] text: &str, #[case] expected: &[&str]) {
        assert_eq!(Configuration::parse(text).necessities()[2..], *expected);
    }

    #[test]
    fn a_pin_says_no_more_than_this_ssh_understands() {
        let blob = "AAAAB3NzaC1yc2EAAAABAw==";
        let key: PinnedHostKey = format!("ssh-rsa {blob}").parse().unwrap();
        let pin = |text: &str| Configuration::parse(text).pin(&key, "\"f\"").join(" ");
        assert!(pin("").ends_with(" HostKeyAlgorithms=rsa-sha2-512,rsa-sha2-256 KnownHostsCommand=none"));
        let old = "gssapikeyexchange yes\nhostkeyalgorithms ssh-ed25519,ssh-rsa\n";
        assert!(
            pin(old).ends_with(" HostKeyAlgorithms=rsa-sha2-512,rsa-sha2-256,ssh-rsa GSSAPIKeyExchange=no")
        );
    }

    #[test]
    fn nothing_is_added_where_nothing_is_asked_for() {
        let options = OpenSshOptions { keep_alive: None, connect_timeout: None, ..OpenSshOptions::default() };
        assert_eq!(Configuration::default().additions(&options), [""; 0]);
    }

    #[test]
    fn fractions_of_seconds_are_rounded_up() {
        assert_eq!(
            [0, 1, 999, 1000, 1001].map(|milliseconds| whole_seconds(Duration::from_millis(milliseconds))),
            [1, 1, 1, 1, 2]
        );
    }
}
