//! What Nix on this machine has been told: its settings, and which store is the local one.

use std::{fmt, path::Path};

use ncc_copy::Signatures;
use ncc_local_store::{
    Access, CaseHack, DatabaseSync, Defaults, Durability, Journal, LocalStoreConfig, Medium, Optimise,
    Symlinks,
};
use ncc_settings::{
    Class, Disk, Environment, LocalLayout, LocalStoreSettings, Origin, Parameters, Remark, Settings,
    StoreChoice, StoreKind, StorePlace,
};

use ncc_store::{SecretKey, StoreDir};

use crate::{arguments::Arguments, failure::Failure, intent::Uses};

/// Settings of all sources, with those of the command line on top.
pub(crate) struct Machine {
    settings: Settings,
    store: StoreChoice,
    local: LocalStoreSettings,
    store_dir: StoreDir,
}

impl Machine {
    /// With the local store that the command line names.
    pub(crate) fn read(arguments: &Arguments) -> Result<Self, Failure> {
        let store = arguments.stores.store.clone().map(|uri| ("store".to_owned(), uri));
        Self::told(&arguments.settings.iter().cloned().chain(store).collect::<Vec<_>>())
    }

    /// With another local store than the command line names; `None` is the default one.
    pub(crate) fn of(arguments: &Arguments, store: Option<&str>) -> Result<Self, Failure> {
        let store = store.map(|uri| ("store".to_owned(), uri.to_owned()));
        let others = arguments.settings.iter().filter(|(name, _)| name != "store");
        Self::told(&others.cloned().chain(store).collect::<Vec<_>>())
    }

    fn told(given: &[(String, String)]) -> Result<Self, Failure> {
        let environment = Environment::from_process()
            .map_err(|error| Failure::new("the working directory cannot be used", error))?;
        let settings = Settings::load(&environment, &Disk, given).map_err(|error| Failure::plain(&error))?;
        let local = settings.local_store(&environment).map_err(|error| Failure::plain(&error))?;
        let named = |error| Failure::new("the local store cannot be found", error);
        let store = StoreChoice::new(&settings, &environment, &Disk).map_err(named)?;
        let store_dir = environment.store_dir().map_err(|error| Failure::plain(&error))?;
        Ok(Self { settings, store, local, store_dir })
    }

    /// The host that is named in place of the local store.
    pub(crate) fn store_on_host(&self) -> Option<&str> {
        matches!(self.store.reference.kind, StoreKind::Ssh | StoreKind::SshNg)
            .then_some(self.store.reference.text.as_str())
    }

    /// Whether somebody names a store on this very command line.
    pub(crate) fn store_is_given(&self) -> bool {
        self.store.origin == Origin::CommandLine
    }

    /// The logical store directory of stores that name none.
    pub(crate) fn store_dir(&self) -> &StoreDir {
        &self.store_dir
    }

