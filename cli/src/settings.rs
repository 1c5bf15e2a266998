//! The options that every old-style command of Nix takes: one for each setting, and some more.
//!
//! They are accepted, since scripts pass them along. None of them makes Nix copy other paths, to another place, or not at
//! all, and so they have no effect here, with two exceptions: `store`, and what the Nix of this machine is told when it
//! substitutes for us ([`given`]). What could have another effect is not here, and is an error.

use clap::{Arg, ArgAction, ArgMatches, Command};

/// Settings that are on or off: `--NAME`, `--no-NAME`. Of Nix 2.3.7, 2.8.0, 2.26.3 and 2.34.8, as `nix show-config` lists them
/// there.
const SWITCHES: [&str; 62] = [
    "abort-on-warn",
    "accept-flake-config",
    "allow-dirty",
    "allow-dirty-locks",
    "allow-import-from-derivation",
    "allow-new-privileges",
    "allow-symlinked-store",
    "allow-unsafe-native-code-during-evaluation",
    "always-allow-substitutes",
    "auto-allocate-uids",
    "auto-optimise-store",
    "build-compress-log",
    "build-fallback",
    "build-impersonate-linux-26",
    "build-keep-log",
    "build-use-substitutes",
    "builders-use-substitutes",
    "compress-build-log",
    "debugger-on-trace",
    "debugger-on-warn",
    "enforce-determinism",
    "env-keep-derivations",
    "eval-cache",
    "fallback",
    "filter-syscalls",
    "fsync-metadata",
    "fsync-store-paths",
    "gc-check-reachability",
    "gc-keep-derivations",
    "gc-keep-outputs",
    "http2",
    "ignore-try",
    "impersonate-linux-26",
    "keep-build-log",
    "keep-derivations",
    "keep-env-derivations",
    "keep-failed",
    "keep-outputs",
    "nix-shell-always-looks-for-shell-nix",
    "nix-shell-shebang-arguments-relative-to-script",
    "preallocate-contents",
    "print-missing",
    "pure-eval",
    "require-drop-supplementary-groups",
    "require-sigs",
    "restrict-eval",
    "run-diff-hook",
    "sandbox-fallback",
    "show-trace",
    "substitute",
    "sync-before-registering",
    "trace-function-calls",
    "trace-import-from-derivation",
    "trace-verbose",
    "trust-tarballs-from-git-forges",
    "use-case-hack",
    "use-cgroups",
    "use-registries",
    "use-sqlite-wal",
    "use-xdg-base-directories",
    "warn-dirty",
    "warn-short-path-literals",
];

/// Settings with several values: `--NAME VALUE`, `--extra-NAME VALUE`.
const LISTS: [&str; 25] = [
    "access-tokens",
    "allowed-impure-host-deps",
    "allowed-uris",
    "allowed-users",
    "binary-cache-public-keys",
    "binary-caches",
    "build-chroot-dirs",
    "build-hook",
    "build-sandbox-paths",
    "experimental-features",
    "external-builders",
    "extra-platforms",
    "hashed-mirrors",
    "ignored-acls",
    "impure-env",
    "nix-path",
    "plugin-files",
    "sandbox-paths",
    "secret-key-files",
    "substituters",
    "system-features",
    "trusted-binary-caches",
    "trusted-public-keys",
    "trusted-substituters",
    "trusted-users",
];

