//! What a `nix copy` copies between which stores, in the terms of `nix-copy-closure`. Here the local store and symlinks are looked
//! at, which is the last moment to hand on: from then on something may have been said, or sent.

#![allow(clippy::struct_excessive_bools, reason = "they are switches of a command line")]

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    error::Error,
    ffi::OsString,
};

use ncc_local_store::{Access, LocalStore, LocalStoreConfig};
use ncc_progress::chain;
use ncc_settings::{StoreKind, StoreReference};
use ncc_store::{DerivationOutput, StorePath};

use super::{HandOn, command_line::CommandLine};
use crate::{arguments::Arguments, failure::Failure, machine::Machine, roots, route::Route};

/// One end of a copy.
enum End {
    /// On this machine: its URI, or the default store.
    Here(Option<String>),
    /// On another one: its URL.
    There(String),
}

impl End {
    fn new(uri: Option<String>) -> Result<Self, HandOn> {
        let Some(uri) = uri else { return Ok(Self::Here(None)) };
        let here = env::current_dir()
            .map_err(|error| HandOn::new(format!("there is no working directory ({error})")))?;
        let reference = StoreReference::parse(&uri, &here);
        match reference.map_err(|error| HandOn::new(format!("'{uri}' is given ({error})")))?.kind {
            StoreKind::Ssh | StoreKind::SshNg => Ok(Self::There(uri)),
            StoreKind::Foreign { what, .. } => Err(HandOn::new(format!("'{uri}' is {what}"))),
            _ => Ok(Self::Here(Some(uri))),
        }
    }
}

/// What is still to be found out about a copy.
pub(super) struct Copy {
    installables: Vec<String>,
    stdin: bool,
    all: bool,
    no_recursive: bool,
    derivation: bool,
    out_link: Option<String>,
    ends: Ends,
}

/// Which ends are on this machine.
#[derive(PartialEq, Eq)]
enum Ends {
    OneHere {
        source: bool,
    },
    /// With the URI of the source; `None` is the default store. The destination is then what `--store` names.
    BothHere {
        source: Option<String>,
    },
    TwoHosts,
}

impl CommandLine {
    /// The command line of `nix-copy-closure` that comes nearest, and what is left to do.
    pub(super) fn in_terms_of_nix_copy_closure(self) -> Result<(Vec<OsString>, Copy), HandOn> {
        let Self {
            from,
            to,
            installables,
            stdin,
            all,
            no_recursive,
            derivation,
            no_check_sigs,
            out_link,
            store,
            shared,
        } = self;
        if from.is_none() && to.is_none() {
            return Err(HandOn::new("neither '--from' nor '--to' is given"));
        }
        if (installables.is_empty() && !stdin) != all {
            return Err(HandOn::new("what is to be copied is not said"));
        }
        let end = |uri: Option<String>| End::new(uri.or_else(|| store.clone()));
        let (here, hosts, ends) = match (end(from)?, end(to)?) {
            (End::Here(here), End::There(host)) => {
                (here, vec!["--to".into(), host.into()], Ends::OneHere { source: true })
            }
            (End::There(host), End::Here(here)) => {
                (here, vec!["--from".into(), host.into()], Ends::OneHere { source: false })
            }
            (End::There(_), End::There(_)) if store.is_some() => {
                return Err(HandOn::new("'--store' is given for a copy between two hosts"));
            }
            (End::There(from), End::There(to)) => {
                (None, vec!["--from".into(), from.into(), "--to".into(), to.into()], Ends::TwoHosts)
            }
            // There is no host then, though its place has to be taken.
            (End::Here(source), End::Here(here)) => {
                (here, vec!["localhost".into()], Ends::BothHere { source })
            }
        };
        if let Some(word) = installables.iter().find(|word| !may_be_path(word)) {
            return Err(not_a_path(word));
        }
        let mut words: Vec<OsString> = vec!["nix copy".into()];
        words.extend(shared);
        words.extend(here.map(|here| format!("--store={here}").into()));
        words.extend(no_check_sigs.then(|| "--no-check-sigs".into()));
        words.extend(stdin.then(|| "--stdin".into()));
        words.extend(hosts);
        Ok((words, Copy { installables, stdin, all, no_recursive, derivation, out_link, ends }))
    }
}