    /// Says once what is not done, and with `-v` what is without effect and which store is meant.
    ///
    /// # Errors
    /// For options that would have an effect which is not given.
    pub(crate) fn announce(&self, arguments: &Arguments, uses: Uses) -> Result<(), Failure> {
        let review = self.settings.review();
        if let Some(refused) = review.refused.first() {
            return Err(Failure::plain(refused));
        }
        let mut without_effect = review.without_effect;
        for flag in &arguments.flags {
            match flag.class {
                Class::NotGiven { reason, .. } => {
                    return Err(Failure::text(format!("'--{}' is not supported: {reason}", flag.name)));
                }
                _ => without_effect.push(flag.name),
            }
        }
        if !(arguments.how.use_substitutes && uses == Uses::Adds) {
            without_effect.extend(review.substituting);
        }
        // What other options have made count.
        without_effect.retain(|name| match *name {
            "secret-key-files" => !(arguments.trust.sign || arguments.trust.check_sigs),
            "require-sigs" | "trusted-public-keys" => {
                !(arguments.trust.check_sigs || arguments.nix_copy.is_meant)
            }
            _ => true,
        });
        for remark in &review.unknown {
            tracing::warn!("{remark}");
        }
        for remark in &review.missed {
            if uses == Uses::Adds && !arguments.what.dry_run {
                tracing::warn!("{remark}");
            } else {
                tracing::info!("{remark}");
            }
        }
        for (path, error) in self.settings.unreadable() {
            tracing::info!("'{}' cannot be read and is skipped: {error}", path.display());
        }
        if arguments.settings.iter().any(|(name, _)| name == "timeout") {
            tracing::warn!(
                "'--timeout' limits builds, not copies; '--stall-timeout' is the limit for copies"
            );
        }
        if !without_effect.is_empty() {
            without_effect.sort_unstable();
            tracing::info!("these settings have no effect on a copy: {}", without_effect.join(", "));
        }
        if uses == Uses::Nothing {
            return Ok(());
        }
        tracing::info!("{}", self.store);
        say_of_parameters(&self.store.reference.parameters, &self.store.reference.kind)
    }

    /// The first setting of the command line that would have an effect which is not given.
    pub(crate) fn refused(&self) -> Option<Remark> {
        self.settings.review().refused.into_iter().next()
    }

    /// Whether the settings ask to go on after a failure, where the command line says nothing of it.
    pub(crate) fn keeps_going(&self) -> Result<bool, Failure> {
        let switch = self.settings.switch("keep-going").map_err(|error| Failure::plain(&error))?;
        Ok(switch.unwrap_or(false))
    }

    /// The keys that sign what is copied.
    pub(crate) fn signing_keys(&self, arguments: &Arguments) -> Result<Vec<SecretKey>, Failure> {
        let refused = |error| Failure::plain(&error);
        let trust = &arguments.trust;
        let files = trust.sign_key.iter().map(|file| ncc_settings::read_secret_key(file, &Disk));
        let mut keys: Vec<_> = files.collect::<Result<_, _>>().map_err(refused)?;
        if trust.sign {
            let named = self.settings.secret_keys(&Disk).map_err(refused)?;
            if named.is_empty() {
                return Err(Failure::text(
                    "'--sign' has no key: the setting 'secret-key-files' names no file",
                )
                .hint("'--sign-key FILE' signs with the key in FILE"));
            }
            keys.extend(named);
        }
        Ok(keys)
    }

    /// What is asked of signatures at this end.
    pub(crate) fn signatures(&self, arguments: &Arguments, uses: Uses) -> Result<Signatures, Failure> {
        let trust = &arguments.trust;
        let keys = || self.settings.trusted_keys(&Disk).map_err(|error| Failure::plain(&error));
        Ok(if trust.check_sigs {
            match keys()? {
                Some(keys) => Signatures::SignedBy(keys.into()),
                None => {
                    let origin = self.settings.origin("require-sigs");
                    tracing::warn!("'--check-sigs' checks nothing: 'require-sigs' is false ({origin})");
                    Signatures::AsDemanded
                }
            }
        } else if trust.no_check_sigs {
            Signatures::Unchecked
        } else if arguments.nix_copy.is_meant && uses == Uses::Adds && self.daemon().is_none() {
            // The receiving store is this process.
            keys()?.map_or(Signatures::AsDemanded, |keys| Signatures::SignedBy(keys.into()))
        } else {
            Signatures::AsDemanded
        })
    }

