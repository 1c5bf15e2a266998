//! The ways to a server on a host, and which of them is tried where another one does not get through.

use std::sync::Arc;

use ncc_transport::{CommandOnHost, Connector, RemoteCommand, Transport, UnixSocket};

use crate::{
    ServeOptions, ServeProgram, Spoken,
    options::{DAEMON, NIX_STORE},
};

/// What is spoken over a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    /// With `nix-store --serve`.
    Serve,
    /// With a daemon.
    Daemon,
}

/// A way to a server.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) language: Language,
    /// How messages call what is at its end.
    pub(crate) program: String,
    /// Why it is this one, if there is more to say than that it comes first.
    pub(crate) why: String,
    /// Goes through a script, which says when it has started.
    pub(crate) is_script: bool,
    /// What is tried where the account does not let it pass.
    pub(crate) refused: Option<usize>,
    /// What is tried where the program does not know what it is asked for.
    pub(crate) lacking: Option<usize>,
}

/// All ways to a server; the first is tried first.
#[derive(Debug)]
pub(crate) struct Routes {
    list: Vec<Route>,
    /// What is known by the name of it.
    pub(crate) name: String,
    /// The way that a script goes by itself where there is no serve protocol.
    pub(crate) found: Option<usize>,
    transport: Option<Arc<dyn Transport>>,
}

/// Of an account that runs certain commands only.
const ONLY_PLAIN: &str = "the account does not let everything pass";

impl Routes {
    /// To the daemon that listens here.
    pub(crate) fn to_socket(name: String, socket: UnixSocket) -> Self {
        let route = Route {
            connector: Arc::new(socket),
            language: Language::Daemon,
            program: "the daemon".to_owned(),
            why: String::new(),
            is_script: false,
            refused: None,
            lacking: None,
        };
        Self { list: vec![route], name, found: None, transport: None }
    }

    /// To what serves a store on a host.
    pub(crate) fn to_host(transport: &Arc<dyn Transport>, options: &ServeOptions) -> Self {
        let searches = options.program == ServeProgram::Search;
        let route = |language, command: RemoteCommand, program: &str, why: &str| Route {
            connector: Arc::new(CommandOnHost::new(Arc::clone(transport), command)),
            language,
            program: program.to_owned(),
            why: why.to_owned(),
            is_script: false,
            refused: None,
            lacking: None,
        };
        let script = |route: Route, refused| Route { is_script: true, refused: Some(refused), ..route };
        // The same program, started such that it says when it runs.
        let by_script = |language, name: &str, arguments, why: &str| {
            let script = options.program.script(name, Vec::new(), arguments, options.elevation);
            Route { is_script: true, ..route(language, script.command(), name, why) }
        };
        let serve = |program, why| {
            route(Language::Serve, options.serve_command(program), program.name(NIX_STORE), why)
        };
        let daemon = |program, why| {
            route(Language::Daemon, options.daemon_command(program), program.name(DAEMON), why)
        };
        let [plain_serve, plain_daemon] =
            [NIX_STORE, DAEMON].map(|name| ServeProgram::Named(name.to_owned()));
        let said = "its scheme is 'ssh-ng'";
        let (list, found) = match options.spoken {
            Spoken::Daemon if searches => {
                (vec![script(daemon(&options.program, said), 1), daemon(&plain_daemon, ONLY_PLAIN)], None)
            }
            Spoken::Daemon => {
                let first = Route { refused: Some(1), ..daemon(&options.program, said) };
                let second = by_script(Language::Daemon, &first.program, options.daemon_arguments(), said);
                (vec![first, second], None)
            }
            Spoken::AsFound if searches => {
                let list = vec![
                    Route { lacking: Some(3), ..script(serve(&options.program, ""), 1) },
                    Route { refused: Some(2), lacking: Some(2), ..serve(&plain_serve, ONLY_PLAIN) },
                    daemon(&plain_daemon, ONLY_PLAIN),
                    script(daemon(&options.program, ""), 2),
                ];
                (list, Some(3))
            }
            Spoken::AsFound => {
                let name = options.program.name(NIX_STORE);
                let why = format!("'{name}' does not know the serve protocol");
                let beside = daemon(&options.program.beside(DAEMON), &why);
                let first = Route { refused: Some(2), lacking: Some(1), ..serve(&options.program, "") };
                let second = by_script(Language::Serve, &first.program, options.serve_arguments(), "");
                let second = Route { lacking: Some(1), ..second };
                (vec![first, beside, second], None)
            }
        };
        let name = format!("host '{}'", transport.describe());
        Self { list, name, found, transport: Some(Arc::clone(transport)) }
    }

