//! The options that every old-style command of Nix takes and that have no bearing on a copy.
//!
//! They are accepted, since scripts pass them along, and have no effect: none of them makes Nix copy other paths, to
//! another place, or not at all. What could is not here, and is an error.

use clap::{Arg, ArgAction, Command};

/// Options with a value.
const WITH_VALUE: [(&str, Option<char>); 16] = [
    ("max-jobs", Some('j')),
    ("cores", None),
    ("timeout", None),
    ("max-silent-time", None),
    ("builders", None),
    ("substituters", None),
    ("trusted-public-keys", None),
    ("trusted-substituters", None),
    ("extra-substituters", None),
    ("extra-trusted-public-keys", None),
    ("experimental-features", None),
    ("extra-experimental-features", None),
    ("connect-timeout", None),
    ("download-attempts", None),
    ("http-connections", None),
    ("netrc-file", None),
];

/// Options without one.
const FLAGS: [(&str, Option<char>); 16] = [
    ("keep-failed", Some('K')),
    ("no-build-output", Some('Q')),
    ("fallback", None),
    ("no-gc-warning", None),
    ("readonly-mode", None),
    ("repair", None),
    ("print-build-logs", None),
    ("keep-outputs", None),
    ("no-keep-outputs", None),
    ("keep-derivations", None),
    ("no-keep-derivations", None),
    ("fsync-metadata", None),
    ("no-fsync-metadata", None),
    ("builders-use-substitutes", None),
    ("substitute", None),
    ("no-substitute", None),
];

/// Adds them to the definition of the command line, out of sight.
pub(crate) fn add_to(mut command: Command) -> Command {
    for (name, short) in WITH_VALUE {
        let arg = Arg::new(name).long(name).value_name("VALUE").action(ArgAction::Append);
        command = command.arg(hidden(arg, short));
    }
    for (name, short) in FLAGS {
        let arg = Arg::new(name).long(name).action(ArgAction::Count);
        command = command.arg(hidden(arg, short));
    }
    let option = Arg::new("option").long("option").num_args(2).value_names(["NAME", "VALUE"]);
    command.arg(
        option
            .action(ArgAction::Append)
            .help_heading("Nix")
            .help("A setting of Nix; has no effect on copying"),
    )
}

fn hidden(mut arg: Arg, short: Option<char>) -> Arg {
    if let Some(short) = short {
        arg = arg.short(short);
    }
    arg.hide(true)
}
