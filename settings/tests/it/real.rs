//! The `nix` of this machine is asked what it makes of the same configuration and the same URIs.

use std::{
    collections::BTreeSet,
    env, fs,
    path::Path,
    process::{Command, Output},
    sync::LazyLock,
};

use ncc_settings::{Disk, Environment, Kind, SETTINGS, Settings, StoreChoice, StorePlace, find_setting};
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Map, Value};

/// Whether there is a `nix` here. Without one the tests are left out, loudly, or fail if the real one is required.
fn nix_is_here() -> bool {
    if Command::new("nix").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return true;
    }
    let required = env::var_os("NCC_REQUIRE_REAL").is_some_and(|value| value == "1");
    assert!(!required, "NCC_REQUIRE_REAL=1, but there is no nix");
    // Written past the capture of the test harness, so that it is seen.
    let note = b"LEFT OUT: settings against real Nix, for there is no nix here\n";
    std::io::Write::write_all(&mut std::io::stderr(), note).unwrap();
    false
}

/// A directory with configuration in it, which both sides are shown.
struct Room {
    directory: tempfile::TempDir,
    conf: Option<String>,
}

impl Room {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["etc", "user/nix", "shared/nix", "work"] {
            fs::create_dir_all(directory.path().join(name)).unwrap();
        }
        Self { directory, conf: None }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        let path = |name: &str| self.path().join(name).to_str().unwrap().to_owned();
        let mut variables = vec![
            ("HOME", path("home")),
            ("NIX_CONF_DIR", path("etc")),
            ("XDG_CONFIG_HOME", path("user")),
            ("XDG_CONFIG_DIRS", path("shared")),
            ("XDG_CACHE_HOME", path("cache")),
        ];
        variables.extend(self.conf.clone().map(|text| ("NIX_CONFIG", text)));
        variables
    }

    fn nix(&self, words: &[&str]) -> Output {
        let mut command = Command::new("nix");
        command.args(["--extra-experimental-features", "nix-command flakes"]).args(words);
        for name in
            ["NIX_REMOTE", "NIX_STORE_DIR", "NIX_STATE_DIR", "NIX_CONFIG", "NIX_USER_CONF_FILES", "NIX_PATH"]
        {
            command.env_remove(name);
        }
        command.envs(self.variables()).current_dir(self.path().join("work")).output().unwrap()
    }

    /// What Nix has in effect, or nothing if it refuses the configuration.
    fn theirs(&self, options: &[&str]) -> Option<Map<String, Value>> {
        // The newer name is tried second: the older one still works in all versions up to 2.35.
        for name in [&["show-config"][..], &["config", "show"]] {
            let output = self.nix(&[name, &["--json"], options].concat());
            if output.status.success() {
                return Some(serde_json::from_slice(&output.stdout).unwrap());
            }
        }
        None
    }

    fn environment(&self) -> Environment {
        let environment = Environment::empty(self.path().join("work"));
        self.variables().into_iter().fold(environment, |all, (name, value)| all.with_variable(name, value))
    }

    fn ours(&self, given: &[(&str, &str)]) -> Option<Settings> {
        let given: Vec<_> = given.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        Settings::load(&self.environment(), &Disk, &given).ok()
    }
}

/// Compares every setting that Nix shows with what we have in effect.
fn assert_same(theirs: &Map<String, Value>, ours: &Settings) {
    // Without configuration: some settings depend on the machine or on the command that shows them.
    static DEFAULTS: LazyLock<Map<String, Value>> = LazyLock::new(|| Room::new().theirs(&[]).unwrap());
    for (name, shown) in theirs {
        let (value, default) = (&shown["value"], &DEFAULTS[name]["value"]);
        let text = || ours.text(name).map(str::to_owned);
        let agrees = match value {
            Value::Bool(value) if name != "sandbox" => {
                ours.switch(name).unwrap().or_else(|| default.as_bool()) == Some(*value)
            }
            Value::Array(words) => {
                let default = default.as_array().into_iter().flatten().filter_map(Value::as_str);
                let default = default.collect::<Vec<_>>().join(" ");
                let ours: Vec<_> = ours.words(name, &default).collect();
                let words: Vec<_> = words.iter().filter_map(Value::as_str).collect();
                let set: BTreeSet<_> = ours.iter().copied().collect();
                // A set is shown sorted, without repetition.
                ours == words || set.into_iter().collect::<Vec<_>>() == words
            }
            Value::Number(number) => text().is_none_or(|text| text == number.to_string()),
            Value::String(value) => text().is_none_or(|text| text == *value),
            _ => true,
        };
        assert!(agrees, "{name} is {value} in Nix, and here {:?}", text());
    }
}