    /// The local store, to be opened by this process.
    pub(crate) fn local_store(&self, access: Access) -> Result<LocalStoreConfig, Failure> {
        let writes = access == Access::ReadWrite;
        match &self.store.place {
            StorePlace::Local(layout) if writes && layout.read_only => {
                Err(self.refuse("it is read-only, by its parameter 'read-only'"))
            }
            StorePlace::Local(layout) => Ok(self.config(layout)),
            StorePlace::Daemon { socket, .. } if writes && !socket.exists() => {
                let why = format!("no daemon listens at '{}'", socket.display());
                Err(self
                    .refuse(why)
                    .hint("'--store local' opens the store without a daemon, which needs its owner's rights"))
            }
            StorePlace::Daemon { socket, layout } => {
                if !writes {
                    // Everybody may read the files of such a store, which is faster.
                    tracing::info!(
                        "the daemon at '{}' is not asked: the store is only read, and directly",
                        socket.display()
                    );
                }
                Ok(self.config(layout))
            }
            _ => Err(match &self.store.reference.kind {
                StoreKind::Foreign { what, .. } => {
                    self.refuse(format!("it is {what}, which is not supported"))
                }
                _ => self.refuse("it is on another machine, and what is served has to be on this one"),
            }),
        }
    }

    /// The socket of the daemon that writes to the local store.
    pub(crate) fn daemon(&self) -> Option<&Path> {
        match &self.store.place {
            StorePlace::Daemon { socket, .. } => Some(socket),
            _ => None,
        }
    }

    /// How to name the same store to the Nix of this machine; `None` is its default.
    pub(crate) fn store_uri(&self) -> Option<String> {
        match (&self.store.reference.kind, &self.store.place) {
            (StoreKind::Auto, StorePlace::Local(LocalLayout { root: Some(root), .. })) => {
                Some(root.display().to_string())
            }
            (StoreKind::Auto | StoreKind::Daemon { socket: None }, _) => None,
            _ => Some(self.store.reference.text.clone()),
        }
    }

    fn config(&self, layout: &LocalLayout) -> LocalStoreConfig {
        let mut config = match &layout.root {
            Some(root) => LocalStoreConfig::chroot(root),
            None => LocalStoreConfig::system(&Defaults::default()),
        };
        let usual = match &layout.root {
            Some(_) => config.real_store_dir.as_path(),
            None => Path::new(layout.store_dir.as_str()),
        };
        if layout.real_store_dir != usual {
            config.name = format!("the store in {}", layout.real_store_dir.display());
        }
        config.store_dir = layout.store_dir.clone();
        config.real_store_dir.clone_from(&layout.real_store_dir);
        config.state_dir.clone_from(&layout.state_dir);
        if layout.read_only {
            config.medium = Medium::ReadOnly;
        }
        let local = &self.local;
        config.symlinks = if local.allow_symlinked_store { Symlinks::Allow } else { Symlinks::Refuse };
        config.case_hack = if local.use_case_hack { CaseHack::On } else { CaseHack::Off };
        config.ignored_acls.clone_from(&local.ignored_acls);
        // Unless it is denied: what was copied is still there after a power cut.
        config.durability = if local.fsync_store_paths == Some(false) && !local.sync_before_registering {
            Durability::System
        } else {
            Durability::BeforeRegistration
        };
        if !local.fsync_metadata {
            config.database_sync = DatabaseSync::Off;
        }
        if local.use_sqlite_wal == Some(false) {
            config.journal = Journal::Rollback;
        }
        if local.auto_optimise_store {
            config.optimise = Optimise::NewObjects;
        }
        config
    }

    fn refuse(&self, why: impl fmt::Display) -> Failure {
        let origin = match &self.store.origin {
            Origin::CommandLine => String::new(),
            origin => format!(" ({origin})"),
        };
        Failure::text(format!("the store '{}'{origin} cannot be opened: {why}", self.store.reference))
    }
}

/// Says which parameters of a store are not known, and with `-v` which have no effect.
pub(crate) fn say_of_parameters(parameters: &Parameters, kind: &StoreKind) -> Result<(), Failure> {
    for remark in parameters.review(kind).map_err(|error| Failure::plain(&error))? {
        if remark.is_warning() {
            tracing::warn!("{remark}");
        } else {
            tracing::info!("{remark}");
        }
    }
    Ok(())
}
