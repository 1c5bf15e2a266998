//! The command line of `nix`, as far as it is a copy. It is read as Nix reads it: options before and behind the subcommand, letters
//! in a bunch, no `--name=value`. Whatever is not known here is Nix's business, whose versions differ.

#![allow(clippy::struct_excessive_bools, reason = "they are switches of a command line")]

use std::{collections::VecDeque, ffi::OsString, slice};

use ncc_progress::LogFormat;

use super::HandOn;

/// Options that concern evaluation, flakes, builds and caches, and what each is followed by: they cannot change what becomes of a
/// store path.
const WITHOUT_EFFECT: [(&str, usize); 20] = [
    ("arg", 2),
    ("arg-from-file", 2),
    ("argstr", 2),
    ("commit-lock-file", 0),
    ("eval-store", 1),
    ("impure", 0),
    ("include", 1),
    ("inputs-from", 1),
    ("no-registries", 0),
    ("no-update-lock-file", 0),
    ("no-use-registries", 0),
    ("no-write-lock-file", 0),
    ("output-lock-file", 1),
    ("override-flake", 2),
    ("override-input", 2),
    ("print-build-logs", 0),
    ("recreate-lock-file", 0),
    ("reference-lock-file", 1),
    ("refresh", 0),
    ("update-input", 1),
];

/// The letters that some options have.
const LETTERS: [(char, &str); 7] = [
    ('I', "include"),
    ('L', "print-build-logs"),
    ('j', "max-jobs"),
    ('o', "out-link"),
    ('r', "recursive"),
    ('s', "substitute-on-destination"),
    ('v', "verbose"),
];

/// A `nix copy` that this program does, as far as the words alone tell.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CommandLine {
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    pub(super) installables: Vec<String>,
    pub(super) stdin: bool,
    pub(super) all: bool,
    pub(super) no_recursive: bool,
    pub(super) derivation: bool,
    pub(super) no_check_sigs: bool,
    pub(super) out_link: Option<String>,
    /// The store that an end is which is not named.
    pub(super) store: Option<String>,
    /// Options that `nix-copy-closure` has too, as it takes them.
    pub(super) shared: Vec<OsString>,
}

impl CommandLine {
    /// Reads the words behind `nix`.
    pub(super) fn read(words: &[OsString]) -> Result<Self, HandOn> {
        if std::env::var_os("NIX_GET_COMPLETIONS").is_some() {
            return Err(HandOn::new("a shell asks for completions"));
        }
        let mut words = Words { split: VecDeque::new(), rest: words.iter() };
        let mut command_line = Self::default();
        let (mut is_copy, mut options_ended) = (false, false);
        while let Some(word) = words.next(!options_ended)? {
            if options_ended || !word.starts_with('-') {
                if is_copy {
                    command_line.installables.push(word);
                } else if word == "copy" {
                    is_copy = true;
                } else {
                    return Err(HandOn::new(format!("this is 'nix {word}'")));
                }
            } else if word == "--" {
                options_ended = true;
            } else {
                command_line.option(&word, &mut words)?;
            }
        }
        if !is_copy {
            return Err(HandOn::new("this is 'nix' without a subcommand"));
        }
        Ok(command_line)
    }

    fn option(&mut self, word: &str, words: &mut Words<'_>) -> Result<(), HandOn> {
        let unknown = || HandOn::new(format!("'{word}' is given"));
        let name = match word.strip_prefix("--") {
            Some(name) => name,
            None => LETTERS
                .iter()
                .find(|(letter, _)| word.strip_prefix('-').is_some_and(|rest| rest.chars().eq([*letter])))
                .map(|(_, name)| *name)
                .ok_or_else(unknown)?,
        };
        let mut value =
            || words.next(false)?.ok_or_else(|| HandOn::new(format!("'{word}' is given without a value")));
        match name {
            "from" => self.from = Some(value()?),
            "to" => self.to = Some(value()?),
            "out-link" => self.out_link = Some(value()?),
            "store" => self.store = Some(value()?),
            "stdin" => self.stdin = true,
            "all" => self.all = true,
            "no-recursive" => self.no_recursive = true,
            "recursive" => self.no_recursive = false,
            "derivation" => self.derivation = true,
            "no-check-sigs" => self.no_check_sigs = true,
            "offline" | "no-net" => self.shared.extend(["--option", "substitute", "false"].map(Into::into)),
            "substitute-on-destination" | "verbose" | "quiet" | "debug" => {
                self.shared.push(format!("--{name}").into());
            }
            "profile" => self.shared.push(format!("--profile={}", value()?).into()),
            "log-format" => {
                let format = value()?;
                LogFormat::named(&format).ok_or_else(unknown)?;
                self.shared.push(format!("--log-format={format}").into());
            }
            "option" => match (value()?, value()?) {
                (name, uri) if name == "store" => self.store = Some(uri),
                (name, value) => self.shared.extend(["--option".into(), name.into(), value.into()]),
            },
            _ => {
                if let Some((_, values)) = WITHOUT_EFFECT.iter().find(|(known, _)| *known == name) {
                    return (0..*values).try_for_each(|_| value().map(drop));
                }
                let takes_value = ncc_settings::option_takes_value(name).ok_or_else(unknown)?;
                let text = if takes_value { format!("--{name}={}", value()?) } else { format!("--{name}") };
                self.shared.push(text.into());
            }
        }
        Ok(())
    }
}