#[test]
fn the_list_has_all_that_nix_knows() {
    if !nix_is_here() {
        return;
    }
    let theirs = Room::new().theirs(&[]).unwrap();
    assert!(theirs.len() > 80, "{} settings", theirs.len());
    for (name, shown) in &theirs {
        let Some(setting) = find_setting(name) else { panic!("'{name}' is not in the list") };
        for alias in shown["aliases"].as_array().unwrap() {
            let found = find_setting(alias.as_str().unwrap());
            assert_eq!(found, Some(setting), "'{alias}' is an alias of '{name}'");
        }
        let fits = match (&shown["defaultValue"], setting.kind) {
            (_, Kind::Sandbox) => name == "sandbox",
            (Value::Bool(_), kind) => kind == Kind::Switch,
            (Value::Array(_) | Value::Object(_), kind) => kind == Kind::List,
            (_, kind) => kind == Kind::Value,
        };
        // A path in Nix 2.8, and a list of words from 2.14 on.
        assert!(fits || name == "build-hook", "'{name}' is {:?}", setting.kind);
    }
}

#[test]
fn the_options_of_the_list_are_those_of_nix() {
    if !nix_is_here() {
        return;
    }
    let room = Room::new();
    let theirs = room.theirs(&[]).unwrap();
    for setting in SETTINGS.iter().filter(|setting| theirs.contains_key(setting.name)) {
        for (option, value) in setting.options() {
            // What an alias is turned off by differs between versions: '--no-ALIAS' is not known to all.
            let alias = setting.aliases.iter().any(|alias| option.ends_with(alias));
            if alias || value.is_none() {
                continue;
            }
            let option = format!("--{option}");
            let shown = room.theirs(&[&option]).unwrap_or_else(|| panic!("'{option}' is not known to Nix"));
            let given = [(setting.name, value.unwrap())];
            if setting.kind == Kind::Switch {
                assert_same(&shown, &room.ours(&given).unwrap());
            }
        }
    }
}

#[test]
fn sources_come_in_the_order_of_nix() {
    if !nix_is_here() {
        return;
    }
    let mut room = Room::new();
    let all = |text: &str| format!("user-agent-suffix = {text}\nextra-substituters = https://{text}\n");
    let check = |room: &Room, given: &[(&str, &str)]| {
        let options: Vec<_> = given.iter().flat_map(|(name, value)| ["--option", name, value]).collect();
        let (theirs, ours) = (room.theirs(&options).unwrap(), room.ours(given).unwrap());
        assert_same(&theirs, &ours);
        ours.text("user-agent-suffix").map(str::to_owned)
    };
    assert_eq!(check(&room, &[]), None);
    room.write("etc/nix.conf", &format!("{}include more/x.conf\n!include nowhere\n", all("etc")));
    fs::create_dir(room.path().join("etc/more")).unwrap();
    room.write("etc/more/x.conf", &format!("{}!include ../y.conf", all("included")));
    room.write("etc/y.conf", &all("y"));
    assert_eq!(check(&room, &[]).as_deref(), Some("y"));
    room.write("shared/nix/nix.conf", &all("shared"));
    assert_eq!(check(&room, &[]).as_deref(), Some("shared"));
    room.write("user/nix/nix.conf", &all("user"));
    assert_eq!(check(&room, &[]).as_deref(), Some("user"));
    room.conf = Some(all("variable"));
    assert_eq!(check(&room, &[]).as_deref(), Some("variable"));
    let given = [("user-agent-suffix", "given"), ("extra-substituters", "https://given")];
    assert_eq!(check(&room, &given).as_deref(), Some("given"));
    assert_eq!(check(&room, &[("binary-caches", "https://only")]).as_deref(), Some("variable"));
}

#[test]
fn what_nix_refuses_is_refused() {
    if !nix_is_here() {
        return;
    }
    for text in ["a", "a=b", "include", "include a b", "include nowhere", "a b = c", "cores =4"] {
        let room = Room::new();
        room.write("etc/nix.conf", text);
        assert!(room.theirs(&[]).is_none(), "Nix takes '{text}'");
        assert!(room.ours(&[]).is_none(), "'{text}'");
    }
    let room = Room::new();
    room.write("etc/nix.conf", "require-sigs = maybe");
    assert!(room.theirs(&[]).is_none());
    assert!(room.ours(&[]).unwrap().switch("require-sigs").is_err());
}

