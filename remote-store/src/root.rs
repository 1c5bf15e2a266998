//! Garbage collector roots that last: neither protocol can make them in the name of whoever logs in, but Nix's own programs can.

use std::{fmt, sync::Arc, time::Duration};

use ncc_store::{StoreDir, StorePath};
use ncc_transport::{Input, LineSink, RemoteCommand, Transport};

use crate::{
    Elevation, RemoteError, STALL_TIMEOUT, ServeProgram,
    options::places,
    run::{NOTHING, Run},
};

/// How many paths fit into one command line whatever their names are.
const MOST_PATHS: usize = 400;

/// What is to keep paths from the garbage collector after a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewRoot {
    /// A symlink to the path, as `nix-store --add-root` makes it; a further path gets `LINK-2`, the next `LINK-3`. One that leads
    /// into a store already is replaced.
    Link(String),
    /// A new generation of this profile, as `nix-env --set` makes it; for one path.
    Profile(String),
}

impl fmt::Display for NewRoot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(link) => write!(formatter, "the root '{link}'"),
            Self::Profile(profile) => write!(formatter, "a generation of the profile '{profile}'"),
        }
    }
}

/// The Nix of a machine, to make roots with. Fields may be added.
#[derive(Clone)]
#[non_exhaustive]
pub struct RootMaker {
    /// A program of that Nix; the others are beside it. A search looks for each of them.
    pub program: ServeProgram,
    /// As whom it runs.
    pub elevation: Elevation,
    /// `--store URI`; `None` is the default store there.
    pub store: Option<String>,
    /// The logical store directory.
    pub store_dir: StoreDir,
    /// Is handed each line that it writes to stderr.
    pub stderr: Option<LineSink>,
    /// How long it may be silent, perhaps since a garbage collector is at work; [`STALL_TIMEOUT`] by default.
    pub stall_timeout: Option<Duration>,
}

impl Default for RootMaker {
    fn default() -> Self {
        Self {
            program: ServeProgram::default(),
            elevation: Elevation::default(),
            store: None,
            store_dir: StoreDir::default(),
            stderr: None,
            stall_timeout: Some(STALL_TIMEOUT),
        }
    }
}

impl fmt::Debug for RootMaker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RootMaker")
            .field("program", &self.program)
            .field("elevation", &self.elevation)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

/// Why there is no root.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootError {
    /// The machine could not be reached once more.
    #[error("{root} was not made on {host}")]
    Transport {
        /// What was to be made.
        root: NewRoot,
        /// Where.
        host: String,
        /// Why.
        source: Arc<RemoteError>,
    },
    /// Its Nix did not make it.
    #[error("{root} was not made on {host}: {reason}")]
    Refused {
        /// What was to be made.
        root: NewRoot,
        /// Where.
        host: String,
        /// What it says, or how it ended.
        reason: String,
    },
    /// So many cannot be named in one command.
    #[error("{root} cannot be made of {count} paths: at most {most}", most = match root {
        NewRoot::Link(_) => MOST_PATHS,
        NewRoot::Profile(_) => 1,
    })]
    TooMany {
        /// What was to be made.
        root: NewRoot,
        /// For so many paths.
        count: usize,
    },
}