    /// A way of its own to a server of the serve protocol, through a script.
    pub(crate) fn apart(&self, connector: Arc<dyn Connector>) -> Route {
        Route {
            connector,
            language: Language::Serve,
            program: self.list.first().map_or_else(String::new, |first| first.program.clone()),
            why: String::new(),
            is_script: true,
            refused: None,
            lacking: None,
        }
    }

    /// The way of this number. There is a first, and only numbers of others in ways.
    pub(crate) fn get(&self, number: usize) -> Option<&Route> {
        self.list.get(number)
    }

    /// Whether from now on a further connection needs no login of its own.
    pub(crate) fn share(&self) -> bool {
        self.transport.as_ref().is_some_and(|transport| transport.share())
    }

    /// Tells whoever wants to know what this way leads to, and why it is gone.
    pub(crate) fn tell(&self, route: &Route, found: Option<&Found>) {
        if self.transport.is_none() {
            return;
        }
        let program = found.map_or(&*route.program, |found| &*found.program);
        let flag = match route.language {
            Language::Serve => "--serve",
            Language::Daemon => "--stdio",
        };
        let why = found.map_or(&*route.why, |found| &*found.why);
        let colon = if why.is_empty() { "" } else { ": " };
        tracing::info!("{} is asked through '{program} {flag}'{colon}{why}", self.name);
    }
}

/// What a script has become in the place of its first choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) program: String,
    pub(crate) why: String,
}

#[cfg(test)]
mod tests {
    use ncc_transport::LocalProcess;

    use super::*;

    fn commands(options: &ServeOptions) -> Vec<String> {
        let routes = Routes::to_host(&(Arc::new(LocalProcess::new()) as Arc<dyn Transport>), options);
        let numbers = |route: &Route| [route.refused, route.lacking];
        let exist = routes.list.iter().flat_map(numbers).chain([routes.found]).flatten();
        assert!(exist.max().is_none_or(|number| number < routes.list.len()));
        routes.list.iter().map(|route| format!("{:?}", route.connector)).collect()
    }

    #[test]
    fn a_search_has_plain_commands_to_fall_back_to() {
        let commands = commands(&ServeOptions::default());
        assert!(
            commands[0].contains("ncc-started")
                && commands[0].contains("--serve")
                && commands[0].contains("--stdio")
        );
        assert!(!commands[1].contains("ncc-started") && commands[1].contains("--serve"));
        assert!(!commands[2].contains("ncc-started") && commands[2].contains("--stdio"));
        assert!(commands[3].contains("ncc-started") && !commands[3].contains("--serve"));
    }

    #[test]
    fn a_named_program_has_at_most_a_script_and_its_neighbour() {
        let mut options = ServeOptions {
            program: ServeProgram::Named("/opt/bin/nix-store".into()),
            ..ServeOptions::default()
        };
        let both = commands(&options);
        assert_eq!(both.len(), 3);
        assert!(both[1].contains("/opt/bin/nix-daemon") && both[1].contains("--stdio"), "{}", both[1]);
        assert!(both[2].contains("ncc-started") && both[2].contains("--serve"), "{}", both[2]);
        options.spoken = Spoken::Daemon;
        assert_eq!(commands(&options).len(), 2);
    }
}