#[test]
fn any_configuration_means_the_same() {
    if !nix_is_here() {
        return;
    }
    let word = prop_oneof!["[a-z]{1,3}", "[!$-~]{1,4}", Just("=".to_owned())];
    let line = prop_oneof![
        (
            prop_oneof![
                Just("substituters"),
                Just("binary-caches"),
                Just("extra-substituters"),
                Just("hashed-mirrors"),
                Just("extra-hashed-mirrors"),
                Just("allowed-users"),
                Just("extra-allowed-users"),
                Just("system-features"),
                Just("extra-system-features"),
                Just("user-agent-suffix"),
                Just("store"),
                Just("extra-store"),
                Just("no-such-setting"),
            ],
            prop::collection::vec(word, 0..4),
            prop_oneof![Just(" "), Just("\t"), Just("  ")],
        )
            .prop_map(|(name, words, blank)| format!("{name}{blank}={blank}{}", words.join(blank))),
        prop_oneof![Just("true"), Just("yes"), Just("1"), Just("false"), Just("no"), Just("0")]
            .prop_map(|value| format!("  require-sigs = {value} # said so")),
        Just("# nothing".to_owned()),
        Just(String::new()),
        Just("include other.conf".to_owned()),
        Just("!include other.conf".to_owned()),
        Just("!include missing.conf".to_owned()),
        Just("include .".to_owned()),
    ];
    let rare = prop_oneof![30 => line, 1 => "[a-z= ]{1,12}"];
    let text = |lines| prop::collection::vec(lines, 0..6).prop_map(|lines| lines.join("\n"));
    let plain = "(hashed-mirrors|extra-substituters) = [a-z]{1,4}";
    let strategy =
        (text(rare.boxed()), text(plain.boxed()), text(plain.boxed()), prop_oneof![Just("\n"), Just("\r\n")]);
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() });
    let outcome = runner.run(&strategy, |(system, other, user, end)| {
        let room = Room::new();
        room.write("etc/nix.conf", &system.replace('\n', end));
        room.write("etc/other.conf", &other);
        room.write("user/nix/nix.conf", &user);
        match (room.theirs(&[]), room.ours(&[])) {
            (Some(theirs), Some(ours)) => assert_same(&theirs, &ours),
            (None, None) => {}
            (theirs, ours) => panic!("Nix reads it: {}, we do: {}", theirs.is_some(), ours.is_some()),
        }
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn uris_open_the_store_that_nix_opens() {
    if !nix_is_here() {
        return;
    }
    for uri in [
        "ROOM/a",
        "./a",
        "a/b",
        "../a",
        "local?root=ROOM/a",
        "local:?root=ROOM/a",
        "local://?root=ROOM/a%20b&priority=4",
        "?root=ROOM/a",
        "auto?root=ROOM/a&real=ROOM/real&state=ROOM/state",
        "./a?store=/gnu/store",
        "./a?unheard-of=1",
        "./a?dubious",
        "a",
        "lokal",
        "gopher://x",
        "local?root=a",
        "local?root=/%zz",
    ] {
        let room = Room::new();
        let uri = uri.replace("ROOM", room.path().to_str().unwrap());
        // It opens the store, which makes its directories.
        let opened = room.nix(&["store", "ping", "--store", &uri]);
        let choice = room
            .ours(&[("store", &uri)])
            .and_then(|settings| StoreChoice::new(&settings, &room.environment(), &Disk).ok());
        let stderr = String::from_utf8_lossy(&opened.stderr);
        if uri.starts_with("local:") && stderr.contains("don't know how to open") {
            continue; // Nix 2.8 knows no colon there.
        }
        assert_eq!(choice.is_some(), opened.status.success(), "{uri}: {stderr}");
        let Some(choice) = choice else { continue };
        let StorePlace::Local(layout) = &choice.place else { panic!("{choice}") };
        assert!(layout.real_store_dir.starts_with(room.path()), "{layout:?}");
        assert!(layout.real_store_dir.is_dir(), "{layout:?}");
        assert!(layout.state_dir.join("db/db.sqlite").is_file(), "{layout:?}");
        let warned = choice.reference.review().unwrap().iter().any(ncc_settings::ParameterRemark::is_warning);
        if !uri.contains("dubious") {
            assert_eq!(warned, stderr.contains("unknown setting"), "{uri}: {stderr}");
        }
    }
}
