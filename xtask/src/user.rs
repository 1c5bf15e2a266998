//! Who logs in to an instance, and runs programs in it.

use std::fs;

use anyhow::{Context, Result};

use crate::exec;
use crate::instance::Instance;

/// A user of every instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum User {
    /// Who writes the stores directly
    Root,
    /// An ordinary user whom Nix's daemon trusts
    Trusted,
    /// One whom it does not trust
    Untrusted,
}

impl User {
    /// The name to log in with.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Trusted => "trusted",
            Self::Untrusted => "untrusted",
        }
    }

    /// The number of the user, and of the group that has only this user.
    pub(crate) const fn id(self) -> u32 {
        match self {
            Self::Root => 0,
            Self::Trusted => 1234,
            Self::Untrusted => 1235,
        }
    }

    /// The absolute path of the home directory.
    pub(crate) fn home(self) -> String {
        if self == Self::Root { "/root".to_owned() } else { format!("/home/{}", self.name()) }
    }

    /// Makes both ordinary users. By hand: the roots have no useradd. '*' is no password, and no locked account either.
    pub(crate) fn add_all(instance: &Instance) -> Result<()> {
        for user in [Self::Trusted, Self::Untrusted] {
            let (name, id, home) = (user.name(), user.id(), user.home());
            instance.append("etc/passwd", &format!("{name}:x:{id}:{id}::{home}:/bin/bash"))?;
            instance.append("etc/group", &format!("{name}:x:{id}:"))?;
            instance.append("etc/shadow", &format!("{name}:*:19000:0:99999:7:::"))?;
            exec::make_folder(&instance.path(&home))?;
            user.give(instance, &home)?;
        }
        Ok(())
    }

    /// Makes this user the owner of a file.
    pub(crate) fn give(self, instance: &Instance, file: &str) -> Result<()> {
        std::os::unix::fs::chown(instance.path(file), Some(self.id()), Some(self.id()))
            .with_context(|| format!("cannot give {file} to {}", self.name()))
    }
}

impl Instance {
    /// Adds a line to a file of this instance that is there already.
    pub(crate) fn append(&self, file: &str, line: &str) -> Result<()> {
        let file = self.path(file);
        let text = fs::read_to_string(&file).with_context(|| format!("no {}", file.display()))?;
        exec::write_file(&file, format!("{text}{line}\n"))
    }
}
