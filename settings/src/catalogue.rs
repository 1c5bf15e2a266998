//! Every setting of every Nix, and what it means to a program that copies store paths.

mod list;

pub use list::{FLAGS, SETTINGS};

/// A setting: a name that may stand in `nix.conf`.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Setting {
    /// Its name in `nix.conf`, and after `--` on the command line.
    pub name: &'static str,
    /// Other names of it, most of them from the time before Nix 2.0.
    pub aliases: &'static [&'static str],
    /// The form of its value.
    pub kind: Kind,
    /// What is done with it.
    pub class: Class,
}

/// The forms in which settings are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A boolean. Options `--NAME` and `--no-NAME`.
    Switch,
    /// A single value. Option `--NAME VALUE`.
    Value,
    /// Any number of words; `extra-NAME` adds some. Options `--NAME VALUE` and `--extra-NAME VALUE`.
    List,
    /// `true`, `false` or `relaxed`: only `sandbox`, whose options are `--sandbox`, `--no-sandbox` and
    /// `--relaxed-sandbox`.
    Sandbox,
}

/// What a program that copies store paths makes of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Class {
    /// It has the effect that it has in Nix.
    Honoured,
    /// It goes to the Nix of this machine when that substitutes for us (`--use-substitutes`), and otherwise has no
    /// effect on a copy.
    Substituting,
    /// It cannot change what a copy does: it concerns building, evaluation, or the daemon.
    NoEffect,
    /// It would have an effect that is not given.
    NotGiven {
        /// The value that asks for nothing.
        harmless: &'static str,
        /// What does not happen, as a clause.
        reason: &'static str,
    },
}

/// An option of old-style Nix commands that takes no value and is no setting.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Flag {
    /// The name after `--`.
    pub name: &'static str,
    /// What is done with it.
    pub class: Class,
}

/// The setting of that name, or with that alias.
///
/// ```
/// use ncc_settings::{Class, find_setting};
///
/// let cores = find_setting("build-cores").ok_or("no such setting")?;
/// assert_eq!((cores.name, cores.class), ("cores", Class::NoEffect));
/// # Ok::<(), &str>(())
/// ```
pub fn find_setting(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name || setting.aliases.contains(&name))
}

/// Whether a value follows the option `--NAME` of a setting; `None` where no setting has an option of that name.
///
/// ```
/// use ncc_settings::option_takes_value;
///
/// let [value, switch, none] = ["extra-substituters", "no-fallback", "frobnicate"].map(option_takes_value);
/// assert_eq!((value, switch, none), (Some(true), Some(false), None));
/// ```
pub fn option_takes_value(name: &str) -> Option<bool> {
    let mut options = SETTINGS.iter().flat_map(Setting::options);
    options.find(|(option, _)| option == name).map(|(_, value)| value.is_none())
}

impl Setting {
    /// All options of the command line that stand for this setting: the name without `--`, and the value that it
    /// gives, or `None` if the option takes one.
    pub fn options(&self) -> Vec<(String, Option<&'static str>)> {
        let mut options = Vec::new();
        for name in [self.name].iter().chain(self.aliases) {
            match self.kind {
                Kind::Switch | Kind::Sandbox => {
                    options.push(((*name).to_owned(), Some("true")));
                    options.push((format!("no-{name}"), Some("false")));
                }
                Kind::Value => options.push(((*name).to_owned(), None)),
                Kind::List => {
                    options.push(((*name).to_owned(), None));
                    options.push((format!("extra-{name}"), None));
                }
            }
        }
        if self.kind == Kind::Sandbox {
            options.push((format!("relaxed-{}", self.name), Some("relaxed")));
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_sorted_and_unique() {
        assert!(SETTINGS.is_sorted_by_key(|setting| setting.name));
        let mut options = BTreeSet::new();
        for setting in SETTINGS {
            for (option, _) in setting.options() {
                assert!(options.insert(option.clone()), "'--{option}' means two things");
            }
        }
        for flag in FLAGS {
            assert!(options.insert(flag.name.to_owned()), "'--{}' means two things", flag.name);
        }
    }

    #[test]
    fn options_follow_from_the_kind() {
        let options = |name| find_setting(name).unwrap().options();
        let owned = |option: &str, value| (option.to_owned(), value);
        assert_eq!(
            options("keep-outputs"),
            [
                owned("keep-outputs", Some("true")),
                owned("no-keep-outputs", Some("false")),
                owned("gc-keep-outputs", Some("true")),
                owned("no-gc-keep-outputs", Some("false")),
            ]
        );
        assert_eq!(options("store"), [owned("store", None)]);
        assert_eq!(options("nix-path"), [owned("nix-path", None), owned("extra-nix-path", None)]);
        assert!(options("sandbox").contains(&owned("relaxed-sandbox", Some("relaxed"))));
    }
}