/// The words of a command line, with bunches of letters taken apart where an option may stand.
struct Words<'a> {
    split: VecDeque<String>,
    rest: slice::Iter<'a, OsString>,
}

impl Words<'_> {
    fn next(&mut self, may_be_option: bool) -> Result<Option<String>, HandOn> {
        if let Some(word) = self.split.pop_front() {
            return Ok(Some(word));
        }
        let Some(word) = self.rest.next() else { return Ok(None) };
        let word = word.to_str().ok_or_else(|| HandOn::new(format!("'{}' is given", word.display())))?;
        if may_be_option
            && word.len() > 2
            && word.starts_with('-')
            && word[1..].starts_with(|c: char| c.is_ascii_alphabetic())
        {
            let letters = word[1..].chars().take_while(char::is_ascii_alphabetic);
            self.split.extend(letters.map(|letter| format!("-{letter}")));
            let value = &word[1 + self.split.len()..];
            if !value.is_empty() {
                self.split.push_back(value.to_owned());
            }
            return Ok(self.split.pop_front());
        }
        Ok(Some(word.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<CommandLine, String> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        CommandLine::read(&words).map_err(|HandOn(reason)| reason)
    }

    #[test]
    fn options_stand_anywhere_and_letters_in_bunches() {
        let words = [
            "--extra-experimental-features",
            "nix-command flakes",
            "-vL",
            "copy",
            "-sj3",
            "/nix/store/a",
            "--option",
            "x",
            "-y",
            "--to",
            "ssh://h",
            "--no-write-lock-file",
            "--arg",
            "--from",
            "1",
            "--no-check-sigs",
            "-rv",
            "--sandbox",
            "--",
            "--to",
        ];
        let read = read(&words).unwrap();
        let shared = [
            "--extra-experimental-features=nix-command flakes",
            "--verbose",
            "--substitute-on-destination",
            "--max-jobs=3",
            "--option",
            "x",
            "-y",
            "--verbose",
            "--sandbox",
        ];
        assert_eq!(
            read,
            CommandLine {
                to: Some("ssh://h".into()),
                installables: vec!["/nix/store/a".into(), "--to".into()],
                no_check_sigs: true,
                shared: shared.map(Into::into).into(),
                ..CommandLine::default()
            }
        );
    }

    #[test]
    fn what_is_not_known_is_nixs_business() {
        for (words, reason) in [
            (&["build", "--bogus"][..], "this is 'nix build'"),
            (&["--store", "copy", "eval"], "this is 'nix eval'"),
            (&[], "this is 'nix' without a subcommand"),
            (&["-v"], "this is 'nix' without a subcommand"),
            (&["--version"], "'--version' is given"),
            (&["copy", "--help"], "'--help' is given"),
            (&["copy", "-h"], "'-h' is given"),
            (&["copy", "-"], "'-' is given"),
            (&["copy", "--to=ssh://h"], "'--to=ssh://h' is given"),
            (&["copy", "--to"], "'--to' is given without a value"),
            (&["copy", "--expr", "x"], "'--expr' is given"),
            (&["copy", "-vf", "x"], "'-f' is given"),
            (&["copy", "--repair"], "'--repair' is given"),
            (&["copy", "--log-format", "shiny"], "'--log-format' is given"),
        ] {
            assert_eq!(read(words).unwrap_err(), reason, "{words:?}");
        }
    }
}