/// Settings with one value: `--NAME VALUE`.
const VALUES: [&str; 64] = [
    "bash-prompt",
    "bash-prompt-prefix",
    "bash-prompt-suffix",
    "binary-caches-parallel-connections",
    "build-cores",
    "build-dir",
    "build-max-jobs",
    "build-max-log-size",
    "build-max-silent-time",
    "build-poll-interval",
    "build-repeat",
    "build-timeout",
    "build-users-group",
    "builders",
    "commit-lock-file-summary",
    "commit-lockfile-summary",
    "connect-timeout",
    "cores",
    "diff-hook",
    "download-attempts",
    "download-buffer-size",
    "download-speed",
    "eval-attrset-update-layer-rhs-threshold",
    "eval-profile-file",
    "eval-profiler",
    "eval-profiler-frequency",
    "eval-system",
    "flake-registry",
    "gc-reserved-space",
    "http-connections",
    "id-count",
    "json-log-path",
    "lint-absolute-path-literals",
    "lint-short-path-literals",
    "lint-url-literals",
    "log-lines",
    "max-build-log-size",
    "max-call-depth",
    "max-free",
    "max-jobs",
    "max-silent-time",
    "max-substitution-jobs",
    "min-free",
    "min-free-check-interval",
    "nar-buffer-size",
    "narinfo-cache-meta-ttl",
    "narinfo-cache-negative-ttl",
    "narinfo-cache-positive-ttl",
    "netrc-file",
    "post-build-hook",
    "pre-build-hook",
    "repeat",
    "sandbox-build-dir",
    "sandbox-dev-shm-size",
    "ssl-cert-file",
    "stalled-download-timeout",
    "start-id",
    "substitution-max-jobs",
    "system",
    "tarball-ttl",
    "timeout",
    "upgrade-nix-store-path-url",
    "user-agent-suffix",
    "warn-large-path-threshold",
];

/// What is no setting, or one of another form.
const FLAGS: [&str; 9] = [
    "relaxed-sandbox",
    "sandbox",
    "no-sandbox",
    "chroot",
    "no-build-output",
    "no-gc-warning",
    "readonly-mode",
    "repair",
    "print-build-logs",
];

/// The letters that some of them have.
const LETTERS: [(&str, char); 3] = [("max-jobs", 'j'), ("keep-failed", 'K'), ("no-build-output", 'Q')];

/// Adds the one that people are told of.
pub(crate) fn add_option(command: Command) -> Command {
    let option = Arg::new("option").long("option").num_args(2).value_names(["NAME", "VALUE"]);
    let option = option.action(ArgAction::Append).allow_hyphen_values(true);
    command.arg(option.help_heading("Nix").help(
        "A setting of Nix: 'store' is heard, and with '--from -s' what concerns substituting; others have no effect",
    ))
}

/// Adds all others, out of sight.
pub(crate) fn add_others(command: Command) -> Command {
    let switches = SWITCHES.iter().flat_map(|name| [(*name).to_owned(), format!("no-{name}")]);
    let flags = FLAGS.iter().map(|name| (*name).to_owned()).chain(switches);
    let flags = flags.map(|name| hidden(name, ArgAction::Count));
    let values = values().map(|name| hidden(name, ArgAction::Append).value_name("VALUE"));
    command.args(flags).args(values)
}

/// The names of all that take a value.
fn values() -> impl Iterator<Item = String> {
    let lists = LISTS.iter().flat_map(|name| [(*name).to_owned(), format!("extra-{name}")]);
    VALUES.iter().map(|name| (*name).to_owned()).chain(lists)
}

fn hidden(name: String, action: ArgAction) -> Arg {
    let letter = LETTERS.iter().find(|(long, _)| *long == name).map(|(_, letter)| *letter);
    let arg = Arg::new(name.clone()).long(name).action(action).hide(true);
    if let Some(letter) = letter { arg.short(letter) } else { arg }
}

/// The settings that the command line gives, with their values: those of `--option` last, since whoever writes that means it.
pub(crate) fn given(matches: &ArgMatches) -> Vec<(String, String)> {
    let mut settings = Vec::new();
    for name in SWITCHES {
        for (id, value) in [(name.to_owned(), "true"), (format!("no-{name}"), "false")] {
            if matches.get_count(&id) > 0 {
                settings.push((name.to_owned(), value.to_owned()));
            }
        }
    }
    for name in values() {
        let values = matches.get_many::<String>(&name).into_iter().flatten();
        settings.extend(values.map(|value| (name.clone(), value.clone())));
    }
    for mut pair in matches.get_occurrences::<String>("option").into_iter().flatten() {
        if let (Some(name), Some(value)) = (pair.next(), pair.next()) {
            settings.push((name.clone(), value.clone()));
        }
    }
    settings
}