impl RootMaker {
    /// Makes `root` for paths that are valid there, on the machine that `transport` leads to. They have to be protected until
    /// this returns: the session that added them, or asked for them, must still be open.
    pub async fn make(
        &self,
        transport: &dyn Transport,
        root: &NewRoot,
        paths: &[StorePath],
    ) -> Result<(), RootError> {
        Self::check(root, paths.len())?;
        let host = transport.describe();
        let (name, command) = self.command(root, paths);
        tracing::debug!(%host, %command, "making a root");
        let run = Run {
            command: &command,
            program: name,
            stall_timeout: self.stall_timeout,
            stderr: self.stderr.clone(),
            most: NOTHING,
        };
        let host = format!("host '{host}'");
        match run.finish(transport, b"").await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(reason)) => Err(RootError::Refused { root: root.clone(), host, reason }),
            Err(error) => {
                Err(RootError::Transport { root: root.clone(), host, source: Arc::new(error.into()) })
            }
        }
    }

    /// Whether one command can name so many paths.
    pub fn check(root: &NewRoot, count: usize) -> Result<(), RootError> {
        let most = if matches!(root, NewRoot::Profile(_)) { 1 } else { MOST_PATHS };
        if count <= most { Ok(()) } else { Err(RootError::TooMany { root: root.clone(), count }) }
    }

    /// The program's name, and how it is started.
    fn command(&self, root: &NewRoot, paths: &[StorePath]) -> (&'static str, RemoteCommand) {
        let paths: Vec<String> = paths.iter().map(|path| self.store_dir.full(path)).collect();
        let (name, mut arguments) = match root {
            // Before Nix 2.4 a root outside of the state directory has to be called indirect; later it is all the same.
            NewRoot::Link(link) => ("nix-store", vec!["--add-root", link, "--indirect", "--realise"]),
            NewRoot::Profile(profile) => ("nix-env", vec!["--profile", profile, "--set"]),
        };
        arguments.extend(paths.iter().map(String::as_str));
        if let Some(uri) = &self.store {
            arguments.extend(["--store", uri]);
        }
        let program = self.program.beside(name);
        (name, program.command(name, places(name), arguments, self.elevation, Input::Stdin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(maker: &RootMaker, root: &NewRoot) -> String {
        let path = maker.store_dir.parse("/nix/store/ab3li50xq0nl4q5lxdyinb8w8y13my9s-a").unwrap();
        maker.command(root, &[path]).1.to_shell().to_string_lossy().into_owned()
    }

    #[test]
    fn the_programs_of_the_same_nix_are_started() {
        let link = NewRoot::Link("/srv/it's".into());
        let profile = NewRoot::Profile("/nix/var/nix/profiles/system".into());
        let path = "/nix/store/ab3li50xq0nl4q5lxdyinb8w8y13my9s-a";
        let mut maker =
            RootMaker { program: ServeProgram::Named("nix-store".into()), ..RootMaker::default() };
        assert_eq!(
            shell(&maker, &link),
            format!(r"nix-store --add-root /srv/it\'s --indirect --realise {path}")
        );
        maker.program = ServeProgram::Named("/opt/nix/bin/nix-daemon".into());
        maker.elevation = Elevation::Sudo;
        maker.store = Some("/mnt".into());
        assert_eq!(
            shell(&maker, &profile),
            format!(
                "sudo -n /opt/nix/bin/nix-env --profile /nix/var/nix/profiles/system --set {path} --store /mnt"
            )
        );
        assert!(shell(&maker, &link).starts_with("sudo -n /opt/nix/bin/nix-store --add-root"));
        maker.elevation = Elevation::None;
        maker.program = ServeProgram::Words(["env", "A=b", "nix-store"].map(Into::into).into());
        assert!(shell(&maker, &profile).contains(" nix-env --profile /nix"));
        maker.program = ServeProgram::Named("/root/wrapper".into());
        assert!(shell(&maker, &link).starts_with("/root/wrapper --add-root"));
        maker.program = ServeProgram::Search;
        assert!(shell(&maker, &profile).contains("/run/current-system/sw/bin/nix-env"));
    }

    #[test]
    fn a_profile_has_one_path_at_a_time() {
        let (profile, link) = (NewRoot::Profile("p".into()), NewRoot::Link("l".into()));
        assert!(RootMaker::check(&profile, 1).is_ok() && RootMaker::check(&link, MOST_PATHS).is_ok());
        let error = RootMaker::check(&profile, 2).unwrap_err().to_string();
        assert_eq!(error, "a generation of the profile 'p' cannot be made of 2 paths: at most 1");
        assert!(RootMaker::check(&link, MOST_PATHS + 1).is_err());
    }
}
