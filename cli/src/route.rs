//! From where to where: which of the words on a command line name hosts.

use std::ffi::{OsStr, OsString};

use clap::ArgMatches;

/// Both ends of a copy as they were typed. `None` is the local store, whichever that is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) from: Option<String>,
    pub(crate) to: Option<String>,
}

impl Route {
    /// Reads it from `--from` and `--to`, and from `words`, of which it leaves the paths.
    ///
    /// As for upstream, HOST is the first word, and the last of both options is the direction. It is only where each of them
    /// stands right in front of a word that can be no path, `--from A --to B`, that there are two hosts.
    pub(crate) fn read(matches: &ArgMatches, host: Option<&String>, words: &mut Vec<OsString>) -> Self {
        let place =
            |option| matches.get_flag(option).then(|| matches.indices_of(option)?.next_back()).flatten();
        let (from, to) = (place("from"), place("to"));
        let Some(host) = host else { return Self::default() };
        if let (Some(from), Some(to)) = (from, to) {
            let places = |name| matches.indices_of(name).into_iter().flatten();
            let all: Vec<(usize, OsString)> = places("host")
                .chain(places("paths"))
                .zip([host.into()].into_iter().chain(words.clone()))
                .collect();
            let behind = |option: usize| {
                let (_, word) = all.iter().find(|(place, _)| *place == option + 1)?;
                word.to_str().filter(|_| !is_path(word)).map(str::to_owned)
            };
            if let (Some(first), Some(second)) = (behind(from), behind(to)) {
                let is_host = |place: &usize| [from + 1, to + 1].contains(place);
                *words = all.into_iter().filter(|(place, _)| !is_host(place)).map(|(_, word)| word).collect();
                return Self { from: Some(first), to: Some(second) };
            }
        }
        let host = Some(host.clone());
        if from > to { Self { from: host, to: None } } else { Self { from: None, to: host } }
    }

    /// Whether both ends are named.
    pub(crate) fn is_complete(&self) -> bool {
        self.from.is_some() && self.to.is_some()
    }
}

/// Whether a word can only stand for paths.
fn is_path(word: &OsStr) -> bool {
    let text = word.to_string_lossy();
    let authority = text.split_once("://").map_or(&*text, |(_, rest)| rest.trim_end_matches('/'));
    let (authority, _) = authority.split_once('?').unwrap_or((authority, ""));
    authority.contains('/') || authority.starts_with(['.', '@'])
}