impl Copy {
    /// Adds what only `nix copy` has to what was read.
    pub(super) fn complete(self, arguments: &mut Arguments) -> Result<(), HandOn> {
        let machine = Machine::read(arguments).map_err(unusable)?;
        if let Some(refused) = machine.refused() {
            return Err(HandOn::new(refused.to_string()));
        }
        if self.ends == Ends::TwoHosts && machine.store_is_given() {
            return Err(HandOn::new("'--store' is given for a copy between two hosts"));
        }
        let mut config = machine.local_store(Access::ReadOnly).map_err(unusable)?;
        if let Ends::BothHere { source } = &self.ends {
            arguments.route = Route::default();
            arguments.nix_copy.source.clone_from(source);
            let source = Machine::of(arguments, source.as_deref()).map_err(unusable)?;
            config = source.local_store(Access::ReadOnly).map_err(unusable)?;
        }
        let store_dir = config.store_dir.clone();
        let is_source = matches!(self.ends, Ends::OneHere { source: true } | Ends::BothHere { .. });
        // One that cannot be opened is said to be so later.
        let store = LocalStore::open(config.clone(), Access::ReadOnly).ok();
        let local = Local { config, store, is_source };
        let mut paths = Vec::new();
        for word in &self.installables {
            paths.extend(self.paths_of(word, &local)?);
        }
        if self.all {
            let source = local.source(|| "'--all' is given for a host".to_owned())?;
            paths = source.query_all_valid_paths().map_err(|error| unreadable(&error))?.into_iter().collect();
        } else if let (true, Some(source)) = (local.is_source, &local.store) {
            let valid = source.query_valid_paths(&paths).map_err(|error| unreadable(&error))?;
            if let Some(path) = paths.iter().find(|path| !valid.contains(*path)) {
                let path = store_dir.full(path);
                return Err(HandOn::new(format!("'{path}' would have to be built or substituted")));
            }
        }
        if let Some(link) = &self.out_link {
            arguments.keep.add_root = Some(self.root(link)?);
        }
        arguments.paths = paths.iter().map(|path| store_dir.full(path).into()).collect();
        arguments.nix_copy.is_meant = true;
        arguments.nix_copy.without_references = self.no_recursive;
        Ok(())
    }

    /// The store paths that a word stands for.
    fn paths_of(&self, word: &str, local: &Local) -> Result<Vec<StorePath>, HandOn> {
        let Some((path, outputs)) = word.rsplit_once('^') else {
            let path =
                roots::led_to(word.as_ref(), (&local.config).into()).ok_or_else(|| not_a_path(word))?;
            return Ok(vec![if self.derivation && !path.is_derivation() {
                let source = local.source(|| format!("the derivation of '{word}' on a host is asked for"))?;
                let derivers = source.query_derivers(&path).map_err(|error| unreadable(&error))?;
                derivers
                    .into_iter()
                    .next()
                    .ok_or_else(|| HandOn::new(format!("'{word}' has no known derivation")))?
            } else {
                path
            }]);
        };
        // With outputs, it has to be the derivation's own path.
        let derivation = local.config.store_dir.parse(path).map_err(|_| not_a_path(word))?;
        if self.derivation {
            return Ok(vec![derivation]);
        }
        let known = local.outputs(&derivation, word)?;
        let wanted: BTreeSet<&str> = if outputs == "*" {
            known.keys().map(String::as_str).collect()
        } else {
            outputs.split(',').collect()
        };
        let path = |name| match known.get(name).and_then(DerivationOutput::path) {
            Some(path) => Ok(path.clone()),
            None => Err(HandOn::new(format!("'{path}' has no output '{name}' whose path is known"))),
        };
        wanted.into_iter().map(path).collect()
    }

    /// The name of the one root: Nix numbers several in another way than `nix-store --add-root` does, which makes ours.
    fn root(&self, link: &str) -> Result<String, HandOn> {
        let [word] = &*self.installables else {
            return Err(HandOn::new("'--out-link' is given for several paths"));
        };
        if self.stdin {
            return Err(HandOn::new("'--out-link' is given for several paths"));
        }
        match word.rsplit_once('^').filter(|_| !self.derivation) {
            None | Some((_, "out")) => Ok(link.to_owned()),
            Some((_, output)) if !output.contains([',', '*']) => Ok(format!("{link}-{output}")),
            Some(_) => Err(HandOn::new("'--out-link' is given for several outputs")),
        }
    }
}

/// The store of this machine, whichever end it is.
struct Local {
    config: LocalStoreConfig,
    store: Option<LocalStore>,
    is_source: bool,
}

impl Local {
    /// The store, if it is the source.
    fn source(&self, otherwise: impl FnOnce() -> String) -> Result<&LocalStore, HandOn> {
        self.store.as_ref().filter(|_| self.is_source).ok_or_else(|| HandOn::new(otherwise()))
    }

    /// What a derivation, which says the same everywhere, says of its outputs.
    fn outputs(
        &self,
        derivation: &StorePath,
        word: &str,
    ) -> Result<BTreeMap<String, DerivationOutput>, HandOn> {
        let Some(store) = &self.store else {
            return Err(HandOn::new(format!("'{word}' is given, and the derivation is not here")));
        };
        Ok(store.derivation(derivation).map_err(|error| unreadable(&error))?.outputs)
    }
}

/// Whether Nix tries to take a word for a path: for everything else it is a flake.
fn may_be_path(word: &str) -> bool {
    word.rsplit_once('^').map_or(word, |(path, _)| path).contains('/')
}

fn not_a_path(word: &str) -> HandOn {
    HandOn::new(format!("'{word}' is not a store path"))
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unusable(failure: Failure) -> HandOn {
    HandOn::new(format!("there is no store here that this program could open ({})", failure.message()))
}

fn unreadable(error: &(dyn Error + 'static)) -> HandOn {
    HandOn::new(format!("the local store does not tell what is meant ({})", chain(error)))
}
