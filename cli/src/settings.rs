//! The options that every old-style command of Nix takes: one for each setting, and a few flags.
//!
//! Scripts pass them along, so all are taken. What each one means here is in `ncc_settings`.

use std::collections::{BTreeMap, BTreeSet};

use clap::{Arg, ArgAction, ArgMatches, Command};
use ncc_settings::{FLAGS, Flag, SETTINGS};

/// The letters that some of them have.
const LETTERS: [(&str, char); 3] = [("max-jobs", 'j'), ("keep-failed", 'K'), ("no-build-output", 'Q')];

/// Adds the one that people are told of.
pub(crate) fn add_option(command: Command) -> Command {
    let option = Arg::new("option").long("option").num_args(2).value_names(["NAME", "VALUE"]);
    let option = option.action(ArgAction::Append).allow_hyphen_values(true);
    command.arg(
        option
            .help_heading("Nix")
            .help("A setting of Nix, as in nix.conf; '-v' names those that have no effect on a copy"),
    )
}

/// Adds all others, out of sight, except those that `command` has in a form of its own.
pub(crate) fn add_others(command: Command) -> Command {
    let own: BTreeSet<_> = command
        .get_arguments()
        .flat_map(|argument| argument.get_long_and_visible_aliases().unwrap_or_default())
        .map(str::to_owned)
        .collect();
    let settings = SETTINGS.iter().flat_map(ncc_settings::Setting::options);
    let flags = FLAGS.iter().map(|flag| (flag.name.to_owned(), Some("")));
    let others = settings.chain(flags).filter(|(name, _)| !own.contains(name)).map(|(name, value)| {
        let letter = LETTERS.iter().find(|(long, _)| *long == name).map(|(_, letter)| *letter);
        let arg = Arg::new(name.clone()).long(name).hide(true).short(letter);
        match value {
            Some(_) => arg.action(ArgAction::Count),
            None => arg.action(ArgAction::Append).value_name("VALUE"),
        }
    });
    // The iterator borrows nothing of the command, which takes them all.
    let others: Vec<_> = others.collect();
    command.args(others)
}

/// The settings that the command line gives, in its order: the last one of a name counts.
pub(crate) fn given(matches: &ArgMatches) -> Vec<(String, String)> {
    let mut given = BTreeMap::new();
    for setting in SETTINGS {
        for (option, value) in setting.options() {
            let Ok(true) = matches.try_contains_id(&option) else { continue };
            let indices = matches.indices_of(&option).into_iter().flatten();
            match value {
                Some(value) if matches.try_get_one::<u8>(&option).is_ok_and(|count| count > Some(&0)) => {
                    given.extend(indices.map(|index| (index, (setting.name.to_owned(), value.to_owned()))));
                }
                None => {
                    let values = matches.try_get_many::<String>(&option).ok().flatten().into_iter().flatten();
                    let pairs = values.map(|value| (option.clone(), value.clone()));
                    given.extend(indices.zip(pairs));
                }
                Some(_) => {}
            }
        }
    }
    let indices = matches.indices_of("option").into_iter().flatten().step_by(2);
    let pairs = matches.get_occurrences::<String>("option").into_iter().flatten();
    let pairs = pairs.filter_map(|mut pair| Some((pair.next()?.clone(), pair.next()?.clone())));
    given.extend(indices.zip(pairs));
    given.into_values().collect()
}

/// The flags that the command line gives.
pub(crate) fn flags(matches: &ArgMatches) -> Vec<&'static Flag> {
    FLAGS.iter().filter(|flag| matches.get_count(flag.name) > 0).collect()
}
